"""One blob to a registry (distribution-spec, "Pushing blobs"): how its bytes cross, and what to do when they do not.

Three ways, tried in this order, each only after a registry refused the one before: `put`, one request with the whole
body, right for nearly all; `patch`, a streamed PATCH and a closing PUT (old Artifactory); `chunk`, several PATCHes
(registries and proxies with a limit on bodies). Several registries break on chunks, so they come last.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urlsplit

from msgspec import Struct

from ociforge.errors import ImageError, RegistryError, TransportError
from ociforge.events import BlobProgress
from ociforge.transports.http import (
    TRANSIENT,
    BrokenConnectionError,
    body_of,
    refusal,
    resolve,
    retry_after,
    worth_waiting,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

    from layers.digest import Digest
    from ociforge.events import Notify
    from ociforge.transports.base import Blob
    from ociforge.transports.client import RegistryClient, UploadMode
    from ociforge.transports.tokens import Scopes

__all__ = ["BlobBody", "Upload", "check_digest"]

_OCTETS = {"Content-Type": "application/octet-stream"}
_CHUNK = 16 << 20  # 16 MiB
_SMALL_CHUNK = (4 << 20) - (64 << 10)  # just under the 4 MiB that GHCR allows
_SKIP_BLOCK = 1 << 20
_PROGRESS = 1 << 20  # 1 MiB more at the registry, and the earlier failures no longer count


class BlobBody:
    """A window of a blob as a request's body. It opens the blob anew to go back, and reports each byte sent once.

    Raises ImageError when the blob is shorter than announced, TransportError when it cannot be read: either breaks
    off the request, so the registry gets no whole body.
    """

    def __init__(self, blob: Blob, notify: Notify) -> None:
        self._blob = blob
        self._notify = notify
        self._stream: BinaryIO | None = None
        self._position = 0  # of the stream
        self._reported = 0
        self._start, self._end = 0, blob.descriptor.size

    def window(self, start: int, length: int) -> None:
        """From now on be the `length` bytes from `start` on."""
        self._start, self._end = start, start + length

    def rewind(self) -> None:
        if self._stream is not None and self._position == self._start:
            return
        if self._stream is None or self._position > self._start:
            self.close()
            self._stream, self._position = self._open(), 0
        while self._position < self._start:
            self._take(min(_SKIP_BLOCK, self._start - self._position))

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def read(self, size: int = -1, /) -> bytes:
        left = self._end - self._position
        wanted = left if size < 0 else min(size, left)
        return self._take(wanted) if wanted > 0 else b""

    def __len__(self) -> int:
        return self._end - self._start

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(_SKIP_BLOCK):
            yield chunk

    def _open(self) -> BinaryIO:
        with self._translated():
            return self._blob.open()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What goes wrong on the side of the blob is not to be taken for a broken connection to the registry."""
        try:
            yield
        except BrokenConnectionError as error:
            raise TransportError(error.message, error.hint) from error
        except OSError as error:
            what = f"reading blob `{self._blob.descriptor.digest}` to upload it"
            raise TransportError(f"{what}: {error.strerror or error}") from error

    def _take(self, wanted: int) -> bytes:
        assert self._stream is not None, "rewind comes first"
        digest = self._blob.descriptor.digest
        with self._translated():
            chunk = self._stream.read(wanted)
        if not chunk:
            raise ImageError(f"blob `{digest}`: expected {self._blob.descriptor.size} bytes, got {self._position}")
        self._position += len(chunk)
        if self._position > self._reported:
            self._notify(BlobProgress(digest, self._position - self._reported))
            self._reported = self._position
        return chunk


