from __future__ import annotations

import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from benchmarks import registry
from benchmarks.copies import Shape, layout_of
from benchmarks.latency import running_latency
from tests.support.reading import layout_images, whole_images
from tests.support.registry import running_registry
from tests.support.tools import need

if TYPE_CHECKING:
    from pathlib import Path


def test_both_programs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("docker-registry")
    need("skopeo")
    registry.main(["--quick", "--runs=1", f"--output={tmp_path}/tables.md", f"--directory={tmp_path}"])

    lines = (tmp_path / "tables.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| 2 x")]
    assert [row[:3] for row in rows] == [
        ["2 x 0.1 MB, 10 ms", direction, program]
        for direction in ("push", "push again", "pull")
        for program in ("ociforge", "skopeo")
    ]
    assert {tuple(row[5:7]) for row in rows[1::2]} == {("1.00", "1.00")}
    assert all(float(row[5]) > 0 for row in rows)
    assert all(10 <= int(row[7]) < 64 for row in rows)
    [peaks] = [line for line in lines if line.startswith("| push | ")]
    assert 10 <= int(peaks.split("|")[2]) < 64
    assert [path.name for path in tmp_path.iterdir()] == ["tables.md"]
    assert "round 1 of 1" in capsys.readouterr().err


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SystemExit, match="2"):
        registry.main(["--quick"])
    assert "`docker-registry` is not installed" in capsys.readouterr().err


def test_layers_are_whole_and_the_same_each_time(tmp_path: Path) -> None:
    shape = Shape(count=2, size=3_000_000)
    layout = layout_of(shape, tmp_path / "a")
    [image] = layout_images(layout)["1"]

    assert whole_images(layout) == whole_images(layout_of(shape, tmp_path / "b"))
    assert layout_of(shape, tmp_path / "a") == layout
    assert [image.members(number)["random"].size for number in range(2)] == [shape.size] * 2
    assert image.diff_ids[0] != image.diff_ids[1]
    assert all(layer["size"] > shape.size for layer in image.manifest["layers"])


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (Shape(count=1, size=500_000_000), "1 x 500 MB"),
        (Shape(count=20, size=256 << 10, delay=0.06), "20 x 256 KiB, 60 ms"),
    ],
)
def test_what_a_shape_is_called(shape: Shape, text: str) -> None:
    assert str(shape) == text


def test_each_answer_is_late(tmp_path: Path) -> None:
    with running_registry(tmp_path) as running, running_latency(running.host, 0.05) as host:
        for _ in range(3):
            begin = time.monotonic()
            with urllib.request.urlopen(f"http://{host}/v2/") as response:
                assert response.status == 200
            assert 0.05 <= time.monotonic() - begin < 5
    assert len(running.requests()) == 3
