"""Entries as tar members: USTAR headers, with a PAX `x` header where USTAR is too small.

The bytes are fixed by POSIX.1-2017 (pax, "ustar Interchange Format" and "pax Extended Header") and, where that leaves
a choice, by this module; `FORMAT` counts the choices. Type flags `0 1 2 5` and `x` only: no global header, no GNU
extension, no sparse file, no device. Owner names, device numbers and access times are always empty.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from layers.entry import Bytes, Directory, Entry, File, Hardlink, Symlink
from layers.errors import EntryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from layers.entry import Metadata

__all__ = ["END", "FORMAT", "header", "members"]

FORMAT = 2  # raised whenever any byte that this package writes for the same entries changes

_RECORD = 512  # bytes; the unit of a tar file
END = bytes(2 * _RECORD)  # readers drop whatever follows, so it is written once, last

_CHUNK = 1 << 20  # 1 MiB: the most that is read from a file at once
_NAME = 100  # bytes
_PREFIX = 155  # bytes
_MAX_ID = 0o7777777  # seven octal digits: 2 097 151
_MAX_NUMBER = 0o77777777777  # eleven octal digits: 8 GiB - 1, or a second in the year 2242

_REGULAR, _LINK, _SYMLINK, _DIRECTORY, _EXTENDED = b"0", b"1", b"2", b"5", b"x"
_MAGIC = b"ustar\x0000"
_BLANKS = b" " * 8  # the checksum counts its own field as blanks
_CHECKSUM = 148  # where it is
_SYMLINK_MODE = 0o777  # what Linux reports for every symbolic link

_Numbers = tuple[int, int, int, int, int]  # mode, uid, gid, size, mtime


def members(entries: Iterable[Entry], metadata: Callable[[str], Metadata | None]) -> Iterator[bytes]:
    """The tar members of `entries`, in chunks of at most a little more than 1 MiB; no end marker.

    `entries` are in writing order, and `metadata` knows the files that a Hardlink may name: those before it. Contents
    are opened one at a time, read while the chunks are taken, and closed before the next entry is asked for. Raises
    EntryError, naming the path, for a file that is shorter or longer than announced or that cannot be read.
    """
    for entry in entries:
        if isinstance(entry, File):
            yield from _file(entry)
        else:
            yield header(entry, metadata(entry.target) if isinstance(entry, Hardlink) else None)


def header(entry: Entry, target: Metadata | None = None) -> bytes:
    """The header of `entry`, with its PAX header in front if it needs one: a multiple of 512 bytes.

    `target` is the metadata of the file that a Hardlink names, which the link repeats: docker, podman and containerd
    apply it to the shared inode, and changing the owner of that drops its capabilities. The size of a link is 0.
    """
    match entry:
        case Directory():
            numbers = (entry.mode, entry.uid, entry.gid, 0, entry.mtime)
            return _header(entry.path, _DIRECTORY, numbers)
        case File():
            numbers = (entry.mode, entry.uid, entry.gid, entry.size, entry.mtime)
            return _header(entry.path, _REGULAR, numbers, xattrs=entry.xattrs)
        case Symlink():
            numbers = (_SYMLINK_MODE, entry.uid, entry.gid, 0, entry.mtime)
            return _header(entry.path, _SYMLINK, numbers, entry.target)
        case Hardlink():
            if target is None:
                raise EntryError(entry.path, f"is a hard link to `{entry.target}`, which does not come before it")
            numbers = (target.mode, target.uid, target.gid, 0, target.mtime)
            return _header(entry.path, _LINK, numbers, entry.target, target.xattrs)


def _file(entry: File) -> Iterator[bytes]:
    """Header, content and padding; those of a small file as one chunk, because most files are small."""
    front = header(entry)
    padding = bytes(-entry.size % _RECORD)
    if entry.size <= _CHUNK:
        content = entry.content
        if isinstance(content, Bytes) and len(content.data) == entry.size:
            yield b"".join((front, content.data, padding))  # most files, so without a stream
        else:
            yield b"".join((front, *_content(entry), padding))
        return
    yield front
    yield from _content(entry)
    yield padding


def _content(entry: File) -> Iterator[bytes]:
    missing = entry.size
    try:
        with entry.content.open() as stream:
            while missing:
                chunk = stream.read(min(missing, _CHUNK))
                if not chunk:
                    raise EntryError(entry.path, f"has {entry.size - missing} bytes, not the {entry.size} announced")
                missing -= len(chunk)
                yield chunk
            if stream.read(1):
                raise EntryError(entry.path, f"has more than the {entry.size} bytes announced")
    except OSError as error:
        raise EntryError(entry.path, f"cannot be read: {error.strerror or error}") from error


def _header(
    path: str,
    kind: bytes,
    numbers: _Numbers,
    target: str = "",
    xattrs: tuple[tuple[str, bytes], ...] = (),
) -> bytes:
    name = f"{path}/".encode() if kind == _DIRECTORY else path.encode()
    link = target.encode()
    split = _split(name)
    mode, uid, gid, size, mtime = numbers
    if (
        split is not None
        and len(link) <= _NAME
        and uid <= _MAX_ID
        and gid <= _MAX_ID
        and size <= _MAX_NUMBER
        and mtime <= _MAX_NUMBER
        and not xattrs
        and name.isascii()
        and link.isascii()
    ):
        return _ustar(*split, kind, numbers, link)
    records = _oversize(numbers)
    if split is None or not name.isascii():
        records[b"path"] = name
        split = b"", _stand_in(name)
    if len(link) > _NAME or not link.isascii():
        records[b"linkpath"] = link
        link = _stand_in(link)
    records |= {b"SCHILY.xattr." + key.encode(): value for key, value in xattrs}
    fitting = (mode, *(0 if key in records else value for key, value in zip(_KEYS, numbers[1:], strict=True)))
    return _extended(path, records) + _ustar(*split, kind, fitting, link)


_KEYS = (b"uid", b"gid", b"size", b"mtime")
_LARGEST = (_MAX_ID, _MAX_ID, _MAX_NUMBER, _MAX_NUMBER)


def _oversize(numbers: _Numbers) -> dict[bytes, bytes]:
    """PAX records for the numbers that their octal fields cannot hold."""
    fields = zip(_KEYS, numbers[1:], _LARGEST, strict=True)
    return {key: b"%d" % value for key, value, largest in fields if value > largest}


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """USTAR's (prefix, name), or None where `name` fits no split: at the first slash that leaves 100 bytes or less."""
    if len(name) <= _NAME:
        return b"", name
    slash = name.find(b"/", len(name) - _NAME - 1)
    if 0 < slash <= _PREFIX and slash < len(name) - 1:
        return name[:slash], name[slash + 1 :]
    return None


