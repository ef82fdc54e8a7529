"""Measurements as lines of JSON, so that a table can be made of several partial runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, get_args

from benchmarks.measure import Summary, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Self

__all__ = ["SCENARIOS", "Group", "Result", "Scenario", "append", "grouped", "read"]

Scenario = Literal[
    "cold",
    "nothing changed",
    "application changed",
    "one dependency changed",
    "empty runner",
    "second platform",
]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measurement of `tool` in a scenario. `steps`: wall seconds of its parts.

    `registry` is the registry's own cost, with bytes `sent` to it and `received` from it, and the number of `requests`.
    `ground` names what was built.
    """

    ground: str
    tool: str
    scenario: Scenario
    usage: Usage
    steps: Mapping[str, float]
    registry: Usage
    sent: int
    received: int
    requests: int

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a line that `to_json` has made."""
        document = json.loads(text)
        usages = {name: Usage(**document[name]) for name in ("usage", "registry")}
        return cls(**(document | usages))

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), sort_keys=True)


def read(path: Path) -> list[Result]:
    """The results of a file; none when it does not exist."""
    return [Result.from_json(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, result: Result) -> None:
    """Add a line."""
    with path.open("a") as stream:
        stream.write(f"{result.to_json()}\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All measurements of one tool in one scenario."""

    results: tuple[Result, ...]

    @property
    def summary(self) -> Summary:
        """Medians of what it cost."""
        return Summary.of([result.usage for result in self.results], 0)

    @property
    def middle(self) -> Result:
        """The measurement with the median wall time (of an even number, the faster of the two)."""
        return sorted(self.results, key=lambda result: result.usage.wall)[(len(self.results) - 1) // 2]


def grouped(results: Iterable[Result]) -> dict[tuple[Scenario, str], Group]:
    """(scenario, tool) -> measurements, by scenario, tools in the order in which they first come."""
    found: dict[tuple[Scenario, str], list[Result]] = {}
    for result in results:
        found.setdefault((result.scenario, result.tool), []).append(result)
    return {key: Group(results=tuple(found[key])) for key in sorted(found, key=lambda key: SCENARIOS.index(key[0]))}
