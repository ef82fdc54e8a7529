"""Foreign programs that tests check with."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["missing", "need"]


def need(program: str) -> str:
    """The path of `program`; skips the test, naming it, when it is not installed.

    With OCIFORGE_REQUIRE_TOOLS=1, as in continuous integration, a missing tool is a failure.
    """
    beside = str(Path(sys.executable).parent)  # of an environment that is not activated
    places = [beside, os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"]
    path = shutil.which(program, path=os.pathsep.join(places))
    if path is None:
        missing(f"`{program}` is not installed")
    return path


def missing(reason: str) -> NoReturn:
    """Skip for `reason`, or fail where skips are not allowed."""
    if os.environ.get("OCIFORGE_REQUIRE_TOOLS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
