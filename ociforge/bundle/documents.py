"""The documents of a base image, from what its name stands for down to the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.errors import BaseImageError, ImageError
from ociforge.oci.descriptor import INDEX_TYPES, MANIFEST_TYPES, Descriptor, parse_json
from ociforge.oci.image import ImageManifest
from ociforge.oci.index import resolve
from ociforge.pins import Use

if TYPE_CHECKING:
    from collections.abc import Callable

    from ociforge.pins import Pins
    from ociforge.platform import Platform

__all__ = ["BaseDocuments", "pinned", "read_documents"]


class BaseDocuments(Struct, frozen=True, kw_only=True):
    """All that belongs to a base image on a platform: `documents` are indexes, the manifest and the configuration."""

    documents: tuple[Descriptor, ...]
    manifest: Descriptor
    layers: tuple[Descriptor, ...]


def pinned(base: str, platform: Platform, pins: Pins) -> Digest | None:
    """What the name of a base image stands for: by its own `@sha256:…`, else by its pin."""
    _, at, text = base.rpartition("@sha256:")
    try:
        return Digest(text) if at else pins.find(Use.of(base, platform))
    except DigestError:
        return None


def read_documents(digest: Digest, platform: Platform, read: Callable[[Digest], bytes]) -> BaseDocuments:
    """Walk from `digest`, of an index or manifest, to the image for `platform`; `read` gives verified bytes.

    Raises BaseImageError for a document that is none, or does not say what it is: without its place, nobody could tell.
    """
    found: dict[Digest, Descriptor] = {}

    def document(descriptor: Descriptor) -> bytes:
        found[descriptor.digest] = descriptor
        return read(descriptor.digest)

    try:
        data = read(digest)
        media_type = parse_json(data, f"document `{digest}`").get("mediaType")
        if media_type not in INDEX_TYPES | MANIFEST_TYPES:
            raise ImageError(f"document `{digest}` does not say that it is an index or a manifest")
        root = Descriptor(media_type=str(media_type), digest=digest, size=len(data))
        descriptor = resolve(root, platform, document)
        manifest = ImageManifest.parse(document(descriptor), descriptor.media_type)
        document(manifest.config)
    except ImageError as error:
        raise BaseImageError(error.message, error.hint) from error
    return BaseDocuments(documents=tuple(found.values()), manifest=descriptor, layers=manifest.layers)
