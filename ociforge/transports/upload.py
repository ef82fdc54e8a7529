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

from ociforge.errors import ImageError, RegistryError, TransportError
from ociforge.events import BlobProgress
from ociforge.transports.http import TRANSIENT, BrokenConnectionError, refusal, resolve, retry_after

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

    from layers.digest import Digest
    from ociforge.events import Notify
    from ociforge.transports.base import Blob
    from ociforge.transports.client import RegistryClient
    from ociforge.transports.tokens import Scopes

__all__ = ["BlobBody", "Upload", "check_digest"]

_OCTETS = {"Content-Type": "application/octet-stream"}
_CHUNK = 16 << 20  # 16 MiB
_SMALL_CHUNK = (4 << 20) - (64 << 10)  # just under the 4 MiB that GHCR allows
_SKIP_BLOCK = 1 << 20


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
        self._chunk = _CHUNK
        self._least_chunk = 0
        self._not_found = 0

    def run(self, session: str | None = None) -> None:
        """Upload until the registry has confirmed the digest, in the open `session` if there is one.

        After a failure a new session is begun, as most registries cannot go on with a broken one; but the registry is
        asked first whether only its answer was lost, and whether it can resume. Raises RegistryError.
        """
        try:
            self._run(session)
        finally:
            self._body.close()

    def _run(self, session: str | None) -> None:
        offset = 0
        for attempt in range(1, self._client.wire.attempts + 1):
            wanted = None
            session = session or self._start()
            try:
                response = self._transfer(session, offset)
            except BrokenConnectionError as broken:
                failure: RegistryError = broken
            else:
                if response.status_code in (200, 201, 204):
                    check_digest(response, self._digest)
                    return
                wanted = retry_after(response)
                failure = refusal(response)
                if self._change_mode(response.status_code):
                    session, offset = None, 0
                    continue
                if response.status_code not in TRANSIENT | {404, 416}:
                    raise failure
            if attempt == self._client.wire.attempts:
                raise failure
            self._client.wire.pause(attempt, wanted)
            if self._exists():
                return
            session, offset = self._resume(session)
        raise RegistryError(f"uploading blob `{self._digest}`: the registry refuses every way to do it")

    def _start(self) -> str:
        """Open a session: its URL."""
        response = self._client.request("POST", self._start_url, headers=_OCTETS, scopes=self._scopes, retry=True)
        if response.status_code not in (201, 202):
            raise refusal(response)
        least = response.headers.get("OCI-Chunk-Min-Length", "")
        self._least_chunk = int(least) if least.isdecimal() else 0
        return self._location(response)

    def _transfer(self, session: str, offset: int) -> requests.Response:
        """Send what is missing from `offset` on; the answer to the request that failed, or to the closing one."""
        mode = self._client.upload_mode
        if mode == "put" and offset == 0:
            return self._close(session, 0, self._size)
        chunk = max(self._chunk, self._least_chunk) if mode == "chunk" else self._size
        while offset < self._size:
            length = min(chunk, self._size - offset)
            response = self._patch(session, offset, length)
            if response.status_code not in (201, 202, 204):  # ECR says 201
                return response
            session = self._location(response)
            arrived = _arrived(response, offset + length)
            if arrived <= offset:
                # ECR drops all chunks but the first: only one request can carry the blob.
                self._client.upload_mode = "put"
                raise BrokenConnectionError(f"PATCH of blob `{self._digest}`: the registry did not keep it", sent=True)
            offset = arrived
        return self._close(session, offset, 0)

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
        client = self._client
        self._not_found += status == 404
        if client.upload_mode == "put" and (status == 405 or (status == 404 and self._not_found == 2)):
            client.upload_mode = "patch"
        elif client.upload_mode != "chunk" and status == 413:
            client.upload_mode = "chunk"
        elif client.upload_mode == "chunk" and status in (413, 416) and self._chunk > _SMALL_CHUNK:
            self._chunk = _SMALL_CHUNK
        else:
            return False
        return True

    def _exists(self) -> bool:
        response = self._client.request("HEAD", self._blob_url, scopes=self._scopes)
        return response.status_code == 200

    def _resume(self, session: str) -> tuple[str | None, int]:
        """The session and how many bytes it has, if the registry can go on with it; else a new one is needed."""
        try:
            response = self._client.request("GET", session, scopes=self._scopes, retry=False)
            if response.status_code in (202, 204) and (arrived := _arrived(response, 0)) > 0:
                return self._location(response, session), min(arrived, self._size)
        except RegistryError:
            pass  # not to be able to resume is no failure
        return None, 0

    def _location(self, response: requests.Response, default: str | None = None) -> str:
        return resolve(response.url, response.headers.get("Location") or default, self._client.origin)


def check_digest(response: requests.Response, digest: Digest) -> None:
    """Raise RegistryError when the registry says that it has stored something else than `digest`."""
    stored = response.headers.get("Docker-Content-Digest", "")
    if stored.startswith("sha256:") and stored != str(digest):
        raise RegistryError(f"the registry stored `{digest}` as another digest: {stored[:80]!r}")


def _arrived(response: requests.Response, default: int) -> int:
    """How many bytes the session has, by `Range: 0-LAST`; `default` when the registry does not say."""
    match = re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", response.headers.get("Range", "").strip(), re.ASCII)
    return default if match is None else int(match[1]) + 1
