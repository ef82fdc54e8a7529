"""Publishing: one image or index from a source to a destination, blobs before the names that lead to them."""

from __future__ import annotations

import io
import threading
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

from msgspec import Struct

from ociforge.errors import ImageError
from ociforge.events import StageStarted, Warned, ignore
from ociforge.oci.blob import read_document
from ociforge.oci.descriptor import INDEX_TYPES, MANIFEST_TYPES
from ociforge.oci.image import ImageManifest
from ociforge.oci.index import MAX_DEPTH, ImageIndex
from ociforge.transports.base import Blob, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from layers.compress import OrderedMap
    from layers.digest import Digest
    from ociforge.events import Notify
    from ociforge.oci.descriptor import Descriptor
    from ociforge.transports.base import Destination, Source

__all__ = ["Kind", "Publication", "Published", "Tally", "Transfer", "publish"]

Kind = Literal["config", "index", "layer", "manifest"]


class Tally(Struct, frozen=True):
    """How many blobs, and of how many bytes together."""

    count: int
    size: int


class Transfer(Struct, frozen=True, kw_only=True):
    """What became of one blob, manifest or index."""

    descriptor: Descriptor
    kind: Kind
    outcome: Outcome

    @property
    def sent(self) -> int:
        """Bytes that went to the destination; what was sent again after a failure is not counted again."""
        return self.descriptor.size if self.outcome == "uploaded" else 0


class Published(Struct, frozen=True, kw_only=True):
    """What a destination calls the image now, and what became of all that belongs to it: each digest once, children
    before the manifests that name them.
    """

    name: str
    descriptor: Descriptor
    transfers: tuple[Transfer, ...]

    @property
    def blobs(self) -> Mapping[Outcome, Tally]:
        """The configs and layers by outcome."""
        return {outcome: self._tally(outcome) for outcome in get_args(Outcome)}

    @property
    def sent(self) -> int:
        """Bytes that went to the destination, manifests and indexes included."""
        return sum(transfer.sent for transfer in self.transfers)

    def _tally(self, outcome: Outcome) -> Tally:
        sizes = [
            transfer.descriptor.size
            for transfer in self.transfers
            if transfer.outcome == outcome and transfer.kind in ("config", "layer")
        ]
        return Tally(len(sizes), sum(sizes))


def publish(source: Source, destination: Destination, *, map_: OrderedMap = map, notify: Notify = ignore) -> Published:
    """Copy what `source` names to `destination`, whose context it enters; digests never change.

    Blobs go first, the biggest first, through `map_`; then manifests one by one, children first; the name last. What
    the destination has already is not opened. Layers that must not be redistributed are left out, with a warning;
    of the transfers themselves the destination tells. Raises ImageError or TransportError; then nothing is named, and
    the destination is untouched if the source has no such image.
    """
    image = _Image.read(source)
    _announce(destination, notify)
    with Publication(destination, notify) as publication:
        return publication._write(image, map_)


class Publication:
    """One image on its way to one destination, whose context is this object's: layers can be sent as soon as they are
    made, before it is known what manifest will name them.

    No blob is put twice, whoever sends it and from however many threads; its first outcome is the one that counts.
    """

    def __init__(self, destination: Destination, notify: Notify = ignore) -> None:
        self._destination = destination
        self._notify = notify
        self._lock = threading.Lock()
        self._turns: dict[_Key, threading.Lock] = {}
        self._outcomes: dict[_Key, Outcome] = {}

    def __enter__(self) -> Self:
        self._destination.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._destination.__exit__(kind, error, traceback)

    def send(self, blob: Blob) -> Outcome:
        """Bring one blob to the destination, unless that has been done: its first outcome.

        `blob.open` may be called until `finish` returns, for an archive is written only then; and what is sent but
        not named by the image that `finish` gets may stay in the destination. Raises ImageError or TransportError;
        then the blob may be sent again.
        """
        key = _key(blob.descriptor)
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            if key not in self._outcomes:
                self._outcomes[key] = self._destination.put(blob)
            return self._outcomes[key]

    def finish(self, source: Source, map_: OrderedMap = map) -> Published:
        """Send what is missing of what `source` names, and name it; as `publish` does. Once, and last of all."""
        _announce(self._destination, self._notify)
        return self._write(_Image.read(source), map_)

    def _write(self, image: _Image, map_: OrderedMap) -> Published:
        wanted = [part.descriptor for part in image.blobs if not _is_foreign(part.descriptor, self._notify)]
        wanted.sort(key=lambda blob: (-blob.size, blob.digest))
        for _ in map_(lambda blob: self.send(image.blob(blob)), wanted):
            pass
        for document in image.documents:
            self.send(Blob(descriptor=document.descriptor, open=partial(io.BytesIO, document.data)))
        name = self._destination.tag(image.root)
        transfers = [
            Transfer(descriptor=part.descriptor, kind=part.kind, outcome=outcome)
            for part in image.parts
            if (outcome := self._outcomes.get(_key(part.descriptor))) is not None
        ]
        return Published(name=name, descriptor=image.root, transfers=tuple(transfers))


