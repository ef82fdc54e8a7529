"""Package archives as streams of members: `.conda` (a zip of zstd tars) and `.tar.bz2`.

Nothing is extracted, and memory is a few blocks, whatever the archive. Input is hostile until shown otherwise.
"""

from __future__ import annotations

import bz2
import io
import struct
import zipfile
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from layers.compress import Codec
from layers.decompress import decompressed
from layers.errors import LayerError
from ociforge.conda.info import INFO_FILES, is_enough
from ociforge.conda.tar import Tar, broken
from ociforge.regular import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from ociforge.conda.tar import Member

__all__ = ["ArchiveFile"]

_T = TypeVar("_T")

_CHUNK = 1 << 20  # 1 MiB: the most that is taken at once
_READ = 64 << 10  # 64 KiB of compressed input at a time
_BUFFER = 256 << 10  # 256 KiB: each call that reads more lets another thread have the interpreter
_ZSTD = Codec.parse("zstd").media_type
_MAX_EXPANDED = 1 << 40  # 1 TiB
_MAX_INFO = 256 << 20  # 256 MiB: a `paths.json` of a million paths
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: lengths of the name and the extra field behind it
_ZIP_ENCRYPTED = 1 << 0  # the bit of a zip member's flags


class ArchiveFile(Struct, frozen=True, kw_only=True):
    """A package archive on disk; `filename` is the package's own, which tells the format and is for messages.

    All that reads it raises PackageError for what is damaged, cut short, followed by anything, or no archive at all.
    """

    path: Path
    filename: str

    def info(self, names: Iterable[str] = INFO_FILES) -> dict[str, bytes]:
        """Those of the files `names` of the `info` directory that are there; by default, what `parse_info` needs."""
        wanted = set(names)
        found: dict[str, bytes] = {}
        for member in self._members("info"):
            if member.kind == "file" and member.name in wanted:
                if member.size > _MAX_INFO:
                    raise broken(self.filename, f"`{member.name}` has {member.size} bytes")
                found[member.name] = member.read()
                if len(found) == len(wanted) or (wanted == set(INFO_FILES) and is_enough(found)):
                    break
        return found

    def payload(self) -> Iterator[Member]:
        """The members with the package's files, in the archive's order; each is valid until the next is taken."""
        return self._members("pkg")

    def rest(self) -> Iterator[Member]:
        """The members beside the payload: of a `.conda` those of `info`, which a package may list as its own files."""
        return iter(()) if self._is_bz2 else self._members("info")

    @property
    def _is_bz2(self) -> bool:
        return self.filename.endswith(".tar.bz2")

    def _members(self, part: str) -> Iterator[Member]:
        return self._translated(Tar(self._translated(self._chunks(part)), self.filename).members())

    def _chunks(self, part: str) -> Iterator[bytes]:
        with open_regular(self.path, follow=True, buffering=_BUFFER) as stream:
            if self._is_bz2:
                yield from _bunzip2(stream)
            else:
                yield from decompressed(_part(stream, part), _ZSTD, limit=_MAX_EXPANDED)

    def _translated(self, items: Iterator[_T]) -> Iterator[_T]:
        """`items`; both chunks and members go through it, as contents are read while the members wait."""
        try:
            yield from items
        except (LayerError, OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise broken(self.filename, why) from error


def _bunzip2(stream: BinaryIO) -> Iterator[bytes]:
    """Every stream of the file; nothing else may follow."""
    data = stream.read(_READ)
    while True:
        one = bz2.BZ2Decompressor()
        while not one.eof:
            if one.needs_input and not data:
                data = stream.read(_READ)
                if not data:
                    raise EOFError("it is cut short")
            if chunk := one.decompress(data, _CHUNK):
                yield chunk
            data = b""
        data = one.unused_data or stream.read(_READ)
        if not data:
            return


def _part(stream: BinaryIO, part: str) -> BinaryIO:
    """The tar `part` of the `.conda` in `stream`, still compressed. Members of the zip are stored as they are."""
    try:
        directory = zipfile.ZipFile(stream).infolist()
    except NotImplementedError as error:
        raise ValueError(str(error)) from error
    found = [
        entry for entry in directory if entry.filename.startswith(f"{part}-") and entry.filename.endswith(".tar.zst")
    ]
    if len(found) != 1:
        raise ValueError(f"it has {len(found)} members `{part}-….tar.zst`, not one")
    (entry,) = found
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ZIP_ENCRYPTED:
        raise ValueError(f"`{entry.filename}` is compressed or encrypted by the zip")
    stream.seek(entry.header_offset)
    header = stream.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size:
        raise EOFError("it is cut short")
    name, extra = _LOCAL_HEADER.unpack(header)
    stream.seek(name + extra, io.SEEK_CUR)
    return _Section(stream, entry.compress_size)  # type: ignore[return-value]  # all that `decompress` needs of one


class _Section(io.RawIOBase):
    """The next `size` bytes of `stream`."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data
