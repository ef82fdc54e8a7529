"""Merging layers: what a container sees of them (image-spec, layer.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ociforge.base import overlay
from ociforge.base.listing import Member
from ociforge.base.overlay import merge
from ociforge.errors import BaseImageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ociforge.base.listing import Kind

_KINDS: dict[str, Kind] = {"/": "directory", ">": "symlink", "=": "hardlink"}


def member(path: str, *, mode: int = 0o644, mtime: int = 0) -> Member:
    """A member by its spelling: `dir/`, `link>target`, `hard=target`, `file`."""
    for sign, kind in _KINDS.items():
        name, found, target = path.partition(sign) if sign != "/" else (path[:-1], path[-1:], "")
        if found == sign:
            return Member(path=name, kind=kind, mode=mode, uid=0, gid=0, mtime=mtime, target=target or None)
    return Member(path=path, kind="file", mode=mode, uid=0, gid=0, mtime=mtime)


def merged(*layers: str) -> dict[str, str]:
    """What merging gives, path to kind; each layer is its members, blank-separated."""
    tree = merge([[member(spelling) for spelling in layer.split()] for layer in layers])
    return {path: node.kind for path, node in tree}


def test_nothing_makes_an_empty_tree() -> None:
    assert merged() == {}
    assert merged("", "") == {}


@pytest.mark.parametrize(
    ("layers", "paths"),
    [
        (("a/ a/x", "a/ a/y"), "a a/x a/y"),
        (("a/ a/x", "a/y"), "a a/x a/y"),
        (("a/ a/x a/y", "a/.wh.x"), "a a/y"),
        (("a/ a/x/ a/x/z a/y", "a/.wh.x"), "a a/y"),
        (("a/ a/x a/y", "a/.wh..wh..opq"), "a"),
        (("a/ a/x a/y", "a/z a/.wh..wh..opq"), "a a/z"),
        (("a/ a/x a/y", ".wh..wh..opq b"), "b"),
        (("a", ".wh.a", "b"), "b"),
        # A whiteout hides what is below, not what its own layer brings, wherever it stands.
        (("a/ a/x", "a/ a/x a/.wh.x"), "a a/x"),
        (("a/ a/x", "a/ a/.wh.x a/x"), "a a/x"),
        (("a/ a/x/ a/x/old", "a/x/ a/x/new a/.wh.x"), "a a/x a/x/new"),
        # Of nothing that is there.
        (("a/", "a/.wh.x b/.wh.y"), "a"),
        # What aufs left in images.
        (("a/", ".wh..wh.aufs .wh..wh.plnk/ .wh..wh.plnk/12.34 .wh..wh.orph/ a/b"), "a a/b"),
        # Another type.
        (("a/ a/x", "a"), "a"),
        (("a", "a/ a/x"), "a a/x"),
        (("a>b", "a/ a/x"), "a a/x"),
        (("a/ a/x", "a>b b/"), "a b"),
        # One after the other in one layer.
        (("a/ a/x a a/y",), "a a/y"),
        (("b/ a/ a/x a>b a/y",), "a b b/y"),
        (("b/ c/ a>b a/x a>c a/y",), "a b b/x c c/y"),
        (("a/b/ a/b/x a a/b/y",), "a a/b a/b/y"),
        # A parent that nobody wrote.
        (("a/b/c",), "a a/b a/b/c"),
    ],
)
def test_later_layers_override(layers: tuple[str, ...], paths: str) -> None:
    assert sorted(merged(*layers)) == paths.split()


def test_a_path_through_a_link_of_a_lower_layer_hides_it() -> None:
    """The usr-merge trap, as overlay file systems see it."""
    found = merged("bin>usr/bin usr/ usr/bin/ usr/bin/sh", "bin/tool")
    assert found == {"bin": "directory", "bin/tool": "file", "usr": "directory", "usr/bin": "directory"} | {
        "usr/bin/sh": "file"
    }


def test_a_path_through_a_link_of_its_own_layer_follows_it() -> None:
    expected = {"bin", "usr", "usr/bin", "usr/bin/tool"}
    assert set(merged("usr/ usr/bin/ bin>usr/bin bin/tool")) == expected
    assert set(merged("usr/ usr/bin/ bin>/usr/bin bin/tool")) == expected
    assert set(merged("usr/ usr/bin/ usr/b>../../usr/./bin usr/b/tool")) == {*expected, "usr/b"} - {"bin"}
    with pytest.raises(BaseImageError, match="`a`: too many symbolic links, or a loop"):
        merged("a>b b>a a/x")


def test_directories_take_the_last_metadata() -> None:
    tree = merge([[member("a/", mode=0o700, mtime=1), member("a/x")], [member("a/", mode=0o1777, mtime=2)]])
    node = tree.lookup("a")
    assert node is not None
    assert (node.mode, node.mtime) == (0o1777, 2)
    assert tree.lookup("a/x") is not None


def test_an_unwritten_parent_leaves_a_directory_below_as_it_is() -> None:
    tree = merge([[member("a/", mode=0o1777)], [member("a/x")]])
    node = tree.lookup("a")
    assert node is not None
    assert node.mode == 0o1777


def test_hard_links_are_what_they_link_to() -> None:
    assert merged("a/ a/x b=a/x", "c=a/x l>a m=l") == {
        "a": "directory",
        "a/x": "file",
        "b": "file",
        "c": "file",
        "l": "symlink",
        "m": "symlink",
    }


@pytest.mark.parametrize("layer", ["b=a", "a/ b=a", "b=a a"])
def test_a_hard_link_to_no_file_is_refused(layer: str) -> None:
    with pytest.raises(BaseImageError, match="`b`: a hard link to `a`, which is no file"):
        merged(layer)


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh..."])
def test_a_whiteout_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(BaseImageError, match=f"`a/{name}` is a whiteout of nothing"):
        merged("a/", f"a/{name}")


def test_entries_are_counted_over_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "MAX_ENTRIES", 5)
    merged("a b c", "d e")
    with pytest.raises(BaseImageError, match="more than 5 entries"):
        merged("a b c", "d e f")


paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
layers = st.lists(st.dictionaries(paths, st.sampled_from(["file", "directory", "whiteout", "opaque"]), max_size=6))


@given(layers)
def test_merging_is_what_the_specification_says(stack: list[dict[str, str]]) -> None:
    seen: dict[str, str] = {}
    for layer in stack:
        seen = applied(seen, layer)
    tree = merge([[spelled(path, kind) for path, kind in layer.items()] for layer in stack])
    assert {path: node.kind for path, node in tree} == seen


def spelled(path: str, kind: str) -> Member:
    above, slash, name = path.rpartition("/")
    match kind:
        case "whiteout":
            return member(f"{above}{slash}.wh.{name}")
        case "opaque":
            return member(f"{path}/.wh..wh..opq")
        case _:
            return member(path + ("/" if kind == "directory" else ""))


def applied(seen: Mapping[str, str], layer: Mapping[str, str]) -> dict[str, str]:
    """The same by brute force."""
    found = dict(seen)
    for path, kind in layer.items():
        if kind in ("whiteout", "opaque"):
            found = {p: k for p, k in found.items() if not p.startswith(f"{path}/")}
        if kind == "whiteout":
            found.pop(path, None)
    for path, kind in layer.items():
        if kind not in ("whiteout", "opaque"):
            parts = path.split("/")
            for above in ("/".join(parts[:depth]) for depth in range(1, len(parts))):
                found[above] = "directory"
            if kind == "file":
                found = {p: k for p, k in found.items() if not p.startswith(f"{path}/")}
            found[path] = kind
    return found
