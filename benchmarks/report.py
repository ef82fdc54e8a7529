"""Tables and a chart of measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.chart import Bar, Panel, svg
from benchmarks.floors import archive_floor
from benchmarks.measure import COLUMNS, table
from benchmarks.results import SCENARIOS, grouped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Group, Result, Scenario

__all__ = ["Report", "draw"]

_OURS = "ociforge, gzip"
_BUILDKIT = "docker, BuildKit"
_LARGE = "sci"  # what the goals are for: 2 GB
_HEAD = ("scenario", "tool", *COLUMNS[:-1], "sent MB", "received MB", "requests", "registry CPU s", "steps, wall s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Measurements of one environment, and what is to be known of them."""

    results: Sequence[Result]
    machine: str
    ground: str
    notes: Sequence[str]

    def text(self, chart: str | None) -> str:
        """Markdown; `chart` is the name of a picture to show."""
        groups = grouped(self.results)
        goals = _goals(groups) if {result.ground for result in self.results} == {_LARGE} else ""
        rounds = sorted({len(group.results) for group in groups.values()})
        told = "-".join(map(str, dict.fromkeys((rounds[0], rounds[-1]))))
        parts = [
            f"{self.machine}. Medians of {told} rounds, all tools in turn. Environment: {self.ground}.",
            *([f"![Wall time of build and push]({chart})"] if chart else []),
            table(_HEAD, [_row(groups, key) for key in groups], words=2),
            goals,
            "\n".join(f"- {note}" for note in self.notes),
        ]
        return "\n\n".join(part for part in parts if part)


Groups = dict[tuple["Scenario", str], "Group"]


def _row(groups: Groups, key: tuple[Scenario, str]) -> list[str]:
    scenario, tool = key
    group = groups[key]
    summary, middle = group.summary, group.middle
    reference = groups.get((scenario, _OURS), group).summary
    steps = ", ".join(f"{name} {wall:.2f}" for name, wall in middle.steps.items()) if len(middle.steps) > 1 else ""
    return [
        scenario,
        tool,
        *summary.cells(reference)[:-1],
        f"{middle.sent / 1e6:.2f}",
        f"{middle.received / 1e6:.2f}",
        str(middle.requests),
        f"{middle.registry.cpu:.2f}",
        steps,
    ]


@dataclass(frozen=True, slots=True)
class _Goal:
    """Ours in `scenario` is to cost at most `limit` times what `other` costs in the scenario `against`."""

    scenario: Scenario
    ours: str
    other: str
    limit: float
    cost: str = "wall"
    against: Scenario | None = None


_GOALS = (
    _Goal("cold", "ociforge, gzip", _BUILDKIT, 1 / 8),
    _Goal("cold", "ociforge, gzip", _BUILDKIT, 1 / 5, "cpu"),
    _Goal("cold", "ociforge, zstd", _BUILDKIT, 1 / 12),
    _Goal("cold", "ociforge, gzip", archive_floor("gzip"), 1.3),
    _Goal("cold", "ociforge, zstd", archive_floor("zstd"), 1.3),
    _Goal("one dependency changed", "ociforge, gzip", _BUILDKIT, 1 / 70),
    _Goal("application changed", "ociforge, gzip", _BUILDKIT, 1 / 3),
    _Goal("nothing changed", "ociforge, gzip", _BUILDKIT, 1 / 3),
    _Goal("empty runner", "ociforge, gzip", "ociforge, gzip", 1 / 20, "wall", "cold"),
)


def _goals(groups: Groups) -> str:
    """What is to be reached, as far as it was measured; nothing if nothing was."""
    rows = []
    for goal in _GOALS:
        ours = groups.get((goal.scenario, goal.ours))
        other = groups.get((goal.against or goal.scenario, goal.other))
        if ours and other:
            reached = getattr(ours.summary, goal.cost) / getattr(other.summary, goal.cost)
            name = goal.other + (f", {goal.against}" if goal.against else "")
            rows.append([goal.scenario, goal.ours, name, goal.cost, f"{reached:.3f}", f"{goal.limit:.3f}"])
    if not rows:
        return ""
    return table(("scenario", "tool", "against", "cost", "ratio", "wanted at most"), rows, words=4)


def draw(report: Report) -> str:
    """The chart: median wall times, a panel for each scenario."""
    groups = grouped(report.results)
    panels = []
    for scenario in SCENARIOS:
        bars = [
            Bar(tool, group.summary.wall, tool.startswith("ociforge"))
            for (of, tool), group in groups.items()
            if of == scenario
        ]
        if bars:
            panels.append(Panel(f"{scenario}: wall time", sorted(bars, key=lambda bar: bar.value)))
    return svg("Build and push of the same environment by several tools", "s", panels)
