"""A walk through the workspace: what of it becomes entries.

Nothing but the workspace itself decides: no ignore file above it or in a home directory, no `.git/info/exclude`, so
that every clone gives the same layer. As in git, directories without files are left out.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from layers.entry import Directory, Entry, File, FileContent, Symlink
from layers.tree import parents
from ociforge.app.ignore import Patterns
from ociforge.app.selection import Selection
from ociforge.app.suspicion import Suspicion, suspicion
from ociforge.errors import AppError
from ociforge.events import Warned, ignore

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from ociforge.events import Notify

__all__ = ["collect"]

# What makes a workspace, not the application. Never taken.
_NEVER = frozenset({".git", ".hg", ".pixi", ".svn"})

# What the host's tools leave behind, ours too (an output whose writer was killed). Taken only if `include` names it.
_CACHE_NAMES = """
    .ociforge-????????????????
    .DS_Store __pycache__/ .hypothesis/ .ipynb_checkpoints/ .mypy_cache/ .nox/ .pytest_cache/ .ruff_cache/ .tox/ .venv/
"""
_CACHES = Patterns(_CACHE_NAMES.split())

# Taken only if `include` names the very path; reported when left out.
_LEFT_OUT: dict[Suspicion, str] = {
    "secret": "left out as secrets",
    "image": "left out as images, such as earlier builds wrote",
}

_IGNORE_FILES = (".ociforgeignore", ".gitignore")  # the first that has a word decides
_WHITEOUT = ".wh."
_SHOWN = 10  # paths in one warning
_HINT = "leave out what is not needed with `.ociforgeignore`, or list what is in `files`"
_HINT_UNMATCHED = "check the pattern: it starts at the workspace's root, and `**/x` matches at any depth"
_HINT_LEFT_OUT = "name the very path of what is needed, without wildcards"
_KINDS = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


def collect(
    root: Path,
    *,
    workdir: str,
    mtime: int,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    leave_out: Collection[Path] = (),
    notify: Notify = ignore,
) -> tuple[Entry, ...]:
    """The files of the workspace at `root` as entries below `workdir` (not itself), in path order.

    Without `include`, all of it but what `.gitignore` and `.ociforgeignore` say in git's syntax (the latter decides
    where it has a word, so it can re-include with `!`), what version control, pixi and the host's tools keep there, and
    what looks like a secret or an image. `include` names instead, relative to `root` and with git's wildcards, what to
    take, which is nothing when it is empty: for the paths that a pattern itself matches, ignore files do not count;
    below a directory they do, unless the directory is ignored as a whole. Secrets and images must be named one by one,
    without wildcards. `exclude` has git's syntax and the last word. `leave_out` are paths on this machine that are
    never taken: outputs and the store.

    Symbolic links are kept as they are. Modes are 0755 for what anybody may execute and 0644 else, owners 0:0, times
    `mtime`. Left out secrets and images, and links out of the workspace, are reported as warnings.

    Raises AppError that names every path that cannot be taken: sockets, pipes, devices, unreadable files, names that
    are not UTF-8 or that engines give a meaning, and patterns that match nothing.
    """
    selection = Selection.parse(include, exclude)
    walk = _Walk(root, selection, frozenset(_below(root, leave_out)))
    walk.run()
    findings = [*((problem, _HINT) for problem in walk.problems), *walk.unmatched()]
    if findings:
        hints = dict.fromkeys(hint for _, hint in findings)
        raise AppError.collect([message for message, _ in findings], "; ".join(hints))
    for warning in walk.warnings():
        notify(warning)
    prefix = f"{workdir.strip('/')}/".removeprefix("/")
    return tuple(_entries(walk, prefix, mtime))


class _Found(Struct, frozen=True):
    """A file or link to take; `path` is relative to the workspace. `target` belongs to links."""

    path: str
    source: Path
    size: int
    executable: bool
    target: str | None


class _Place(Struct, frozen=True):
    """A directory on the walk, and what its parents and the settings mean for what is in it."""

    path: str = ""
    by: frozenset[int] = frozenset()  # the `include` patterns that took it
    taken: bool = False
    ignored: bool = False  # by an ignore file: only what is named below is taken
    forced: bool = False  # named although ignored: ignore files do not count below
    suspicion: Suspicion | None = None  # what is below must be named itself
    rules: tuple[tuple[tuple[str, Patterns], ...], ...] = ((), ())  # for each of _IGNORE_FILES, the deepest last

    def is_ignored(self, path: str, *, is_directory: bool) -> bool:
        """What the ignore files say of a path in this directory."""
        for stack in self.rules:
            for directory, patterns in reversed(stack):
                decision = patterns.decide(path.removeprefix(f"{directory}/"), is_directory=is_directory)
                if decision is not None:
                    return decision
        return False


class _Walk:
    """A walk through the workspace: collects what is taken, what cannot be, and what the user should know."""

    def __init__(self, root: Path, selection: Selection, left_out: frozenset[str]) -> None:
        self._root = root
        self._selection = selection
        self._left_out = left_out
        self._hits: set[int] = set()  # `include` patterns that something was taken by
        self._seen: set[int] = set()  # those that matched anything
        self._todo = [_Place(taken=selection.takes_all, by=selection.whole)]
        self.found: list[_Found] = []
        self.empty: list[str] = []  # directories without anything that were named
        self.problems: list[str] = []
        self._suspects: dict[Suspicion, list[str]] = {kind: [] for kind in _LEFT_OUT}

    def run(self) -> None:
        while self._todo:
            self._enter(self._todo.pop())

    def unmatched(self) -> Iterator[tuple[str, str]]:
        """A finding and a hint for each `include` pattern that nothing was taken by."""
        for index, pattern in enumerate(self._selection.include):
            if index in self._seen - self._hits:
                why = "all that it matches is ignored, or looks like a secret or an image"
                yield f"`files`: `{pattern}`: {why}", _HINT_LEFT_OUT
            elif index not in self._hits:
                yield f"`files`: `{pattern}`: nothing in the workspace matches it", _HINT_UNMATCHED

    def warnings(self) -> Iterator[Warned]:
        for kind, paths in self._suspects.items():
            if paths:
                yield Warned(
                    f"{_LEFT_OUT[kind]}: {_listed(paths)}", "what the image needs of them can be named in `files`"
                )
        if links := [found.path for found in self.found if found.target is not None and _leaves(found)]:
            yield Warned(
                f"symbolic links that lead out of the workspace: {_listed(links)}", "they mean a path in the image"
            )
        names = sorted(found.path for found in self.found)
        folded = Counter(name.casefold() for name in names)
        if clashes := [name for name in names if folded[name.casefold()] > 1]:
            yield Warned(f"names that differ in case only: {_listed(clashes)}")

    def _enter(self, place: _Place) -> None:
        try:
            with os.scandir(self._bytes(place.path)) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self._refuse(place.path or str(self._root), f"the directory cannot be read: {error.strerror}")
            return
        if not children and self._selection.names(place.path):
            self.empty.append(place.path)
            self._hits |= place.by
        if not place.forced:
            place = replace(place, rules=self._rules(place, children))
        for child in children:
            name = child.name.decode("utf-8", "surrogateescape")
            path = f"{place.path}/{name}" if place.path else name
            if name not in _NEVER and path not in self._left_out:
                self._visit(place, path, child)

    def _bytes(self, path: str) -> bytes:
        """A path of the workspace as the system has it: names are UTF-8 in images, whatever the locale says."""
        return os.path.join(os.fsencode(self._root), path.encode("utf-8", "surrogateescape"))  # noqa: PTH118  # bytes

    def _rules(self, place: _Place, children: list[os.DirEntry[bytes]]) -> tuple[tuple[tuple[str, Patterns], ...], ...]:
        """The ignore files that count in `place`, its own included."""
        own = {child.name: child for child in children if child.is_file(follow_symlinks=False)}
        rules = list(place.rules)
        for index, name in enumerate(_IGNORE_FILES):
            if name.encode() in own:
                try:
                    data = _source(own[name.encode()]).read_bytes()
                except OSError as error:
                    self._refuse(f"{place.path}/{name}".removeprefix("/"), f"it cannot be read: {error.strerror}")
                else:
                    rules[index] = (*rules[index], (place.path, Patterns.parse(data)))
        return tuple(rules)

    def _visit(self, place: _Place, path: str, child: os.DirEntry[bytes]) -> None:
        is_directory = child.is_dir(follow_symlinks=False)
        if self._selection.excluded.decide(path, is_directory=is_directory):
            return
        named = self._selection.named(path, is_directory=is_directory)
        self._seen |= named
        inner = self._inner(place, path, child, named)
        if inner is None:
            return
        if is_directory:
            self._todo.append(inner)
        else:
            self._hits |= inner.by
            self._take(path, child)

    def _inner(self, place: _Place, path: str, child: os.DirEntry[bytes], named: frozenset[int]) -> _Place | None:
        """What applies to `path` and below it; None when it is left out."""
        is_directory = child.is_dir(follow_symlinks=False)
        literal = self._selection.names(path)
        ignored = place.ignored or (not place.forced and place.is_ignored(path, is_directory=is_directory))
        wanted = place.taken or bool(named)
        dropped = (ignored and not named) or (not literal and bool(_CACHES.decide(path, is_directory=is_directory)))
        # What is not taken is entered all the same for what is named below it.
        entered = is_directory and (self._selection.names_below(path) if wanted else self._selection.may_hold(path))
        if not entered and (dropped or not wanted):
            return None
        looks = None if literal else place.suspicion or suspicion(path, child)
        inner = replace(place, path=path, ignored=ignored, suspicion=looks)
        if wanted and not dropped:
            if looks is None:
                return replace(inner, taken=True, by=place.by | named, ignored=False, forced=place.forced or ignored)
            self._suspects[looks].append(path)
        return replace(inner, taken=False, by=frozenset()) if entered else None

    def _take(self, path: str, child: os.DirEntry[bytes]) -> None:
        try:
            path.encode()
            if f"/{_WHITEOUT}" in f"/{path}":
                self._refuse(path, f"engines take names with `{_WHITEOUT}` for deletions")
                return
            self._found(path, child, child.stat(follow_symlinks=False))
        except UnicodeError:
            self._refuse(path, "the name, or the target of the link, is not UTF-8")
        except OSError as error:
            self._refuse(path, f"it cannot be read: {error.strerror}")

    def _found(self, path: str, child: os.DirEntry[bytes], status: os.stat_result) -> None:
        source = _source(child)
        kind = stat.S_IFMT(status.st_mode)
        if kind in _KINDS:
            self._refuse(path, f"{_KINDS[kind]} cannot go into an image")
        elif kind == stat.S_IFLNK:
            target = os.readlink(child.path).decode()  # noqa: PTH115  # pathlib would not give it verbatim
            self.found.append(_Found(path, source, 0, False, target))
        elif not os.access(source, os.R_OK):
            self._refuse(path, "no permission to read it")
        else:
            self.found.append(_Found(path, source, status.st_size, bool(status.st_mode & 0o111), None))

    def _refuse(self, path: str, why: str) -> None:
        self.problems.append(f"`{_shown(path)}`: {why}")


def _entries(walk: _Walk, prefix: str, mtime: int) -> Iterator[Entry]:
    paths = [found.path for found in walk.found]
    directories = {*parents([*paths, *walk.empty]), *walk.empty}
    made: dict[str, Entry] = {path: Directory(path=prefix + path, mtime=mtime) for path in directories}
    for found in walk.found:
        if found.target is not None:
            made[found.path] = Symlink(path=prefix + found.path, target=found.target, mtime=mtime)
        else:
            made[found.path] = File(
                path=prefix + found.path,
                size=found.size,
                content=FileContent(found.source),
                mode=0o755 if found.executable else 0o644,
                mtime=mtime,
            )
    for path in sorted(made, key=lambda path: [part.encode() for part in path.split("/")]):
        yield made[path]


def _source(child: os.DirEntry[bytes]) -> Path:
    return Path(os.fsdecode(child.path))


def _below(root: Path, paths: Iterable[Path]) -> Iterator[str]:
    """`paths` relative to `root`, of those in it."""
    real = root.resolve()
    for path in paths:
        absolute = path.parent.resolve() / path.name
        if absolute.is_relative_to(real):
            yield os.fsencode(absolute.relative_to(real)).decode("utf-8", "surrogateescape")


def _leaves(found: _Found) -> bool:
    target = found.target or ""
    above = os.path.normpath(PurePosixPath(found.path).parent / target)
    return target.startswith("/") or above.split("/")[0] == ".."


def _listed(paths: Sequence[str]) -> str:
    shown = ", ".join(f"`{_shown(path)}`" for path in sorted(paths)[:_SHOWN])
    return shown if len(paths) <= _SHOWN else f"{shown} and {len(paths) - _SHOWN} more"


def _shown(path: str) -> str:
    """A path as it can be printed: names may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in path)
