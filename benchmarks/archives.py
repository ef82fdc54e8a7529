"""What is inside conda archives, as far as sizes and the floors need it: not by the code that is measured."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO

__all__ = ["Measure", "measure", "package_tar"]

_READ = 1 << 20  # 1 MiB


@dataclass(frozen=True, slots=True)
class Measure:
    """How many `files` (links too) a package has, and their `size` in bytes."""

    files: int
    size: int

    def __add__(self, other: Measure) -> Measure:
        return Measure(self.files + other.files, self.size + other.size)


def measure(path: Path) -> Measure:
    """What a `.conda` archive says of itself in `info/paths.json`."""
    with _member(path, "info-") as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as tar:
        member = tar.extractfile("info/paths.json")
        assert member is not None
        paths = json.load(member)["paths"]
    return Measure(len(paths), sum(row["size_in_bytes"] for row in paths))


@contextmanager
def package_tar(path: Path) -> Iterator[IO[bytes]]:
    """The tar of the files of a `.conda` archive, read as it is decompressed."""
    with _member(path, "pkg-") as stream:
        yield stream


@contextmanager
def _member(path: Path, start: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.startswith(start))
        with (
            archive.open(name) as packed,
            zstandard.ZstdDecompressor().stream_reader(packed, read_size=_READ) as stream,
        ):
            yield stream