def _stand_in(name: bytes) -> bytes:
    """What the USTAR field holds where PAX has the real name: ASCII, cut, a slash at the end only if it had one.

    Some readers take a trailing slash for a directory.
    """
    ascii_name = name.decode().encode("ascii", "replace")
    end = b"/" if name.endswith(b"/") else b""
    return ascii_name.rstrip(b"/")[: _NAME - 1].rstrip(b"/") + end


def _extended(path: str, records: dict[bytes, bytes]) -> bytes:
    """A PAX `x` header and its records, sorted by key; its own metadata is fixed."""
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    name = b"PaxHeaders/" + path.rpartition("/")[2].encode("ascii", "replace")
    front = _ustar(b"", name[:_NAME], _EXTENDED, (0o644, 0, 0, len(data), 0), b"")
    return front + data + bytes(-len(data) % _RECORD)


def _record(key: bytes, value: bytes) -> bytes:
    """`"<n> key=value\\n"`, where n counts the whole record, its own digits included."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))  # the digits of the sum may be one more
    return b"%d %b=%b\n" % (length, key, value)


def _ustar(prefix: bytes, name: bytes, kind: bytes, numbers: tuple[int, ...], link: bytes) -> bytes:
    """One header block; everything must fit its field and be ASCII."""
    block = b"".join(
        (
            name.ljust(_NAME, b"\0"),
            b"%07o\0%07o\0%07o\0%011o\0%011o\0" % numbers,
            _BLANKS,
            kind,
            link.ljust(_NAME, b"\0"),
            _MAGIC.ljust(8 + 32 + 32 + 8 + 8, b"\0"),  # magic and version; owner names, device numbers
            prefix.ljust(_PREFIX + 12, b"\0"),  # and the unused rest of the block
        )
    )
    # The lower half of Adler-32 is one more than the sum of the bytes, as long as that is below 65520, as for 512 of
    # ASCII. No other way to add bytes is as fast.
    total = (zlib.adler32(block) & 0xFFFF) - 1
    return b"%b%06o\0 %b" % (block[:_CHECKSUM], total, block[_CHECKSUM + len(_BLANKS) :])
