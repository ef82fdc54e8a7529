from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Literal

import pytest
from rattler import LockFile

from tests.support.python import SUBDIR
from tests.support.rattling import install, solve
from tests.support.workspaces import my_project, numpy_project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("version", [6, 7])
def test_the_lock_holds_both_environments(version: Literal[6, 7], tmp_path: Path) -> None:
    lock = LockFile.from_path(my_project(tmp_path, version=version) / "pixi.lock")

    prod = lock.environment("prod")
    assert prod is not None
    [(platform, rows)] = prod.packages_by_platform().items()
    assert platform.name == SUBDIR
    assert {"python", "uvicorn", "fastapi", "pydantic-core", "activated"} <= {row.name for row in rows}


def test_the_same_workspace_is_made_everywhere(tmp_path: Path) -> None:
    first, second = my_project(tmp_path / "a"), my_project(tmp_path / "b")

    assert (first / "pixi.lock").read_bytes() == (second / "pixi.lock").read_bytes()


def test_a_workspace_of_compiled_packages_is_locked(tmp_path: Path) -> None:
    lock = LockFile.from_path(numpy_project(tmp_path) / "pixi.lock")

    default = lock.default_environment()
    assert default is not None
    [rows] = default.packages_by_platform().values()
    assert [row.name for row in rows] == ["numpy", "python"]


def test_the_application_answers(tmp_path: Path) -> None:
    workspace = my_project(tmp_path)
    records = solve((tmp_path / "channel").as_uri(), "python", "uvicorn", "fastapi", subdir=SUBDIR)
    prefix = install(records, tmp_path / "env", cache=tmp_path / "cache", subdir=SUBDIR)
    log = tmp_path / "log"

    with log.open("wb") as output:
        process = subprocess.Popen(
            [prefix / "bin/uvicorn", "my_project:app"],
            cwd=workspace,
            env={"UVICORN_PORT": "0"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with urllib.request.urlopen(address(log)) as response:
            answer = json.load(response)
    finally:
        process.terminate()
        process.wait()

    assert answer["prefix"] == str(prefix)
    assert answer["module"] == str(workspace / "my_project/__init__.py")


def address(log: Path) -> str:
    """Where the server says it listens."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := re.search(r"running on (http://\S+)", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(log.read_text())
