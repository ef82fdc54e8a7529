"""Several pieces of work whose failures are told together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ociforge.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from layers.compress import OrderedMap

    A = TypeVar("A")
    B = TypeVar("B")

__all__ = ["gather"]


def gather(function: Callable[[A], B], items: Iterable[A], map_: OrderedMap = map) -> list[B]:
    """`function` of each item, in order; their PackageErrors as one, after all have been tried."""
    outcomes = list(map_(partial(_outcome, function), items))
    errors = [outcome for outcome in outcomes if isinstance(outcome, PackageError)]
    if errors:
        hints = dict.fromkeys(error.hint for error in errors if error.hint)
        raise PackageError.collect([error.message for error in errors], "; ".join(hints) or None)
    return [outcome for outcome in outcomes if not isinstance(outcome, PackageError)]


def _outcome(function: Callable[[A], B], item: A) -> B | PackageError:
    try:
        return function(item)
    except PackageError as error:
        return error
