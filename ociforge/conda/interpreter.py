"""The environment's own interpreter, installed here to be run: for compiling bytecode, the one thing that needs it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import rattler
from rattler import RepoDataRecord
from rattler.package_cache import PackageCache
from rattler.platform import Subdir

from ociforge.conda.fetch import fetched
from ociforge.conda.translate import RATTLER_ERRORS, reason
from ociforge.errors import PackageError
from ociforge.events import ignore
from ociforge.network import ONLINE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ociforge.events import Notify
    from ociforge.network import Network

__all__ = ["install_interpreter", "runs_here"]

_CHANNEL = "file:///"  # rattler wants a channel for each record; nothing of it is kept


def runs_here(subdir: str) -> bool:
    """Whether this machine runs programs of the conda `subdir` by itself."""
    return str(Subdir.current()) == subdir


def install_interpreter(
    records: Sequence[RepoDataRecord],
    *,
    cache: Path,
    staging: Path,
    retries: int = 3,
    network: Network = ONLINE,
    notify: Notify = ignore,
) -> Path:
    """Install `python` and what it depends on, of `records`, below the empty directory `staging`; its executable.

    `cache` keeps archives, as for every other use of them. Raises PackageError.
    """
    wanted = _closure(records, "python")
    if not wanted:
        raise PackageError("bytecode needs `python` in the environment", "leave out `bytecode`, or add `python`")
    root = staging.absolute() / "root"

    async def installed() -> None:
        archives = await fetched(wanted, cache=cache / "archives", retries=retries, network=network, notify=notify)
        local = [
            RepoDataRecord(archive.record, archive.record.file_name, archive.path.absolute().as_uri(), _CHANNEL)
            for archive in archives
        ]
        try:
            await rattler.install(
                local,
                root,
                package_cache=PackageCache(staging / "packages"),
                installed_packages=[],
                platform=Subdir.current(),
                execute_link_scripts=False,
                show_progress=False,
            )
        except RATTLER_ERRORS as error:
            raise PackageError(f"installing `python` to compile bytecode: {reason(error)}") from error

    asyncio.run(installed())
    return root / "bin" / "python"


def _closure(records: Sequence[RepoDataRecord], name: str) -> list[RepoDataRecord]:
    """The record called `name` and all that it depends on, as far as `records` hold it."""
    known = {record.name.normalized: record for record in records}
    found: dict[str, RepoDataRecord] = {}
    wanted = [name]
    while wanted:
        one = wanted.pop()
        if one in known and one not in found:
            found[one] = known[one]
            wanted += [str(depend).split()[0] for depend in known[one].depends]
    return [found[one] for one in sorted(found)]
