"""A base image: pulled or given as a file, checked, and listed.

A base is listed, never unpacked: every layer is read once, verified on the way, and its listing kept by its digest. Its
blobs are passed on as they are.
"""

from __future__ import annotations

import contextlib
import io
from functools import cached_property, partial
from typing import TYPE_CHECKING

from msgspec import Struct

from layers.compress import decompress
from layers.digest import Digest
from layers.errors import CodecError
from ociforge.base.libc import architectures
from ociforge.base.listing import decode, encode, read_layer
from ociforge.base.overlay import merge
from ociforge.base.rootfs_file import MAX_UNPACKED, RootfsFile
from ociforge.base.tree import Tree
from ociforge.errors import BaseImageError, ImageError, PlatformError, StoreError
from ociforge.events import BlobDone, BlobProgress, BlobStarted, ignore
from ociforge.oci.blob import read_document
from ociforge.oci.config import ImageConfig
from ociforge.oci.descriptor import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST_SIZE,
    Descriptor,
    canonical_json,
    parse_json,
)
from ociforge.oci.image import ImageManifest
from ociforge.oci.index import resolve
from ociforge.transports.base import Blob

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

    from layers.compress import Codec, OrderedMap
    from layers.digest import Writable
    from ociforge.base.listing import Listing, Member
    from ociforge.events import Notify
    from ociforge.platform import Platform
    from ociforge.store import Store
    from ociforge.transports.base import Source

__all__ = ["Base", "load", "rootfs", "scratch"]

_READ_SIZE = 1 << 20  # 1 MiB
_ROOTFS_FORMAT = 1  # of the catalog keys for files given as `rootfs:`
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # what engines assume where none is set


class Base(Struct, frozen=True, kw_only=True, dict=True):
    """An image to build on.

    `digest` is of what `name` names, so often of an index; both are None for a file or nothing. `layers` have OCI media
    types, lowest first; `config.diff_ids` are theirs. `list_paths` makes `tree`.
    """

    name: str | None
    digest: Digest | None
    platform: Platform
    config: ImageConfig
    layers: tuple[Descriptor, ...]
    list_paths: Callable[[], Tree]
    store: Store | None = None
    source: Source | None = None

    @cached_property
    def tree(self) -> Tree:
        """All paths of the image. The first use reads the layers, unless the store has their listings.

        Raises BaseImageError for layers that engines refuse, besides the errors of the source and the store.
        """
        return self.list_paths()

    @property
    def identity(self) -> Digest:
        """A digest of all that an image takes from its base."""
        facts = {
            "name": self.name,
            "digest": None if self.digest is None else str(self.digest),
            "platform": str(self.platform),
            "config": self.config.raw,
            "layers": [layer.to_json() for layer in self.layers],
        }
        return Digest.of(canonical_json(facts))

    def blob(self, layer: Descriptor) -> Blob:
        """One of `layers` on its way to a destination: from the store when it is there, else from where the base is."""
        origin = None if self.source is None else self.source.origin(layer)
        return Blob(descriptor=layer, open=partial(self._open, layer), origin=origin)

    def _open(self, layer: Descriptor) -> BinaryIO:
        if self.store is not None and (self.source is None or self.store.has(layer.digest, layer.size)):
            return self.store.open(layer)
        if self.source is None:
            raise BaseImageError(f"layer `{layer.digest}` is none of the base image's")
        return self.source.open(layer)


def scratch(platform: Platform) -> Base:
    """The base that has nothing."""
    return Base(
        name=None,
        digest=None,
        platform=platform,
        config=ImageConfig.empty(platform),
        layers=(),
        list_paths=Tree,
    )


