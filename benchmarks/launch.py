"""Runs one command and writes what it cost to a file: `python -I -S launch.py FILE PROGRAM ARGUMENTS…`.

A process of its own, and a small one: the kernel counts the memory of the process that starts a command into the
command's peak, so nothing below this program's 9 MB can be told.
"""

from __future__ import annotations

import _thread  # `threading` alone would cost a megabyte
import json
import os
import sys
import time

__all__: list[str] = []

_INTERVAL = 0.25  # seconds between looks at the whole family: each reads a file for every process of the machine
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Family:
    """The command and its descendants; `peak`: the most resident bytes that were seen of all together.

    Memory that several of them share counts for each.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak = 0

    def watch(self) -> None:
        """Look for ever."""
        while True:
            time.sleep(_INTERVAL)
            self.peak = max(self.peak, self._resident())

    def _resident(self) -> int:
        processes = _processes()
        family = {self.pid}
        while more := {pid for pid, (parent, _) in processes.items() if parent in family} - family:
            family |= more
        return sum(processes[pid][1] for pid in family if pid in processes)


def _processes() -> dict[int, tuple[int, int]]:
    """Process -> its parent and resident bytes; the fields are those of proc(5) `stat`."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208  # pathlib alone would cost 3 MB
        try:
            with open(f"/proc/{name}/stat", "rb") as stream:  # noqa: PTH123
                fields = stream.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it has ended
        found[int(name)] = int(fields[1]), int(fields[21]) * _PAGE
    return found


def main() -> int:
    report, program, *arguments = sys.argv[1:]
    begin = time.perf_counter()
    number = os.posix_spawnp(program, [program, *arguments], os.environ)
    family = _Family(number)
    _thread.start_new_thread(family.watch, ())
    # The sum over the command and all descendants that were waited for; memory: the largest of them.
    _, status, used = os.wait4(number, 0)
    wall = time.perf_counter() - begin
    cost = {
        "wall": wall,
        "cpu": used.ru_utime + used.ru_stime,
        "memory": max(used.ru_maxrss << 10, family.peak),
        "written": used.ru_oublock << 9,
    }
    with open(report, "w") as stream:  # noqa: PTH123  # pathlib alone would cost 3 MB
        json.dump(cost, stream)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(abs(main()))
