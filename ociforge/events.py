"""Progress as typed events through one callable: the library itself never prints.

`Notify` is called from worker threads too; it must not raise. `ignore` is the silent default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

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


class StageStarted(Struct, frozen=True):
    """A stage of the build begins: `what` is a phrase such as `linking 23 packages`."""

    what: str


class Warned(Struct, frozen=True):
    """Something the user should know, though the work goes on."""

    message: str
    hint: str | None = None


class LayerStarted(Struct, frozen=True):
    """A layer is being packed; `LayerMade` follows, with the same title."""

    title: str


class LayerMade(Struct, frozen=True):
    """A layer is in the store; `reused` when it was there before. `size` in bytes, compressed."""

    title: str
    digest: Digest
    size: int
    reused: bool


class BlobStarted(Struct, frozen=True):
    """A transfer of `size` bytes begins, or begins anew; 0 when it is not known how many.

    `place` names the other side, a URL where one file is fetched; `title` says what is in the blob.
    """

    digest: Digest
    size: int
    place: str
    title: str | None = None


class BlobProgress(Struct, frozen=True):
    """`count` more bytes of the blob have passed."""

    digest: Digest
    count: int


class BlobDone(Struct, frozen=True):
    """A transfer ended; `outcome` is `downloaded`, `imported` from a bundle, `uploaded` or `mounted` in a registry,
    `written` to a layout or archive, or `exists`.
    """

    digest: Digest
    size: int
    outcome: str


class CredentialUsed(Struct, frozen=True):
    """Which file or helper supplied the credential for a registry; never the secret."""

    registry: str
    source: str


Event = StageStarted | Warned | LayerStarted | LayerMade | BlobStarted | BlobProgress | BlobDone | CredentialUsed
Notify = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop the event."""
