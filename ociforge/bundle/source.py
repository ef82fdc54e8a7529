"""Bundles to read: a file, or whatever other place artifacts can be copied to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.bundle.manifest import ARTIFACT_TYPE, EMPTY, BundleManifest
from ociforge.bundle.write import SINCE
from ociforge.errors import ForgeError, ImageError, TransportError
from ociforge.oci.blob import READ_SIZE, VerifiedReader, read_document
from ociforge.oci.descriptor import MANIFEST, MANIFEST_TYPES, MAX_MANIFEST_SIZE
from ociforge.transports.layout import check_layout
from ociforge.transports.naming import entries_of
from ociforge.transports.tarball import Tarball, headers

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from ociforge.bundle.manifest import Item
    from ociforge.oci.descriptor import Descriptor
    from ociforge.transports.base import Source

__all__ = ["BundleFile", "Offer", "open_bundle", "read_bundle"]

_BLOCK = 512  # bytes, of a tar
_BLOBS = "blobs/sha256/"
_KNOWN = ("index.json", "manifest.json", "oci-layout")  # what those who copy archives may write
_AGAIN = "copy the bundle again, or make a new one with `ociforge bundle create`"


class Offer(Struct, frozen=True, kw_only=True):
    """A bundle that has been opened: its manifest is verified, its files are not yet.

    `held` are the blobs that are here, None where only asking for one tells. `strays` are members of the file that
    belong to nothing in the bundle, `flaws` says what else is wrong with the file. `since` names the bundle that has
    what is not here. `listed` are the images that `index.json` has besides the bundle.
    """

    where: str
    source: Source
    root: Descriptor
    manifest: BundleManifest
    held: frozenset[Digest] | None = None
    strays: tuple[str, ...] = ()
    flaws: tuple[str, ...] = ()
    since: Digest | None = None
    listed: tuple[Descriptor, ...] = ()

    def has(self, item: Item) -> bool:
        return self.held is None or item.digest in self.held

    def open(self, item: Item) -> BinaryIO:
        """A stream of the file, verified while it is read; the caller closes it."""
        return self.source.open(item.descriptor)

    def read(self, item: Item) -> bytes:
        """All of a small file, verified. Raises ImageError or TransportError."""
        return read_document(self.open(item), item.descriptor, limit=256 << 20)  # 256 MiB: as much as a lock may have


class BundleFile:
    """The tar of a layout with a bundle in it, as a Source; the headers are read at once."""

    def __init__(self, path: Path) -> None:
        """Raises TransportError for what cannot be read, or was cut off: then with what is missing, by name."""
        self._path = path
        self._where = str(path)
        try:
            self._tar = Tarball(path)
        except TransportError as error:
            again = TransportError(error.message, error.hint or _AGAIN)
            raise (_cut_off(path) if path.is_file() else None) or again from None
        layout, index = self._tar.find("oci-layout"), self._tar.find("index.json")
        if layout is None or index is None:
            raise TransportError(f"`{path}` is no bundle: it has no `oci-layout` and `index.json`", _AGAIN)
        check_layout(self._tar.read(layout, MAX_MANIFEST_SIZE), self._where)
        self._entries = entries_of(self._tar.read(index, MAX_MANIFEST_SIZE), self._where)
        self._entry = _entry(self._entries, self._where)

    def root(self) -> Descriptor:
        return self._entry

    def origin(self, descriptor: Descriptor) -> None:
        return None

    def open(self, descriptor: Descriptor) -> BinaryIO:
        span = self._tar.find(f"{_BLOBS}{descriptor.digest.hex}")
        if span is None:
            raise TransportError(f"`{self._where}` has no blob `{descriptor.digest}`", _AGAIN)
        return VerifiedReader(self._tar.open(span), descriptor)

    @property
    def since(self) -> Digest | None:
        text = self._entry.annotations.get(SINCE)
        try:
            return None if text is None else Digest.parse(text)
        except DigestError as error:
            raise TransportError(f"`{self._where}`: `{SINCE}`: {error}", _AGAIN) from error

    def listed(self) -> tuple[Descriptor, ...]:
        """What `index.json` has besides the bundle."""
        return tuple(entry for entry in self._entries if entry is not self._entry)

    def flaws(self) -> tuple[str, ...]:
        """What is wrong with the tar, though all of its members can be read."""
        with self._path.open("rb") as stream:
            try:
                *_, last = headers(stream.fileno(), self._path)
            except TransportError:
                return ()  # a compressed one, whose end its format tells
            return tuple(_after(stream, _end(last)))

    def blobs(self) -> frozenset[Digest]:
        """The digests that members are named by."""
        return frozenset(digest for name in self._tar if (digest := _digest(name)) is not None)

    def others(self) -> tuple[str, ...]:
        """Members that are neither blobs nor of a layout."""
        return tuple(sorted(name for name in self._tar if name not in _KNOWN and _digest(name) is None))


def open_bundle(path: Path) -> Offer:
    """Open a bundle's file. Raises TransportError for one that is damaged as far as that shows without reading all."""
    file = BundleFile(path)
    offer = read_bundle(file, str(path))
    named = {offer.root.digest, EMPTY.digest, *(item.digest for item in offer.manifest.items)}
    held = file.blobs()
    strays = [f"{_BLOBS}{digest.hex}" for digest in sorted(held - named)]
    return Offer(
        where=offer.where,
        source=file,
        root=offer.root,
        manifest=offer.manifest,
        held=held,
        strays=(*strays, *file.others()),
        flaws=file.flaws(),
        since=file.since,
        listed=file.listed(),
    )


