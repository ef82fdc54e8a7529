"""PyPI rows of the lock -> entries at the prefix: all wheels, with nothing remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ociforge.events import Notify, ignore
from ociforge.pypi.package import Installation, Interpreter, Locked
from ociforge.pypi.survey import survey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from layers.compress import OrderedMap
    from ociforge.platform import Platform
    from ociforge.pypi.fetch import Access

__all__ = ["install"]

_EMPTY: Mapping[str, str] = {}


def install(
    locked: Sequence[Locked],
    *,
    prefix: str,
    python: Interpreter,
    platform: Platform,
    root: Path,
    workdir: str,
    cache: Path,
    staging: Path,
    glibc: str = "2.28",
    keep_editable: bool = False,
    taken: Mapping[str, str] = _EMPTY,
    mtime: int = 0,
    access: Access | None = None,
    environ: Mapping[str, str] = _EMPTY,
    map_: OrderedMap = map,
    notify: Notify = ignore,
) -> Installation:
    """Lay out `locked` in the environment `prefix` (an absolute path in the image) for `python` on `platform`.

    `glibc` is the version that the environment declares. `root` is the workspace, to which paths in the lock are
    relative and which is `workdir` in the image. Packages that the manifest has as editable become ordinary installs,
    with a warning; with `keep_editable` they point to their place under `workdir`. `taken` has, by path below the
    prefix, the conda package of everything that is no directory.

    `cache` keeps wheels, source distributions and what was built; all are verified before each use, may be shared by
    concurrent processes and deleted at any time. `staging` is an empty directory of the caller's, to be kept until the
    entries have been written and then removed. `mtime` is the time of all files, in seconds. `environ` is the
    environment of git and of builds, of which the latter see a part. `map_` may run fetching and reading in threads;
    builds run one after another. The order of `locked` does not matter.

    Raises PackageError, which tells the failures of all packages.
    """
    found = survey(
        locked,
        prefix=prefix,
        python=python,
        platform=platform,
        root=root,
        workdir=workdir,
        cache=cache,
        staging=staging,
        glibc=glibc,
        keep_editable=keep_editable,
        taken=lambda: taken,
        mtime=mtime,
        access=access,
        environ=environ,
        map_=map_,
        notify=notify,
    )
    return Installation(packages=found.packages(), conflicts=found.summary.conflicts, overrides=found.summary.overrides)
