"""A real Python, fetched ahead of time, in a network namespace that has nothing but a loopback that is down."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

from tests.cli.program import ROOT
from tests.external.clients import Forge, as_root, call
from tests.support.channel import serve
from tests.support.tools import need

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registry import Registry

_QUICKLY = ("--compression", "zstd:1")


def test_a_real_python_without_a_network(project: Path, registry: Registry, tmp_path: Path) -> None:
    """The store was filled by `fetch`; packages come from a channel behind http, the base image from a registry."""
    as_root()
    workspace = tmp_path / project.name
    shutil.copytree(project, workspace)
    manifest, lock = workspace / "pixi.toml", workspace / "pixi.lock"
    here, there = Forge(home=tmp_path / "here"), Forge(home=tmp_path / "there")
    for forge in (here, there):
        forge.home.mkdir()
    with serve(project.parent / "channel") as server:
        base = f'[tool.ociforge]\nbase = "docker://{registry.host}/base/debian:latest"\n'
        text = manifest.read_text().replace('"../channel"', f'"{server.url}"').replace("[tool.ociforge]\n", base)
        manifest.write_text(text)
        lock.write_text(lock.read_text().replace("../channel/", server.url))
        here("lock", workspace, "--only", "bases")
        connected = here("build", workspace, "--locked", *_QUICKLY)["digest"]
        fetched = there("fetch", workspace)
        assert {supply["kind"] for supply in fetched["supplies"]} == {"conda", "base"}
        assert fetched["fetched"]["count"] == len(fetched["supplies"])

    build = (sys.executable, "-m", "ociforge", "build", workspace, "--locked", "--offline", "--json", *_QUICKLY)
    done = call(
        *(need("unshare"), "--net", *build, "-o", f"oci-archive:{tmp_path}/app.tar"),
        home=there.home,
        PYTHONPATH=str(ROOT),
        OCIFORGE_CACHE=str(there.home / "cache"),
    )
    assert json.loads(done.stdout)["digest"] == connected
    shutil.rmtree(tmp_path)
