"""What must be known of packages before any is unpacked: their paths, and what they ask of activation.

Facts are kept by the archive's sha256, so each archive is looked into once. Of one that is not here yet, only its
`info` is read, in place or by range requests. Such facts are not verified, and say so: `check` holds them against the
archive as soon as that is read for another reason.
"""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec.structs import replace

from ociforge.conda.archive import ArchiveFile
from ociforge.conda.fetch import Archive, Fetcher, archive_digest, local_path
from ociforge.conda.info import PackageInfo, parse_info
from ociforge.conda.loop import collected, in_thread, run, slots
from ociforge.conda.remote import TAIL, remote_info
from ociforge.conda.translate import RATTLER_ERRORS
from ociforge.errors import ForgeError, PackageError
from ociforge.events import Notify, StageStarted, ignore
from ociforge.network import ONLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from rattler import RepoDataRecord

    from layers.digest import Digest
    from ociforge.network import Network, Place

__all__ = ["STATE", "VARIABLES", "Documents", "PackageFacts", "check", "gather_facts", "look_ahead"]

STATE = "conda-meta/state"
VARIABLES = "etc/conda/env_vars.d"

_FORMAT = 2  # of the documents that facts are kept as; raising it forgets them
_PARALLEL = 16  # archives looked into at once
_MAX_TEXT = 16 << 20  # 16 MiB; variables are a few lines


class Documents(Protocol):
    """Where facts are kept: small files by digest, which may disappear at any time."""

    def find(self, key: Digest) -> bytes | None: ...

    def record(self, key: Digest, data: bytes) -> None: ...


class PackageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Of the archive with the sha256 `archive`.

    `texts` has the content of each file that activation reads, as it is in the archive. `verified`: all comes from an
    archive with that digest, and not from parts of what a channel serves under its name.
    """

    archive: Digest
    info: PackageInfo
    texts: Mapping[str, str] = msgspec.field(default_factory=dict)
    verified: bool

    def to_json(self) -> bytes:
        document = _Document(format=_FORMAT, verified=self.verified, info=self.info, texts=dict(self.texts))
        return msgspec.json.encode(document)

    @classmethod
    def from_json(cls, data: bytes, archive: Digest, filename: str) -> PackageFacts | None:
        """The inverse for the archive, called `filename` by now; None for what is not of this format."""
        try:
            document = _DECODER.decode(data)
        except msgspec.MsgspecError:
            return None
        if document.format != _FORMAT:
            return None
        info = document.info if document.info.filename == filename else replace(document.info, filename=filename)
        return cls(archive=archive, info=info, texts=document.texts, verified=document.verified)


class _Document(msgspec.Struct, frozen=True):
    format: int
    verified: bool
    info: PackageInfo
    texts: dict[str, str]


_DECODER = msgspec.json.Decoder(_Document)


def gather_facts(
    records: Sequence[RepoDataRecord],
    *,
    archives: Path,
    documents: Documents,
    known: Mapping[Digest, PackageFacts] | None = None,
    retries: int = 3,
    network: Network = ONLINE,
    notify: Notify = ignore,
) -> tuple[PackageFacts, ...]:
    """What is known of `records`, in their order: from `known` or `documents` where it is there; kept in these else.
    `known` is what `look_ahead` found, which has told how much there is to read.

    `archives` is the cache of archives, as for `fetch`: what is in it is read, verified. Of `file:` URLs and of large
    `.conda` archives behind http, only `info` is read where they lie. All others are downloaded: `.tar.bz2`, those on
    servers without range requests, those that hold files which activation reads, and those that a part of would be
    all. `retries`: how often a request that fails is repeated; `network` has mirrors of the archives' places.

    Raises PackageError with one line for each archive that cannot be had or read, and OfflineError as `fetch` does.
    Runs an event loop of its own where something is missing, so not for use inside one.
    """
    found = [_known(record, documents, known or {}) for record in records]
    missing = [record for record, facts in zip(records, found, strict=True) if facts is None]
    if not missing:
        return tuple(facts for facts in found if facts is not None)

    async def made() -> tuple[PackageFacts, ...]:
        fetcher = Fetcher(cache=archives, retries=retries, network=network, notify=notify)
        gatherer = _Gatherer(fetcher, documents)
        return await collected([gatherer.facts(record) for record in missing])

    if known is None:
        notify(_reading(len(missing)))
    fresh = iter(run(made()))
    return tuple(next(fresh) if facts is None else facts for facts in found)


def look_ahead(
    records: Iterable[RepoDataRecord], *, documents: Documents, wanted: Callable[[], bool], notify: Notify = ignore
) -> Mapping[Digest, PackageFacts]:
    """What `gather_facts` may be told, by the archive's sha256: from `documents`, and where `file:` URLs lead, which is
    kept. Nothing is fetched, and what goes wrong is left to that to tell. `wanted` is asked before each package whether
    to go on.
    """
    found = {}
    missing = []
    for record in records:
        if (facts := _known(record, documents)) is not None:
            found[facts.archive] = facts
        else:
            missing.append(record)
    if missing:
        notify(_reading(len(missing)))
    for record in missing:
        if not wanted():
            break
        if not (record.url.startswith("file:") and record.file_name.endswith(".conda")):  # others take long to read
            continue
        with contextlib.suppress(ForgeError, OSError, ValueError):
            facts = _announced(record, _local_info(record, record.url))
            if facts is not None:
                documents.record(facts.archive, facts.to_json())
                found[facts.archive] = facts
    return found


def _reading(count: int) -> StageStarted:
    return StageStarted(f"reading what is in {count} package{'' if count == 1 else 's'}")


def check(facts: PackageFacts, archive: Archive, documents: Documents) -> None:
    """Hold `facts` that are not verified against the archive, which is, and keep them as verified.

    Raises PackageError for facts that are others: what was planned with them is wrong. The right ones are kept.
    """
    if facts.verified:
        return
    found = _read(archive)
    documents.record(found.archive, found.to_json())
    if found.info != facts.info:
        raise PackageError(
            f"`{facts.info.filename}`: what the channel served as its `info` is not what the archive holds",
            "build again, with what the archive holds; when it happens with other packages, tell the channel's owner",
        )


def _read(archive: Archive) -> PackageFacts:
    """Facts from an archive that was verified."""
    filename = archive.record.file_name
    opened = ArchiveFile(path=archive.path, filename=filename)
    info = parse_info(opened.info(), filename)
    wanted = set(_text_paths(info))
    texts: dict[str, str] = {}
    for member in opened.payload() if wanted else ():
        if member.name in wanted and member.kind == "file":
            if member.size > _MAX_TEXT:
                raise PackageError(f"`{member.name}` of `{filename}` cannot be read: it has {member.size} bytes")
            texts[member.name] = _text(filename, member.name, member.read())
            if len(texts) == len(wanted):
                break
    if missing := sorted(wanted - texts.keys()):
        raise PackageError(f"`{filename}` lists `{missing[0]}`, which is no regular file in it")
    return PackageFacts(archive=archive.digest, info=info, texts=dict(sorted(texts.items())), verified=True)


class _Gatherer:
    """Looks into archives, several at once; for one event loop."""

    def __init__(self, fetcher: Fetcher, documents: Documents) -> None:
        self._fetcher = fetcher
        self._documents = documents
        self._slots = slots(_PARALLEL)

    async def facts(self, record: RepoDataRecord) -> PackageFacts:
        async with self._slots:
            facts = await self._told(record)
            if facts is None:
                facts = await in_thread(_read, await self._fetcher.archive(record))
        self._documents.record(facts.archive, facts.to_json())
        return facts

    async def _told(self, record: RepoDataRecord) -> PackageFacts | None:
        """From the archive's `info` where it lies; None where all of the archive is needed.

        Whatever fails is left to the download, which tries again and tells what is wrong.
        """
        if self._fetcher.path(record).exists():
            return None
        for place in self._fetcher.places(record):
            try:
                files = await self._served(record, place)
                return None if files is None else _announced(record, files)
            except (*RATTLER_ERRORS, PackageError):
                continue
        return None

    async def _served(self, record: RepoDataRecord, place: Place) -> Mapping[str, bytes] | None:
        """INFO_FILES of the archive where it lies; None where it is as well downloaded."""
        if place.local:
            return await in_thread(_local_info, record, place.url)
        small = record.size is not None and record.size <= TAIL
        if small or not record.file_name.endswith(".conda"):
            return None
        return await remote_info(self._fetcher.client(place), place.url)


def _local_info(record: RepoDataRecord, url: str) -> Mapping[str, bytes]:
    """INFO_FILES of the archive at a `file:` URL."""
    return ArchiveFile(path=local_path(url), filename=record.file_name).info()


def _announced(record: RepoDataRecord, files: Mapping[str, bytes]) -> PackageFacts | None:
    """What `files` of the archive's `info` tell; None where all of it is needed."""
    info = parse_info(files, record.file_name)
    return None if _text_paths(info) else PackageFacts(archive=archive_digest(record), info=info, verified=False)


def _known(
    record: RepoDataRecord, documents: Documents, known: Mapping[Digest, PackageFacts] = MappingProxyType({})
) -> PackageFacts | None:
    if record.sha256 is None:  # refused later, with all others
        return None
    digest = archive_digest(record)
    if (facts := known.get(digest)) is not None and facts.info.filename == record.file_name:
        return facts
    data = documents.find(digest)
    return None if data is None else PackageFacts.from_json(data, digest, record.file_name)


def _text_paths(info: PackageInfo) -> list[str]:
    """The files that activation reads. They stand in noarch packages as in the prefix."""
    return [path.path for path in info.paths if path.path == STATE or path.path.rpartition("/")[0] == VARIABLES]


def _text(filename: str, path: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise PackageError(f"`{path}` of `{filename}` cannot be read: {error}") from error
