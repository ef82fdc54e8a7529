from __future__ import annotations

import contextlib
import hashlib
import random
import stat
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers.errors import LayerError
from ociforge.errors import PackageError
from ociforge.pypi.wheel import read_wheel
from tests.pypi.making import Bench, locked, tar
from tests.support.wheelbuilder import Executable, Wheel, record_row

if TYPE_CHECKING:
    from ociforge.pypi.wheel import Wheel as Read

CODE = b"x = 1\n"


def read(wheel: Wheel, directory: Path) -> Read:
    path = wheel.write(directory)
    return read_wheel(path, path.name)


def refusal(wheel: Wheel, directory: Path) -> str:
    with pytest.raises(PackageError) as caught:
        read(wheel, directory)
    assert caught.value.message.startswith(f"`{wheel.filename or f'{wheel.stem}-{wheel.tag}.whl'}`")
    return caught.value.message


def test_members_are_read_from_the_archive(tmp_path: Path) -> None:
    large = random.Random(1).randbytes(3 << 20)
    wheel = read(Wheel(files={"demo/a.py": CODE, "demo/b.so": Executable(large), "demo/ü.txt": b""}), tmp_path)
    assert (wheel.name, wheel.version, wheel.dist_info) == ("demo", "1.0", "demo-1.0.dist-info")
    assert [member.name for member in wheel.members] == [
        "demo-1.0.dist-info/METADATA",
        "demo-1.0.dist-info/WHEEL",
        "demo/a.py",
        "demo/b.so",
        "demo/ü.txt",
    ]
    a, b, empty = wheel.members[2:]
    assert (a.executable, b.executable, b.size) == (False, True, 3 << 20)
    for _ in range(2):
        with a.open() as stream:
            assert stream.read() == CODE
        with b.open() as stream, empty.open() as nothing:
            assert hashlib.sha256(stream.read()).digest() == hashlib.sha256(large).digest()
            assert nothing.read() == b""


def test_an_archive_with_something_before_it_is_read(tmp_path: Path) -> None:
    path = Wheel(files={"demo.py": CODE}).write(tmp_path)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    member = read_wheel(path, path.name).members[-1]
    with member.open() as stream:
        assert stream.read() == CODE


def test_bytecode_and_what_an_installer_writes_is_dropped(tmp_path: Path) -> None:
    files = {
        "demo/__pycache__/a.cpython-312.pyc": b"\0",
        "demo/legacy.pyc": b"\0",
        "{info}/INSTALLER": b"someone",
        "{info}/REQUESTED": b"",
        "{info}/direct_url.json": b"{}",
    }
    assert [member.name for member in read(Wheel(files=files), tmp_path).members] == [
        "demo-1.0.dist-info/METADATA",
        "demo-1.0.dist-info/WHEEL",
        "demo/legacy.pyc",
    ]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../evil.py", "is not normalised"),
        ("demo/../../evil.py", "is not normalised"),
        ("/etc/passwd", "is absolute"),
        ("demo//a.py", "is not normalised"),
        ("./demo.py", "is not normalised"),
        ("demo\\a.py", "has characters that no path of a wheel may have"),
        ("demo\n.py", "has characters that no path of a wheel may have"),
    ],
)
def test_paths_that_lead_out_or_are_ambiguous_are_refused(path: str, why: str, tmp_path: Path) -> None:
    shown = path.replace("\n", "\\n")
    assert refusal(Wheel(extra=((path, b""),)), tmp_path) == f"`demo-1.0-py3-none-any.whl`: the path `{shown}` {why}"


def test_a_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    path = Wheel(extra=(("demo_evil.py", b""),)).write(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"demo_evil.py", b"demo\0evil.py"))
    with pytest.raises(PackageError, match="has characters that no path of a wheel may have"):
        read_wheel(path, path.name)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    wheel = Wheel(files={"demo/a.py": CODE}, extra=(("demo/a.py", b"evil"),))
    assert refusal(wheel, tmp_path) == "`demo-1.0-py3-none-any.whl`: `demo/a.py` is there twice"


def test_a_file_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    wheel = Wheel(files={"demo": CODE, "demo/a.py": CODE})
    assert refusal(wheel, tmp_path) == "`demo-1.0-py3-none-any.whl`: `demo` is a file and a directory"


@pytest.mark.parametrize("path", ["{data}/purelib", "{data}/unknown/a.py", "{data}", "{data}/x/y/z"])
def test_unknown_places_of_the_data_directory_are_refused(path: str, tmp_path: Path) -> None:
    assert "is not in a known directory of `demo-1.0.data`" in refusal(Wheel(files={path: b""}), tmp_path)


