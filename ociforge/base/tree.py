"""The tree of paths that layers of a base image make up, and how our own paths fit into it.

Why it is needed: where the base has `bin -> usr/bin`, an entry `bin/tool` makes overlay file systems hide the base's
programs behind a new directory `bin`, and a directory entry `bin` replaces the link in every engine.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from layers.entry import Directory, Entry, Hardlink
from layers.tree import parents as parents_of
from ociforge.errors import BaseImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["DIRECTORY", "MAX_LINKS", "Node", "Spot", "Tree"]

MAX_LINKS = 40  # symbolic links on the way to one path, as in Linux
_HINT = "choose another path, or a base image that does not have this one"


class Node(Struct, frozen=True, kw_only=True):
    """What is at a path: `target` belongs to symbolic links, `text` to the files whose text is kept."""

    kind: Literal["directory", "file", "symlink", "device", "fifo"]
    mode: int
    uid: int
    gid: int
    mtime: int
    target: str | None = None
    text: str | None = None


DIRECTORY = Node(kind="directory", mode=0o755, uid=0, gid=0, mtime=0)  # of which nothing is known


class Spot:
    """A node in its place, with what is `below` it by name. Changed only while layers are merged."""

    __slots__ = ("below", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.below: dict[str, Spot] = {}


class Tree:
    """The paths of an image, without leading slash; the root is the empty path. Read-only once made."""

    def __init__(self, root: Spot | None = None) -> None:
        """The tree below `root`; an empty one without."""
        self._root = root or Spot(DIRECTORY)

    def lookup(self, path: str, *, follow: bool = True) -> Node | None:
        """What is at `path`, through symbolic links; with `follow=False` the last component is not followed.

        Raises BaseImageError for a loop of links.
        """
        _, spots = self._walk(path, follow=follow)
        return None if spots[-1] is None else spots[-1].node

    def resolve(self, path: str, *, follow: bool = False) -> str:
        """The same path without symbolic links among its parents, and with `follow` without any.

        What does not exist stays as it is. Links cannot lead out of the root. Raises BaseImageError for a loop.
        """
        return "/".join(self._walk(path, follow=follow)[0])

    def place(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        """The same entries where they belong in this tree: parents resolved, hard link targets too.

        A directory that the tree has keeps the tree's mode, owner and time. Raises one BaseImageError that names every
        entry whose type clashes: a directory over a file or link, anything over a directory or below a file.
        """
        placed: list[Entry] = []
        problems: list[str] = []
        known: dict[str, tuple[str, Spot | None]] = {}  # parent as given -> resolved, with what is there
        for entry in entries:
            try:
                placed.append(self._place(entry, known))
            except BaseImageError as error:
                problems.append(error.message)
        if problems:
            raise BaseImageError.collect(problems, _HINT)
        return tuple(placed)

    def parents(self, paths: Iterable[str], *, mtime: int = 0) -> tuple[Directory, ...]:
        """An entry for every proper parent of `paths` (resolved ones), in writing order.

        Those that the tree has carry its metadata, as leaving them out or writing others would change them in some
        engines; the others get mode 0755, owner 0:0 and `mtime`. Raises BaseImageError when one is no directory here.
        """
        return tuple(
            directory
            for path in parents_of(paths)
            if isinstance(directory := self._place(Directory(path=path, mtime=mtime), {}), Directory)
        )

    def refuse_existing(self, path: str, what: str) -> None:
        """Raise BaseImageError when there is anything but an empty directory at `path`, which is to be our own.

        `what` names the setting that it comes from.
        """
        _, spots = self._walk(path, follow=False)
        spot = spots[-1]
        if spot is None or (spot.node.kind == "directory" and not spot.below):
            return
        raise BaseImageError(
            f"{what} `/{path}`: the base image has a {spot.node.kind} there",
            f"let `{what}` be a directory that the base image does not have, such as `/opt/env`",
        )

    def text(self, path: str) -> str | None:
        """The content of one of the small files whose text listings keep, through links; None without it."""
        node = self.lookup(path)
        return None if node is None else node.text

    def os_release(self) -> dict[str, str]:
        """The variables of `/etc/os-release`, as in os-release(5); empty when there are none."""
        text = self.text("etc/os-release") or self.text("usr/lib/os-release") or ""
        lines = (re.fullmatch(r"([A-Z0-9_]+)=(.*)", line.strip()) for line in text.splitlines())
        return {line[1]: re.sub(r"\\(.)", r"\1", line[2].strip("\"'")) for line in lines if line is not None}

    def __iter__(self) -> Iterator[tuple[str, Node]]:
        """Every path but the root with its node, parents first, by name."""
        todo = [("", self._root)]
        while todo:
            path, spot = todo.pop()
            if path:
                yield path, spot.node
            below = sorted(spot.below.items(), reverse=True)
            todo.extend((f"{path}/{name}" if path else name, child) for name, child in below)

    def _walk(self, path: str, *, follow: bool) -> tuple[list[str], list[Spot | None]]:
        """The components on the way to `path` without links, and what is at each of them, the root included."""
        done: list[str] = []
        spots: list[Spot | None] = [self._root]
        todo = path.split("/")[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if done:  # the root is its own parent
                    done.pop()
                    spots.pop()
                continue
            spot = spots[-1]
            child = None if spot is None else spot.below.get(name)
            if child is None or child.node.target is None or not (todo or follow):
                done.append(name)
                spots.append(child)
                continue
            links += 1
            if links > MAX_LINKS:
                raise BaseImageError(f"`/{path}`: more than {MAX_LINKS} symbolic links in the base image, or a loop")
            if child.node.target.startswith("/"):
                done, spots = [], [self._root]
            todo += child.node.target.split("/")[::-1]
        return done, spots

    def _place(self, entry: Entry, known: dict[str, tuple[str, Spot | None]]) -> Entry:
        above, _, name = entry.path.rpartition("/")
        if above not in known:
            known[above] = self._parent(above, entry.path)
        parent, spot = known[above]
        path = f"{parent}/{name}" if parent else name
        found = None if spot is None else spot.below.get(name)
        if isinstance(entry, Directory):
            return replace(entry, path=path) if found is None else _existing(entry.path, path, found.node)
        if found is not None and found.node.kind == "directory":
            raise BaseImageError(f"`{entry.path}`: the base image has a directory there", _HINT)
        if isinstance(entry, Hardlink):
            return Hardlink(path=path, target=self.resolve(entry.target))
        return entry if path == entry.path else replace(entry, path=path)

    def _parent(self, above: str, path: str) -> tuple[str, Spot | None]:
        """Where `above`, the parent of `path`, really is; BaseImageError when there is a file on the way."""
        done, spots = self._walk(above, follow=True)
        for depth, spot in enumerate(spots):
            if spot is not None and spot.node.kind != "directory":
                kind = spot.node.kind
                raise BaseImageError(f"`{path}`: the base image has a {kind} at `/{'/'.join(done[:depth])}`", _HINT)
        return "/".join(done), spots[-1]


def _existing(given: str, path: str, node: Node) -> Directory:
    """The entry for a directory that the base has; BaseImageError when it has something else there."""
    if node.kind == "symlink":
        raise BaseImageError(f"`{given}`: a directory would replace the base image's link to `{node.target}`", _HINT)
    if node.kind != "directory":
        raise BaseImageError(f"`{given}`: a directory would replace the base image's {node.kind}", _HINT)
    return Directory(path=path, mode=node.mode, uid=node.uid, gid=node.gid, mtime=node.mtime)
