"""Conda archives: from channels into the cache, verified before anything looks inside.

rattler itself does not do: it installs a `file://` archive whose sha256 is another one than the record's, and a
truncated one as far as it can be read. So archives are downloaded (or copied) by their digest first, and rattler only
ever sees files of the cache.

Of a file of the cache the atime is when it was last used, by which the cache is pruned, and the mtime when it was
brought: a file there is never written to, so both can be told apart from changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote_to_bytes, urlsplit

from msgspec import Struct
from rattler.networking import Client
from rattler.package_streaming import download_to_writer

from layers.digest import Digest, DigestWriter
from ociforge.conda.loop import collected, in_thread, run, slots
from ociforge.conda.translate import RATTLER_ERRORS, reason
from ociforge.conda.url import without_credentials
from ociforge.errors import OfflineError, PackageError
from ociforge.events import BlobDone, BlobProgress, BlobStarted, Notify, ignore
from ociforge.network import ONLINE, Route
from ociforge.regular import open_regular

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Sequence
    from typing import TypeVar

    from rattler import RepoDataRecord

    from ociforge.network import Network, Place

    T = TypeVar("T")

__all__ = [
    "Archive",
    "Fetcher",
    "archive_digest",
    "archive_path",
    "claim",
    "fetch",
    "fetched",
    "local_path",
]

_SUFFIXES = (".conda", ".tar.bz2")
_PARALLEL = 8  # downloads at once: as pixi's default is 50, which small mirrors answer with 429, fewer
_ATTEMPTS = 3  # for a transfer that breaks off; refused requests are retried by rattler's client
_MIRROR_RETRIES = 1  # of a request to a mirror: there is somebody else to ask
_READ_SIZE = 1 << 20  # 1 MiB
_FETCH_HINT = "fetch it where there is a network: `ociforge fetch`"
_CACHE_HINT = "free some space, or let `OCIFORGE_CACHE` name a directory that can be written"


class Archive(Struct, frozen=True, kw_only=True):
    """A verified archive: in the cache (`cached`), or where a `file:` URL has it. `size` in bytes.

    `stamp` tells the file that was verified from others; see `check_unchanged`.
    """

    record: RepoDataRecord
    path: Path
    digest: Digest
    size: int
    cached: bool = False
    stamp: tuple[int, ...] | None = None

    def check_unchanged(self) -> None:
        """Raise PackageError when the file is not the one that was verified: what was read of it means nothing."""
        try:
            now = _stamp(self.path.stat(), cached=self.cached)
        except OSError:
            now = None
        if self.stamp is not None and now != self.stamp:
            raise PackageError(f"`{self.path}` was changed while it was read", "build again")


def fetch(
    records: Sequence[RepoDataRecord],
    *,
    cache: Path,
    retries: int = 3,
    network: Network = ONLINE,
    notify: Notify = ignore,
) -> tuple[Archive, ...]:
    """The archives of `records`, in their order: from `cache` where they are there and whole, else from the mirrors
    that `network` has for their URLs, else from these.

    `cache/<sha256>.conda` appears only when it is whole; concurrent processes may share the directory. Credentials
    come from where rattler looks for them. `retries`: how often a request that fails is repeated.
    Raises PackageError with one line for each archive that cannot be had, OfflineError when a network is missing.
    """
    fetcher = Fetcher(cache=cache, retries=retries, network=network, notify=notify)
    here = [fetcher.here(record) for record in records]
    missing = [record for record, found in zip(records, here, strict=True) if found is None]
    if not missing:  # as for most layers: no event loop is needed
        return tuple(found for found in here if found is not None)

    async def brought() -> tuple[Archive, ...]:
        return await collected([fetcher.bring(record) for record in missing])

    fresh = iter(run(brought()))
    return tuple(found or next(fresh) for found in here)


async def fetched(
    records: Sequence[RepoDataRecord], *, cache: Path, retries: int, network: Network = ONLINE, notify: Notify
) -> tuple[Archive, ...]:
    """`fetch`, for a running event loop."""
    fetcher = Fetcher(cache=cache, retries=retries, network=network, notify=notify)
    return await collected([fetcher.archive(record) for record in records])


class Fetcher:
    """Brings archives into `cache`, several at once; for one event loop."""

    def __init__(self, *, cache: Path, retries: int, network: Network = ONLINE, notify: Notify) -> None:
        try:
            if not cache.is_dir():
                cache.mkdir(parents=True, exist_ok=True)
                cache.chmod(0o755)  # whatever the umask
        except OSError as error:
            raise PackageError(f"cannot use `{cache}` for conda archives: {error.strerror}", _CACHE_HINT) from error
        self._cache = cache
        self._retries = retries
        self._notify = notify
        self._route = Route(network.conda, offline=network.offline, notify=notify)
        self._clients: dict[int, Client] = {}

    @cached_property
    def _slots(self) -> asyncio.Semaphore:
        return slots(_PARALLEL)

    def client(self, place: Place) -> Client:
        """What requests to `place` are made with: it repeats those that fail, and knows where credentials are."""
        retries = self._retries if place.mirror is None else min(self._retries, _MIRROR_RETRIES)
        if retries not in self._clients:
            self._clients[retries] = Client.default_client(max_retries=retries, user_agent="ociforge")
        return self._clients[retries]

    def places(self, record: RepoDataRecord) -> tuple[Place, ...]:
        """Where the archive may be looked for, in order; nowhere, when there is no network and it is not here."""
        return self._route.places(record.url, without_credentials(record.url))

    def path(self, record: RepoDataRecord) -> Path:
        """Where the archive is when it is in the cache, whole or not."""
        return archive_path(self._cache, record)

    async def archive(self, record: RepoDataRecord) -> Archive:
        """The archive of `record`, verified; PackageError when it cannot be had."""
        async with self._slots:
            found = await in_thread(self.here, record)
        return found or await self.bring(record)

    async def bring(self, record: RepoDataRecord) -> Archive:
        """The same for one that is not here; PackageError when it cannot be had."""
        digest = archive_digest(record)
        path = self.path(record)
        async with self._slots:
            return await self._ingest(record, digest, path)

    def here(self, record: RepoDataRecord) -> Archive | None:
        """The archive of `record`, verified, if it is on this machine; in that case without a loop."""
        if record.sha256 is None or not record.file_name.endswith(_SUFFIXES):
            return None  # refused later, with all others
        digest = archive_digest(record)
        # Read anew each time: a file that was damaged since is made again, and no fsync is needed.
        return _verified(record, self.path(record), digest, cached=True) or self._in_place(record, digest)

    def _in_place(self, record: RepoDataRecord, digest: Digest) -> Archive | None:
        """A whole archive of this machine, where it lies: a copy would cost as much again. None if it is not whole."""
        for place in self.places(record):
            if place.local:
                with contextlib.suppress(ValueError):
                    path = local_path(place.url)
                    found = _verified(record, path, digest, cached=False)
                    if found is not None:
                        return found
        return None

    async def _ingest(self, record: RepoDataRecord, digest: Digest, path: Path) -> Archive:
        """Bring the archive to `path` by way of a temporary file beside it."""
        try:
            number, name = tempfile.mkstemp(dir=self._cache, prefix=".", suffix=".part")
            part = Path(name)
            try:
                with os.fdopen(number, "wb") as stream:
                    os.fchmod(number, 0o644)  # whatever the umask
                    size = await self._receive(record, digest, stream)
                return await in_thread(self._named, part, record, path, digest, size)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise PackageError(
                f"cannot write `{record.file_name}` into `{self._cache}`: {error.strerror}", _CACHE_HINT
            ) from error

    def _named(self, part: Path, record: RepoDataRecord, path: Path, digest: Digest, size: int) -> Archive:
        """The archive under its final name: as `part`, unless somebody else has brought it meanwhile, and may be
        reading it.
        """
        with _alone(self._cache):
            found = _verified(record, path, digest, cached=True)
            if found is not None:
                return found
            part.replace(path)
            stamp = _stamp(path.stat(), cached=True)
        return Archive(record=record, path=path, digest=digest, size=size, cached=True, stamp=stamp)

    async def _receive(self, record: RepoDataRecord, digest: Digest, stream: BinaryIO) -> int:
        places = self.places(record)
        for place in places:
            try:
                return await self._received(record, place, digest, stream)
            except PackageError as error:
                if place.mirror is None or place is places[-1]:
                    raise
                self._route.leave(place.mirror, error.message, lacks=isinstance(error, _AbsentError))
        raise OfflineError(f"the conda archive `{record.file_name}` is not in the store", _FETCH_HINT)

    async def _received(self, record: RepoDataRecord, place: Place, digest: Digest, stream: BinaryIO) -> int:
        """Copy the archive from one place into `stream`, and verify it; returns its size."""
        shown = without_credentials(place.url)
        self._notify(BlobStarted(digest, record.size or 0, shown))
        writer = await self._transfer(record, place, digest, stream)
        if writer.digest() != digest:
            raise PackageError(
                f"`{record.file_name}` from `{shown}` is not the archive that the lock names: expected `{digest}`,"
                f" got `{writer.digest()}` ({_counted(writer.size, record.size)})",
                "download it again, or update the lock when the channel replaced the archive",
            )
        self._notify(BlobDone(digest, writer.size, "downloaded"))
        return writer.size

    async def _transfer(self, record: RepoDataRecord, place: Place, digest: Digest, stream: BinaryIO) -> _Limited:
        """Copy the archive's bytes into `stream`, from its start, trying again when the transfer breaks off."""
        for attempt in range(1, _ATTEMPTS + 1):
            stream.seek(0)
            stream.truncate()
            writer = _Limited(stream, record, place, digest, self._notify)
            try:
                await self._copy(place, writer)
            except RATTLER_ERRORS as error:
                if isinstance(error, OSError) and error.errno is not None and not place.local:
                    raise  # our own disk
                if isinstance(error, OSError) and error.errno is None and attempt < _ATTEMPTS:
                    continue
                # Not chained: rattler's text holds the URL with its token.
                raise _unreachable(record, place, error) from None
            return writer
        raise AssertionError("unreachable")

    async def _copy(self, place: Place, writer: _Limited) -> None:
        if place.local:
            await in_thread(_copy_local, place.url, writer)
            return
        await download_to_writer(self.client(place), place.url, writer)