def read_bundle(source: Source, where: str) -> Offer:
    """The bundle that `source`, a registry or a layout, has under the name it was asked for; `where` is for messages.

    Raises TransportError for what is none.
    """
    root = source.root()
    if root.media_type not in MANIFEST_TYPES:
        raise TransportError(
            f"`{where}` is no bundle, but `{root.media_type}`", "make one with `ociforge bundle create`"
        )
    try:
        data = read_document(source.open(root), root)
    except ImageError as error:
        raise TransportError(f"`{where}`: the bundle's manifest is damaged: {error.message}", _AGAIN) from error
    return Offer(where=where, source=source, root=root, manifest=BundleManifest.parse(data, where))


def _entry(entries: Sequence[Descriptor], where: str) -> Descriptor:
    """The bundle among what `index.json` lists: what says that it is one, else the only one."""
    found = [e for e in entries if e.artifact_type == ARTIFACT_TYPE and e.media_type == MANIFEST] or list(entries)
    if len(found) != 1:
        raise TransportError(f"`{where}` is no bundle: `index.json` lists {len(found)} images", _AGAIN)
    return found[0]


def _digest(name: str) -> Digest | None:
    try:
        return Digest(name.removeprefix(_BLOBS)) if name.startswith(_BLOBS) else None
    except DigestError:
        return None


def _cut_off(path: Path) -> TransportError | None:
    """What a file that ends too early has lost; None for one that does not, or when that cannot be told."""
    whole = _whole_members(path)
    if whole is None:
        return None
    try:
        with path.open("rb") as stream:
            entry = _entry(entries_of(_part(stream, whole["index.json"]), str(path)), str(path))
            manifest = BundleManifest.parse(_part(stream, whole[f"{_BLOBS}{entry.digest.hex}"]), str(path))
    except (OSError, KeyError, ForgeError):
        return None
    lost = [item for item in manifest.items if f"{_BLOBS}{item.digest.hex}" not in whole]
    if SINCE in entry.annotations or not lost:
        return TransportError(f"`{path}` is not a whole bundle: it was cut off", _AGAIN)
    return TransportError.collect([f"`{path}` was cut off: it lacks the {item}" for item in lost], _AGAIN)


def _whole_members(path: Path) -> dict[str, tuple[int, int]] | None:
    """Offset and size of the members that are there to their end, by name; None when no member passes the file's."""
    found: dict[str, tuple[int, int]] = {}
    end, cut = path.stat().st_size, False
    with path.open("rb") as stream:
        try:
            for member in headers(stream.fileno(), path):
                if member.isreg() and not member.issparse() and _end(member, padded=False) > end:
                    cut = True
                else:
                    found[member.name] = member.offset_data, member.size
        except TransportError:
            pass  # where it was cut off, or what is wrong with it instead
    return found if cut else None


def _end(member: tarfile.TarInfo, *, padded: bool = True) -> int:
    """Where the member ends, in bytes from the start of the tar."""
    size = member.size if member.isreg() else 0
    return member.offset_data + (-(-size // _BLOCK) * _BLOCK if padded else size)


def _after(stream: BinaryIO, end: int) -> Iterator[str]:
    """What is wrong with what follows the last member: two blocks of zeros, or more."""
    if end > stream.seek(0, os.SEEK_END):
        yield "it was cut off: its end is missing"
        return
    stream.seek(end)
    count = 0
    while chunk := stream.read(READ_SIZE):
        if chunk.count(0) != len(chunk):
            yield "there is something else behind its end"
            return
        count += len(chunk)
    if count < 2 * _BLOCK:
        yield "it was cut off: its end is missing"


def _part(stream: BinaryIO, span: tuple[int, int]) -> bytes:
    offset, size = span
    stream.seek(offset)
    return stream.read(min(size, MAX_MANIFEST_SIZE))
