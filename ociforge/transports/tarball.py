"""Random access to the members of somebody else's tar, which is never extracted.

The headers are read once; members are then read in place, by several threads if need be. Everything that a reader could
take for something else (duplicates, paths that leave the archive) is refused.
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
import tempfile
import weakref
from typing import TYPE_CHECKING

from msgspec import Struct

from layers.decompress import decompress
from layers.errors import LayerError
from ociforge.errors import TransportError
from ociforge.oci.blob import READ_SIZE
from ociforge.regular import open_regular
from ociforge.transports.files import translated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["MAX_UNPACKED_SIZE", "Span", "Tarball", "headers"]

MAX_UNPACKED_SIZE = 64 << 30  # 64 GiB: what a compressed archive may become
_MAX_HEADER_SIZE = 1 << 20  # 1 MiB: PAX records and long names of one member
_MAX_MEMBERS = 100_000
_MAX_LINKS = 8

_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0")  # gzip, zstd, xz


class Span(Struct, frozen=True):
    """Where the bytes of a member are, in bytes from the start of the tar."""

    offset: int
    size: int


class Tarball:
    """The regular files and links of a tar. A compressed one is unpacked to an anonymous temporary file first.

    Names are relative, without `./`. Stays open as long as it, or a stream of it, is in use.
    """

    def __init__(self, path: Path) -> None:
        """Raises TransportError for a file that cannot be read or is no archive to be trusted."""
        self._path = path
        with translated(f"reading `{path}`"):
            self._fd = _open(path)
            weakref.finalize(self, os.close, self._fd)
            self._members = dict(_members(self._fd, path))

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def find(self, name: str) -> Span | None:
        """The regular file of that name; None when there is none."""
        member = self._members.get(name)
        return member if isinstance(member, Span) else None

    def follow(self, name: str) -> Span | None:
        """The regular file that the name or a chain of links leads to; None when there is none in the archive."""
        for _ in range(_MAX_LINKS):
            member = self._members.get(name)
            if not isinstance(member, str):
                return member
            name = member
        return None

    def open(self, span: Span) -> BinaryIO:
        """A stream of the bytes of a member; the caller closes it."""
        return io.BufferedReader(_Slice(self._fd, span), READ_SIZE)

    def read(self, span: Span, limit: int) -> bytes:
        """All bytes of a small member. Raises TransportError when it has more than `limit`."""
        if span.size > limit:
            raise TransportError(
                f"reading `{self._path}`: a document of {span.size} bytes, but at most {limit} are read"
            )
        with self.open(span) as stream:
            return stream.read()


class _Slice(io.RawIOBase):
    """A part of a file, with a position of its own."""

    def __init__(self, fd: int, span: Span) -> None:
        self._fd = os.dup(fd)
        self._position = span.offset
        self._end = span.offset + span.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # any buffer will do
        count = os.preadv(self._fd, [memoryview(buffer)[: self._end - self._position]], self._position)
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._fd)


def _open(path: Path) -> int:
    """A descriptor of the plain tar."""
    if path.is_dir():
        raise TransportError(f"reading `{path}`: it is a directory", f"for an OCI layout write `oci:{path}`")
    if path.exists() and not path.is_file():
        raise TransportError(
            f"reading `{path}`: it is not a regular file",
            "archives are not read from front to back: keep what comes from a pipe in a file, and name that",
        )
    with open_regular(path, follow=True) as file:
        compressed = file.read(8).startswith(_COMPRESSED)
        file.seek(0)
        return _unpack(file, path) if compressed else os.dup(file.fileno())


def _unpack(file: BinaryIO, path: Path) -> int:
    """A descriptor of an anonymous file with what the compressed one holds."""
    with tempfile.TemporaryFile(prefix="ociforge-") as plain:
        try:
            with decompress(file, limit=MAX_UNPACKED_SIZE) as stream:
                while chunk := stream.read(READ_SIZE):
                    plain.write(chunk)
        except LayerError as error:
            raise TransportError(f"reading `{path}`: {error}") from error
        plain.flush()
        return os.dup(plain.fileno())


def _members(fd: int, path: Path) -> Iterator[tuple[str, Span | str]]:
    """Name and place of each regular file, name and target of each link."""
    end = os.fstat(fd).st_size
    seen = set()
    for count, member in enumerate(headers(fd, path)):
        name = member.name.removeprefix("./").rstrip("/")
        if count >= _MAX_MEMBERS:
            raise TransportError(f"reading `{path}`: more than {_MAX_MEMBERS} members")
        if member.isdir():
            continue
        if name in seen or {"", ".", ".."} & set(name.split("/")):
            why = "there twice" if name in seen else "not a path inside of the archive"
            raise TransportError(f"reading `{path}`: member {name[:200]!r}: {why}")
        seen.add(name)
        if member.issym() or member.islnk():
            folder = posixpath.dirname(name) if member.issym() else ""
            yield name, posixpath.normpath(posixpath.join(folder, member.linkname))
        elif member.isreg() and not member.issparse() and 0 <= member.size <= end - member.offset_data:
            yield name, Span(member.offset_data, member.size)
        else:
            raise TransportError(f"reading `{path}`: member {name[:200]!r}: not a whole regular file")


def headers(fd: int, path: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a plain tar as its headers tell them, unchecked. Raises TransportError where they end."""
    try:
        with _Cautious(fd, closefd=False) as file:
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                yield from tar
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise TransportError(f"reading `{path}`: not a whole tar archive: {error}") from error


class _Cautious(io.FileIO):
    """Hands out what headers need and no more: a header may announce one that is as long as the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_HEADER_SIZE:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:  # no file is that long
            raise tarfile.ReadError(f"a member that ends at {offset}") from error
