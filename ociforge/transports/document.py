"""Manifests and indexes on their way: bytes that are never written anew, and the type they go by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from msgspec import Struct

from layers.digest import Digest
from ociforge.errors import AnswerError
from ociforge.oci.descriptor import INDEX_TYPES, MANIFEST_TYPES, MAX_MANIFEST_SIZE, Descriptor, parse_json

if TYPE_CHECKING:
    import requests

__all__ = ["ACCEPT", "DOCUMENT_TYPES", "Document", "content_type"]

DOCUMENT_TYPES = INDEX_TYPES | MANIFEST_TYPES
ACCEPT = {"Accept": ", ".join(sorted(DOCUMENT_TYPES))}  # all four, else Quay converts to schema 1


class Document(Struct, frozen=True, kw_only=True):
    """A manifest or index: the bytes as they are, and the descriptor they have."""

    descriptor: Descriptor
    data: bytes

    @classmethod
    def of(cls, data: bytes, media_type: str, what: str) -> Self:
        """The bytes as a document of this type; `what` names them in errors.

        Raises AnswerError when they are too many, when the type is none of an image or index, or when they say
        themselves that they are of another: one reader would see an image where another sees an index
        (CVE-2021-41190). Raises ImageError when they are no JSON object.
        """
        if len(data) > MAX_MANIFEST_SIZE:
            raise AnswerError(f"{what}: more than {MAX_MANIFEST_SIZE} bytes")
        if media_type not in DOCUMENT_TYPES:
            raise AnswerError(f"{what}: {media_type[:100]!r} is not the type of an image or index")
        inner = parse_json(data, what).get("mediaType", media_type)
        if inner != media_type:
            raise AnswerError(f"{what}: its type is `{media_type}`, but it says {str(inner)[:100]!r}")
        descriptor = Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))
        return cls(descriptor=descriptor, data=data)


def content_type(response: requests.Response) -> str:
    """The Content-Type without parameters."""
    return response.headers.get("Content-Type", "").partition(";")[0].strip()
