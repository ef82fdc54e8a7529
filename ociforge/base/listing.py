"""What is in a tar layer that somebody else made: names and metadata, never content.

Not `tarfile`: that ends silently at a damaged header, reads extended headers of any size into memory and keeps every
member. Where readers differ, this one reads as the Go library of the engines does (header-only types have no data, PAX
beats the ustar header, global headers are not applied), and refuses what is malformed or unpacked by no engine.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from typing import TYPE_CHECKING, Literal, NoReturn

from msgspec import Struct

from layers.digest import Digest, DigestWriter
from layers.errors import DigestError
from ociforge.errors import BaseImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from layers.digest import Writable

    _Fail = Callable[[str], NoReturn]

__all__ = ["MAX_ENTRIES", "TEXTS", "Kind", "Listing", "Member", "TarReader", "decode", "encode", "read_layer"]

Kind = Literal["directory", "file", "symlink", "hardlink", "device", "fifo"]

TEXTS = frozenset({"etc/group", "etc/os-release", "etc/passwd", "usr/lib/os-release"})  # files whose text is kept
MAX_ENTRIES = 2_000_000  # in one image; real ones have at most some hundred thousand
_MAX_PATH = 4096  # bytes, Linux's PATH_MAX
_MAX_EXTENSION = 1 << 20  # 1 MiB for a PAX header or a GNU long name, as in Go's archive/tar
_MAX_TEXT = 64 << 10  # 64 KiB of a file whose text is kept
_LIBC = re.compile(r"libc(?:\.so\.6|-2\.[0-9]+\.so)")  # names that glibc's library has as a file
_BANNER = b"GNU C Library ("
_MAX_BANNER = 256  # bytes
_MAX_LIBC = 32 << 20  # 32 MiB: it has 2, and some more with debugging symbols
_FORMAT = 2  # of what `encode` writes; a member that gets another meaning raises it
_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_READ_SIZE = 1 << 20  # 1 MiB
_NO_PADDING = (
    "it is cut short, or was written by a tool that leaves out the padding behind the last entry, as `umoci insert`"
    " does: write the layer anew with another tool"
)
_KINDS: dict[bytes, Kind] = {
    b"\0": "file",
    b"0": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "device",
    b"4": "device",
    b"5": "directory",
    b"6": "fifo",
}


class Member(Struct, frozen=True, kw_only=True):
    """One path of a layer, without leading slash; the root itself is the empty path.

    `target` is verbatim for a symbolic link and a path for a hard link. `text` is the content of the files in
    `TEXTS`, and of glibc's library the line that names its version. Names that are no UTF-8 carry surrogate escapes.
    """

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    target: str | None = None
    text: str | None = None


class Listing(Struct, frozen=True):
    """The members of one layer in their order, and the digest of its uncompressed tar."""

    diff_id: Digest
    members: tuple[Member, ...]


def encode(listing: Listing) -> bytes:
    """The bytes to keep a listing as; `decode` is the inverse."""
    rows = [[m.path, m.kind, m.mode, m.uid, m.gid, m.mtime, m.target, m.text] for m in listing.members]
    document = {"format": _FORMAT, "diffId": str(listing.diff_id), "members": rows}
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0)


def decode(data: bytes) -> Listing:
    """Read what `encode` wrote; raises ValueError when it is damaged or of another format."""
    try:
        document = json.loads(gzip.decompress(data))
        if document["format"] != _FORMAT:
            raise ValueError("of another format")
        return Listing(Digest.parse(document["diffId"]), tuple(_row(*row) for row in document["members"]))
    except (OSError, EOFError, zlib.error, LookupError, TypeError, DigestError) as error:
        raise ValueError(f"damaged: {error}") from error


def _row(
    path: str, kind: Kind, mode: int, uid: int, gid: int, mtime: int, target: str | None, text: str | None
) -> Member:
    return Member(path=path, kind=kind, mode=mode, uid=uid, gid=gid, mtime=mtime, target=target, text=text)


def read_layer(stream: BinaryIO, what: str, *, strict: bool = False) -> Listing:
    """List the uncompressed tar in `stream`, which is read to its end and stays open.

    With `strict`, what some engines read differently is refused too: for files that are no image yet. Raises
    BaseImageError; `what` names the tar.
    """
    tar = DigestWriter()
    reader = TarReader(io.BufferedReader(_Tapped(stream, tar), _READ_SIZE), what)
    members = tuple(reader)
    if strict:
        reader.refuse_oddities()
    return Listing(tar.digest(), members)


class TarReader:
    """Iterates over the members of the uncompressed tar in `stream`; `what` names it in errors.

    Iterating to the end reads the stream to its end; it is not closed. Every flaw raises BaseImageError.
    """

    def __init__(self, stream: BinaryIO, what: str) -> None:
        self._stream = stream
        self._what = what
        self._ended = False  # by an end marker
        self._trailing = False  # anything but zeros behind it
        self._extended = False  # by a global PAX header

    def __iter__(self) -> Iterator[Member]:
        count = 0
        extension = _Extension()
        while (header := self._header()) is not None:
            count += 1
            if count > MAX_ENTRIES:
                self._fail(f"more than {MAX_ENTRIES} entries")
            kind = header[156:157]
            if kind in (b"x", b"g", b"L", b"K"):
                self._extend(extension, kind, self._small(_number(header[124:136], self._fail)))
                continue
            yield self._member(header, extension)
            extension = _Extension()
        while chunk := self._stream.read(_READ_SIZE):
            self._trailing = self._trailing or chunk.count(0) != len(chunk)

    def refuse_oddities(self) -> None:
        """Raise BaseImageError for what engines bear with, or not: to be called after the last member."""
        if not self._ended:
            self._fail("it has no end marker, so it may be truncated")
        if self._trailing:
            self._fail("there is data behind its end marker, which engines drop")
        if self._extended:
            self._fail("it has a global PAX header, which not every engine unpacks")

    def _header(self) -> bytes | None:
        """The next header block; None at the end of the archive."""
        block = self._stream.read(_BLOCK)
        if block == _ZEROS:
            # One zero block ends an archive only together with a second one or the end of the stream.
            block = self._stream.read(_BLOCK)
            self._ended = True
            if block in (b"", _ZEROS):
                return None
            self._fail("a lone zero block")
        if not block:
            return None
        if len(block) < _BLOCK:
            self._fail("truncated in a header")
        stored = _number(block[148:156], self._fail)
        summed = block[:148] + b" " * 8 + block[156:]
        # Some old writers summed signed characters; to count those takes far longer, so it is done when it matters.
        if stored != sum(summed) and stored != sum(summed) - 256 * sum(byte > 127 for byte in summed):
            self._fail("a header with a wrong checksum")
        return block

    def _extend(self, extension: _Extension, kind: bytes, data: bytes) -> None:
        if kind == b"x":
            extension.records = dict(_pax_records(data, self._fail))
        elif kind == b"g":
            self._extended = True
        elif kind == b"L":
            extension.name = data.split(b"\0", 1)[0]
        else:
            extension.link = data.split(b"\0", 1)[0]

    def _member(self, header: bytes, extension: _Extension) -> Member:
        records = extension.records
        if header[156:157] == b"S":
            self._fail("a sparse file in GNU's old format, which no engine unpacks")
        name = records.get("GNU.sparse.name") or records.get("path") or extension.name or _name(header)
        link = records.get("linkpath") or extension.link or header[157:257].split(b"\0", 1)[0]
        kind = self._kind(header, name)
        path = self._path(name)
        size = self._field(records, "size", header[124:136])
        member = Member(
            path=path,
            kind=kind,
            mode=_number(header[100:108], self._fail) & 0o7777,
            uid=self._field(records, "uid", header[108:116]),
            gid=self._field(records, "gid", header[116:124]),
            mtime=max(0, self._field(records, "mtime", header[136:148], lowest=None)),
            target=self._path(link) if kind == "hardlink" else _text(link) if kind == "symlink" else None,
            text=self._kept(path, size) if kind == "file" else None,
        )
        if not path and kind != "directory":
            self._fail("an entry for the root that is no directory")
        return member

    def _kind(self, header: bytes, name: bytes) -> Kind:
        flag = header[156:157]
        if flag == b"\0" and name.endswith(b"/"):
            return "directory"  # as tar wrote them before POSIX
        if flag not in _KINDS:
            self._fail(f"`{_shown(name)}`: an entry of the type {flag!r}, which no engine unpacks")
        return _KINDS[flag]

    def _field(self, records: dict[str, bytes], key: str, octal: bytes, lowest: int | None = 0) -> int:
        """A number of the PAX header, else of the header proper; fractions are cut off."""
        value = records.get(key)
        if not value:
            number = _number(octal, self._fail)
        else:
            whole = value.partition(b".")[0] if key == "mtime" else value
            digits = whole.removeprefix(b"-")
            if not digits.isdigit() or len(digits) > 19:  # 2^63 - 1 has 19
                self._fail(f"a PAX header with `{key}={_shown(value)}`")
            number = int(whole)
        if lowest is not None and number < lowest:
            self._fail(f"a negative {key}")
        return number

    def _path(self, name: bytes) -> str:
        """A name as engines unpack it: relative to the root, without `.` and empty parts."""
        if b"\0" in name:
            self._fail(f"`{_shown(name)}`: a NUL in a name")
        if len(name) > _MAX_PATH:
            self._fail(f"`{_shown(name[:60])}…`: a name of {len(name)} bytes")
        parts = [part for part in _text(name).split("/") if part not in ("", ".")]
        if ".." in parts:
            self._fail(f"`{_shown(name)}`: `..` in a path")
        return "/".join(parts)

    def _kept(self, path: str, size: int) -> str | None:
        """Pass over the data of a file; its text when that is wanted."""
        if path in TEXTS and size <= _MAX_TEXT:
            return self._data(size).decode("utf-8", "replace")
        if _LIBC.fullmatch(path.rpartition("/")[2]) and size <= _MAX_LIBC:
            return _banner(self._data(size))
        self._skip(size + -size % _BLOCK)
        return None

    def _small(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_EXTENSION:
            self._fail(f"an extended header of {size} bytes")
        return self._data(size)

    def _data(self, size: int) -> bytes:
        padded = size + -size % _BLOCK
        data = self._stream.read(padded)
        if len(data) < padded:
            self._fail("truncated in an entry", _NO_PADDING)
        return data[:size]

    def _skip(self, size: int) -> None:
        while size > 0:
            chunk = self._stream.read(min(size, _READ_SIZE))
            if not chunk:
                self._fail("truncated in an entry", _NO_PADDING)
            size -= len(chunk)

    def _fail(self, why: str, hint: str | None = None) -> NoReturn:
        raise BaseImageError(f"{self._what} is not a usable tar archive: {why}", hint)


class _Tapped(io.RawIOBase):
    """`stream`, with what is read from it written to `sink`."""

    def __init__(self, stream: BinaryIO, sink: Writable) -> None:
        self._stream = stream
        self._sink = sink

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # any buffer will do
        data = self._stream.read(len(buffer))
        self._sink.write(data)
        buffer[: len(data)] = data
        return len(data)


class _Extension:
    """What the headers before a member say about it."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.name = b""
        self.link = b""