def test_content_must_be_what_record_says(tmp_path: Path) -> None:
    record = {"a.py": record_row("a.py", b"other"), "b.py": ("b.py", record_row("b.py", CODE)[1], "7")}
    assert refusal(Wheel(files={"a.py": CODE, "b.py": CODE, "c.py": CODE}, record=record), tmp_path) == (
        "`demo-1.0-py3-none-any.whl`: `a.py` is not what RECORD says: its sha256 is another\n"
        "`demo-1.0-py3-none-any.whl`: `b.py` is not what RECORD says: it has 6 bytes, not 7"
    )


@pytest.mark.parametrize("algorithm", ["sha512", "sha384", "md5"])
def test_other_digests_of_record_are_checked_too(algorithm: str, tmp_path: Path) -> None:
    read(Wheel(files={"a.py": CODE}, record={"a.py": record_row("a.py", CODE, algorithm)}), tmp_path / "right")
    wrong = Wheel(files={"a.py": CODE}, record={"a.py": record_row("a.py", b"", algorithm)})
    assert f"its {algorithm} is another" in refusal(wrong, tmp_path / "wrong")


@pytest.mark.parametrize("row", [None, ("a.py", "", ""), ("/a.py", record_row("a.py", CODE)[1], "6")])
def test_record_may_say_less(row: tuple[str, str, str] | None, tmp_path: Path) -> None:
    """The archive's own digest, which the lock names, vouches for what RECORD leaves out."""
    assert read(Wheel(files={"a.py": CODE}, record={"a.py": row}), tmp_path).members[0].name == "a.py"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (("a.py", "sha256", "1"), "RECORD is malformed"),
        (("a.py", "shake_128=abc", "6"), "RECORD has a digest by `shake_128`, which is not supported"),
        (("a.py", "sha256=abc", "many"), "RECORD is malformed"),
        (("", "sha256=abc", "6"), "RECORD is malformed"),
    ],
)
def test_a_malformed_record_is_refused(row: tuple[str, str, str], why: str, tmp_path: Path) -> None:
    assert why in refusal(Wheel(files={"a.py": CODE}, record={"a.py": row}), tmp_path)


@pytest.mark.parametrize(
    ("wheel", "why"),
    [
        (Wheel(filename="demo-1.1-py3-none-any.whl"), "`METADATA` says `demo 1.0`, the file's name `demo 1.1`"),
        (Wheel(filename="other-1.0-py3-none-any.whl"), "`demo-1.0.dist-info` says `demo 1.0`, the file's name `other"),
        (Wheel(metadata="Metadata-Version: 2.1\nName: other\nVersion: 1.0\n"), "`METADATA` says `other 1.0`"),
        (Wheel(metadata="Metadata-Version: 2.1\nName: demo\n"), "`METADATA` says `demo `"),
        (Wheel(files={"x-1.0.dist-info/METADATA": b""}), "exactly one `.dist-info` directory: found `demo-1.0.dist"),
    ],
)
def test_names_and_versions_must_agree(wheel: Wheel, why: str, tmp_path: Path) -> None:
    assert why in refusal(wheel, tmp_path)


def test_spellings_of_one_name_and_version_agree(tmp_path: Path) -> None:
    wheel = Wheel(
        name="De.Mo_x",
        version="1.0.0",
        filename="de_mo_x-1.0-py3-none-any.whl",
        metadata="Metadata-Version: 2.1\nName: De-Mo.X\nVersion: 1.0.0\n",
    )
    found = read(wheel, tmp_path)
    assert (found.name, found.version) == ("de-mo-x", "1.0.0")


@pytest.mark.parametrize("missing", ["METADATA", "WHEEL", "RECORD"])
def test_a_missing_part_is_named(missing: str, tmp_path: Path) -> None:
    path = Wheel().write(tmp_path / "whole")
    target = tmp_path / path.name
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(target, "w") as part:
        for info in whole.infolist():
            if not info.filename.endswith(missing):
                part.writestr(info, whole.read(info))
    with pytest.raises(PackageError, match=f"`{path.name}` has no `demo-1.0.dist-info/{missing}`"):
        read_wheel(target, path.name)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[console_scripts]\n../../evil = demo:main\n", "names a script `../../evil`"),
        ("[console_scripts]\n.. = demo:main\n", "names a script `..`"),
        ("[console_scripts]\npython3.12 = demo:main\n", "would replace the interpreter by a script `python3.12`"),
        ("[gui_scripts]\npython = demo:main\n", "would replace the interpreter by a script `python`"),
        ("[console_scripts]\ndemo = demo\n", "is malformed"),
        ("[console_scripts]\ndemo = demo:main; import os\n", "is malformed"),
        ("[console_scripts]\ndemo = demo:%(x)s\n", "is malformed"),
        ("[console_scripts]\ndemo = a:b\ndemo = c:d\n", "is malformed"),
        ("demo = demo:main\n", "is malformed"),
    ],
)
def test_entry_points_that_cannot_be_scripts_are_refused(text: str, why: str, tmp_path: Path) -> None:
    assert why in refusal(Wheel(entry_points=text), tmp_path)


