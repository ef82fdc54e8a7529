"""Wheels and source distributions: from indexes and disks into the cache, verified before anything looks inside."""

from __future__ import annotations

import os
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from layers.digest import Digest, DigestWriter
from ociforge.errors import OfflineError, PackageError
from ociforge.events import BlobDone, Notify, ignore
from ociforge.network import Route
from ociforge.pypi.access import AbsentError, Access
from ociforge.pypi.location import Local, Remote
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ociforge.network import Place
    from ociforge.pypi.download import Downloader

__all__ = ["Access", "Archive", "Cache", "Fetcher"]

_SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz")
_READ_SIZE = 1 << 20  # 1 MiB
_FETCH_HINT = "fetch it where there is a network: `ociforge fetch`"


class Archive(Struct, frozen=True, kw_only=True):
    """A verified file in the cache, under the name `filename` elsewhere. `size` in bytes."""

    path: Path
    filename: str
    digest: Digest
    size: int


class Cache:
    """`<root>/<sha256>.whl` and the like: files appear when they are whole, and are verified on each use.

    Concurrent processes may share the directory, and anything in it may be deleted at any time.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PackageError(f"cannot use `{root}` for wheels: {error.strerror}") from error

    def has(self, digest: Digest, filename: str) -> bool:
        """Whether there is such a file, whole or not; it counts as used now."""
        return _noted(self._place(digest, filename))

    def find(self, digest: Digest, filename: str) -> Archive | None:
        """The file with that digest, None when it is missing or damaged."""
        path = self._place(digest, filename)
        _noted(path)
        try:
            with path.open("rb") as stream:
                if Digest.of_stream(stream) != digest:
                    return None
                return Archive(path=path, filename=filename, digest=digest, size=stream.tell())
        except OSError:
            return None

    def store(self, filename: str, write: Callable[[BinaryIO], Digest]) -> Archive:
        """Keep what `write` puts into the stream it is given, under the digest that it returns."""
        try:
            number, name = tempfile.mkstemp(dir=self._root, prefix=".", suffix=".part")
            part = Path(name)
            try:
                with os.fdopen(number, "w+b") as stream:
                    os.fchmod(number, 0o644)  # as all that the store has
                    digest = write(stream)
                    size = stream.seek(0, os.SEEK_END)
                path = part.replace(self._place(digest, filename))
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise PackageError(f"cannot write `{filename}` into `{self._root}`: {error.strerror}") from error
        return Archive(path=path, filename=filename, digest=digest, size=size)

    def _place(self, digest: Digest, filename: str) -> Path:
        suffix = next((known for known in _SUFFIXES if filename.endswith(known)), Path(filename).suffix)
        return self._root / f"{digest.hex}{suffix}"


class Fetcher:
    """Brings files into a cache; may be used by several threads. What opens connections is imported when it does."""

    def __init__(self, cache: Cache, access: Access, notify: Notify = ignore) -> None:
        self._cache = cache
        self._access = access
        self._notify = notify
        self._route = Route(access.mirrors, offline=access.offline, notify=notify)
        self._lock = threading.Lock()
        self._opened: Downloader | None = None

    def fetch(self, source: Remote | Local) -> Archive:
        """The file, from the cache when it is there and whole, else from a mirror or where it is locked.

        Raises PackageError when it cannot be had as locked, OfflineError when there is no network for that.
        """
        if source.sha256 is not None and (found := self._cache.find(source.sha256, source.filename)):
            return found
        return self._download(source) if isinstance(source, Remote) else self._copied(source)

    def beside(self, source: Remote, suffix: str, limit: int) -> bytes | None:
        """The file at the URL of `source` with `suffix` behind its path; None where it is not served, or too large."""
        for place in self._route.places(source.url, redacted(source.url)):
            head, mark, query = place.url.partition("?")
            there = replace(place, url=f"{head}{suffix}{mark}{query}")
            found = _small(there.url, limit) if there.local else self._downloader.small(there, limit)
            if found is not None:
                return found
        return None

    @property
    def _downloader(self) -> Downloader:
        from ociforge.pypi.download import Downloader

        with self._lock:
            if self._opened is None:
                self._opened = Downloader(self._access, self._notify)
            return self._opened

    def _copied(self, source: Local) -> Archive:
        def write(sink: BinaryIO) -> Digest:
            writer = _copy(source.path, sink)
            _verify(source, writer, str(source.path))
            return writer.digest()

        return self._cache.store(source.filename, write)

    def _download(self, source: Remote) -> Archive:
        archive = self._cache.store(source.filename, partial(self._receive, source))
        self._notify(BlobDone(archive.digest, archive.size, "downloaded"))
        return archive

    def _receive(self, source: Remote, sink: BinaryIO) -> Digest:
        """Write the file into `sink`, from the first place that has it."""
        places = self._route.places(source.url, redacted(source.url))
        for place in places:
            try:
                return self._received(source, place, sink)
            except PackageError as error:
                if place.mirror is None or place is places[-1]:
                    raise
                self._route.leave(place.mirror, error.message, lacks=isinstance(error, AbsentError))
        raise OfflineError(f"`{source.filename}` is not in the store", _FETCH_HINT)

    def _received(self, source: Remote, place: Place, sink: BinaryIO) -> Digest:
        if place.local:
            sink.seek(0)
            sink.truncate()
            writer = _copy(_local_path(place.url), sink)
        else:
            writer = self._downloader.receive(source, place, sink)
        _verify(source, writer, redacted(place.url))
        return writer.digest()


def _noted(path: Path) -> bool:
    """Note that the file is used now, by which the cache is pruned; False when it is not there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:  # another user's cache, or one that cannot be written
        return path.exists()
    return True


def _copy(path: Path, sink: BinaryIO) -> DigestWriter:
    writer = DigestWriter(sink)
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_READ_SIZE):
                writer.write(chunk)
    except FileNotFoundError as error:
        raise AbsentError(f"cannot read `{path}`: {error.strerror}") from error
    except OSError as error:
        raise PackageError(f"cannot read `{path}`: {error.strerror}") from error
    return writer


def _small(url: str, limit: int) -> bytes | None:
    try:
        with _local_path(url).open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError:
        return None
    return content if len(content) <= limit else None


def _local_path(url: str) -> Path:
    return Path(os.fsdecode(unquote(urlsplit(url).path, errors="surrogateescape")))


def _verify(source: Remote | Local, writer: DigestWriter, place: str) -> None:
    if source.sha256 is not None and writer.digest() != source.sha256:
        raise PackageError(
            f"`{source.filename}` from `{place}` is not the file that the lock names: expected `{source.sha256}`,"
            f" got `{writer.digest()}` ({writer.size} bytes)",
            "download it again, or update the lock when the file was replaced",
        )
