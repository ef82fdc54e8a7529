"""The side-by-side of builders: `python -m benchmarks.build [--runs N] [--output FILE]` prints a table in Markdown."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contestants import SCENARIOS, Bench, Forge, floors, forge_title, peers
from benchmarks.measure import COLUMNS, ROOT, Summary, environment, machine, publish, table
from benchmarks.workspaces import ENVIRONMENT, PREFIX, numpy_ground
from tests.support.python import SUBDIR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.contestants import Contestant, Measured, Scenario
    from benchmarks.measure import Usage

__all__ = ["main"]

_CODECS = ("gzip", "zstd")
_LIMIT = 300  # MB of resident memory that a build may take
_WORKERS = (1, 2, 4, 8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything that is installed here and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.build", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="rounds; medians are told  [default: 5]")
    parser.add_argument("--output", type=Path, help="write the table to this file, or into its marked part")
    parser.add_argument("--only-ociforge", action="store_true", help="leave out other builders and floors")
    parser.add_argument("--directory", type=Path, help="where to work; not on a memory file system")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="ociforge-benchmark-", dir=options.directory) as scratch:
        text = _measured(Path(scratch), runs=options.runs, alone=options.only_ociforge)
    publish(text, "build", options.output)


def _measured(scratch: Path, *, runs: int, alone: bool) -> str:
    bench = Bench(ground=numpy_ground(scratch / "ground"), scratch=scratch / "work")
    bench.scratch.mkdir()
    _install(bench)
    ours: list[Contestant] = [
        Forge(bench=bench, codec=codec, archive=archive) for codec in _CODECS for archive in (False, True)
    ]
    if alone:
        return _report(bench, _rounds(ours, runs), runs, [])
    least, absent = floors(bench)
    with peers(bench) as (others, notes):
        found = _rounds([*ours, *others, *least], runs)
    return _report(bench, found, runs, [*notes, *absent])


def _install(bench: Bench) -> None:
    """The environment that other builders copy."""
    ground = bench.ground
    command = (sys.executable, "-m", "benchmarks.install", ground.lock, ENVIRONMENT, SUBDIR, PREFIX, ground.prefix)
    subprocess.run([*command, bench.scratch / "packages"], cwd=ROOT, env=environment(bench.scratch), check=True)


def _rounds(contestants: Sequence[Contestant], runs: int) -> list[Measured]:
    """All contestants in turn, so that what else the machine does falls on all alike."""
    found = []
    for number in range(runs):
        for contestant in contestants:
            for measured in contestant():
                note = (
                    f"round {number + 1} of {runs}: {measured.tool}, {measured.scenario}: {measured.usage.wall:.2f} s"
                )
                print(note, file=sys.stderr)
                found.append(measured)
    return found


def _report(bench: Bench, found: Sequence[Measured], runs: int, notes: Sequence[str]) -> str:
    summaries = _summaries(found)
    rows = [
        [scenario, tool, *summary.cells(_reference(summaries, scenario, summary))]
        for (scenario, tool), summary in sorted(summaries.items(), key=lambda item: SCENARIOS.index(item[0][0]))
    ]
    lines = [
        f"{machine()}. Medians of {runs} rounds, all tools in turn. Environment: {bench.ground.describe()}.",
        "",
        table(["scenario", "tool", *COLUMNS], rows, words=2),
        "",
        *(f"- {note}" for note in notes),
        "",
        f"Peak resident memory of a cold `ociforge build`, MB (the limit is {_LIMIT}):",
        "",
        _memory(bench),
    ]
    return "\n".join(lines)


def _reference(summaries: Mapping[tuple[Scenario, str], Summary], scenario: Scenario, summary: Summary) -> Summary:
    """Our build that leaves the like: a file, or an image in a store."""
    return summaries[scenario, forge_title(_CODECS[0], archive=summary.size > 0)]


def _memory(bench: Bench) -> str:
    """The peaks by codec and number of workers: more of these hold more of a layer at once."""
    rows = []
    for codec in _CODECS:
        forges = (Forge(bench=bench, codec=codec, archive=True, workers=workers) for workers in _WORKERS)
        peaks = [next(forge()).usage.memory for forge in forges]
        rows.append([codec, *(f"{peak / 1e6:.0f}" for peak in peaks)])
    return table(["codec", *(f"--workers={workers}" for workers in _WORKERS)], rows, words=1)


def _summaries(found: Sequence[Measured]) -> dict[tuple[Scenario, str], Summary]:
    usages: dict[tuple[Scenario, str], list[Usage]] = {}
    sizes: dict[tuple[Scenario, str], int] = {}
    for measured in found:
        key = measured.scenario, measured.tool
        usages.setdefault(key, []).append(measured.usage)
        sizes[key] = measured.size
    return {key: Summary.of(runs, sizes[key]) for key, runs in usages.items()}


if __name__ == "__main__":
    main()
