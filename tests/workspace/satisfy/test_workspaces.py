"""The check over the named workspaces: each fits its lock, and each of its `mutations.toml` gives just its reasons."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from benchmarks.lock_check import write_workspace
from ociforge.workspace import load, lockfile
from ociforge.workspace.satisfy import check

if TYPE_CHECKING:
    from ociforge.workspace.satisfy import Verdict

ROOT = Path(__file__).parents[2] / "workspaces"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORKSPACES = sorted(path.parent.name for path in ROOT.glob("*/mutations.toml"))
MUTATIONS = [
    pytest.param(name, mutation, id=f"{name}: {title}")
    for name in WORKSPACES
    for title, mutation in tomli.loads((ROOT / name / "mutations.toml").read_text()).items()
]


def verdict(root: Path) -> Verdict:
    found = load(root)
    return check(found.manifest, lockfile.read(found.lock_path), now=NOW)


@pytest.mark.parametrize("name", WORKSPACES)
def test_it_fits(name: str) -> None:
    found = verdict(ROOT / name)
    assert (found.reasons, found.undecided) == ((), ())
    assert found.satisfied


@pytest.mark.parametrize(("name", "mutation"), MUTATIONS)
def test_mutation(tmp_path: Path, name: str, mutation: dict[str, Any]) -> None:
    shutil.copytree(ROOT / name, tmp_path / name)
    changed = tmp_path / name / mutation["file"]
    text = changed.read_text()
    assert mutation["replace"] in text
    changed.write_text(text.replace(mutation["replace"], mutation["with"]))
    expected = [
        (reason["kind"], place, reason.get("package"), reason.get("key"), reason["message"])
        for reason in mutation["reasons"]
        for place in reason["at"].split()
    ]
    found = verdict(tmp_path / name)
    assert found.undecided == ()
    assert sorted(map(str, expected)) == sorted(
        str((reason.kind, place, reason.package, reason.where, reason.message))
        for reason in found.reasons
        for place in ["/".join(part for part in (reason.environment, reason.platform) if part is not None)]
    )


@pytest.mark.parametrize("version", [4, 5, 6, 7])
class TestFormats:
    """One workspace, locked in every format: what a format does not keep is not held against it."""

    def locked(self, root: Path, version: int) -> Path:
        shutil.copytree(ROOT / "lock_formats", root / "workspace")
        (root / "workspace" / f"{version}.lock").rename(root / "workspace" / "pixi.lock")
        return root / "workspace"

    def test_fits(self, tmp_path: Path, version: int) -> None:
        workspace = self.locked(tmp_path, version)
        assert lockfile.read(workspace / "pixi.lock").version == version
        assert verdict(workspace).satisfied

    @pytest.mark.parametrize(
        ("old", "new", "kind", "since"),
        [
            ("version: 8.1.7", "version: '7.0'", "LockedPyPIVersionsMismatch", 4),
            ("- attrs>=23", "- attrs>=24", "LocalPackageMetadataMismatch", 4),
            ("tagged.git", "other.git", "LockedPyPIGitUrlMismatch", 4),
            ("?tag=v1", "?tag=v2", "LockedPyPIGitRefMismatch", 7),
            ("    indexes:\n    - https://pypi.org/simple\n", "", "IndexesMismatch", 5),
        ],
    )
    def test_does_not_fit(self, tmp_path: Path, version: int, old: str, new: str, kind: str, since: int) -> None:
        lock = self.locked(tmp_path, version) / "pixi.lock"
        lock.write_text(lock.read_text().replace(old, new))
        kinds = {reason.kind for reason in verdict(lock.parent).reasons}
        assert (kind in kinds) == (version >= since)


def test_the_lock_of_the_benchmark_fits(tmp_path: Path) -> None:
    assert write_workspace(tmp_path).read_text().count("\n") > 11_000
    assert verdict(tmp_path).satisfied
