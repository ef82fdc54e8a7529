"""What is compared: ociforge, other builders of images, and the least that any of them has to do.

Each contestant is called once for each round and yields what it measured: a cold build, one where nothing changed,
one where the application changed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import pytest

from benchmarks.measure import CommandError, Daemon, Usage, environment, run
from benchmarks.workspaces import ENVIRONMENT, PREFIX, Ground
from tests.support.docker import running_docker
from tests.support.python import SUBDIR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.docker import Docker

__all__ = ["SCENARIOS", "Bench", "Contestant", "Forge", "Measured", "Scenario", "floors", "forge_title", "peers"]

Scenario = Literal["cold", "nothing changed", "application changed"]
SCENARIOS: tuple[Scenario, ...] = ("cold", "nothing changed", "application changed")

_NAME = "my_project:1"
_BASE = "localhost/base:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measurement; `size`: bytes of what was made, 0 where that is no file."""

    scenario: Scenario
    tool: str
    usage: Usage
    size: int


class Contestant(Protocol):
    """Something to measure."""

    def __call__(self) -> Iterator[Measured]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where contestants work: what they build from, and a directory of their own."""

    ground: Ground
    scratch: Path

    @property
    def result(self) -> Path:
        """The file that each of them writes."""
        return self.scratch / "result"

    def run(self, *command: str | Path, daemon: Daemon | None = None, **variables: str) -> Usage:
        """Measure `command`; nothing of earlier ones is left to be written to the disk meanwhile."""
        home = self.scratch / "home"
        home.mkdir(parents=True, exist_ok=True)
        os.sync()
        return run(command, variables=environment(home, **variables), log=self.scratch / "log", daemon=daemon)

    def made(self, scenario: Scenario, tool: str, usage: Usage) -> Measured:
        """The measurement of something that has just run; if it has left a `result`, that is removed."""
        size = self.result.stat().st_size if self.result.exists() else 0
        self.result.unlink(missing_ok=True)
        return Measured(scenario=scenario, tool=tool, usage=usage, size=size)

    def clear(self, path: Path) -> Path:
        """`path`, with nothing there any more."""
        shutil.rmtree(path, ignore_errors=True)
        return path

    def scenarios(self) -> Iterator[Scenario]:
        """The scenarios in order; the application is changed for the last."""
        for scenario in SCENARIOS:
            self.ground.write_application(int(scenario == "application changed"))
            yield scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Forge:
    """`ociforge build` with a store that is empty at first; `archive`: the image is written to a file, too."""

    bench: Bench
    codec: str
    archive: bool
    workers: int | None = None

    def __call__(self) -> Iterator[Measured]:
        bench = self.bench
        store = bench.clear(bench.scratch / "store")
        for scenario in bench.scenarios():
            usage = bench.run(*self._command(), OCIFORGE_CACHE=str(store))
            yield bench.made(scenario, forge_title(self.codec, archive=self.archive), usage)

    def _command(self) -> Iterator[str]:
        ground = self.bench.ground
        yield from (sys.executable, "-m", "ociforge", "build", str(ground.workspace), f"--environment={ENVIRONMENT}")
        yield from (f"--base=oci:{ground.base}", f"--compression={self.codec}", "--quiet")
        if self.archive:
            yield from (f"--output=oci-archive:{self.bench.result}", f"--tag={_NAME}")
        if self.workers is not None:
            yield f"--workers={self.workers}"


def forge_title(codec: str, *, archive: bool) -> str:
    """What the table calls a build of ours."""
    return f"ociforge build, {codec}" + (", and archive" if archive else "")


@contextmanager
def peers(bench: Bench) -> Iterator[tuple[list[Contestant], list[str]]]:
    """The other builders that work here, and notes: their versions, and what is missing.

    A docker daemon runs until the end.
    """
    bench.ground.write_dockerfile(_BASE)
    found: list[Contestant] = []
    notes: list[str] = []
    if buildah := _which("buildah"):
        found.append(_Buildah(bench, buildah[0]))
        notes.append(_output(buildah[0], "--version"))
    else:
        notes.append("not measured: `buildah` is not installed")
    try:
        with running_docker(bench.scratch / "docker") as docker:
            docker("import", str(bench.ground.rootfs), _BASE)
            notes.append(f"docker daemon {docker('version', '--format={{.Server.Version}}').stdout.strip()}")
            for title, kind in (("classic builder", "0"), ("BuildKit", "1")):
                if program := _builder(bench, docker, kind):
                    found.append(_Docker(bench, docker, program, title, kind))
                    notes.append(f"{title}: {_output(program, '--version')}")
                else:
                    notes.append(f"not measured: no `docker` client here builds with the daemon's {title}")
            yield found, notes
    except pytest.skip.Exception as missing:
        yield found, [*notes, f"not measured: docker: {missing}"]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True, slots=True)
class _Docker:
    """`docker build` of the installed prefix, then `docker save`; the daemon's work counts."""

    bench: Bench
    docker: Docker
    program: str
    title: str
    kind: str

    def __call__(self) -> Iterator[Measured]:
        bench, docker = self.bench, self.docker
        docker("image", "rm", "--force", _NAME, check=False)
        docker("image", "prune", "--force")
        self._client("builder", "prune", "--all", "--force")
        tool = f"docker build, {self.title}"
        for scenario in bench.scenarios():
            built = self._client("build", f"--tag={_NAME}", str(bench.ground.context))
            saved = self._client("save", f"--output={bench.result}", _NAME)
            yield Measured(scenario=scenario, tool=tool, usage=built, size=0)
            yield bench.made(scenario, f"{tool}, and save", built.then(saved))

    def _client(self, *arguments: str) -> Usage:
        return _client(self.bench, self.docker, self.program, self.kind, *arguments)


