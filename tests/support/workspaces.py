"""Workspaces to build images of."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.support.channel import Channel, write_channel
from tests.support.conda import CondaPackage
from tests.support.lock import Locked, LockedConda, LockedEnvironment, LockedPypi, conda_rows, write_lock
from tests.support.python import SUBDIR, python_archive
from tests.support.rattling import solve
from tests.support.wheels import NUMPY, WEB, wheel_archives

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.pypi import Index

__all__ = ["ACTIVATED", "docker_project", "lock_workspace", "my_project", "numpy_project", "solved_rows"]

_SOURCES = Path(__file__).parent.parent / "workspaces"

# What a package can ask of activation: a script and variables.
ACTIVATED = CondaPackage(
    name="activated",
    noarch="generic",
    files={"share/activated": b"data\n"},
    activate='export ACTIVATED_BY_SCRIPT="$CONDA_PREFIX/share/activated"\n',
    env_vars={"ACTIVATED_BY_FILE": "1"},
)


def my_project(directory: Path, *, version: Literal[6, 7] = 7) -> Path:
    """A web application like that of pixi's own container example: a workspace with a channel and a lock.

    The workspace is `directory`/my_project, its channel lies beside it. Lock and manifest name the channel relative
    to themselves, so their bytes are the same wherever they are. Environment `prod` has python, uvicorn and fastapi.
    """
    workspace = directory / "my_project"
    shutil.copytree(_SOURCES / "my_project", workspace, ignore=shutil.ignore_patterns("__pycache__"))
    manifest = workspace / "pixi.toml"
    manifest.write_text(manifest.read_text().replace("linux-64", SUBDIR))
    channel = write_channel(directory / "channel", [python_archive(), *wheel_archives(WEB), ACTIVATED])
    environments = {"default": ["python"], "prod": ["python", "uvicorn", "fastapi", "activated"]}
    lock_workspace(workspace, channel, environments, version=version)
    return workspace


def docker_project(directory: Path, index: Index) -> Path:
    """A package with an environment to develop in and one to serve, solved together: pixi's second container example.

    The workspace is `directory`/docker_project, its channel, which has python alone, lies beside it. All else comes
    from `index`. Environment `default` has flask, pytest and the package itself as editable, `prod` flask, gunicorn
    and the package.
    """
    workspace = directory / "docker_project"
    shutil.copytree(_SOURCES / "docker_project", workspace, ignore=shutil.ignore_patterns("__pycache__"))
    manifest = workspace / "pyproject.toml"
    text = manifest.read_text().replace('"conda-forge"', '"../channel"')
    text = re.sub("^platforms = .*$", f'platforms = ["{SUBDIR}"]', text, flags=re.MULTILINE)
    manifest.write_text(f'{text}\n[tool.pixi.pypi-options]\nindex-url = "{index.url}"\n')
    channel = write_channel(directory / "channel", [python_archive()])
    placed = Channel(path=channel.path, url="../channel/", archives=channel.archives)
    own = LockedPypi(
        name="docker-project",
        version="0.1.0",
        location="./",
        requires_dist=("flask>=2", 'gunicorn ; extra == "serve"'),
        requires_python=">=3.11",
    )

    def environment(*requirements: str) -> LockedEnvironment:
        rows: tuple[Locked, ...] = (*conda_rows(placed), own, *index.rows(*requirements))
        return LockedEnvironment(channels=(placed.url,), indexes=(index.url,), packages={SUBDIR: rows})

    write_lock(
        workspace / "pixi.lock",
        {"default": environment("flask>=2", "pytest"), "prod": environment("flask>=2", "gunicorn")},
    )
    return workspace


def numpy_project(directory: Path) -> Path:
    """A workspace of python and numpy: the `default` environment has compiled code and some 60 MB."""
    workspace = directory / "numpy_project"
    workspace.mkdir(parents=True)
    (workspace / "pixi.toml").write_text(_NUMPY_MANIFEST)
    channel = write_channel(directory / "channel", [python_archive(), *wheel_archives(NUMPY)])
    lock_workspace(workspace, channel, {"default": ["python", "numpy"]})
    return workspace


_NUMPY_MANIFEST = f"""\
[workspace]
name = "numpy_project"
channels = ["../channel"]
platforms = ["{SUBDIR}"]

[dependencies]
python = "*"
numpy = "*"
"""


def lock_workspace(
    workspace: Path, channel: Channel, environments: Mapping[str, list[str]], *, version: Literal[6, 7] = 7
) -> Path:
    """Write `pixi.lock` for specs per environment, on this machine's platform, from a channel beside the workspace."""
    placed = Channel(path=channel.path, url=f"../{channel.path.name}/", archives=channel.archives)
    locked = {
        name: LockedEnvironment(channels=(placed.url,), packages={SUBDIR: solved_rows(channel, placed, specs, SUBDIR)})
        for name, specs in environments.items()
    }
    return write_lock(workspace / "pixi.lock", locked, version=version)


def solved_rows(channel: Channel, placed: Channel, specs: list[str], subdir: str) -> tuple[LockedConda, ...]:
    """What rattler picks of `channel`, as rows that name it as `placed` does."""
    picked = {record.file_name for record in solve(channel.url, *specs, subdir=subdir)}
    return tuple(
        LockedConda(location=placed.url_of(archive), channel=placed.url, record=archive.record)
        for archive in sorted(placed.archives, key=lambda archive: archive.filename)
        if archive.filename in picked and archive.subdir in (subdir, "noarch")
    )
