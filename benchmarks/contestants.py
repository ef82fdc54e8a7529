"""What takes a turn: a contestant builds and pushes in every scenario, against a registry of its own.

`ociforge` itself is here; other builders are in `peers`, the least that any of them has to do in `floors`.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from benchmarks.measure import Daemon, Usage, environment, run
from benchmarks.proxy import counted
from benchmarks.results import SCENARIOS, Result
from benchmarks.workspaces import ENVIRONMENT
from tests.support.registry import push_layout, running_registry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.proxy import Traffic
    from benchmarks.results import Scenario
    from benchmarks.workspaces import Ground
    from tests.support.registry import Registry

__all__ = ["Contestant", "Forge", "Turn", "take_turn"]

Steps = dict[str, Usage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a contestant works with: what to build, a directory of its own, and the registry at `host`.

    The registry has the base image as `base`; the image to build goes to `image`.
    """

    ground: Ground
    scratch: Path
    host: str

    @property
    def base(self) -> str:
        return f"{self.host}/base:1"

    @property
    def image(self) -> str:
        return f"{self.host}/team/my_project:1"

    def run(self, *command: str | Path, daemon: Daemon | None = None, **variables: str) -> Usage:
        """Measure `command`; nothing of earlier ones is left to be written to the disk meanwhile."""
        home = self.scratch / "home"
        home.mkdir(parents=True, exist_ok=True)
        os.sync()
        return run(command, variables=environment(home, **variables), log=self.scratch / "log", daemon=daemon)

    def clear(self, name: str) -> Path:
        """The contestant's directory `name`, with nothing there any more."""
        path = self.scratch / name
        shutil.rmtree(path, ignore_errors=True)
        return path


class Contestant(Protocol):
    """Something to measure."""

    @property
    def title(self) -> str:
        """What the table calls it."""

    @property
    def scenarios(self) -> Collection[Scenario]:
        """Those that it knows, `cold` among them."""

    def start(self, turn: Turn) -> None:
        """Forget everything of earlier turns; this is not measured."""

    def run(self, turn: Turn, scenario: Scenario) -> Steps:
        """Build and push; returns what each step cost."""


def take_turn(
    contestant: Contestant, ground: Ground, scratch: Path, wanted: Collection[Scenario] = SCENARIOS
) -> Iterator[Result]:
    """Measure a contestant in the `wanted` scenarios that it knows, and cold: all else follows from that."""
    with _registry(scratch / "registry", ground) as counter:
        turn = Turn(ground=ground, scratch=scratch, host=counter.traffic.host)
        ground.write_application(0)
        ground.write_dependency(0)
        contestant.start(turn)
        for scenario in SCENARIOS:
            if scenario == "cold" or scenario in set(wanted) & set(contestant.scenarios):
                _change(ground, scenario)
                yield _measured(contestant, turn, scenario, counter)


def _change(ground: Ground, scenario: Scenario) -> None:
    if scenario == "application changed":
        ground.write_application(1)
    elif scenario == "one dependency changed":
        ground.write_dependency(1)


def _measured(contestant: Contestant, turn: Turn, scenario: Scenario, counter: _Counter) -> Result:
    before = counter.read()
    steps = contestant.run(turn, scenario)
    after = counter.read()
    return Result(
        ground=turn.ground.name,
        tool=contestant.title,
        scenario=scenario,
        usage=_sum(steps),
        steps={name: usage.wall for name, usage in steps.items()},
        registry=Usage(
            wall=0,
            cpu=after.usage.cpu - before.usage.cpu,
            memory=after.usage.memory,
            written=after.usage.written - before.usage.written,
        ),
        sent=after.sent - before.sent,
        received=after.received - before.received,
        requests=after.requests - before.requests,
    )


def _sum(steps: Mapping[str, Usage]) -> Usage:
    first, *others = steps.values()
    for usage in others:
        first = first.then(usage)
    return first


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    usage: Usage
    sent: int
    received: int
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counter:
    """Tells what a registry has done so far."""

    registry: Registry
    daemon: Daemon
    traffic: Traffic

    def read(self) -> _Reading:
        return _Reading(
            usage=self.daemon.usage(),
            sent=self.traffic.sent,
            received=self.traffic.received,
            requests=len(self.registry.requests()),
        )


@contextmanager
def _registry(directory: Path, ground: Ground) -> Iterator[_Counter]:
    """A registry with nothing but the base image: what a client remembers of an earlier one does not help it."""
    try:
        with running_registry(directory) as registry, counted(registry.host) as traffic:
            push_layout(ground.base.layout, registry, "base", "1")
            yield _Counter(registry=registry, daemon=Daemon.started(directory / "config.yml"), traffic=traffic)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forge:
    """`ociforge build --push` with a store that is empty at first; `options` are added to the command line."""

    codec: str
    options: Sequence[str] = field(default_factory=tuple)

    @property
    def title(self) -> str:
        return " ".join((f"ociforge, {self.codec}", *self.options))

    @property
    def scenarios(self) -> Collection[Scenario]:
        return SCENARIOS

    def start(self, turn: Turn) -> None:
        turn.clear("store")

    def run(self, turn: Turn, scenario: Scenario) -> Steps:
        if scenario == "empty runner":
            turn.clear("store")
        machine_, image = ("arm64", f"{turn.image}-arm64") if scenario == "second platform" else ("amd64", turn.image)
        command = (sys.executable, "-m", "ociforge", "build", turn.ground.workspace, f"--environment={ENVIRONMENT}")
        options = (f"--base=docker://{turn.base}", f"--compression={self.codec}", f"--platform=linux/{machine_}")
        usage = turn.run(
            *command, *options, f"--push={image}", "--quiet", *self.options, OCIFORGE_CACHE=f"{turn.scratch}/store"
        )
        return {"build and push": usage}
