"""One image of an index, as a source of its own."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.errors import ImageError
from ociforge.oci.blob import read_document
from ociforge.oci.index import resolve
from ociforge.transports.layout import described

if TYPE_CHECKING:
    from typing import BinaryIO

    from ociforge.oci.descriptor import Descriptor
    from ociforge.oci.reference import Reference
    from ociforge.platform import Platform
    from ociforge.transports.base import NamedSource
    from ociforge.transports.naming import Name

__all__ = ["SelectedSource"]


class SelectedSource(Struct, frozen=True, dict=True):
    """The image for `platform` of the index that `source` names; or the image that it names, if that is for it.

    It keeps the names of the index. Asking for the root raises ImageError when there is no such image.
    """

    source: NamedSource
    platform: Platform

    def root(self) -> Descriptor:
        return self._root

    def open(self, descriptor: Descriptor) -> BinaryIO:
        return self.source.open(descriptor)

    def origin(self, descriptor: Descriptor) -> Reference | None:
        return self.source.origin(descriptor)

    def names(self) -> tuple[Name, ...]:
        return self.source.names()

    @cached_property
    def _root(self) -> Descriptor:
        found = resolve(self.source.root(), self.platform, self._read)
        told = described(found, self._read).platform
        if told is None or not self.platform.matches(told):
            what = "no platform that its configuration tells" if told is None else f"`{told}`"
            raise ImageError(
                f"image `{found.digest}`: expected one for `{self.platform}`, got one for {what}",
                "leave out `--platform`, or name an image that is for this platform",
            )
        return found

    def _read(self, descriptor: Descriptor) -> bytes:
        return read_document(self.open(descriptor), descriptor)
