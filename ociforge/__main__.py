"""`python -m ociforge` and the console script."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn

__all__ = ["main"]

_GARBAGE = 200_000  # new objects before any are looked through


def main() -> NoReturn:
    """Run the command line and leave at once.

    The process ends by `os._exit` after flushing: py-rattler's runtime can crash while the interpreter is torn
    down, and the exit status must not depend on that.
    """
    # Starting makes objects that live on: looking for garbage among them would take a tenth of a run that has little
    # to do.
    gc.set_threshold(_GARBAGE)
    try:
        from ociforge.cli import run  # takes long enough to be interrupted, which must not show a traceback

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("error: interrupted\n")
        code = 130
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the result is settled
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: it was closed when the process began
        try:
            stream.flush()
        except OSError:
            code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
