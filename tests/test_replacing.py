"""Files that appear whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ociforge.replacing import replacing

if TYPE_CHECKING:
    from pathlib import Path


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


def test_what_is_written_replaces_the_file_that_a_link_leads_to(tmp_path: Path) -> None:
    there, link = tmp_path / "there", tmp_path / "link"
    there.write_bytes(b"old")
    link.symlink_to(there)
    with replacing(link) as file:
        file.write(b"new")
        assert there.read_bytes() == b"old"
    assert link.is_symlink() and there.read_bytes() == b"new"
