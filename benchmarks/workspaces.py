"""What is built: a workspace with python, numpy, uvicorn and fastapi, on a minimal Debian."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.bases import debian_layout, debian_rootfs
from tests.support.channel import write_channel
from tests.support.lock import LockedEnvironment, write_lock
from tests.support.python import SUBDIR, python_archive
from tests.support.wheels import NUMPY, WEB, wheel_archives
from tests.support.workspaces import solved_rows

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ENVIRONMENT", "PREFIX", "Ground", "numpy_ground"]

ENVIRONMENT = "prod"
PREFIX = f"/app/.pixi/envs/{ENVIRONMENT}"

_PACKAGES = ("python", "numpy", "uvicorn", "fastapi")
_COMMAND = '["uvicorn", "my_project:app", "--host", "0.0.0.0"]'
_APPLICATION = """\
import numpy
from fastapi import FastAPI

app = FastAPI()
VERSION = {version}


@app.get("/")
def index() -> dict[str, object]:
    return {{"version": VERSION, "total": int(numpy.arange(10).sum())}}
"""


@dataclass(frozen=True, slots=True)
class Ground:
    """The directory with everything that a build starts from: `workspace`, its `channel`, and `context`.

    `context` is that of a Dockerfile which copies the installed prefix and the application.
    """

    root: Path

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    @property
    def lock(self) -> Path:
        return self.workspace / "pixi.lock"

    @property
    def context(self) -> Path:
        return self.root / "context"

    @property
    def prefix(self) -> Path:
        """The installed environment, once it has been installed."""
        return self.context / "prefix"

    @property
    def base(self) -> Path:
        """The base image, as an OCI layout."""
        return debian_layout()

    @property
    def rootfs(self) -> Path:
        """The same as a tar."""
        return debian_rootfs()

    def write_application(self, version: int) -> None:
        """Let workspace and context hold the application in this version."""
        package = self.workspace / "my_project"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(_APPLICATION.format(version=version))
        copy = self.context / "app"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.workspace, copy)

    def write_dockerfile(self, base: str) -> None:
        """The second stage of the Dockerfile that pixi's documentation gives."""
        lines = (f"FROM {base}", f"COPY prefix {PREFIX}", "COPY app /app", "WORKDIR /app", f"CMD {_COMMAND}")
        (self.context / "Dockerfile").write_text("\n".join(lines) + "\n")

    def describe(self) -> str:
        """How much there is in the installed environment."""
        files = [path for path in self.prefix.rglob("*") if path.is_file() and not path.is_symlink()]
        archives = list((self.root / "channel").glob("*/*.conda"))
        packed = sum(path.stat().st_size for path in archives)
        size = sum(path.stat().st_size for path in files)
        base = self.rootfs.stat().st_size
        return (
            f"{len(archives)} conda packages ({packed / 1e6:.0f} MB of archives),"
            f" {len(files)} files of {size / 1e6:.0f} MB installed, on a base of {base / 1e6:.0f} MB"
        )


def numpy_ground(root: Path) -> Ground:
    """Make the workspace, its channel and its lock below `root`."""
    ground = Ground(root)
    ground.workspace.mkdir(parents=True)
    channel = write_channel(root / "channel", [python_archive(), *wheel_archives((*NUMPY, *WEB))])
    (ground.workspace / "pixi.toml").write_text(_manifest(channel.url))
    locked = {
        name: LockedEnvironment(
            channels=(channel.url,), packages={SUBDIR: solved_rows(channel, channel, specs, SUBDIR)}
        )
        for name, specs in (("default", ["python"]), (ENVIRONMENT, [*_PACKAGES]))
    }
    write_lock(ground.lock, locked)
    ground.write_application(0)
    return ground


def _manifest(channel: str) -> str:
    others = "\n".join(f'{name} = "*"' for name in _PACKAGES if name != "python")
    return f"""\
[workspace]
name = "my_project"
version = "0.1.0"
channels = ["{channel}"]
platforms = ["{SUBDIR}"]

[dependencies]
python = "*"

[feature.{ENVIRONMENT}.dependencies]
{others}

[environments]
{ENVIRONMENT} = ["{ENVIRONMENT}"]

[tool.ociforge]
cmd = {_COMMAND}
"""
