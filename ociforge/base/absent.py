"""A base image that is in the store, as its pin tells, and not where its name says: a bundle brought it, or it went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ociforge.errors import OfflineError

if TYPE_CHECKING:
    from typing import BinaryIO

    from ociforge.oci.descriptor import Descriptor

__all__ = ["Absent", "AbsentError"]

_HINT = (
    "put it back there, or bring it by a bundle: `ociforge bundle create` where it is,"
    " and `ociforge bundle import` here"
)


class AbsentError(OfflineError):
    """A base image that is no more where its name says, and that the store has not all of."""


class Absent:
    """The Source of an image of which the store has to have everything: it has nothing itself."""

    def __init__(self, what: str) -> None:
        """`what` is what the image is called in messages."""
        self._what = what

    def root(self) -> Descriptor:
        raise self._missing()

    def open(self, descriptor: Descriptor) -> BinaryIO:
        raise self._missing()

    def origin(self, descriptor: Descriptor) -> None:
        return None

    def _missing(self) -> AbsentError:
        return AbsentError(f"{self._what} is not where its name says, and the store has not all of it", _HINT)
