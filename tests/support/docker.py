"""A docker daemon of its own, with its data beside the tests; its containers use the host's network."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.containers import Options
from tests.support.tools import missing, need

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Container

__all__ = ["Docker", "running_docker"]

Finished = subprocess.CompletedProcess[str]

_START = 30  # seconds until the daemon must answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """A running daemon, through its command line client."""

    program: str
    socket: Path
    home: Path

    @property
    def host(self) -> str:
        """The daemon's address, as DOCKER_HOST has it."""
        return f"unix://{self.socket}"

    def __call__(self, *arguments: str, check: bool = True) -> Finished:
        """Run `docker ARGUMENTS…`; its output is text."""
        done = subprocess.run(
            [self.program, "--host", self.host, "--config", str(self.home), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"`docker {' '.join(arguments)}` failed: {done.stderr}")
        return done

    def load(self, archive: Path) -> str:
        """`docker load`; returns the name (or the id) that the image got."""
        output = self("load", "--input", str(archive)).stdout
        found = re.search(r"^Loaded image(?: ID)?: (\S+)$", output, re.MULTILINE)
        assert found, output
        return found[1]

    def run(self, image: str, *command: str, options: Options = Options()) -> Finished:  # noqa: B008  # frozen
        """Run to the end and remove the container."""
        return self("run", "--rm", *_flags(options), image, *command, check=False)

    @contextmanager
    def start(
        self,
        image: str,
        *command: str,
        options: Options = Options(),  # noqa: B008  # frozen
    ) -> Iterator[Container]:
        """Run in the background; the container is removed when the block ends."""
        name = self("run", "--detach", *_flags(options), image, *command).stdout.strip()
        try:
            yield _DockerContainer(docker=self, name=name)
        finally:
            self("rm", "--force", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _DockerContainer:
    docker: Docker
    name: str

    def exec(self, *command: str) -> Finished:
        return self.docker("exec", self.name, *command, check=False)

    def logs(self) -> str:
        done = self.docker("logs", self.name)
        return done.stdout + done.stderr

    def stop(self, seconds: float = 10) -> int:
        self.docker("stop", f"--time={round(seconds)}", self.name)
        return int(self.docker("inspect", "--format={{.State.ExitCode}}", self.name).stdout)


def _flags(options: Options) -> list[str]:
    flags = ["--network=host", *(f"--env={name}={value}" for name, value in options.environment.items())]
    flags += ["--read-only"] if options.read_only else []
    flags += [f"--volume={source}:{place}:ro" for place, source in options.mounts.items()]
    flags += [] if options.user is None else [f"--user={options.user}"]
    return flags + ([] if options.entrypoint is None else [f"--entrypoint={options.entrypoint}"])


@contextmanager
def running_docker(directory: Path) -> Iterator[Docker]:
    """Run `dockerd` with its data in `directory` until the block ends; skips where it cannot be started."""
    daemon, program = need("dockerd"), need("docker")
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "dockerd.log"
    # The path of a socket is at most 107 bytes long; those of tests may be longer.
    short = tempfile.mkdtemp(prefix="dockerd-")
    docker = Docker(program=program, socket=Path(short) / "sock", home=directory / "config")
    command = [daemon, "--iptables=false", "--ip6tables=false", "--bridge=none", "--host", docker.host]
    command += ["--data-root", str(directory / "data"), "--exec-root", f"{short}/exec", "--pidfile", f"{short}/pid"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(process, docker, log)
        yield docker
    finally:
        process.terminate()
        process.wait()
        _clean(Path(short))
        shutil.rmtree(directory / "data", ignore_errors=True)


def _clean(directory: Path) -> None:
    """Remove what the daemon leaves; containers on the host's network leave a mounted file."""
    for path in directory.glob("exec/netns/*"):
        subprocess.run(["umount", path], capture_output=True, check=False)
    shutil.rmtree(directory, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], docker: Docker, log: Path) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and process.poll() is None:
        if docker.socket.exists() and docker("info", check=False).returncode == 0:
            return
        time.sleep(0.05)
    missing(f"`dockerd` cannot be started here: {log.read_text(errors='replace').strip().splitlines()[-1:]}")
