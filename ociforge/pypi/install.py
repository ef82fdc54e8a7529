"""PyPI rows of the lock -> entries at the prefix: fetch, build, look through, link, settle conflicts."""

from __future__ import annotations

import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

from layers.digest import Digest
from layers.entry import Directory
from layers.tree import parents
from ociforge.errors import PackageError
from ociforge.events import Notify, StageStarted, Warned, ignore
from ociforge.pypi.conflict import judge
from ociforge.pypi.fetch import Access, Archive, Cache, Fetcher
from ociforge.pypi.gather import gather
from ociforge.pypi.jobs import editables_warning, plan
from ociforge.pypi.link import Layout, Linked, link
from ociforge.pypi.location import Local, Remote
from ociforge.pypi.package import Installation, Interpreter, Locked, Package
from ociforge.pypi.tags import Filename, Target
from ociforge.pypi.wheel import read_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from layers.compress import OrderedMap
    from layers.entry import Entry
    from ociforge.platform import Platform
    from ociforge.pypi.build import Builder
    from ociforge.pypi.jobs import Job

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
    if not prefix.startswith("/") or any(part in ("", ".", "..") for part in prefix[1:].split("/")):
        raise PackageError(f"`{prefix}` is no prefix: expected an absolute, normalised path below `/`")
    target = Target.of(python, platform, glibc)
    jobs = plan(locked, root=root, workdir=workdir, keep_editable=keep_editable, target=target)
    if warning := editables_warning(jobs):
        notify(warning)
    store = Cache(cache / "files")
    fetched = gather(partial(_fetched, Fetcher(store, access or Access(), notify)), jobs, map_)

    def new_builder() -> Builder:
        from ociforge.pypi.build import Builder  # `build` is not imported where there is nothing to build

        results = cache / "built"
        return Builder(cache=store, results=results, staging=staging, environ=environ, mtime=mtime, notify=notify)

    wheels = _wheels(jobs, fetched, target, new_builder, notify)
    documents = [job.direct_url(archive) for job, archive in zip(jobs, fetched, strict=True)]
    if jobs:
        notify(StageStarted(f"linking {len(jobs)} wheel{'' if len(jobs) == 1 else 's'}"))
    layout = Layout(prefix=prefix.strip("/"), python=python, mtime=mtime)
    linked = gather(partial(_linked, layout=layout, staging=staging), zip(wheels, documents, strict=True), map_)
    verdict = judge(linked, frozenset(job.name for job in jobs if job.local), taken)
    for warned in verdict.warnings:
        notify(warned)
    packages = [
        _package(one, wheel, document, verdict.lost[job.name], layout, local=job.local)
        for job, wheel, document, one in zip(jobs, wheels, documents, linked, strict=True)
    ]
    return Installation(packages=tuple(packages), conflicts=verdict.conflicts, overrides=verdict.overrides)


def _fetched(fetcher: Fetcher, job: Job) -> Archive | None:
    """The file that is locked; None for a tree or repository."""
    return fetcher.fetch(job.source) if isinstance(job.source, Remote | Local) else None


def _wheels(
    jobs: Sequence[Job],
    fetched: Sequence[Archive | None],
    target: Target,
    new_builder: Callable[[], Builder],
    notify: Notify,
) -> list[Archive]:
    """A wheel for each job: the file itself, or what it is built to."""
    builder = None if all(job.is_wheel for job in jobs) else new_builder()

    def wheel(item: tuple[Job, Archive | None]) -> Archive:
        job, archive = item
        if archive is not None and job.is_wheel:
            return archive
        assert builder is not None
        built = builder.wheel(job.project(archive))
        filename = Filename.parse(built.filename)
        job.check(filename, target)
        if not filename.pure and (warning := _glibc_warning(job, target)):
            notify(warning)
        return built

    return gather(wheel, zip(jobs, fetched, strict=True))


def _glibc_warning(job: Job, target: Target) -> Warned | None:
    """What is compiled here may ask for symbols of this machine's glibc."""
    here = os.confstr("CS_GNU_LIBC_VERSION") or ""
    version = here.removeprefix("glibc ")
    if not here.startswith("glibc ") or _numbers(version) <= _numbers(target.glibc):
        return None
    return Warned(
        f"`{job.name}` was compiled on this machine, whose glibc {version} is newer than the {target.glibc} that the"
        " environment declares: it may not load in the image",
        "lock a manylinux wheel of it, or build on a machine with an older glibc",
    )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def _linked(item: tuple[Archive, bytes | None], *, layout: Layout, staging: Path) -> Linked:
    archive, document = item
    return link(read_wheel(_kept(archive, staging), archive.filename), layout, document)


def _kept(archive: Archive, staging: Path) -> Path:
    """The wheel under a name in `staging`: in the cache it may be deleted at any time."""
    place = staging / f"{archive.digest.hex}.whl"
    try:
        staging.mkdir(parents=True, exist_ok=True)
        try:
            os.link(archive.path, place)
        except FileExistsError:
            pass  # two rows with one wheel
        except OSError:  # another file system
            shutil.copyfile(archive.path, place)
    except OSError as error:
        raise PackageError(f"cannot keep `{archive.filename}` in `{staging}`: {error.strerror}") from error
    return place


def _package(
    linked: Linked, archive: Archive, document: bytes | None, lost: frozenset[str], layout: Layout, *, local: bool
) -> Package:
    files = [file for path, file in linked.files.items() if path not in lost]
    above = [path for path in parents(file.path for file in files) if f"{path}/".startswith(f"{layout.prefix}/")]
    directories = [Directory(path=path, mtime=layout.mtime) for path in above]
    entries: list[Entry] = [*directories, *files]
    return Package(
        name=linked.name,
        version=linked.wheel.version,
        filename=archive.filename,
        sha256=archive.digest,
        size=archive.size,
        record=Digest.of(document or b""),
        pure=linked.wheel.filename.pure,
        local=local,
        entries=tuple(sorted(entries, key=lambda entry: entry.path.split("/"))),
    )
