"""A tiny environment for the benchmarks: two builds of one package, and another for each platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.workspaces import make_ground, tiny_base
from tests.support.channel import write_channel
from tests.support.conda import CondaPackage, Regular, binary

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.workspaces import Ground

__all__ = ["tiny_ground"]


def tiny_ground(root: Path) -> Ground:
    """The ground, with `changing` as the package that changes."""
    native = [
        CondaPackage(
            name="native",
            subdir=subdir,
            files={"lib/native.so": Regular(content=binary(), placeholder="binary"), "share/native": subdir},
        )
        for subdir in ("linux-64", "linux-aarch64")
    ]
    changing = [
        CondaPackage(
            name="changing",
            build=str(build),
            build_number=build,
            noarch="generic",
            files={"share/changing": str(build)},
        )
        for build in (0, 1)
    ]
    channel = write_channel(root / "channel", [*native, *changing])
    return make_ground("tiny", root / "ground", channel, changing="changing", base=tiny_base())
