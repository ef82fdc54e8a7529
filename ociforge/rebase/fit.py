"""Does an image fit on a base that it was not built on? Every reason against it.

A build resolves its paths against its base before it writes them. Here they are written already, so a base on which a
build would have put them elsewhere, or given them other metadata, is refused.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Final

from ociforge.base.libc import check_base, libc
from ociforge.errors import BaseImageError
from ociforge.events import Warned

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from ociforge.base import Base, Node, Tree
    from ociforge.base.listing import Member
    from ociforge.events import Notify
    from ociforge.oci.config import ImageConfig
    from ociforge.rebase.own import OwnLayers, Skeleton

__all__ = ["check_fit"]

_HINT: Final = "choose another base image, or build the image anew on this one"
_MOST: Final = 20  # reasons that are told
_WHITEOUT: Final = ".wh."
_AUFS: Final = ".wh..wh."  # what begins so is the storage driver's own, but for the next one
_OPAQUE: Final = ".wh..wh..opq"
_VERBS: Final = {"replaces": "replace files", "hides": "hide paths"}
_ROOT: Final = "PIXI_PROJECT_ROOT"  # the variable that says where an image of ours has its application
_SHELLS: Final = ("bash", "dash", "sh")


def check_fit(own: OwnLayers, config: ImageConfig, old: Base, new: Base, *, glibc: str | None, notify: Notify) -> None:
    """Raise BaseImageError with all that speaks against `own` layers on `new`; `config` is the one they would have.

    `glibc` is the version that the packages ask for; without it, `new` must have the C library of `old`, or a newer
    one. What layers that say nothing of themselves replace or hide of `new` is refused, unless they did that to `old`,
    too: then the image means it, and a warning tells. The paths of `new` are read, those of `old` only for these.
    """
    what = "base image" if new.name is None else f"base image `{new.name}`"
    unknown = own.unknown()
    meant, unmeant = _touched(unknown, old, new.tree)
    foreign = (f"`/{path}`: a layer of the image {verb} it, and the old base image has none" for path, verb in unmeant)
    paths = [*_ours(own, config, new.tree), *_clashes(unknown, new.tree), *foreign]
    problems = [*_libc_problems(what, old, new, glibc), *(f"{what}: {path}" for path in dict.fromkeys(paths))]
    if problems:
        more = [f"… and {len(problems) - _MOST} more"] if len(problems) > _MOST else []
        raise BaseImageError.collect([*problems[:_MOST], *more], _HINT)
    for verb, tells in _VERBS.items():
        if found := [f"`/{path}`" for path, done in meant if done == verb]:
            more = [f"{len(found) - 3} more"] if len(found) > 3 else []
            notify(Warned(f"{what}: layers of the image {tells} that it has: {', '.join([*found[:3], *more])}"))


def _touched(members: Iterable[Member], old: Base, tree: Tree) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The paths of `tree` that `members` replace or hide, each with which of it: those that `old` has, and others."""
    found = sorted(dict(_effects(members, tree)).items())
    meant = {path for path, _ in found if old.tree.lookup(path, follow=False) is not None}
    return _topmost(pair for pair in found if pair[0] in meant), _topmost(p for p in found if p[0] not in meant)


