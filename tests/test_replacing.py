"""Files that appear whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ociforge.replacing import appearing, replacing

if TYPE_CHECKING:
    from collections.abc import Iterator

_WRITER = """
import os, sys
from pathlib import Path
from ociforge.replacing import appearing, replacing
if "old" in sys.argv:
    os.O_TMPFILE = os.O_DIRECTORY
place = Path(sys.argv[1])
if "directory" in sys.argv:
    with appearing(place) as new:
        (new / "half").write_bytes(b"half")
        print("half", flush=True)
        sys.stdin.read()
else:
    with replacing(place) as file:
        file.write(b"half")
        file.flush()
        print("half", flush=True)
        sys.stdin.read()
        file.write(b", and the other half")
"""


@pytest.fixture(params=["nameless", "old"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With files that have no name, and as on a kernel that has none: to it `O_TMPFILE` is `O_DIRECTORY`."""
    if request.param == "old":
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    return str(request.param)


@contextmanager
def half_written(path: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has written half of `path`, and will write the rest when its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, path, *words],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        yield process


@pytest.mark.parametrize("there", [True, False])
def test_what_a_killed_writer_had_begun_does_not_stay(tmp_path: Path, kind: str, there: bool) -> None:
    path = tmp_path / "file"
    if there:
        path.write_bytes(b"old")
    with half_written(path, kind) as process:
        process.send_signal(signal.SIGKILL)
    left = [found.name for found in tmp_path.iterdir() if found != path]
    assert len(left) == (kind == "old")
    assert (path.read_bytes() if path.exists() else None) == (b"old" if there else None)
    with replacing(path) as file:
        file.write(b"new")
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"new"


def test_what_a_writer_is_at_is_left_alone(tmp_path: Path, kind: str) -> None:
    with half_written(tmp_path / "one", kind) as process:
        with replacing(tmp_path / "two") as file:
            file.write(b"2")
        assert {found.name for found in tmp_path.glob("[!.]*")} == {"two"}
        process.communicate("")
        assert process.returncode == 0
    assert (tmp_path / "one").read_bytes() == b"half, and the other half"


def test_a_directory_that_a_killed_writer_had_begun_does_not_stay(tmp_path: Path) -> None:
    with half_written(tmp_path / "a", "directory") as process:
        with appearing(tmp_path / "b"):
            assert not (tmp_path / "b").exists()
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(signal.SIGKILL)
    with appearing(tmp_path / "a") as new:
        (new / "whole").touch()
    assert {str(found.relative_to(tmp_path)) for found in tmp_path.rglob("*")} == {"a", "a/whole", "b"}


def test_what_fails_vanishes(tmp_path: Path, kind: str) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file") as file:
            file.write(b"x")
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), appearing(tmp_path / "directory") as new:
        (new / "file").touch()
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_permissions_follow_the_umask(tmp_path: Path, kind: str) -> None:
    before = os.umask(0o027)
    try:
        for path, mode in ((tmp_path / "a", 0o666), (tmp_path / "b", 0o600)):
            for _ in range(2):  # new, and in the place of another
                with replacing(path, mode=mode):
                    pass
            assert path.stat().st_mode & 0o777 == mode & ~0o027
    finally:
        os.umask(before)


def test_errors_name_what_was_asked_for(tmp_path: Path, kind: str) -> None:
    (tmp_path / "directory").mkdir()
    for path, error in (
        (tmp_path / "directory", IsADirectoryError),
        (tmp_path / "none/file", FileNotFoundError),
        (Path("/proc/file"), FileNotFoundError),
    ):
        with pytest.raises(error) as caught, replacing(path):
            pass
        assert caught.value.filename == str(path)


def test_a_pipe_or_device_is_not_replaced(tmp_path: Path) -> None:
    """Neither by its name nor by a link to it; root could."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(FileExistsError, match="not a regular file"), replacing(path) as file:
            file.write(b"x")
    assert pipe.is_fifo()
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "link"}


def test_what_is_written_replaces_the_file_that_a_link_leads_to(tmp_path: Path, kind: str) -> None:
    there, link = tmp_path / "there", tmp_path / "link"
    there.write_bytes(b"old")
    link.symlink_to(there)
    with replacing(link) as file:
        file.write(b"new")
        assert there.read_bytes() == b"old"
    assert link.is_symlink() and there.read_bytes() == b"new"
