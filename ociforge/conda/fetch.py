"""Conda archives: from channels into the cache, verified before anything looks inside.

rattler itself does not do: it installs a `file://` archive whose sha256 is another one than the record's, and a
truncated one as far as it can be read. So archives are downloaded (or copied) by their digest first, and rattler only
ever sees files of the cache.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote_to_bytes, urlsplit

from rattler.networking import Client
from rattler.package_streaming import download_to_writer

from layers.digest import Digest, DigestWriter
from ociforge.conda.translate import RATTLER_ERRORS, reason
from ociforge.conda.url import without_credentials
from ociforge.errors import PackageError
from ociforge.events import BlobDone, BlobProgress, BlobStarted, Notify, ignore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from typing import TypeVar

    from rattler import RepoDataRecord

    T = TypeVar("T")

__all__ = ["Archive", "collected", "fetch", "fetched"]

_SUFFIXES = (".conda", ".tar.bz2")
_PARALLEL = 8  # downloads at once: as pixi's default is 50, which small mirrors answer with 429, fewer
_ATTEMPTS = 3  # for a transfer that breaks off; refused requests are retried by rattler's client
_READ_SIZE = 1 << 20  # 1 MiB
_CACHE_HINT = "free some space, or let `OCIFORGE_CACHE` name a directory that can be written"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A verified archive in the cache. `size` in bytes."""

    record: RepoDataRecord
    path: Path
    digest: Digest
    size: int


def fetch(
    records: Sequence[RepoDataRecord], *, cache: Path, retries: int = 3, notify: Notify = ignore
) -> tuple[Archive, ...]:
    """The archives of `records`, in their order: from `cache` where they are there and whole, else from their URLs.

    `cache/<sha256>.conda` appears only when it is whole; concurrent processes may share the directory. Credentials
    come from where rattler looks for them. `retries`: how often a request that fails is repeated.
    Raises PackageError with one line for each archive that cannot be had.
    """
    return asyncio.run(fetched(records, cache=cache, retries=retries, notify=notify))


async def fetched(
    records: Sequence[RepoDataRecord], *, cache: Path, retries: int, notify: Notify
) -> tuple[Archive, ...]:
    """`fetch`, for a running event loop."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PackageError(f"cannot use `{cache}` for conda archives: {error.strerror}", _CACHE_HINT) from error
    fetcher = _Fetcher(cache=cache, retries=retries, notify=notify)
    return await collected([fetcher.archive(record) for record in records])


async def collected(tasks: Sequence[Awaitable[T]]) -> tuple[T, ...]:
    """The results of `tasks`, run at the same time; their PackageErrors together, when some fail."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in failures:
        if not isinstance(failure, PackageError):
            raise failure
    if failures:
        errors = [failure for failure in failures if isinstance(failure, PackageError)]
        hints = dict.fromkeys(error.hint for error in errors if error.hint)
        raise PackageError.collect([error.message for error in errors], "; ".join(hints) or None)
    return tuple(result for result in results if not isinstance(result, BaseException))


