"""Where a build goes: all of its destinations, held open while layers are made, so that they are sent meanwhile."""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ociforge.cli.report import tell
from ociforge.publish import Publication
from ociforge.transports import RegistryLocation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Self

    from layers.compress import OrderedMap
    from ociforge.cli.console import Console
    from ociforge.publish import Published
    from ociforge.transports import Location
    from ociforge.transports.base import Blob, Destination, Source

__all__ = ["Outlets"]

_AT_ONCE = 4  # transfers; they wait for answers, more than for processors
_GRACE = 5.0  # seconds


class Outlets:
    """The destinations of a build, a context manager.

    Entering it asks registries whether they let us in, so that is known before anything is made. Leaving it by an
    exception leaves nothing under a final name.
    """

    def __init__(self, targets: Sequence[Location], destinations: Sequence[Destination], console: Console) -> None:
        self._console = console
        self._publications = [Publication(destination, console.notify) for destination in destinations]
        # A layout or an archive gains nothing from a layer that comes early.
        self._early = [
            publication
            for target, publication in zip(targets, self._publications, strict=True)
            if isinstance(target, RegistryLocation)
        ]
        self._stack = ExitStack()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ociforge-send")
        self._sent: list[Future[object]] = []

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            for publication in self._publications:
                entered.enter_context(publication)
            self._stack = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait([future for future in self._sent if not future.cancelled()], _GRACE if error is not None else None)
        self._stack.__exit__(kind, error, traceback)

    def send(self, blob: Blob) -> None:
        """Begin to send a blob of the image to registries. Raises what an earlier one has failed with."""
        for future in self._sent:
            if future.done():
                future.result()
        self._sent += [self._pool.submit(publication.send, blob) for publication in self._early]

    def finish(self, source: Source, map_: OrderedMap) -> list[Published]:
        """Send what is missing of `source`, and name it everywhere; each place says what became of the blobs."""
        for future in wait(self._sent, return_when=FIRST_EXCEPTION).done:
            future.result()
        copies = []
        for publication in self._publications:
            copies.append(publication.finish(source, map_))
            tell(copies[-1], self._console)
        return copies
