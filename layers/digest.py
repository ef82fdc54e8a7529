"""Digests: the names of bytes (image-spec, descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from layers.errors import DigestError

if TYPE_CHECKING:
    from typing import BinaryIO, Self

__all__ = ["Digest", "DigestWriter", "Writable"]

_PATTERN = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_READ_SIZE = 1 << 20  # 1 MiB


class Writable(Protocol):
    """Anything that takes bytes."""

    def write(self, data: bytes, /) -> object: ...


class Digest(Struct, frozen=True, order=True):
    """A validated sha256 digest; `hex` is 64 lower-case digits and therefore safe as a file name.

    `parse` and `str` are inverse. Other algorithms are refused: several engines cannot read them.
    """

    hex: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.hex, re.ASCII):
            raise DigestError(f"`{self.hex}` is not a sha256 in lower-case hexadecimal")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `sha256:<64 hex digits>`; raises DigestError for anything else."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise DigestError(f"`{text}` is not a digest: expected `sha256:` and 64 lower-case hex digits")
        return cls(match[1])

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The digest of `data`."""
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def of_stream(cls, stream: BinaryIO) -> Self:
        """The digest of everything left in `stream`, which stays open."""
        writer = DigestWriter()
        while chunk := stream.read(_READ_SIZE):
            writer.write(chunk)
        return cls(writer.digest().hex)

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


class DigestWriter:
    """Hashes and counts what passes through it on the way to `sink` (nowhere, when None).

    The sink is not closed.
    """

    def __init__(self, sink: Writable | None = None) -> None:
        self._sink = sink
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._sha256.update(data)
        self.size += len(data)
        if self._sink is not None:
            self._sink.write(data)
        return len(data)

    def digest(self) -> Digest:
        """The digest of all bytes written so far."""
        return Digest(self._sha256.hexdigest())
