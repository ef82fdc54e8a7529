"""Codecs: how the tar of a layer becomes a blob.

The bytes depend on the input, the codec and the library's version, never on how the work is spread: blocks of fixed
size depend on raw input alone, so an ordered `map` may run them anywhere. Only this module and `layers.decompress`
import zstandard and zlib-ng, and only when they are used.
"""

from __future__ import annotations

import hashlib
import io
import struct
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, get_args

from msgspec import Struct

from layers.decompress import decompress
from layers.errors import CodecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self

__all__ = ["Codec", "CodecName", "OrderedMap", "blocks", "decompress", "self_test"]

CodecName = Literal["none", "gzip", "zstd"]

_A = TypeVar("_A")
_B = TypeVar("_B")

_MEDIA_TYPES: dict[str, str] = {
    "none": "application/vnd.oci.image.layer.v1.tar",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
_LEVELS: dict[str, range] = {
    "none": range(1),
    "gzip": range(1, 10),
    "zstd": range(1, 20),  # above 19 libzstd wants windows that readers need not support
}
# gzip 2: of 277 MB of Python packages, shared libraries and an interpreter, one core makes (MB/s, ratio)
#   1: 212, 0.383   2: 126, 0.318   3: 109, 0.304   4: 94, 0.299   5: 84, 0.293   6: 70, 0.292
# Time to build, push and pull 2 GB on two cores (s) at 1 Gbit/s: 19, 20, 21, 23 for levels 1 to 4; at 200 Mbit/s: 73,
# 66, 65, 66. Unpacking takes the same. So 2 is near the best everywhere, 1 costs a fifth more on every disk, and above
# 4 only the time to build grows. zstd 3 (222 MB/s, 0.260) is libzstd's own default; 6 takes 2.5 times as long.
_DEFAULT_LEVELS: dict[str, int] = {"none": 0, "gzip": 2, "zstd": 3}

_BLOCK = 1 << 20  # 1 MiB: the unit of parallel gzip, and of plain tar
_FRAME = 4 << 20  # 4 MiB: the unit of parallel zstd, which memory is a multiple of; 8 MiB would save 4 % of the size
_DICTIONARY = 32 << 10  # 32 KiB: all that deflate can look back
_GZIP_HEADER = bytes.fromhex("1f8b08000000000000ff")  # RFC 1952: no name, no time, no flags, unknown system
_RAW_DEFLATE = -15  # zlib's window bits without a container
_MEMORY_LEVEL = 8
_WINDOW_LOG = 23  # 8 MiB: what RFC 8878 asks every reader to support


class OrderedMap(Protocol):
    """`map` of one argument: results in the order of the items, which are taken one by one as results are asked for."""

    def __call__(self, function: Callable[[_A], _B], items: Iterable[_A], /) -> Iterator[_B]: ...


class Codec(Struct, frozen=True):
    """A way to compress layers. `Codec.parse` and `str` are inverse but for the default level."""

    name: CodecName
    level: int

    def __post_init__(self) -> None:
        if self.name not in get_args(CodecName):
            raise CodecError(f"unknown compression `{self.name}`: expected `none`, `gzip` or `zstd`")
        levels = _LEVELS[self.name]
        if self.level not in levels:
            raise CodecError(f"`{self.name}` has no level {self.level}: expected {levels[0]} to {levels[-1]}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `none`, `gzip`, `zstd`, `gzip:LEVEL` or `zstd:LEVEL`; raises CodecError for anything else."""
        name, colon, level = text.partition(":")
        if name not in get_args(CodecName):
            raise CodecError(f"unknown compression `{text}`: expected `none`, `gzip` or `zstd`")
        if not colon:
            return cls(name, _DEFAULT_LEVELS[name])  # type: ignore[arg-type]  # membership was checked
        if name == "none" or not (level.isascii() and level.isdecimal() and str(int(level)) == level):
            raise CodecError(f"unknown compression `{text}`: expected `gzip:LEVEL` or `zstd:LEVEL`")
        return cls(name, int(level))  # type: ignore[arg-type]  # membership was checked

    def __str__(self) -> str:
        return self.name if self.name == "none" else f"{self.name}:{self.level}"

    @property
    def media_type(self) -> str:
        """The OCI media type of a layer in this compression."""
        return _MEDIA_TYPES[self.name]

    @property
    def piece(self) -> int:
        """The bytes that are compressed at once. A tar that comes in pieces of this size is not copied."""
        return _FRAME if self.name == "zstd" else _BLOCK

    @property
    def identity(self) -> str:
        """All that the compressed bytes of a given tar depend on, as a word for layer keys."""
        match self.name:
            case "none":
                return "none"
            case "gzip":
                return f"gzip:{self.level}:zlib-ng-{_zlib_ng_version()}:{_BLOCK}"
            case "zstd":
                return f"zstd:{self.level}:libzstd-{_libzstd_version()}:{_FRAME}:{_WINDOW_LOG}"

    def compress(self, chunks: Iterable[bytes], map_: OrderedMap = map) -> Iterator[bytes]:
        """The blob of the tar that `chunks` make up, in pieces.

        Blocks go through `map_` and are taken from `chunks` only as it asks for them: with n of them under way, memory
        is n blocks (gzip: 1 MiB, zstd: 4 MiB) and their results. The bytes do not depend on `map_`, nor on where the
        input is cut into chunks.
        """
        match self.name:
            case "none":
                return blocks(chunks, _BLOCK)
            case "gzip":
                return _gzip(chunks, self.level, map_, _BLOCK)
            case "zstd":
                return iter(map_(partial(_zstd_frame, self.level), blocks(chunks, _FRAME)))


def blocks(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes cut anew: pieces of `size` bytes, the last one shorter; none for no bytes.

    A byte is copied once at most, and not at all in a chunk that is a piece already.
    """
    parts: list[bytes | memoryview] = []
    held = 0
    for chunk in chunks:
        if held == 0 and len(chunk) == size:
            yield chunk
            continue
        rest: bytes | memoryview = chunk
        while held + len(rest) >= size:
            cut = size - held
            parts.append(memoryview(rest)[:cut])
            yield b"".join(parts)
            parts, held, rest = [], 0, memoryview(rest)[cut:]
        if rest:
            parts.append(rest)
            held += len(rest)
    if parts:
        yield b"".join(parts)


def _gzip(chunks: Iterable[bytes], level: int, map_: OrderedMap, size: int) -> Iterator[bytes]:
    """One gzip member of blocks that can be compressed apart: each is primed with the 32 KiB before it and ends on a
    byte boundary, so that the deflate streams join into one.
    """
    from zlib_ng import zlib_ng

    checksum = length = 0
    yield _GZIP_HEADER
    for data, crc, raw in map_(partial(_deflate, level), _primed(blocks(chunks, size))):
        checksum = zlib_ng.crc32_combine(checksum, crc, raw)
        length += raw
        yield data
    yield struct.pack("<LL", checksum, length & 0xFFFFFFFF)


def _primed(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bytes, bool]]:
    """Each block with the last 32 KiB before it and whether it is the last; one empty block for no input."""
    dictionary = b""
    pieces = iter(pieces)
    block = next(pieces, b"")
    for following in pieces:
        yield block, dictionary, False
        dictionary = block[-_DICTIONARY:]
        block = following
    yield block, dictionary, True


def _deflate(level: int, item: tuple[bytes, bytes, bool]) -> tuple[bytes, int, int]:
    """The compressed block, its CRC-32 and its raw length."""
    from zlib_ng import zlib_ng

    block, dictionary, last = item
    settings = (level, zlib_ng.DEFLATED, _RAW_DEFLATE, _MEMORY_LEVEL, zlib_ng.Z_DEFAULT_STRATEGY)
    deflate = zlib_ng.compressobj(*settings, dictionary) if dictionary else zlib_ng.compressobj(*settings)
    data = deflate.compress(block) + deflate.flush(zlib_ng.Z_FINISH if last else zlib_ng.Z_SYNC_FLUSH)
    return data, zlib_ng.crc32(block), len(block)


def _zstd_frame(level: int, block: bytes) -> bytes:
    """One whole frame with content size and checksum, made by a context of its own and no worker threads.

    The parameters are those for a whole frame even where the last one is shorter.
    """
    import zstandard

    usual = zstandard.ZstdCompressionParameters.from_level(level, source_size=_FRAME)
    settings = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=_FRAME,
        window_log=min(usual.window_log, _WINDOW_LOG),
        write_content_size=True,
        write_checksum=True,
        write_dict_id=False,
    )
    frame = zstandard.ZstdCompressor(compression_params=settings).compress(block)
    return bytes(memoryview(frame))  # a copy: the result keeps the memory of the worst case, more than the block's


def _zlib_ng_version() -> str:
    from zlib_ng import zlib_ng

    return str(zlib_ng.ZLIBNG_RUNTIME_VERSION)


def _libzstd_version() -> str:
    import zstandard

    return ".".join(map(str, zstandard.ZSTD_VERSION))


def self_test(codec: Codec) -> bool:
    """Compress a small vector and compare: True if the bytes are those recorded for this library's version.

    False for a version that nothing is recorded for: layers are then equal among builders that have it too, which the
    layer keys tell apart. Raises CodecError for a library that breaks its own record (a patched or miscompiled build,
    a faulty processor) or whose output cannot be read back. Takes a few milliseconds.
    """
    if codec.name == "none":
        return True
    version = _zlib_ng_version() if codec.name == "gzip" else _libzstd_version()
    made = b"".join(_compressed_vector(codec))
    recorded = _RECORDED.get((codec.name, version), "")
    if recorded:
        expected = recorded[16 * (codec.level - 1) : 16 * codec.level]
        found = hashlib.sha256(made).hexdigest()[:16]
        if expected != found:
            raise CodecError(
                f"`{codec}` with library version {version} makes other bytes than recorded: {found}, not {expected}"
            )
    if decompress(io.BytesIO(made), codec.media_type, limit=_VECTOR_SIZE).read() != _vector():
        raise CodecError(f"`{codec}` with library version {version} cannot be read back")
    return bool(recorded)


def _compressed_vector(codec: Codec) -> Iterator[bytes]:
    """Smaller blocks than a layer's, so that the vector has a join."""
    if codec.name == "gzip":
        return _gzip([_vector()], codec.level, map, _VECTOR_SIZE // 2)
    return codec.compress([_vector()])


_VECTOR_SIZE = 64 << 10


def _vector() -> bytes:
    """64 KiB of noise, blanks, machine-like records and text, from a fixed seed."""
    noise = hashlib.shake_128(b"layers: codec self-test").digest(16 << 10)
    records = b"".join(struct.pack("<HBxL", i, noise[i] >> 5, noise[i]) for i in range(2 << 10))
    words = [b"import", b"self", b"return", b"lib/python3", b"None", b"numpy", b"def", b"0", b"\n    ", b"(", b"):"]
    text = b" ".join(words[byte % len(words)] for byte in noise[: 8 << 10])
    return b"".join((noise, records, bytes(4 << 10), text)).ljust(_VECTOR_SIZE, b"\0")[:_VECTOR_SIZE]


# For levels 1, 2, 3, …: the first 16 hex digits of the sha256 of the compressed vector, end to end.
_ZLIB_NG_2 = (
    "3f80ed011231788859e4dfa70a997a8d12d851448c56d8d0931103148f84a109a50988e69460e1c0686fdeeca8bc252e"
    "e8e1bded2255ed90d2496ea6596b7a808b1ec9761924a4bd"
)
_LIBZSTD_1_5_7 = (
    "c9319d2634c1e65ac9572fb00f53c36ca3af88761dd09e17a3af88761dd09e17b93c23ef35e8b138b378097855d3f885"
    "d62612413279de6cd15565dcea737c08d15565dcea737c086d6d56dbfaa92ea32f526d1c762918552f526d1c76291855"
    "0f683d8bd53d2f01383112b002ed9ac2c18a10b085a6cde34bf8d19e12b7cd51108e732a2c32515546836c60dd2635e7"
    "24e1210c8365878e"
)
_RECORDED: dict[tuple[str, str], str] = {
    ("gzip", "2.2.5"): _ZLIB_NG_2,
    ("gzip", "2.3.3"): _ZLIB_NG_2,
    ("zstd", "1.5.7"): _LIBZSTD_1_5_7,
}
