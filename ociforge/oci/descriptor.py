"""Descriptors and the JSON they are written in (image-spec, descriptor.md, media-types.md, canonicalization.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.errors import ImageError
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
]

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
INDEX_TYPES = frozenset({INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({MANIFEST, DOCKER_MANIFEST})

MAX_MANIFEST_SIZE = 4 << 20  # 4 MiB: distribution-spec asks registries for at least 4 MB, most take no more


def canonical_json(document: object) -> bytes:
    """Sorted keys, no blanks, UTF-8 unescaped, no NaN: the same document always gives the same bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """Read one JSON object; `what` names it in errors.

    Raises ImageError for anything that is no object in UTF-8, for duplicate keys and for NaN or Infinity, which
    parsers read differently.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            raise ValueError("duplicate key")
        return document

    def refuse(constant: str) -> Any:
        raise ValueError(f"`{constant}` is no JSON")

    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise ImageError(f"{what} is not a JSON object")
    return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
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
            raise ImageError(f"{what}: expected a descriptor, got {type(document).__name__}")
        media_type = document.get("mediaType")
        size = document.get("size")
        if not isinstance(media_type, str) or not media_type:
            raise ImageError(f"{what}.mediaType: missing or not a string")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ImageError(f"{what}.size: expected a number of bytes, got `{size}`")
        try:
            digest = Digest.parse(str(document.get("digest")))
        except DigestError as error:
            raise ImageError(f"{what}.digest: {error}") from error
        annotations = document.get("annotations") or {}
        if not isinstance(annotations, dict) or not all(isinstance(v, str) for v in annotations.values()):
            raise ImageError(f"{what}.annotations: expected strings by name")
        artifact_type = document.get("artifactType")
        return cls(
            media_type=media_type,
            digest=digest,
            size=size,
            annotations=annotations,
            platform=_platform(document.get("platform"), what),
            artifact_type=artifact_type if isinstance(artifact_type, str) else None,
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


def _platform(document: object, what: str) -> Platform | None:
    if document is None:
        return None
    if not isinstance(document, dict):
        raise ImageError(f"{what}.platform: expected an object")
    os, architecture, variant = (document.get(key) for key in ("os", "architecture", "variant"))
    if not isinstance(os, str) or not isinstance(architecture, str):
        raise ImageError(f"{what}.platform: needs `os` and `architecture`")
    return Platform(os=os, architecture=architecture, variant=variant if isinstance(variant, str) else None)
