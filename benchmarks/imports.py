"""What starting the program costs: `python -m benchmarks.imports` prints a table in Markdown."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import ROOT, Summary, environment, machine, publish, run, table

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_LIMIT = 0.2  # seconds of processor time for `ociforge --help`
_HEAVY = ("asyncio", "click", "msgspec", "oras", "pathspec", "rattler", "requests", "yaml", "zlib_ng", "zstandard")
_LISTING = """\
import sys
from ociforge.cli import run
run(sys.argv[1:])
sys.stdout.flush()
print(*sys.modules, file=sys.stderr)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the command lines that do nothing but start."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports", description=__doc__)
    parser.add_argument("--runs", type=int, default=11, help="how often each is run  [default: 11]")
    parser.add_argument("--output", type=Path, help="write the table to this file, or into its marked part")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        text = _measured(Path(scratch), options.runs)
    publish(text, "imports", options.output)


def _measured(scratch: Path, runs: int) -> str:
    bare = _summary(["-c", ""], scratch, runs)
    rows = [["python -c ''", *_cells(bare, bare), "", ""]]
    for words in (["--help"], ["build", "--help"]):
        summary = _summary(["-m", "ociforge", *words], scratch, runs)
        modules = _modules(words, scratch)
        heavy = ", ".join(name for name in _HEAVY if name in modules)
        rows.append([f"ociforge {' '.join(words)}", *_cells(summary, bare), str(len(modules)), heavy])
    head = ["command", "wall s", "CPU s", "CPU, ratio to bare Python", "peak RSS MB", "modules", "of these, foreign"]
    limit = f"Limit for `ociforge --help`: {_LIMIT} s of processor time."
    return "\n".join([f"{machine()}. Medians of {runs} runs.", "", table(head, rows, words=1), "", limit])


def _summary(arguments: Sequence[str], scratch: Path, runs: int) -> Summary:
    command = [sys.executable, *arguments]
    log = scratch / "log"
    run(command, variables=environment(scratch), log=log)  # compiles what has not been compiled yet
    return Summary.of([run(command, variables=environment(scratch), log=log) for _ in range(runs)], 0)


def _cells(summary: Summary, bare: Summary) -> list[str]:
    ratio = summary.cpu / bare.cpu
    return [f"{summary.wall:.3f}", f"{summary.cpu:.3f}", f"{ratio:.1f}", f"{summary.memory / 1e6:.0f}"]


def _modules(words: Sequence[str], scratch: Path) -> set[str]:
    """Names of the modules that are loaded after a command line has run."""
    command = [sys.executable, "-c", _LISTING, *words]
    done = subprocess.run(command, cwd=ROOT, env=environment(scratch), capture_output=True, text=True, check=True)
    return set(done.stderr.split())


if __name__ == "__main__":
    main()
