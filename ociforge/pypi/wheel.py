"""A wheel that has been looked through: every member read once, every path and digest checked.

Rules of the PyPA specification "Binary distribution format". Nothing is extracted: members are read from the archive
when they are needed.
"""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import io
import lzma
import os
import re
import stat
import zipfile
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

from installer.records import InvalidRecordEntry, RecordEntry, parse_record_file
from installer.sources import WheelSource
from installer.utils import SCHEME_NAMES, parse_entrypoints, parse_metadata_file
from msgspec import Struct
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from layers.entry import FileContent
from ociforge.errors import PackageError
from ociforge.pypi.tags import Filename

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from installer.sources import WheelContentElement

__all__ = ["Member", "Stream", "Wheel", "encoded", "read_wheel"]

_LOCAL_HEADER = 30  # bytes, before the member's name (APPNOTE.TXT, 4.3.7)
_LARGEST_TEXT = 64 << 20  # 64 MiB for each file of `.dist-info` that is read as a whole
_READ_SIZE = 1 << 20  # 1 MiB
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_ALGORITHMS = frozenset({"md5", "sha1", "sha224", "sha256", "sha384", "sha512"})
_SHOWN = 10  # findings in one message
# What the installer writes, so what a wheel has under these names is dropped.
_INSTALLERS = ("INSTALLER", "REQUESTED", "direct_url.json")
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    KeyError,
)


class Member(Struct, frozen=True, kw_only=True):
    """A file of the wheel, as content of an entry. `digest` is RECORD's form of its sha256; `size` in bytes."""

    archive: Path
    name: str
    size: int
    executable: bool
    digest: str
    info: zipfile.ZipInfo

    def open(self) -> BinaryIO:
        """Reads from the archive directly: opening it as a whole each time would parse its directory each time."""
        stream = FileContent(self.archive).open()
        try:
            stream.seek(self.info.header_offset)
            header = stream.read(_LOCAL_HEADER)
            # The name and the extra field may be longer here than in the archive's directory.
            skipped = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            stream.seek(skipped, os.SEEK_CUR)
            return cast("BinaryIO", zipfile.ZipExtFile(stream, "r", self.info, close_fileobj=True))
        except BaseException:
            stream.close()
            raise


