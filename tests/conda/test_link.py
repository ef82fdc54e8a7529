"""Streaming link: the same entries as rattler's own installer, byte for byte, or a refusal."""

from __future__ import annotations

import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layers import Codec, write_layer
from layers.entry import File, Hardlink
from layers.tree import Segment
from ociforge.conda.install import install
from ociforge.errors import PackageError
from tests.conda.environment import content, facts, records, without_paths_json
from tests.conda.linking import PREFIX, both, lost, segment_facts, segments, stream
from tests.support import demo
from tests.support.channel import write_channel
from tests.support.conda import PLACEHOLDER, CondaPackage, Folder, Link, Regular, SameFile, binary
from tests.support.python import python_archive
from tests.support.wheels import NUMPY, WEB, wheel_archives

if TYPE_CHECKING:
    from tests.support.conda import Archive, FileLike, Form

AT = PREFIX.strip("/")
BIG = bytes(64 << 10)
MANY = 3 << 20  # more than is held in memory of a file that streams
WIDE = PLACEHOLDER.encode("utf-16-le")


class Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)


def text(data: str | bytes, **options: Any) -> Regular:
    return Regular(content=data.encode() if isinstance(data, str) else data, placeholder="text", **options)


PYTHON = CondaPackage(
    name="python",
    version="3.12.4",
    files={"bin/python3.12": Regular(content=b"\x7fELF", executable=True), "bin/python": Link("python3.12")},
)
PURE = CondaPackage(
    name="pure",
    noarch="python",
    depends=("python",),
    files={
        "site-packages/pure/__init__.py": "",
        "site-packages/pure/again.py": SameFile("site-packages/pure/__init__.py"),
        "site-packages-not/x": "x",
        "python-scripts/old": text(f"#!{PLACEHOLDER}/bin/python -E\r\n", executable=True),
        "python-scripts/perl": text(f"#!{PLACEHOLDER}/bin/perl -w\n{PLACEHOLDER}", executable=True),
        "etc/pure": "x",
    },
    entry_points=("pure = pure:main", "another=pure.sub:Class.method"),
)
TOOL = CondaPackage(
    name="tool",
    files={
        "bin/tool": text(f"#!{PLACEHOLDER}/bin/python\nprint()\n", executable=True),
        "lib/libtool.so.1": Regular(content=binary("{prefix}/lib:{prefix}"), placeholder="binary", executable=True),
        "lib/libtool.so": Link("libtool.so.1"),
        "share/gone": Link("../nowhere//x/"),
        "share/copied": Regular(content=b"data", mtime=1_600_000_000, no_link=True),
        "share/zero": "",
        "share/ü \\ name": "x",
        "conda-meta/history": "not ours",
        "conda-meta/pixi": "not ours",
        "share/" + "long" * 40 + "/" + "name" * 40: "PAX",
        "nothing to replace": Regular(content=b"x", placeholder="binary"),
        "lies": Regular(content=b"x", sha256="AB" * 32),
    },
    activate="export TOOL=1\n",
    env_vars={"TOOL_HOME": "x"},
)
TIMES = CondaPackage(
    name="times",
    mtime=5,
    files={
        "a": Regular(content=b"a", mtime=0),
        "b": Regular(content=b"b", mtime=2**33),
        "c": Regular(content=b"c", mtime=2**31 - 2),
        "d": Regular(content=b"d", mtime=2**31 - 1),
        "e": Regular(content=b"d", mtime=2**33 - 1),
        "f": Regular(content=b"d", mtime=315_532_801),
        "l": Link("a"),
    },
)
LINKED = CondaPackage(
    name="linked",
    files={
        "z": BIG,
        "b": SameFile("z"),
        "c": SameFile("b"),
        "script": text(f"#!{PLACEHOLDER}/x"),
        "script2": SameFile("script"),
        "big": Regular(content=bytes(MANY) + binary(), placeholder="binary"),
        "big2": SameFile("big"),
    },
)
WINNER = CondaPackage(name="a-winner", files={"z": "other", "script": "other", "etc/tool": "1"})
LOSER = CondaPackage(
    name="b-loser",
    files={
        "etc/tool": text(PLACEHOLDER),
        "big": Regular(content=bytes(MANY) + binary(), placeholder="binary"),
        "z": Link("x"),
    },
)
LARGE = CondaPackage(
    name="large",
    files={
        "text": text((PLACEHOLDER + "\nabc") * 40_000),
        "strings": Regular(content=(PLACEHOLDER.encode() + b"/x\0abc" + BIG) * 50, placeholder="binary"),
        "wide": Regular(
            content=BIG * 20 + WIDE + b"/\0\0\0" + BIG * 130 + PLACEHOLDER.encode() + b"\0", placeholder="binary"
        ),
        "plain": bytes(MANY),
    },
)


