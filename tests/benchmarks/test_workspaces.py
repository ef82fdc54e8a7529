from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.workspaces import describe
from tests.benchmarks.tiny import tiny_ground

if TYPE_CHECKING:
    from pathlib import Path


def test_locks_differ_in_one_build(tmp_path: Path) -> None:
    ground = tiny_ground(tmp_path)
    first, second = (ground.lock(build).read_text() for build in (0, 1))
    assert "changing-1.0-0.conda" in first
    assert "changing-1.0-1.conda" in second
    assert "changing-1.0-1.conda" not in first
    ground.write_dependency(1)
    assert (ground.workspace / "pixi.lock").read_text() == second


def test_each_platform_has_its_own_packages(tmp_path: Path) -> None:
    ground = tiny_ground(tmp_path)
    for subdir in ("linux-64", "linux-aarch64"):
        assert [(archive.subdir, archive.record["name"]) for archive in ground.archives(subdir)] == [
            ("noarch", "changing"),
            (subdir, "native"),
        ]


def test_installed_environments_take_turns(tmp_path: Path) -> None:
    ground = tiny_ground(tmp_path)
    ground.install()
    for build in (0, 1, 1, 0):
        ground.write_dependency(build)
        assert (ground.prefix / "share/changing").read_text() == str(build)
    assert "/app/.pixi/envs/default" in (ground.prefix / "lib/native.so").read_bytes().decode(errors="replace")


def test_application_is_in_workspace_and_context(tmp_path: Path) -> None:
    ground = tiny_ground(tmp_path)
    ground.write_application(7)
    for place in (ground.workspace, ground.context / "app"):
        assert "VERSION = 7" in (place / "my_project/__init__.py").read_text()


def test_description_counts_what_is_there(tmp_path: Path) -> None:
    assert describe(tiny_ground(tmp_path)).startswith("2 conda packages (0 MB of archives), 3 files of 0 MB, on a base")
