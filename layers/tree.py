"""The order of a layer: every question of names, parents and conflicts is settled here, so that the writer only writes.

Pure: entries in, entries out. The rules are those of image-spec `layer.md`, narrowed to what every engine unpacks
alike: no whiteouts, no duplicate paths, nothing below a symbolic link, hard links inside their own segment.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from layers.entry import Directory, Entry, File, Hardlink, Symlink
from layers.errors import EntriesError, EntryError, LayerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Arrangement", "Segment", "arrange", "parents"]

_MAX_NAME = 255  # bytes of one component: NAME_MAX of every Linux file system
_MAX_PATH = 4095  # bytes of a path or link target: PATH_MAX without its NUL
_MAX_MODE = 0o7777
_MAX_ID = (1 << 32) - 2  # 2^32 - 1 means "leave unchanged" to chown(2)
_MAX_INT = (1 << 63) - 1  # off_t and time_t
# Engines apply capabilities alike; `docker export` drops `user.*`, and other namespaces are the host's business.
_XATTRS = frozenset({"security.capability"})
_WHITEOUT = ".wh."


@dataclass(frozen=True, slots=True)
class Segment:
    """The entries of one package, in any order. Its bytes do not depend on the segments beside it."""

    name: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """What `arrange` made: segments in writing order, each with its entries in writing order.

    The first segment holds the directories of all and has no name; it is absent when there are none.
    """

    segments: tuple[Segment, ...]

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def entries(self) -> Iterator[Entry]:
        """All entries in writing order."""
        for segment in self.segments:
            yield from segment.entries


def arrange(segments: Iterable[Segment]) -> Arrangement:
    """Check `segments` and put them into the one order that a layer can have, whatever order they come in.

    Directories of all segments come first, merged: an entry that several segments repeat is written once, one that
    they disagree about is an error. The other entries follow by segment name, then by path component. Of a group of
    hard links, the first in that order carries the file, the others point to it. A parent directory may be missing:
    the base or a lower layer has it.

    Raises EntryError for one offending path, EntriesError for several, LayerError for a segment without a usable name.
    """
    ordered = _by_name(segments)
    problems: list[EntryError] = []
    owners = _claim(ordered, problems)
    problems += _misplaced(owners)
    arranged = [_arranged(segment, problems) for segment in ordered]
    if problems:
        problems.sort(key=lambda problem: (problem.path, problem.reason))
        raise problems[0] if len(problems) == 1 else EntriesError(problems)
    directories = [entry for _, entry in owners.values() if isinstance(entry, Directory)]
    first = Segment("", tuple(sorted(directories, key=_place)))
    return Arrangement(tuple(segment for segment in (first, *arranged) if segment.entries))


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


def _place(entry: Entry) -> str:
    return _components(entry.path)


def _by_name(segments: Iterable[Segment]) -> list[Segment]:
    ordered = sorted(segments, key=lambda segment: segment.name)
    for segment, following in pairwise(ordered):
        if segment.name == following.name:
            raise LayerError(f"two segments are named `{segment.name}`")
    for segment in ordered:
        if not segment.name and any(not isinstance(entry, Directory) for entry in segment.entries):
            raise LayerError("a segment without a name may hold directories only")
    return ordered


def _claim(segments: Iterable[Segment], problems: list[EntryError]) -> dict[str, tuple[str, Entry]]:
    """Who provides each path: (segment name, entry); entries that are no good by themselves stay out."""
    owners: dict[str, tuple[str, Entry]] = {}
    for segment in segments:
        for entry in segment.entries:
            if reason := _illegal(entry):
                problems.append(EntryError(entry.path, reason))
                continue
            if entry.path in owners:
                problems += _conflict(owners[entry.path], (segment.name, entry))
            else:
                owners[entry.path] = (segment.name, entry)
    return owners


def _conflict(first: tuple[str, Entry], second: tuple[str, Entry]) -> list[EntryError]:
    """Two entries for one path: fine only if two segments give the same directory."""
    (owner, held), (name, entry) = first, second
    if owner == name:
        return [EntryError(entry.path, f"is there twice in segment `{name}`")]
    if not (isinstance(held, Directory) and isinstance(entry, Directory)):
        kinds = f"a {_kind(held)} in segment `{owner}` and a {_kind(entry)} in segment `{name}`"
        return [EntryError(entry.path, f"is {kinds}")]
    if held == entry:
        return []
    differing = [field.name for field in fields(held) if getattr(held, field.name) != getattr(entry, field.name)]
    sides = [
        ", ".join(f"{key} {_shown(key, getattr(directory, key))}" for key in differing) for directory in (held, entry)
    ]
    return [EntryError(entry.path, f"is a directory with {sides[0]} in segment `{owner}`, {sides[1]} in `{name}`")]


def _kind(entry: Entry) -> str:
    match entry:
        case Directory():
            return "directory"
        case File():
            return "file"
        case Symlink():
            return "symbolic link"
        case Hardlink():
            return "hard link"


def _shown(what: str, value: int) -> str:
    return f"{value:04o}" if what == "mode" else str(value)


def _misplaced(owners: dict[str, tuple[str, Entry]]) -> list[EntryError]:
    """Paths whose parent is, in this very layer, no directory: engines follow, refuse or drop them differently."""
    problems = []
    sound: set[str] = {""}
    for path in owners:
        parent = path.rpartition("/")[0]
        passed = []
        while parent not in sound:
            owner = owners.get(parent)
            if owner is not None and not isinstance(owner[1], Directory):
                problems.append(EntryError(path, f"lies under `{parent}`, which is a {_kind(owner[1])}"))
                break
            passed.append(parent)
            parent = parent.rpartition("/")[0]
        else:
            sound.update(passed)
    return problems


def _arranged(segment: Segment, problems: list[EntryError]) -> Segment:
    """The segment without its directories, in order, with the first of each group of hard links as the file."""
    entries: list[Entry] = [entry for entry in segment.entries if not isinstance(entry, Directory)]
    if any(isinstance(entry, Hardlink) for entry in entries):
        entries = _linked(segment, entries, problems)
    return Segment(segment.name, tuple(sorted(entries, key=_place)))


def _linked(segment: Segment, entries: list[Entry], problems: list[EntryError]) -> list[Entry]:
    known = {entry.path: entry for entry in segment.entries}
    groups: dict[str, list[str]] = {}
    for entry in entries:
        if isinstance(entry, Hardlink):
            target = known.get(entry.target)
            if isinstance(target, File):
                groups.setdefault(entry.target, []).append(entry.path)
            else:
                problems.append(EntryError(entry.path, _unlinkable(entry.target, target, segment.name)))
    linked = {name for path, paths in groups.items() for name in (path, *paths)}
    result = [entry for entry in entries if entry.path not in linked]
    for path, paths in groups.items():
        leader, *others = sorted([path, *paths], key=_components)
        file = known[path]
        assert isinstance(file, File)
        result.append(replace(file, path=leader))
        result += [Hardlink(path=other, target=leader) for other in others]
    return result


def _unlinkable(path: str, target: Entry | None, segment: str) -> str:
    if target is None:
        return f"is a hard link to `{path}`, which segment `{segment}` does not hold"
    return f"is a hard link to `{path}`, which is a {_kind(target)}"


def _illegal(entry: Entry) -> str | None:
    """Why `entry` can be in no layer at all, or None."""
    return _illegal_path(entry.path) or _illegal_metadata(entry)


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
