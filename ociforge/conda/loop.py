"""The event loop that rattler's calls run in; `asyncio` is not imported by runs that have nothing to fetch."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ociforge.errors import OfflineError, PackageError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from typing import Any, ParamSpec

    P = ParamSpec("P")

__all__ = ["collected", "in_thread", "run", "slots"]

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns; it gets a loop of its own."""
    import asyncio

    return asyncio.run(main)


def slots(count: int) -> asyncio.Semaphore:
    """Lets `count` in at a time."""
    import asyncio

    return asyncio.Semaphore(count)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function returns that would hold the loop up."""
    import asyncio

    return await asyncio.to_thread(function, *args, **kwargs)


async def collected(tasks: Sequence[Awaitable[T]]) -> tuple[T, ...]:
    """The results of `tasks`, run at the same time; their PackageErrors together, when some fail, as an OfflineError if
    one of them is.
    """
    import asyncio

    results = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in failures:
        if not isinstance(failure, PackageError | OfflineError):
            raise failure
    if failures:
        errors = [failure for failure in failures if isinstance(failure, PackageError | OfflineError)]
        hints = dict.fromkeys(error.hint for error in errors if error.hint)
        kind = OfflineError if any(isinstance(error, OfflineError) for error in errors) else PackageError
        raise kind.collect([error.message for error in errors], "; ".join(hints) or None)
    return tuple(result for result in results if not isinstance(result, BaseException))
