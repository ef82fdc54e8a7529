from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ociforge.conda.contents import Contents, contents
from ociforge.conda.fetch import fetch
from ociforge.conda.info import Python
from ociforge.errors import PackageError
from tests.conda.environment import records
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
