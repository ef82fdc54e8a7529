"""Doing one thing to many, in order, or two things at once, with threads."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from typing import Any, TypeVar

    from layers.compress import OrderedMap

    _A = TypeVar("_A")
    _B = TypeVar("_B")

__all__ = ["beside", "ordered_map"]

_GRACE = 5.0  # seconds: enough to remove temporary files, too short to miss a second Ctrl-C


@contextmanager
def ordered_map(workers: int, ahead: int | None = None) -> Iterator[OrderedMap]:
    """A lazy `map` over `workers` threads that keeps the order.

    Each call has at most `ahead` items (default: `workers`) under way besides the one whose result is awaited. Calls
    may run side by side, but must not be made from within their own threads. Leaving the context by an exception
    drops what has not begun and waits for the rest, after an interrupt for a few seconds only.
    """
    if workers == 1:
        yield map
        return
    window = workers if ahead is None else ahead
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ociforge")
    begun: set[Future[Any]] = set()

    def over(function: Callable[[_A], _B], items: Iterable[_A], /) -> Iterator[_B]:
        pending: deque[Future[_B]] = deque()

        def first() -> _B:
            future = pending.popleft()
            result = future.result()
            begun.discard(future)
            return result

        for item in items:
            pending.append(pool.submit(function, item))
            begun.add(pending[-1])
            if len(pending) > window:
                yield first()
        while pending:
            yield first()

    grace = None
    try:
        yield over
    except KeyboardInterrupt:
        grace = _GRACE
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        wait([future for future in begun if not future.cancelled()], grace)


@contextmanager
def beside(function: Callable[[Callable[[], bool]], object]) -> Iterator[None]:
    """While the block runs, run `function` in a thread; the context ends when both have. It is given a function that
    tells whether to go on, which ceases to be so when the block is left by an exception. Raises what either does.
    """
    left = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="ociforge-beside") as pool:
        done = pool.submit(function, lambda: not left.is_set())
        try:
            yield
        except BaseException:
            left.set()
            raise
    done.result()
