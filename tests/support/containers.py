"""Running images: what every runtime can do, and the one that needs no daemon (umoci and crun)."""

from __future__ import annotations

import json
import subprocess
import tarfile
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

__all__ = ["Container", "Crun", "Options", "Runtime"]

Finished = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run an image. `entrypoint=None` keeps the image's own; a program's name replaces it, and its command."""

    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None  # numeric: `uid` or `uid:gid`
    read_only: bool = False
    entrypoint: str | None = None
    mounts: Mapping[str, Path] = field(default_factory=dict)  # in the container -> here; nobody can write there


class Container(Protocol):
    """A running container, on the host's network."""

    def exec(self, *command: str) -> Finished:
        """Run a command in it without the entrypoint."""

    def logs(self) -> str:
        """What it printed so far, both streams."""

    def stop(self, seconds: float = 10) -> int:
        """Send SIGTERM, after `seconds` SIGKILL; returns the exit status (128 + signal when killed by one)."""


class Runtime(Protocol):
    """Something that runs images."""

    def load(self, archive: Path) -> str:
        """Take in an archive that is both docker archive and OCI layout; returns the image's name."""

    def run(self, image: str, *command: str, options: Options = ...) -> Finished:
        """Run to the end."""

    def start(self, image: str, *command: str, options: Options = ...) -> AbstractContextManager[Container]:
        """Run in the background; the container is gone when the block ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crun:
    """`umoci unpack` and `crun run`, with everything kept in `directory`. Images are named by their bundle."""

    directory: Path
    umoci: str
    crun: str

    @classmethod
    def available(cls, directory: Path) -> Crun:
        """The runtime; skips, naming the tool, where one is missing."""
        return cls(directory=directory, umoci=need("umoci"), crun=need("crun"))

    def load(self, archive: Path) -> str:
        """Unpack the archive's first image into a bundle."""
        layout = self.directory / f"layout-{uuid.uuid4().hex}"
        with tarfile.open(archive) as tar:
            tar.extractall(layout, filter="data")
        return self.unpack(layout)

    def unpack(self, layout: Path) -> str:
        """Make a bundle of a layout's first image; returns its name."""
        index = json.loads((layout / "index.json").read_text())
        tag = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        name = uuid.uuid4().hex
        bundle = self.directory / name
        root = bundle / "rootfs"
        bundle.mkdir()
        # Its `raw` commands do without a digest of every file, which only repacking would need.
        for what, place in (("unpack", [root]), ("runtime-config", ["--rootfs", root, bundle / "config.json"])):
            command = [self.umoci, "raw", what, "--image", f"{layout}:{tag}", *map(str, place)]
            subprocess.run(command, check=True, capture_output=True)
        manifest = _blob(layout, index["manifests"][0])
        image = _blob(layout, manifest["config"])["config"]
        (bundle / "image.json").write_text(json.dumps(image))
        return name

    def run(self, image: str, *command: str, options: Options = Options()) -> Finished:  # frozen
        """Run to the end."""
        name, arguments = self._prepare(image, command, options)
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        self._delete(name)
        return done

    @contextmanager
    def start(
        self,
        image: str,
        *command: str,
        options: Options = Options(),  # frozen
    ) -> Iterator[Container]:
        """Run in the background."""
        name, arguments = self._prepare(image, command, options)
        log = self.directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        container = _CrunContainer(crun=self.crun, name=name, process=process, log=log)
        try:
            yield container
        finally:
            container.stop(0)
            self._delete(name)

    def _prepare(self, image: str, command: tuple[str, ...], options: Options) -> tuple[str, list[str]]:
        bundle = self.directory / image
        name = f"run-{uuid.uuid4().hex}"
        config = json.loads((bundle / "config.json").read_text())
        image_config = json.loads((bundle / "image.json").read_text())
        _adapt(config, _arguments(image_config, command, options), options)
        file = self.directory / f"{name}.json"
        file.write_text(json.dumps(config))
        run = ["run", "--bundle", str(bundle), "--config", str(file), name]
        return name, [*_crun(self.crun), "--cgroup-manager=disabled", *run]

    def _delete(self, name: str) -> None:
        subprocess.run([*_crun(self.crun), "delete", "--force", name], capture_output=True, check=False)
        (self.directory / f"{name}.json").unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CrunContainer:
    crun: str
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def exec(self, *command: str) -> Finished:
        arguments = [*_crun(self.crun), "exec", self.name, *command]
        return subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    def logs(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, seconds: float = 10) -> int:
        for signal, wait in (("TERM", seconds), ("KILL", 10)):
            deadline = time.monotonic() + wait
            if self.process.poll() is None:
                subprocess.run([*_crun(self.crun), "kill", self.name, signal], capture_output=True, check=False)
            while self.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
        return self.process.wait()


def _crun(program: str) -> list[str]:
    """How to call crun: it refuses machines with both cgroup versions, even if told not to use them; so hide them."""
    if not Path("/sys/fs/cgroup/unified").is_dir():
        return [program]
    hidden = 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"'
    return [need("unshare"), "--mount", "sh", "-c", hidden, "sh", program]


def _blob(layout: Path, descriptor: dict[str, Any]) -> Any:
    return json.loads((layout / "blobs" / str(descriptor["digest"]).replace(":", "/")).read_bytes())


def _arguments(image: dict[str, Any], command: tuple[str, ...], options: Options) -> list[str]:
    """Entrypoint and command, combined as docker does."""
    if options.entrypoint is not None:
        return [options.entrypoint, *command]
    return [*(image.get("Entrypoint") or ()), *(command or image.get("Cmd") or ())]


def _adapt(config: dict[str, Any], arguments: list[str], options: Options) -> None:
    """Make umoci's runtime config fit a machine where cgroups, resource limits and networks cannot be set."""
    process = config["process"]
    process.pop("rlimits", None)
    process |= {"terminal": False, "args": arguments}
    process["env"] = [*process["env"], *(f"{name}={value}" for name, value in options.environment.items())]
    if options.user is not None:
        uid, _, gid = options.user.partition(":")
        process["user"] = {"uid": int(uid), "gid": int(gid or 0)}
    config["root"]["readonly"] = options.read_only
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
    config["mounts"] += [
        {"destination": place, "type": "bind", "source": str(source), "options": ["rbind", "ro"]}
        for place, source in options.mounts.items()
    ]
    linux = config["linux"]
    linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] != "network"]
    linux.pop("resources", None)
