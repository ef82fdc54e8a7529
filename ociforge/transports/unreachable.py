"""An image in a registry where there is no network: what of it is in the store need not be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ociforge.errors import OfflineError
from ociforge.transports.naming import Name

if TYPE_CHECKING:
    from typing import BinaryIO

    from ociforge.oci.descriptor import Descriptor
    from ociforge.oci.reference import Reference

__all__ = ["UnreachableSource"]


class UnreachableSource:
    """A source that says what is missing, by an OfflineError, when it is asked for anything."""

    def __init__(self, reference: Reference, what: str | None = None) -> None:
        """`what` is what the image is called in messages, if not by its place."""
        self._reference = reference
        self._what = what

    def __str__(self) -> str:
        return f"docker://{self._reference}"

    def root(self) -> Descriptor:
        if self._what is not None:
            raise self._missing(self._what)
        raise OfflineError(f"`{self}` is in a registry, and there is no network", "copy it to here by `ociforge push`")

    def open(self, descriptor: Descriptor) -> BinaryIO:
        raise self._missing(self._what or f"`{descriptor.digest}` of `{self}`")

    def origin(self, descriptor: Descriptor) -> Reference | None:
        return replace(self._reference, tag=None, digest=descriptor.digest)

    def names(self) -> tuple[Name, ...]:
        return () if self._reference.tag is None else (Name.of(replace(self._reference, digest=None)),)

    def _missing(self, what: str) -> OfflineError:
        return OfflineError(f"{what} is not in the store", "fetch it where there is a network: `ociforge fetch`")
