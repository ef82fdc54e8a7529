"""What must be known of wheels before any is laid out, in forms that can be kept.

Two kinds of document: the files of one wheel at a prefix, and the summary of all wheels of an environment, by which a
build that changes nothing opens none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from layers.digest import Digest
from ociforge.events import Warned  # noqa: TC001  # msgspec looks it up
from ociforge.pypi.package import Conflict  # noqa: TC001  # the same
from ociforge.pypi.tags import Filename

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from ociforge.pypi.link import Linked
    from ociforge.pypi.package import Interpreter

__all__ = ["Documents", "Identity", "Summary", "WheelFacts", "WheelFiles", "summary_key"]

_FORMAT = 1  # of both kinds of document, and part of their keys


class Documents(Protocol):
    """Where facts are kept: small files by digest, which may disappear at any time."""

    def find(self, key: Digest) -> bytes | None: ...

    def record(self, key: Digest, data: bytes) -> None: ...


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides which files a wheel has at a prefix, but that prefix; `record` as in `Package`."""

    name: str
    filename: str
    sha256: Digest
    record: Digest
    local: bool

    def key(self, prefix: str, python: Interpreter) -> Digest:
        """What the wheel's files may be kept under."""
        return Digest.of(msgspec.json.encode([_FORMAT, *self.row(), *_place(prefix, python)]))

    def row(self) -> list[str | bool]:
        return [self.name, self.filename, self.sha256.hex, self.record.hex, self.local]


class WheelFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A wheel's files: path below the prefix -> what stands for content and mode. `size` of the wheel in bytes."""

    format: int = _FORMAT
    name: str
    version: str
    size: int
    files: dict[str, str]

    @classmethod
    def of(cls, linked: Linked, size: int) -> Self:
        """Those of a wheel that has been laid out."""
        files = {path: linked.content(path) for path in linked.files}
        return cls(name=linked.name, version=linked.wheel.version, size=size, files=files)

    def content(self, path: str) -> str:
        return self.files[path]

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Self | None:
        """The inverse; None for what is not of this format."""
        try:
            found = msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError:
            return None
        return found if found.format == _FORMAT else None


class WheelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a layer's key and its place in the plan take from a wheel; fields as in `Package`."""

    name: str
    version: str
    filename: str
    sha256: Digest
    size: int
    record: Digest
    local: bool

    @property
    def pure(self) -> bool:
        return Filename.parse(self.filename).pure


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All wheels of an environment, by name. `conflicts` and `overrides` are those of `Installation`.

    `warnings`: what the user should know. `present`: which of the paths that were asked for wheels provide, sorted.
    """

    format: int = _FORMAT
    wheels: tuple[WheelFacts, ...]
    conflicts: tuple[Conflict, ...]
    overrides: tuple[Conflict, ...]
    warnings: tuple[Warned, ...]
    present: tuple[str, ...]

    def to_json(self) -> bytes:
        """Small enough for an annotation, whatever the wheels hold."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Self | None:
        """The inverse; None for what is not of this format."""
        try:
            found = msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError:
            return None
        return found if found.format == _FORMAT else None


def summary_key(
    wheels: Iterable[Identity], prefix: str, python: Interpreter, *, below: Digest, asked: Iterable[str]
) -> Digest:
    """What a summary may be kept under. `below` stands for the paths of the conda packages."""
    rows = sorted(wheel.row() for wheel in wheels)
    return Digest.of(msgspec.json.encode([_FORMAT, rows, *_place(prefix, python), below.hex, sorted(asked)]))


def _place(prefix: str, python: Interpreter) -> list[str]:
    return [prefix, python.version, python.site_packages]
