"""A wheel -> the files of its package at the prefix, by way of the `installer` library.

`installer` walks the wheel and says which scheme each file belongs to; what reaches an entry is settled here and is
independent of host, umask and clock:

- modes are 0755 for scripts and for files with any execute bit in the archive, 0644 else; the owner is 0:0;
- every time is the one constant: a wheel's own are local times of an unknown zone, and no installer keeps them;
- scripts begin with the environment's own interpreter;
- RECORD is sorted, INSTALLER says `uv-pixi`, REQUESTED is there for all packages, both as pixi leaves them.
"""

from __future__ import annotations

import csv
import io
import posixpath
import shlex
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import installer
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import Hash, RecordEntry
from msgspec import Struct

from layers.digest import Digest
from layers.entry import Bytes, File
from ociforge.errors import PackageError
from ociforge.pypi.wheel import Stream, encoded

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from installer.scripts import ScriptSection
    from installer.utils import Scheme

    from layers.entry import Content
    from ociforge.pypi.package import Interpreter
    from ociforge.pypi.wheel import Wheel

__all__ = ["Layout", "Linked", "link"]

_INSTALLER = b"uv-pixi"  # without a line break: pixi tells its own packages by the file's length
_SHEBANG = 127  # bytes of a `#!` line with its end that every Linux kernel reads
_SCRIPT = """\
import sys
from {module} import {name}
if __name__ == "__main__":
    sys.exit({attribute}())
"""


class Layout(Struct, frozen=True, kw_only=True):
    """Where wheels go: below `prefix` (without leading slash), for `python`. `mtime` in seconds."""

    prefix: str
    python: Interpreter
    mtime: int

    @property
    def shebang(self) -> bytes:
        """The first line of scripts.

        A path too long for the kernel, or with a blank, is started by way of `/bin/sh`, in lines that are a string to
        Python: what pip and uv write.
        """
        executable = f"/{self.prefix}/{self.python.executable}"
        line = f"#!{executable}\n".encode()
        if len(line) <= _SHEBANG and " " not in executable:
            return line
        return f"#!/bin/sh\n'''exec' {shlex.quote(executable)} \"$0\" \"$@\"\n' '''\n".encode()

    def directory(self, scheme: str, name: str) -> str:
        """Where the files of a scheme go, relative to the prefix."""
        match scheme:
            case "purelib" | "platlib":
                return self.python.site_packages
            case "scripts":
                return "bin"
            case "headers":
                return f"{self.python.include}/{name}"
            case _:  # "data"
                return ""


class Linked(Struct, frozen=True, kw_only=True):
    """A wheel's files by path below the prefix, and what RECORD says of their content."""

    wheel: Wheel
    files: Mapping[str, File]
    digests: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.wheel.name

    def content(self, path: str) -> str:
        """Stands for what is at `path`: equal where bytes and mode are."""
        return f"{self.digests[path]} {self.files[path].mode:o}"


def link(wheel: Wheel, layout: Layout, direct_url: bytes | None) -> Linked:
    """Lay out `wheel`; `direct_url` is the text of `direct_url.json`, if it has one.

    Contents are read from the wheel's archive, which must stay until the last layer is written. Raises PackageError.
    """
    destination = _Destination(wheel, layout)
    metadata = {"INSTALLER": _INSTALLER, "REQUESTED": b""}
    if direct_url is not None:
        metadata["direct_url.json"] = direct_url
    try:
        installer.install(wheel.source(), destination, metadata)
    except (InstallerError, ValueError) as error:
        reason = error.args[-1] if error.args else error  # the ones before are objects of the library
        raise PackageError(f"`{wheel.filename}` cannot be installed: {reason}") from error
    return Linked(wheel=wheel, files=destination.files, digests=destination.digests)


class _Destination(WheelDestination):
    """Collects files; content that must be changed is held in memory, all other stays in the archive."""

    def __init__(self, wheel: Wheel, layout: Layout) -> None:
        self._wheel = wheel
        self._layout = layout
        self._entry_points: set[str] = set()
        self.files: dict[str, File] = {}
        self.digests: dict[str, str] = {}

    def write_script(self, name: str, module: str, attr: str, section: ScriptSection) -> RecordEntry:
        """An entry point; `section`, console or gui, makes no difference on Linux."""
        text = _SCRIPT.format(module=module, name=attr.partition(".")[0], attribute=attr)
        self._entry_points.add(name)
        return self._generated("scripts", name, self._layout.shebang + text.encode(), executable=True)

    def write_file(
        self, scheme: Scheme, path: str | os.PathLike[str], stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        name = str(path)
        if not isinstance(stream, Stream):
            return self._generated(scheme, name, stream.read(), executable=False)
        if scheme == "scripts":
            return self._script(name, stream)
        member = stream.member
        return self._add(scheme, name, member, member.size, member.digest, executable=is_executable)

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        """Write RECORD: paths are relative to site-packages."""
        base = self._layout.directory(scheme, self._wheel.name)
        rows = {
            posixpath.relpath(self._path(place, record.path), base): record.to_row()[1:] for place, record in records
        }
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([path, *row] for path, row in sorted(rows.items()))
        self._generated(scheme, record_file_path, text.getvalue().encode(), executable=False)

    def _script(self, name: str, stream: Stream) -> RecordEntry:
        member = stream.member
        if name in self._entry_points:  # old tools wrote both; pip and uv take the entry point
            return RecordEntry(name, Hash("sha256", self.digests[f"bin/{name}"]), self.files[f"bin/{name}"].size)
        with member.open() as content:
            if content.read(8) == b"#!python":  # also `#!pythonw`, and whatever options follow
                rest = content.read().partition(b"\n")[2]
                return self._generated("scripts", name, self._layout.shebang + rest, executable=True)
        return self._add("scripts", name, member, member.size, member.digest, executable=True)

    def _generated(self, scheme: str, path: str, data: bytes, *, executable: bool) -> RecordEntry:
        digest = encoded(bytes.fromhex(Digest.of(data).hex))
        return self._add(scheme, path, Bytes(data), len(data), digest, executable=executable)

    def _add(
        self, scheme: str, path: str, content: Content, size: int, digest: str, *, executable: bool
    ) -> RecordEntry:
        place = self._path(scheme, path)
        if place in self.files:
            self._refuse(f"would be written twice: `{place}`")
        if place.partition("/")[0] == "conda-meta":
            self._refuse(f"would write what belongs to conda: `{place}`")
        self.digests[place] = digest
        self.files[place] = File(
            path=f"{self._layout.prefix}/{place}",
            size=size,
            content=content,
            mode=0o755 if executable else 0o644,
            mtime=self._layout.mtime,
        )
        return RecordEntry(path, Hash("sha256", digest), size)

    def _path(self, scheme: str, path: str) -> str:
        """Below the prefix."""
        return posixpath.join(self._layout.directory(scheme, self._wheel.name), path)

    def _refuse(self, what: str) -> NoReturn:
        raise PackageError(f"`{self._wheel.filename}` cannot be installed: {what}", "the wheel itself is broken")
