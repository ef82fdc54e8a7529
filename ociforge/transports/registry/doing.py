"""What was being done, in front of what a registry's error says."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ociforge.errors import AnswerError, AuthError, NotFoundError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["doing"]


@contextmanager
def doing(what: str) -> Iterator[None]:
    """RegistryErrors leave the block as new ones that say `what`, such as "pulling `alpine:3`"; those of the kinds that
    somebody handles stay of their kind.
    """
    try:
        yield
    except RegistryError as error:
        kinds = (AnswerError, AuthError, NotFoundError)
        kind = next((kind for kind in kinds if isinstance(error, kind)), RegistryError)
        raise kind(f"{what}: {error.message}", error.hint) from error
