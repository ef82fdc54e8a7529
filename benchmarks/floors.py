"""The least that has to be done, by programs that do nothing else. No image comes of it and nothing is pushed."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.peers import programs

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from benchmarks.contestants import Contestant, Turn
    from benchmarks.measure import Usage
    from benchmarks.results import Scenario

__all__ = ["archive_floor", "floors"]

_COLD: tuple[Scenario, ...] = ("cold",)


def floors(codecs: Sequence[str]) -> tuple[list[Contestant], list[str]]:
    """Installing the environment; both digests and each of the codecs, from the archives and from what is installed.

    And a note for each compressor that is missing.
    """
    found: list[Contestant] = [_Install()]
    found += [_Archives(codec) for codec in codecs]
    found += [_Tar(f"{shlex.quote(sys.executable)} -m benchmarks.floor {codec} -", codec) for codec in codecs]
    notes = []
    for compressor in ("gzip -6", "pigz -6", "zstd -3 -T0"):
        name = compressor.partition(" ")[0]
        if programs(name):
            found.append(_Tar(f"tee {{pipe}} | {compressor} | sha256sum", compressor))
        else:
            notes.append(f"not measured: `{name}` is not installed")
    return found, notes


def archive_floor(codec: str) -> str:
    """The title of the floor from the archives."""
    return f"floor: archives, {codec}"


class _Cold:
    """Something that is done once, with nothing kept."""

    @property
    def scenarios(self) -> Collection[Scenario]:
        return _COLD

    def start(self, turn: Turn) -> None:
        """Nothing is kept."""


@dataclass(frozen=True, slots=True)
class _Install(_Cold):
    """Installing the environment with an empty package cache: other builders need it done before they start."""

    @property
    def title(self) -> str:
        return "floor: rattler install"

    def run(self, turn: Turn, scenario: Scenario) -> dict[str, Usage]:
        target, packages = turn.clear("installed"), turn.clear("packages")
        usage = turn.run(*turn.ground.install_command(target, packages))
        turn.clear("installed")
        turn.clear("packages")
        return {"install": usage}


@dataclass(frozen=True, slots=True)
class _Archives(_Cold):
    """Decompress the archives, sha256, the codec, sha256, on all processors."""

    codec: str

    @property
    def title(self) -> str:
        return archive_floor(self.codec)

    def run(self, turn: Turn, scenario: Scenario) -> dict[str, Usage]:
        archives = [archive.path for archive in turn.ground.archives()]
        return {"pack": turn.run(sys.executable, "-m", "benchmarks.floor", self.codec, *archives)}


@dataclass(frozen=True, slots=True)
class _Tar(_Cold):
    """GNU tar of the installed prefix, sha256, a compressor, sha256."""

    command: str
    name: str

    @property
    def title(self) -> str:
        return f"floor: tar, {self.name}"

    def run(self, turn: Turn, scenario: Scenario) -> dict[str, Usage]:
        pipe = turn.clear("pipes") / "tar"
        pipe.parent.mkdir()
        os.mkfifo(pipe)
        fifo, prefix = shlex.quote(str(pipe)), shlex.quote(str(turn.ground.prefix))
        digest = f"sha256sum < {fifo} & " if "{pipe}" in self.command else ""
        pipeline = f"tar --create --directory={prefix} . | {self.command.format(pipe=fifo)}"
        script = f"{digest}{pipeline}; status=$?; wait; exit $status"
        return {"pack": turn.run("bash", "-o", "pipefail", "-c", script)}
