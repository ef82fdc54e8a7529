"""Fixtures of what is started once per session and stopped at its end."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import Crun
from tests.support.docker import Docker, running_docker
from tests.support.registry import Registry, running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["crun", "docker", "registry"]


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """A docker daemon."""
    with running_docker(tmp_path_factory.mktemp("docker")) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def crun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crun]:
    """Containers without a daemon."""
    directory = tmp_path_factory.mktemp("crun")
    yield Crun.available(directory)
    shutil.rmtree(directory, ignore_errors=True)  # whole root file systems, which pytest would keep


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty registry of this test's own."""
    with running_registry(tmp_path / "registry") as running:
        yield running
