"""Reading tar files as streams of members.

`tarfile` takes four times as long. Known are ustar, GNU long names and PAX records for names and sizes; modes and times
are those of the header alone, as rattler has them. Input is hostile until shown otherwise.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from ociforge.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Member", "Tar", "broken"]

Kind = Literal["file", "hardlink", "softlink", "directory", "other"]

_RECORD = 512  # bytes; the unit of a tar file
_CHUNK = 1 << 20  # 1 MiB: the most that is taken at once
_MAX_EXTENSION = 1 << 20  # 1 MiB: PAX records and GNU long names
_HINT = "the archive is what the lock names, but broken: report it to the package's maintainers"

_HEADER = struct.Struct("100s8s16x12s12s8s1s100s8s80x155s12x")  # owners and devices left out
_CHECKSUM = slice(148, 156)
_ADLER = 65521  # the modulus of Adler-32, whose lower half is one more than the sum of all bytes
_KINDS: dict[bytes, Kind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hardlink",
    b"2": "softlink",
    b"5": "directory",
}


def broken(filename: str, why: str) -> PackageError:
    """The error of an archive that cannot be read."""
    return PackageError(f"reading `{filename}`: {why}", _HINT)


class Member:
    """One member of an archive: a path with its metadata, and its content while it is the last one taken.

    `name` has no `.`, no empty component and no slash at its ends; bytes that are no UTF-8 are surrogates in it and in
    `link`, the target of a link, which for hard links is written as names are. `mode` and `mtime` (seconds) are as the
    header has them. `size` in bytes.
    """

    __slots__ = ("_tar", "kind", "link", "mode", "mtime", "name", "size")

    def __init__(self, tar: Tar, name: str, kind: Kind, mode: int, mtime: int, size: int, link: str) -> None:
        self._tar = tar
        self.name = name
        self.kind = kind
        self.mode = mode
        self.mtime = mtime
        self.size = size
        self.link = link

    def read(self) -> bytes:
        """What is left of the content, at once."""
        return self._tar.content(self._tar.left)

    def chunks(self) -> Iterator[bytes]:
        """What is left of the content, in pieces of 1 MiB at most."""
        while self._tar.left:
            yield self._tar.some_content()


class Tar:
    """The members of one tar file, whose bytes come in chunks. `left` is what remains of the current content."""

    def __init__(self, chunks: Iterator[bytes], filename: str) -> None:
        self._chunks = chunks
        self._filename = filename
        self._data = b""
        self._at = 0
        self._padding = 0
        self.left = 0

    def members(self) -> Iterator[Member]:
        """One after another; what is not read of a content is skipped."""
        names: dict[str, str] = {}
        while block := self._header():
            name, mode, size, mtime, checksum, kind, link, magic, prefix = _HEADER.unpack(block)
            _verify(block, checksum)
            self._begin(_number(size))
            if kind in b"xgLK":
                names |= self._extension(kind)
                continue
            if kind == b"S":
                raise ValueError("it has a sparse file")
            if magic == b"ustar\x0000":
                name = _text(prefix) + b"/" + _text(name) if prefix[0] else name
            if "size" in names:
                self._begin(_decimal(names["size"]))
            yield self._member(
                names.get("path") or _decoded(name),
                kind,
                _number(mode),
                _number(mtime),
                names.get("linkpath") or (_decoded(link) if link[0] else ""),
            )
            names.clear()
            self._skip()
        if names:
            raise ValueError("it is cut short")

    def content(self, size: int) -> bytes:
        """The next `size` bytes of the content."""
        self.left -= size
        return self._take(size)

    def some_content(self) -> bytes:
        """A piece of the content, as long as is at hand; there must be some."""
        if self._at == len(self._data):
            self._next_chunk()
        piece = self._data[self._at : self._at + min(self.left, _CHUNK)]
        self._at += len(piece)
        self.left -= len(piece)
        return piece

    def _member(self, path: str, letter: bytes, mode: int, mtime: int, link: str) -> Member:
        kind = _KINDS.get(letter, "other")
        if kind == "file" and path.endswith("/"):  # how tar wrote directories before it had a type for them
            kind = "directory"
        if kind not in ("file", "other"):
            self._begin(0)  # links and directories have no content, whatever their size says
        if kind == "hardlink":
            link = _plain(link)
        return Member(self, _plain(path), kind, mode, mtime, self.left, link)

    def _begin(self, size: int) -> None:
        if size < 0:
            raise ValueError(f"it has a member of size {size}")
        self.left = size
        self._padding = -size % _RECORD

    def _skip(self) -> None:
        missing = self.left + self._padding - (len(self._data) - self._at)
        while missing > 0:
            self._next_chunk()
            missing -= len(self._data)
        self._at = len(self._data) + missing

    def _header(self) -> bytes | None:
        """The next header, None at the end: of the file, or two blocks of zeros with nothing but zeros behind them."""
        if self._at == len(self._data):
            chunk = next(self._chunks, None)
            if chunk is None:
                return None
            self._data, self._at = chunk, 0
        block = self._take(_RECORD)
        if block[0] or block.count(0) < _RECORD:
            return block
        rest = self._data[self._at :]
        while not rest.strip(b"\0"):
            following = next(self._chunks, None)
            if following is None:
                return None
            rest = following
        raise ValueError("something follows its end")

    def _extension(self, kind: bytes) -> dict[str, str]:
        """What a header before the header says of the next member."""
        if self.left > _MAX_EXTENSION:
            raise ValueError(f"it has a header of {self.left} bytes")
        data = self.content(self.left)
        self._skip()
        match kind:
            case b"L":
                return {"path": _decoded(data)}
            case b"K":
                return {"linkpath": _decoded(data)}
            case b"x":
                return _pax(data)
            case _:
                if _pax(data):
                    raise ValueError("it has a global header with a name or size")
                return {}

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end <= len(self._data):
            piece = self._data[self._at : end]
            self._at = end
            return piece
        parts = [self._data[self._at :]]
        missing = end - len(self._data)
        while missing > 0:
            self._next_chunk()
            parts.append(self._data[:missing])
            self._at = len(parts[-1])
            missing -= self._at
        return b"".join(parts)

    def _next_chunk(self) -> None:
        self._data = next(self._chunks, b"")
        self._at = 0
        if not self._data:
            raise broken(self._filename, "it is cut short")


def _verify(block: bytes, checksum: bytes) -> None:
    """The sum of all bytes but the checksum's own, which count as blanks: Adler-32 is the fastest sum there is."""
    total = (zlib.adler32(block) & 0xFFFF) - 1 - sum(block[_CHECKSUM]) + 8 * ord(" ")
    if (total - _number(checksum)) % _ADLER:
        raise ValueError("it has a damaged header")