@pytest.mark.parametrize("form", [".conda", ".tar.bz2"])
def test_the_same_entries_as_rattler(tmp_path: Path, form: Form) -> None:
    large = [LARGE] if form == ".conda" else []  # bzip2 takes seconds for it
    for name, ours, theirs in both([PYTHON, PURE, TOOL, TIMES, LINKED, WINNER, LOSER, *large], tmp_path, form):
        assert ours == theirs, name


def test_the_same_times(tmp_path: Path) -> None:
    for name, ours, theirs in both([PYTHON, PURE, TOOL, TIMES], tmp_path, mtime=77, clamp=1_650_000_000):
        assert ours == theirs, name


@pytest.mark.parametrize("prefix", ["/" + "p" * 109, "/" + "p" * 110, "/opt/with space", "/x", "/é"])
def test_the_same_for_any_prefix(tmp_path: Path, prefix: str) -> None:
    for name, ours, theirs in both([PYTHON, PURE, TOOL], tmp_path, prefix=prefix):
        assert ours == theirs, name


def test_a_free_threaded_interpreter(tmp_path: Path) -> None:
    python = replace(PYTHON, version="3.13.1", python_site_packages_path="lib/python3.13t/site-packages")
    for name, ours, theirs in both([python, PURE], tmp_path):
        assert ours == theirs, name


def test_packages_older_than_paths_json(tmp_path: Path) -> None:
    """They tell neither digests nor what is a link."""
    has_prefix = f'{PLACEHOLDER} text t\n"{PLACEHOLDER}" BINARY "a b"\noldest\n'
    package = CondaPackage(
        name="old",
        files={
            "a b": binary(),
            "b": SameFile("a b"),
            "bin/l": Link("../a"),
            "t": f"{PLACEHOLDER}/x",
            "oldest": "/opt/anaconda1" + "anaconda2anaconda3/x",
            "plain": bytes(MANY),
        },
        info_extra={"info/has_prefix": has_prefix.encode(), "info/no_link": b"t\nplain\n"},
    )
    rows = records(without_paths_json(write_channel(tmp_path / "channel", [package])))
    staging = tmp_path / "staging"
    staging.mkdir()
    (theirs,) = install(rows, prefix=PREFIX, subdir="linux-64", cache=tmp_path / "cache", staging=staging).packages
    (ours,) = segments(rows, tmp_path)
    assert segment_facts(ours) == facts(theirs.entries)


def test_real_packages_give_the_same_layers(tmp_path: Path) -> None:
    """The running interpreter, packages with bytecode and shared libraries, noarch ones, and those of the demo."""
    small = [package for package in demo.packages() if package.home in ("linux-64", "noarch")]
    archives: list[CondaPackage | Archive] = [python_archive(), *wheel_archives(WEB), *wheel_archives(NUMPY), *small]
    rows = records(write_channel(tmp_path / "channel", archives))
    staging = tmp_path / "staging"
    staging.mkdir()
    installation = install(rows, prefix=PREFIX, subdir="linux-64", cache=tmp_path / "cache", staging=staging)
    streams = segments(rows, tmp_path, python=installation.python, lost=lost(installation))
    codec = Codec.parse("none")
    for package, segment in zip(installation.packages, streams, strict=True):
        theirs = write_layer([Segment(package.name, package.entries)], Nowhere(), codec)
        assert write_layer([segment], Nowhere(), codec).diff_id == theirs.diff_id, package.name
    assert list((tmp_path / "scratch").iterdir()) == []


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0\n", exclude_categories=["Cs"]), min_size=1, max_size=8
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
PIECES = st.sampled_from(
    [
        PLACEHOLDER.encode(),
        PLACEHOLDER.encode()[:-1],
        PLACEHOLDER.encode()[1:],
        WIDE,
        PLACEHOLDER.encode("utf-32-be"),
        b"\0",
        b"\0\0\0\0",
        b"\n",
        b"\r\n",
        b"#!",
        b"/bin/python3",
        b" x",
        b"\xff",
        bytes(1000),
    ]
)
DATA = st.lists(PIECES | st.binary(max_size=5), max_size=12).map(b"".join)
MODES = st.sampled_from(["text", "binary", None])
REGULAR = st.builds(
    Regular,
    content=DATA,
    executable=st.booleans(),
    placeholder=MODES,
    no_link=st.booleans(),
    mtime=st.none() | st.integers(0, 2**33),
)


