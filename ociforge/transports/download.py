"""One blob from a registry, as a stream that survives broken connections (distribution-spec, "Pulling blobs")."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import urllib3

from ociforge.errors import ImageError, RegistryError
from ociforge.transports.http import BrokenConnectionError, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from ociforge.oci.descriptor import Descriptor
    from ociforge.transports.http import Wire

__all__ = ["BlobStream"]

_BLOCK = 256 << 10  # 256 KiB
_PROGRESS = 1 << 20  # 1 MiB: having got this far since the last break, the connection counts as good again


class BlobStream(io.RawIOBase):
    """The bytes of a blob as they come; not verified, that is for the reader around it.

    `get` asks for the blob from an offset on (sending `Range` when it is not 0). When a connection breaks the stream
    goes on where it was: from a 206 that begins there, else by passing over what it has delivered already. More bytes
    than announced are delivered, for the reader to see. Closing it closes the connection.
    """

    def __init__(
        self,
        get: Callable[[int], requests.Response],
        descriptor: Descriptor,
        wire: Wire,
    ) -> None:
        super().__init__()
        self._get = get
        self._descriptor = descriptor
        self._wire = wire
        self._position = 0  # bytes delivered
        self._skip = 0  # bytes of the present answer that were delivered before
        self._failures = 0
        self._good_until = _PROGRESS
        self._connected = False  # `close` is called even for an object whose connection was refused
        self._response = self._connect()
        self._connected = True

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Some bytes, at most `size`, as they are received: nothing is copied. `b""` only at the end of the blob."""
        if size < 0:
            return self.readall()
        while True:
            data = self._read(min(size, self._skip or size))
            passed = min(self._skip, len(data))  # `_read` may have connected again, with more to pass over
            self._skip -= passed
            if not data or passed < len(data):
                self._advance(len(data) - passed)
                return data[passed:]

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # any writable buffer, in fact
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self._connected:
                self._response.close()

    def _read(self, size: int) -> bytes:
        """Some bytes of the answer; `b""` only at the end of the blob."""
        while True:
            try:
                data = self._pace.read(self._response.raw, min(size, _BLOCK))
            except (urllib3.exceptions.HTTPError, OSError) as error:
                self._recover(self._wire.translate(error, "GET", self._response.url))
                continue
            if data or size == 0:
                return data
            if self._position >= self._descriptor.size:
                return b""
            self._recover(
                BrokenConnectionError(
                    f"GET of blob `{self._descriptor.digest}`: the connection was closed early", sent=True
                )
            )

    def _advance(self, count: int) -> None:
        self._position += count
        if self._position >= self._good_until:
            self._failures = 0

    def _recover(self, failure: RegistryError) -> None:
        """Connect again; raises `failure` when it happened too often without progress."""
        self._response.close()
        self._failures += 1
        self._good_until = self._position + _PROGRESS
        if self._failures >= self._wire.attempts or not isinstance(failure, BrokenConnectionError):
            raise failure
        self._wire.pause(self._failures)
        self._response = self._connect()

    def _connect(self) -> requests.Response:
        response = self._get(self._position)
        if response.status_code == 416 or (response.status_code == 206 and not self._continues(response)):
            response.close()
            response = self._get(0)
        if response.status_code not in (200, 206):
            raise refusal(response)
        self._skip = self._position if response.status_code == 200 else 0
        self._pace = self._wire.pace()
        length = response.headers.get("Content-Length", "")
        expected = self._descriptor.size - (0 if response.status_code == 200 else self._position)
        if length.isdecimal() and int(length) != expected:
            response.close()
            raise ImageError(f"blob `{self._descriptor.digest}`: expected {expected} bytes, the registry has {length}")
        return response

    def _continues(self, response: requests.Response) -> bool:
        return response.headers.get("Content-Range", "").startswith(f"bytes {self._position}-")