class _AbsentError(PackageError):
    """A place that does not have the archive."""


class _Limited(DigestWriter):
    """Counts and hashes; refuses more than the bytes that the record announces."""

    def __init__(self, sink: BinaryIO, record: RepoDataRecord, place: Place, digest: Digest, notify: Notify) -> None:
        super().__init__(sink)
        self._record = record
        self._place = place
        self._name = digest
        self._notify = notify

    def write(self, data: bytes) -> int:
        super().write(data)
        if self._record.size is not None and self.size > self._record.size:
            raise PackageError(
                f"`{self._record.file_name}` from `{without_credentials(self._place.url)}` is not the archive that the"
                f" lock names: it has more than {self._record.size} bytes",
                "update the lock when the channel replaced the archive",
            )
        self._notify(BlobProgress(self._name, len(data)))
        return len(data)


def archive_path(cache: Path, record: RepoDataRecord) -> Path:
    """Where the archive of `record` is when `cache` has it, whole or not."""
    return cache / f"{archive_digest(record).hex}{_suffix(record)}"


def claim(cache: Path, record: RepoDataRecord) -> None:
    """Note that the archive of `record` is going to be used, if `cache` has it: so it is not pruned meanwhile."""
    path = archive_path(cache, record)
    with contextlib.suppress(OSError), open_regular(path, follow=True) as stream:  # it may not be there
        _note_use(stream)


