"""Linked packages -> entries at the prefix.

What reaches an entry is independent of host, umask, clock, staging and cache:

- modes are 0755 for directories and for files with any execute bit, 0644 else; the owner is 0:0;
- a file or symbolic link that comes unchanged from an archive keeps its mtime in whole seconds, as rattler extracts it
  (before 1980 and after 2242 become 1980-01-01); from 2038-01-19 on, which not every file system can store, it is the
  constant;
- files with a prefix placeholder, entry points, `conda-meta` and directories have the constant mtime;
- no directory of this machine may appear in a link's target or an entry point: checked.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from msgspec import Struct

from layers.entry import Directory, Entry, File, FileContent, Hardlink, Symlink
from ociforge.conda.linked import on_disk
from ociforge.conda.meta import record_entry, record_name
from ociforge.conda.package import Activation, Package
from ociforge.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from ociforge.conda.linked import Linked
    from ociforge.conda.meta import PathRecord

__all__ = ["ENTRY_POINT", "Layout", "is_dropped", "shipped_time"]

_EARLIEST = 315_532_800  # 1980-01-01: rattler moves what is older to it
_LATEST = 2**31 - 1  # 2038-01-19: file systems with 32-bit times store nothing later
ENTRY_POINT = "unix_python_entry_point"


class Layout(Struct, frozen=True, kw_only=True):
    """Files of the staging directory `root` -> entries below `prefix` (without leading slash).

    `hosts` are the directories of this machine that no entry may name.
    """

    root: Path
    prefix: str
    mtime: int
    clamp: int | None
    hosts: tuple[str, ...]

    def package(self, linked: Linked) -> Package:
        record = linked.archive.record
        kept = [entry for entry in linked.paths if entry.path not in linked.lost and not is_dropped(entry.path)]
        entries = self._files(linked, kept)
        meta = f"conda-meta/{record_name(record)}"
        entries[meta] = record_entry(record, linked.paths, path=f"{self.prefix}/{meta}", mtime=self.mtime)
        return Package(
            name=record.name.normalized,
            version=str(record.version),
            build=str(record.build),
            subdir=record.subdir,
            sha256=linked.archive.digest,
            size=linked.archive.size,
            noarch_python=record.noarch.python,
            entries=(*sorted(self._directories(entries), key=_parts), *entries.values()),
            activation=self._activation(linked, kept),
        )

    def _files(self, linked: Linked, kept: Iterable[PathRecord]) -> dict[str, Entry]:
        """Entries by path, in writing order: that of the archive, then entry points.

        Second names of a file in the archive become hard links to the first that is kept and has the same content.
        """
        leaders: dict[tuple[str, str | None, str | None], File] = {}
        entries: dict[str, Entry] = {}
        for path in sorted(kept, key=lambda path: _position(linked, path)):
            entry = self._entry(linked, path)
            entries.pop(path.path, None)  # a script of the same name as an entry point
            if isinstance(entry, File) and path.path_type != ENTRY_POINT:
                member = linked.members[path.path].member
                leader = leaders.setdefault((member, path.prefix_placeholder, path.file_mode), entry)
                entries[path.path] = entry if leader is entry else Hardlink(path=entry.path, target=leader.path)
            else:
                entries[path.path] = entry
        return entries

    def _entry(self, linked: Linked, path: PathRecord) -> Entry:
        place = on_disk(self.root, path.path)
        name = f"{self.prefix}/{path.path}"
        try:
            status = place.lstat()
            if stat.S_ISLNK(status.st_mode):
                return self._symlink(linked, path, os.readlink(os.fsencode(place)), status)  # noqa: PTH115  # a Path would be normalised
        except OSError as error:
            raise _vanished(linked, path, error) from error
        if stat.S_ISDIR(status.st_mode):
            return Directory(path=name, mtime=self.mtime)
        if not stat.S_ISREG(status.st_mode):
            raise PackageError(f"`{linked.filename}` ships `{path.path}`, which is no regular file")
        if path.path_type == ENTRY_POINT:
            self._refuse_hosts(linked, path, place.read_bytes())
        return File(
            path=name,
            size=status.st_size,
            content=FileContent(place),
            mode=0o755 if status.st_mode & 0o111 else 0o644,
            mtime=self._time(path, status),
        )

    def _symlink(self, linked: Linked, path: PathRecord, target: bytes, status: os.stat_result) -> Symlink:
        self._refuse_hosts(linked, path, target)
        try:
            text = target.decode()
        except UnicodeDecodeError as error:
            raise PackageError(
                f"`{linked.filename}` ships the link `{path.path}`, whose target is not UTF-8"
            ) from error
        return Symlink(path=f"{self.prefix}/{path.path}", target=text, mtime=self._time(path, status))

    def _refuse_hosts(self, linked: Linked, path: PathRecord, text: bytes) -> None:
        for host in self.hosts:
            if os.fsencode(host) in text:
                raise PackageError(f"`{path.path}` of `{linked.filename}` would carry `{host}` of this machine")

    def _time(self, path: PathRecord, status: os.stat_result) -> int:
        seconds = status.st_mtime_ns // 1_000_000_000
        return self.mtime if _rewritten(path) else shipped_time(seconds, self.mtime, self.clamp)

    def _directories(self, paths: Iterable[str]) -> Iterator[Directory]:
        """Every directory from the prefix down that holds one of `paths`."""
        needed = {""}
        for path in paths:
            parent = path.rpartition("/")[0]
            while parent not in needed:
                needed.add(parent)
                parent = parent.rpartition("/")[0]
        for path in needed:
            yield Directory(path=f"{self.prefix}/{path}".rstrip("/"), mtime=self.mtime)

    def _activation(self, linked: Linked, kept: Sequence[PathRecord]) -> Activation:
        names = [entry.path for entry in kept]
        scripts = [name for name in names if _is_in(name, "etc/conda/activate.d") and name.endswith(".sh")]
        variables = [name for name in names if _is_in(name, "etc/conda/env_vars.d")]
        state = "conda-meta/state"
        return Activation(
            scripts=tuple(sorted(scripts)),
            variables=tuple((name, self._text(linked, name)) for name in sorted(variables)),
            state=self._text(linked, state) if state in names else None,
        )

    def _text(self, linked: Linked, name: str) -> str:
        try:
            return on_disk(self.root, name).read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise PackageError(f"`{name}` of `{linked.filename}` cannot be read: {error}") from error


def _position(linked: Linked, path: PathRecord) -> tuple[bool, int, str]:
    if path.path_type == ENTRY_POINT:
        return True, 0, path.path
    return False, linked.members[path.path].position, path.path


def shipped_time(seconds: int, constant: int, clamp: int | None) -> int:
    """The time of a file that comes unchanged from an archive where it has `seconds`."""
    if seconds >= _LATEST:
        return constant
    seconds = max(seconds, _EARLIEST)
    return seconds if clamp is None else min(seconds, clamp)


def is_dropped(path: str) -> bool:
    """What is never in an image: pixi's notes on the host, and the history, which is the environment's."""
    return path == "conda-meta/history" or path.startswith("conda-meta/pixi")


def _rewritten(path: PathRecord) -> bool:
    """Whether the file was written by rattler instead of coming from the archive as it is."""
    return path.prefix_placeholder is not None or path.path_type == ENTRY_POINT


def _is_in(path: str, directory: str) -> bool:
    return path.rpartition("/")[0] == directory


def _parts(entry: Entry) -> list[str]:
    return entry.path.split("/")


def _vanished(linked: Linked, path: PathRecord, error: OSError) -> PackageError:
    return PackageError(
        f"`{path.path}` of `{linked.filename}` is missing after linking: {error.strerror}",
        "another process may have changed the staging directory: build again",
    )