def load(
    source: Source,
    *,
    platform: Platform,
    store: Store,
    name: str | None = None,
    digest: Digest | None = None,
    notify: Notify = ignore,
    map_: OrderedMap = map,
) -> Base:
    """The image in `source` for `platform`. Documents, and layers that have to be read for listing, stay in the store.

    `name` is the base's canonical reference, for errors and annotations; `digest` what `source` leads to, if that is
    known: then it is not asked for what the store has. Layers are listed through `map_`, when `tree` is used first.
    Raises PlatformError for an image of other platforms, BaseImageError for one that cannot be built on, besides the
    errors of the source and the store.
    """
    what = "base image" if name is None else f"base image `{name}`"
    try:
        root = _kept_root(store, digest) or source.root()
        read = partial(_document, source, store)
        descriptor = resolve(root, platform, read)
        manifest = ImageManifest.parse(read(descriptor), descriptor.media_type).to_oci()
        config = ImageConfig.parse(read(manifest.config))
    except ImageError as error:
        kind = PlatformError if isinstance(error, PlatformError) else BaseImageError
        raise kind(f"{what}: {error.message}", error.hint) from error
    _check_platform(what, platform, descriptor.platform, config.platform)
    if len(config.diff_ids) != len(manifest.layers):
        raise BaseImageError(
            f"{what}: {len(manifest.layers)} layers in the manifest, {len(config.diff_ids)} in the configuration"
        )
    lister = _Lister(store, source, what, notify)
    return Base(
        name=name,
        digest=root.digest,
        platform=platform,
        config=config,
        layers=manifest.layers,
        list_paths=lambda: merge(map_(lister, zip(manifest.layers, config.diff_ids, strict=True))),
        store=store,
        source=source,
    )


def rootfs(
    path: Path,
    *,
    platform: Platform,
    store: Store,
    codec: Codec,
    map_: OrderedMap = map,
) -> Base:
    """A base of one layer: the root file system in the tar file `path`, plain or compressed by gzip, zstd or xz.

    gzip and zstd are kept as they are where every engine reads them; the rest is compressed by `codec`, once: the store
    remembers the result by the file's digest. Nothing in a tar names its platform; what loaders of programs are in it
    tells most.

    Raises PlatformError for a file system of another architecture, BaseImageError for a file that cannot be read, is
    damaged, or holds what engines refuse.
    """
    file = RootfsFile(path)
    digest = file.digest()
    key = Digest.of(
        canonical_json({"format": _ROOTFS_FORMAT, "rootfs": str(digest), "codec": codec.identity}),
    )
    layer = store.catalog.find(key)
    if layer is None:
        listing = file.listing()
        layer = file.pack(digest, listing.diff_id, store, codec, map_)
        store.trees.record(layer.digest, encode(listing))
        store.catalog.record(key, layer)
    descriptor = Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size)
    tree = merge([_Lister(store, None, str(file), ignore)((descriptor, layer.diff_id))])
    found = architectures(tree)
    if found and platform.architecture not in found:
        listed = ", ".join(f"`linux/{name}`" for name in sorted(found))
        raise PlatformError(
            f"{file}: it is for {listed}, not for `{platform}`",
            f"choose a root file system for `{platform}`",
        )
    return Base(
        name=None,
        digest=None,
        platform=platform,
        config=_rootfs_config(platform, layer.diff_id),
        layers=(descriptor,),
        list_paths=lambda: tree,
        store=store,
    )


