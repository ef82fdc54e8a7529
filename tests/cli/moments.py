"""Runs the command line again and again and lets a signal strike at another moment each time.

A moment is an event that Python audits (PEP 578) just before it happens: a file is made, renamed or removed, a request
is sent. The program is loaded once, and every run is a fork of it: that takes a tenth of a second, and a run finds
nothing of the one before. `python -m tests.cli.moments` reads jobs from stdin and writes their ends to stdout, as JSON,
one a line.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["End", "Job", "running_jobs"]

_ROOT = Path(__file__).parents[2]
_FILES = frozenset({"os.link", "os.mkdir", "os.remove", "os.rename", "shutil.rmtree"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One command line. `directory` has, or gets, its `cache` and `tmp`; `signal` strikes at event number `moment`."""

    arguments: tuple[str, ...]
    directory: str
    signal: int = 0
    moment: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a job ended. `code` is negative for a signal; `events` are its moments."""

    code: int
    out: str
    err: str
    events: tuple[str, ...]


@contextmanager
def running_jobs() -> Iterator[Callable[[Sequence[Job]], list[End]]]:
    """What runs jobs, one after the other, in a process that lives until the block ends."""
    command = [sys.executable, "-m", "tests.cli.moments"]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        requests, answers = server.stdin, server.stdout

        def run(jobs: Sequence[Job]) -> list[End]:
            ends = []
            for job in jobs:
                requests.write(json.dumps(asdict(job)) + "\n")
                requests.flush()
                end = json.loads(answers.readline())
                ends.append(End(**{**end, "events": tuple(end["events"])}))
            return ends

        yield run


def _main() -> None:
    import ociforge

    for module in pkgutil.walk_packages(ociforge.__path__, "ociforge."):
        importlib.import_module(module.name)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(asdict(_end(json.loads(line)))) + "\n")
        sys.stdout.flush()


def _end(job: dict[str, Any]) -> End:
    directory = Path(job["directory"])
    (directory / "tmp").mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if not child:
        _become(directory, job)
    _, status = os.waitpid(child, 0)
    out, err, events = ((directory / name).read_text(encoding="utf-8") for name in ("stdout", "stderr", "events"))
    return End(code=os.waitstatus_to_exitcode(status), out=out, err=err, events=tuple(events.splitlines()))


def _become(directory: Path, job: dict[str, Any]) -> NoReturn:
    """The command line, in this process from now on."""
    os.environ |= {
        "HOME": str(directory),
        "OCIFORGE_CACHE": str(directory / "cache"),
        "TMPDIR": str(directory / "tmp"),
    }
    tempfile.tempdir = None
    os.chdir(directory)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    log = os.open("events", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    count = itertools.count()

    def strike(event: str, arguments: tuple[Any, ...]) -> None:
        if _is_moment(event, arguments):
            os.write(log, f"{event} {arguments[event == 'os.link']}\n".encode())  # a link is known by its new name
            if next(count) == job["moment"]:
                os.kill(os.getpid(), job["signal"])

    from ociforge.__main__ import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["ociforge", *job["arguments"]]
    sys.addaudithook(strike)
    main()


def _is_moment(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        path, _, flags = arguments
        return not isinstance(path, int) and bool(flags & _WRITING) and not str(path).startswith("/dev/")
    return event in _FILES or event == "http.client.send"


if __name__ == "__main__":
    _main()
