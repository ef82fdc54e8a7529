"""Files that are there whole or not at all, and files that are what they seem."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ociforge.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["check_parent", "sync_directory", "translated"]

_HINTS = {
    errno.EACCES: "check the permissions",
    errno.EDQUOT: "free some space, or name another place",
    errno.EEXIST: "something else is there: name another place",
    errno.EISDIR: "name a file",
    errno.ENOENT: "check the path",
    errno.ENOSPC: "free some space, or name another place",
    errno.ENOTDIR: "check the path",
    errno.EPERM: "check the permissions",
    errno.EROFS: "name another place",
}


def sync_directory(path: Path) -> None:
    """Make renames into the directory last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_parent(path: Path, what: str) -> None:
    """Raise a TransportError that begins with `what` unless there is a directory to make `path` in."""
    parent = path.parent
    if parent.is_dir():
        return
    if parent.exists():
        raise TransportError(f"{what}: `{parent}` is not a directory", "check the path")
    raise TransportError(f"{what}: there is no directory `{parent}`", "make it first")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn an OSError of the block into a TransportError that begins with `what`."""
    try:
        yield
    except OSError as error:
        place = f"`{error.filename}`: " if error.filename is not None else ""
        raise TransportError(f"{what}: {place}{error.strerror or error}", _HINTS.get(error.errno or 0)) from error
