"""What the tests of the command line share."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.program import Forge
from tests.support.tiny import Tiny, tiny_base, tiny_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny workspace; not to be changed."""
    return tiny_workspace(tmp_path_factory.mktemp("tiny") / "workspace")


@pytest.fixture
def tiny(made: Tiny, tmp_path: Path) -> Tiny:
    """A copy of it for this test to spoil."""
    return made.copy(tmp_path / "workspace")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny base image, as `--base` names it; not to be changed."""
    return f"oci:{tiny_base(tmp_path_factory.mktemp('base') / 'layout')}"


@pytest.fixture
def forge(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Forge:
    """`ociforge` in this process, with an empty cache."""
    return Forge(cache=tmp_path / "cache", capture=capfd, monkeypatch=monkeypatch)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that every user can enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o777)
        yield path
