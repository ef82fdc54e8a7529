"""One bundle that the tests read, spoil copies of, and import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.bundle.making import Bench

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A bench and the bundle `path` that was made there; not to be changed."""

    bench: Bench
    path: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("bundle")
    bench = Bench.make(root)
    bench.write(root / "a.bundle")
    return Made(bench=bench, path=root / "a.bundle")
