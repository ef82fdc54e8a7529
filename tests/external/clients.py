"""ociforge as its users call it, and the foreign programs that read what it made."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.tools import missing, need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.support.containers import Container

__all__ = [
    "Built",
    "Forge",
    "Image",
    "Podman",
    "as_root",
    "ask",
    "call",
    "free_port",
    "running_podman",
    "skopeo",
    "umoci",
]

Finished = subprocess.CompletedProcess[str]

_ROOT = Path(__file__).parents[2]
_PATIENCE = 30  # seconds until a container must answer
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def call(*command: str | Path, home: Path, check: bool = True, umask: int = -1, **variables: str) -> Finished:
    """Run a program that sees nothing of this process's environment; its output is text."""
    environment = {"PATH": _PATH, "HOME": str(home), "LC_ALL": "C.UTF-8", **variables}
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        cwd=home,
        umask=umask,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"`{' '.join(map(str, command))}` ended with {done.returncode}: {done.stderr}")
    return done


def as_root() -> None:
    """Skip where layers cannot be unpacked with their owners."""
    if os.geteuid():
        missing("unpacking and running images needs root")


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ask(port: int, container: Container, until: Callable[[bytes], bool] = lambda _: True) -> bytes:
    """What the application says at `/`, as soon as it says something that `until` holds for."""
    deadline, said = time.monotonic() + _PATIENCE, b"nothing"
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=_PATIENCE) as response:
                said = bytes(response.read())
                if until(said):
                    return said
        except (OSError, HTTPException):  # it does not listen yet, or starts again
            pass
        assert time.monotonic() < deadline, f"{said!r}\n{container.logs()}"
        time.sleep(0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forge:
    """`ociforge` with a home and a cache of its own below `home`; `variables` are more of its environment."""

    home: Path
    umask: int = -1  # that of the tests
    variables: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str | Path) -> Any:
        """Run `ociforge ARGUMENTS… --json`; returns what it printed."""
        command = (sys.executable, "-m", "ociforge", *arguments, "--json")
        variables = {"PYTHONPATH": str(_ROOT), "OCIFORGE_CACHE": str(self.home / "cache"), **self.variables}
        done = call(*command, home=self.home, check=True, umask=self.umask, **variables)
        return json.loads(done.stdout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image in a layout, read without ociforge."""

    layout: Path
    digest: str
    manifest: dict[str, Any]
    config: dict[str, Any]

    @classmethod
    def only(cls, layout: Path) -> Image:
        """The one image that the layout has."""
        [descriptor] = json.loads((layout / "index.json").read_bytes())["manifests"]
        manifest = json.loads(_blob(layout, descriptor["digest"]).read_bytes())
        config = json.loads(_blob(layout, manifest["config"]["digest"]).read_bytes())
        return cls(layout=layout, digest=descriptor["digest"], manifest=manifest, config=config)

    @property
    def config_digest(self) -> str:
        """What engines show as the image's id."""
        return str(self.manifest["config"]["digest"])

    @property
    def blobs(self) -> set[str]:
        """The digests of everything that the image is made of, the manifest included."""
        documents = {self.digest, self.config_digest}
        return documents | {str(layer["digest"]) for layer in self.manifest["layers"]}

    def layers(self) -> list[Path]:
        """The files of the layers, lowest first."""
        return [_blob(self.layout, layer["digest"]) for layer in self.manifest["layers"]]

    def files(self, layer: int) -> dict[str, tuple[int, int, bytes]]:
        """The files of a layer, which must be plain or gzip: path -> mode, time and content."""
        with tarfile.open(self.layers()[layer]) as tar:
            return {m.name: (m.mode, int(m.mtime), _content(tar, m)) for m in tar if m.isfile()}

    def paths(self, below: int = 1) -> set[str]:
        """The paths of all layers but those `below`, which are the base's; layers must be plain or gzip."""
        found: set[str] = set()
        for layer in self.layers()[below:]:
            with tarfile.open(layer) as tar:
                found.update(tar.getnames())
        return found


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None
    return stream.read()


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What one `ociforge build` made: `image` in a layout, `archive`, and `reference` in a registry.

    `result` is its own word on it, `name` what it was tagged, `requests` what it asked the registry for.
    """

    image: Image
    archive: Path
    reference: str
    name: str
    result: dict[str, Any]
    requests: tuple[str, ...]


def skopeo(home: Path, *arguments: str | Path) -> str:
    """`skopeo ARGUMENTS…`, accepting any image; returns its output."""
    return call(need("skopeo"), "--insecure-policy", *arguments, home=home).stdout


def umoci(home: Path, *arguments: str | Path) -> str:
    """`umoci ARGUMENTS…`."""
    return call(need("umoci"), *arguments, home=home).stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Podman:
    """podman with storage and configuration of its own in `directory`."""

    command: tuple[str, ...]
    directory: Path

    def __call__(self, *arguments: str | Path, check: bool = True) -> Finished:
        """Run `podman ARGUMENTS…`."""
        return call(
            *self.command,
            *arguments,
            home=self.directory,
            check=check,
            CONTAINERS_CONF=str(self.directory / "containers.conf"),
            CONTAINERS_STORAGE_CONF=str(self.directory / "storage.conf"),
        )

    def run(self, image: str, *command: str) -> str:
        """Run to the end and return the output; skips where podman cannot run containers at all."""
        done = self("run", "--rm", "--network=none", image, *command, check=False)
        if done.returncode == 126 and "OCI" in done.stderr and "executable" not in done.stderr:
            missing(f"`podman run` does not work here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        return done.stdout


# Resource limits, cgroups and system journals that a test may not touch.
_CONTAINERS = """\
[containers]
cgroups = "disabled"
default_ulimits = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
"""
_STORAGE = '[storage]\ndriver = "{driver}"\ngraphroot = "{root}/root"\nrunroot = "{root}/run"\n'


@contextmanager
def running_podman() -> Iterator[Podman]:
    """podman until the block ends.

    Its mounts are in a name space that no one else sees; so are the cgroups, as crun refuses both versions at once.
    """
    as_root()
    program, _ = need("podman"), need("crun")
    hide = "mount -t tmpfs none /sys/fs/cgroup; " if Path("/sys/fs/cgroup/unified").is_dir() else ""
    # The paths of its sockets are limited; those of tests may be longer.
    directory = Path(tempfile.mkdtemp(prefix="podman-"))
    podman = Podman(
        command=(need("unshare"), "--mount", "sh", "-c", f'{hide}exec "$@"', "sh", program), directory=directory
    )
    try:
        (directory / "containers.conf").write_text(_CONTAINERS)
        _choose_driver(podman)
        yield podman
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _choose_driver(podman: Podman) -> None:
    """Configure the quickest storage that works here: overlays cannot lie on overlays."""
    errors = []
    for driver in ("overlay", "vfs"):
        (podman.directory / "storage.conf").write_text(_STORAGE.format(driver=driver, root=podman.directory))
        done = podman("info", check=False)
        if done.returncode == 0:
            return
        errors.append(done.stderr.strip())
    missing(f"`podman` does not work here: {errors}")
