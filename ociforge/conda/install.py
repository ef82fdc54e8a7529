"""Conda records -> entries at the prefix, by way of rattler's own installer.

rattler links the environment into a staging directory as if it were to live at the prefix; the files are then read
back and attributed to their packages (`layout.py` says what of them reaches an entry).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import rattler
from rattler import RepoDataRecord
from rattler.exceptions import ParseSubdirError
from rattler.package_cache import PackageCache
from rattler.platform import Subdir

from ociforge.conda.conflict import conflicts, warnings
from ociforge.conda.contents import looked_through
from ociforge.conda.fetch import fetched
from ociforge.conda.layout import Layout
from ociforge.conda.linked import Linked, read_back
from ociforge.conda.loop import run
from ociforge.conda.package import Installation
from ociforge.conda.survey import check_records, interpreter
from ociforge.conda.translate import RATTLER_ERRORS, reason
from ociforge.errors import PackageError
from ociforge.events import Notify, StageStarted, Warned, ignore
from ociforge.network import ONLINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from ociforge.conda.fetch import Archive
    from ociforge.network import Network

__all__ = ["install"]

_CHANNEL = "file:///"  # rattler wants a channel for each record; nothing of it is kept


def install(
    records: Sequence[RepoDataRecord],
    *,
    prefix: str,
    subdir: str,
    cache: Path,
    staging: Path,
    mtime: int = 0,
    clamp: int | None = None,
    retries: int = 3,
    network: Network = ONLINE,
    notify: Notify = ignore,
) -> Installation:
    """Lay out `records` for `subdir` as the environment `prefix` (an absolute path in the image).

    `cache` keeps archives, which are verified before each use, may be shared by concurrent processes and deleted at any
    time. `staging` is an empty directory of the caller's, to be kept until the entries have been written and then
    removed. `mtime`: the constant, in seconds; `clamp`: the latest mtime of the other files; `retries`: how often a
    failing request is repeated; `network` has mirrors of the archives' places. The order of `records` does not matter.

    Link scripts are not run: a warning names packages that have one. So does one for paths that several packages
    provide with different content. Raises PackageError. Runs an event loop of its own, so not for use inside one.
    """
    check_records(records, prefix)
    platform = _platform(subdir)
    ordered = sorted(records, key=lambda record: record.name.normalized)
    root = staging.absolute() / "prefix"

    async def laid_out() -> tuple[Linked, ...]:
        archives = await fetched(ordered, cache=cache / "archives", retries=retries, network=network, notify=notify)
        looked = await looked_through(archives)
        notify(StageStarted(f"linking {len(archives)} package{'' if len(archives) == 1 else 's'}"))
        await _link(archives, root, prefix=prefix, platform=platform, extracted=staging / "packages")
        return tuple(
            read_back(archive, root, inside.placed(python)) for archive, inside in zip(archives, looked, strict=True)
        )

    python = interpreter(ordered)
    linked = run(laid_out())
    clashes = conflicts(linked, root)
    hosts = (str(staging.absolute()), str(cache.absolute()))
    layout = Layout(root=root, prefix=prefix.strip("/"), mtime=mtime, clamp=clamp, hosts=hosts)
    packages = tuple(layout.package(package) for package in linked)
    for warning in (*_script_warnings(linked), *warnings(clashes)):
        notify(warning)
    return Installation(packages=packages, conflicts=clashes, python=None if python is None else str(python))


async def _link(archives: Sequence[Archive], root: Path, *, prefix: str, platform: Subdir, extracted: Path) -> None:
    """Have rattler unpack `archives` into `extracted` and link them into `root`."""
    records = [
        RepoDataRecord(archive.record, archive.record.file_name, archive.path.absolute().as_uri(), _CHANNEL)
        for archive in archives
    ]
    try:
        # Unpacked anew each time: rattler believes what a package says about itself in its `info`, where nothing is
        # verified, so a damaged cache of unpacked packages could change an image unnoticed.
        await rattler.install(
            records,
            root,
            package_cache=PackageCache(extracted),
            installed_packages=[],
            platform=platform,
            execute_link_scripts=False,
            show_progress=False,
            alternative_target_prefix=prefix,
        )
    except RATTLER_ERRORS as error:
        raise _unlinkable(error, prefix) from error


def _platform(subdir: str) -> Subdir:
    try:
        return Subdir(subdir)
    except ParseSubdirError as error:
        raise PackageError(f"`{subdir}` is no conda subdir: expected one such as `linux-64`") from error


def _script_warnings(linked: Iterable[Linked]) -> Iterator[Warned]:
    """Of what conda would run after linking; `pre-unlink` scripts have no meaning in an image."""
    for package in linked:
        scripts = {f"bin/.{package.name}-{moment}.sh" for moment in ("pre-link", "post-link")}
        for path in sorted(scripts & {entry.path for entry in package.paths}):
            yield Warned(
                f"`{package.filename}` has a link script, which is not run: `{path}`",
                "what it would do must be done when the container starts; pixi does not run it either",
            )


def _unlinkable(error: BaseException, prefix: str) -> PackageError:
    why = reason(error)
    message = f"installing into `{prefix}`: {why}"
    if "longer than the placeholder" in why:
        return PackageError(message, "choose a shorter prefix: binaries have no room for this one")
    return PackageError(message, "check free space and permissions of the cache directory")
