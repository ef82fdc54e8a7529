"""Wheels and source distributions: from indexes and disks into the cache, verified before anything looks inside."""

from __future__ import annotations

import netrc
import os
import socket
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
from requests.auth import HTTPBasicAuth

from layers.digest import Digest, DigestWriter
from ociforge.errors import PackageError
from ociforge.events import BlobDone, BlobProgress, BlobStarted, Notify, ignore
from ociforge.pypi.location import Local, Remote, redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Access", "Archive", "Cache", "Fetcher"]

_SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz")
_TIMEOUT = (10.0, 60.0)  # seconds: to connect, and between two pieces of an answer
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_BACKOFF, _MAX_WAIT = 0.5, 30.0  # seconds
_LARGEST = 16 << 30  # 16 GiB: larger than any wheel; nothing else bounds a server that never stops sending
_READ_SIZE = 1 << 20  # 1 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to reach servers. `netrc` is the file with credentials for hosts whose URLs hold none; `attempts` bounds how
    often one file is tried; `sleep` takes seconds. Proxies and CA bundles are those of requests' environment.
    """

    netrc: Path | None = None
    attempts: int = 4
    sleep: Callable[[float], object] = field(default=time.sleep, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
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

    def find(self, digest: Digest, filename: str) -> Archive | None:
        """The file with that digest, None when it is missing or damaged."""
        path = self._place(digest, filename)
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
    """Brings files into a cache; may be used by several threads."""

    def __init__(self, cache: Cache, access: Access, notify: Notify = ignore) -> None:
        self._cache = cache
        self._access = access
        self._notify = notify
        self._own = threading.local()  # a requests session belongs to one thread
        self._netrc = _read_netrc(access.netrc)

    def fetch(self, source: Remote | Local) -> Archive:
        """The file, from the cache when it is there and whole; PackageError when it cannot be had as locked."""
        if source.sha256 is not None and (found := self._cache.find(source.sha256, source.filename)):
            return found
        return self._download(source) if isinstance(source, Remote) else self._copy(source)

    def _copy(self, source: Local) -> Archive:
        def write(sink: BinaryIO) -> Digest:
            writer = DigestWriter(sink)
            try:
                with source.path.open("rb") as stream:
                    while chunk := stream.read(_READ_SIZE):
                        writer.write(chunk)
            except OSError as error:
                raise PackageError(f"cannot read `{source.path}`: {error.strerror}") from error
            _verify(source, writer, str(source.path))
            return writer.digest()

        return self._cache.store(source.filename, write)

    def _download(self, source: Remote) -> Archive:
        def write(sink: BinaryIO) -> Digest:
            writer = self._receive(source, sink)
            _verify(source, writer, redacted(source.url))
            return writer.digest()

        archive = self._cache.store(source.filename, write)
        self._notify(BlobDone(archive.digest, archive.size, "downloaded"))
        return archive

    def _receive(self, source: Remote, sink: BinaryIO) -> DigestWriter:
        """Copy the file into `sink`, from its start, trying again when the transfer breaks off."""
        for attempt in range(1, self._access.attempts + 1):
            sink.seek(0)
            sink.truncate()
            try:
                return self._attempt(source, sink)
            except _TransientError as failure:
                if attempt == self._access.attempts:
                    raise PackageError(
                        f"fetching `{source.filename}` from `{redacted(source.url)}`: {failure.reason}",
                        "check the network and that the server can be reached",
                    ) from None
                wanted = _BACKOFF * 2.0 ** (attempt - 1) if failure.wait is None else failure.wait
                self._access.sleep(min(wanted, _MAX_WAIT))
        raise AssertionError("unreachable")

    def _attempt(self, source: Remote, sink: BinaryIO) -> DigestWriter:
        writer = DigestWriter(sink)
        with _translated(source), self._get(source) as response:
            _check_status(source, response)
            length = response.headers.get("Content-Length", "")
            announced = int(length) if length.isascii() and length.isdigit() else 0
            self._notify(BlobStarted(source.sha256, announced, redacted(source.url)))
            for chunk in response.iter_content(_READ_SIZE):
                writer.write(chunk)
                if writer.size > _LARGEST:
                    raise PackageError(f"`{source.filename}` from `{redacted(source.url)}` does not end")
                self._notify(BlobProgress(source.sha256, len(chunk)))
        return writer

    def _get(self, source: Remote) -> requests.Response:
        parts = urlsplit(source.url)
        netloc = parts.netloc.rpartition("@")[2]
        credential = None
        if parts.username is not None:
            credential = HTTPBasicAuth(unquote(parts.username).encode(), unquote(parts.password or "").encode())
        elif self._netrc is not None and (found := self._netrc.authenticators(parts.hostname or "")):
            credential = HTTPBasicAuth(found[0].encode(), (found[2] or "").encode())
        return self._session().get(
            urlunsplit(parts._replace(netloc=netloc)), auth=credential, stream=True, timeout=_TIMEOUT
        )

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = _Session()
            session.auth = _no_credential  # stands where requests would else put what NETRC or ~/.netrc has
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            session.headers.update({"User-Agent": "ociforge", "Accept-Encoding": "identity"})
        return session


class _Session(requests.Session):
    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """On the way to another host the credential is dropped; none is looked up for that host."""
        here, there = response.request.url, prepared_request.url
        if self.should_strip_auth(here, there):  # type: ignore[no-untyped-call]
            prepared_request.headers.pop("Authorization", None)


class _TransientError(Exception):
    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait


def _no_credential(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


@contextmanager
def _translated(source: Remote) -> Iterator[None]:
    """requests' errors, whose texts quote URLs with what may be secret in them."""
    try:
        yield
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        if isinstance(error, requests.exceptions.SSLError):
            raise PackageError(
                f"fetching `{source.filename}` from `{redacted(source.url)}`: no TLS connection",
                "if an authority of your own signed the certificate, name its file in REQUESTS_CA_BUNDLE",
            ) from None
        raise _TransientError(_reason(error)) from None
    except requests.RequestException as error:
        raise PackageError(
            f"fetching `{source.filename}` from `{redacted(source.url)}`: {type(error).__name__}"
        ) from None


