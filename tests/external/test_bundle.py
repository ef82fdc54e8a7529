"""The seed's example from a bundle alone, in a network namespace that has nothing but a loopback that is down."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

from tests.cli.program import ROOT
from tests.external.clients import Forge, as_root, call
from tests.support.tools import need

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registry import Registry


def test_a_real_python_without_a_network(project: Path, forge: Forge, registry: Registry, tmp_path: Path) -> None:
    """An empty store; the channel is gone, and the registry of the base image cannot be reached."""
    as_root()
    workspace, channel = tmp_path / "here" / project.name, tmp_path / "here" / "channel"
    shutil.copytree(project, workspace)
    channel.symlink_to(project.parent / "channel")
    manifest = workspace / "pixi.toml"
    base = f'[tool.ociforge]\nbase = "docker://{registry.host}/base/debian:latest"\n'
    manifest.write_text(manifest.read_text().replace("[tool.ociforge]\n", base))
    forge("lock", workspace, "--only", "bases")
    connected = forge("build", workspace, "-e", "prod", "--locked")["digest"]
    forge("bundle", "create", workspace, "-e", "prod", "-o", tmp_path / "a.bundle")
    channel.unlink()
    before = len(registry.requests())

    build = (sys.executable, "-m", "ociforge", "build", workspace, "-e", "prod", "--locked", "--json")
    there = tmp_path / "there"
    there.mkdir()
    done = call(
        *(need("unshare"), "--net", *build, "--bundle", tmp_path / "a.bundle"),
        home=there,
        PYTHONPATH=str(ROOT),
        OCIFORGE_CACHE=str(there / "cache"),
    )
    assert json.loads(done.stdout)["digest"] == connected
    assert len(registry.requests()) == before
    shutil.rmtree(tmp_path)