def _rootfs_config(platform: Platform, diff_id: Digest) -> ImageConfig:
    document = dict(ImageConfig.empty(platform).raw)
    document["config"] = {"Env": [f"PATH={_PATH}"]}
    document["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id)]}
    document["history"] = [{"created_by": "rootfs"}]  # not the file's name, which says nothing of its content
    return ImageConfig.from_json(document)


def _kept_root(store: Store, digest: Digest | None) -> Descriptor | None:
    """The descriptor of a manifest or index that the store has and that says itself what it is."""
    if digest is None or not store.has(digest):
        return None
    with contextlib.suppress(ImageError, OSError):
        data = store.path(digest).read_bytes()
        media_type = parse_json(data, "manifest").get("mediaType")
        if Digest.of(data) == digest and media_type in MANIFEST_TYPES | INDEX_TYPES:
            return Descriptor(media_type=str(media_type), digest=digest, size=len(data))
    return None


def _document(source: Source, store: Store, descriptor: Descriptor) -> bytes:
    """The verified bytes of a manifest, index or configuration, which are kept."""
    if descriptor.size <= MAX_MANIFEST_SIZE and store.has(descriptor.digest, descriptor.size):
        with contextlib.suppress(StoreError):  # damaged, and dropped
            return read_document(store.open(descriptor), descriptor)
    data = read_document(source.open(descriptor), descriptor)
    store.put(descriptor, io.BytesIO(data))
    return data


def _check_platform(what: str, wanted: Platform, announced: Platform | None, found: Platform) -> None:
    """No engine compares these, and a wrong one shows only as a program that does not start."""
    if announced is not None and not announced.matches(found):
        raise BaseImageError(f"{what}: its index calls it `{announced}`, its configuration is for `{found}`")
    if not wanted.matches(found):
        raise PlatformError(
            f"{what}: it is for `{found}`, not for `{wanted}`",
            f"choose a base image for `{wanted}`, or pass `--platform {found}`",
        )


class _Lister(Struct, frozen=True):
    """Lists a layer: from the store's listings, else from the blob in the store, else from the source's."""

    store: Store
    source: Source | None
    what: str
    notify: Notify

    def __call__(self, item: tuple[Descriptor, Digest]) -> tuple[Member, ...]:
        layer, diff_id = item
        listing = self._kept(layer) or self._stored(layer) or self._fetched(layer)
        if listing.diff_id != diff_id:
            raise BaseImageError(
                f"{self.what}: layer `{layer.digest}` unpacks to `{listing.diff_id}`, "
                f"but the configuration says `{diff_id}`"
            )
        return listing.members

    def _kept(self, layer: Descriptor) -> Listing | None:
        data = self.store.trees.find(layer.digest)
        try:
            return None if data is None else decode(data)
        except ValueError:
            return None

    def _stored(self, layer: Descriptor) -> Listing | None:
        if not self.store.has(layer.digest, layer.size):
            return None
        try:
            with self.store.open(layer) as stream:
                return self._read(layer, stream)
        except (BaseImageError, StoreError):
            if self.store.verify(layer):
                raise
            return None  # it was damaged, and is dropped

    def _fetched(self, layer: Descriptor) -> Listing:
        if self.source is None:
            raise StoreError(f"blob `{layer.digest}` is not in the store", "run the command again")
        self.notify(BlobStarted(layer.digest, layer.size, self.what))
        with self.store.ingest() as blob, self.source.open(layer) as stream:
            tee = _Tee(stream, blob, lambda count: self.notify(BlobProgress(layer.digest, count)))
            listing = self._read(layer, io.BufferedReader(tee, _READ_SIZE))
            if blob.digest() != layer.digest:
                raise BaseImageError(f"{self.what}: layer `{layer.digest}`: got bytes with digest `{blob.digest()}`")
            blob.commit()
        self.notify(BlobDone(layer.digest, layer.size, "downloaded"))
        return listing

    def _read(self, layer: Descriptor, stream: BinaryIO) -> Listing:
        what = f"{self.what}: layer `{layer.digest}`"
        try:
            listing = read_layer(decompress(stream, layer.media_type, limit=MAX_UNPACKED), what)
        except (CodecError, ImageError) as error:
            raise BaseImageError(f"{what}: {error}") from error
        self.store.trees.record(layer.digest, encode(listing))
        return listing


class _Tee(io.RawIOBase):
    """`stream`, with what is read from it written to `sink` and reported."""

    def __init__(self, stream: BinaryIO, sink: Writable, report: Callable[[int], None]) -> None:
        self._stream = stream
        self._sink = sink
        self._report = report

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # any buffer will do
        data = self._stream.read(len(buffer))
        self._sink.write(data)
        self._report(len(data))
        buffer[: len(data)] = data
        return len(data)
