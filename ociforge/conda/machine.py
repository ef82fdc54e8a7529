"""What this machine can run."""

from __future__ import annotations

from rattler.platform import Subdir

__all__ = ["runs_here"]


def runs_here(subdir: str) -> bool:
    """Whether this machine runs programs of the conda `subdir` by itself."""
    return str(Subdir.current()) == subdir
