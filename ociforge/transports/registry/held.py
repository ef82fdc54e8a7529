"""What a repository holds already, as far as the manifest behind a name tells."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ociforge.errors import ImageError, RegistryError
from ociforge.oci.descriptor import INDEX_TYPES
from ociforge.oci.image import ImageManifest
from ociforge.oci.index import ImageIndex

if TYPE_CHECKING:
    from layers.digest import Digest
    from ociforge.oci.descriptor import Descriptor
    from ociforge.transports.document import Document
    from ociforge.transports.registry.forge import ForgeRegistry

__all__ = ["Held"]

_MAX_DOCUMENTS = 8  # beyond these it is cheaper to ask for single blobs
_ELSEWHERE = (".nondistributable.", ".foreign.")  # layers that a manifest may name though they are not here


class Held:
    """The manifests behind `root`, and the blobs that they name: a registry takes no manifest without its blobs.

    Manifests are fetched one by one while somebody looks for what has not been found yet; what cannot be read tells
    nothing. For any number of threads.
    """

    def __init__(self, registry: ForgeRegistry, root: Descriptor | None) -> None:
        self._registry = registry
        self._unread = [] if root is None else [root]
        self._left = _MAX_DOCUMENTS
        self._blobs: set[Digest] = set()
        self._lock = threading.Lock()
        self.documents: dict[Digest, Document] = {}

    def __contains__(self, digest: Digest) -> bool:
        with self._lock:
            while not (known := digest in self._blobs or digest in self.documents) and self._unread and self._left:
                self._left -= 1
                self._read(self._unread.pop(0))
            return known

    def _read(self, descriptor: Descriptor) -> None:
        try:
            document = self._registry.fetch_manifest(str(descriptor.digest), push=True)
            media_type = document.descriptor.media_type
            if media_type in INDEX_TYPES:
                self._unread += ImageIndex.parse(document.data, media_type).manifests
            else:
                manifest = ImageManifest.parse(document.data, media_type)
                blobs = (manifest.config, *manifest.layers)
                self._blobs |= {b.digest for b in blobs if not any(word in b.media_type for word in _ELSEWHERE)}
        except (RegistryError, ImageError):
            return
        self.documents[document.descriptor.digest] = document
