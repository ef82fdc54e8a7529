"""What image manifests and indexes have in common: a version, a media type, and a size that registries take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ociforge.errors import ImageError
from ociforge.oci.descriptor import MAX_MANIFEST_SIZE, Descriptor, parse_json
from ociforge.oci.document import exact_keys, objects, optional_text, shown

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["MEMBERS", "agreed_type", "check_size", "descriptors", "read_envelope", "subject"]

MEMBERS = ("annotations", "artifactType", "config", "layers", "manifests", "mediaType", "schemaVersion", "subject")


def check_size(data: bytes, what: str) -> None:
    """Refuse a document that registries and engines refuse."""
    if len(data) > MAX_MANIFEST_SIZE:
        raise ImageError(f"{what}: {len(data)} bytes, but registries take at most {MAX_MANIFEST_SIZE}")


def read_envelope(data: bytes, what: str) -> dict[str, Any]:
    """The document of a manifest or index of version 2; the spelling of its members is checked. Raises ImageError."""
    check_size(data, what)
    document = parse_json(data, what)
    exact_keys(document, MEMBERS, what)
    version = document.get("schemaVersion")
    if type(version) is not int or version != 2:
        hint = "images in docker's format of 2015 are not supported: push the image again" if version == 1 else None
        raise ImageError(f"{what}.schemaVersion: expected 2, got {shown(version)}", hint)
    return document


def agreed_type(document: dict[str, Any], announced: str | None, allowed: Collection[str], what: str) -> str:
    """The media type of a document, which must be what it was announced as, if it says so itself.

    Without either the first of `allowed` is assumed: documents before image-spec 1.1 need not say what they are.
    """
    own = optional_text(document, "mediaType", what)
    if own is not None and announced is not None and own != announced:
        raise ImageError(f"{what}.mediaType: {shown(own)}, but it was announced as {shown(announced)}")
    media_type = own or announced or next(iter(allowed))
    if media_type not in allowed:
        names = " and ".join(f"`{name}`" for name in allowed)
        raise ImageError(f"{what}.mediaType: expected one of {names}, got {shown(media_type)}")
    return media_type


def descriptors(document: dict[str, Any], key: str, what: str) -> tuple[Descriptor, ...]:
    """The descriptors of a required array."""
    if document.get(key) is None:
        raise ImageError(f"{what}.{key}: missing")
    items = objects(document, key, what)
    return tuple(Descriptor.from_json(item, f"{what}: {key}[{index}]") for index, item in enumerate(items))


def subject(document: dict[str, Any], what: str) -> Descriptor | None:
    """What the document was attached to, if anything."""
    value = document.get("subject")
    return None if value is None else Descriptor.from_json(value, f"{what}: subject")
