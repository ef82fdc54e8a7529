"""A package's archive -> entries at the prefix, without extracting anything.

The entries are those that `install` reads back from rattler's own installation, in the same order and byte for byte:
placeholders replaced (`prefix.py`), noarch Python files in site-packages, entry points (`scripts.py`), metadata as
`layout.py` has it, the `conda-meta` record last. What rattler would do to an archive that contradicts itself is not
imitated but refused (`members.py`).
"""

from __future__ import annotations

import hashlib
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec import Struct

from layers.entry import Bytes, Directory, File, Hardlink, Symlink
from layers.tree import Segment
from ociforge.conda.archive import ArchiveFile
from ociforge.conda.info import Python
from ociforge.conda.layout import ENTRY_POINT, is_dropped, shipped_time
from ociforge.conda.members import Members
from ociforge.conda.meta import PathRecord, record_entry, record_name
from ociforge.conda.prefix import PrefixError, Replacement, binary, text
from ociforge.conda.scripts import entry_point_script
from ociforge.conda.spool import HELD, Passing, hold, new_spool, read_back
from ociforge.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from layers.entry import Content, Entry
    from ociforge.conda.fetch import Archive
    from ociforge.conda.info import PackageInfo, PathInfo
    from ociforge.conda.tar import Member

__all__ = ["link"]

_SMALL = 1 << 20  # 1 MiB: contents up to this are held in memory


def link(
    archive: Archive,
    info: PackageInfo,
    *,
    prefix: str,
    python: str | None,
    lost: frozenset[str],
    mtime: int,
    clamp: int | None = None,
    scratch: Path,
) -> Segment:
    """The segment of `archive`, whose `info` was read before, in the environment `prefix` (an absolute path).

    Its entries are a stream: the archive, which must stay, is read while the layer is written. `python` is what
    `Installation.python` is; `lost` are paths below the prefix whose place other packages take; `mtime` and `clamp` are
    those of `install`. `scratch` is a directory for temporary files, of which there is one at a time, and only for
    files from 8 MiB up whose placeholder is in text.

    Raises PackageError at once for a noarch Python package without `python`, later for an archive that is damaged,
    that contradicts `info`, or whose binaries have no room for the prefix.
    """
    interpreter = Python.parse(python) if python is not None and info.noarch == "python" else None
    meta = f"conda-meta/{record_name(archive.record)}"
    plan = _Plan(
        archive=archive,
        meta=meta,
        excluded=frozenset((*lost, meta, *filter(is_dropped, (place for place, _ in info.places(interpreter))))),
        info=info,
        prefix=prefix,
        python=interpreter,
        mtime=mtime,
        clamp=clamp,
        scratch=scratch,
    )
    return Segment(archive.record.name.normalized, plan, plan.directories())


class _Plan(Struct, frozen=True, kw_only=True):
    """What there is to know before the archive is read. Each iteration reads it anew.

    `meta` is where the package's record goes, below the prefix; `excluded` are places where nothing of its files goes.
    """

    archive: Archive
    meta: str
    info: PackageInfo
    prefix: str
    python: Python | None
    excluded: frozenset[str]
    mtime: int
    clamp: int | None
    scratch: Path

    def __iter__(self) -> Iterator[Entry]:
        try:
            yield from _Run(self).entries()
        except OSError as error:
            raise PackageError(
                f"cannot write temporary files for `{self.info.filename}` into `{self.scratch}`: {error.strerror}",
                "free some space",
            ) from error

    def image_path(self, place: str) -> str:
        """The path in the image of a `place` below the prefix."""
        return f"{self.prefix.strip('/')}/{place}"

    def directories(self) -> tuple[Directory, ...]:
        """Every directory from the prefix down that the package needs."""
        needed = {""}
        for place in chain((self.meta,), (place for place, _ in self.info.places(self.python))):
            if place in self.excluded and place != self.meta:
                continue
            parent = place.rpartition("/")[0]
            while parent not in needed:
                needed.add(parent)
                parent = parent.rpartition("/")[0]
        ordered = sorted(needed, key=lambda path: path.split("/"))
        return tuple(Directory(path=self.image_path(path).rstrip("/"), mtime=self.mtime) for path in ordered)