def _number(field: bytes) -> int:
    """Octal digits, or GNU's base 256 with the highest bit set."""
    digits = field.rstrip(b" \0")
    if digits.isdigit():
        return int(digits, 8)
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if field[0] & 0x40 else value
    digits = _text(field).strip()
    if digits and not digits.isdigit():
        raise ValueError(f"it has a header with a number {digits!r}")
    return int(digits or b"0", 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"it has a member of size `{text}`")
    return int(text)


def _pax(data: bytes) -> dict[str, str]:
    """The names and sizes among PAX records: `<length> <key>=<value>\\n`."""
    found = {}
    start = 0
    while start < len(data):
        blank = data.find(b" ", start)
        length = data[start : max(blank, start)]
        end = start + int(length) if length.isdigit() else start
        key, equals, value = data[blank + 1 : end].partition(b"=")
        if not (equals and value.endswith(b"\n") and end <= len(data)):
            raise ValueError("it has a damaged PAX header")
        if key.startswith(b"GNU.sparse"):
            raise ValueError("it has a sparse file")
        if key in (b"path", b"linkpath", b"size"):
            if b"\n" in value[:-1]:
                raise ValueError("it has a name with a line break, which readers take for different things")
            found[key.decode()] = value[:-1].decode(errors="surrogateescape")
        start = end
    return found


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _decoded(field: bytes) -> str:
    return _text(field).decode(errors="surrogateescape")


def _plain(name: str) -> str:
    """`name` without `.`, empty components and slashes at its ends."""
    if "/." in name or "//" in name or name[:1] in ("", ".", "/") or name[-1] == "/":
        return str(PurePosixPath(name.lstrip("/")))
    return name
