"""Pushing and pulling, side by side with skopeo: `python -m benchmarks.registry [--runs N] [--output FILE]`.

Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.copies import TOOLS, Shape, copies, layout_of
from benchmarks.measure import Summary, environment, machine, publish, table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.copies import Direction, Tool
    from benchmarks.measure import Usage

__all__ = ["main"]

_FAR = Shape(count=20, size=256 << 10, delay=0.06)
_LIMITS = (
    "Limits for ociforge: wall 1.00 and CPU 0.50 of skopeo's with the large blobs; 64 MB of memory, whatever their"
    f" size; {_FAR}: 1.5 s, starting included."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What to move: `compared` by both programs, `growing` by ours to see what memory it takes."""

    compared: tuple[Shape, ...]
    growing: tuple[Shape, ...]


_WHOLE = _Plan(
    compared=(Shape(count=1, size=500_000_000), Shape(count=20, size=25_000_000), _FAR),
    growing=tuple(Shape(count=1, size=size) for size in (100_000_000, 500_000_000, 1_000_000_000)),
)
_QUICK = _Plan(
    compared=(Shape(count=2, size=100_000, delay=0.01),),
    growing=(Shape(count=1, size=1_000_000),),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """One measurement in one round."""

    shape: Shape
    direction: Direction
    tool: Tool
    usage: Usage


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both programs in turn and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.registry", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="rounds; medians are told  [default: 5]")
    parser.add_argument("--output", type=Path, help="write the tables to this file, or into its marked part")
    parser.add_argument("--quick", action="store_true", help="small images only, to see that it runs")
    parser.add_argument("--directory", type=Path, help="where to work; not on a memory file system")
    options = parser.parse_args(arguments)
    for program in ("docker-registry", "skopeo"):
        if shutil.which(program, path=environment(Path())["PATH"]) is None:
            parser.error(f"`{program}` is not installed")
    with tempfile.TemporaryDirectory(prefix="ociforge-benchmark-", dir=options.directory) as scratch:
        text = _measured(Path(scratch), _QUICK if options.quick else _WHOLE, options.runs)
    publish(text, "registry", options.output)


def _measured(scratch: Path, plan: _Plan, runs: int) -> str:
    before = os.getloadavg()[0]
    found = _rounds(plan.compared, scratch, runs)
    peaks = [_peaks(shape, scratch) for shape in plan.growing]
    load = f"{before:.1f} before, {os.getloadavg()[0]:.1f} after"
    skopeo = subprocess.run(["skopeo", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    lines = [
        f"{machine()}. {skopeo}. Medians of {runs} rounds, the programs in turn. Load of the machine: {load}.",
        "",
        _comparison(found),
        "",
        "Peak resident memory of ociforge by the size of a single blob, MB:",
        "",
        table(["", *map(str, plan.growing)], _columns(peaks), words=1),
        "",
        _LIMITS,
    ]
    return "\n".join(lines)


def _rounds(shapes: Sequence[Shape], scratch: Path, runs: int) -> list[_Found]:
    """Pairs, each time in the other order, so that what else the machine does falls on both alike."""
    found = []
    for number in range(runs):
        for shape in shapes:
            for tool in TOOLS[:: 1 if number % 2 == 0 else -1]:
                for direction, usage in copies(tool, shape, layout_of(shape, scratch / "layouts"), scratch):
                    note = f"round {number + 1} of {runs}: {shape}, {tool}, {direction}: {usage.wall:.2f} s"
                    print(note, file=sys.stderr)
                    found.append(_Found(shape=shape, direction=direction, tool=tool, usage=usage))
    return found


def _peaks(shape: Shape, scratch: Path) -> dict[Direction, int]:
    """The peak of memory, in bytes, of a push and of a pull."""
    layout = layout_of(shape, scratch / "layouts")
    return {
        direction: usage.memory for direction, usage in copies("ociforge", shape, layout, scratch, ("push", "pull"))
    }


def _columns(peaks: Sequence[Mapping[Direction, int]]) -> list[list[str]]:
    return [[direction, *(f"{peak[direction] / 1e6:.0f}" for peak in peaks)] for direction in peaks[0]]


def _comparison(found: Sequence[_Found]) -> str:
    groups: dict[tuple[Shape, Direction], dict[Tool, list[Usage]]] = {}
    for one in found:
        groups.setdefault((one.shape, one.direction), {tool: [] for tool in TOOLS})[one.tool].append(one.usage)
    rows = [
        [str(shape), direction, tool, *_cells(usages[tool], usages["skopeo"])]
        for (shape, direction), usages in groups.items()
        for tool in TOOLS
    ]
    head = ["layers", "", "program", "wall s (range)", "CPU s", "wall, ratio", "CPU, ratio", "peak RSS MB"]
    return table(head, rows, words=3)


def _cells(usages: Sequence[Usage], others: Sequence[Usage]) -> list[str]:
    """Medians; a ratio is the median of those of the rounds, as both programs had the same neighbours in each."""
    summary = Summary.of(usages, 0)

    def ratio(cost: Callable[[Usage], float]) -> str:
        return f"{median(cost(usage) / cost(other) for usage, other in zip(usages, others, strict=True)):.2f}"

    walls = f"{summary.wall:.2f} ({summary.fastest:.2f} - {summary.slowest:.2f})"
    ratios = (ratio(lambda usage: usage.wall), ratio(lambda usage: usage.cpu))
    return [walls, f"{summary.cpu:.2f}", *ratios, f"{summary.memory / 1e6:.0f}"]


if __name__ == "__main__":
    main()
