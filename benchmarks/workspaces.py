"""What is built: a workspace whose lock holds a whole channel, and a context for builders that copy an environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.archives import Measure, measure
from benchmarks.channels import SUBDIRS
from benchmarks.measure import ROOT, environment
from tests.support import bases, images
from tests.support.bases import debian_image, tiny_image
from tests.support.cache import cached, fingerprint
from tests.support.images import write_layout
from tests.support.lock import LockedEnvironment, conda_rows, write_lock

if TYPE_CHECKING:
    from tests.support.channel import Channel
    from tests.support.conda import Archive
    from tests.support.images import HandmadeImage

__all__ = ["ENVIRONMENT", "PREFIX", "Base", "Ground", "debian_base", "describe", "make_ground", "tiny_base"]

ENVIRONMENT = "default"
PREFIX = f"/app/.pixi/envs/{ENVIRONMENT}"

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base image for both platforms, as an OCI layout. `size`: bytes of one platform's layers, uncompressed."""

    title: str
    layout: Path
    size: int


def debian_base() -> Base:
    """The minimal Debian. The other platform has the same files: nothing of them is run."""
    return _base("a minimal Debian", debian_image())


def tiny_base() -> Base:
    """A base of a few files."""
    return _base("a base of a few files", tiny_image())


def _base(title: str, image: HandmadeImage) -> Base:
    size = sum(map(len, image.layers))
    both = [replace(image, architecture="amd64"), replace(image, architecture="arm64", variant="v8")]
    key = fingerprint(Path(bases.__file__), Path(images.__file__), str(size))

    def make(directory: Path) -> None:
        write_layout(both, directory)

    return Base(title=title, layout=cached(f"base-{key}", make), size=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The directory with everything that a build starts from: `workspace`, and `context` with a Dockerfile.

    The context has the application, and the installed environment once `install` was called. There are two locks, and
    two installed environments, that differ in the build of the package `changing`.
    """

    name: str
    root: Path
    channel: Channel
    changing: str
    base: Base

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    @property
    def context(self) -> Path:
        return self.root / "context"

    @property
    def prefix(self) -> Path:
        """The installed environment."""
        return self.context / "prefix"

    def lock(self, build: int = 0) -> Path:
        """The lock with this build of the package that changes."""
        return self.root / f"{build}.lock"

    def archives(self, subdir: str = SUBDIRS[0], *, build: int = 0) -> list[Archive]:
        """What an environment of everything has on a platform: one archive for each name."""
        chosen = {}
        for archive in self.channel.archives:
            name = archive.record["name"]
            fits = archive.subdir == subdir or (archive.subdir == "noarch" and name not in chosen)
            if fits and (name != self.changing or archive.record["build_number"] == build):
                chosen[name] = archive
        return [chosen[name] for name in sorted(chosen)]

    def write_application(self, version: int) -> None:
        """Let workspace and context hold the application in this version."""
        for place in (self.workspace, self.context / "app"):
            package = place / "my_project"
            package.mkdir(parents=True, exist_ok=True)
            (package / "__init__.py").write_text(_APPLICATION.format(version=version))

    def write_dependency(self, build: int) -> None:
        """Let workspace and context have this build of the package that changes."""
        shutil.copyfile(self.lock(build), self.workspace / "pixi.lock")
        if (wanted := self._installed(build)).exists():
            self.prefix.rename(self._installed(1 - build))
            wanted.rename(self.prefix)

    def write_dockerfile(self, base: str) -> None:
        """The second stage of the Dockerfile that pixi's documentation gives."""
        lines = (f"FROM {base}", f"COPY prefix {PREFIX}", "COPY app /app", "WORKDIR /app", f"CMD {_COMMAND}")
        (self.context / "Dockerfile").write_text("\n".join(lines) + "\n")

    def install(self) -> None:
        """Install both environments, hard links of one another where they are the same."""
        packages = self.root / "packages"
        for build, target in ((0, self.prefix), (1, self._installed(1))):
            command = self.install_command(target, packages, build=build)
            subprocess.run(command, cwd=ROOT, env=environment(self.root), check=True)
        shutil.rmtree(packages)

    def install_command(self, target: Path, packages: Path, *, build: int = 0) -> list[str | Path]:
        """The command line that installs into `target` with the package cache `packages`."""
        program = [sys.executable, "-m", "benchmarks.install"]
        return [*program, self.lock(build), ENVIRONMENT, SUBDIRS[0], PREFIX, target, packages]

    def _installed(self, build: int) -> Path:
        return self.root / f"prefix-{build}"


def describe(ground: Ground) -> str:
    """How much there is to build from."""
    archives = ground.archives()
    all_ = sum((measure(archive.path) for archive in archives), start=Measure(0, 0))
    packed = sum(archive.record["size"] for archive in archives)
    return (
        f"{len(archives)} conda packages ({packed / 1e6:.0f} MB of archives), {all_.files} files of"
        f" {all_.size / 1e6:.0f} MB, on {ground.base.title} of {ground.base.size / 1e6:.0f} MB"
    )


def make_ground(name: str, root: Path, channel: Channel, *, changing: str, base: Base) -> Ground:
    """Make workspace, locks and context below `root`."""
    ground = Ground(name=name, root=root, channel=channel, changing=changing, base=base)
    ground.workspace.mkdir(parents=True)
    names = sorted({archive.record["name"] for archive in channel.archives})
    (ground.workspace / "pixi.toml").write_text(_manifest(channel.url, names))
    for build in (0, 1):
        packages = {
            subdir: conda_rows(replace(channel, archives=tuple(ground.archives(subdir, build=build))))
            for subdir in SUBDIRS
        }
        write_lock(ground.lock(build), {ENVIRONMENT: LockedEnvironment(channels=(channel.url,), packages=packages)})
    ground.write_application(0)
    ground.write_dependency(0)
    return ground


def _manifest(channel: str, names: list[str]) -> str:
    dependencies = "\n".join(f'{name} = "*"' for name in names)
    return f"""\
[workspace]
name = "my_project"
version = "0.1.0"
channels = ["{channel}"]
platforms = ["{'", "'.join(SUBDIRS)}"]

[dependencies]
{dependencies}

[tool.ociforge]
cmd = {_COMMAND}
"""