class Stream(io.RawIOBase):
    """A member on its way through `installer`, which must not read it: its digest is known already."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.member = member


class Wheel(Struct, frozen=True, kw_only=True):
    """`members` are without RECORD and bytecode, sorted by name. `version` is the text of METADATA."""

    filename: Filename
    name: str
    version: str
    dist_info: str
    members: tuple[Member, ...]
    texts: Mapping[str, str]  # METADATA, WHEEL and entry_points.txt

    @property
    def data(self) -> str:
        """The directory of what does not go into site-packages."""
        return self.dist_info.removesuffix(".dist-info") + ".data"

    def source(self) -> WheelSource:
        """The wheel as `installer` wants it."""
        return _Source(self)


class _Source(WheelSource):
    def __init__(self, wheel: Wheel) -> None:
        super().__init__(wheel.name, wheel.version)
        self._wheel = wheel

    @property
    def dist_info_dir(self) -> str:
        return self._wheel.dist_info

    @property
    def data_dir(self) -> str:
        return self._wheel.data

    @property
    def dist_info_filenames(self) -> list[str]:
        return list(self._wheel.texts)

    def read_dist_info(self, filename: str) -> str:
        return self._wheel.texts[filename]

    def get_contents(self) -> Iterator[WheelContentElement]:
        for member in self._wheel.members:
            yield (member.name, "", ""), cast("BinaryIO", Stream(member)), member.executable


def read_wheel(path: Path, filename: str) -> Wheel:
    """Look through the wheel at `path`, whose name elsewhere is `filename`.

    Refused, with every reason found: what is no wheel; paths that are absolute, lead out, stand twice or are file and
    directory at once; members whose content is not what RECORD says; names and versions that disagree between file
    name, `.dist-info` and METADATA; broken entry points. RECORD may leave members out: pip and uv take them too, and
    the archive's own digest vouches for them.

    `__pycache__` is dropped: its files are bound to the times of sources that no installer keeps.
    Raises PackageError.
    """
    parsed = Filename.parse(filename)
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(path, parsed, archive).wheel()
    except (*_ZIP_ERRORS, OSError) as error:
        raise PackageError(f"`{filename}` is damaged: {_first_line(error)}", "the wheel itself is broken") from error


class _Reader:
    def __init__(self, path: Path, filename: Filename, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._filename = filename
        self._archive = archive
        self._files = [info for info in archive.infolist() if not info.filename.endswith("/")]
        self._named = {info.filename: info for info in self._files}
        self._findings: list[str] = []

    def wheel(self) -> Wheel:
        self._check_names()
        self._settle()
        dist_info = self._dist_info()
        self._check_data(dist_info.removesuffix(".dist-info") + ".data")
        texts = {
            name: self._text(f"{dist_info}/{name}")
            for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")
            if f"{dist_info}/{name}" in self._named or name != "entry_points.txt"
        }
        name, version = self._identity(dist_info, texts["METADATA"])
        self._check_entry_points(texts.get("entry_points.txt", ""))
        members = self._members(dist_info, self._record(texts.pop("RECORD")))
        self._settle()
        return Wheel(
            filename=self._filename, name=name, version=version, dist_info=dist_info, members=members, texts=texts
        )

    def _settle(self) -> None:
        if self._findings:
            more = len(self._findings) - _SHOWN
            lines = [f"`{self._filename}`: {finding}" for finding in self._findings[:_SHOWN]]
            raise PackageError.collect(
                [*lines, *([f"`{self._filename}`: {more} more of the kind"] if more > 0 else [])],
                "the wheel itself is broken: use another version, or report it to its authors",
            )

    def _check_names(self) -> None:
        seen: set[str] = set()
        directories: set[str] = set()
        for info in self._files:
            # zipfile cuts names at the first NUL.
            if reason := _illegal(info.orig_filename):
                self._findings.append(f"the path `{_printable(info.orig_filename)}` {reason}")
                continue
            if info.filename in seen:
                self._findings.append(f"`{info.filename}` is there twice")
            seen.add(info.filename)
            parts = info.filename.split("/")
            directories.update("/".join(parts[:count]) for count in range(1, len(parts)))
        self._findings += [f"`{path}` is a file and a directory" for path in sorted(seen & directories)]

    def _dist_info(self) -> str:
        """The one top-level directory that describes the distribution; its name must agree with the file's."""
        tops = {info.filename.partition("/")[0] for info in self._files if "/" in info.filename}
        found = sorted(top for top in tops if top.endswith(".dist-info"))
        if len(found) != 1:
            listed = ", ".join(f"`{_printable(top)}`" for top in found) or "none"
            raise PackageError(f"`{self._filename}` does not have exactly one `.dist-info` directory: found {listed}")
        return found[0]

    def _check_data(self, data: str) -> None:
        """`X.data/<scheme>/<path>` and nothing else."""
        for info in self._files:
            parts = info.filename.split("/")
            if parts[0] == data and (len(parts) < 3 or parts[1] not in SCHEME_NAMES):
                self._findings.append(f"`{info.filename}` is not in a known directory of `{data}`")

    def _text(self, name: str) -> str:
        info = self._named.get(name)
        if info is None:
            raise PackageError(f"`{self._filename}` has no `{name}`", "the wheel itself is broken")
        if info.file_size > _LARGEST_TEXT:
            raise PackageError(f"`{self._filename}`: `{name}` has more than {_LARGEST_TEXT >> 20} MiB")
        return self._archive.read(info).decode()

    def _identity(self, dist_info: str, metadata: str) -> tuple[str, str]:
        """Name and version, on which file name, `.dist-info` and METADATA must agree."""
        message = parse_metadata_file(metadata)
        stem, _, tail = dist_info.removesuffix(".dist-info").rpartition("-")
        told = {"METADATA": (str(message["Name"] or ""), str(message["Version"] or "")), dist_info: (stem, tail)}
        for where, (name, version) in told.items():
            if canonicalize_name(name) != self._filename.name or _version(version) != self._filename.version:
                self._findings.append(
                    f"`{where}` says `{_printable(name)} {_printable(version)}`,"
                    f" the file's name `{self._filename.name} {self._filename.version}`"
                )
        self._settle()
        return self._filename.name, told["METADATA"][1].strip()

    def _check_entry_points(self, text: str) -> None:
        try:
            for name, *_ in parse_entrypoints(text):
                if name in (".", "..") or "/" in name or _UNPRINTABLE.search(name):
                    self._findings.append(f"`entry_points.txt` names a script `{_printable(name)}`")
                elif re.fullmatch(r"python(w|3|3\.[0-9]+)?", name):
                    self._findings.append(f"`entry_points.txt` would replace the interpreter by a script `{name}`")
        except (configparser.Error, AssertionError, AttributeError) as error:
            self._findings.append(f"`entry_points.txt` is malformed: {_first_line(error) or 'no `module:function`'}")

    def _record(self, text: str) -> dict[str, RecordEntry]:
        """RECORD by path. Absolute paths are taken as relative to site-packages, as pixi's installer does."""
        try:
            rows = [RecordEntry.from_elements(*row) for row in parse_record_file(text.splitlines())]
        except (InvalidRecordEntry, csv.Error) as error:
            raise PackageError(f"`{self._filename}`: RECORD is malformed: {_first_line(error)}") from error
        for row in rows:
            if row.hash_ is not None and row.hash_.name not in _ALGORITHMS:
                self._findings.append(f"RECORD has a digest by `{_printable(row.hash_.name)}`, which is not supported")
                row.hash_ = None
        return {row.path.lstrip("/"): row for row in rows}

    def _members(self, dist_info: str, record: Mapping[str, RecordEntry]) -> tuple[Member, ...]:
        dropped = {f"{dist_info}/{name}" for name in ("RECORD", *_INSTALLERS)}
        return tuple(
            self._member(info, record.get(info.filename))
            for info in sorted(self._files, key=lambda info: info.filename)
            if info.filename not in dropped and "__pycache__" not in info.filename.split("/")[:-1]
        )

    def _member(self, info: zipfile.ZipInfo, row: RecordEntry | None) -> Member:
        expected = None if row is None else row.hash_
        sha256 = hashlib.sha256()
        other = hashlib.new(expected.name) if expected is not None and expected.name != "sha256" else sha256
        size = 0
        with self._archive.open(info) as stream:
            while chunk := stream.read(_READ_SIZE):
                size += len(chunk)
                sha256.update(chunk)
                if other is not sha256:
                    other.update(chunk)
        if expected is not None and encoded(other.digest()) != expected.value.rstrip("="):
            self._findings.append(f"`{info.filename}` is not what RECORD says: its {expected.name} is another")
        elif row is not None and row.size is not None and row.size != size:
            self._findings.append(f"`{info.filename}` is not what RECORD says: it has {size} bytes, not {row.size}")
        mode = info.external_attr >> 16
        return Member(
            archive=self._path,
            name=info.filename,
            size=size,
            executable=stat.S_ISREG(mode) and bool(mode & 0o111),
            digest=encoded(sha256.digest()),
            info=info,
        )


def _illegal(path: str) -> str | None:
    """What is wrong with a member's path."""
    if _UNPRINTABLE.search(path) or "\\" in path:
        return "has characters that no path of a wheel may have"
    if path.startswith("/"):
        return "is absolute"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "is not normalised"
    return None


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def encoded(digest: bytes) -> str:
    """A digest as RECORD writes it."""
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _first_line(error: BaseException) -> str:
    return _printable(next(iter(str(error).splitlines()), ""))