def _banner(library: bytes) -> str | None:
    """The line that glibc prints when its library is run, such as `GNU C Library (…) stable release version 2.36.`"""
    start = library.find(_BANNER)
    if start < 0:
        return None
    return re.split(rb"[\n\0]", library[start : start + _MAX_BANNER], maxsplit=1)[0].decode("ascii", "replace")


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    # Only POSIX ustar has a prefix: GNU keeps times there, and star, which signs with `tar`, times behind 131 bytes.
    if header[257:263] != b"ustar\0":
        return name
    prefix = header[345 : 476 if header[508:512] == b"tar\0" else 500].split(b"\0", 1)[0]
    return prefix + b"/" + name if prefix else name


def _number(field: bytes, fail: _Fail) -> int:
    """An octal number, or GNU's base-256 form, which may be negative."""
    if field[0] & 0x80:
        return int.from_bytes(
            bytes([field[0] & 0x7F if field[0] != 0xFF else 0xFF]) + field[1:], signed=field[0] == 0xFF
        )
    digits = field.split(b"\0", 1)[0].strip(b" ") if field[0] else field.strip(b"\0 ")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        fail(f"a header with the number {digits!r}")


def _pax_records(data: bytes, fail: _Fail) -> Iterator[tuple[str, bytes]]:
    """The `<length> <key>=<value>\\n` records of a PAX header."""
    while data:
        length, blank, _ = data.partition(b" ")
        end = int(length) if blank and length.isdigit() and len(length) <= 7 else 0
        record, whole, data = data[len(length) + 1 : end], end <= len(data), data[end:]
        key, equals, value = record.partition(b"=")
        if not whole or not key or not equals or not value.endswith(b"\n"):
            fail("a malformed PAX header")
        yield key.decode("utf-8", "surrogateescape"), value[:-1]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _shown(name: bytes) -> str:
    return ascii(name.decode("utf-8", "backslashreplace"))[1:-1]
