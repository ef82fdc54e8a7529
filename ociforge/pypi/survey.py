"""PyPI rows of the lock -> what an environment's wheels are and who wins their paths; entries of those that are wanted.

A wheel that is locked by its digest is opened once and remembered, so it need not even be here to be planned with.
What the lock has as source is built first (or found among what was built before): the wheel's digest is not known else.
What fetches, opens and builds is imported when there is something to fetch, open and build.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct, field

from layers.digest import Digest
from layers.entry import Directory
from layers.tree import parents
from ociforge.errors import PackageError
from ociforge.events import Notify, StageStarted, Warned, ignore
from ociforge.pypi.conflict import judge, lost_paths
from ociforge.pypi.facts import Identity, Summary, WheelFacts, WheelFiles, summary_key
from ociforge.pypi.gather import gather
from ociforge.pypi.jobs import editables_warning, plan
from ociforge.pypi.location import Local, Remote
from ociforge.pypi.package import Interpreter, Locked, Package
from ociforge.pypi.tags import Filename, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from layers.compress import OrderedMap
    from layers.entry import Entry
    from ociforge.platform import Platform
    from ociforge.pypi.build import Builder
    from ociforge.pypi.facts import Documents
    from ociforge.pypi.fetch import Access, Archive, Cache
    from ociforge.pypi.jobs import Job
    from ociforge.pypi.link import Linked
    from ociforge.pypi.location import Source

__all__ = ["Survey", "survey"]

_EMPTY: Mapping[str, str] = {}
_NOTHING = Digest.of(b"")


def survey(
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
    taken: Callable[[], Mapping[str, str]] = dict,
    below: Digest = _NOTHING,
    asked: Collection[str] = (),
    documents: Documents | None = None,
    mtime: int = 0,
    access: Access | None = None,
    environ: Mapping[str, str] = _EMPTY,
    offline: bool = False,
    map_: OrderedMap = map,
    notify: Notify = ignore,
) -> Survey:
    """What `locked` comes to in the environment `prefix`; arguments are those of `install`, but for these.

    `taken` is called when it matters what conda packages provide, and gives path below the prefix -> package for all
    that is no directory; `below` stands for it in keys. `asked` are the paths below the prefix that will be looked up
    in the summary. `documents` keeps what was found out, None for nothing. With `offline` builds use the wheels alone
    that `cache/requires` lists. Warnings go to `notify`.

    Raises PackageError, which tells the failures of all packages.
    """
    if not prefix.startswith("/") or any(part in ("", ".", "..") for part in prefix[1:].split("/")):
        raise PackageError(f"`{prefix}` is no prefix: expected an absolute, normalised path below `/`")
    target = Target.of(python, platform, glibc)
    jobs = plan(locked, root=root, workdir=workdir, keep_editable=keep_editable, target=target)
    if warning := editables_warning(jobs):
        notify(warning)
    shop = _Shop(
        prefix=prefix.strip("/"),
        python=python,
        mtime=mtime,
        cache=cache,
        staging=staging,
        access=access,
        environ=environ,
        offline=offline,
        documents=documents,
        map_=map_,
        notify=notify,
    )
    items = shop.items(jobs, target)
    summary = shop.summary(items, taken, below=below, asked=asked)
    for warned in summary.warnings:
        notify(warned)
    return Survey(summary, items, shop)


class Survey:
    """All wheels of an environment. `summary` is what planning needs; entries are made when they are asked for."""

    def __init__(self, summary: Summary, items: Sequence[_Item], shop: _Shop) -> None:
        self.summary = summary
        self._items = items
        self._shop = shop

    def is_here(self, name: str) -> bool:
        """Whether the wheel of the package is on this machine, whole or not."""
        (item,) = (item for item in self._items if item.job.name == name)
        return self._shop.files().has(item.identity.sha256, item.identity.filename)

    def packages(self, names: Collection[str] | None = None) -> tuple[Package, ...]:
        """The packages called `names`, or all, by name, laid out: only these wheels are fetched and opened.

        Raises PackageError, which tells the failures of all packages.
        """
        wanted = [item for item in self._items if names is None or item.job.name in names]
        return self._shop.packages(wanted, self.summary)


class _Item(Struct, frozen=True, kw_only=True):
    """A job whose wheel is known by its digest. `document`: the text of `direct_url.json`.

    `archive` is None where the wheel has not been looked for.
    """

    job: Job
    identity: Identity
    document: bytes | None
    archive: Archive | None


def _is_needed(job: Job) -> bool:
    """Whether the file that is locked must be here: the digest of a wheel alone tells enough."""
    return isinstance(job.source, Remote | Local) and not (job.is_wheel and job.source.sha256 is not None)


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


def _item(job: Job, fetched: Archive | None, wheel: Archive | None) -> _Item:
    source, digest = job.source, None if fetched is None else fetched.digest
    if isinstance(source, Remote | Local) and digest is None:
        digest = source.sha256
    document = job.direct_url(digest)
    if wheel is not None:
        filename, digest = wheel.filename, wheel.digest
    else:
        assert isinstance(source, Remote | Local)
        filename = source.filename
    assert digest is not None
    record = Digest.of(document or b"")
    identity = Identity(name=job.name, filename=filename, sha256=digest, record=record, local=job.local)
    return _Item(job=job, identity=identity, document=document, archive=wheel)


class _Shop(Struct, frozen=True, kw_only=True):
    """Where wheels are obtained and opened, each once: `opened` has those that were, by package."""

    prefix: str
    python: Interpreter
    mtime: int
    cache: Path
    staging: Path
    access: Access | None
    environ: Mapping[str, str]
    offline: bool
    documents: Documents | None
    map_: OrderedMap
    notify: Notify
    opened: dict[str, tuple[Linked, Archive]] = field(default_factory=dict)

    def files(self) -> Cache:
        """Where wheels are kept."""
        from ociforge.pypi.fetch import Cache

        return Cache(self.cache / "files")

    def items(self, jobs: Sequence[Job], target: Target) -> list[_Item]:
        """What the jobs come to; what is no locked wheel is fetched or built for that."""
        known = self._provided(jobs)
        needed = [job for job, wheel in zip(jobs, known, strict=True) if wheel is None and _is_needed(job)]
        fetched = zip(needed, self._fetched((job.source for job in needed), self.map_), strict=True)
        by_name = {job.name: archive for job, archive in fetched}
        files = [by_name.get(job.name) for job in jobs]
        wheels = self._wheels(jobs, files, known, target)
        return [_item(job, file, wheel) for job, file, wheel in zip(jobs, files, wheels, strict=True)]

    def summary(
        self,
        items: Sequence[_Item],
        taken: Callable[[], Mapping[str, str]],
        *,
        below: Digest,
        asked: Collection[str],
    ) -> Summary:
        key = summary_key((item.identity for item in items), self.prefix, self.python, below=below, asked=asked)
        data = None if self.documents is None else self.documents.find(key)
        known = None if data is None else Summary.from_json(data)
        if known is not None:
            return known
        files = self._files(items)
        verdict = judge(files, frozenset(item.job.name for item in items if item.job.local), taken())
        found = Summary(
            wheels=tuple(_facts(item.identity, one) for item, one in zip(items, files, strict=True)),
            conflicts=verdict.conflicts,
            overrides=verdict.overrides,
            warnings=verdict.warnings,
            present=tuple(sorted(path for path in asked if any(path in one.files for one in files))),
        )
        if self.documents is not None:
            self.documents.record(key, found.to_json())
        return found

    def packages(self, items: Sequence[_Item], summary: Summary) -> tuple[Package, ...]:
        if items:
            self.notify(StageStarted(f"linking {_counted(items)}"))
        return tuple(gather(partial(self._package, summary=summary), items, self.map_))

    def _files(self, items: Sequence[_Item]) -> list[WheelFiles]:
        known = [self._known(item) for item in items]
        missing = [item for item, files in zip(items, known, strict=True) if files is None]
        if missing:
            self.notify(StageStarted(f"reading what is in {_counted(missing)}"))
        fresh = iter(gather(self._told, missing, self.map_))
        return [next(fresh) if files is None else files for files in known]

    def _fetched(self, sources: Iterable[Source], map_: OrderedMap) -> Iterator[Archive]:
        """The files of `sources`, none of which is a tree or repository."""
        files = [source for source in sources if isinstance(source, Remote | Local)]
        if not files:
            return iter(())
        from ociforge.pypi.fetch import Access, Fetcher

        fetcher = Fetcher(self.files(), self.access or Access(), self.notify)
        return iter(gather(fetcher.fetch, files, map_))

    def _provided(self, jobs: Sequence[Job]) -> Sequence[Archive | None]:
        """For each job that is no wheel, the one that was built of it elsewhere and brought here."""
        if all(job.is_wheel for job in jobs):
            return [None] * len(jobs)
        from ociforge.pypi.provided import Provided

        provided = Provided(self.cache / "provided", self.files())
        return [None if job.is_wheel else provided.find(job.source) for job in jobs]

    def _wheels(
        self,
        jobs: Sequence[Job],
        fetched: Sequence[Archive | None],
        provided: Sequence[Archive | None],
        target: Target,
    ) -> Sequence[Archive | None]:
        """For each job the file itself, or what it was or is built to."""
        if all(job.is_wheel for job in jobs):
            return fetched
        builder = self._builder()

        def wheel(item: tuple[Job, Archive | None, Archive | None]) -> Archive | None:
            job, archive, known = item
            if job.is_wheel:
                return archive
            if known is not None:
                job.check(Filename.parse(known.filename), target)
                return known
            built = builder.wheel(job.project(archive))
            filename = Filename.parse(built.filename)
            job.check(filename, target)
            if not filename.pure and (warning := _glibc_warning(job, target)):
                self.notify(warning)
            return built

        return gather(wheel, zip(jobs, fetched, provided, strict=True))

    def _builder(self) -> Builder:
        from ociforge.pypi.build import Builder
        from ociforge.pypi.requirements import Requirements

        cache = self.files()
        return Builder(
            cache=cache,
            results=self.cache / "built",
            staging=self.staging,
            environ=self.environ,
            mtime=self.mtime,
            offered=Requirements(self.cache / "requires", cache) if self.offline else None,
            notify=self.notify,
        )

    def _known(self, item: _Item) -> WheelFiles | None:
        data = None if self.documents is None else self.documents.find(item.identity.key(self.prefix, self.python))
        return None if data is None else WheelFiles.from_json(data)

    def _told(self, item: _Item) -> WheelFiles:
        linked, archive = self._linked(item)
        files = WheelFiles.of(linked, archive.size)
        if self.documents is not None:
            self.documents.record(item.identity.key(self.prefix, self.python), files.to_json())
        return files

    def _linked(self, item: _Item) -> tuple[Linked, Archive]:
        if item.job.name not in self.opened:
            from ociforge.pypi.link import Layout, link
            from ociforge.pypi.wheel import read_wheel

            archive = item.archive or next(self._fetched([item.job.source], map))  # in a thread of `map_` already
            wheel = read_wheel(self._kept(archive), archive.filename)
            layout = Layout(prefix=self.prefix, python=self.python, mtime=self.mtime)
            self.opened[item.job.name] = link(wheel, layout, item.document), archive
        return self.opened[item.job.name]

    def _kept(self, archive: Archive) -> Path:
        """The wheel under a name in `staging`: in the cache it may be deleted at any time."""
        place = self.staging / f"{archive.digest.hex}.whl"
        try:
            self.staging.mkdir(parents=True, exist_ok=True)
            try:
                os.link(archive.path, place)
            except FileExistsError:
                pass  # two rows with one wheel
            except OSError:  # another file system
                shutil.copyfile(archive.path, place)
        except OSError as error:
            raise PackageError(f"cannot keep `{archive.filename}` in `{self.staging}`: {error.strerror}") from error
        return place

    def _package(self, item: _Item, summary: Summary) -> Package:
        linked, archive = self._linked(item)
        lost = lost_paths(summary.conflicts, item.job.name)
        files = [file for path, file in linked.files.items() if path not in lost]
        above = [path for path in parents(file.path for file in files) if self._is_inside(path)]
        entries: list[Entry] = [*(Directory(path=path, mtime=self.mtime) for path in above), *files]
        return Package(
            name=linked.name,
            version=linked.wheel.version,
            filename=archive.filename,
            sha256=archive.digest,
            size=archive.size,
            record=item.identity.record,
            pure=linked.wheel.filename.pure,
            local=item.job.local,
            entries=tuple(sorted(entries, key=lambda entry: entry.path.split("/"))),
        )

    def _is_inside(self, path: str) -> bool:
        return f"{path}/".startswith(f"{self.prefix}/")


def _facts(identity: Identity, files: WheelFiles) -> WheelFacts:
    return WheelFacts(
        name=identity.name,
        version=files.version,
        filename=identity.filename,
        sha256=identity.sha256,
        size=files.size,
        record=identity.record,
        local=identity.local,
    )


def _counted(items: Sequence[_Item]) -> str:
    return f"{len(items)} wheel{'' if len(items) == 1 else 's'}"
