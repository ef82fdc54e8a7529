from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.channel import write_channel
from tests.support.python import SHORT, SUBDIR, python_archive
from tests.support.rattling import install, solve
from tests.support.wheels import NUMPY, WEB, wheel_archives

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wheels")
    channel = write_channel(root / "channel", [python_archive(), *wheel_archives(WEB), *wheel_archives(NUMPY)])
    records = solve(channel.url, "uvicorn", "fastapi", "numpy", subdir=SUBDIR)
    return install(records, root / "env", cache=root / "cache", subdir=SUBDIR)


def run(*command: str | Path) -> str:
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_converted_packages_import(prefix: Path) -> None:
    program = "import fastapi, numpy, pydantic_core, uvicorn; print(numpy.arange(4).sum(), fastapi.__file__)"

    total, path = run(prefix / "bin/python", "-c", program).split()

    assert total == "6"
    assert path.startswith(str(prefix))


def test_entry_points_of_both_kinds_run(prefix: Path) -> None:
    assert run(prefix / "bin/uvicorn", "--version").startswith("Running uvicorn")
    assert "numpy" in run(prefix / "bin/numpy-config", "--cflags")


def test_native_packages_ship_bytecode(prefix: Path) -> None:
    site_packages = prefix / f"lib/python{SHORT}/site-packages"

    assert [*site_packages.glob("numpy/__pycache__/__init__.*.pyc")]
    assert not [*site_packages.glob("fastapi/__pycache__/*.pyc")]
