"""Streams that prove their bytes (image-spec, descriptor.md, "Verification")."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from layers.digest import DigestWriter
from ociforge.errors import ImageError
from ociforge.oci.descriptor import MAX_MANIFEST_SIZE

if TYPE_CHECKING:
    from ociforge.oci.descriptor import Descriptor

__all__ = ["READ_SIZE", "VerifiedReader", "read_document", "verified"]

# Bytes of a blob to move at once: they are still in the processor's cache when they are hashed and written, and some
# file systems take several times as long to write the same in larger pieces.
READ_SIZE = 256 << 10
_DAMAGED = "the image is damaged where it is read from: fetch or make it again"


class VerifiedReader(io.BufferedIOBase, BinaryIO):
    """Passes on the bytes of `stream`, which must be the ones that `descriptor` names.

    The read that reaches the last byte announced checks the digest and that nothing follows, before it returns that
    byte: who has read `descriptor.size` bytes, or got `b""`, has the right ones. A short, long or different body raises
    ImageError, then and at every later read. Closing it closes `stream`. Not seekable; for one thread.
    """

    def __init__(self, stream: BinaryIO, descriptor: Descriptor) -> None:
        self._stream = stream
        self._descriptor = descriptor
        self._seen = DigestWriter()
        self._verified = False
        self._failure: str | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Exactly `size` bytes, or what is left of the blob when that is less (or when `size` is negative)."""
        wanted = self._left() if size is None or size < 0 else min(size, self._left())
        chunks = []
        while wanted > 0:
            chunk = self._next(min(wanted, READ_SIZE))
            chunks.append(chunk)
            wanted -= len(chunk)
        self._finish()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def begins(self, descriptor: Descriptor) -> bool:
        """Whether reading on gives the whole of `descriptor`, verified."""
        return not self._seen.size and (descriptor.digest, descriptor.size) == (
            self._descriptor.digest,
            self._descriptor.size,
        )

    def read1(self, size: int = -1, /) -> bytes:
        """Some bytes, at most `size`, with one read of the stream; `b""` at the end."""
        wanted = min(size if size >= 0 else READ_SIZE, self._left())
        chunk = self._next(wanted) if wanted > 0 else b""
        self._finish()
        return chunk

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._stream.close()

    def _left(self) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if self._failure is not None:
            raise ImageError(self._failure, _DAMAGED)
        return self._descriptor.size - self._seen.size

    def _next(self, wanted: int) -> bytes:
        chunk = self._stream.read(wanted)
        if not chunk:
            self._fail(f"expected {self._descriptor.size} bytes, got {self._seen.size}")
        self._seen.write(chunk)
        return chunk

    def _finish(self) -> None:
        """Once all bytes announced have passed, check what they are and that they are all."""
        if self._verified or self._seen.size < self._descriptor.size:
            return
        if self._seen.size > self._descriptor.size or self._stream.read(1):
            self._fail(f"expected {self._descriptor.size} bytes, got more")
        digest = self._seen.digest()
        if digest != self._descriptor.digest:
            self._fail(f"got bytes with the digest `{digest}`")
        self._verified = True

    def _fail(self, why: str) -> None:
        self._failure = f"blob `{self._descriptor.digest}`: {why}"
        raise ImageError(self._failure, _DAMAGED)


def verified(stream: BinaryIO, descriptor: Descriptor) -> VerifiedReader:
    """A reader that proves the bytes of `stream`, and closes it: `stream` itself if it does so already."""
    if isinstance(stream, VerifiedReader) and stream.begins(descriptor):
        return stream  # nothing is hashed twice
    return VerifiedReader(stream, descriptor)


def read_document(stream: BinaryIO, descriptor: Descriptor, limit: int = MAX_MANIFEST_SIZE) -> bytes:
    """All verified bytes of a manifest, index or config; closes `stream`.

    Raises ImageError when the descriptor announces more than `limit` bytes (before anything is read), or when the bytes
    are not the ones it names.
    """
    with verified(stream, descriptor) as reader:
        if descriptor.size > limit:
            raise ImageError(f"document `{descriptor.digest}`: {descriptor.size} bytes, but at most {limit} are read")
        return reader.read()
