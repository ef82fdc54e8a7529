"""Files over http, out of indexes and their mirrors: the only module of the package that opens connections.

Importing it takes long, and urllib3 then opens a socket to find out about IPv6: so only who downloads imports it.
"""

from __future__ import annotations

import netrc
import socket
import threading
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
from requests.auth import HTTPBasicAuth

from layers.digest import DigestWriter
from ociforge.errors import PackageError
from ociforge.events import BlobProgress, BlobStarted
from ociforge.pypi.access import AbsentError
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ociforge.events import Notify
    from ociforge.network import Place
    from ociforge.pypi.access import Access
    from ociforge.pypi.location import Remote

__all__ = ["Downloader"]

_TIMEOUT = (10.0, 60.0)  # seconds: to connect, and between two pieces of an answer
_MIRROR_TIMEOUT = (3.0, 30.0)
_MIRROR_ATTEMPTS = 2  # there is somebody else to ask
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_BACKOFF, _MAX_WAIT = 0.5, 30.0  # seconds
_LARGEST = 16 << 30  # 16 GiB: larger than any wheel; nothing else bounds a server that never stops sending
_READ_SIZE = 1 << 20  # 1 MiB


class Downloader:
    """Asks servers for files; may be used by several threads. Credentials are those in the URL, else `access`'s netrc.

    Raises PackageError for a netrc file that is none.
    """

    def __init__(self, access: Access, notify: Notify) -> None:
        self._access = access
        self._notify = notify
        self._own = threading.local()  # a requests session belongs to one thread
        self._netrc = _read_netrc(access.netrc)

    def receive(self, source: Remote, place: Place, sink: BinaryIO) -> DigestWriter:
        """Copy the file from `place` into `sink`, from its start, trying again when the transfer breaks off.

        Nothing is verified. Raises PackageError, AbsentError when the server has no such file.
        """
        attempts = self._access.attempts if place.mirror is None else min(self._access.attempts, _MIRROR_ATTEMPTS)
        for attempt in range(1, attempts + 1):
            sink.seek(0)
            sink.truncate()
            try:
                return self._attempt(source, place, sink)
            except _TransientError as failure:
                if attempt == attempts:
                    raise PackageError(
                        f"fetching `{source.filename}` from `{redacted(place.url)}`: {failure.reason}",
                        "check the network and that the server can be reached",
                    ) from None
                wanted = _BACKOFF * 2.0 ** (attempt - 1) if failure.wait is None else failure.wait
                self._access.sleep(min(wanted, _MAX_WAIT))
        raise AssertionError("unreachable")

    def small(self, place: Place, limit: int) -> bytes | None:
        """The file at `place` if there is one of at most `limit` bytes; None, too, when the server cannot be asked."""
        try:
            with self._get(place) as response:
                content = bytearray()
                for chunk in response.iter_content(_READ_SIZE) if response.status_code == 200 else ():
                    content += chunk
                    if len(content) > limit:
                        return None
                return bytes(content) if response.status_code == 200 else None
        except requests.RequestException:
            return None

    def _attempt(self, source: Remote, place: Place, sink: BinaryIO) -> DigestWriter:
        writer = DigestWriter(sink)
        shown = redacted(place.url)
        with _translated(source.filename, shown), self._get(place) as response:
            _check_status(source.filename, shown, response)
            length = response.headers.get("Content-Length", "")
            announced = int(length) if length.isascii() and length.isdigit() else 0
            self._notify(BlobStarted(source.sha256, announced, shown))
            for chunk in response.iter_content(_READ_SIZE):
                writer.write(chunk)
                if writer.size > _LARGEST:
                    raise PackageError(f"`{source.filename}` from `{shown}` does not end")
                self._notify(BlobProgress(source.sha256, len(chunk)))
        return writer

    def _get(self, place: Place) -> requests.Response:
        parts = urlsplit(place.url)
        netloc = parts.netloc.rpartition("@")[2]
        credential = None
        if parts.username is not None:
            credential = HTTPBasicAuth(unquote(parts.username).encode(), unquote(parts.password or "").encode())
        elif self._netrc is not None and (found := self._netrc.authenticators(parts.hostname or "")):
            credential = HTTPBasicAuth(found[0].encode(), (found[2] or "").encode())
        return self._session().get(
            urlunsplit(parts._replace(netloc=netloc)),
            auth=credential,
            stream=True,
            timeout=_TIMEOUT if place.mirror is None else _MIRROR_TIMEOUT,
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
def _translated(filename: str, shown: str) -> Iterator[None]:
    """requests' errors, whose texts quote URLs with what may be secret in them."""
    try:
        yield
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        if isinstance(error, requests.exceptions.SSLError):
            raise PackageError(
                f"fetching `{filename}` from `{shown}`: no TLS connection",
                "if an authority of your own signed the certificate, name its file in REQUESTS_CA_BUNDLE",
            ) from None
        raise _TransientError(_reason(error)) from None
    except requests.RequestException as error:
        raise PackageError(f"fetching `{filename}` from `{shown}`: {type(error).__name__}") from None


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


def _check_status(filename: str, shown: str, response: requests.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    if status in _TRANSIENT:
        wait = response.headers.get("Retry-After", "")
        raise _TransientError(f"{status} {response.reason}", float(wait) if wait.isascii() and wait.isdigit() else None)
    message = f"fetching `{filename}` from `{shown}`: {status} {response.reason}".rstrip()
    if status in (404, 410):
        raise AbsentError(message, "update the lock: the index no longer has this file")
    raise PackageError(message, "add the index's host to ~/.netrc" if status in (401, 403) else None)


def _read_netrc(path: Path | None) -> netrc.netrc | None:
    if path is None or not path.is_file():
        return None
    try:
        return netrc.netrc(path)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        # The parser's own words quote what it stumbled over, which may be a password.
        reason = f"see line {error.lineno}" if isinstance(error, netrc.NetrcParseError) else "it cannot be read"
        raise PackageError(f"`{path}` is no netrc file: {reason}") from error