class Upload:
    """The transfer of one blob to the repository whose uploads begin at `start_url`; `run` does it."""

    def __init__(
        self, client: RegistryClient, start_url: str, blob_url: str, blob: Blob, scopes: Scopes, notify: Notify
    ) -> None:
        self._client = client
        self._start_url = start_url
        self._blob_url = blob_url
        self._digest = blob.descriptor.digest
        self._size = blob.descriptor.size
        self._scopes = scopes
        self._body = BlobBody(blob, notify)
        self._session: str | None = None  # where the next request goes: registries may name another place each time
        self._mode: UploadMode = "put"  # of the present attempt
        self._offset = 0  # bytes that the session is known to have
        self._reached = 0  # the largest offset at which the count of failures began anew
        self._stuck = 0  # how often going on with a session brought nothing
        self._chunk = _CHUNK
        self._least_chunk = 0
        self._not_found = 0

    def run(self, session: str | None = None) -> None:
        """Upload until the registry has confirmed the digest, in the open `session` if there is one.

        After a failure a new session is begun, as most registries cannot go on with a broken one; but the registry is
        asked first whether only its answer was lost, and whether it can resume. Raises RegistryError.
        """
        self._session = session
        try:
            self._run()
        finally:
            self._body.close()

    def _run(self) -> None:
        failures = 0
        while True:
            begun = self._offset
            try:
                response = self._transfer()
                if response.status_code in (200, 201, 204):
                    check_digest(response, self._digest)
                    return
                failure = self._judge(response, resumed=begun > 0)
            except BrokenConnectionError as broken:
                failure = _Failure(broken)
            failures = 1 if self._has_progressed() else failures + 1
            if failures >= self._client.wire.attempts:
                raise failure.error
            if failure.other_way:
                self._forget_session()
                continue
            self._client.wire.pause(failures, failure.wanted)
            if self._exists():
                return
            if failure.resumable:
                self._resume(begun, refused=failure.refused)
            else:
                self._forget_session()

    def _has_progressed(self) -> bool:
        """Whether the registry has so much more than after the last failures that they need not be counted."""
        if self._offset < self._reached + _PROGRESS:
            return False
        self._reached = self._offset
        return True

    def _judge(self, response: requests.Response, *, resumed: bool) -> _Failure:
        """What an answer that is no success means for the upload; raises RegistryError when it is final. A refusal of
        what was `resumed` never is: a registry that takes no half of a blob may take the whole.
        """
        status, wanted = response.status_code, retry_after(response)
        error = refusal(response)
        if status in TRANSIENT and worth_waiting(wanted):
            return _Failure(error, wanted=wanted)
        if not (resumed and self._mode == "put") and self._change_mode(status):
            return _Failure(error, other_way=True)
        if status in (404, 416) or (resumed and 400 <= status < 500 and status != 429):
            return _Failure(error, refused=True)
        if status in (400, 409) and b"cannot be updated" in body_of(response):
            return _Failure(error, resumable=False)  # Nexus: another client is uploading the same blob
        raise error

    def _start(self) -> str:
        """Open a session: its URL."""
        response = self._client.request("POST", self._start_url, headers=_OCTETS, scopes=self._scopes, retry=True)
        if response.status_code not in (201, 202):
            raise refusal(response)
        least = response.headers.get("OCI-Chunk-Min-Length", "")
        self._least_chunk = int(least) if least.isdecimal() else 0
        return self._location(response)

    def _transfer(self) -> requests.Response:
        """Send what is missing; the answer to the request that failed, or to the closing one."""
        if self._session is None:
            self._session = self._start()
        self._mode = self._client.upload_mode
        if self._mode == "put" and self._offset == 0:
            return self._close(self._session, 0, self._size)
        chunk = max(self._chunk, self._least_chunk) if self._mode == "chunk" else self._size
        while self._offset < self._size:
            length = min(chunk, self._size - self._offset)
            response = self._patch(self._session, self._offset, length)
            if response.status_code not in (201, 202, 204):  # ECR says 201
                return response
            self._session = self._location(response)
            arrived = _arrived(response, self._offset + length)
            if arrived <= self._offset:
                # ECR drops all chunks but the first: only one request can carry the blob.
                self._client.upload_mode = "put"
                self._forget_session()
                what = f"PATCH of blob `{self._digest}`: the registry did not keep it"
                raise BrokenConnectionError(what, sent=True)
            self._offset = arrived
        return self._close(self._session, self._offset, 0)

    def _close(self, session: str, start: int, length: int) -> requests.Response:
        joiner = "&" if urlsplit(session).query else "?"
        return self._send("PUT", f"{session}{joiner}digest={quote(str(self._digest), safe='')}", start, length, {})

    def _patch(self, session: str, start: int, length: int) -> requests.Response:
        whole = (start, length) == (0, self._size)
        return self._send(
            "PATCH", session, start, length, {} if whole else {"Content-Range": f"{start}-{start + length - 1}"}
        )

    def _send(self, method: str, url: str, start: int, length: int, headers: dict[str, str]) -> requests.Response:
        self._body.window(start, length)
        return self._client.request(
            method,
            url,
            headers=_OCTETS | headers,
            body=self._body if length else None,
            scopes=self._scopes,
            retry=False,
        )

    def _change_mode(self, status: int) -> bool:
        """Take another way after an answer that says this one will never do; whether there is one."""
        self._not_found += status == 404
        if self._mode == "put" and (status == 405 or (status == 404 and self._not_found == 2)):
            self._client.upload_mode = "patch"
        elif self._mode != "chunk" and status == 413:
            self._client.upload_mode = "chunk"
        elif self._mode == "chunk" and status in (413, 416) and self._chunk > _SMALL_CHUNK:
            self._chunk = _SMALL_CHUNK
        else:
            return False
        return True

    def _exists(self) -> bool:
        response = self._client.request("HEAD", self._blob_url, scopes=self._scopes)
        return response.status_code == 200

    def _resume(self, begun: int, *, refused: bool) -> None:
        """Go on with the session if the registry can, else begin anew. An attempt that began at `begun`, and in which
        no byte arrived, is repeated once, and not at all when it was `refused`.
        """
        session, self._session = self._session, None
        self._offset = 0
        if session is None:
            return
        try:
            response = self._client.request("GET", session, scopes=self._scopes)
            arrived = min(_arrived(response, 0), self._size)
            if response.status_code not in (202, 204) or arrived == 0:
                return
            self._stuck += arrived <= begun
            if arrived > begun or (self._stuck == 1 and not refused):
                self._session, self._offset = self._location(response, session), arrived
        except RegistryError:
            pass  # not to be able to resume is no failure

    def _forget_session(self) -> None:
        self._session, self._offset = None, 0

    def _location(self, response: requests.Response, default: str | None = None) -> str:
        return resolve(response.url, response.headers.get("Location") or default, self._client.origin)


class _Failure(Struct, frozen=True):
    """Why a transfer was not the last: `wanted` are the seconds to wait, if the registry told; with `other_way` the
    blob goes another way at once; `refused` when the session was, which is not `resumable` at all if it is of no use.
    """

    error: RegistryError
    wanted: float | None = None
    other_way: bool = False
    refused: bool = False
    resumable: bool = True


def check_digest(response: requests.Response, digest: Digest) -> None:
    """Raise RegistryError when the registry says that it has stored something else than `digest`."""
    stored = response.headers.get("Docker-Content-Digest", "")
    if stored.startswith("sha256:") and stored != str(digest):
        raise RegistryError(f"the registry stored `{digest}` as another digest: {stored[:80]!r}")


def _arrived(response: requests.Response, default: int) -> int:
    """How many bytes the session has, by `Range: 0-LAST`; `default` when the registry does not say.

    `0-0` is what registries say of one byte, and most say it of none: it counts as one only where that is expected.
    """
    match = re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", response.headers.get("Range", "").strip(), re.ASCII)
    if match is None:
        return default
    last = int(match[1])
    return last + 1 if last or default == 1 else 0
