"""Reuse: images that earlier builds published, as a catalog of layers for this one.

Every layer that a build pushes carries its key as an annotation, and its diff_id stands in the configuration; so any
published image tells, in two small documents, which layers need not be made again. What is taken by its key is
believed to be what the key says: `verify` checks that a diff_id belongs to its digest, as does a build that reads the
layer's bytes, and one that has made a layer itself tells when an image claims another one for the same key.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from layers.compress import decompress
from layers.digest import Digest
from layers.errors import DigestError
from layers.layer import Layer
from ociforge.errors import ImageError, NotFoundError
from ociforge.oci.annotations import IMAGE_KEY, LAYER_KEY
from ociforge.oci.blob import read_document
from ociforge.oci.config import ImageConfig
from ociforge.oci.descriptor import INDEX_TYPES, MANIFEST, Descriptor
from ociforge.oci.image import Image, ImageManifest
from ociforge.oci.index import resolve
from ociforge.oci.validate import validate
from ociforge.transports.base import Blob

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from ociforge.platform import Platform
    from ociforge.store import Store
    from ociforge.transports.base import Source

__all__ = ["Found", "Previous", "described_layer", "read_previous"]

_MAX_UNPACKED = 1 << 40  # 1 TiB: a layer that unpacks to more is an attack
_INCOMPLETE = "lacks layers that it names: build with `--no-reuse`, which makes and pushes them again"


class Found(Struct, frozen=True, kw_only=True):
    """A layer of an earlier image: what it is, the descriptor that names it there, and the image it is in."""

    layer: Layer
    descriptor: Descriptor
    image: Previous

    def blob(self, store: Store) -> Blob:
        """The layer on its way to a destination, which need not read it if it can be mounted; else it goes through
        `store`.
        """
        opener = partial(self._open, store)
        return Blob(descriptor=self.descriptor, open=opener, origin=self.image.source.origin(self.descriptor))

    def _open(self, store: Store) -> BinaryIO:
        if not store.has(self.layer.digest, self.layer.size):
            self._pull(store)
        if not store.catalog.confirms(self.layer):
            self._check(store)
        return store.open(self.descriptor)

    def _pull(self, store: Store) -> None:
        """Bring the layer into `store`."""
        try:
            with self.image.source.open(self.descriptor) as stream:
                store.put(self.descriptor, stream)
        except NotFoundError as error:
            raise NotFoundError(error.message, f"`{self.image.name}` {_INCOMPLETE}") from error

    def _check(self, store: Store) -> None:
        """Raise ImageError when the layer, which is in `store`, is not what the image says of it."""
        with store.open(self.descriptor) as stream:
            found = Digest.of_stream(decompress(stream, self.layer.media_type, limit=_MAX_UNPACKED))
        if found != self.layer.diff_id:
            raise ImageError(
                f"layer `{self.layer.digest}` of `{self.image.name}` unpacks to `{found}`, but the configuration says"
                f" `{self.layer.diff_id}`",
                "build with `--no-reuse`, and find out who pushed the image",
            )
        store.catalog.confirm(self.layer)


class Previous(Struct, frozen=True, kw_only=True, eq=False):
    """An image of ours; `layers` are those that have a key, by it.

    `key` names the image by all that it follows from; None for an image without. `name` is for messages.
    """

    name: str
    source: Source
    image: Image
    key: Digest | None
    layers: Mapping[Digest, tuple[Layer, Descriptor]]

    def find(self, key: Digest, media_type: str) -> Found | None:
        """The layer of `key`, if this image has it, and of the media type that `key` stands for."""
        if (pair := self.layers.get(key)) is None or pair[0].media_type != media_type:
            return None
        return Found(layer=pair[0], descriptor=pair[1], image=self)


def read_previous(source: Source, platform: Platform, name: str) -> Previous | None:
    """The image for `platform` that `source` names; None when it is no image for that platform, or none of ours.

    Two documents are read, three of an index. Raises the errors of the source, and ImageError for documents that
    break the specification.
    """

    def read(descriptor: Descriptor) -> bytes:
        return read_document(source.open(descriptor), descriptor)

    root = source.root()
    try:
        descriptor = resolve(root, platform, read) if root.media_type in INDEX_TYPES else root
    except ImageError:
        return None
    data = read(descriptor)
    manifest = ImageManifest.parse(data, descriptor.media_type)
    keys = [_digest(layer.annotations.get(LAYER_KEY)) for layer in manifest.layers]
    if not any(keys) or descriptor.media_type != MANIFEST:
        return None
    config = read(manifest.config)
    parsed = ImageConfig.parse(config)
    if not platform.matches(parsed.platform) or len(parsed.diff_ids) != len(keys):
        return None
    validate(data, config)
    return Previous(
        name=name,
        source=source,
        image=Image(
            manifest=data,
            config=config,
            descriptor=Descriptor(
                media_type=MANIFEST, digest=descriptor.digest, size=descriptor.size, platform=parsed.platform
            ),
        ),
        key=_digest(manifest.annotations.get(IMAGE_KEY)),
        layers={
            key: (described_layer(layer, diff_id), layer)
            for key, layer, diff_id in zip(keys, manifest.layers, parsed.diff_ids, strict=True)
            if key is not None
        },
    )


def described_layer(descriptor: Descriptor, diff_id: Digest) -> Layer:
    """The layer that a manifest's `descriptor` and the configuration's `diff_id` at its place tell of."""
    return Layer(diff_id=diff_id, digest=descriptor.digest, size=descriptor.size, media_type=descriptor.media_type)


def _digest(text: str | None) -> Digest | None:
    try:
        return None if text is None else Digest.parse(text)
    except DigestError:
        return None
