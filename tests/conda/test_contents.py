from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest

from ociforge.conda.contents import Contents, contents
from ociforge.conda.fetch import fetch
from ociforge.conda.info import Python
from ociforge.errors import PackageError
from tests.conda.environment import records
from tests.conda.odd import OddPackage, directory, file, hard, listing, other, soft
from tests.support.channel import write_channel
from tests.support.conda import CondaPackage, FileLike, Folder, Form, SameFile

if TYPE_CHECKING:
    from pathlib import Path


def looked_through(package: CondaPackage, tmp_path: Path, form: Form = ".conda") -> Contents:
    channel = write_channel(tmp_path / "channel", [package], form=form)
    (archive,) = fetch(records(channel), cache=tmp_path / "cache")
    return contents(archive)


@pytest.mark.parametrize("form", [".conda", ".tar.bz2"])
def test_second_names_lead_to_the_first_member(tmp_path: Path, form: Form) -> None:
    files: dict[str, FileLike] = {"a": SameFile("b"), "b": b"b", "c": SameFile("a"), "d": "d"}
    placed = looked_through(CondaPackage(name="p", files=files), tmp_path, form).placed(None)
    assert {path: place.member for path, place in placed.items()} == {"a": "b", "b": "b", "c": "b", "d": "d"}
    assert sorted(placed, key=lambda path: placed[path].position) == ["b", "d", "a", "c"]


def test_noarch_files_are_known_by_their_place(tmp_path: Path) -> None:
    package = CondaPackage(name="p", noarch="python", files={"site-packages/a": "a", "etc/b": "b"})
    placed = looked_through(package, tmp_path).placed(Python.parse("3.12 lib/python3.12/site-packages"))
    assert {path: place.member for path, place in placed.items()} == {
        "etc/b": "etc/b",
        "lib/python3.12/site-packages/a": "site-packages/a",
    }


def test_what_rattler_cannot_install_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"`p-1\.0-0\.conda` ships the directory `var/empty` as such"):
        looked_through(CondaPackage(name="p", files={"var/empty": Folder()}), tmp_path)


def test_what_is_no_archive_at_all(tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "channel", [CondaPackage(name="p")])
    (archive,) = fetch(records(channel), cache=tmp_path / "cache")
    archive.path.write_bytes(b"no zip")
    with pytest.raises(PackageError, match=r"reading `p-1\.0-0\.conda`: "):
        contents(archive)


EVIL = b'{"paths": [{"_path": "../../../../evil", "path_type": "hardlink"}], "paths_version": 1}'


@pytest.mark.parametrize("form", [".conda", ".tar.bz2"])
@pytest.mark.parametrize(
    ("why", "members"),
    [
        ("has two members `info/paths.json`", [file("info/paths.json", EVIL)]),
        ("has two members `y`", [file("y"), file("y")]),
        ("has two members `y`", [directory("y"), soft("y", "/tmp")]),
        ("has two members `y`", [soft("y", "/tmp"), directory("y")]),
        ("has a member `../../y`, which is no plain path", [file("../../y")]),
        ("has a member `../y`, which is no plain path", [directory("../y")]),
        ("has a member `.`, which is no plain path", [soft("./", "/tmp")]),
        ("has a hard link `y` to `s`, which is no file", [soft("s", "x"), hard("y", "s")]),
        ("has a hard link `y` to `p`, which is no file", [other("p", tarfile.FIFOTYPE), hard("y", "p")]),
        ("has members below `s`, which is no directory", [soft("s", "/tmp"), file("s/evil")]),
        ("has members below `x`, which is no directory", [file("x/y/z")]),
        ("has a member `info/link.json`, which is no file", [soft("info/link.json", "../x")]),
        ("has a member `info/files`, which is no file", [directory("info/files/")]),
        ("has a member `info/no_link`, which is no file", [other("info/no_link", b"V")]),
    ],
)
def test_what_rattler_could_take_for_something_else(
    tmp_path: Path, why: str, members: list[tuple[tarfile.TarInfo, bytes]], form: Form
) -> None:
    """It unpacks all members, also those that the package does not list."""
    extra = listing({"_path": "x"}) | {"info/files": b""}
    with pytest.raises(PackageError) as caught:
        looked_through(OddPackage(name="p", info_extra=extra, members=(file("x"), *members)), tmp_path, form)
    assert caught.value.message == f"`p-1.0-0{form}` {why}"
    assert caught.value.hint == "build without `--installer rattler`, and report it to the package's maintainers"


def test_members_that_are_fine(tmp_path: Path) -> None:
    members = (directory("./"), directory("d"), directory("d/"), file("./d/x"), soft("s", "/tmp"), hard("y", "d/x"))
    package = OddPackage(name="p", info_extra=listing({"_path": "d/x"}), members=members)
    assert {"d/x", "s", "y"} < looked_through(package, tmp_path).members.keys()


def test_where_rattler_puts_files_aside(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="ships `__clobbers__/p/x`, where rattler puts files aside"):
        looked_through(CondaPackage(name="p", files={"__clobbers__/p/x": ""}), tmp_path)
