"""Reading blobs back: plain, gzip, zstd or xz, with bounds on memory and output.

Stricter than most readers: a blob ends with the last byte of its last member or frame. Input is hostile until shown
otherwise.
"""

from __future__ import annotations

import io
import lzma
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layers.errors import CodecError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import BinaryIO

__all__ = ["decompress", "decompressed"]

_READ = 64 << 10  # 64 KiB of compressed input at a time
_CHUNK = 1 << 20  # 1 MiB: the most that one step of reading makes of it
_MAX_WINDOW = 128 << 20  # 128 MiB (windowLog 27): the most that `zstd -d` and the engines that use it accept
_GZIP_CONTAINER = 31  # zlib's window bits for one gzip member
_GZIP_MAGIC = b"\x1f\x8b"
_XZ_MAGIC = b"\xfd7zXZ\x00"
_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_SKIPPABLE = 0x184D2A5  # the upper 28 bits of the sixteen magic numbers
_ZSTD_REPEATED = 1  # the type of a block that is one byte, repeated
_ZSTD_BLOCK_HEADER = 3  # bytes
_ZSTD_CHECKSUM = 1 << 2  # the bit of a frame descriptor that announces one


def decompress(stream: BinaryIO, media_type: str | None = None, *, limit: int) -> io.BufferedReader:
    """What the blob in `stream` unpacks to, as a stream: plain, gzip (any members), zstd (any frames) or xz.

    `media_type` is that of the layer, whose compression the bytes must then have; None looks at the bytes alone. At
    most 128 MiB of history are kept, however large the output; `limit` is the most bytes that it may have. `stream` is
    read to its end and stays open; neither it nor the result is seekable.

    Reading raises CodecError for bytes that are damaged, cut short, followed by anything, not in the compression that
    the media type names, or that expand to more than `limit`; errors of `stream` itself pass through.
    """
    return io.BufferedReader(_Expanded(decompressed(stream, media_type, limit=limit)))


def decompressed(stream: BinaryIO, media_type: str | None = None, *, limit: int) -> Iterator[bytes]:
    """The same in pieces of 1 MiB at most, as they come, for those who want all of it: no byte is copied. After an
    error there are no more.
    """
    left = limit
    for chunk in _expand(stream, media_type):
        left -= len(chunk)
        if left < 0:
            raise CodecError(f"data expands to more than the {limit} bytes allowed")
        if chunk:
            yield chunk


class _Expanded(io.RawIOBase):
    """A raw stream over chunks. An error is raised again by every later read: none of them looks like the end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = memoryview(b"")
        self._error: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # any buffer will do
        if self._error is not None:
            raise self._error
        try:
            while not self._held:
                self._held = memoryview(next(self._chunks))
        except StopIteration:
            return 0
        except Exception as error:
            self._error = error
            raise
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        self._held = self._held[count:]
        return count


class _Rewound:
    """`stream` as it was before `head` was read from it."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._stream.read(size)

    def exactly(self, size: int, name: str) -> bytes:
        """`size` bytes, or CodecError where the stream ends before."""
        data = self.read(size)
        while len(data) < size:
            more = self.read(size - len(data))
            if not more:
                raise _cut_short(name)
            data += more
        return data


def _expand(stream: BinaryIO, media_type: str | None) -> Iterator[bytes]:
    head = b""
    while len(head) < len(_XZ_MAGIC) and (more := stream.read(len(_XZ_MAGIC) - len(head))):
        head += more
    found = _sniff(head)
    expected = found if media_type is None else _compression(media_type)
    if expected != found:
        raise CodecError(f"data of type `{media_type}` is not compressed so: found {_named(found)}")
    yield from _READERS[found](_Rewound(head, stream))


def _sniff(head: bytes) -> str:
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    if head.startswith(_XZ_MAGIC):
        return "xz"
    magic = int.from_bytes(head[:4], "little")
    return "zstd" if len(head) >= 4 and (magic == _ZSTD_MAGIC or magic >> 4 == _ZSTD_SKIPPABLE) else "plain"


def _compression(media_type: str) -> str:
    """The compression that a layer's media type names: OCI writes `tar+gzip`, docker `tar.gzip`."""
    _, found, suffix = media_type.rpartition(".tar")
    names = {"": "plain", "+gzip": "gzip", ".gzip": "gzip", "+zstd": "zstd", ".zstd": "zstd"}
    if not found or suffix not in names:
        raise CodecError(f"unknown layer type `{media_type}`")
    return names[suffix]


