"""What a wheel is built of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.pypi.location import Repository, Tree
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from typing import Literal

    from ociforge.pypi.fetch import Archive

__all__ = ["Project"]


class Project(Struct, frozen=True, kw_only=True):
    """What to build: a tree, a commit, or a source distribution that has been fetched.

    `name` is for messages and directories. `image` is the directory of an editable tree in the image, None for an
    ordinary wheel.
    """

    name: str
    source: Tree | Repository | Archive
    subdirectory: str = ""
    image: str | None = None

    @property
    def kind(self) -> Literal["wheel", "editable"]:
        return "wheel" if self.image is None else "editable"

    def __str__(self) -> str:
        match self.source:
            case Tree():
                return f"`{self.name}` in `{self.source.path}`"
            case Repository():
                return f"`{self.name}` from `{redacted(self.source.url)}`"
            case _:
                return f"`{self.source.filename}`"
