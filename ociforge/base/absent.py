"""A base image that a bundle brought into the store, and that is not where its name says."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from ociforge.errors import BaseImageError

if TYPE_CHECKING:
    from typing import BinaryIO

    from ociforge.oci.descriptor import Descriptor

__all__ = ["Absent"]


class Absent:
    """The Source of an image of which the store has everything: it has nothing itself."""

    def __init__(self, name: str) -> None:
        self._name = name

    def root(self) -> Descriptor:
        self._refuse("there is no such file or directory")

    def open(self, descriptor: Descriptor) -> BinaryIO:
        self._refuse(f"the store lacks its blob `{descriptor.digest}`")

    def origin(self, descriptor: Descriptor) -> None:
        return None

    def _refuse(self, why: str) -> NoReturn:
        raise BaseImageError(f"base image `{self._name}`: {why}", "import the bundle again")
