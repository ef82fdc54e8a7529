"""Docker archives: what `docker save` and `podman save` write (docker's image spec v1.2, "Combined Image JSON").

A tar with `manifest.json`, which names a configuration and the layers of each image. Old ones have no OCI manifest:
then one is made of what is there, the same each time. Layers and configuration keep their bytes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from msgspec import Struct

from layers.digest import Digest
from ociforge.errors import ImageError, TransportError
from ociforge.oci.blob import VerifiedReader, read_document
from ociforge.oci.config import ImageConfig
from ociforge.oci.descriptor import (
    CONFIG,
    INDEX_TYPES,
    MANIFEST,
    MANIFEST_TYPES,
    MAX_MANIFEST_SIZE,
    Descriptor,
    parse_json,
)
from ociforge.oci.document import objects, optional_text, texts
from ociforge.oci.image import ImageManifest
from ociforge.oci.index import MAX_DEPTH, ImageIndex
from ociforge.transports.location import ArchiveLocation
from ociforge.transports.naming import entries_of, listing, names_in, same_image
from ociforge.transports.tarball import Span, Tarball

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Any, BinaryIO

    from ociforge.oci.reference import Reference
    from ociforge.transports.naming import Name

__all__ = ["DockerArchiveSource"]

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_SUFFIXES = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}


class DockerArchiveSource:
    """One image of a docker archive: the one called `ref`, or the only one. It must have `digest`, if that is given.

    Where the archive holds the image's own OCI manifest (docker 25 and later, and ours), that is what `root` names. The
    file is opened, and its headers read, at once.
    """

    def __init__(self, path: Path, *, ref: str | None = None, digest: Digest | None = None) -> None:
        self._where = str(ArchiveLocation(path=path, kind="docker-archive"))
        self._tar = Tarball(path)
        self._spans: dict[Digest, Span] = {}  # of what has no name by digest in the archive
        self._manifest = b""
        image = self._image(path, ref)
        self._names = names_in([tag for tag in image.tags if ref is None or same_image(ref, [tag])])
        config = self._tar.read(self._follow(image.config), MAX_MANIFEST_SIZE)
        self._root = self._original(Digest.of(config)) or self._made(image, config)
        if digest not in (None, self._root.digest):
            raise TransportError(
                f"`{self._where}`: the image has the digest `{self._root.digest}`, not `{digest}`",
                "leave out the digest, or name another archive",
            )

    def root(self) -> Descriptor:
        return self._root

    def open(self, descriptor: Descriptor) -> BinaryIO:
        if self._manifest and descriptor.digest == self._root.digest:
            return VerifiedReader(io.BytesIO(self._manifest), descriptor)
        span = self._spans.get(descriptor.digest) or self._blob(descriptor.digest)
        if span is None:
            raise TransportError(f"`{self._where}` has no blob `{descriptor.digest}`", "the archive is incomplete")
        return VerifiedReader(self._tar.open(span), descriptor)

    def origin(self, descriptor: Descriptor) -> Reference | None:
        return None

    def names(self) -> tuple[Name, ...]:
        return self._names

    def _image(self, path: Path, ref: str | None) -> _Image:
        """What `manifest.json` says of the image that is asked for."""
        span = self._tar.find("manifest.json")
        if span is None:
            hint = f"write `oci-archive:{path}`" if "index.json" in self._tar else None
            raise TransportError(f"`{self._where}` is no docker archive: it has no `manifest.json`", hint)
        images = _images(self._tar.read(span, MAX_MANIFEST_SIZE), f"`manifest.json` of `{self._where}`")
        found = [image for image in images if ref is None or same_image(ref, image.tags)]
        if len(found) != 1:
            names = listing(tag for image in images for tag in image.tags)
            why = f"{len(found) or 'no'} image{'s' if len(found) > 1 else ''}{'' if ref is None else f' `{ref}`'}"
            hint = "name one of them behind the path, as in `:NAME:TAG`" if images else None
            raise TransportError(f"`{self._where}`: {why}: found {names}", hint)
        return found[0]

    def _original(self, config: Digest) -> Descriptor | None:
        """The OCI manifest in the archive that has this configuration and whose layers are there; None without one."""
        index = self._tar.find("index.json")
        if index is None:
            return None
        entries = entries_of(self._tar.read(index, MAX_MANIFEST_SIZE), self._where)
        for descriptor in self._manifests(entries, MAX_DEPTH):
            manifest = ImageManifest.parse(self._read(descriptor), descriptor.media_type)
            blobs = (manifest.config, *manifest.layers)
            if manifest.config.digest == config and all(self._blob(blob.digest) is not None for blob in blobs):
                return descriptor
        return None

    def _manifests(self, entries: Iterable[Descriptor], depth: int) -> Iterator[Descriptor]:
        """The image manifests that are there: an archive may leave out those of other platforms."""
        for entry in entries:
            if self._blob(entry.digest) is None:
                continue
            if entry.media_type in MANIFEST_TYPES:
                yield entry
            elif entry.media_type in INDEX_TYPES and depth > 0:
                yield from self._manifests(ImageIndex.parse(self._read(entry), entry.media_type).manifests, depth - 1)

    def _made(self, image: _Image, config: bytes) -> Descriptor:
        """A manifest for an image that came without."""
        diff_ids = ImageConfig.parse(config).diff_ids
        if len(diff_ids) != len(image.layers):
            raise ImageError(f"`{self._where}`: {len(image.layers)} layers, but {len(diff_ids)} diff_ids")
        layers = tuple(self._layer(name, diff_id) for name, diff_id in zip(image.layers, diff_ids, strict=True))
        config_descriptor = Descriptor(media_type=CONFIG, digest=Digest.of(config), size=len(config))
        self._spans[config_descriptor.digest] = self._follow(image.config)
        self._manifest = ImageManifest(config=config_descriptor, layers=layers).to_bytes()
        return Descriptor(media_type=MANIFEST, digest=Digest.of(self._manifest), size=len(self._manifest))

    def _layer(self, name: str, diff_id: Digest) -> Descriptor:
        """A layer as it is stored. The digest of a plain one is its diff_id, which every reading of it will prove."""
        span = self._follow(name)
        with self._tar.open(span) as stream:
            start = stream.read(4)
        suffix = next((suffix for magic, suffix in _SUFFIXES.items() if start.startswith(magic)), "")
        digest = diff_id
        if suffix:
            with self._tar.open(span) as stream:
                digest = Digest.of_stream(stream)
        self._spans[digest] = span
        return Descriptor(media_type=f"{_LAYER}{suffix}", digest=digest, size=span.size)

    def _follow(self, name: str) -> Span:
        """The member of that name; a layer that is in the archive twice may be a link."""
        span = self._tar.follow(name)
        if span is None:
            raise TransportError(
                f"`{self._where}` has no `{name}`, which `manifest.json` names", "the archive is incomplete"
            )
        return span

    def _blob(self, digest: Digest) -> Span | None:
        return self._tar.find(f"blobs/sha256/{digest.hex}")

    def _read(self, descriptor: Descriptor) -> bytes:
        return read_document(self.open(descriptor), descriptor)


class _Image(Struct, frozen=True, kw_only=True):
    """One element of `manifest.json`: member names, base first, and the image's names."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]


def _images(data: bytes, what: str) -> list[_Image]:
    # The file is an array; as a member of an object it passes through the strict reader of objects.
    images = objects(parse_json(b'{"images":' + data + b"}", what), "images", what)
    return [_parsed(image, f"{what}: [{i}]") for i, image in enumerate(images)]


def _parsed(document: dict[str, Any], what: str) -> _Image:
    config = optional_text(document, "Config", what)
    if config is None:
        raise ImageError(f"{what}.Config: missing")
    return _Image(
        config=config,
        layers=texts(document, "Layers", what) or (),
        tags=texts(document, "RepoTags", what) or (),
    )
