from __future__ import annotations

import io
import json
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from tests.support.channel import write_channel
from tests.support.conda import PLACEHOLDER, CondaPackage, Form, Link, Regular, SameFile, binary
from tests.support.rattling import install, solve

if TYPE_CHECKING:
    from pathlib import Path

FORMS: tuple[Form, ...] = (".conda", ".tar.bz2")
PREFIX = "/app/.pixi/envs/prod"

PACKAGE = CondaPackage(
    name="tool",
    version="2.1",
    build="h0_3",
    build_number=3,
    depends=("data >=1",),
    files={
        "bin/tool": Regular(
            content=f"#!{PLACEHOLDER}/bin/sh\necho {PLACEHOLDER}/share\n".encode(), executable=True, placeholder="text"
        ),
        "lib/libtool.so.1": Regular(content=binary("{prefix}/share"), executable=True, placeholder="binary"),
        "lib/libtool.so": Link("libtool.so.1"),
        "share/tool/a.txt": "text\n",
        "share/tool/same.txt": SameFile("share/tool/a.txt"),
        "share/tool/old.txt": Regular(content=b"old", mtime=1_000_000_000),
    },
    activate="export TOOL=1\n",
    env_vars={"TOOL_HOME": "/x"},
    post_link="#!/bin/sh\nexit 1\n",
    constrains=("other <2",),
    run_exports={"weak": ("tool >=2",)},
)
DATA = CondaPackage(name="data", noarch="generic", license=None, files={"share/data": b"data"})


def test_placeholder_is_as_long_as_conda_builds() -> None:
    assert len(PLACEHOLDER) == 255


@pytest.mark.parametrize("form", FORMS)
def test_the_same_description_gives_the_same_bytes(form: Form) -> None:
    assert PACKAGE.archive(form) == PACKAGE.archive(form)


def test_conda_archive_has_the_members_of_format_two() -> None:
    with zipfile.ZipFile(io.BytesIO(PACKAGE.archive())) as archive:
        names = archive.namelist()
        assert names == ["metadata.json", "pkg-tool-2.1-h0_3.tar.zst", "info-tool-2.1-h0_3.tar.zst"]
        assert json.loads(archive.read("metadata.json")) == {"conda_pkg_format_version": 2}
        info = zstandard.ZstdDecompressor().decompress(archive.read(names[2]))
    with tarfile.open(fileobj=io.BytesIO(info)) as tar:
        assert "info/index.json" in tar.getnames()
        assert "info/run_exports.json" in tar.getnames()


def test_bz2_archive_keeps_links_and_times() -> None:
    with tarfile.open(fileobj=io.BytesIO(PACKAGE.archive(".tar.bz2"))) as tar:
        assert tar.getmember("share/tool/same.txt").islnk()
        assert tar.getmember("lib/libtool.so").linkname == "libtool.so.1"
        assert tar.getmember("share/tool/old.txt").mtime == 1_000_000_000


@pytest.mark.parametrize("form", FORMS)
def test_rattler_solves_and_installs(form: Form, tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "channel", [PACKAGE, DATA], form=form)

    records = solve(channel.url, "tool")
    root = install(records, tmp_path / "env", cache=tmp_path / "cache", prefix=PREFIX)

    assert {record.name.normalized for record in records} == {"tool", "data"}
    assert (root / "bin/tool").read_text() == f"#!{PREFIX}/bin/sh\necho {PREFIX}/share\n"
    assert (root / "bin/tool").stat().st_mode & 0o111
    patched = (root / "lib/libtool.so.1").read_bytes()
    assert len(patched) == len(binary("{prefix}/share"))
    assert f"{PREFIX}/share\0".encode() in patched
    assert (root / "lib/libtool.so").readlink().name == "libtool.so.1"
    assert (root / "share/tool/same.txt").read_text() == "text\n"
    assert (root / "share/tool/old.txt").stat().st_mtime == 1_000_000_000
    assert (root / "etc/conda/activate.d/tool.sh").is_file()
    assert json.loads((root / "etc/conda/env_vars.d/tool.json").read_text()) == {"TOOL_HOME": "/x"}
    assert (root / "bin/.tool-post-link.sh").is_file()
    assert (root / "share/data").read_bytes() == b"data"


def test_rattler_maps_noarch_python(tmp_path: Path) -> None:
    python = CondaPackage(name="python", version="3.11.7", build="h_cpython", files={"bin/python3.11": b"stand-in"})
    module = CondaPackage(
        name="greet",
        noarch="python",
        depends=("python >=3.11",),
        entry_points=("greet = greet:main",),
        files={"site-packages/greet.py": "def main(): ...\n"},
    )
    channel = write_channel(tmp_path / "channel", [python, module])

    root = install(solve(channel.url, "greet"), tmp_path / "env", cache=tmp_path / "cache", prefix=PREFIX)

    assert (root / "lib/python3.11/site-packages/greet.py").is_file()
    assert (root / "bin/greet").read_text().startswith(f"#!{PREFIX}/bin/python3.11\n")
