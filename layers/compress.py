"""Codecs: how the tar of a layer becomes a blob.

The bytes depend on the input, the codec and the library, never on how the work is spread: members and frames are of
fixed size and depend on raw input alone, so an ordered `map` may make them anywhere. Only this module imports deflate
(libdeflate), only this one and `layers.decompress` import zstandard, and only when they are used.
"""

from __future__ import annotations

import hashlib
import io
import struct
from functools import cache, partial
from itertools import chain
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
    "gzip": range(1, 13),
    "zstd": range(1, 20),  # above 19 libzstd wants windows that readers need not support
}
# Of 591 MB of Python packages, shared libraries and an interpreter, one core makes (MB/s, ratio)
#   gzip 1: 181, 0.320   2: 131, 0.308   3: 122, 0.303   4: 115, 0.301   6: 81, 0.292
#   zstd 1: 375, 0.312   2: 334, 0.293   3: 260, 0.276
# libdeflate does better than zlib-ng, whose levels 1 to 3 are 207, 0.399; 124, 0.328; 107, 0.312. Its bytes for 24 MiB
# were equal on AVX-512 and, emulated, on Haswell and aarch64, at levels 1 to 9 on Nehalem too; ISA-L's are not.
# Time to build, push and pull 2 GB on two cores (s) at 1 Gbit/s and at 200 Mbit/s, builds measured, transfers reckoned:
#   gzip 1: 29, 78   2: 30, 78   3: 30, 77   4: 30, 77
#   zstd 1: 25, 73   2: 25, 70   3: 24, 67   4: 25, 67
# Unpacking takes the same at all levels. gzip 1 is best where networks are fast, and within 2 % where they are slow;
# zstd 3 is best everywhere.
_DEFAULT_LEVELS: dict[str, int] = {"none": 0, "gzip": 1, "zstd": 3}

_BLOCK = 1 << 20  # 1 MiB: of one gzip member, and of plain tar; members of 4 MiB would save 0.2 % of the size
_FRAME = 4 << 20  # 4 MiB: of one zstd frame, which memory is a multiple of; 8 MiB would save 1 % of the size
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
                return f"gzip:{self.level}:deflate-{_deflate_version()}-{_fingerprint(self)}:{_BLOCK}"
            case "zstd":
                return f"zstd:{self.level}:libzstd-{_libzstd_version()}:{_FRAME}:{_WINDOW_LOG}"

    def compress(self, chunks: Iterable[bytes], map_: OrderedMap = map) -> Iterator[bytes]:
        """The blob of the tar that `chunks` make up, in pieces.

        gzip is members (RFC 1952, 2.2), zstd frames (RFC 8878, 3), end to end: each can be read alone. Their input, 1
        or 4 MiB, goes through `map_` and is taken from `chunks` only as that asks for it: with n of them under way,
        memory is n times that and their results. The bytes do not depend on `map_`, nor on where the input is cut into
        chunks.
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
    """Members of `size` bytes each; an empty one for no input, and else none: they exhaust readers in old Go."""
    pieces = blocks(chunks, size)
    yield from map_(partial(_gzip_member, level), chain((next(pieces, b""),), pieces))


def _gzip_member(level: int, block: bytes) -> bytes:
    """A member without name and time, of an unknown system."""
    import deflate

    return bytes(deflate.gzip_compress(block, level))


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


def _deflate_version() -> str:
    import deflate

    return deflate.__version__


def _libzstd_version() -> str:
    import zstandard

    return ".".join(map(str, zstandard.ZSTD_VERSION))


def _fingerprint(codec: Codec) -> str:
    """What the library makes of a small vector: deflate does not say which libdeflate it has."""
    return hashlib.sha256(b"".join(_compressed_vector(codec))).hexdigest()[:16]


def self_test(codec: Codec) -> bool:
    """Compress a small vector and compare: True if the bytes are those recorded for this library.

    False for a library that nothing is recorded for: layers are then equal among builders that have it too, which the
    layer keys tell apart. Raises CodecError for one that breaks its own record (a patched or miscompiled build, a
    faulty processor) or whose output cannot be read back. Takes a few milliseconds.
    """
    if codec.name == "none":
        return True
    found = _fingerprint(codec)
    made = b"".join(_compressed_vector(codec))
    vector = _vector() * (_VECTORS if codec.name == "gzip" else 1)
    if decompress(io.BytesIO(made), codec.media_type, limit=len(vector)).read() != vector:
        raise CodecError(f"`{codec}` cannot be read back")
    if codec.name == "gzip":
        return found == _recorded(_LIBDEFLATE_1, codec)
    version = _libzstd_version()
    expected = _recorded(_LIBZSTD.get(version, ""), codec)
    if expected and expected != found:
        raise CodecError(
            f"`{codec}` with library version {version} makes other bytes than recorded: {found}, not {expected}"
        )
    return bool(expected)


def _recorded(fingerprints: str, codec: Codec) -> str:
    return fingerprints[16 * (codec.level - 1) : 16 * codec.level]


@cache
def _compressed_vector(codec: Codec) -> tuple[bytes, ...]:
    """Smaller members than a layer's, so that the vector has a join."""
    if codec.name == "gzip":
        return tuple(_gzip([_vector() * _VECTORS], codec.level, map, _VECTOR_SIZE * (_VECTORS - 1)))
    return tuple(codec.compress([_vector()]))


_VECTOR_SIZE = 64 << 10
_VECTORS = 6  # 384 KiB: libdeflate begins a new block after 300,000 bytes at most


def _vector() -> bytes:
    """64 KiB of noise, blanks, machine-like records and text, from a fixed seed."""
    noise = hashlib.shake_128(b"layers: codec self-test").digest(16 << 10)
    records = b"".join(struct.pack("<HBxL", i, noise[i] >> 5, noise[i]) for i in range(2 << 10))
    words = [b"import", b"self", b"return", b"lib/python3", b"None", b"numpy", b"def", b"0", b"\n    ", b"(", b"):"]
    text = b" ".join(words[byte % len(words)] for byte in noise[: 8 << 10])
    return b"".join((noise, records, bytes(4 << 10), text)).ljust(_VECTOR_SIZE, b"\0")[:_VECTOR_SIZE]


# For levels 1, 2, 3, …: the first 16 hex digits of the sha256 of the compressed vector, end to end.
_LIBDEFLATE_1 = (
    "3cc446d801eb570290473eef8e6159d1af19d1e7d25969038905534421d8b92023df2b5210a703577d1323429df56020"
    "fa2aa2ceeb86638a843cd054861033be97201ce5995a266861a1da04044fee7e851bdf3c89f0c2d6209c335d9121f2a8"
)
_LIBZSTD_1_5_7 = (
    "c9319d2634c1e65ac9572fb00f53c36ca3af88761dd09e17a3af88761dd09e17b93c23ef35e8b138b378097855d3f885"
    "d62612413279de6cd15565dcea737c08d15565dcea737c086d6d56dbfaa92ea32f526d1c762918552f526d1c76291855"
    "0f683d8bd53d2f01383112b002ed9ac2c18a10b085a6cde34bf8d19e12b7cd51108e732a2c32515546836c60dd2635e7"
    "24e1210c8365878e"
)
_LIBZSTD: dict[str, str] = {"1.5.7": _LIBZSTD_1_5_7}
