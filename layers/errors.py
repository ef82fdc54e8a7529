"""Errors of the layer library.

LayerError
├── DigestError     text that is no digest, or bytes that do not have the digest announced
├── EntryError      one path that cannot become a tar member: names the path and the reason
└── CodecError      a compressor that is unknown, misused, or whose bytes are not the recorded ones
"""

from __future__ import annotations

__all__ = ["CodecError", "DigestError", "EntryError", "LayerError"]


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
        super().__init__(f"`{path}`: {reason}")
        self.path = path
        self.reason = reason
