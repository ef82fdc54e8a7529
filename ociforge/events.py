"""Progress as typed events through one callable: the library itself never prints.

`Notify` is called from worker threads too; it must not raise. `ignore` is the silent default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layers.digest import Digest

__all__ = [
    "BlobDone",
    "BlobProgress",
    "BlobStarted",
    "CredentialUsed",
    "Event",
    "LayerMade",
    "LayerStarted",
    "Notify",
    "StageStarted",
    "Warned",
    "ignore",
]


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage of the build begins: `what` is a phrase such as `linking 23 packages`."""

    what: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should know, though the work goes on."""

    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class LayerStarted:
    """A layer is being packed; `LayerMade` follows, with the same title."""

    title: str


@dataclass(frozen=True, slots=True)
class LayerMade:
    """A layer is in the store; `reused` when it was there before. `size` in bytes, compressed."""

    title: str
    digest: Digest
    size: int
    reused: bool


@dataclass(frozen=True, slots=True)
class BlobStarted:
    """A transfer of `size` bytes begins, or begins anew; 0 when it is not known how many.

    `place` names the other side, a URL where one file is fetched; `title` says what is in the blob.
    """

    digest: Digest
    size: int
    place: str
    title: str | None = None


@dataclass(frozen=True, slots=True)
class BlobProgress:
    """`count` more bytes of the blob have passed."""

    digest: Digest
    count: int


@dataclass(frozen=True, slots=True)
class BlobDone:
    """A transfer ended; `outcome` is `uploaded`, `mounted`, `exists` or `downloaded`."""

    digest: Digest
    size: int
    outcome: str


@dataclass(frozen=True, slots=True)
class CredentialUsed:
    """Which file or helper supplied the credential for a registry; never the secret."""

    registry: str
    source: str


Event = StageStarted | Warned | LayerStarted | LayerMade | BlobStarted | BlobProgress | BlobDone | CredentialUsed
Notify = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop the event."""
