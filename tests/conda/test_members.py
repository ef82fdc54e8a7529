"""Archives that contradict themselves: refused by both installers, by the same words, before rattler has touched them.

What rattler would do to most of them is to copy a file of this machine into the image.
"""

from __future__ import annotations

import copy
import tarfile
from typing import TYPE_CHECKING

import pytest

from ociforge.conda.install import install
from ociforge.errors import PackageError
from tests.conda.environment import records
from tests.conda.linking import PREFIX, segment_facts, segments
from tests.conda.odd import OddPackage, directory, file, hard, listing, other, soft
from tests.support.channel import write_channel
from tests.support.conda import PLACEHOLDER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conda.odd import Part
    from tests.support.conda import Form

X: dict[str, object] = {"_path": "x"}
LINK = X | {"path_type": "softlink"}
TEXT = {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
COPIED = "wants the symbolic link `x` to be changed or copied"

CASES: list[tuple[str, list[dict[str, object]], list[Part]]] = [
    ("lists `x` as a file, but it is a symbolic link in the archive", [X], [soft("x", "SECRET")]),
    ("lists `x` as a file, but it is a symbolic link in the archive", [X | TEXT], [soft("x", "SECRET")]),
    ("lists `x` as a file, but it is a symbolic link in the archive", [X | {"no_link": True}], [soft("x", "SECRET")]),
    (COPIED, [LINK | TEXT], [soft("x", "SECRET")]),
    (COPIED, [LINK | TEXT | {"file_mode": "binary"}], [soft("x", "SECRET")]),
    (COPIED, [LINK | {"no_link": True}], [soft("x", "SECRET")]),
    (COPIED, [LINK | {"no_link": True}], [soft("l", "SECRET"), hard("x", "l")]),
    ("lists `x` as a symbolic link, which it is not in the archive", [LINK], [file("x")]),
    ("lists `x` as a symbolic link, which it is not in the archive", [LINK], [file("y"), hard("x", "y")]),
    ("lists `x`, which is not in the archive", [X], []),
    ("lists `d/secret`, which is not in the archive", [{"_path": "d/secret"}], [soft("d", "FOLDER")]),
    ("has a hard link `x` to `SECRET`, which does not come before it", [X], [hard("x", "SECRET")]),
    ("has a hard link `x` to `../../etc/passwd`, which does not come before it", [X], [hard("x", "../../etc/passwd")]),
    (
        "has a hard link `x` to `d/secret`, which does not come before it",
        [X],
        [soft("d", "FOLDER"), hard("x", "d/secret")],
    ),
    ("has a hard link `x` to `y`, which does not come before it", [X], [hard("x", "y"), file("y")]),
    ("has one time for `y` and another for its hard link `x`", [X], [file("y", mtime=5), hard("x", "y")]),
    ("has two members `x`", [X], [file("x", b"1"), file("x", b"2")]),
    ("has two members `x`", [X], [file("x"), soft("x", "SECRET")]),
    ("ships the directory `x` as such, which rattler cannot install", [X], [directory("x")]),
    ("ships `x` with a time before 1970", [X], [file("x", mtime=-1)]),
    ("ships the link `x`, whose target is not UTF-8", [LINK], [soft("x", "\udcff")]),
    *(
        ("ships `x`, which is no regular file", [X], [other("x", kind)])
        for kind in (tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"V")
    ),
]


def refusals(package: OddPackage, root: Path, form: Form) -> list[tuple[str, str | None]]:
    """What both installers say; whatever rattler has been given is below `root / "staging"`."""
    rows = records(write_channel(root / "channel", [package], form=form))
    staging = root / "staging"
    staging.mkdir()
    said = []
    with pytest.raises(PackageError) as streamed:
        segment_facts(segments(rows, root)[0])
    said.append((streamed.value.message, streamed.value.hint))
    with pytest.raises(PackageError) as installed:
        install(rows, prefix=PREFIX, subdir="linux-64", cache=root / "cache", staging=staging, retries=0)
    said.append((installed.value.message, installed.value.hint))
    assert list(staging.iterdir()) == []
    return said


@pytest.mark.parametrize("form", [".conda", ".tar.bz2"])
@pytest.mark.parametrize(("why", "paths", "members"), CASES)
def test_both_installers_refuse(
    tmp_path: Path, why: str, paths: list[dict[str, object]], members: list[Part], form: Form
) -> None:
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "secret").write_text(PLACEHOLDER)
    here = {"SECRET": f"{folder}/secret", "FOLDER": f"{folder}"}
    package = OddPackage(name="p", info_extra=listing(*paths), members=tuple(_here(part, here) for part in members))
    expected = f"`p-1.0-0{form}` {why}".replace("SECRET", here["SECRET"].lstrip("/"))
    hint = "report it to the package's maintainers, or lock another build of it"
    assert refusals(package, tmp_path, form) == [(expected, hint)] * 2


def _here(part: Part, names: dict[str, str]) -> Part:
    """`part` with a link's target on this machine."""
    member = copy.copy(part[0])  # the cases are shared
    member.linkname = names.get(member.linkname, member.linkname)
    return member, part[1]


@pytest.mark.parametrize("line", ["x", "d/secret"])
def test_packages_older_than_paths_json(tmp_path: Path, line: str) -> None:
    """They do not tell what is a link."""
    (tmp_path / "secret").write_text(PLACEHOLDER)
    extra = {"info/files": f"{line}\n".encode(), "info/no_link": b"x\n", "info/paths.json": b""}
    package = OddPackage(
        name="p", info_extra=extra, members=(soft("x", f"{tmp_path}/secret"), soft("d", f"{tmp_path}"))
    )
    (first, _), (second, _) = refusals(package, tmp_path, ".tar.bz2")
    assert first == second
    assert first.removeprefix("`p-1.0-0.tar.bz2` ") in (COPIED, "lists `d/secret`, which is not in the archive")