class _Fetcher:
    def __init__(self, *, cache: Path, retries: int, notify: Notify) -> None:
        self._cache = cache
        self._retries = retries
        self._notify = notify
        self._client: Client | None = None
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def archive(self, record: RepoDataRecord) -> Archive:
        digest = _digest(record)
        path = self._cache / f"{digest.hex}{_suffix(record)}"
        async with self._slots:
            # Read anew each time: a file that was damaged since is made again, and no fsync is needed.
            size = await asyncio.to_thread(_intact, path, digest)
            if size is None:
                size = await self._ingest(record, digest, path)
        return Archive(record=record, path=path, digest=digest, size=size)

    async def _ingest(self, record: RepoDataRecord, digest: Digest, path: Path) -> int:
        """Bring the archive to `path` by way of a temporary file beside it; returns its size."""
        try:
            number, name = tempfile.mkstemp(dir=self._cache, prefix=".", suffix=".part")
            part = Path(name)
            try:
                with os.fdopen(number, "wb") as stream:
                    size = await self._receive(record, digest, stream)
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise PackageError(
                f"cannot write `{record.file_name}` into `{self._cache}`: {error.strerror}", _CACHE_HINT
            ) from error
        return size

    async def _receive(self, record: RepoDataRecord, digest: Digest, stream: BinaryIO) -> int:
        place = without_credentials(record.url)
        self._notify(BlobStarted(digest, record.size or 0, place))
        writer = await self._transfer(record, digest, stream)
        if writer.digest() != digest:
            raise PackageError(
                f"`{record.file_name}` from `{place}` is not the archive that the lock names: expected `{digest}`,"
                f" got `{writer.digest()}` ({_counted(writer.size, record.size)})",
                "download it again, or update the lock when the channel replaced the archive",
            )
        self._notify(BlobDone(digest, writer.size, "downloaded"))
        return writer.size

    async def _transfer(self, record: RepoDataRecord, digest: Digest, stream: BinaryIO) -> _Limited:
        """Copy the archive's bytes into `stream`, from its start, trying again when the transfer breaks off."""
        for attempt in range(1, _ATTEMPTS + 1):
            stream.seek(0)
            stream.truncate()
            writer = _Limited(stream, record, digest, self._notify)
            try:
                await self._copy(record.url, writer)
            except RATTLER_ERRORS as error:
                if isinstance(error, OSError) and error.errno is not None and not record.url.startswith("file:"):
                    raise  # our own disk
                if isinstance(error, OSError) and error.errno is None and attempt < _ATTEMPTS:
                    continue
                # Not chained: rattler's text holds the URL with its token.
                raise _unreachable(record, error) from None
            return writer
        raise AssertionError("unreachable")

    async def _copy(self, url: str, writer: _Limited) -> None:
        if url.startswith("file:"):
            await asyncio.to_thread(_copy_local, url, writer)
            return
        if self._client is None:
            self._client = Client.default_client(max_retries=self._retries, user_agent="ociforge")
        await download_to_writer(self._client, url, writer)


class _Limited(DigestWriter):
    """Counts and hashes; refuses more than the bytes that the record announces."""

    def __init__(self, sink: BinaryIO, record: RepoDataRecord, digest: Digest, notify: Notify) -> None:
        super().__init__(sink)
        self._record = record
        self._name = digest
        self._notify = notify

    def write(self, data: bytes) -> int:
        super().write(data)
        if self._record.size is not None and self.size > self._record.size:
            raise PackageError(
                f"`{self._record.file_name}` from `{without_credentials(self._record.url)}` is not the archive that the"
                f" lock names: it has more than {self._record.size} bytes",
                "update the lock when the channel replaced the archive",
            )
        self._notify(BlobProgress(self._name, len(data)))
        return len(data)


def _digest(record: RepoDataRecord) -> Digest:
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


def _intact(path: Path, digest: Digest) -> int | None:
    """The size of the cached archive, None when it is missing or damaged."""
    try:
        with path.open("rb") as stream:
            return stream.tell() if Digest.of_stream(stream) == digest else None
    except OSError:
        return None


def _copy_local(url: str, writer: _Limited) -> None:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"`{parts.netloc}` is another machine")
    with Path(os.fsdecode(unquote_to_bytes(parts.path))).open("rb") as stream:
        while chunk := stream.read(_READ_SIZE):
            writer.write(chunk)


def _unreachable(record: RepoDataRecord, error: BaseException) -> PackageError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
    message = f"fetching `{record.file_name}` from `{without_credentials(record.url)}`: {why}"
    if why.startswith(("401", "403")):
        return PackageError(message, "log in to the channel (`pixi auth login`)")
    if why.startswith(("404", "410")) or isinstance(error, FileNotFoundError):
        return PackageError(message, "update the lock: the channel no longer has this archive")
    return PackageError(message, "check the network and that the channel can be reached")


def _counted(got: int, expected: int | None) -> str:
    return f"{got} bytes" if expected in (None, got) else f"{got} of {expected} bytes"
