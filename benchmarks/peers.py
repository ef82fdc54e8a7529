"""Other builders of images. They copy an environment that is installed already."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from benchmarks.measure import CommandError, Daemon, environment, run
from benchmarks.workspaces import PREFIX
from tests.support.docker import running_docker
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from benchmarks.contestants import Contestant, Turn
    from benchmarks.measure import Usage
    from benchmarks.results import Scenario
    from tests.support.docker import Docker

__all__ = ["Peers", "peers", "programs"]

# There is no cache of theirs in a registry: on an empty runner, and for a second platform, they start anew.
_COLD: tuple[Scenario, ...] = ("cold",)
_LAYERED: tuple[Scenario, ...] = ("cold", "nothing changed", "application changed", "one dependency changed")


@dataclass(frozen=True, slots=True)
class Peers:
    """The builders that work here, and notes: their versions, and what is missing."""

    contestants: list[Contestant]
    notes: list[str]


@contextmanager
def peers(scratch: Path) -> Iterator[Peers]:
    """Find other builders; a docker daemon with its data in `scratch` runs until the end."""
    found = Peers([], [])
    kinds: tuple[tuple[str, Callable[[str], Contestant]], ...] = (("buildah", _Buildah), ("umoci", _Umoci))
    for name, kind in kinds:
        if program := programs(name)[:1]:
            found.contestants.append(kind(program[0]))
            found.notes.append(_version(program[0]))
        else:
            found.notes.append(f"not measured: `{name}` is not installed")
    try:
        with running_docker(scratch / "docker") as docker:
            found.notes.append(f"docker daemon {docker('version', '--format={{.Server.Version}}').stdout.strip()}")
            for title, kind_ in (("classic builder", "0"), ("BuildKit", "1")):
                if builder := _builder(scratch / "nothing", docker, kind_):
                    found.contestants.append(_Docker(docker, builder, f"docker, {title}", kind_))
                    found.notes.append(f"{title}: {_version(builder)}")
                else:
                    found.notes.append(f"not measured: no `docker` client here builds with the daemon's {title}")
            yield found
    except pytest.skip.Exception as missing:
        found.notes.append(f"not measured: docker: {missing}")
        yield found


def programs(name: str) -> list[str]:
    """Every program of this name on the PATH, first to last."""
    folders = [*os.get_exec_path(), "/usr/sbin", "/sbin"]
    places = (shutil.which(name, path=folder) for folder in folders)
    return list(dict.fromkeys(place for place in places if place))


def _version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True, slots=True)
class _Docker:
    """`docker build` of the installed prefix, then `docker push`; the daemon's work counts."""

    docker: Docker
    program: str
    title: str
    kind: str

    @property
    def scenarios(self) -> Collection[Scenario]:
        return _LAYERED

    def start(self, turn: Turn) -> None:
        docker = self.docker
        docker("system", "prune", "--all", "--force")
        self._client(turn, "builder", "prune", "--all", "--force")
        docker("pull", "--quiet", turn.base)
        turn.ground.write_dockerfile(turn.base)

    def run(self, turn: Turn, scenario: Scenario) -> dict[str, Usage]:
        return {
            "build": self._client(turn, "build", f"--tag={turn.image}", str(turn.ground.context)),
            "push": self._client(turn, "push", turn.image),
        }

    def _client(self, turn: Turn, *arguments: str) -> Usage:
        client = (self.program, "--host", self.docker.host)
        return turn.run(*client, *arguments, daemon=_daemon(self.docker), DOCKER_BUILDKIT=self.kind)


def _daemon(docker: Docker) -> Daemon:
    return Daemon(int((docker.socket.parent / "pid").read_text()))


def _builder(context: Path, docker: Docker, kind: str) -> str | None:
    """The first client on the PATH that can build with BuildKit ("1") or without it ("0")."""
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    for program in programs("docker"):
        command: list[str | Path] = [program, "--host", docker.host, "build", context]
        try:
            run(command, variables=environment(context, DOCKER_BUILDKIT=kind), log=context / "log")
        except CommandError:
            continue
        return program
    return None


@dataclass(frozen=True, slots=True)
class _Buildah:
    """`buildah bud --layers` of the installed prefix, then `buildah push`."""

    program: str

    @property
    def title(self) -> str:
        return "buildah"

    @property
    def scenarios(self) -> Collection[Scenario]:
        return _LAYERED

    def start(self, turn: Turn) -> None:
        turn.clear("buildah")
        turn.run(*self._buildah(turn), "pull", "--quiet", "--tls-verify=false", turn.base)
        turn.ground.write_dockerfile(turn.base)

    def run(self, turn: Turn, scenario: Scenario) -> dict[str, Usage]:
        buildah, insecure = self._buildah(turn), "--tls-verify=false"
        return {
            "build": turn.run(*buildah, "bud", "--layers", insecure, f"--tag={turn.image}", turn.ground.context),
            "push": turn.run(*buildah, "push", insecure, turn.image),
        }

    def _buildah(self, turn: Turn) -> tuple[str, ...]:
        root = turn.scratch / "buildah"
        return self.program, f"--root={root}/root", f"--runroot={root}/run"


@dataclass(frozen=True, slots=True)
class _Umoci:
    """`umoci insert` of the installed prefix and the application into a layout with the base, then `skopeo copy`."""

    program: str

    @property
    def title(self) -> str:
        return "umoci and skopeo"

    @property
    def scenarios(self) -> Collection[Scenario]:
        return _COLD

    def start(self, turn: Turn) -> None:
        layout = turn.clear("layout")
        skopeo = (need("skopeo"), "copy", "--quiet", "--src-tls-verify=false")
        turn.run(*skopeo, f"docker://{turn.base}", f"oci:{layout}:app")

    def run(self, turn: Turn, scenario: Scenario) -> dict[str, Usage]:
        context, layout = turn.ground.context, turn.scratch / "layout"
        insert = (self.program, "insert", f"--image={layout}:app")
        copy = (need("skopeo"), "copy", "--quiet", "--dest-tls-verify=false")
        return {
            "build": turn.run(*insert, context / "prefix", PREFIX).then(turn.run(*insert, context / "app", "/app")),
            "push": turn.run(*copy, f"oci:{layout}:app", f"docker://{turn.image}"),
        }
