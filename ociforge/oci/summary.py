"""What an image or index is, read from its manifests and configurations alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.errors import ImageError
from ociforge.oci.config import ImageConfig
from ociforge.oci.descriptor import CONFIG, DOCKER_CONFIG, INDEX_TYPES, MANIFEST_TYPES
from ociforge.oci.image import ImageManifest
from ociforge.oci.index import MAX_DEPTH, ImageIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from layers.digest import Digest
    from ociforge.oci.descriptor import Descriptor
    from ociforge.platform import Platform

    Read = Callable[[Descriptor], bytes]

__all__ = ["MAX_IMAGES", "ImageSummary", "Summary", "is_attachment", "summarize"]

MAX_IMAGES = 100  # of one index that are looked at: two documents have to be read of each

_ATTACHED = "vnd.docker.reference.type"  # what BuildKit calls its attestations by


class ImageSummary(Struct, frozen=True, kw_only=True):
    """One image; `config` is None for an artifact in the form of an image. `descriptor` is how it was found."""

    descriptor: Descriptor
    manifest: ImageManifest
    config: ImageConfig | None

    @property
    def platform(self) -> Platform | None:
        """What the configuration says, or else the index."""
        return self.descriptor.platform if self.config is None else self.config.platform

    @property
    def size(self) -> int:
        """Of all layers together, in bytes, as they are stored."""
        return sum(layer.size for layer in self.manifest.layers)

    @property
    def diff_ids(self) -> tuple[Digest | None, ...]:
        """One for each layer; None where the configuration has none for each."""
        known = () if self.config is None else self.config.diff_ids
        return known if len(known) == len(self.manifest.layers) else (None,) * len(self.manifest.layers)


class Summary(Struct, frozen=True, kw_only=True):
    """What `root` stands for: `images`, in the order of the index, and what is attached to them, not looked into.

    `annotations` are those of the manifest or index itself.
    """

    root: Descriptor
    annotations: Mapping[str, str]
    images: tuple[ImageSummary, ...]
    attachments: tuple[Descriptor, ...] = ()


def summarize(root: Descriptor, read: Read) -> Summary:
    """Look at `root`, a manifest or index; `read` gives verified bytes of documents, of bounded size.

    Raises ImageError for documents that break the specification, and for an index of more than MAX_IMAGES images.
    """
    if root.media_type not in INDEX_TYPES:
        image = _image(root, read)
        return Summary(root=root, annotations=image.manifest.annotations, images=(image,))
    index = ImageIndex.parse(read(root), root.media_type)
    entries = list(_entries(index, read, MAX_DEPTH - 1))
    images = [entry for entry in entries if not is_attachment(entry)]
    if len(images) > MAX_IMAGES:
        raise ImageError(
            f"image index `{root.digest}`: {len(images)} images, but at most {MAX_IMAGES} are looked at",
            "choose one by its platform",
        )
    return Summary(
        root=root,
        annotations=index.annotations,
        images=tuple(_image(entry, read) for entry in images),
        attachments=tuple(entry for entry in entries if is_attachment(entry)),
    )


def is_attachment(entry: Descriptor) -> bool:
    """Whether the entry of an index is no image of its own, but says something about another."""
    platform = entry.platform
    return _ATTACHED in entry.annotations or (
        platform is not None and "unknown" in (platform.os, platform.architecture)
    )


def _entries(index: ImageIndex, read: Read, depth: int) -> Iterator[Descriptor]:
    """The entries of an index and of those in it that are no indexes."""
    for entry in index.manifests:
        if entry.media_type not in INDEX_TYPES:
            yield entry
        elif depth == 0:
            raise ImageError(f"image index `{entry.digest}`: nested more than {MAX_DEPTH} deep")
        else:
            yield from _entries(ImageIndex.parse(read(entry), entry.media_type), read, depth - 1)


def _image(descriptor: Descriptor, read: Read) -> ImageSummary:
    if descriptor.media_type not in MANIFEST_TYPES:
        raise ImageError(f"manifest `{descriptor.digest}`: `{descriptor.media_type}` is not that of an image")
    manifest = ImageManifest.parse(read(descriptor), descriptor.media_type)
    image = manifest.config.media_type in (CONFIG, DOCKER_CONFIG)
    config = ImageConfig.parse(read(manifest.config)) if image else None
    return ImageSummary(descriptor=descriptor, manifest=manifest, config=config)