@st.composite
def packages(draw: st.DrawFn) -> CondaPackage:
    """Nothing lies under a file; hard links lead to files."""
    files: dict[str, FileLike] = {}
    noarch = draw(st.booleans())
    for path in draw(st.lists(PATHS, max_size=10, unique=True)):
        home = draw(st.sampled_from(["", "site-packages/", "python-scripts/"])) if noarch else ""
        plain = not {".", "..", "conda-meta"} & set(path.split("/")) and not any(
            p.startswith(".wh.") for p in path.split("/")
        )
        nested = any(f"{home}{path}/".startswith(f"{other}/") or other.startswith(f"{home}{path}/") for other in files)
        if not plain or nested:
            continue
        # A hard link has the time of its file; the archives of these tests give links the package's.
        regular = [other for other, file in files.items() if isinstance(file, Regular) and file.mtime is None]
        kind = draw(st.integers(0, 5))
        if kind == 0 and regular:
            files[f"{home}{path}"] = SameFile(draw(st.sampled_from(regular)))
        elif kind == 1:
            files[f"{home}{path}"] = Link(draw(PATHS))
        else:
            files[f"{home}{path}"] = draw(REGULAR)
    commands = draw(st.lists(st.sampled_from("abc"), unique=True))
    return CondaPackage(
        name="generated",
        noarch="python" if noarch else None,
        depends=("python",) if noarch else (),
        files=files,
        entry_points=tuple(f"cmd-{name} = m.{name}:f.g" for name in commands) if noarch else (),
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(packages(), st.sampled_from([".conda", ".tar.bz2"]), st.sampled_from(["/opt/e", PREFIX, "/" + "p" * 120]))
def test_generated_packages_give_the_same_entries(package: CondaPackage, form: Form, prefix: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        for name, ours, theirs in both([PYTHON, package], Path(root), form, prefix=prefix):
            assert ours == theirs, name


def test_an_entry_point_takes_the_place_of_a_script(tmp_path: Path) -> None:
    package = replace(PURE, files={"python-scripts/pure": "old"})
    rows = records(write_channel(tmp_path / "channel", [package]))
    (segment,) = segments(rows, tmp_path, python="3.12 lib/python3.12/site-packages")
    found = {entry.path: content(entry) for entry in segment.entries}
    assert found[f"{AT}/bin/pure"].startswith(b"#!")
    assert sorted(found) == [f"{AT}/bin/another", f"{AT}/bin/pure", f"{AT}/conda-meta/pure-1.0-0.json"]


def test_an_entry_point_that_is_named_twice(tmp_path: Path) -> None:
    package = replace(PURE, entry_points=("pure = pure:main", "other = pure:main", "pure=pure:main"))
    for name, ours, theirs in both([PYTHON, package], tmp_path):
        assert ours == theirs, name


def test_entries_come_in_the_order_of_the_archive(tmp_path: Path) -> None:
    package = replace(PURE, files={"site-packages/b": "b", "etc/c": SameFile("site-packages/b"), "x/a": "a"})
    segment = stream(package, tmp_path, python="3.12 lib/python3.12/site-packages")
    site_packages = f"{AT}/lib/python3.12/site-packages"
    assert [entry.path for entry in segment.entries] == [
        f"{site_packages}/b",
        f"{AT}/x/a",
        f"{AT}/etc/c",
        f"{AT}/bin/another",
        f"{AT}/bin/pure",
        f"{AT}/conda-meta/pure-1.0-0.json",
    ]


def test_each_iteration_reads_the_archive_anew(tmp_path: Path) -> None:
    segment = stream(TOOL, tmp_path)
    assert segment_facts(segment) == segment_facts(segment)


def test_contents_that_nobody_reads_are_still_described(tmp_path: Path) -> None:
    """The record comes last and tells the digest of what the prefix holds."""
    segment = stream(LINKED, tmp_path)
    *_, unread = segment.entries
    assert content(unread) == segment_facts(segment)[-1][-1]


def test_memory_does_not_grow_with_files(tmp_path: Path) -> None:
    data = bytes(40 << 20)
    files: dict[str, FileLike] = {
        "plain": data,
        "strings": Regular(content=data + binary(), placeholder="binary"),
    }
    segment = stream(CondaPackage(name="p", files=files), tmp_path)
    del data, files
    tracemalloc.start()
    try:
        write_layer([segment], Nowhere(), Codec.parse("none"))
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_a_second_name_whose_content_differs_is_a_file(tmp_path: Path) -> None:
    """Only the first name is patched, so the archive's content is wanted twice."""
    listed = CondaPackage(name="p", files={"a": text(PLACEHOLDER), "b": SameFile("a")})
    paths = listed.info()["info/paths.json"].decode()
    first, _, rest = paths.rpartition('"file_mode": "text",')
    package = replace(listed, info_extra={"info/paths.json": (first + rest).encode()})
    for name, ours, theirs in both([package], tmp_path):
        assert ours == theirs, name


def test_links_lead_to_the_first_name_that_is_kept(tmp_path: Path) -> None:
    segment = stream(LINKED, tmp_path, lost={"linked": frozenset({"z"})})
    found = {entry.path.removeprefix(f"{AT}/"): entry for entry in segment.entries}
    assert isinstance(found["b"], File)
    assert found["c"] == Hardlink(path=f"{AT}/c", target=f"{AT}/b")
    assert "z" not in found


def refused(package: CondaPackage, root: Path, **options: Any) -> PackageError:
    with pytest.raises(PackageError) as caught:
        segment_facts(stream(package, root, **options))
    return caught.value


def test_noarch_python_without_python(tmp_path: Path) -> None:
    error = refused(PURE, tmp_path)
    assert error.message == (
        "cannot install noarch python package `pure-1.0-0.conda`: there is no python version specified"
    )


@pytest.mark.parametrize("size", [0, MANY])
def test_a_prefix_that_does_not_fit(tmp_path: Path, size: int) -> None:
    files: dict[str, FileLike] = {"lib": Regular(content=bytes(size) + binary(), placeholder="binary")}
    package, prefix = CondaPackage(name="p", files=files), "/" + "p" * 300
    error = refused(package, tmp_path, prefix=prefix)
    with pytest.raises(PackageError) as caught:
        list(both([package], tmp_path / "reference", prefix=prefix))
    assert (error.message, error.hint) == (caught.value.message, caught.value.hint)
    assert "target prefix cannot be longer than the placeholder prefix (encoding 'utf-8')" in error.message


@pytest.mark.parametrize(
    ("listing", "why"),
    [
        ('[{"_path": "gone", "path_type": "hardlink"}]', "lists `gone`, which is not in the archive"),
        ('[{"_path": "l", "path_type": "hardlink"}]', "lists `l` as a file, but it is a symbolic link in the archive"),
        ('[{"_path": "a", "path_type": "softlink"}]', "lists `a` as a symbolic link, which it is not in the archive"),
        ('[{"_path": "a", "path_type": "hardlink"}, {"_path": "a", "path_type": "hardlink"}]', "lists `a` twice"),
        (
            '[{"_path": "l", "path_type": "softlink", "no_link": true}]',
            "wants the symbolic link `l` to be changed or copied",
        ),
    ],
)
def test_archives_that_contradict_themselves(tmp_path: Path, listing: str, why: str) -> None:
    info = {"info/paths.json": f'{{"paths": {listing}, "paths_version": 1}}'.encode()}
    error = refused(CondaPackage(name="p", files={"a": "a", "l": Link("a")}, info_extra=info), tmp_path)
    assert error.message == f"`p-1.0-0.conda` {why}"
    assert error.hint == "report it to the package's maintainers, or lock another build of it"


def test_a_path_that_is_there_twice(tmp_path: Path) -> None:
    listing = b'{"paths": [{"_path": "a", "path_type": "hardlink"}], "paths_version": 1}'
    package = CondaPackage(name="p", files={"./a": "1", "a": "2"}, info_extra={"info/paths.json": listing})
    assert refused(package, tmp_path).message == "`p-1.0-0.conda` has two members `a`"


def test_a_hard_link_has_the_time_of_its_file(tmp_path: Path) -> None:
    """rattler gives both the later one's: there is one inode."""
    package = CondaPackage(name="p", files={"a": Regular(content=b"x", mtime=5), "b": SameFile("a")})
    message = refused(package, tmp_path).message
    assert message == "`p-1.0-0.conda` has one time for `a` and another for its hard link `b`"


def test_directories_of_packages_older_than_paths_json(tmp_path: Path) -> None:
    channel = without_paths_json(write_channel(tmp_path / "channel", [CondaPackage(name="p", files={"d/e": Folder()})]))
    (segment,) = segments(records(channel), tmp_path)
    with pytest.raises(PackageError) as caught:
        segment_facts(segment)
    assert caught.value.message == "`p-1.0-0.tar.bz2` ships the directory `d/e` as such, which rattler cannot install"


def test_files_may_come_from_the_info_part(tmp_path: Path) -> None:
    listing = b'{"paths": [{"_path": "info/extra", "path_type": "hardlink"}], "paths_version": 1}'
    package = CondaPackage(name="p", info_extra={"info/paths.json": listing, "info/extra": b"x"})
    for name, ours, theirs in both([package], tmp_path):
        assert ours == theirs, name


def test_a_damaged_archive(tmp_path: Path) -> None:
    segment = stream(CondaPackage(name="p", files={"a": bytes(MANY)}), tmp_path)
    (archive,) = tmp_path.rglob("*.conda")
    data = bytearray(archive.read_bytes())
    data[data.index(b"pkg-") + 60] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(PackageError, match=r"reading `p-1\.0-0\.conda`: "):
        segment_facts(segment)
