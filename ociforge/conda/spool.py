"""Contents on their way from an archive into a layer: passed on piece by piece, or kept for a moment."""

from __future__ import annotations

import hashlib
import io
import mmap
import tempfile
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from ociforge.conda.prefix import Buffer

__all__ = ["HELD", "Passing", "hold", "new_spool", "read_back"]

HELD = 8 << 20  # 8 MiB: what must be looked at as a whole is held in memory up to this, in a file beyond
_PIECE = 1 << 20  # 1 MiB


def new_spool(scratch: Path) -> IO[bytes]:
    """A temporary file without a name in the directory `scratch`; up to HELD bytes it stays in memory."""
    return tempfile.SpooledTemporaryFile(HELD, dir=str(scratch))


def read_back(spool: IO[bytes]) -> Iterator[bytes]:
    """All that was written to `spool`, which is closed at the end."""
    with spool:
        spool.seek(0)
        while piece := spool.read(_PIECE):
            yield piece


@contextmanager
def hold(chunks: Iterable[bytes], scratch: Path) -> Generator[Buffer]:
    """All of `chunks` as one buffer: in memory, or in a file that is mapped."""
    with new_spool(scratch) as spool:
        for chunk in chunks:
            spool.write(chunk)
        size = spool.tell()
        if size <= HELD:
            spool.seek(0)
            yield spool.read()
        else:
            spool.flush()
            with mmap.mmap(spool.fileno(), size, access=mmap.ACCESS_READ) as mapped:
                yield mapped


class Passing(io.RawIOBase):
    """Content that is read once, from `pieces`; `measured` is told its sha256 when all has passed."""

    def __init__(self, pieces: Iterator[bytes], measured: Callable[[str], None] | None) -> None:
        self._pieces = pieces
        self._piece = b""
        self._digest = hashlib.sha256()
        self._measured = measured

    def open(self) -> BinaryIO:
        return self  # type: ignore[return-value]  # all that writing a layer needs of one

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, all without it; none only at the end."""
        if size < 0:
            return b"".join(iter(partial(self.read, _PIECE), b""))
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                self._end()
                return b""
            if self._measured is not None:
                self._digest.update(piece)
            self._piece = piece
        piece, self._piece = self._piece[:size], self._piece[size:]
        return piece

    def drain(self) -> None:
        """Let pass what has not been read."""
        while self.read(_PIECE):
            pass

    def _end(self) -> None:
        if self._measured is not None:
            self._measured(self._digest.hexdigest())
            self._measured = None

    def close(self) -> None:
        """Nothing: the archive stays open, and what was not read is still wanted."""