class _Source(Protocol):
    """A file of the archive, to be read once."""

    @property
    def size(self) -> int: ...
    def read(self) -> bytes: ...
    def chunks(self) -> Iterator[bytes]: ...


class _Found(NamedTuple):
    """What was found out about a path while its file passed: for the record."""

    kind: str
    sha256: str
    size: int


class _Run:
    """One pass over the archive."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._file = ArchiveFile(path=plan.archive.path, filename=plan.info.filename)
        self._listed = Members(plan.info)
        self._scripts = {entry_point.path: entry_point for entry_point in plan.info.entry_points}
        self._leaders: dict[tuple[str, str | None, str | None], PathInfo] = {}
        self._found: dict[str, _Found] = {}
        self._passing: Passing | None = None
        self._again: Iterator[Member] = iter(())

    def entries(self) -> Iterator[Entry]:
        """The entries in writing order, directories apart."""
        yield from self._members(self._file.payload())
        if not self._listed.complete:
            yield from self._members(self._file.rest())
        self._listed.check_complete()
        scripts = [(place, self._script(place)) for place in sorted(self._scripts)]
        for place, data in scripts:
            if place not in self._plan.excluded:
                yield self._entry(place, Bytes(data), len(data), 0o755, self._plan.mtime)
        records = [*map(self._record, self._plan.info.paths), *(_script_record(*script) for script in scripts)]
        record, meta = self._plan.archive.record, self._plan.image_path(self._plan.meta)
        yield record_entry(record, records, path=meta, mtime=self._plan.mtime)

    def _members(self, members: Iterable[Member]) -> Iterator[Entry]:
        for member in members:
            path = self._listed.listed(member)
            entry = None if path is None else self._linked(path, member)
            if entry is not None:
                yield entry
            if self._passing is not None:  # what nobody has read is still wanted for the record
                self._passing.drain()
                self._passing = None

    def _linked(self, path: PathInfo, member: Member) -> Entry | None:
        if member.kind == "file":
            return self._regular(path, member)
        first = self._listed.first.get(path.path, path.path)
        target = self._listed.softlinks.get(first)
        return self._hardlink(path, first) if target is None else self._softlink(path, target, member.mtime)

    def _softlink(self, path: PathInfo, target: str, mtime: int) -> Entry | None:
        data = target.encode()
        self._found[path.path] = _Found("softlink", hashlib.sha256(data).hexdigest(), len(data))
        if not self._is_kept(path):
            return None
        return Symlink(path=self._plan.image_path(self._place(path)), target=target, mtime=self._time(path, mtime))

    def _regular(self, path: PathInfo, member: Member) -> Entry | None:
        """A file with content of its own."""
        kept = self._is_kept(path)
        if not kept and not _is_measured(path):
            return None
        content, size = self._content(path, member)
        if not kept:
            return None
        mode = 0o755 if member.mode & 0o111 else 0o644
        return self._entry(self._place(path), content, size, mode, self._time(path, member.mtime))

    def _hardlink(self, path: PathInfo, first: str) -> Entry | None:
        """A second name, or a file, where none that is kept has the content that this one has in the prefix."""
        leader = self._leader(path, first)
        if leader is None:
            if self._is_kept(path):
                self._leaders[_content_key(first, path)] = path
            return self._regular(path, self._reread(first))
        if leader.path in self._found:
            self._found[path.path] = self._found[leader.path]
        elif _is_measured(path):
            self._content(path, self._reread(first))
        if not self._is_kept(path):
            return None
        target = self._plan.image_path(self._place(leader))
        return Hardlink(path=self._plan.image_path(self._place(path)), target=target)

    def _leader(self, path: PathInfo, first: str) -> PathInfo | None:
        """The path whose file in the prefix is that of `path`, if there is one yet."""
        own = self._listed.paths.get(first)
        if own is not None and self._is_kept(own) and _content_key(first, own) == _content_key(first, path):
            return own
        return self._leaders.get(_content_key(first, path))

    def _reread(self, name: str) -> Member:
        """The member `name` once more, from the archive's beginning: its content is wanted a second time."""
        self._again = chain(self._file.payload(), self._file.rest())
        return next(member for member in self._again if member.name == name)

    def _content(self, path: PathInfo, source: _Source) -> tuple[Content, int]:
        """The content that `path` has in the prefix, and its size."""
        if not path.placeholder:
            if source.size <= _SMALL:
                return self._whole(path, source.read())
            return self._passed(path, source.chunks(), source.size)
        replacement = Replacement(path.placeholder, self._plan.prefix)
        if path.file_mode == "text":
            return self._text(path, source, replacement)
        pieces = self._translated(path, binary(source.chunks(), replacement, partial(hold, scratch=self._plan.scratch)))
        if source.size <= _SMALL:
            return self._whole(path, b"".join(pieces))
        return self._passed(path, pieces, source.size)

    def _text(self, path: PathInfo, source: _Source, replacement: Replacement) -> tuple[Content, int]:
        if source.size <= HELD:
            return self._whole(path, b"".join(text(source.read(), replacement)))
        spool = new_spool(self._plan.scratch)
        with hold(source.chunks(), self._plan.scratch) as data:
            for piece in text(data, replacement):
                spool.write(piece)
        return self._passed(path, read_back(spool), spool.tell())

    def _whole(self, path: PathInfo, data: bytes) -> tuple[Content, int]:
        if _is_measured(path):
            self._found[path.path] = _Found("hardlink", hashlib.sha256(data).hexdigest(), len(data))
        return Bytes(data), len(data)

    def _passed(self, path: PathInfo, pieces: Iterator[bytes], size: int) -> tuple[Content, int]:
        if not _is_measured(path):
            return Passing(pieces, None), size

        def measured(sha256: str) -> None:
            self._found[path.path] = _Found("hardlink", sha256, size)

        self._passing = Passing(pieces, measured)
        if not self._is_kept(path):
            self._passing.drain()
        return self._passing, size

    def _translated(self, path: PathInfo, pieces: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from pieces
        except PrefixError as error:
            raise PackageError(
                f"installing into `{self._plan.prefix}`: failed to link {self._plan.info.filename}: failed to link"
                f" '{path.path}': unexpected io operation while replacing placeholders: {error}",
                "choose a shorter prefix: binaries have no room for this one",
            ) from error

    def _place(self, path: PathInfo) -> str:
        return path.path if self._plan.python is None else self._plan.python.place(path.path)

    def _is_kept(self, path: PathInfo) -> bool:
        place = self._place(path)
        return place not in self._plan.excluded and place not in self._scripts

    def _entry(self, place: str, content: Content, size: int, mode: int, mtime: int) -> File:
        return File(path=self._plan.image_path(place), size=size, content=content, mode=mode, mtime=mtime)

    def _time(self, path: PathInfo, mtime: int) -> int:
        if path.placeholder is not None:
            return self._plan.mtime
        return shipped_time(mtime, self._plan.mtime, self._plan.clamp)

    def _script(self, place: str) -> bytes:
        assert self._plan.python is not None  # there are entry points in noarch Python packages only
        return entry_point_script(self._scripts[place], self._plan.prefix, self._plan.python)

    def _record(self, path: PathInfo) -> PathRecord:
        found = self._found.get(path.path)
        sha256 = path.sha256 and path.sha256.lower()
        patched = path.placeholder is not None
        size = path.size if found is None or (path.size is not None and not patched) else found.size
        return PathRecord(
            path=self._place(path),
            path_type=path.kind or (found.kind if found is not None else "hardlink"),
            no_link=path.no_link,
            sha256=sha256,
            sha256_in_prefix=found.sha256 if found is not None and found.sha256 != sha256 else None,
            size_in_bytes=size,
            file_mode=path.file_mode,
            prefix_placeholder=path.placeholder,
        )


def _script_record(place: str, data: bytes) -> PathRecord:
    sha256 = hashlib.sha256(data).hexdigest()
    return PathRecord(path=place, path_type=ENTRY_POINT, sha256=sha256, size_in_bytes=len(data))


def _is_measured(path: PathInfo) -> bool:
    """Whether the record tells more of the file than the package does."""
    return path.placeholder is not None or path.sha256 is None or path.size is None


def _content_key(member: str, path: PathInfo) -> tuple[str, str | None, str | None]:
    """What the content in the prefix depends on."""
    return member, path.placeholder, path.file_mode
