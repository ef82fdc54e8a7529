"""Merging the listings of layers into the tree that a container sees (image-spec, layer.md, "Applying Changesets")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ociforge.base.listing import MAX_ENTRIES
from ociforge.base.tree import DIRECTORY, MAX_LINKS, Node, Spot, Tree
from ociforge.errors import BaseImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ociforge.base.listing import Member

__all__ = ["merge"]

_WHITEOUT = ".wh."
_META = ".wh..wh."  # bookkeeping of aufs, which engines pass over
_OPAQUE = ".wh..wh..opq"


def merge(layers: Iterable[Sequence[Member]]) -> Tree:
    """The tree of `layers`, lowest first, each unpacked on its own and laid over the ones below, as overlay file
    systems do: a path through a link of a lower layer makes a directory that hides the link.

    Raises BaseImageError for whiteouts of nothing, loops of links, and more than MAX_ENTRIES entries.
    """
    root = Spot(DIRECTORY)
    count = 0
    for members in layers:
        count += len(members)
        if count > MAX_ENTRIES:
            raise BaseImageError(f"base image: more than {MAX_ENTRIES} entries")
        # Whiteouts speak of the layers below, wherever they stand among the members.
        for member in members:
            _hide(root, member.path)
        layer = _Overlay(root)
        for member in members:
            if f"/{_WHITEOUT}" not in f"/{member.path}":
                layer.add(member)
    return Tree(root)


def _hide(root: Spot, path: str) -> None:
    """Remove what `path` hides, if it is a whiteout."""
    above, _, name = path.rpartition("/")
    if not name.startswith(_WHITEOUT):
        return
    hidden = name.removeprefix(_WHITEOUT)
    if hidden in ("", ".", ".."):
        raise BaseImageError(f"base image: `{path}` is a whiteout of nothing")
    spot = root
    for part in above.split("/") if above else ():
        if part not in spot.below:
            return
        spot = spot.below[part]
    if name == _OPAQUE:
        spot.below.clear()
    elif not name.startswith(_META):
        spot.below.pop(hidden, None)


class _Overlay:
    """One layer on its way into the tree below `root`."""

    def __init__(self, root: Spot) -> None:
        self._root = root
        self._links: set[Spot] = set()  # those that this layer has brought
        self._parents: dict[str, Spot] = {}  # the directories at paths, while nothing has taken another's place

    def add(self, member: Member) -> None:
        node = self._node(member)
        above, _, name = member.path.rpartition("/")
        if not name:
            self._root.node = node
            return
        parent = self._parents.get(above)
        if parent is None:
            parent = self._parents[above] = self._spot(above.split("/"))
        found = parent.below.get(name)
        if found is not None:
            if found.node.kind == node.kind == "directory":
                found.node = node
                return
            self._parents.clear()
        parent.below[name] = spot = Spot(node)
        if node.kind == "symlink":
            self._links.add(spot)

    def _spot(self, parts: list[str]) -> Spot:
        """The directory at `parts`, made where it is missing, through links of this very layer."""
        spots = [self._root]
        todo = parts[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                spots = spots[:-1] or spots
                continue
            child = spots[-1].below.get(name)
            if child is not None and child in self._links:
                links += 1
                if links > MAX_LINKS:
                    raise BaseImageError(f"base image: `{'/'.join(parts)}`: too many symbolic links, or a loop")
                target = child.node.target or ""
                spots = [self._root] if target.startswith("/") else spots
                todo += target.split("/")[::-1]
                continue
            if child is None or child.node.kind != "directory":
                child = spots[-1].below[name] = Spot(DIRECTORY)
            spots.append(child)
        return spots[-1]

    def _node(self, member: Member) -> Node:
        kind, target, text = member.kind, member.target, member.text
        if kind == "hardlink":
            # Metadata is that of the last name unpacked, as they share it. Without the file, engines would fail.
            linked = Tree(self._root).lookup(target or "", follow=False)
            if linked is None or linked.kind == "directory":
                raise BaseImageError(f"base image: `{member.path}`: a hard link to `{target}`, which is no file")
            kind, target, text = linked.kind, linked.target, linked.text
        return Node(
            kind=kind, mode=member.mode, uid=member.uid, gid=member.gid, mtime=member.mtime, target=target, text=text
        )
