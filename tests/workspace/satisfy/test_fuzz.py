"""Whatever is changed in a workspace, the check ends with a verdict or a ForgeError."""

from __future__ import annotations

import contextlib
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ociforge.errors import ForgeError
from ociforge.workspace import load, lockfile
from ociforge.workspace.satisfy import check

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2] / "workspaces"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FILES = [
    ("web", "pixi.lock"),
    ("provided", "pixi.lock"),
    ("indexes", "pixi.toml"),
    ("local", "pixi.lock"),
    ("local", "pyproject.toml"),
    ("local", "service/pyproject.toml"),
    ("places", "pixi.toml"),
    ("places", "pixi.lock"),
]
inserted = st.sampled_from(
    [
        "[",
        "https://[x",
        "@",
        "#",
        "git+",
        "direct+",
        "file://",
        "%00",
        "..",
        ">=",
        "===x",
        "1e9",
        "é",
        "://",
        "?",
        "x" * 300,
    ]
)


@given(file=st.sampled_from(FILES), at=st.floats(0, 1, exclude_max=True), length=st.integers(0, 2), text=inserted)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_some_text_changed(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[str, str], at: float, length: int, text: str
) -> None:
    workspace, name = file
    root = tmp_path_factory.mktemp("fuzz") / workspace
    shutil.copytree(ROOT / workspace, root)
    before = (root / name).read_text()
    start = int(at * len(before))
    (root / name).write_text(before[:start] + text + before[start + length :])
    with contextlib.suppress(ForgeError):
        found = load(root)
        check(found.manifest, lockfile.read(found.lock_path), now=NOW)
    shutil.rmtree(root)
