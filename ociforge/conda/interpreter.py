"""The environment's own interpreter, installed here to be run: for compiling bytecode, the one thing that needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rattler
from rattler import RepoDataRecord
from rattler.package_cache import PackageCache
from rattler.platform import Subdir

from ociforge.conda.contents import looked_through
from ociforge.conda.fetch import fetched
from ociforge.conda.loop import run
from ociforge.conda.survey import check_rows
from ociforge.conda.translate import RATTLER_ERRORS, reason
from ociforge.errors import PackageError
from ociforge.events import ignore
from ociforge.network import ONLINE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ociforge.events import Notify
    from ociforge.network import Network

__all__ = ["install_interpreter"]

_CHANNEL = "file:///"  # rattler wants a channel for each record; nothing of it is kept
_HINT = 'set `bytecode = "none"`, or lock another build of the package'


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

    `cache` keeps archives, as for every other use of them. Raises PackageError, also for packages that rattler could
    be led out of `staging` by.
    """
    wanted = _closure(records, "python")
    check_rows(wanted)
    if not wanted:
        raise PackageError("bytecode needs `python` in the environment", "leave out `bytecode`, or add `python`")
    root = staging.absolute() / "root"

    async def installed() -> None:
        archives = await fetched(wanted, cache=cache / "archives", retries=retries, network=network, notify=notify)
        await looked_through(archives, hint=_HINT)
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

    run(installed())
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