def _reason(error: BaseException) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "no such host"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror[:1].lower() + cause.strerror[1:]
        inner = [a for a in (*cause.args, getattr(cause, "reason", None)) if isinstance(a, BaseException)]
        cause = inner[0] if inner else cause.__cause__
    return "the connection was closed before the answer was complete"


def _check_status(source: Remote, response: requests.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    if status in _TRANSIENT:
        wait = response.headers.get("Retry-After", "")
        raise _TransientError(f"{status} {response.reason}", float(wait) if wait.isascii() and wait.isdigit() else None)
    hint = None
    if status in (401, 403):
        hint = "add the index's host to ~/.netrc"
    elif status in (404, 410):
        hint = "update the lock: the index no longer has this file"
    raise PackageError(
        f"fetching `{source.filename}` from `{redacted(source.url)}`: {status} {response.reason}".rstrip(), hint
    )


def _verify(source: Remote | Local, writer: DigestWriter, place: str) -> None:
    if source.sha256 is not None and writer.digest() != source.sha256:
        raise PackageError(
            f"`{source.filename}` from `{place}` is not the file that the lock names: expected `{source.sha256}`,"
            f" got `{writer.digest()}` ({writer.size} bytes)",
            "download it again, or update the lock when the file was replaced",
        )


def _read_netrc(path: Path | None) -> netrc.netrc | None:
    if path is None or not path.is_file():
        return None
    try:
        return netrc.netrc(path)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        # The parser's own words quote what it stumbled over, which may be a password.
        reason = f"see line {error.lineno}" if isinstance(error, netrc.NetrcParseError) else "it cannot be read"
        raise PackageError(f"`{path}` is no netrc file: {reason}") from error
