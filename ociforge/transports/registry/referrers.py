"""What refers to a manifest: signatures, bills of materials (distribution-spec, "Listing Referrers", "Pushing
Manifests with Subject").

Registries without the API have an image index instead, under a tag that is made of the manifest's digest; clients keep
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ociforge.errors import ImageError, RegistryError
from ociforge.oci.descriptor import INDEX, INDEX_TYPES, Descriptor, canonical_json, parse_json
from ociforge.oci.document import optional_text, string_map
from ociforge.oci.envelope import subject
from ociforge.oci.index import ImageIndex
from ociforge.transports.document import Document, content_type
from ociforge.transports.http import body_of

if TYPE_CHECKING:
    import requests

    from layers.digest import Digest

__all__ = ["fallback_tag", "listed", "of_type", "referrer_of", "subject_of", "with_referrer"]


def fallback_tag(digest: Digest) -> str:
    """The tag of the index that lists what refers to `digest`."""
    return f"sha256-{digest.hex}"


def subject_of(document: Document) -> Descriptor | None:
    """What `document` refers to, if anything. Raises ImageError."""
    return subject(parse_json(document.data, _what(document)), _what(document))


def referrer_of(document: Document) -> Descriptor:
    """`document` as the list of its subject's referrers has it. Raises ImageError."""
    what, own = _what(document), document.descriptor
    content = parse_json(document.data, what)
    config = content.get("config")
    kind = optional_text(content, "artifactType", what)
    if not kind and isinstance(config, dict):
        kind = optional_text(config, "mediaType", f"{what}: config")
    return Descriptor(
        media_type=own.media_type,
        digest=own.digest,
        size=own.size,
        annotations=string_map(content, "annotations", what),
        artifact_type=kind or None,
    )


def with_referrer(index: Document | None, entry: Descriptor, what: str) -> Document | None:
    """The list `index` (None: there is none yet) with `entry` behind what it has; None when it has it.

    Raises RegistryError when it is no index.
    """
    content: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    if index is not None:
        if index.descriptor.media_type not in INDEX_TYPES:
            raise RegistryError(f"{what} is not the list of referrers that its name promises")
        listed = ImageIndex.parse(index.data, index.descriptor.media_type).manifests
        if entry.digest in [other.digest for other in listed]:
            return None
        content = parse_json(index.data, what)
    data = canonical_json(content | {"manifests": [*content["manifests"], entry.to_json()]})
    return Document.of(data, INDEX if index is None else index.descriptor.media_type, what)


def listed(response: requests.Response) -> tuple[Descriptor, ...] | None:
    """The referrers in an answer of the API; None when it is not an answer of the API, whatever it is."""
    if response.status_code != 200 or content_type(response) != INDEX:
        return None
    try:
        return ImageIndex.parse(body_of(response), INDEX).manifests
    except ImageError:
        return None


def of_type(found: list[Descriptor], artifact_type: str | None) -> list[Descriptor]:
    """Those of one type; all for None."""
    return [entry for entry in found if artifact_type in (None, entry.artifact_type)]


def _what(document: Document) -> str:
    return f"manifest `{document.descriptor.digest}`"