def test_all_findings_are_told_but_not_without_end(tmp_path: Path) -> None:
    wheel = Wheel(extra=tuple((f"../{number}", b"") for number in range(25)))
    lines = refusal(wheel, tmp_path).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "`demo-1.0-py3-none-any.whl`: 15 more of the kind"


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "flipped", "encrypted", "method"])
def test_what_is_no_sound_archive_is_refused(damage: str, tmp_path: Path) -> None:
    path = Wheel(files={"demo.py": random.Random(2).randbytes(5000)}).write(tmp_path)
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\1\2")
    match damage:
        case "empty":
            data.clear()
        case "text":
            data[:] = b"<html>not found</html>"
        case "cut":
            del data[-50:]
        case "flipped":
            data[2000] ^= 1
        case "encrypted":
            data[6] |= 1
            data[central + 8] |= 1
        case _:
            data[8:10] = data[central + 10 : central + 12] = b"\x63\0"
    path.write_bytes(data)
    with pytest.raises(PackageError, match=r"`demo-1\.0-py3-none-any\.whl` is damaged: "):
        read_wheel(path, path.name)


def test_damaged_lzma_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
        archive.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr("demo-1.0.dist-info/RECORD", "")
    data = bytearray(path.read_bytes())
    data[30 + len("demo-1.0.dist-info/METADATA") + 4] = 0xFF  # LZMA's properties
    path.write_bytes(data)
    with pytest.raises(PackageError, match="is damaged: "):
        read_wheel(path, path.name)


def test_a_symbolic_link_is_a_file_with_its_target_as_text(tmp_path: Path) -> None:
    """As for pip and uv: wheels cannot hold links."""
    link = zipfile.ZipInfo("demo/link")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    member = read(Wheel(extra=((link, b"/etc/passwd"),)), tmp_path).members[-1]
    assert (member.name, member.executable) == ("demo/link", False)
    with member.open() as stream:
        assert stream.read() == b"/etc/passwd"


# --- whatever a wheel holds, it is installed below the prefix or refused

NAMES = st.one_of(
    st.sampled_from(["a", "b.py", "..", ".", "", "\\", "~", "a\0b", "\n", "ü", ".wh.x", "x" * 300, "__pycache__"]),
    st.text(max_size=6),
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
SPECIAL = st.sampled_from(
    ["demo-1.0.data/", "demo-1.0.data/scripts/", "demo-1.0.data/data/", "demo-1.0.data/headers/", "demo-1.0.dist-info/"]
)
MEMBERS = st.lists(
    st.tuples(st.one_of(PATHS, st.tuples(SPECIAL, PATHS).map("".join)), st.binary(max_size=20)), max_size=6
)
TEXT = st.one_of(st.none(), st.text(max_size=60), st.sampled_from(["[console_scripts]\na = b:c\n", "a,b\n", ",,\n"]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=150, deadline=None)
@given(members=MEMBERS, entry_points=TEXT, record=TEXT)
def test_hostile_wheels_stay_below_the_prefix_or_are_refused(
    members: list[tuple[str, bytes]], entry_points: str | None, record: str | None
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        try:
            wheel = Wheel(entry_points=entry_points, extra=tuple(members)).write(directory)
        except (ValueError, IndexError):  # not even zipfile writes it
            return
        if record is not None:
            _replace_record(wheel, record)
        try:
            installation = Bench(directory).install(locked(wheel))
            tar(installation.packages)
        except (PackageError, LayerError):
            return
        for entry in installation.packages[0].entries:
            assert f"{entry.path}/".startswith("app/.pixi/envs/prod/")
            assert ".." not in entry.path.split("/")


def _replace_record(path: Path, text: str) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members:
            archive.writestr(info, text.encode() if info.filename.endswith("RECORD") else content)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_archives_never_end_in_a_traceback(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Wheel(files={"demo/a.py": CODE * 30, "{data}/scripts/x": b"#!python\n"}).write(Path(name))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        with contextlib.suppress(PackageError, LayerError):
            tar(Bench(Path(name)).install(locked(path)).packages)
