"""Opening files whose names come from elsewhere."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["open_regular"]


def open_regular(path: Path, *, follow: bool = False, buffering: int = -1) -> BinaryIO:
    """A regular file for reading; the caller closes it. `buffering` is as for `open`.

    Raises OSError: a symbolic link is not followed without `follow`, and a pipe or device is refused rather than waited
    for.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(None, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb", buffering)
