"""What a build gives: layers in the store, and an image or index as a Source to publish from."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.oci.annotations import LAYER_KEY, LAYER_TITLE
from ociforge.oci.config import ImageConfig
from ociforge.oci.descriptor import Descriptor
from ociforge.oci.image import Image, ImageManifest
from ociforge.oci.index import assemble_index
from ociforge.oci.validate import validate, validate_index
from ociforge.reuse import described_layer
from ociforge.transports.base import Blob

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import BinaryIO

    from layers.layer import Layer
    from ociforge.base import Base
    from ociforge.oci.reference import Reference
    from ociforge.reuse import Found, Previous
    from ociforge.store import Store

__all__ = ["Built", "BuiltLayer", "built_image", "built_index", "known_image"]


class BuiltLayer(Struct, frozen=True, kw_only=True):
    """A layer of ours: what it is called, and whether it existed already.

    `key` names the layer by its inputs. `found` is the image that it is taken from, None when the store has it.
    """

    title: str
    layer: Layer
    key: Digest | None = None
    reused: bool = False
    found: Found | None = None

    def blob(self, store: Store) -> Blob:
        """The layer on its way to a destination."""
        if self.found is not None:
            return self.found.blob(store)
        layer = self.layer
        descriptor = Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size)
        return Blob(descriptor=descriptor, open=partial(store.open, descriptor))


class Built(Struct, frozen=True, kw_only=True):
    """An image or index that has no name yet; a Source.

    `documents` and `blobs` hold all that `descriptor` leads to; `layers` are those that this build made or reused.
    """

    descriptor: Descriptor
    documents: Mapping[Digest, bytes]
    blobs: Mapping[Digest, Blob]
    layers: tuple[BuiltLayer, ...]

    @property
    def image(self) -> Image:
        """The image; `descriptor` must not be that of an index."""
        manifest = self.documents[self.descriptor.digest]
        config = self.documents[ImageManifest.parse(manifest).config.digest]
        return Image(manifest=manifest, config=config, descriptor=self.descriptor)

    def root(self) -> Descriptor:
        return self.descriptor

    def open(self, descriptor: Descriptor) -> BinaryIO:
        document = self.documents.get(descriptor.digest)
        return self.blobs[descriptor.digest].open() if document is None else io.BytesIO(document)

    def origin(self, descriptor: Descriptor) -> Reference | None:
        blob = self.blobs.get(descriptor.digest)
        return None if blob is None else blob.origin


def built_image(image: Image, base: Base, layers: Sequence[BuiltLayer], store: Store) -> Built:
    """The image of `layers` on `base`; raises ImageError if it breaks the specification."""
    validate(image.manifest, image.config, image.descriptor)
    blobs = {descriptor.digest: base.blob(descriptor) for descriptor in base.layers}
    for descriptor, made in zip(image.layers[len(base.layers) :], layers, strict=True):
        blobs[descriptor.digest] = replace(made.blob(store), descriptor=descriptor)
    return Built(
        descriptor=image.descriptor,
        documents={image.descriptor.digest: image.manifest, image.config_descriptor.digest: image.config},
        blobs=blobs,
        layers=tuple(layers),
    )


def known_image(key: Digest, base: Base, store: Store, previous: Iterable[Previous], media_type: str) -> Built | None:
    """The image with this key, from the store or from one of `previous`, if it and all of its layers exist; all of ours
    have the media type.
    """
    data = store.images.find(key)
    kept = None if data is None else Image.from_json(data)
    images: list[tuple[Image, Previous | None]] = [] if kept is None else [(kept, None)]
    images += [(one.image, one) for one in previous if one.key == key]
    for image, before in images:
        layers = _known_layers(image, base, store, before, media_type)
        if layers is not None:
            return built_image(image, base, layers, store)
    return None


def _known_layers(
    image: Image, base: Base, store: Store, before: Previous | None, media_type: str
) -> list[BuiltLayer] | None:
    """The layers above the base's, where they are; None when one is nowhere."""
    diff_ids = ImageConfig.parse(image.config).diff_ids
    below = [layer.digest for layer in base.layers]
    if len(diff_ids) != len(image.layers) or [layer.digest for layer in image.layers][: len(below)] != below:
        return None
    layers = []
    for descriptor, diff_id in list(zip(image.layers, diff_ids, strict=True))[len(below) :]:
        try:
            key = Digest.parse(descriptor.annotations.get(LAYER_KEY, ""))
        except DigestError:  # somebody has added a layer to an image of before
            return None
        layer = described_layer(descriptor, diff_id)
        here = store.has(descriptor.digest, descriptor.size)
        if here and before is not None:  # that its diff_id is right, the image only claims
            here = store.catalog.find(key) == layer
        found = None if here or before is None else before.find(key, media_type)
        if not here and found is None:
            return None
        layers.append(
            BuiltLayer(
                title=descriptor.annotations.get(LAYER_TITLE, ""),
                layer=layer,
                key=key,
                reused=True,
                found=found,
            )
        )
    return layers


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
