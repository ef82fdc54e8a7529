"""The order of a layer: every question of names, parents and conflicts is settled here, so that the writer only writes.

Pure: entries in, entries out. The rules are those of image-spec `layer.md`, narrowed to what every engine unpacks
alike: no whiteouts, no duplicate paths, nothing below a symbolic link, hard links inside their own segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from layers.entry import Directory, Entry, File, Hardlink, Symlink
from layers.errors import EntriesError, EntryError, LayerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from layers.entry import Metadata

__all__ = ["Arrangement", "Segment", "arrange", "parents"]

_MAX_NAME = 255  # bytes of one component: NAME_MAX of every Linux file system
_MAX_PATH = 4095  # bytes of a path or link target: PATH_MAX without its NUL
_MAX_MODE = 0o7777
_MAX_ID = (1 << 32) - 2  # 2^32 - 1 means "leave unchanged" to chown(2)
_MAX_INT = (1 << 63) - 1  # off_t and time_t
# Engines apply capabilities alike; `docker export` drops `user.*`, and other namespaces are the host's business.
_XATTRS = frozenset({"security.capability"})
_WHITEOUT = ".wh."
_LONGEST_CHARACTER = 4  # bytes of UTF-8


class Segment(Struct, frozen=True):
    """The entries of one package, in writing order. Its bytes do not depend on the segments beside it.

    A sequence of entries is looked through before anything is written, and may hold directories anywhere. Any other
    iterable is a stream: it is taken once, while the layer is written, and each entry is checked when it comes; what
    must be known before, the directories, is in `directories`.
    """

    name: str
    entries: Iterable[Entry]
    directories: tuple[Directory, ...] = ()


class Arrangement:
    """Segments that a layer can hold, as far as that is known before streams are taken. Made by `arrange`."""

    def __init__(self, segments: Sequence[Segment], ledger: _Ledger) -> None:
        self._segments = segments
        self._ledger = ledger

    def entries(self) -> Iterator[Entry]:
        """All entries in writing order, once if a segment is a stream, of which EntryError may be raised midway."""
        yield from self._ledger.sorted_directories()
        for segment in self._segments:
            if isinstance(segment.entries, Sequence):
                yield from (entry for entry in segment.entries if not isinstance(entry, Directory))
            else:
                yield from self._ledger.admitted(segment)

    def metadata(self, path: str) -> Metadata | None:
        """That of the file at `path`, if `entries` has yielded it."""
        claim = self._ledger.claims.get(path)
        return claim and claim.metadata


def arrange(segments: Iterable[Segment]) -> Arrangement:
    """Check `segments` and put them into the one order that a layer can have, whatever order they come in.

    Directories of all segments come first, merged and by path component: an entry that several segments repeat is
    written once, one that they disagree about is an error. The other entries follow by segment name, in the order that
    the segment has. A hard link comes after the file that it names. A parent directory may be missing: the base or a
    lower layer has it.

    Raises EntryError for one offending path, EntriesError for several, LayerError for a segment without a usable name.
    """
    ordered = _by_name(segments)
    ledger = _Ledger()
    problems = [problem for segment in ordered for problem in ledger.claimed(segment)]
    problems += ledger.misplaced()
    if problems:
        problems.sort(key=lambda problem: (problem.path, problem.reason))
        raise problems[0] if len(problems) == 1 else EntriesError(problems)
    return Arrangement(ordered, ledger)


def parents(paths: Iterable[str]) -> list[str]:
    """Every proper parent directory of `paths`, once each, in writing order."""
    found: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return sorted(found, key=_components)


def _components(path: str) -> str:
    """The sort key that compares paths component by component: NUL, which no path has, is below every other byte.

    Code points sort as their UTF-8 bytes do.
    """
    return path.replace("/", "\0")


def _by_name(segments: Iterable[Segment]) -> list[Segment]:
    ordered = sorted(segments, key=lambda segment: segment.name)
    for segment, following in pairwise(ordered):
        if segment.name == following.name:
            raise LayerError(f"two segments are named `{segment.name}`")
    for segment in ordered:
        if not segment.name and not _only_directories(segment.entries):
            raise LayerError("a segment without a name may hold directories only")
    return ordered


def _only_directories(entries: Iterable[Entry]) -> bool:
    return isinstance(entries, Sequence) and all(isinstance(entry, Directory) for entry in entries)


class _Claim(NamedTuple):
    """Who has a path, and as what; equal ones are one object, because there is one for each path of a layer."""

    segment: str
    kind: str
    metadata: Metadata | None  # of a file


class _Ledger:
    """Every path of the layer so far."""

    def __init__(self) -> None:
        self.claims: dict[str, _Claim] = {}
        self._directories: dict[str, tuple[str, Directory]] = {}
        self._known: dict[_Claim, _Claim] = {}
        self._legal: set[str] = set()  # parents whose components have been looked at
        self._above: set[str] = {""}  # parents that are no file or link, and must not become one

    def sorted_directories(self) -> list[Directory]:
        """Every directory once, in writing order."""
        return [self._directories[path][1] for path in sorted(self._directories, key=_components)]

    def claimed(self, segment: Segment) -> Iterator[EntryError]:
        """Enter what is known of `segment`; yields what is wrong with it, parents apart."""
        own: set[str] = set()
        known = segment.entries if isinstance(segment.entries, Sequence) else ()
        for entry in (*segment.directories, *known):
            if reason := self._illegal(entry):
                yield EntryError(entry.path, reason)
            elif isinstance(entry, Directory):
                if problem := self._claim_directory(segment.name, entry, own):
                    yield problem
            elif problem := self._claim(segment.name, entry):
                yield problem

    def misplaced(self) -> Iterator[EntryError]:
        """Paths whose parent is, in this very layer, no directory: engines follow, refuse or drop them differently."""
        for path in (*self.claims, *self._directories):
            if problem := self._under(path):
                yield problem

    def admitted(self, segment: Segment) -> Iterator[Entry]:
        """The entries of a stream, each entered and found good before it is passed on."""
        for entry in segment.entries:
            if isinstance(entry, Directory):
                raise EntryError(entry.path, f"is a directory in the stream of segment `{segment.name}`")
            if reason := self._illegal(entry):
                raise EntryError(entry.path, reason)
            if problem := self._claim(segment.name, entry) or self._under(entry.path):
                raise problem
            if entry.path in self._above:
                raise EntryError(entry.path, f"is a {_KINDS[type(entry)]}, but other paths lie under it")
            yield entry

    def _claim(self, segment: str, entry: File | Symlink | Hardlink) -> EntryError | None:
        path, kind = entry.path, _KINDS[type(entry)]
        held = self.claims.get(path)
        if held is not None:
            return _taken_twice(path, held.segment, held.kind, segment, kind)
        if path in self._directories:
            return _taken_twice(path, self._directories[path][0], "directory", segment, kind)
        claim = _Claim(segment, kind, entry.metadata if isinstance(entry, File) else None)
        reason = self._unlinkable(segment, entry) if isinstance(entry, Hardlink) else None
        self.claims[path] = self._known.setdefault(claim, claim)
        return EntryError(path, reason) if reason else None

    def _claim_directory(self, segment: str, entry: Directory, own: set[str]) -> EntryError | None:
        """Several segments may give a directory, if they give the same; `own` are those of this segment so far."""
        path = entry.path
        held = self.claims.get(path)
        if held is not None:
            return _taken_twice(path, held.segment, held.kind, segment, "directory")
        owner, other = self._directories.setdefault(path, (segment, entry))
        if path in own:
            return _taken_twice(path, segment, "directory", segment, "directory")
        own.add(path)
        if other == entry:
            return None
        differing = [name for name in entry.__struct_fields__ if getattr(other, name) != getattr(entry, name)]
        sides = [", ".join(f"{key} {_shown(key, getattr(one, key))}" for key in differing) for one in (other, entry)]
        return EntryError(path, f"is a directory with {sides[0]} in segment `{owner}`, {sides[1]} in `{segment}`")

    def _unlinkable(self, segment: str, entry: Hardlink) -> str | None:
        held = self.claims.get(entry.target)
        if held is not None and held.segment == segment:
            kind = held.kind
        elif entry.target in self._directories:
            kind = "directory"
        else:
            return f"is a hard link to `{entry.target}`, which does not come before it in segment `{segment}`"
        return None if kind == "file" else f"is a hard link to `{entry.target}`, which is a {kind}"

    def _under(self, path: str) -> EntryError | None:
        parent = path.rpartition("/")[0]
        passed = []
        while parent not in self._above:
            held = self.claims.get(parent)
            if held is not None:
                return EntryError(path, f"lies under `{parent}`, which is a {held.kind}")
            passed.append(parent)
            parent = parent.rpartition("/")[0]
        self._above.update(passed)
        return None

    def _illegal(self, entry: Entry) -> str | None:
        """What is wrong with `entry` by itself."""
        path = entry.path
        parent, _, name = path.rpartition("/")
        if not (
            parent in self._legal
            and (parent or name == path)  # not `/name`
            and name.isascii()
            and 0 < len(name) <= _MAX_NAME
            and len(path) <= _MAX_PATH // _LONGEST_CHARACTER
            and name[0] != "."
            and "\0" not in name
        ):
            if reason := _illegal_path(path):
                return reason
            self._legal.add(parent)
        return _illegal_metadata(entry)


def _taken_twice(path: str, owner: str, held: str, segment: str, kind: str) -> EntryError:
    if owner == segment:
        return EntryError(path, f"is there twice in segment `{segment}`")
    return EntryError(path, f"is a {held} in segment `{owner}` and a {kind} in segment `{segment}`")


_KINDS: dict[type[Entry], str] = {
    Directory: "directory",
    File: "file",
    Symlink: "symbolic link",
    Hardlink: "hard link",
}


def _shown(what: str, value: int) -> str:
    return f"{value:04o}" if what == "mode" else str(value)


def _illegal_path(path: str) -> str | None:
    if reason := _illegal_text(path):
        return reason
    if path.startswith("/"):
        return "is absolute"
    if path.endswith("/"):
        return "ends in a slash"
    for component in path.split("/"):
        if component in {"", ".", ".."}:
            return f"has a component `{component}`" if component else "has an empty component"
        if component.startswith(_WHITEOUT):
            return f"is a whiteout: names that begin with `{_WHITEOUT}` delete files of lower layers"
        if len(component) > _MAX_NAME // 4 and len(component.encode()) > _MAX_NAME:
            return f"has a component of more than {_MAX_NAME} bytes"
    return None


def _illegal_text(text: str) -> str | None:
    """What is wrong with a path or a link target as a string of bytes."""
    if not text:
        return "is empty"
    if "\0" in text:
        return "contains a NUL"
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return f"is longer than {_MAX_PATH} bytes" if len(encoded) > _MAX_PATH else None


def _illegal_metadata(entry: Entry) -> str | None:
    if type(entry) is File and type(entry.mtime) is type(entry.mode) is type(entry.size) is int:
        usual = not (entry.uid or entry.gid or entry.xattrs)
        if usual and 0 <= entry.mode <= _MAX_MODE and 0 <= entry.mtime <= _MAX_INT and 0 <= entry.size <= _MAX_INT:
            return None  # nearly all entries, told at once
    if isinstance(entry, Hardlink):
        return None  # the target is looked up, so what is wrong with it is known by then
    reason = (
        _illegal_number("uid", entry.uid, _MAX_ID)
        or _illegal_number("gid", entry.gid, _MAX_ID)
        or _illegal_number("mtime", entry.mtime, _MAX_INT)
    )
    if isinstance(entry, Symlink):
        target = _illegal_text(entry.target)
        return reason or (target and f"is a symbolic link whose target {target}")
    reason = reason or _illegal_number("mode", entry.mode, _MAX_MODE)
    if isinstance(entry, File):
        reason = reason or _illegal_number("size", entry.size, _MAX_INT) or _illegal_xattrs(entry.xattrs)
    return reason


def _illegal_number(what: str, value: object, largest: int) -> str | None:
    if type(value) is not int:  # no bool, no float: a fraction of a second has no place in a header
        return f"has {what} {value!r}, which is no integer"
    if not 0 <= value <= largest:
        return f"has {what} {_shown(what, value)}, which is not between 0 and {_shown(what, largest)}"
    return None


def _illegal_xattrs(xattrs: tuple[tuple[str, bytes], ...]) -> str | None:
    names = [name for name, _ in xattrs]
    if len(set(names)) < len(names):
        return "has an extended attribute twice"
    for name in names:
        if name not in _XATTRS:
            return f"has an extended attribute `{name}`: only `security.capability` survives in images"
    return None
