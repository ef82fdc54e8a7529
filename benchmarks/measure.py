"""What a command costs: wall time, processor time, peak memory, bytes written; medians of several runs; tables."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Self

__all__ = [
    "COLUMNS",
    "ROOT",
    "CommandError",
    "Daemon",
    "Summary",
    "Usage",
    "environment",
    "machine",
    "publish",
    "run",
    "table",
]

ROOT = Path(__file__).parent.parent
_LAUNCH = Path(__file__).with_name("launch.py")
_TICK = 1 / os.sysconf("SC_CLK_TCK")


class CommandError(Exception):
    """A command that was to be measured failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a command and the processes it started cost.

    `wall` and `cpu` (user and system) in seconds; `memory` is the peak of resident bytes, of the largest process or of
    all together as far as that was seen; `written` the bytes of the pages that it made the file systems write.
    """

    wall: float
    cpu: float
    memory: int
    written: int

    def then(self, following: Usage) -> Usage:
        """Both, one after the other."""
        return Usage(
            wall=self.wall + following.wall,
            cpu=self.cpu + following.cpu,
            memory=max(self.memory, following.memory),
            written=self.written + following.written,
        )


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that works for the measured command; its processes' costs are added to the command's."""

    pid: int

    @classmethod
    def started(cls, argument: str | Path) -> Self:
        """The process that this one has started with `argument` in its command line."""
        children = [pid for pid, parent in _parents() if parent == os.getpid()]
        words = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in children}
        (pid,) = (pid for pid in children if os.fsencode(argument) in words[pid])
        return cls(pid)

    def forget(self) -> None:
        """Let the peak of memory count from now on."""
        for process in self._processes():
            (process / "clear_refs").write_text("5")

    def usage(self) -> Usage:
        """What daemon and descendants have cost up to now; memory: the largest that is alive."""
        processes = list(self._processes())
        return Usage(
            wall=0,
            cpu=sum(_cpu(process) for process in processes),
            memory=max(_field(process / "status", "VmHWM") << 10 for process in processes),
            written=sum(_field(process / "io", "write_bytes") for process in processes),
        )

    def _processes(self) -> Iterator[Path]:
        family = {self.pid}
        parents = dict(_parents())
        while more := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= more
        return (Path(f"/proc/{pid}") for pid in sorted(family))


def run(
    command: Sequence[str | Path], *, variables: Mapping[str, str], log: Path, daemon: Daemon | None = None
) -> Usage:
    """Run `command` from the repository's root, its output appended to `log`; raises CommandError when it fails."""
    before = daemon.usage() if daemon else None
    if daemon:
        daemon.forget()
    with tempfile.TemporaryDirectory() as scratch, log.open("ab") as output:
        report = Path(scratch) / "report"
        launched = [sys.executable, "-I", "-S", _LAUNCH, report, *command]
        done = subprocess.run(
            launched, cwd=ROOT, env=dict(variables), stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
        if done.returncode:
            raise CommandError(f"`{command[0]}` exited with {done.returncode}:\n{_tail(log)}")
        own = Usage(**json.loads(report.read_text()))
    return own if daemon is None or before is None else own.then(_difference(before, daemon.usage()))


def environment(home: Path, **more: str) -> dict[str, str]:
    """The variables of measured commands: nothing of the user's own but PATH."""
    return {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "HOME": str(home), "LC_ALL": "C.UTF-8", **more}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Several runs of one thing: medians, and the fastest and slowest wall time. `size`: bytes of the result."""

    wall: float
    fastest: float
    slowest: float
    cpu: float
    memory: int
    written: int
    size: int

    @classmethod
    def of(cls, runs: Sequence[Usage], size: int) -> Self:
        """The summary of at least one run."""

        def middle(cost: Callable[[Usage], float]) -> float:
            return median(cost(usage) for usage in runs)

        walls = [usage.wall for usage in runs]
        return cls(
            wall=median(walls),
            fastest=min(walls),
            slowest=max(walls),
            cpu=middle(lambda usage: usage.cpu),
            memory=max(usage.memory for usage in runs),
            written=round(middle(lambda usage: usage.written)),
            size=size,
        )

    def cells(self, reference: Summary) -> list[str]:
        """Columns of a table; ratios of wall and processor time are to `reference`."""
        return [
            f"{self.wall:.2f} ({self.fastest:.2f} - {self.slowest:.2f})",
            f"{self.cpu:.2f}",
            f"{self.wall / reference.wall:.2f}",
            f"{self.cpu / reference.cpu:.2f}",
            _megabytes(self.memory),
            _megabytes(self.written),
            _megabytes(self.size) if self.size else "-",
        ]


COLUMNS = ("wall s (range)", "CPU s", "wall, ratio", "CPU, ratio", "peak RSS MB", "written MB", "result MB")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int) -> str:
    """A Markdown table; all columns but the first `words` hold numbers."""
    marks = ["---" if index < words else "---:" for index in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, marks, *rows))


def publish(text: str, name: str, output: Path | None) -> None:
    """Print `text` and write it to `output`: between its lines `<!-- NAME -->` and `<!-- end -->` if it has those."""
    print(text)
    if output is None:
        return
    begin, end = f"<!-- {name} -->\n", "<!-- end -->\n"
    before, found, rest = (output.read_text() if output.exists() else "").partition(begin)
    after = rest.partition(end)[2]
    output.write_text(f"{before}{begin}\n{text}\n\n{end}{after}" if found else f"{text}\n")


def machine() -> str:
    """What the figures depend on, without a name of host or user."""
    cores = len(os.sched_getaffinity(0))
    flags = " with SHA extensions" if " sha_ni " in Path("/proc/cpuinfo").read_text() else ""
    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    interpreter = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{cores} cores ({platform.machine()}{flags}), {memory} GB of memory, {system}, {interpreter}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f}"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").strip().splitlines()[-5:])


def _difference(before: Usage, after: Usage) -> Usage:
    return Usage(
        wall=0, cpu=after.cpu - before.cpu, memory=after.memory, written=max(0, after.written - before.written)
    )


def _parents() -> Iterator[tuple[int, int]]:
    """(process, its parent) of all processes."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            yield int(path.parent.name), int(_stat(path)[1])
        except OSError:
            continue  # it has ended


def _cpu(process: Path) -> float:
    """Seconds of the process and of the children that it has waited for."""
    return sum(int(ticks) for ticks in _stat(process / "stat")[11:15]) * _TICK


def _stat(path: Path) -> list[str]:
    """The fields of proc(5) `stat` from the third, `state`, on; a name in the second may hold blanks."""
    return path.read_text().rpartition(")")[2].split()


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0
