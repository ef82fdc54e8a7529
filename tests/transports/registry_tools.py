"""Blobs and clients for the tests of registries."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from layers.digest import Digest
from ociforge.oci.descriptor import Descriptor
from ociforge.transports.base import Blob

if TYPE_CHECKING:
    from ociforge.oci.reference import Reference

__all__ = ["blob_of", "no_sleep", "octets"]


def blob_of(data: bytes, media_type: str, origin: Reference | None = None) -> Blob:
    """`data` as something to put."""
    descriptor = Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))
    return Blob(descriptor=descriptor, open=lambda: io.BytesIO(data), origin=origin)


def octets(data: bytes, origin: Reference | None = None) -> Blob:
    """`data` as a blob of no particular kind."""
    return blob_of(data, "application/octet-stream", origin)


def no_sleep(seconds: float) -> None:
    """Waits for nothing."""
