"""What packages say of themselves, and every way in which that can be wrong."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from ociforge.conda.info import INFO_FILES, EntryPoint, PathInfo, Python, is_enough, parse_info
from ociforge.errors import PackageError

PYTHON = Python.parse("3.12 lib/python3.12/site-packages")
INDEX = {"info/index.json": b"{}"}
NOARCH = {"info/index.json": b'{"noarch": "python"}'}


def listed(*paths: dict[str, Any], **documents: Any) -> dict[str, bytes]:
    files = {"info/paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode()} | INDEX
    return files | {f"info/{name}.json": json.dumps(document).encode() for name, document in documents.items()}


def path(name: str, **more: Any) -> dict[str, Any]:
    return {"_path": name, "path_type": "hardlink", **more}


def refused(files: dict[str, bytes]) -> str:
    with pytest.raises(PackageError) as caught:
        parse_info(files, "p-1.0-0.conda")
    return caught.value.message


def test_paths() -> None:
    digest = "0" * 64
    info = parse_info(
        listed(
            path("b", sha256=digest, size_in_bytes=3, prefix_placeholder="/x", file_mode="text"),
            {"_path": "a", "path_type": "softlink", "no_link": True, "inode_paths": []},
        ),
        "p-1.0-0.conda",
    )
    assert info.paths == (
        PathInfo(path="b", kind="hardlink", sha256=digest, size=3, placeholder="/x", file_mode="text"),
        PathInfo(path="a", kind="softlink", no_link=True),
    )
    assert (info.filename, info.noarch, info.entry_points) == ("p-1.0-0.conda", None, ())
    assert [place for place, _ in info.places(None)] == ["b", "a"]


@pytest.mark.parametrize("half", [{"prefix_placeholder": "/x"}, {"file_mode": "text"}])
def test_half_a_placeholder_is_none(half: dict[str, str]) -> None:
    (only,) = parse_info(listed(path("a", **half)), "p").paths
    assert (only.placeholder, only.file_mode) == (None, None)


@pytest.mark.parametrize(
    ("noarch", "expected"),
    [("python", "python"), ("generic", "generic"), (True, "generic"), (False, None), (None, None)],
)
def test_kinds_of_noarch(noarch: object, expected: str | None) -> None:
    assert parse_info(listed(index={"noarch": noarch}), "p").noarch == expected


def test_places_of_noarch_python_files() -> None:
    entry_points = ["run = a.b:main", "other=c:D.e"]
    link = {"noarch": {"type": "python", "entry_points": entry_points}, "package_metadata_version": 1}
    names = ["site-packages/a/b.py", "python-scripts/x", "site-packages-2/y", "lib/site-packages/z", "site-packages"]
    info = parse_info(listed(*map(path, names), index={"noarch": "python"}, link=link), "p")
    assert info.entry_points == (
        EntryPoint(command="run", module="a.b", function="main"),
        EntryPoint(command="other", module="c", function="D.e"),
    )
    assert [place for place, _ in info.places(PYTHON)] == [
        "lib/python3.12/site-packages/a/b.py",
        "bin/x",
        "site-packages-2/y",
        "lib/site-packages/z",
        "site-packages",
        "bin/run",
        "bin/other",
    ]
    with pytest.raises(PackageError, match="cannot install noarch python package `p`"):
        list(info.places(None))


def test_entry_points_of_other_packages_are_ignored() -> None:
    link = {"noarch": {"type": "python", "entry_points": ["run = a:b"]}}
    assert parse_info(listed(link=link), "p").entry_points == ()


def test_packages_older_than_paths_json() -> None:
    oldest = "/opt/anaconda1" + "anaconda2anaconda3"
    files = {
        "info/files": b"a\r\n b \n\nc d\ne\n",
        "info/has_prefix": b'a\n/x binary e\n"/y \\"z" TEXT "c d"\n',
        "info/no_link": b"a\n",
        "info/no_softlink": b"e\n",
    }
    assert parse_info(files | INDEX, "p").paths == (
        PathInfo(path="a", kind=None, placeholder=oldest, file_mode="text", no_link=True),
        PathInfo(path=" b ", kind=None),
        PathInfo(path="c d", kind=None, placeholder='/y "z', file_mode="text"),
        PathInfo(path="e", kind=None, placeholder="/x", file_mode="binary", no_link=True),
    )


def test_no_package_at_all() -> None:
    assert refused(INDEX) == "`p-1.0-0.conda` is no conda package: it lists no files"


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../evil", "a/../../evil", "a/..", "..", "a//b", "./a", "a/.", "a/", "", "a\0b"]
)
def test_paths_out_of_the_prefix_are_refused(name: str) -> None:
    """rattler aborts the whole process for an absolute one."""
    assert refused(listed(path(name))) == f"`p-1.0-0.conda` ships `{name}`, which is no plain path inside the prefix"


@pytest.mark.parametrize("name", ["...", "a/.b", "a/..b/c", "a/b..", ".x", "a/.../b", "a b", "a\nb"])
def test_odd_paths_are_fine(name: str) -> None:
    assert parse_info(listed(path(name)), "p").paths[0].path == name


def test_directories_are_refused() -> None:
    message = refused(listed({"_path": "var/empty", "path_type": "directory"}))
    assert message == "`p-1.0-0.conda` ships the directory `var/empty` as such, which rattler cannot install"


def test_all_problems_are_told() -> None:
    link = {"noarch": {"type": "python", "entry_points": ["../x = a:b", "a/b = a:b", " = a:b"]}}
    message = refused(listed(path("../a"), path("/b"), index={"noarch": "python"}, link=link))
    assert len(message.splitlines()) == 5


@pytest.mark.parametrize("name", ["conda-meta", "conda-meta/other-1.0-0.json", "conda-meta/.json"])
def test_records_of_other_packages_are_refused(name: str) -> None:
    """rattler and conda read all of them as soon as anything is installed."""
    assert refused(listed(path(name))) == (
        f"`p-1.0-0.conda` ships `{name}`, where the records of installed packages are"
    )


@pytest.mark.parametrize(
    "name", ["conda-meta/p-1.0-0.json", "conda-meta/state", "conda-meta/x/y.json", "conda-metal", "x/conda-meta/y.json"]
)
def test_other_names_in_conda_meta_are_fine(name: str) -> None:
    assert parse_info(listed(path(name)), "p-1.0-0.conda").paths[0].path == name


def test_a_path_is_listed_once() -> None:
    message = refused(listed(path("a"), path("b"), path("a"), {"_path": "b", "path_type": "softlink"}))
    assert [line.strip() for line in message.splitlines()[-2:]] == [
        "`p-1.0-0.conda` lists `a` twice",
        "`p-1.0-0.conda` lists `b` twice",
    ]


def with_entry_points(*entry_points: str) -> dict[str, bytes]:
    return listed(index={"noarch": "python"}, link={"noarch": {"type": "python", "entry_points": entry_points}})


def test_the_same_entry_point_twice_is_one() -> None:
    info = parse_info(with_entry_points("a = b:c", "x = b:c", "a=b : c"), "p")
    assert [entry_point.command for entry_point in info.entry_points] == ["a", "x"]


def test_an_entry_point_is_one_script() -> None:
    """rattler writes one after the other, in any order."""
    assert refused(with_entry_points("a = b:c", "a = b:d")) == "`p-1.0-0.conda` has different entry points `a`"


@pytest.mark.parametrize("command", ["a b", "é", "-a", "~", "a\nb", "a..", 'a"b'])
def test_odd_commands_are_fine(command: str) -> None:
    (entry_point,) = parse_info(with_entry_points(f"{command} = b:c"), "p").entry_points
    assert entry_point.command == command


@pytest.mark.parametrize("command", ["", ".", "..", "...", ".a", "a/b", "/a", "a\\b", "a\0b"])
def test_commands_that_are_no_name(command: str) -> None:
    message = refused(with_entry_points(f"{command} = b:c"))
    assert message == f"`p-1.0-0.conda` has the entry point `{command}`, which is no name for a script"


@pytest.mark.parametrize("name", ["", "a b", "é", "1a", "a..b", ".a", "a.", "a-b", "a()", "x [extra]", "a\nb"])
@pytest.mark.parametrize("shape", ["a = {}:b", "a = b:{}"])
def test_entry_points_name_python(shape: str, name: str) -> None:
    """As with rattler: what else they say would be run."""
    assert refused(with_entry_points(shape.format(name))).endswith(
        f"is no entry point: `{name}` is no dotted name of Python"
    )


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"info/paths.json": b"{"}, "Input data was truncated"),
        ({"info/paths.json": b'{"paths": [{"_path": "\xff"}]}'}, "utf-8"),
        ({"info/paths.json": b"[]"}, "Expected `object`"),
        (listed({"_path": "a"}), "missing required field `path_type`"),
        (listed({"_path": "a", "path_type": None}), "has a `path_type` of null"),
        (listed(path("a", sha256="x")), "Expected `str` matching regex"),
        (listed(path("a", size_in_bytes=-1)), "Expected `int` >= 0"),
        (listed(path("a", file_mode="elf")), "Invalid enum value 'elf'"),
        (listed(index={"noarch": "ruby"}), "Invalid enum value 'ruby'"),
        ({"info/files": b"a\n", "info/has_prefix": b"/x text a b\n"}, "has a line that cannot be read: `/x text a b`"),
        ({"info/files": b"\xff"}, "utf-8"),
        (listed(index={"noarch": "python"}, link={"noarch": {"type": "generic"}}), "Invalid enum value 'generic'"),
        (
            listed(index={"noarch": "python"}, link={"noarch": {"type": "python", "entry_points": ["a = b"]}}),
            "`a = b` is no entry point: expected `command = module:function`",
        ),
    ],
)
def test_documents_that_cannot_be_read(files: dict[str, bytes], why: str) -> None:
    message = refused(files)
    assert message.startswith("reading `p-1.0-0.conda`: ")
    assert why in message


def test_a_placeholder_with_a_nul() -> None:
    message = refused(listed(path("a", prefix_placeholder="/x\0", file_mode="binary")))
    assert message == "`p-1.0-0.conda` has a placeholder with a NUL in `a`"


def test_when_there_is_no_need_to_read_on() -> None:
    files = listed(path("a"))
    assert is_enough(files)
    assert is_enough(files | {"info/index.json": b'{"depends": ["python"]}'})
    assert is_enough(files | {"info/index.json": b"{"})
    assert not is_enough({"info/paths.json": b""})
    assert not is_enough(INDEX | {"info/files": b""})
    assert not is_enough(files | NOARCH)
    assert is_enough(files | NOARCH | {"info/link.json": b""})
    assert set(files) < set(INFO_FILES)


def test_an_interpreter_is_its_text() -> None:
    assert str(PYTHON) == "3.12 lib/python3.12/site-packages"
    assert PYTHON.executable == "bin/python3.12"


def test_many_paths_take_little_memory() -> None:
    """Parsed as plain objects, a listing takes ten times its size."""
    files = listed(*(path(f"lib/python3.12/site-packages/a/b{n}.py", sha256=f"{n:064}") for n in range(20_000)))
    size = len(files["info/paths.json"])
    tracemalloc.start()
    try:
        info = parse_info(files, "p")
        assert tracemalloc.get_traced_memory()[1] < 4 * size
    finally:
        tracemalloc.stop()
    assert len(info.paths) == 20_000
