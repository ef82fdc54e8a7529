"""Publishing: one image or index from a source to a destination, blobs before the names that lead to them."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, get_args

from ociforge.errors import ImageError
from ociforge.events import Warned, ignore
from ociforge.oci.blob import read_document
from ociforge.oci.descriptor import INDEX_TYPES, MANIFEST_TYPES
from ociforge.oci.image import ImageManifest
from ociforge.oci.index import MAX_DEPTH, ImageIndex
from ociforge.transports.base import Blob, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from layers.compress import OrderedMap
    from ociforge.events import Notify
    from ociforge.oci.descriptor import Descriptor
    from ociforge.transports.base import Destination, Source

__all__ = ["Published", "Tally", "publish"]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many blobs, and of how many bytes together."""

    count: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a destination calls the image now, and what became of the configs and layers, each counted once."""

    name: str
    descriptor: Descriptor
    blobs: Mapping[Outcome, Tally]


def publish(source: Source, destination: Destination, *, map_: OrderedMap = map, notify: Notify = ignore) -> Published:
    """Copy what `source` names to `destination`, whose context it enters; digests never change.

    Blobs go first, the biggest first, through `map_`; then manifests one by one, children first; the name last. What
    the destination has already is not opened. Layers that must not be redistributed are left out, with a warning;
    of the transfers themselves the destination tells. Raises ImageError or TransportError; then nothing is named.
    """
    root = source.root()
    documents = {document.descriptor.digest: document for document in _documents(source, root, MAX_DEPTH)}
    blobs = {blob.digest: blob for document in documents.values() for blob in document.blobs}
    wanted = [blob for blob in blobs.values() if not _is_foreign(blob, notify)]
    with destination:
        send = partial(_send, source, destination)
        outcomes = list(map_(send, sorted(wanted, key=lambda blob: (-blob.size, blob.digest))))
        for document in documents.values():
            destination.put(Blob(descriptor=document.descriptor, open=partial(io.BytesIO, document.data)))
        name = destination.tag(root)
    return Published(name=name, descriptor=root, blobs=_tallies(outcomes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """A manifest or index, and the blobs that it names itself."""

    descriptor: Descriptor
    data: bytes
    blobs: tuple[Descriptor, ...]


def _documents(source: Source, descriptor: Descriptor, depth: int) -> Iterator[_Document]:
    """Everything that `descriptor` leads to through indexes, and itself: children first, in the order of the index."""
    if descriptor.media_type not in MANIFEST_TYPES | INDEX_TYPES:
        raise ImageError(f"manifest `{descriptor.digest}`: unknown media type `{descriptor.media_type}`")
    data = read_document(source.open(descriptor), descriptor)
    blobs: tuple[Descriptor, ...] = ()
    if descriptor.media_type in MANIFEST_TYPES:
        manifest = ImageManifest.parse(data, descriptor.media_type)
        blobs = (manifest.config, *manifest.layers)
    elif depth == 0:
        raise ImageError(f"image index `{descriptor.digest}`: nested more than {MAX_DEPTH} deep")
    else:
        for child in ImageIndex.parse(data, descriptor.media_type).manifests:
            yield from _documents(source, child, depth - 1)
    yield _Document(descriptor=descriptor, data=data, blobs=blobs)


def _is_foreign(blob: Descriptor, notify: Notify) -> bool:
    """Whether the blob may not be redistributed (image-spec, layer.md, "Non-Distributable Layers")."""
    if ".nondistributable." not in blob.media_type and ".foreign." not in blob.media_type:
        return False
    notify(Warned(f"layer `{blob.digest}` is not copied: its media type forbids to distribute it"))
    return True


def _send(source: Source, destination: Destination, descriptor: Descriptor) -> tuple[Outcome, int]:
    """Bring one blob to the destination; safe to call from several threads."""
    blob = Blob(descriptor=descriptor, open=partial(source.open, descriptor), origin=source.origin(descriptor))
    return destination.put(blob), descriptor.size


def _tallies(outcomes: list[tuple[Outcome, int]]) -> dict[Outcome, Tally]:
    counts = Counter(outcome for outcome, _ in outcomes)
    return {
        name: Tally(counts[name], sum(size for outcome, size in outcomes if outcome == name))
        for name in get_args(Outcome)
    }
