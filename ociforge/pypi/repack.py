"""Built wheels in one canonical form: same content, same bytes, nothing of the machine that built them."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import lzma
import os
import re
import stat
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from msgspec import Struct

from ociforge.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Relocation", "repack"]

_READ_SIZE = 1 << 20  # 1 MiB
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can tell
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
# setuptools' finder keeps its directories in a table of literals.
_FINDER = re.compile(r"__editable___\w+_finder\.py", re.ASCII)


class Relocation(Struct, frozen=True, kw_only=True):
    """An editable wheel's way out of the build.

    `tree`, where it was built, is a copy of `original`, which is the directory `image` in the image.
    """

    tree: Path
    original: Path
    image: str


def repack(wheel: Path, sink: BinaryIO, *, host: Path, relocation: Relocation | None = None) -> None:
    """Write `wheel` to `sink`: members by name, uncompressed, modes 0755 and 0644, without times.

    `host` is the directory of the build, of which nothing may be in the wheel. With `relocation`, an editable wheel is
    made to point into the image: `.pth` files and the finder that setuptools writes are changed, and RECORD with them;
    any other way of being editable is refused. Raises PackageError.
    """
    try:
        with zipfile.ZipFile(wheel) as built, zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as target:
            _Repacker(wheel.name, built, target, host, relocation).run()
    except _ZIP_ERRORS as error:
        raise PackageError(f"the backend built a wheel that is damaged: `{wheel.name}`: {error}") from error


class _Repacker:
    def __init__(
        self, name: str, built: zipfile.ZipFile, target: zipfile.ZipFile, host: Path, relocation: Relocation | None
    ) -> None:
        self._name = name
        self._built = built
        self._target = target
        self._host = str(host).encode()
        self._relocation = relocation
        self._rows: list[tuple[str, str, str]] = []

    def run(self) -> None:
        infos = [info for info in self._built.infolist() if not info.filename.endswith("/")]
        names = [info.filename for info in infos]
        if len(set(names)) != len(names):
            raise PackageError(f"the backend built a wheel that has a file twice: `{self._name}`")
        records = [name for name in names if self._relocation is not None and _is_record(name)]
        for info in sorted(infos, key=lambda info: info.filename):
            if info.filename not in records:
                self._member(info)
        for record in records:
            self._write_record(record)

    def _member(self, info: zipfile.ZipInfo) -> None:
        digest = hashlib.sha256()
        size = 0
        with self._target.open(_canonical(info), "w", force_zip64=info.file_size >= 1 << 31) as sink:
            for chunk in self._chunks(info):
                digest.update(chunk)
                size += len(chunk)
                sink.write(chunk)
        encoded = base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")
        self._rows.append((info.filename, f"sha256={encoded}", str(size)))

    def _chunks(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        if self._relocation is not None and "/" not in info.filename:
            if info.filename.endswith(".pth"):
                yield self._pointing(info, self._relocation)
                return
            if _FINDER.fullmatch(info.filename):
                yield self._relocated(self._built.read(info), self._relocation)
                return
        tail = b""
        with self._built.open(info) as stream:
            while chunk := stream.read(_READ_SIZE):
                if self._host in tail + chunk:
                    self._refuse(info)
                tail = chunk[-len(self._host) :]
                yield chunk

    def _pointing(self, info: zipfile.ZipInfo, relocation: Relocation) -> bytes:
        """A `.pth` file whose every line is a directory of the tree, or starts setuptools' finder."""
        data = self._built.read(info)
        for line in data.decode().splitlines():
            if re.fullmatch(r"\s*(#.*)?|import __editable___\w+_finder; ?__editable___\w+_finder\.install\(\)", line):
                continue
            # The backend may point at what it made beside the code, which is not in the image.
            place = Path(os.path.normpath(line))
            inside = place.is_relative_to(relocation.tree)
            if not inside or not (relocation.original / place.relative_to(relocation.tree)).is_dir():
                raise PackageError(
                    f"`{self._name}` cannot stay editable: `{info.filename}` does more than name a directory of it",
                    "build it with hatchling or setuptools, or take it as an ordinary install",
                )
        return self._relocated(data, relocation)

    def _relocated(self, data: bytes, relocation: Relocation) -> bytes:
        return data.replace(str(relocation.tree).encode(), relocation.image.encode())

    def _write_record(self, path: str) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*sorted(self._rows), (path, "", "")])
        self._target.writestr(_canonical(zipfile.ZipInfo(path)), text.getvalue())

    def _refuse(self, info: zipfile.ZipInfo) -> None:
        if self._relocation is not None:
            raise PackageError(
                f"`{self._name}` cannot stay editable: `{info.filename}` works on the machine that built it only",
                "build it with hatchling or setuptools, or take it as an ordinary install",
            )
        raise PackageError(
            f"`{self._name}`: `{info.filename}` would carry `{self._host.decode()}` of this machine",
            "the build must not write where it ran into its files",
        )


def _canonical(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    fresh = zipfile.ZipInfo(info.filename, _EPOCH)
    fresh.create_system = 3  # Unix, whose modes these are
    executable = stat.S_ISREG(info.external_attr >> 16) and info.external_attr >> 16 & 0o111
    fresh.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
    return fresh


def _is_record(path: str) -> bool:
    return path.count("/") == 1 and path.endswith(".dist-info/RECORD")
