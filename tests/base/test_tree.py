"""The tree of a base: finding paths through its links, and placing our own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers.entry import Bytes, Directory, Entry, File, Hardlink, Symlink
from ociforge.base.listing import Member
from ociforge.base.overlay import merge
from ociforge.base.tree import Tree
from ociforge.errors import BaseImageError
from tests.base.test_overlay import member


def tree(members: str) -> Tree:
    return merge([[member(spelling) for spelling in members.split()]])


MERGED = tree(
    "usr/ usr/bin/ usr/bin/dash usr/bin/sh>dash bin>usr/bin usr/lib/ lib>usr/lib lib64>/usr/lib etc/ etc/passwd tmp/ "
    "opt/ data>srv/data home/ home/app/ home/app/x here>. up>.. loop>loop ping>pong pong>ping dangling>/nowhere/at"
)


def file(path: str) -> File:
    return File(path=path, size=1, content=Bytes(b"x"))


@pytest.mark.parametrize(
    ("path", "resolved"),
    [
        ("bin/tool", "usr/bin/tool"),
        ("lib/python/x", "usr/lib/python/x"),
        ("lib64/x", "usr/lib/x"),
        ("bin", "bin"),
        ("opt/env/bin", "opt/env/bin"),
        ("data/x/y", "srv/data/x/y"),
        ("dangling/x", "nowhere/at/x"),
        ("here/up/up/here/bin/x", "usr/bin/x"),
        ("new/../bin/x", "usr/bin/x"),
        ("../../x", "x"),
        ("", ""),
    ],
)
def test_parents_are_resolved(path: str, resolved: str) -> None:
    assert MERGED.resolve(path) == resolved


def test_lookup_follows_links_unless_told_not_to() -> None:
    found = MERGED.lookup("bin/sh")
    assert found is not None
    assert found.kind == "file"
    link = MERGED.lookup("bin/sh", follow=False)
    assert link is not None
    assert (link.kind, link.target) == ("symlink", "dash")
    assert MERGED.resolve("bin/sh", follow=True) == "usr/bin/dash"
    assert MERGED.lookup("bin/bash") is None
    assert MERGED.lookup("etc/passwd/x") is None
    assert MERGED.lookup("dangling") is None
    root = MERGED.lookup("")
    assert root is not None
    assert root.kind == "directory"


@pytest.mark.parametrize("path", ["loop/x", "ping/x"])
def test_loops_are_refused(path: str) -> None:
    with pytest.raises(BaseImageError, match=f"`/{path}`: more than 40 symbolic links in the base image, or a loop"):
        MERGED.resolve(path)
    assert MERGED.resolve("loop") == "loop"


@pytest.mark.parametrize(("length", "fits"), [(40, True), (41, False)])
def test_chains_are_followed_as_far_as_linux_does(length: int, fits: bool) -> None:
    chain = tree(" ".join(["l0/", *(f"l{index + 1}>l{index}" for index in range(length))]))
    if fits:
        assert chain.resolve(f"l{length}/x") == "l0/x"
    else:
        with pytest.raises(BaseImageError, match="more than 40"):
            chain.resolve(f"l{length}/x")


names = st.sampled_from("abcd")
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
targets = st.lists(st.sampled_from([*"abcd", "..", "."]), min_size=1, max_size=3).map("/".join)


@settings(max_examples=60)
@given(st.dictionaries(paths, st.none() | targets, max_size=8), paths)
def test_resolving_is_what_the_kernel_does(links: dict[str, str | None], path: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        members: list[Member] = []
        for name, target in links.items():
            place = root / name
            if place.parent.is_symlink() or any(above.is_symlink() for above in place.parents):
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists() and not place.is_symlink():
                place.mkdir() if target is None else place.symlink_to(target)
                members.append(member(f"{name}/" if target is None else f"{name}>{target}"))
        try:
            real = Path(os.path.realpath(root / path, strict=True))
        except OSError:
            return
        if real.is_relative_to(root):
            assert merge([members]).resolve(path, follow=True) == ("" if real == root else str(real.relative_to(root)))


def test_entries_are_placed_through_links() -> None:
    entries: list[Entry] = [
        file("bin/tool"),
        Directory(path="lib/app"),
        Symlink(path="bin/alias", target="../lib/app/x"),
        Hardlink(path="bin/second", target="bin/tool"),
        file("opt/app/x"),
        file("etc/passwd"),
        file("bin/sh"),
        Symlink(path="data", target="elsewhere"),
    ]
    assert MERGED.place(entries) == (
        file("usr/bin/tool"),
        Directory(path="usr/lib/app"),
        Symlink(path="usr/bin/alias", target="../lib/app/x"),
        Hardlink(path="usr/bin/second", target="usr/bin/tool"),
        file("opt/app/x"),
        file("etc/passwd"),
        file("usr/bin/sh"),
        Symlink(path="data", target="elsewhere"),
    )


def test_clashes_are_refused_all_at_once() -> None:
    entries: list[Entry] = [
        Directory(path="bin"),
        Directory(path="etc/passwd"),
        file("usr/bin"),
        Symlink(path="tmp", target="var/tmp"),
        file("etc/passwd/x"),
        file("etc/passwd/x/y"),
        file("loop/x"),
        file("fine"),
    ]
    with pytest.raises(BaseImageError) as caught:
        MERGED.place(entries)
    assert caught.value.message.splitlines() == [
        "`bin`: a directory would replace the base image's link to `usr/bin`",
        "`etc/passwd`: a directory would replace the base image's file",
        "`usr/bin`: the base image has a directory there",
        "`tmp`: the base image has a directory there",
        "`etc/passwd/x`: the base image has a file at `/etc/passwd`",
        "`etc/passwd/x/y`: the base image has a file at `/etc/passwd`",
        "`/loop`: more than 40 symbolic links in the base image, or a loop",
    ]
    assert caught.value.hint is not None


def test_directories_of_the_base_keep_their_metadata() -> None:
    base = merge(
        [
            [
                Member(path="srv", kind="directory", mode=0o750, uid=5, gid=6, mtime=7),
                Member(path="tmp", kind="directory", mode=0o1777, uid=0, gid=0, mtime=8),
            ]
        ]
    )
    srv = Directory(path="srv", mode=0o750, uid=5, gid=6, mtime=7)
    tmp = Directory(path="tmp", mode=0o1777, mtime=8)
    assert base.place([Directory(path="srv"), Directory(path="opt", mtime=9)]) == (srv, Directory(path="opt", mtime=9))
    assert base.parents(["tmp/a/b", "srv/x", "top"], mtime=9) == (srv, tmp, Directory(path="tmp/a", mtime=9))


def test_a_parent_that_is_no_directory_is_refused() -> None:
    with pytest.raises(BaseImageError, match="`etc/passwd`: a directory would replace the base image's file"):
        MERGED.parents(["etc/passwd/x"])
    with pytest.raises(BaseImageError, match="`bin`: a directory would replace the base image's link"):
        MERGED.parents(["bin/x"])


@pytest.mark.parametrize(
    ("path", "kind"), [("usr", "directory"), ("etc/passwd", "file"), ("bin", "symlink"), ("dangling", "symlink")]
)
def test_a_prefix_that_the_base_has_is_refused(path: str, kind: str) -> None:
    with pytest.raises(BaseImageError, match=f"prefix `/{path}`: the base image has a {kind} there") as caught:
        MERGED.refuse_existing(path, "prefix")
    assert "such as `/opt/env`" in str(caught.value.hint)


@pytest.mark.parametrize("path", ["opt", "opt/env", "usr/env", "bin/env", "tmp"])
def test_a_prefix_that_the_base_lacks_is_fine(path: str) -> None:
    MERGED.refuse_existing(path, "prefix")


def test_an_empty_tree_places_everything_as_it_is() -> None:
    entries = (file("bin/x"), Directory(path="bin"), Hardlink(path="y", target="bin/x"))
    assert Tree().place(entries) == entries
    assert list(Tree()) == []
    assert Tree().os_release() == {}


def with_text(path: str, text: str) -> Member:
    return Member(path=path, kind="file", mode=0o644, uid=0, gid=0, mtime=0, text=text)


def test_os_release_is_read_through_its_link() -> None:
    text = 'NAME="Debian GNU/Linux"\n# comment\nID=debian\n\nVERSION_ID=\'12\'\nPRETTY="a \\"b\\" \\$c"\nbad line\n'
    base = merge([[member("etc/os-release>../usr/lib/os-release"), with_text("usr/lib/os-release", text)]])
    assert base.os_release() == {
        "NAME": "Debian GNU/Linux",
        "ID": "debian",
        "VERSION_ID": "12",
        "PRETTY": 'a "b" $c',
    }
    assert base.text("etc/os-release") == text
    assert base.text("etc/none") is None
    assert merge([[with_text("usr/lib/os-release", "ID=x")]]).os_release() == {"ID": "x"}
