"""Several pieces of work whose failures are told together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ociforge.errors import OfflineError, PackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from layers.compress import OrderedMap

    A = TypeVar("A")
    B = TypeVar("B")

__all__ = ["gather"]


def gather(function: Callable[[A], B], items: Iterable[A], map_: OrderedMap = map) -> list[B]:
    """`function` of each item, in order; their PackageErrors as one, after all have been tried, as an OfflineError if
    one of them is.
    """
    outcomes = list(map_(partial(_outcome, function), items))
    errors = [outcome for outcome in outcomes if isinstance(outcome, PackageError | OfflineError)]
    if errors:
        hints = dict.fromkeys(error.hint for error in errors if error.hint)
        kind = OfflineError if any(isinstance(error, OfflineError) for error in errors) else PackageError
        raise kind.collect([error.message for error in errors], "; ".join(hints) or None)
    return [outcome for outcome in outcomes if not isinstance(outcome, PackageError | OfflineError)]


def _outcome(function: Callable[[A], B], item: A) -> B | PackageError | OfflineError:
    try:
        return function(item)
    except (PackageError, OfflineError) as error:
        return error
