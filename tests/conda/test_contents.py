from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from ociforge.conda.contents import SMALLEST_LINK, hard_links
from ociforge.conda.fetch import fetch
from ociforge.errors import PackageError
from tests.conda.environment import records, without_paths_json
from tests.support.channel import write_channel
from tests.support.conda import CondaPackage, FileLike, Folder, Form, SameFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BIG = bytes(SMALLEST_LINK)


def links(package: CondaPackage, tmp_path: Path, form: Form = ".conda") -> Mapping[str, str]:
    channel = write_channel(tmp_path / "channel", [package], form=form)
    (archive,) = fetch(records(channel), cache=tmp_path / "cache")
    return asyncio.run(hard_links(archive))


@pytest.mark.parametrize("form", [".conda", ".tar.bz2"])
def test_second_names_lead_to_the_first_member(tmp_path: Path, form: Form) -> None:
    files: dict[str, FileLike] = {"bin/a": SameFile("bin/b"), "bin/b": BIG, "bin/c": SameFile("bin/b"), "bin/d": "d"}
    assert links(CondaPackage(name="p", files=files), tmp_path, form) == {"bin/a": "bin/b", "bin/c": "bin/b"}


def test_equal_files_are_no_links(tmp_path: Path) -> None:
    assert links(CondaPackage(name="p", files={"a": BIG, "b": BIG}), tmp_path) == {}


def test_links_to_small_files_are_not_looked_for(tmp_path: Path) -> None:
    assert links(CondaPackage(name="p", files={"a": BIG[1:], "b": SameFile("a")}), tmp_path) == {}


@pytest.mark.parametrize("path", ["/etc/passwd", "../evil", "a/../../evil", "a//b", "./a", "", "a\0b"])
def test_paths_out_of_the_prefix_are_refused(tmp_path: Path, path: str) -> None:
    """rattler aborts the whole process for an absolute one."""
    listing = {"paths": [{"_path": path, "path_type": "hardlink"}], "paths_version": 1}
    package = CondaPackage(name="p", info_extra={"info/paths.json": json.dumps(listing).encode()})
    with pytest.raises(PackageError) as caught:
        links(package, tmp_path)
    assert caught.value.message == f"`p-1.0-0.conda` ships `{path}`, which is no plain path inside the prefix"


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError) as caught:
        links(CondaPackage(name="p", files={"var/empty": Folder()}), tmp_path)
    assert caught.value.message == (
        "`p-1.0-0.conda` ships the directory `var/empty` as such, which rattler cannot install"
    )


@pytest.mark.parametrize(
    ("listing", "why"),
    [(b"{", "Input data was truncated"), (b'{"paths": [{"_path": "\xff"}]}', "utf-8"), (b"[]", "Expected `object`")],
)
def test_an_unreadable_listing(tmp_path: Path, listing: bytes, why: str) -> None:
    package = CondaPackage(name="p", info_extra={"info/paths.json": listing})
    with pytest.raises(PackageError) as caught:
        links(package, tmp_path)
    assert caught.value.message.startswith("reading `p-1.0-0.conda`: ")
    assert why in caught.value.message


def test_what_is_no_archive_at_all(tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "channel", [CondaPackage(name="p")])
    (archive,) = fetch(records(channel), cache=tmp_path / "cache")
    archive.path.write_bytes(b"no zip")
    with pytest.raises(PackageError, match=r"reading `p-1\.0-0\.conda`: "):
        asyncio.run(hard_links(archive))


def test_a_chain_of_links_ends_at_the_file(tmp_path: Path) -> None:
    files: dict[str, FileLike] = {"a": BIG, "b": SameFile("a"), "c": SameFile("b")}
    assert links(CondaPackage(name="p", files=files), tmp_path) == {"b": "a", "c": "a"}


def test_packages_older_than_paths_json(tmp_path: Path) -> None:
    """They list no digests: their links are written as files."""
    assert links(CondaPackage(name="p", files={"a": BIG, "b": SameFile("a")}), tmp_path, ".tar.bz2") == {"b": "a"}
    channel = write_channel(tmp_path / "old", [CondaPackage(name="p", files={"a": BIG, "b": SameFile("a")})])
    (archive,) = fetch(records(without_paths_json(channel)), cache=tmp_path / "cache")
    assert asyncio.run(hard_links(archive)) == {}
