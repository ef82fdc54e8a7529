"""Errors of the layer library.

LayerError
├── DigestError     text that is no digest, or bytes that do not have the digest announced
├── EntryError      one path that cannot become a tar member: names the path and the reason
├── EntriesError    several of them at once
└── CodecError      a compressor that is unknown, misused, or whose bytes are not the recorded ones
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CodecError", "DigestError", "EntriesError", "EntryError", "LayerError"]

_SHOWN = 20  # findings that a message lists before it only counts them


def _printable(text: str) -> str:
    """Paths come from outside: no control character or broken byte of theirs reaches a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class LayerError(Exception):
    """Base of every error that this package raises."""


class DigestError(LayerError):
    """A digest that is malformed or does not match."""


class CodecError(LayerError):
    """A codec that cannot be used as asked."""


class EntryError(LayerError):
    """An entry that has no place in a layer.

    `path` is the offending path as given; `reason` completes the sentence "`path`: …".
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(_printable(f"`{path}`: {reason}"))
        self.path = path
        self.reason = reason


class EntriesError(LayerError):
    """Several entries that have no place in a layer: `errors` has all of them, the message the first few lines."""

    def __init__(self, errors: Sequence[EntryError]) -> None:
        lines = [str(error) for error in errors[:_SHOWN]]
        if len(errors) > _SHOWN:
            lines.append(f"and {len(errors) - _SHOWN} more")
        super().__init__("\n".join(lines))
        self.errors = tuple(errors)
