"""The least that any way from packages to layers does: decompress, sha256, compress, sha256; nothing is kept.

`python -m benchmarks.floor CODEC ARCHIVE…` takes `.conda` archives, the largest first, on a thread for each processor;
`python -m benchmarks.floor CODEC -` one tar from stdin, of which one thread compresses what another has read and
digested. CODEC is as for `ociforge build --compression`; libraries and levels are the same; zstd without frames.
"""

from __future__ import annotations

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import deflate
import zstandard

from benchmarks.archives import package_tar
from layers.compress import Codec

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Packed", "archive", "main", "piped"]

_CHUNK = 1 << 20  # 1 MiB


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Packed:
    """The hexadecimal sha256 of a tar, and of the same compressed."""

    diff_id: str
    digest: str


class _Members:
    """gzip, a member for each piece: libdeflate knows no streams."""

    def __init__(self, level: int) -> None:
        self._level = level

    def compress(self, data: bytes, /) -> bytes:
        return bytes(deflate.gzip_compress(data, self._level))

    def flush(self) -> bytes:
        return b""


def main() -> None:
    """Do it; nothing is printed."""
    codec, names = Codec.parse(sys.argv[1]), sys.argv[2:]
    if names == ["-"]:
        piped(sys.stdin.buffer, codec)
        return
    paths = sorted(map(Path, names), key=lambda path: path.stat().st_size, reverse=True)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda path: archive(path, codec), paths))


def archive(path: Path, codec: Codec) -> Packed:
    """Pack the files of a `.conda` archive."""
    diff_id, digest, compressor = hashlib.sha256(), hashlib.sha256(), _compressor(codec)
    with package_tar(path) as tar:
        for chunk in _chunks(tar):
            diff_id.update(chunk)
            digest.update(compressor.compress(chunk))
    digest.update(compressor.flush())
    return Packed(diff_id.hexdigest(), digest.hexdigest())


def piped(stream: IO[bytes], codec: Codec) -> Packed:
    """Pack a tar; the chunk before is compressed while one is read and digested."""
    diff_id, digest, compressor = hashlib.sha256(), hashlib.sha256(), _compressor(codec)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(digest.update, b"")
        for chunk in _chunks(stream):
            diff_id.update(chunk)
            under_way.result()
            under_way = pool.submit(lambda chunk: digest.update(compressor.compress(chunk)), chunk)
        under_way.result()
    digest.update(compressor.flush())
    return Packed(diff_id.hexdigest(), digest.hexdigest())


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _compressor(codec: Codec) -> _Compressor:
    if codec.name == "zstd":
        return zstandard.ZstdCompressor(level=codec.level).compressobj()
    return _Members(codec.level)


if __name__ == "__main__":
    main()
