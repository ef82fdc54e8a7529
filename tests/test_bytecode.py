"""Bytecode: valid for the interpreter it is for, the same wherever and in whatever order it is made."""

from __future__ import annotations

import importlib.util
import marshal
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

import pytest

from layers.entry import Bytes, Directory, File, Symlink
from ociforge.bytecode import Compiler, cache_directories, elsewhere, with_bytecode
from ociforge.errors import BuildError
from ociforge.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layers.entry import Entry

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
PURELIB = f"opt/env/lib/python{VERSION}/site-packages"
SOURCE = b"""
import os
WORDS = {"a", "b", "c", None, 1, 2.5, ("x", "y")}
def among(x):
    return x in {"north", "south", "east", "west", None, b"bytes"}
class C:
    def m(self): return [os, among, "shared", "shared", f"{self!r}"]
"""


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    with Compiler(Path(sys.executable), VERSION) as compiler:
        yield compiler


def test_it_is_what_the_interpreter_takes(compiler: Compiler, tmp_path: Path) -> None:
    compiled = compiler.compile(f"{PURELIB}/mod.py", SOURCE)
    assert compiled is not None
    path, data = compiled
    assert path == f"{PURELIB}/__pycache__/mod.{sys.implementation.cache_tag}.pyc"
    assert data[:16] == importlib.util.MAGIC_NUMBER + b"\1\0\0\0" + importlib.util.source_hash(SOURCE)
    code = marshal.loads(data[16:])
    assert isinstance(code, CodeType)
    assert code.co_filename == f"/{PURELIB}/mod.py"
    place = tmp_path / "__pycache__" / Path(path).name
    place.parent.mkdir()
    place.write_bytes(data)
    (tmp_path / "mod.py").write_bytes(b"raise SystemExit('the source was read')")  # unchecked: nobody looks
    command = [sys.executable, "-B", "-c", "import mod; print(mod.among('north'))"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environ.pop("PYTHONPYCACHEPREFIX", None)
    assert subprocess.check_output(command, env=environ, text=True).split() == ["True"]


def test_it_does_not_depend_on_what_was_compiled_before(compiler: Compiler) -> None:
    first = compiler.compile(f"{PURELIB}/mod.py", SOURCE)
    for number in range(5):
        assert compiler.compile(f"{PURELIB}/other.py", b"among = 'shared', 'north', %d" % number)
    assert compiler.compile(f"{PURELIB}/mod.py", SOURCE) == first
    with Compiler(Path(sys.executable), VERSION) as fresh:
        assert fresh.compile(f"{PURELIB}/mod.py", SOURCE) == first


@pytest.mark.parametrize(
    "source", [b"def (:", b"print 'python 2'", b"\x00", b"\xff", b"# coding: nonsense\n1", b"(" * 9999]
)
def test_what_is_no_python_gets_none(compiler: Compiler, source: bytes) -> None:
    assert compiler.compile(f"{PURELIB}/mod.py", source) is None
    assert compiler.compile(f"{PURELIB}/mod.py", b"pass") is not None


def file(path: str, data: bytes = b"x = 1\n") -> File:
    return File(path=path, size=len(data), content=Bytes(data), mtime=99)


def test_sources_are_followed_by_their_bytecode(compiler: Compiler) -> None:
    tag = sys.implementation.cache_tag
    entries: list[Entry] = [
        file(f"{PURELIB}/a.py"),
        file(f"{PURELIB}/shipped.py"),
        file(f"{PURELIB}/__pycache__/shipped.{tag}.pyc"),
        file(f"{PURELIB}/data.txt"),
        Symlink(path=f"{PURELIB}/link.py", target="a.py"),
        file("opt/env/bin/script.py"),
        file(f"{PURELIB}/broken.py", b"def"),
    ]
    paths = [entry.path for entry in entries]
    result = list(with_bytecode(entries, compiler.compile, paths=paths, mtime=7))
    added = f"{PURELIB}/__pycache__/a.{tag}.pyc"
    assert [entry.path for entry in result] == [paths[0], added, *paths[1:]]
    assert isinstance(result[1], File)
    assert (result[1].mtime, result[1].mode) == (7, 0o644)
    assert cache_directories(paths, 7) == (Directory(path=f"{PURELIB}/__pycache__", mtime=7),)


@pytest.mark.parametrize("directories", [False, True])
def test_a_cache_that_is_no_directory_gets_nothing(compiler: Compiler, directories: bool) -> None:
    """The sources beside it stay without bytecode, as Python itself would leave them."""
    tag = sys.implementation.cache_tag
    entries: list[Entry] = [
        file(f"{PURELIB}/file/__pycache__"),
        file(f"{PURELIB}/file/a.py"),
        Symlink(path=f"{PURELIB}/link/__pycache__", target="/tmp"),
        file(f"{PURELIB}/link/a.py"),
        file(f"{PURELIB}/plain/__pycache__/shipped.{tag}.pyc"),
        file(f"{PURELIB}/plain/a.py"),
    ]
    paths = [entry.path for entry in entries]
    listed = [*paths, f"{PURELIB}/plain/__pycache__"] if directories else paths
    result = [entry.path for entry in with_bytecode(entries, compiler.compile, paths=listed, mtime=7)]
    assert result == [*paths, f"{PURELIB}/plain/__pycache__/a.{tag}.pyc"]
    assert cache_directories(listed, 7) == (Directory(path=f"{PURELIB}/plain/__pycache__", mtime=7),)


@pytest.mark.parametrize("tag", [b"", b"../x", b"a/b", b"a.b", b"a\n", b"\xff"])
def test_a_tag_is_part_of_a_name(tmp_path: Path, tag: bytes) -> None:
    answer = tmp_path / "answer"
    answer.write_bytes(struct.pack("<II", len(tag), 0) + tag)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec cat {answer}\n")
    python.chmod(0o755)
    with Compiler(python, VERSION) as compiler, pytest.raises(BuildError, match="its cache tag is `"):
        compiler.compile(f"{PURELIB}/a.py", b"x = 1")


def test_an_interpreter_that_does_not_run(tmp_path: Path) -> None:
    for place in (tmp_path / "missing", Path("/bin/false")):
        with Compiler(place, VERSION) as compiler, pytest.raises(BuildError, match="does not run here"):
            compiler.compile(f"{PURELIB}/a.py", b"")


def test_a_compiler_that_is_killed_for_want_of_memory(tmp_path: Path) -> None:
    """It must not look like a source that is none: the image would be another one."""
    killed = "import builtins, os; builtins.compile = lambda *_, **__: os.kill(os.getpid(), 9)"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -B -c "{killed}\n$8"\n')
    python.chmod(0o755)
    with Compiler(python, VERSION) as compiler, pytest.raises(BuildError, match="it ended with status 9"):
        compiler.compile(f"{PURELIB}/a.py", b"x = 1")


@pytest.mark.parametrize(("image", "table"), [(None, "tool.ociforge"), ("web", "tool.ociforge.images.web")])
def test_another_platform_can_do_without(image: str | None, table: str) -> None:
    hint = elsewhere(Platform.parse("linux/arm64"), image).hint
    assert hint is not None
    assert hint.startswith(f'set `bytecode = "none"` under `[{table}.platform."linux/arm64"]`, or build on')


def test_an_old_interpreter_is_refused() -> None:
    with pytest.raises(BuildError, match=r"bytecode of Python 3\.10 is not reproducible"):
        Compiler(Path(sys.executable), "3.10")
