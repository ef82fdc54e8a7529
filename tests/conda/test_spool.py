from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from ociforge.conda.spool import HELD, Passing, hold, new_spool, read_back

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("size", [0, 5, HELD, HELD + 1])
def test_a_buffer_of_any_size(tmp_path: Path, size: int) -> None:
    content = b"x" * size
    with hold((content[start : start + HELD] for start in range(0, size, HELD)), tmp_path) as data:
        assert len(data) == size
        assert data.find(b"x", max(0, size - 1)) == size - 1
        assert data[:4] == content[:4]
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_read_back_once(tmp_path: Path) -> None:
    spool = new_spool(tmp_path)
    spool.write(b"ab")
    spool.write(bytes(HELD))
    assert b"".join(read_back(spool)) == b"ab" + bytes(HELD)
    assert spool.closed


@pytest.mark.parametrize(
    "read",
    [
        lambda content: [content.read(2), content.read(100), content.read(1), content.read(100), content.read(1)],
        lambda content: content.read(),
        lambda content: content.read(1),
        lambda content: None,
    ],
)
def test_passing_content_is_measured_whoever_reads_it(read: Callable[[object], object]) -> None:
    measured: list[str] = []
    content = Passing(iter([b"abc", b"", b"def"]), measured.append)
    with content.open() as stream:
        read(stream)
    content.drain()
    assert measured == [hashlib.sha256(b"abcdef").hexdigest()]


def test_pieces_are_at_most_as_long_as_asked_for() -> None:
    content = Passing(iter([b"abc", b"", b"def"]), None)
    assert [content.read(2) for _ in range(5)] == [b"ab", b"c", b"de", b"f", b""]
