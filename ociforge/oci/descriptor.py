"""Descriptors and the JSON they are written in (image-spec, descriptor.md, media-types.md, canonicalization.md)."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.errors import ImageError
from ociforge.oci.document import kind, optional_object, optional_text, shown, string_map
from ociforge.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

__all__ = [
    "CONFIG",
    "DOCKER_CONFIG",
    "DOCKER_INDEX",
    "DOCKER_MANIFEST",
    "INDEX",
    "INDEX_TYPES",
    "MANIFEST",
    "MANIFEST_TYPES",
    "MAX_MANIFEST_SIZE",
    "Descriptor",
    "canonical_json",
    "parse_json",
    "read_digest",
]

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
INDEX_TYPES = frozenset({INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({MANIFEST, DOCKER_MANIFEST})

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}", re.ASCII)
_MAX_SIZE = (1 << 63) - 1  # sizes are signed 64-bit numbers
_MAX_DEPTH = 64  # of nested objects and arrays; images need fewer than ten
MAX_MANIFEST_SIZE = 4 << 20  # 4 MiB: distribution-spec asks registries for at least 4 MB, most take no more


def canonical_json(document: object) -> bytes:
    """Sorted keys, no blanks, UTF-8 unescaped, no NaN: the same document always gives the same bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """Read one JSON object; `what` names it in errors.

    Raises ImageError for anything that is no object in UTF-8, and for what parsers read differently or cannot write
    again (RFC 7493): duplicate keys, NaN, Infinity, lone surrogates, nesting beyond 64 levels.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            raise ValueError("duplicate key")
        return document

    def refuse(constant: str) -> Any:
        raise ValueError(f"`{constant}` is no JSON")

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else refuse(text)

    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)
        _refuse_unwritable(document, _MAX_DEPTH)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise ImageError(f"{what} is not a JSON object")
    return document


def _refuse_unwritable(value: object, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, str):
        value.encode()  # UnicodeEncodeError, a ValueError, for a lone surrogate
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_unwritable(key, depth)
            _refuse_unwritable(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _refuse_unwritable(item, depth - 1)


class Descriptor(Struct, frozen=True, kw_only=True):
    """What a blob is, which bytes it has, and how many. `size` in bytes, never negative.

    `from_json` validates and ignores unknown members; `to_json` gives the members that are set.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str | None = None

    @classmethod
    def from_json(cls, document: object, what: str) -> Self:
        """Read a descriptor; `what` is its breadcrumb, such as `layers[2]`. Raises ImageError."""
        if not isinstance(document, dict):
            raise ImageError(f"{what}: expected an object, got {kind(document)}")
        media_type = document.get("mediaType")
        size = document.get("size")
        if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
            raise ImageError(f"{what}.mediaType: missing or not a media type")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
            raise ImageError(f"{what}.size: expected a number of bytes, got {shown(size)}")
        return cls(
            media_type=media_type,
            digest=read_digest(document.get("digest"), f"{what}.digest"),
            size=size,
            annotations=string_map(document, "annotations", what),
            platform=_platform(optional_object(document, "platform", what), f"{what}.platform"),
            artifact_type=optional_text(document, "artifactType", what),
        )

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.artifact_type is not None:
            document["artifactType"] = self.artifact_type
        if self.platform is not None:
            document["platform"] = {"os": self.platform.os, "architecture": self.platform.architecture} | (
                {"variant": self.platform.variant} if self.platform.variant is not None else {}
            )
        return document


def read_digest(value: object, what: str) -> Digest:
    """A digest in a document; raises ImageError."""
    try:
        return Digest.parse(str(value))
    except DigestError as error:
        expected = "expected `sha256:` and 64 lower-case hexadecimal digits"
        raise ImageError(f"{what}: {expected}, got {shown(value)}") from error


def _platform(document: dict[str, Any] | None, what: str) -> Platform | None:
    if document is None:
        return None
    os, architecture, variant = (optional_text(document, key, what) for key in ("os", "architecture", "variant"))
    if not os or not architecture:
        raise ImageError(f"{what}: needs `os` and `architecture`")
    return Platform(os=os, architecture=architecture, variant=variant or None)
