"""Files and directories that appear whole, and of which nothing stays when their writer is killed.

A file is written without a name (open(2), `O_TMPFILE`) and gets one when it is whole; a kernel or file system that
cannot do that gets a file with a name that nobody asks for. Whatever has such a name is locked by its writer
(flock(2)), so that the next one in the same directory can tell what was abandoned, and removes that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["appearing", "check_writable", "is_temporary", "replacing", "sweep"]

_TEMPORARY = re.compile(r"\.ociforge-[0-9a-f]{16}", re.ASCII)


@contextmanager
def replacing(path: Path, *, scratch: Path | None = None, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` once the block ends well, synced first; else it vanishes.

    Meanwhile it is in `scratch` (by default where `path` is going to be), which must be on the same file system.
    Permissions are `mode`, less the umask. Readers see the old file or the new one. Raises OSError.
    """
    path = path.resolve()  # a link stays a link: the file that it leads to is replaced
    _refuse_others(path)
    folder = path.parent if scratch is None else scratch
    sweep(folder)
    temporary = _temporary(folder)
    try:
        descriptor = _open_nameless(folder, mode)
        nameless = descriptor is not None
        with os.fdopen(_open_named(temporary, mode, path) if descriptor is None else descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not nameless or not _linked(file.fileno(), path, temporary):
                temporary.rename(path)
    except BaseException:  # an interrupt too leaves nothing
        with suppress(OSError):
            temporary.unlink()
        raise


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A new directory that is called `path` once the block ends well; else it vanishes with all that is in it.

    Raises OSError; `EEXIST` or `ENOTEMPTY` where something is there by then, but for an empty directory.
    """
    path = path.resolve()
    with _directory(path.parent) as new:
        yield new
        new.rename(path)


def check_writable(folder: Path) -> None:
    """Raise the OSError that making something in `folder` leads to."""
    with _directory(folder):
        pass


def is_temporary(name: str) -> bool:
    """Whether something is called as what is not yet whole is called here."""
    return _TEMPORARY.fullmatch(name) is not None


def sweep(folder: Path) -> None:
    """Remove what killed writers have left in a directory, as far as we may."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_temporary(entry.name):
                _remove_abandoned(Path(entry.path))


def _temporary(folder: Path) -> Path:
    return folder / f".ociforge-{secrets.token_hex(8)}"


def _refuse_others(path: Path) -> None:
    with suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):  # root could replace /dev/null
            raise FileExistsError(errno.EEXIST, "not a regular file", str(path))


def _open_nameless(folder: Path, mode: int) -> int | None:
    """A file without a name; None where there is no such thing, or no way to name it later."""
    try:
        descriptor = os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, mode)
    except OSError:  # whatever else is wrong, a file with a name meets as well
        return None
    _lock(descriptor)
    with suppress(OSError):
        if os.path.samestat(_by_descriptor(descriptor).stat(), os.fstat(descriptor)):
            return descriptor
    os.close(descriptor)  # there is no /proc
    return None


def _open_named(temporary: Path, mode: int, path: Path) -> int:
    while True:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        _lock(descriptor)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # taken for abandoned before it was locked


def _linked(descriptor: int, path: Path, temporary: Path) -> bool:
    """Name a file that has none `path`; False where something is there, which it is to replace: `temporary` then."""
    try:
        _link(descriptor, path)
    except FileExistsError:
        _link(descriptor, temporary)
        return False
    return True


def _link(descriptor: int, path: Path) -> None:
    """Name a file that has no name. Raises OSError, `EEXIST` where something is called `path`."""
    try:
        # link(2) does not follow the link below /proc; linkat(2) does, which a directory asks for, unused otherwise.
        os.link(_by_descriptor(descriptor), path, src_dir_fd=descriptor, follow_symlinks=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _by_descriptor(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")


@contextmanager
def _directory(folder: Path) -> Iterator[Path]:
    """A new directory in `folder`, removed at the end if it is still there."""
    sweep(folder)
    new = _temporary(folder)
    try:
        descriptor = _make_directory(new)
        try:
            yield new
        finally:
            os.close(descriptor)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _make_directory(new: Path) -> int:
    while True:
        new.mkdir()
        with suppress(FileNotFoundError):
            descriptor = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _lock(descriptor)
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Say that somebody is at work. Where there are no locks nothing is taken for abandoned."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _remove_abandoned(path: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # A shared lock is refused just as well, and network file systems grant no other for reading.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        finally:
            os.close(descriptor)
