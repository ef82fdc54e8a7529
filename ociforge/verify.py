"""Verification: is an image, wherever it lies, what its documents say it is?

Every byte is read. Registries check the digests of what they are sent, and engines those of what they pull; but that a
diff_id of the configuration belongs to the layer at its place, nobody looks at before the layer is unpacked, and builds
that reuse layers from an image believe it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from layers.compress import decompress
from layers.digest import Digest
from layers.errors import CodecError
from ociforge.errors import ForgeError, ImageError
from ociforge.oci.blob import read_document
from ociforge.oci.config import ImageConfig
from ociforge.oci.descriptor import INDEX_TYPES, MANIFEST
from ociforge.oci.image import ImageManifest
from ociforge.oci.index import MAX_DEPTH, ImageIndex
from ociforge.oci.validate import validate, validate_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layers.compress import OrderedMap
    from ociforge.oci.descriptor import Descriptor
    from ociforge.transports.base import Source

__all__ = ["Verified", "verify"]

_MAX_UNPACKED = 1 << 40  # 1 TiB: a layer that unpacks to more is an attack


class Verified(Struct, frozen=True, kw_only=True):
    """What was read and found right: `blobs` are distinct configurations and layers, `size` their bytes together."""

    descriptor: Descriptor
    manifests: int
    blobs: int
    size: int


class _Layer(Struct, frozen=True):
    """A layer, what the configuration says that it unpacks to (None: it is no layer of an image), and who names it."""

    descriptor: Descriptor
    diff_id: Digest | None
    manifest: Digest


def verify(source: Source, *, map_: OrderedMap = map) -> Verified:
    """Read all that `source` names: documents keep to the specification, blobs have their digests and sizes, and layers
    unpack to their diff_ids.

    Layers are read through `map_`. That a layer is what its key stands for cannot be seen in it. Raises ImageError that
    tells everything that is wrong, TransportError for what cannot be read.
    """
    root = source.root()
    problems: list[str] = []
    layers: dict[tuple[Digest, Digest | None], _Layer] = {}
    configs: dict[Digest, int] = {}
    manifests = 0
    for descriptor in _manifests(source, root, MAX_DEPTH, problems):
        manifests += 1
        try:
            config, found = _image(source, descriptor)
        except ImageError as error:
            problems.append(error.message)
            continue
        configs[config.digest] = config.size
        layers |= {(layer.descriptor.digest, layer.diff_id): layer for layer in found}
    problems += [problem for problem in map_(partial(_check, source), layers.values()) if problem is not None]
    if problems:
        pushed = source.origin(root) is not None
        anew = "build it anew with `--no-reuse`, and find out who pushed this one" if pushed else "write it anew"
        raise ImageError.collect(problems, f"do not use the image: {anew}")
    sizes = configs | {layer.descriptor.digest: layer.descriptor.size for layer in layers.values()}
    return Verified(descriptor=root, manifests=manifests, blobs=len(sizes), size=sum(sizes.values()))


def _manifests(source: Source, descriptor: Descriptor, depth: int, problems: list[str]) -> Iterator[Descriptor]:
    """The manifests that `descriptor` leads to, itself if it is one; indexes are looked at on the way."""
    if descriptor.media_type not in INDEX_TYPES:
        yield descriptor
        return
    try:
        if depth == 0:
            raise ImageError(f"image index `{descriptor.digest}`: nested more than {MAX_DEPTH} deep")
        data = read_document(source.open(descriptor), descriptor)
        validate_index(data, descriptor)
        children = ImageIndex.parse(data, descriptor.media_type).manifests
    except ImageError as error:
        problems.append(error.message)
        return
    for child in children:
        yield from _manifests(source, child, depth - 1, problems)


def _image(source: Source, descriptor: Descriptor) -> tuple[Descriptor, list[_Layer]]:
    """The configuration and the layers of what `descriptor` names, whose documents are right.

    Indexes may hold what is no image, such as attestations: of that, only digests can be checked.
    """
    data = read_document(source.open(descriptor), descriptor)
    manifest = ImageManifest.parse(data, descriptor.media_type)
    config = read_document(source.open(manifest.config), manifest.config)
    if not _is_image(manifest):
        return manifest.config, [_Layer(layer, None, descriptor.digest) for layer in manifest.layers]
    if manifest.media_type == MANIFEST:
        validate(data, config, descriptor if descriptor.platform is not None else None)
    diff_ids = ImageConfig.parse(config).diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise ImageError(
            f"manifest `{descriptor.digest}`: {len(manifest.layers)} layers, but {len(diff_ids)} diff_ids in the"
            " configuration"
        )
    pairs = zip(manifest.to_oci().layers, diff_ids, strict=True)
    return manifest.config, [_Layer(layer, diff_id, descriptor.digest) for layer, diff_id in pairs]


def _is_image(manifest: ImageManifest) -> bool:
    try:
        manifest.to_oci()
    except ImageError:
        return False
    return True


def _check(source: Source, layer: _Layer) -> str | None:
    """What is wrong with a layer, None for a good one."""
    what = f"layer `{layer.descriptor.digest}` of `{layer.manifest}`"
    try:
        with source.open(layer.descriptor) as stream:
            if layer.diff_id is None:
                Digest.of_stream(stream)
                return None
            # Reads to the end of the stream, which verifies it.
            found = Digest.of_stream(decompress(stream, layer.descriptor.media_type, limit=_MAX_UNPACKED))
    except CodecError as error:
        return f"{what}: {error}"
    except ForgeError as error:
        return f"{what}: {error.message}"
    if found != layer.diff_id:
        return f"{what}: unpacks to `{found}`, but the configuration says `{layer.diff_id}`"
    return None