def _topmost(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of sorted paths that do not lie below another one of them."""
    kept: dict[str, str] = {}
    for path, what in pairs:
        if not any(above in kept for above in _above(path)):
            kept[path] = what
    return list(kept.items())


def _above(path: str) -> Iterator[str]:
    """Every directory that `path` lies in, the root last."""
    while path:
        path = posixpath.dirname(path)
        yield path


def _effects(members: Iterable[Member], tree: Tree) -> Iterator[tuple[str, str]]:
    """What of `tree` is not seen any more with `members` above it (image-spec, layer.md)."""
    emptied: set[str] = set()  # directories of which nothing below is seen
    for member in members:
        folder, name = posixpath.split(member.path)
        if name == _OPAQUE:
            emptied.add(folder)
        elif name.startswith(_WHITEOUT) and not name.startswith(_AUFS):
            path = posixpath.join(folder, name.removeprefix(_WHITEOUT))
            emptied.add(path)
            if tree.lookup(path, follow=False) is not None:
                yield path, "hides"
        elif member.kind != "directory":
            node = tree.lookup(member.path, follow=False)
            if node is not None and node.kind != "directory":
                yield member.path, "replaces"
    if emptied:
        yield from ((path, "hides") for path, _ in tree if any(above in emptied for above in _above(path)))


def _libc_problems(what: str, old: Base, new: Base, glibc: str | None) -> Iterator[str]:
    if glibc is not None:
        try:
            check_base(new, glibc=glibc, native=True)
        except BaseImageError as error:
            yield error.message
        return
    has = libc(new.tree)
    had = None if has is None else libc(old.tree)
    if has is None or had is None:
        return
    if has.family != had.family or (has.version is not None and had.version is not None and has.version < had.version):
        yield f"{what}: it has {has}: the image was built on {had}"


def _ours(own: OwnLayers, config: ImageConfig, tree: Tree) -> Iterator[str]:
    """What speaks against the layers of an image of ours, if it is one."""
    skeleton = own.skeleton()
    if skeleton is None:
        return
    members = (*skeleton.members, *_application(own, skeleton, config, tree))
    yield from (clashes := list(_clashes(members, tree)))
    try:
        tree.refuse_existing(skeleton.prefix, "prefix")
    except BaseImageError as error:
        yield error.message
    for program in sorted({*skeleton.interpreters, *_shells(config)}):
        if not program.startswith(f"/{skeleton.prefix}/") and not _is_file(tree, program):
            yield f"`{program}`: the image is run by it, but the base image has no such program"
    if not clashes:
        yield from _out_of_reach({member.path for member in members}, skeleton, config, tree)


def _application(own: OwnLayers, skeleton: Skeleton, config: ImageConfig, tree: Tree) -> tuple[Member, ...]:
    """The application's paths, which are not read where all of them lie in a directory that is new to the base."""
    workdir = _workdir(config)
    if workdir in skeleton.directories and tree.lookup(workdir.partition("/")[0], follow=False) is None:
        return ()
    return own.application()


def _out_of_reach(paths: Collection[str], skeleton: Skeleton, config: ImageConfig, tree: Tree) -> Iterator[str]:
    """What the configuration names by way of a link that only the old base had."""
    program = next(iter(config.entrypoint or ()), "").strip("/")
    generated = posixpath.basename(program) in map(posixpath.basename, skeleton.files)
    for path in filter(None, (_workdir(config), program if generated else "")):
        if tree.resolve(path, follow=True) not in paths:
            yield f"`/{path}`: a symbolic link that only the old base image had leads from there to the image's files"


def _workdir(config: ImageConfig) -> str:
    return config.env.get(_ROOT, "").strip("/")


def _shells(config: ImageConfig) -> Iterator[str]:
    """The shells that the image's command names by their path."""
    for command in (config.entrypoint, config.cmd):
        program = next(iter(command or ()), "")
        if program.startswith("/") and posixpath.basename(program) in _SHELLS:
            yield program


def _is_file(tree: Tree, path: str) -> bool:
    node = tree.lookup(path)
    return node is not None and node.kind == "file"


def _clashes(members: Iterable[Member], tree: Tree) -> Iterator[str]:
    """A line for each path that clashes; nothing for what is below one."""
    refused: set[str] = set()
    for member in members:
        if not refused.isdisjoint((*_parents(member.path), member.path)):
            continue
        if reason := _clash(member, tree):
            refused.add(member.path)
            yield f"`/{member.path}`: {reason}"


def _clash(member: Member, tree: Tree) -> str | None:
    """Why engines would make something else of `member` on top of `tree` than of one built there."""
    path = tree.resolve(member.path)
    if path != member.path:
        return f"there is a symbolic link on the way: it is `/{path}` there"
    for above in _parents(path):
        node = tree.lookup(above, follow=False)
        if node is None:
            return None
        if node.kind != "directory":
            return f"there is a {node.kind} at `/{above}`"
    found = tree.lookup(path, follow=False)
    if not path or found is None or posixpath.basename(path).startswith(_WHITEOUT):
        return None
    if member.kind != "directory":
        return "there is a directory" if found.kind == "directory" else None
    if found.kind != "directory":
        return f"a directory would replace the {found.kind} that is there"
    if (found.mode, found.uid, found.gid) != (member.mode, member.uid, member.gid):
        return f"a directory of {_metadata(member)} would replace the one there: {_metadata(found)}"
    return None


def _metadata(of: Member | Node) -> str:
    return f"mode {of.mode:04o}, owner {of.uid}:{of.gid}"


def _parents(path: str) -> Iterator[str]:
    """The proper parents of a path but the root, the topmost first."""
    parts = path.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts)))
