"""Contents: opened as often as needed, and never through a symbolic link."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from layers import Bytes, FileContent

if TYPE_CHECKING:
    from pathlib import Path


def test_bytes_can_be_opened_again() -> None:
    content = Bytes(b"data")
    for _ in range(2):
        with content.open() as stream:
            assert stream.read() == b"data"


def test_file_content_is_read_from_the_start_each_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    content = FileContent(path)
    for _ in range(2):
        with content.open() as stream:
            assert stream.read() == b"data"


def test_file_content_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to("secret")
    with pytest.raises(OSError) as caught:
        FileContent(tmp_path / "link").open()
    assert caught.value.errno == errno.ELOOP
