"""What builds need from elsewhere: brought into the store ahead of time, or named where it is missing."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from layers.digest import Digest
from ociforge.conda.facts import gather_facts
from ociforge.conda.fetch import archive_path, fetch
from ociforge.conda.url import without_credentials
from ociforge.events import BlobDone, BlobStarted, StageStarted, ignore
from ociforge.network import Route
from ociforge.pypi.access import Access
from ociforge.pypi.fetch import Cache, Fetcher
from ociforge.pypi.gather import gather
from ociforge.pypi.location import Local, Remote, Repository
from ociforge.pypi.provided import Provided
from ociforge.pypi.requirements import Requirements
from ociforge.pypi.tags import Filename
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from layers.compress import OrderedMap
    from ociforge.base import Base
    from ociforge.conda.solve import Record
    from ociforge.events import Event, Notify
    from ociforge.needs import Needs
    from ociforge.network import Network
    from ociforge.oci.descriptor import Descriptor
    from ociforge.pypi.build import Builder
    from ociforge.pypi.fetch import Archive
    from ociforge.pypi.jobs import Job
    from ociforge.pypi.tags import Target
    from ociforge.store import Store

__all__ = ["Kind", "Lack", "Means", "Supply", "fetch_base", "fetch_packages", "lacking"]

Kind = Literal["conda", "wheel", "built", "requirement", "base"]


class Supply(Struct, frozen=True, kw_only=True):
    """Something that is in the store now; `fresh`: it was not before. `size` in bytes, as it is kept."""

    kind: Kind
    name: str
    digest: Digest
    size: int
    fresh: bool


class Lack(Struct, frozen=True, kw_only=True):
    """Something of the package `name` that a build may need, and that is not on this machine."""

    name: str
    message: str


class Means(Struct, frozen=True, kw_only=True, dict=True):
    """How things are had. `staging` is an empty directory of the caller's; `environ` is the environment of git and of
    build backends, `mtime` the time that these are told. `map_` runs side by side.
    """

    store: Store
    staging: Path
    network: Network
    environ: Mapping[str, str] = field(default_factory=dict)
    mtime: int = 0
    map_: OrderedMap = map
    notify: Notify = ignore

    @property
    def archives(self) -> Path:
        """Where conda archives are kept."""
        return self.store.archives / "archives"

    @cached_property
    def cache(self) -> Cache:
        """Where PyPI's files are kept."""
        return Cache(self.store.archives / "pypi" / "files")

    @cached_property
    def fetcher(self) -> Fetcher:
        return Fetcher(self.cache, Access.of(self.network), self.notify)

    @cached_property
    def builder(self) -> Builder:
        from ociforge.pypi.build import Builder

        return Builder(
            cache=self.cache,
            results=self.store.archives / "pypi" / "built",
            staging=self.staging,
            environ=self.environ,
            mtime=self.mtime,
            offered=self.requirements if self.network.offline else None,
            notify=self.notify,
        )

    @property
    def requirements(self) -> Requirements:
        """Wheels that builds of this machine's own packages may use without a network."""
        return Requirements(self.store.archives / "pypi" / "requires", self.cache)

    @property
    def provided(self) -> Provided:
        """Wheels that were brought here."""
        return Provided(self.store.archives / "pypi" / "provided", self.cache)


def fetch_packages(needed: Needs, means: Means) -> tuple[Supply, ...]:
    """Bring all that packages need into the store: archives, what they hold, wheels, also of what is locked as source,
    and what the builds of this machine's own packages require.

    What is there and whole is not fetched again. Raises PackageError, with everything of a kind that cannot be had.
    """
    heard = _Heard(means.notify)
    listening = replace(means, notify=heard)
    return (
        *_conda(needed, listening, heard),
        *_wheels(needed, listening, heard),
        *_built(needed, listening),
        *_required(needed, listening),
    )


def fetch_base(name: str, base: Base, means: Means) -> Supply:
    """Bring the layers of a base image into the store, and list its paths; its documents came when it was read.

    Raises BaseImageError, StoreError or TransportError.
    """
    store = means.store
    missing = [layer for layer in base.layers if not store.verify(layer)]
    base.list_paths()  # keeps a listing of each layer, and the layers that have to be read for that

    def keep(layer: Descriptor) -> None:
        if not store.has(layer.digest, layer.size):
            means.notify(BlobStarted(layer.digest, layer.size, name))
            with base.blob(layer).open() as stream:
                store.put(layer, stream)
            means.notify(BlobDone(layer.digest, layer.size, "downloaded"))

    list(means.map_(keep, missing))
    digest = base.digest or base.identity
    size = sum(layer.size for layer in base.layers)
    return Supply(kind="base", name=name, digest=digest, size=size, fresh=bool(missing))


