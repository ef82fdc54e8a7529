"""What was being done, in front of what a registry's error says."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ociforge.errors import AuthError, NotFoundError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["doing"]


@contextmanager
def doing(what: str) -> Iterator[None]:
    """RegistryErrors leave the block as new ones that say `what`, such as "pulling `alpine:3`"; AuthErrors and
    NotFoundErrors as such.
    """
    try:
        yield
    except RegistryError as error:
        kind = next((kind for kind in (AuthError, NotFoundError) if isinstance(error, kind)), RegistryError)
        raise kind(f"{what}: {error.message}", error.hint) from error
