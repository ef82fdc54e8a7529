"""`ociforge cache`: the store's size, told and bounded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ociforge.cli import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    (place / "blobs" / "sha256").mkdir(parents=True)
    (place / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"x" * 2_000_000)
    monkeypatch.setenv("OCIFORGE_CACHE", str(place))
    return place


def test_info_tells_where_and_how_much(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "info"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{cache}\n")
    assert "    2.0 MB        1  layers and blobs of base images" in out
    assert run(["cache", "info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kinds"]["blobs"] == {"count": 1, "size": 2_000_000}


@pytest.mark.parametrize(
    ("size", "left"), [("0", 0), ("1.9MB", 0), ("2000000", 1), ("2mb", 1), ("1 GiB", 1), ("1.5k", 0)]
)
def test_prune_keeps_to_the_size(cache: Path, size: str, left: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "prune", "--max-size", size]) == 0
    assert len(list((cache / "blobs" / "sha256").iterdir())) == left
    assert ("removed 0 files, 0 B; 2.0 MB are left" if left else "removed 1 file, 2.0 MB; 0 B are left") in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("size", ["", "x", "-1", "5 miles", "1e9", "GB"])
def test_what_is_no_size_is_wrong_usage(cache: Path, size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "prune", "--max-size", size]) == 2
    assert "expected one such as `20GB`" in capsys.readouterr().err
    assert run(["cache", "prune"]) == 2