def _named(compression: str) -> str:
    return "no compression" if compression == "plain" else compression


def _cut_short(name: str) -> CodecError:
    return CodecError(f"{name} data is cut short")


@contextmanager
def _translated(name: str, *errors: type[Exception]) -> Generator[None]:
    try:
        yield
    except errors as error:
        raise CodecError(f"{name} data is damaged: {error}") from error


def _plain(stream: _Rewound) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _gunzip(stream: _Rewound) -> Iterator[bytes]:
    """Every member, in steps of bounded output; what follows a member must be another one."""
    from zlib_ng import zlib_ng

    data = stream.read(_READ)
    while data:
        member = zlib_ng.decompressobj(wbits=_GZIP_CONTAINER)
        while not member.eof:
            data = data or stream.exactly(1, "gzip") + stream.read(_READ)
            with _translated("gzip", zlib_ng.error):  # type: ignore[arg-type]  # the stubs say instance, it is a class
                chunk = member.decompress(data, _CHUNK)
            data = member.unconsumed_tail
            if chunk:
                yield chunk
        data = member.unused_data or stream.read(_READ)


def _unxz(stream: _Rewound) -> Iterator[bytes]:
    """Every xz stream; padding between them, which the format allows, is refused like anything else."""
    data = stream.read(_READ)
    while data:
        member = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MAX_WINDOW)
        while not member.eof:
            if member.needs_input:
                data = data or stream.exactly(1, "xz") + stream.read(_READ)
            with _translated("xz", lzma.LZMAError):
                chunk = member.decompress(data, _CHUNK)
            data = b""
            if chunk:
                yield chunk
        data = member.unused_data or stream.read(_READ)


def _unzstd(stream: _Rewound) -> Iterator[bytes]:
    """Every frame, block by block (RFC 8878, 3.1.1): libzstd's streaming calls would take a cut for the end, and do not
    bound what they make of their input; a block is 128 KiB at most.
    """
    while magic := stream.read(1):
        magic += stream.exactly(3, "zstd")
        number = int.from_bytes(magic, "little")
        if number >> 4 == _ZSTD_SKIPPABLE:
            _skip(stream, int.from_bytes(stream.exactly(4, "zstd"), "little"))
        elif number == _ZSTD_MAGIC:
            yield from _unzstd_frame(stream, magic)
        else:
            raise CodecError("zstd data is damaged: something else follows a frame")


def _skip(stream: _Rewound, size: int) -> None:
    while size:
        size -= len(stream.exactly(min(size, _READ), "zstd"))


def _unzstd_frame(stream: _Rewound, magic: bytes) -> Iterator[bytes]:
    import zstandard

    frame = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
    descriptor = stream.exactly(1, "zstd")
    data = magic + descriptor + stream.exactly(_zstd_header_size(descriptor[0]) + _ZSTD_BLOCK_HEADER, "zstd")
    checksum = 4 if descriptor[0] & _ZSTD_CHECKSUM else 0
    last = False
    while True:
        try:
            chunk = frame.decompress(data)
        except zstandard.ZstdError as error:
            raise CodecError(f"zstd data is damaged: {error}") from error
        if chunk:
            yield chunk
        if last or frame.eof:  # an empty last block ends with its header
            break
        header = int.from_bytes(data[-_ZSTD_BLOCK_HEADER:], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        # A block, and with it what is behind it: the header of the next one, or the checksum.
        behind = checksum if last else _ZSTD_BLOCK_HEADER
        data = stream.exactly((1 if kind == _ZSTD_REPEATED else size) + behind, "zstd")
    if not frame.eof:
        raise CodecError("zstd data is damaged: a frame has no end")


def _zstd_header_size(descriptor: int) -> int:
    """Bytes of window, dictionary and content size that follow a frame descriptor (RFC 8878, 3.1.1.1)."""
    single = descriptor >> 5 & 1
    content = (single, 2, 4, 8)[descriptor >> 6]
    return (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content


_READERS: dict[str, Callable[[_Rewound], Iterator[bytes]]] = {
    "plain": _plain,
    "gzip": _gunzip,
    "zstd": _unzstd,
    "xz": _unxz,
}
