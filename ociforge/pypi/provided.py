"""Wheels of source distributions and commits that were built elsewhere, and are taken as they are.

A machine without a network cannot fetch what such a build requires. So another one builds, and tells from what: that
alone decides here, not the machine, the Python or the time of the build.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from msgspec import Struct

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.errors import PackageError
from ociforge.pypi.location import Local, Remote, Repository
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from ociforge.pypi.fetch import Archive, Cache
    from ociforge.pypi.location import Source

__all__ = ["Origin", "Provided"]

_FORMAT = 1


class Origin(Struct, frozen=True, kw_only=True, order=True):
    """What a wheel was built from: `identity` is the digest of a source distribution, or repository and commit."""

    identity: str
    subdirectory: str = ""

    @classmethod
    def of(cls, source: Source) -> Self | None:
        """None for what has no identity before it is read: trees, and files without a digest."""
        match source:
            case Repository():
                identity = f"{redacted(source.url)} {source.commit}{' lfs' if source.lfs else ''}"
                return cls(identity=identity, subdirectory=source.subdirectory)
            case Remote() | Local() if source.sha256 is not None:
                return cls(identity=str(source.sha256), subdirectory=source.subdirectory)
            case _:
                return None


class Provided:
    """What was provided, below `root`; the wheels themselves are in `cache`, and verified on each use."""

    def __init__(self, root: Path, cache: Cache) -> None:
        self._root = root
        self._cache = cache

    def find(self, source: Source) -> Archive | None:
        """The wheel of `source`; None when none was provided, or it is missing or damaged."""
        origin = Origin.of(source)
        if origin is None:
            return None
        try:
            document = json.loads(self._place(origin).read_text(encoding="utf-8"))
            return self._cache.find(Digest.parse(document["wheel"]), document["filename"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, DigestError):
            return None

    def record(self, origin: Origin, filename: str, wheel: Digest) -> None:
        """Remember that `wheel`, which is in the cache, was built from `origin`. Raises PackageError."""
        place = self._place(origin)
        text = json.dumps({"filename": filename, "wheel": str(wheel)}, sort_keys=True)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            part = place.with_name(f".{place.name}.{os.getpid()}.part")
            part.write_text(text, encoding="utf-8")
            part.replace(place)
        except OSError as error:
            raise PackageError(f"cannot write `{place}`: {error.strerror}") from error

    def _place(self, origin: Origin) -> Path:
        facts = [_FORMAT, origin.identity, origin.subdirectory]
        return self._root / f"{Digest.of(json.dumps(facts).encode()).hex}.json"