def archive_digest(record: RepoDataRecord) -> Digest:
    """The archive's sha256, as the lock has it. Raises PackageError when it has none."""
    if record.sha256 is None:
        raise PackageError(
            f"the lock names no sha256 for `{record.file_name}`",
            "update the lock with a current pixi; a channel without checksums cannot be used",
        )
    return Digest(record.sha256.hex())


def _suffix(record: RepoDataRecord) -> str:
    for suffix in _SUFFIXES:
        if record.file_name.endswith(suffix):
            return suffix
    raise PackageError(f"`{record.file_name}` is no conda archive: expected `.conda` or `.tar.bz2`")


def _verified(record: RepoDataRecord, path: Path, digest: Digest, *, cached: bool) -> Archive | None:
    """The archive at `path`, None when it is missing or damaged; one of the cache counts as used now."""
    try:
        with open_regular(path, follow=True) as stream:
            if cached:
                _note_use(stream)
            stamp = _stamp(os.fstat(stream.fileno()), cached=cached)
            if Digest.of_stream(stream) != digest or _stamp(path.stat(), cached=cached) != stamp:
                return None
            return Archive(record=record, path=path, digest=digest, size=stream.tell(), cached=cached, stamp=stamp)
    except OSError:
        return None


def _note_use(stream: BinaryIO) -> None:
    """Set the atime, even where the file system does not, and leave the mtime."""
    with contextlib.suppress(OSError):  # another user's cache, or one that cannot be written
        os.utime(stream.fileno(), ns=(time.time_ns(), os.fstat(stream.fileno()).st_mtime_ns))


def _stamp(status: os.stat_result, *, cached: bool) -> tuple[int, ...]:
    """What changes when a file is written to, or when another takes its name. In the cache, that it is used changes the
    ctime, too.
    """
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return stamp if cached else (*stamp, status.st_ctime_ns)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """While this context lasts, no other thread or process is in one for the directory."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: who meets there may have to build again
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def local_path(url: str) -> Path:
    """The file that a `file:` URL names. Raises ValueError for one of another machine."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"`{parts.netloc}` is another machine")
    return Path(os.fsdecode(unquote_to_bytes(parts.path)))


def _copy_local(url: str, writer: _Limited) -> None:
    with open_regular(local_path(url), follow=True) as stream:
        while chunk := stream.read(_READ_SIZE):
            writer.write(chunk)


def _unreachable(record: RepoDataRecord, place: Place, error: BaseException) -> PackageError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
    message = f"fetching `{record.file_name}` from `{without_credentials(place.url)}`: {why}"
    if why.startswith(("401", "403")):
        return PackageError(message, "log in to the channel (`pixi auth login`)")
    if why.startswith(("404", "410")) or isinstance(error, FileNotFoundError):
        return _AbsentError(message, "update the lock: the channel no longer has this archive")
    return PackageError(message, "check the network and that the channel can be reached")


def _counted(got: int, expected: int | None) -> str:
    return f"{got} bytes" if expected in (None, got) else f"{got} of {expected} bytes"
