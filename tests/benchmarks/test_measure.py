from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.measure import CommandError, Daemon, Summary, Usage, environment, machine, publish, run, table

if TYPE_CHECKING:
    from pathlib import Path

MEGABYTE = 1_000_000


def measured(program: str, directory: Path) -> Usage:
    command = [sys.executable, "-I", "-S", "-c", program]
    return run(command, variables=environment(directory), log=directory / "log")


def usage(wall: float, memory: int = 1) -> Usage:
    return Usage(wall=wall, cpu=wall * 2, memory=memory, written=0)


def test_costs_are_those_of_the_command_and_its_children(tmp_path: Path) -> None:
    held = bytearray(150 * MEGABYTE)  # by this process, so it must not count
    child = "import time; begin = time.process_time()\nwhile time.process_time() - begin < 0.2: pass"
    cost = measured(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)", tmp_path)
    assert held[-1] == 0
    assert 0.2 <= cost.cpu < 5
    assert cost.wall >= 0.2
    assert cost.memory < 60 * MEGABYTE


def test_memory_is_the_peak(tmp_path: Path) -> None:
    cost = measured("data = bytearray(b'x' * 60_000_000); del data", tmp_path)
    assert 100 * MEGABYTE < cost.memory < 160 * MEGABYTE


def test_failure_tells_the_last_lines(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"exited with 3:\nfirst\ngone wrong$"):
        measured("import sys; print('first'); print('gone wrong'); sys.exit(3)", tmp_path)


def test_death_by_a_signal_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="exited with 9"):
        measured("import os; os.kill(os.getpid(), 9)", tmp_path)


def test_work_of_a_daemon_is_seen() -> None:
    loop = "import sys, time\nsys.stdin.readline()\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    command = [sys.executable, "-I", "-S", "-c", loop]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        daemon = Daemon(process.pid)
        before = daemon.usage()
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        after = daemon.usage()
        process.kill()
    assert 0.15 < after.cpu - before.cpu < 0.5
    assert 0 < after.memory < 60 * MEGABYTE


def test_summary_is_of_medians_and_the_highest_peak() -> None:
    summary = Summary.of([usage(3, 7), usage(1, 9), usage(2, 8)], 5 * MEGABYTE)
    assert (summary.wall, summary.fastest, summary.slowest, summary.cpu, summary.memory) == (2, 1, 3, 4, 9)
    assert summary.cells(Summary.of([usage(4)], 0)) == [
        "2.00 (1.00 - 3.00)", "4.00", "0.50", "0.50", "0", "0", "5",
    ]  # fmt: skip


def test_one_after_the_other() -> None:
    assert usage(1, 5).then(usage(2, 4)) == usage(3, 5)


def test_table() -> None:
    assert table(["what", "s"], [["a", "1"]], words=1) == "| what | s |\n| --- | ---: |\n| a | 1 |"


def test_publish_replaces_the_marked_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "README.md"
    path.write_text("above\n<!-- a -->\nold\n<!-- end -->\nbelow\n<!-- b -->\n<!-- end -->\n")
    publish("new", "a", path)
    publish("newer", "a", path)
    assert path.read_text() == "above\n<!-- a -->\n\nnewer\n\n<!-- end -->\nbelow\n<!-- b -->\n<!-- end -->\n"
    publish("alone", "c", tmp_path / "other")
    assert (tmp_path / "other").read_text() == "alone\n"
    assert capsys.readouterr().out == "new\nnewer\nalone\n"


def test_machine_names_neither_host_nor_user() -> None:
    assert os.uname().nodename not in machine()
    assert f"{len(os.sched_getaffinity(0))} cores" in machine()