def lacking(needed: Needs, means: Means) -> tuple[Lack, ...]:
    """What packages need, is not in the store and would have to be fetched over a network. Nothing is verified."""
    return (
        *(_lack(record.name.normalized, _archive(record)) for record in needed.records if not _has(record, means)),
        *(_lack(job.name, _file(job.source)) for job in needed.wheels if not _is_here(job, means)),
        *(
            _lack(job.name, _file(job.source))
            for job in dict.fromkeys(job for job, _ in needed.builds)
            if means.provided.find(job.source) is None and not _is_here(job, means)
        ),
    )


# --- one kind after another


def _conda(needed: Needs, means: Means, heard: _Heard) -> Iterator[Supply]:
    if not needed.records:
        return
    means.notify(StageStarted(f"fetching {_counted(len(needed.records), 'conda archive')}"))
    archives = fetch(needed.records, cache=means.archives, network=means.network, notify=means.notify)
    documents = means.store.facts
    gather_facts(
        needed.records, archives=means.archives, documents=documents, network=means.network, notify=means.notify
    )
    for archive in archives:
        yield Supply(
            kind="conda",
            name=archive.record.file_name,
            digest=archive.digest,
            size=archive.size,
            fresh=archive.digest in heard.fetched,
        )


def _wheels(needed: Needs, means: Means, heard: _Heard) -> Iterator[Supply]:
    if needed.wheels:
        means.notify(StageStarted(f"fetching {_counted(len(needed.wheels), 'wheel')}"))
    for archive in gather(partial(_fetched, means), needed.wheels, means.map_):
        yield _supply("wheel", archive, fresh=archive.digest in heard.fetched)


def _built(needed: Needs, means: Means) -> Iterator[Supply]:
    """The wheels of what is locked as source, as far as they fit their target."""

    def wheel(item: tuple[Job, Target]) -> tuple[Archive, bool]:
        job, target = item
        archive, fresh = means.provided.find(job.source), False
        if archive is None:
            file = _fetched(means, job) if isinstance(job.source, Remote | Local) else None
            project = job.project(file)
            fresh = means.builder.find(project) is None
            archive = means.builder.wheel(project)
        job.check(Filename.parse(archive.filename), target)
        return archive, fresh

    for archive, fresh in gather(wheel, needed.builds):
        yield _supply("built", archive, fresh=fresh)


def _required(needed: Needs, means: Means) -> Iterator[Supply]:
    """What the builds of this machine's own packages require: what these are is only known after asking them."""
    for job in needed.trees:
        file = _fetched(means, job) if isinstance(job.source, Local) else None
        for path in means.builder.requirements(job.project(file)):
            with path.open("rb") as stream:
                known = means.cache.has(Digest.of_stream(stream), path.name)
            archive = means.cache.store(path.name, partial(_copied, path))
            means.requirements.record(archive.filename, archive.digest)
            yield _supply("requirement", archive, fresh=not known)


def _supply(kind: Kind, archive: Archive, *, fresh: bool) -> Supply:
    return Supply(kind=kind, name=archive.filename, digest=archive.digest, size=archive.size, fresh=fresh)


def _fetched(means: Means, job: Job) -> Archive:
    assert isinstance(job.source, Remote | Local)
    return means.fetcher.fetch(job.source)


def _copied(path: Path, sink: BinaryIO) -> Digest:
    data = path.read_bytes()
    sink.write(data)
    return Digest.of(data)


# --- what is not here


def _lack(name: str, what: str) -> Lack:
    return Lack(name=name, message=f"{what} is not in the store")


def _archive(record: Record) -> str:
    return f"the conda archive `{record.file_name}`"


def _file(source: object) -> str:
    if isinstance(source, Repository):
        return f"the commit `{source.commit}` of `{redacted(source.url)}`"
    assert isinstance(source, Remote | Local)
    return f"`{source.filename}`"


def _has(record: Record, means: Means) -> bool:
    if archive_path(means.archives, record).exists():
        return True
    return bool(Route(means.network.conda, offline=True).places(record.url, without_credentials(record.url)))


def _is_here(job: Job, means: Means) -> bool:
    source = job.source
    if isinstance(source, Repository):
        return source.url.startswith("file:") or means.builder.find(job.project(None)) is not None
    if not isinstance(source, Remote) or means.cache.has(source.sha256, source.filename):
        return True
    return bool(Route(means.network.pypi, offline=True).places(source.url, redacted(source.url)))


# --- events


class _Heard:
    """Passes events on, and takes note of what was downloaded."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self.fetched: set[Digest] = set()

    def __call__(self, event: Event) -> None:
        if isinstance(event, BlobDone):
            self.fetched.add(event.digest)
        self._notify(event)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
