"""Order, merging and every way in which entries can be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from layers import (
    Arrangement,
    Bytes,
    Directory,
    EntriesError,
    Entry,
    EntryError,
    File,
    Hardlink,
    LayerError,
    Segment,
    Symlink,
    arrange,
    parents,
)
from tests.layers.trees import generated, names, streamed, trees

if TYPE_CHECKING:
    import random


def only(*entries: Entry) -> Arrangement:
    return arrange([Segment("one", entries)])


def paths(arrangement: Arrangement) -> list[str]:
    return [entry.path for entry in arrangement.entries()]


def refused(*segments: Segment) -> str:
    """Why `segments` are no layer; as streams they are none either."""
    with pytest.raises(EntryError) as caught:
        arrange(segments)
    with pytest.raises(EntryError):
        list(arrange(streamed(segments)).entries())
    return str(caught.value)


def test_directories_come_first_then_segments_by_name_each_by_path_component() -> None:
    both = Directory(path="d")
    arrangement = arrange(
        [
            Segment("z", (generated("d/z", b""), both)),
            Segment(
                "a", (generated("d-x", b""), generated("d/y/x", b""), both, Directory(path="d/y"), Directory(path="c"))
            ),
        ]
    )
    assert paths(arrangement) == ["c", "d", "d/y", "d-x", "d/y/x", "d/z"]


def test_directories_are_in_the_order_of_the_bytes_of_components() -> None:
    names_ = ["é", "a b", "a/b", "a-b", "z", "aa", "B", "\U0001f600", "\ufffd"]
    arrangement = only(*(Directory(path=path) for path in names_))
    assert paths(arrangement) == ["B", "a/b", "a b", "a-b", "aa", "z", "é", "\ufffd", "\U0001f600"]


def test_other_entries_stay_in_their_order() -> None:
    assert paths(only(*(generated(path, b"") for path in "cab"))) == ["c", "a", "b"]


def test_empty_segments_leave_no_trace() -> None:
    assert paths(arrange([])) == paths(arrange([Segment("a", ()), Segment("", ())])) == []
    assert paths(arrange([Segment("a", (Directory(path="d"),)), Segment("b", iter(()))])) == ["d"]


@given(trees(), st.randoms(use_true_random=False))
def test_the_order_of_the_segments_does_not_matter(segments: list[Segment], chance: random.Random) -> None:
    expected = list(arrange(segments).entries())
    chance.shuffle(segments)
    assert list(arrange(segments).entries()) == list(arrange(streamed(segments)).entries()) == expected


@given(trees())
def test_every_path_comes_out_once_and_nothing_is_added(segments: list[Segment]) -> None:
    arranged = [entry.path for entry in arrange(segments).entries()]
    assert len(arranged) == len(set(arranged))
    assert set(arranged) == {entry.path for segment in segments for entry in segment.entries}


def test_hard_links_tell_the_metadata_of_their_file() -> None:
    file = generated("m", b"x", mode=0o755, mtime=7)
    arrangement = only(file, Hardlink(path="b", target="m"))
    assert list(arrangement.entries()) == [file, Hardlink(path="b", target="m")]
    assert arrangement.metadata("m") == file.metadata
    assert arrangement.metadata("b") is arrangement.metadata("x") is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "is empty"),
        ("/", "is absolute"),
        ("/etc/passwd", "is absolute"),
        ("a/", "ends in a slash"),
        ("a//b", "has an empty component"),
        (".", "has a component `.`"),
        ("a/./b", "has a component `.`"),
        ("..", "has a component `..`"),
        ("a/../b", "has a component `..`"),
        ("a/.wh.b", "is a whiteout: names that begin with `.wh.` delete files of lower layers"),
        (".wh..wh..opq", "is a whiteout: names that begin with `.wh.` delete files of lower layers"),
        (".wh.d/x", "is a whiteout: names that begin with `.wh.` delete files of lower layers"),
        ("a/" + "é" * 128, "has a component of more than 255 bytes"),
        ("a/" * 2048 + "b", "is longer than 4095 bytes"),
    ],
)
def test_paths_that_no_layer_can_hold(path: str, reason: str) -> None:
    expected = f"`{path}`: {reason}"
    assert refused(Segment("s", (generated(path, b""),))) == expected
    beside = generated("x", b""), generated("a/x", b"")  # parents that have been found legal
    assert refused(Segment("s", (*beside, generated(path, b"")))) == expected
    assert refused(Segment("s", (Directory(path=path),))) == expected
    assert refused(Segment("s", (Symlink(path=path, target="t"),))) == expected
    assert refused(Segment("s", (generated("t", b""), Hardlink(path=path, target="t")))) == expected


def test_broken_text_is_named_without_reaching_the_terminal() -> None:
    assert refused(Segment("s", (generated("a\0b", b""),))) == "`a\\x00b`: contains a NUL"
    assert refused(Segment("s", (generated("a\udcffb", b""),))) == "`a\\udcffb`: is not UTF-8"
    assert refused(Segment("s", (generated("/\x1b[31m", b""),))) == "`/\\x1b[31m`: is absolute"


def test_the_longest_legal_names() -> None:
    name = "é" * 127 + "x"
    path = "/".join([name] * 15) + "/" + "y" * 255
    assert len(path.encode()) == 4095
    legal = [path, "...", "a/..b/.whx"]
    assert paths(only(*(generated(path, b"") for path in legal))) == legal


@given(trees(), st.data())
def test_one_bad_component_anywhere_is_refused(segments: list[Segment], data: st.DataObject) -> None:
    bad = data.draw(st.sampled_from(["", ".", "..", ".wh.x", "a\0b", "\udcff", "x" * 256]))
    components = data.draw(st.lists(names, max_size=3))
    components.insert(data.draw(st.integers(0, len(components))), bad)
    path = "/".join(components)
    with pytest.raises(EntryError) as caught:
        arrange([*segments, Segment("bad", (generated(path, b""),))])
    assert caught.value.path == path


def test_a_path_is_there_once() -> None:
    file = generated("f", b"")
    assert refused(Segment("s", (file, file))) == "`f`: is there twice in segment `s`"
    assert refused(Segment("s", (file, replace(file, mode=0o755)))) == "`f`: is there twice in segment `s`"
    assert refused(Segment("s", (Directory(path="d"),) * 2)) == "`d`: is there twice in segment `s`"
    assert (
        refused(Segment("a", (file,)), Segment("b", (file,)))
        == "`f`: is a file in segment `a` and a file in segment `b`"
    )


def test_types_do_not_clash() -> None:
    link = Symlink(path="p", target="t")
    directory = Directory(path="p")
    assert (
        refused(Segment("b", (directory,)), Segment("a", (link,)))
        == "`p`: is a symbolic link in segment `a` and a directory in segment `b`"
    )
    assert refused(Segment("a", (link, directory))) == "`p`: is there twice in segment `a`"


def test_directories_agree() -> None:
    message = refused(
        Segment("b", (Directory(path="d", mode=0o700, mtime=3),)), Segment("a", (Directory(path="d", mode=0o755),))
    )
    assert message == "`d`: is a directory with mode 0755, mtime 0 in segment `a`, mode 0700, mtime 3 in `b`"


@pytest.mark.parametrize(
    ("above", "what"),
    [
        (generated("d", b""), "a file"),
        (Symlink(path="d", target="e"), "a symbolic link"),
        (Hardlink(path="d", target="f"), "a hard link"),
    ],
)
def test_nothing_lies_under_what_is_no_directory(above: Entry, what: str) -> None:
    """Engines follow, drop or refuse such paths differently."""
    linked = generated("f", b"")
    below = generated("d/e/f", b"")
    assert refused(Segment("s", (linked, above, below))) == f"`d/e/f`: lies under `d`, which is {what}"
    message = refused(Segment("a", (below,)), Segment("b", (linked, above)))
    assert message == f"`d/e/f`: lies under `d`, which is {what}"


def test_hard_links_stay_in_their_segment_and_point_to_files() -> None:
    link = Hardlink(path="l", target="t")
    absent = "`l`: is a hard link to `t`, which does not come before it in segment `s`"
    assert refused(Segment("s", (link,))) == absent
    assert refused(Segment("s", (link, generated("t", b"")))) == absent
    assert refused(Segment("s", (link,)), Segment("a", (generated("t", b""),))) == absent
    assert refused(Segment("s", (Directory(path="t"), link))) == "`l`: is a hard link to `t`, which is a directory"
    symlink, file = Symlink(path="t", target="x"), generated("f", b"")
    assert refused(Segment("s", (symlink, link))) == "`l`: is a hard link to `t`, which is a symbolic link"
    second = Hardlink(path="t", target="f")
    assert refused(Segment("s", (file, second, link))) == "`l`: is a hard link to `t`, which is a hard link"
    assert refused(Segment("s", (Hardlink(path="l", target="l"),))).startswith("`l`: is a hard link to `l`, which does")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mode": -1}, "has mode -001, which is not between 0 and 7777"),
        ({"mode": 0o10000}, "has mode 10000, which is not between 0 and 7777"),
        ({"uid": -1}, "has uid -1, which is not between 0 and 4294967294"),
        ({"gid": 2**32 - 1}, "has gid 4294967295, which is not between 0 and 4294967294"),
        ({"size": -1}, "has size -1, which is not between 0 and 9223372036854775807"),
        ({"mtime": -1}, "has mtime -1, which is not between 0 and 9223372036854775807"),
        ({"mtime": 1.5}, "has mtime 1.5, which is no integer"),
        ({"mtime": 1.0}, "has mtime 1.0, which is no integer"),
        ({"uid": True}, "has uid True, which is no integer"),
        (
            {"xattrs": (("user.note", b"x"),)},
            "has an extended attribute `user.note`: only `security.capability` survives in images",
        ),
        ({"xattrs": (("security.capability", b"x"),) * 2}, "has an extended attribute twice"),
    ],
)
def test_metadata_that_no_header_can_hold(changes: dict[str, object], reason: str) -> None:
    file = replace(generated("f", b""), **changes)  # the point of the test
    assert refused(Segment("s", (file,))) == f"`f`: {reason}"


def test_metadata_of_directories_and_symlinks_is_checked_too() -> None:
    assert refused(Segment("s", (Directory(path="d", mode=0o17777),))).startswith("`d`: has mode 17777")
    assert refused(Segment("s", (Symlink(path="l", target="t", gid=-5),))).startswith("`l`: has gid -5")
    for target, reason in [("", "is empty"), ("a\0", "contains a NUL"), ("\udc80", "is not UTF-8")]:
        message = refused(Segment("s", (Symlink(path="l", target=target),)))
        assert message == f"`l`: is a symbolic link whose target {reason}"


def test_symlink_targets_are_kept_verbatim() -> None:
    targets = ["/etc/passwd", "../../..", "l", "a//b/", "."]
    arrangement = only(*(Symlink(path=f"l{n}", target=target) for n, target in enumerate(targets)))
    assert [entry.target for entry in arrangement.entries() if isinstance(entry, Symlink)] == targets


def test_all_problems_are_collected() -> None:
    with pytest.raises(EntriesError) as caught:
        only(generated("/a", b""), Hardlink(path="b", target="c"), generated("d", b""), generated("d", b""))
    assert str(caught.value).splitlines() == [
        "`/a`: is absolute",
        "`b`: is a hard link to `c`, which does not come before it in segment `one`",
        "`d`: is there twice in segment `one`",
    ]
    assert [error.path for error in caught.value.errors] == ["/a", "b", "d"]


def test_a_message_stays_readable_with_very_many_problems() -> None:
    with pytest.raises(EntriesError) as caught:
        only(*(File(path=f"/{n}", size=0, content=Bytes(b"")) for n in range(100)))
    assert len(caught.value.errors) == 100
    assert len(str(caught.value).splitlines()) == 21
    assert str(caught.value).endswith("\nand 80 more")


def test_segments_have_names_of_their_own() -> None:
    with pytest.raises(LayerError, match="two segments are named `a`"):
        arrange([Segment("a", ()), Segment("b", ()), Segment("a", ())])
    for entries in ((generated("f", b""),), iter(())):
        with pytest.raises(LayerError, match="a segment without a name may hold directories only"):
            arrange([Segment("", entries)])


def test_streams_meet_what_is_known() -> None:
    """Whichever comes first in the layer."""
    file, below = generated("d", b""), generated("d/e", b"")

    def late(*entries: Entry, beside: Segment) -> str:
        arrangement = arrange([Segment("m", iter(entries)), beside])
        with pytest.raises(EntryError) as caught:
            list(arrangement.entries())
        return str(caught.value)

    for name in ("a", "z"):
        assert late(file, beside=Segment(name, (Directory(path="d"),))) == (
            f"`d`: is a directory in segment `{name}` and a file in segment `m`"
        )
        assert (
            late(file, beside=Segment(name, (file,))) == f"`d`: is a file in segment `{name}` and a file in segment `m`"
        )
        assert late(below, beside=Segment(name, (file,))) == "`d/e`: lies under `d`, which is a file"
        assert late(file, beside=Segment(name, (below,))) == "`d`: is a file, but other paths lie under it"
    assert late(below, file, beside=Segment("a", ())) == "`d`: is a file, but other paths lie under it"
    assert late(Directory(path="x"), beside=Segment("a", ())) == "`x`: is a directory in the stream of segment `m`"


def test_parents() -> None:
    assert parents([]) == []
    assert parents(["top"]) == []
    assert parents(["a-b/x", "a/b/c", "a/b/d"]) == ["a", "a/b", "a-b"]