def _client(bench: Bench, docker: Docker, program: str, kind: str, *arguments: str) -> Usage:
    daemon = Daemon(int((docker.socket.parent / "pid").read_text()))
    return bench.run(program, "--host", docker.host, *arguments, daemon=daemon, DOCKER_BUILDKIT=kind)


def _builder(bench: Bench, docker: Docker, kind: str) -> str | None:
    """The first client on the PATH that can build with BuildKit ("1") or without it ("0")."""
    context = bench.scratch / "nothing"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    for program in _which("docker"):
        try:
            _client(bench, docker, program, kind, "build", str(context))
        except CommandError:
            continue
        return program
    return None


@dataclass(frozen=True, slots=True)
class _Buildah:
    """`buildah bud --layers` of the installed prefix, then `buildah push` into an archive."""

    bench: Bench
    program: str

    def __call__(self) -> Iterator[Measured]:
        bench, ground = self.bench, self.bench.ground
        root = bench.clear(bench.scratch / "buildah")
        buildah = (self.program, f"--root={root}/root", f"--runroot={root}/run")
        fetched = subprocess.run(
            [*buildah, "pull", "--quiet", f"oci:{ground.base}:latest"], capture_output=True, check=True
        )
        subprocess.run([*buildah, "tag", fetched.stdout.decode().strip(), _BASE], check=True)
        for scenario in bench.scenarios():
            built = bench.run(*buildah, "bud", "--layers", f"--tag={_NAME}", ground.context)
            pushed = bench.run(*buildah, "push", _NAME, f"oci-archive:{bench.result}:{_NAME}")
            yield Measured(scenario=scenario, tool="buildah bud", usage=built, size=0)
            yield bench.made(scenario, "buildah bud, and push", built.then(pushed))


def floors(bench: Bench) -> tuple[list[Contestant], list[str]]:
    """The least: installing the environment, and GNU tar of it through compressors, with the two digests of a layer.

    And a note for each compressor that is missing.
    """
    found: list[Contestant] = [_Install(bench)]
    absent = []
    for compressor in ("gzip -6", "pigz -6", "zstd -3 -T0"):
        program = compressor.partition(" ")[0]
        if _which(program):
            found.append(_Tar(bench, compressor))
        else:
            absent.append(f"not measured: `{program}` is not installed")
    return found, absent


@dataclass(frozen=True, slots=True)
class _Install:
    """Installing the environment with an empty package cache: other builders need it done before they start."""

    bench: Bench

    def __call__(self) -> Iterator[Measured]:
        bench, ground = self.bench, self.bench.ground
        target = bench.clear(bench.scratch / "installed")
        cache = bench.clear(bench.scratch / "packages")
        command = (sys.executable, "-m", "benchmarks.install", ground.lock, ENVIRONMENT, SUBDIR, PREFIX, target, cache)
        yield bench.made("cold", "floor: rattler install", bench.run(*command))


@dataclass(frozen=True, slots=True)
class _Tar:
    """GNU tar of the installed prefix through a compressor, sha256 of both streams."""

    bench: Bench
    compressor: str

    def __call__(self) -> Iterator[Measured]:
        bench = self.bench
        pipe = bench.scratch / "pipe"
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
        prefix, fifo, result = (shlex.quote(str(path)) for path in (bench.ground.prefix, pipe, bench.result))
        script = (
            f"sha256sum < {fifo} & tar --create --directory={prefix} . | tee {fifo}"
            f" | {self.compressor} | tee {result} | sha256sum; wait"
        )
        yield bench.made("cold", f"floor: tar, {self.compressor}, sha256", bench.run("sh", "-c", script))


def _which(program: str) -> Sequence[str]:
    """Every program of this name on the PATH, first to last."""
    folders = [*os.get_exec_path(), "/usr/sbin", "/sbin"]
    places = (shutil.which(program, path=folder) for folder in folders)
    return list(dict.fromkeys(place for place in places if place))
