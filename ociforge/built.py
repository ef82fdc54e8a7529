"""What a build gives: layers in the store, and an image or index as a Source to publish from."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ociforge.oci.index import assemble_index
from ociforge.oci.validate import validate, validate_index
from ociforge.transports.base import Blob

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import BinaryIO

    from layers.digest import Digest
    from layers.layer import Layer
    from ociforge.base import Base
    from ociforge.oci.descriptor import Descriptor
    from ociforge.oci.image import Image
    from ociforge.oci.reference import Reference
    from ociforge.store import Store

__all__ = ["Built", "BuiltLayer", "built_image", "built_index"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltLayer:
    """A layer of ours: what it is called, its packages (`name version build`), and whether the store had it already.

    `key` names the layer by its inputs; None for layers that are made anew each time.
    """

    title: str
    layer: Layer
    packages: tuple[str, ...] = ()
    key: Digest | None = None
    reused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An image or index that has no name yet; a Source.

    `documents` and `blobs` hold all that `descriptor` leads to; `layers` are those that this build made or reused.
    """

    descriptor: Descriptor
    documents: Mapping[Digest, bytes]
    blobs: Mapping[Digest, Blob]
    layers: tuple[BuiltLayer, ...]

    def root(self) -> Descriptor:
        return self.descriptor

    def open(self, descriptor: Descriptor) -> BinaryIO:
        document = self.documents.get(descriptor.digest)
        return self.blobs[descriptor.digest].open() if document is None else io.BytesIO(document)

    def origin(self, descriptor: Descriptor) -> Reference | None:
        blob = self.blobs.get(descriptor.digest)
        return None if blob is None else blob.origin


def built_image(image: Image, base: Base, layers: Sequence[BuiltLayer], store: Store) -> Built:
    """The image of `layers`, which are in `store`, on `base`; raises ImageError if it breaks the specification."""
    validate(image.manifest, image.config, image.descriptor)
    blobs = {descriptor.digest: base.blob(descriptor) for descriptor in base.layers}
    for descriptor in image.layers[len(base.layers) :]:
        blobs[descriptor.digest] = Blob(descriptor=descriptor, open=partial(store.open, descriptor))
    return Built(
        descriptor=image.descriptor,
        documents={image.descriptor.digest: image.manifest, image.config_descriptor.digest: image.config},
        blobs=blobs,
        layers=tuple(layers),
    )


def built_index(images: Iterable[Built], annotations: Mapping[str, str]) -> Built:
    """The index of images for different platforms; raises ImageError when two are for one platform."""
    images = tuple(images)
    data, descriptor = assemble_index([image.descriptor for image in images], annotations)
    validate_index(data, descriptor)
    documents = {descriptor.digest: data}
    blobs: dict[Digest, Blob] = {}
    for image in images:
        documents |= image.documents
        blobs |= image.blobs
    return Built(
        descriptor=descriptor,
        documents=documents,
        blobs=blobs,
        layers=tuple(layer for image in images for layer in image.layers),
    )
