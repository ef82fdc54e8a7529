"""Memory that is freed is used again."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from ociforge.cli.memory import keep_freed_memory

_PROGRAM = """
import resource, sys, threading
from ociforge.cli.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()

def work():
    for _ in range(100):
        held = [b"x" * (4 << 20) for _ in range(4)]

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt(3)")
def test_freed_blocks_are_not_cleared_again() -> None:
    faults = {}
    for how in ("kept", "usual"):
        done = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    assert faults["kept"] < faults["usual"] / 4, faults


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
