"""What rattler makes of a channel: solving and installing, for tests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import rattler
from rattler import GenericVirtualPackage, MatchSpec, PackageName, Subdir, Version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rattler import RepoDataRecord

__all__ = ["install", "solve"]

_ARCHSPEC = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}


def solve(url: str, *specs: str, subdir: str = "linux-64") -> list[RepoDataRecord]:
    """Rattler's answer for `specs` from the channel at `url`."""
    versions = {"__unix": ("0", "0"), "__linux": ("4.18", "0"), "__glibc": ("2.28", "0")}
    versions["__archspec"] = ("1", _ARCHSPEC[subdir])
    virtual = [
        GenericVirtualPackage(PackageName(name), Version(version), rattler.BuildString(build))
        for name, (version, build) in versions.items()
    ]
    return asyncio.run(
        rattler.solve(
            sources=[rattler.Channel(url)],
            specs=[MatchSpec(spec) for spec in specs],
            platforms=[Subdir(subdir), Subdir("noarch")],
            virtual_packages=virtual,
        )
    )


def install(
    records: Sequence[RepoDataRecord],
    target: Path,
    *,
    cache: Path,
    prefix: str | None = None,
    subdir: str = "linux-64",
) -> Path:
    """Install into `target` as if it were to live at `prefix` (None: it stays where it is); returns `target`."""
    asyncio.run(
        rattler.install(
            list(records),
            target,
            cache_dir=cache,
            platform=Subdir(subdir),
            show_progress=False,
            execute_link_scripts=False,
            alternative_target_prefix=prefix,
        )
    )
    return target