_Key = tuple["Digest", bool]  # registries keep documents apart: the same bytes may have to be there as a blob, too


def _key(descriptor: Descriptor) -> _Key:
    return descriptor.digest, descriptor.media_type in MANIFEST_TYPES | INDEX_TYPES


class _Part(Struct, frozen=True):
    """Something that belongs to an image."""

    descriptor: Descriptor
    kind: Kind


class _Document(Struct, frozen=True, kw_only=True):
    """A manifest or index, and the blobs that it names itself."""

    descriptor: Descriptor
    data: bytes
    kind: Kind
    parts: tuple[_Part, ...] = ()


class _Image(Struct, frozen=True, kw_only=True):
    """All that belongs to what `root` names: each of `documents` and of `parts` once, children first."""

    source: Source
    root: Descriptor
    documents: tuple[_Document, ...]
    parts: tuple[_Part, ...]

    @classmethod
    def read(cls, source: Source) -> Self:
        """Raises ImageError, or what the source raises."""
        root = source.root()
        documents = {document.descriptor.digest: document for document in _documents(source, root, MAX_DEPTH)}
        parts: dict[_Key, _Part] = {}
        for document in documents.values():
            for part in (*document.parts, _Part(document.descriptor, document.kind)):
                parts.setdefault(_key(part.descriptor), part)
        return cls(source=source, root=root, documents=tuple(documents.values()), parts=tuple(parts.values()))

    @property
    def blobs(self) -> Iterator[_Part]:
        """The configs and layers."""
        return (part for part in self.parts if part.kind in ("config", "layer"))

    def blob(self, descriptor: Descriptor) -> Blob:
        opener = partial(self.source.open, descriptor)
        return Blob(descriptor=descriptor, open=opener, origin=self.source.origin(descriptor))


def _documents(source: Source, descriptor: Descriptor, depth: int) -> Iterator[_Document]:
    """Everything that `descriptor` leads to through indexes, and itself: children first, in the order of the index."""
    if descriptor.media_type not in MANIFEST_TYPES | INDEX_TYPES:
        raise ImageError(f"manifest `{descriptor.digest}`: unknown media type `{descriptor.media_type}`")
    data = read_document(source.open(descriptor), descriptor)
    if descriptor.media_type in MANIFEST_TYPES:
        manifest = ImageManifest.parse(data, descriptor.media_type)
        parts = (_Part(manifest.config, "config"), *(_Part(layer, "layer") for layer in manifest.layers))
        yield _Document(descriptor=descriptor, data=data, kind="manifest", parts=parts)
        return
    if depth == 0:
        raise ImageError(f"image index `{descriptor.digest}`: nested more than {MAX_DEPTH} deep")
    for child in ImageIndex.parse(data, descriptor.media_type).manifests:
        yield from _documents(source, child, depth - 1)
    yield _Document(descriptor=descriptor, data=data, kind="index")


def _is_foreign(blob: Descriptor, notify: Notify) -> bool:
    """Whether the blob may not be redistributed (image-spec, layer.md, "Non-Distributable Layers")."""
    if ".nondistributable." not in blob.media_type and ".foreign." not in blob.media_type:
        return False
    notify(Warned(f"layer `{blob.digest}` is not copied: its media type forbids to distribute it"))
    return True


def _announce(destination: Destination, notify: Notify) -> None:
    notify(StageStarted(f"publishing to `{destination}`"))
