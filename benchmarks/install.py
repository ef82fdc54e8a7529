"""Installs what a lock holds, as `pixi install` does: what comes before the builders that copy an environment.

`python -m benchmarks.install LOCK ENVIRONMENT SUBDIR PREFIX TARGET CACHE`
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import rattler

__all__ = ["main"]


def main() -> None:
    """Install into TARGET as if it were to live at PREFIX; the process leaves at once."""
    lock, name, subdir, prefix, target, cache = sys.argv[1:]
    environment = rattler.LockFile.from_path(Path(lock)).environment(name)
    assert environment is not None, name
    (locked,) = (row for row in environment.platforms() if str(row.subdir) == subdir)
    records = environment.conda_repodata_records_for_platform(locked)
    assert records is not None, subdir
    asyncio.run(
        rattler.install(
            records,
            Path(target),
            cache_dir=Path(cache),
            platform=rattler.Subdir(subdir),
            show_progress=False,
            execute_link_scripts=False,
            alternative_target_prefix=prefix,
        )
    )
    sys.stdout.flush()
    os._exit(0)  # rattler's threads may crash while the interpreter is torn down


if __name__ == "__main__":
    main()
