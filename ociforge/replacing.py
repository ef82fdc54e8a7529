"""Files that appear whole: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path, *, scratch: Path | None = None, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` once the block ends well, synced first; else it vanishes.

    Meanwhile it has a random name with a leading dot in `scratch` (by default beside `path`), which must be on the same
    file system. Permissions are `mode`, less the umask. Readers see the old file or the new one.
    """
    path = path.resolve()  # a link stays a link: the file that it leads to is replaced
    if path.exists() and not (path.is_file() or path.is_dir()):  # root could replace /dev/null
        raise FileExistsError(errno.EEXIST, "not a regular file", str(path))
    temporary = (scratch or path.parent) / f".ociforge-{secrets.token_hex(8)}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:  # an interrupt too leaves nothing
        with suppress(OSError):
            temporary.unlink()
        raise
