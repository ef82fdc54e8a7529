"""Entries: one path in a layer, with every byte of metadata that its tar header needs.

Nothing below an entry looks at the file system, the clock, the umask or the environment: all metadata
arrives in the value. Paths are relative to the image's root, `/`-separated, without leading or trailing slash.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["Bytes", "Content", "Directory", "Entry", "File", "FileContent", "Hardlink", "Metadata", "Symlink"]


class Content(Protocol):
    """Where the bytes of a file come from.

    May be opened any number of times, but for that of an entry from a stream: once, before the next entry is taken.
    """

    def open(self) -> BinaryIO:
        """A new stream at the first byte; the caller closes it."""
        ...


class Bytes(Struct, frozen=True):
    """Content held in memory: for generated files."""

    data: bytes

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


class FileContent(Struct, frozen=True):
    """Content of a file on disk, which must stay unchanged until the layer is written.

    A symbolic link in its place is refused (ELOOP): what was inspected is what is read.
    """

    path: Path

    def open(self) -> BinaryIO:
        return os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


class Directory(Struct, frozen=True, kw_only=True):
    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0


class Metadata(NamedTuple):
    """What a file and its hard links have in common."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: tuple[tuple[str, bytes], ...]


class File(Struct, frozen=True, kw_only=True):
    """A regular file of exactly `size` bytes; `xattrs` become PAX records."""

    path: str
    size: int
    content: Content
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()

    @property
    def metadata(self) -> Metadata:
        """All that a hard link to this file repeats."""
        return Metadata(self.mode, self.uid, self.gid, self.mtime, self.xattrs)


class Symlink(Struct, frozen=True, kw_only=True):
    """A symbolic link; `target` is kept verbatim, whether or not it exists."""

    path: str
    target: str
    uid: int = 0
    gid: int = 0
    mtime: int = 0


class Hardlink(Struct, frozen=True, kw_only=True):
    """A second name for `target`, the path of a File before it in the same segment, whose metadata it repeats."""

    path: str
    target: str


Entry = Directory | File | Symlink | Hardlink
