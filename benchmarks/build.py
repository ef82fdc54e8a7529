"""The side-by-side of builders: `python -m benchmarks.build --environment sci --runs 3 --output benchmarks/README.md`.

Prints tables in Markdown, and draws a chart beside the output. With `--results FILE` every measurement is kept there;
a run that finds some of its measurements in the file makes only the others, and files may be concatenated.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.channels import SCI, WEB, wheel_channel
from benchmarks.contestants import Forge, take_turn
from benchmarks.floors import floors
from benchmarks.measure import machine, publish
from benchmarks.peers import peers
from benchmarks.report import Report, draw
from benchmarks.results import SCENARIOS, append, read
from benchmarks.workspaces import debian_base, describe, make_ground

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.contestants import Contestant
    from benchmarks.results import Result, Scenario
    from benchmarks.workspaces import Ground

__all__ = ["main"]

_ENVIRONMENTS = {contents.name: contents for contents in (WEB, SCI)}
_CODECS = ("gzip", "zstd")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is wanted and installed here, and print the tables."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="ociforge-benchmark-", dir=options.directory) as scratch:
        report = _measured(options, Path(scratch))
    name = f"build-{options.environment}"
    chart = None
    if options.output:
        chart = options.output.with_name(f"{name}.svg")
        chart.write_text(draw(report))
    publish(report.text(chart and chart.name), name, options.output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environment", choices=sorted(_ENVIRONMENTS), default=WEB.name, help="what is built")
    parser.add_argument("--runs", type=int, default=3, help="rounds; medians are told  [default: 3]")
    parser.add_argument("--only", action="append", metavar="TEXT", help="contestants with this in their name")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="besides `cold`  [default: all]")
    parser.add_argument("--codec", action="append", help="as for `ociforge build --compression`  [default: gzip, zstd]")
    parser.add_argument("--option", action="append", default=[], help="for `ociforge build`, such as --option=--x=y")
    parser.add_argument("--results", type=Path, help="file of measurements: used, and added to")
    parser.add_argument("--output", type=Path, help="write the tables to this file, or into its marked part")
    parser.add_argument("--directory", type=Path, help="where to work; not on a memory file system")
    return parser


def _measured(options: argparse.Namespace, scratch: Path) -> Report:
    contents = _ENVIRONMENTS[options.environment]
    channel = wheel_channel(contents)
    ground = make_ground(contents.name, scratch / "ground", channel, changing=contents.changing, base=debian_base())
    store = options.results or scratch / "results"
    with _contestants(options, scratch) as found:
        if any(not isinstance(contestant, Forge) for contestant in found.contestants):
            ground.install()
        chosen = ("cold", *options.scenario) if options.scenario else SCENARIOS
        run = _Run(ground=ground, scratch=scratch, wanted=chosen, store=store)
        for number in range(1, options.runs + 1):
            for contestant in found.contestants:
                run.turn(contestant, number)
    results = [result for result in read(store) if result.ground == contents.name]
    return Report(results=results, machine=machine(), ground=describe(ground), notes=found.notes)


@dataclass(frozen=True, slots=True)
class _Found:
    contestants: list[Contestant]
    notes: list[str]


@contextmanager
def _contestants(options: argparse.Namespace, scratch: Path) -> Iterator[_Found]:
    """What `--only` has left of ours, the other builders and the floors; the daemons of these run until the end."""
    codecs = options.codec or _CODECS
    found = _Found([Forge(codec=codec, options=options.option) for codec in codecs], [])
    wanted = options.only or [""]
    if all("ociforge" in text for text in wanted):  # then nobody else's daemon need run
        yield _Found([one for one in found.contestants if any(text in one.title for text in wanted)], [])
        return
    least, absent = floors(codecs)
    with peers(scratch) as others:
        every = [*found.contestants, *others.contestants, *least]
        left = [one for one in every if any(text in one.title for text in wanted)]
        yield _Found(left, [*others.notes, *absent])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    ground: Ground
    scratch: Path
    wanted: tuple[Scenario, ...]
    store: Path

    def turn(self, contestant: Contestant, number: int) -> None:
        """The contestant's turn in round `number`, unless its measurements are there."""
        missing = [scenario for scenario in self._scenarios(contestant) if self._count(contestant, scenario) < number]
        if not missing:
            return
        for archive in self.ground.channel.archives:
            archive.path.read_bytes()  # what another has written may have driven them out of the page cache
        for result in take_turn(contestant, self.ground, self.scratch, missing):
            if result.scenario in missing:
                append(self.store, result)
            print(f"round {number}: {_line(result)}", file=sys.stderr)

    def _scenarios(self, contestant: Contestant) -> list[Scenario]:
        return [scenario for scenario in self.wanted if scenario in contestant.scenarios]

    def _count(self, contestant: Contestant, scenario: Scenario) -> int:
        return sum(
            (result.ground, result.tool, result.scenario) == (self.ground.name, contestant.title, scenario)
            for result in read(self.store)
        )


def _line(result: Result) -> str:
    usage = result.usage
    return (
        f"{result.tool}, {result.scenario}: {usage.wall:.2f} s, CPU {usage.cpu:.2f} s, {usage.memory / 1e6:.0f} MB,"
        f" written {usage.written / 1e6:.0f} MB, sent {result.sent / 1e6:.2f} MB in {result.requests} requests"
    )


if __name__ == "__main__":
    main()
