"""`ociforge check`: the verdict on stdout, the reasons on stderr, and the exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.program import ROOT, Forge, ociforge

if TYPE_CHECKING:
    from collections.abc import Callable

WORKSPACES = ROOT / "tests" / "workspaces"
FROZEN = "build what is locked with `ociforge build --frozen`"


@pytest.fixture
def workspace(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a named workspace for this test to spoil."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(WORKSPACES / name, tmp_path / name))

    return copy


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_it_fits(forge: Forge) -> None:
    done = forge("check", WORKSPACES / "overrides")
    assert (done.code, done.out, done.err) == (0, "pixi.lock fits pixi.toml\n", "")


def test_in_a_process_of_its_own(tmp_path: Path, workspace: Callable[[str], Path]) -> None:
    """From anywhere below the workspace; nothing is kept."""
    place = workspace("overrides") / "below"
    place.mkdir()
    done = ociforge("check", place, home=tmp_path)
    assert (done.code, done.out, done.err) == (0, "pixi.lock fits pixi.toml\n", "")
    assert not (tmp_path / "cache").exists()


def test_every_reason_is_told(forge: Forge, workspace: Callable[[str], Path]) -> None:
    root = workspace("overrides")
    replace(root / "pixi.toml", 'strict = "*"', 'strict = ">=2"\nflask = "*"')
    replace(root / "pixi.toml", '"3.12.*"', '"3.13.*"')
    done = forge("check", root)
    says = "`pixi.lock` does not fit the manifest: `default`, `linux-64`:"
    assert done.message.splitlines() == [
        f"{says} `python 3.13.*`: the lock has `python 3.12.4 h1_0_cpython`, `dependencies.python` asks for it",
        f"{says} `strict >=2`: the lock has `strict 1.0`, `pypi-dependencies.strict` asks for it",
        f"{says} `flask`: the lock has no such package, `pypi-dependencies.flask` asks for it",
    ]
    assert done.hint == f"run `ociforge lock`, or {FROZEN}"


def test_what_only_pixi_can_decide(forge: Forge, workspace: Callable[[str], Path]) -> None:
    root = workspace("overrides")
    replace(root / "pixi.toml", "[dependencies]", "[dev]\ntool = { path = 'tool' }\n\n[dependencies]")
    done = forge("check", root)
    assert done.message == (
        "`pixi.lock` cannot be checked against the manifest: `default`, `linux-64`:"
        " the `[dev]` dependency `tool` needs pixi-build (`dev.tool`)"
    )
    assert done.hint == f"check it with `pixi lock --check`, then {FROZEN}"


def test_json_of_a_lock_that_fits(forge: Forge) -> None:
    done = forge("check", WORKSPACES / "overrides", "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {
        "manifest": "pixi.toml",
        "lock": "pixi.lock",
        "format": 7,
        "satisfied": True,
        "reasons": [],
        "undecided": [],
    }


def test_json_of_a_lock_that_does_not(forge: Forge, workspace: Callable[[str], Path]) -> None:
    """stdout has the document, stderr the errors all the same."""
    root = workspace("overrides")
    replace(root / "pixi.toml", 'channels = ["conda-forge"]', 'channels = ["bioconda"]')
    replace(root / "pixi.toml", 'strict = "*"', 'strict = ">=2"')
    replace(root / "pixi.toml", "[dependencies]", "[dev]\ntool = { path = 'tool' }\n\n[dependencies]")
    done = forge("check", root, "--json")
    assert done.code == 1
    assert done.err.startswith("error: `pixi.lock` does not fit the manifest: `default`: the channels are ")
    assert done.err.endswith(f"\n\nhint: run `ociforge lock`, or {FROZEN}\n")
    document = json.loads(done.out)
    assert not document["satisfied"]
    assert document["reasons"] == [
        {
            "kind": "ChannelsMismatch",
            "environment": "default",
            "platform": None,
            "package": None,
            "key": "workspace.channels",
            "message": "the channels are `https://conda.anaconda.org/bioconda/` in the manifest,"
            " `https://conda.anaconda.org/conda-forge/` in the lock",
        },
        {
            "kind": "LockedPyPIVersionsMismatch",
            "environment": "default",
            "platform": "linux-64",
            "package": "strict",
            "key": "pypi-dependencies.strict",
            "message": "`strict >=2`: the lock has `strict 1.0`, `pypi-dependencies.strict` asks for it",
        },
    ]
    assert [(reason["kind"], reason["key"]) for reason in document["undecided"]] == [("DevSourceMetadata", "dev.tool")]


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_without_a_lock(forge: Forge, workspace: Callable[[str], Path], arguments: tuple[str, ...]) -> None:
    root = workspace("overrides")
    (root / "pixi.lock").unlink()
    done = forge("check", root, *arguments)
    assert done.message == f"there is no `pixi.lock` beside the manifest: `{root}/pixi.lock`"
    assert done.hint == "run `ociforge lock`"


def test_warnings(forge: Forge, workspace: Callable[[str], Path]) -> None:
    root = workspace("overrides")
    replace(root / "pixi.toml", "[workspace]", "[project]")
    done = forge("check", root)
    assert (done.code, done.out) == (0, "pixi.lock fits pixi.toml\n")
    assert done.err == "warning: `pixi.toml`: the table `project` is deprecated: call it `workspace`\n"
    assert forge("check", root, "--quiet").err == ""


def test_build_refuses_for_the_same_reasons(forge: Forge, workspace: Callable[[str], Path]) -> None:
    root = workspace("overrides")
    replace(root / "pixi.toml", 'strict = "*"', 'strict = ">=2"')
    done = forge("build", root, "--base", "scratch")
    assert done.message == forge("check", root).message
    assert done.hint == "run `ociforge lock`, or pass `--frozen` to build what is locked"
