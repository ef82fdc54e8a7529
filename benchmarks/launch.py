"""Runs one command and writes what it cost to a file: `python -I -S launch.py FILE PROGRAM ARGUMENTS…`.

A process of its own, and a small one: the kernel counts the memory of the process that starts a command into the
command's peak, so nothing below this program's 9 MB can be told.
"""

from __future__ import annotations

import json
import os
import sys
import time

__all__: list[str] = []


def main() -> int:
    report, program, *arguments = sys.argv[1:]
    begin = time.perf_counter()
    number = os.posix_spawnp(program, [program, *arguments], os.environ)
    # The sum over the command and all descendants that were waited for; memory: the largest of them.
    _, status, used = os.wait4(number, 0)
    wall = time.perf_counter() - begin
    cost = {
        "wall": wall,
        "cpu": used.ru_utime + used.ru_stime,
        "memory": used.ru_maxrss << 10,
        "written": used.ru_oublock << 9,
    }
    with open(report, "w") as stream:  # noqa: PTH123  # pathlib alone would cost 3 MB
        json.dump(cost, stream)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(abs(main()))
