"""OCI archives: an image layout as one uncompressed tar, with docker's `manifest.json` beside `index.json`.

So `docker load` of any version, `podman load`, `ctr images import`, skopeo and umoci (unpacked) read the same file. The
tar is never compressed as a whole: containerd would not import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from layers.entry import Bytes, Directory, File
from layers.errors import LayerError
from layers.tar import END, members
from ociforge.errors import TransportError
from ociforge.events import ignore
from ociforge.oci.blob import VerifiedReader, read_document
from ociforge.oci.descriptor import (
    CONFIG,
    DOCKER_CONFIG,
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST_SIZE,
    canonical_json,
)
from ociforge.oci.image import ImageManifest
from ociforge.oci.index import ImageIndex
from ociforge.oci.reference import Reference
from ociforge.replacing import replacing
from ociforge.transports.files import check_parent, sync_directory, translated
from ociforge.transports.layout import LAYOUT, check_layout, described, warn_of_docker_types
from ociforge.transports.location import ArchiveLocation
from ociforge.transports.naming import Name, entries_of, labelled, matching, merge, names_of, select
from ociforge.transports.tarball import Tarball
from ociforge.transports.watched import watched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import BinaryIO, Self

    from layers.digest import Digest
    from layers.entry import Entry
    from ociforge.events import Notify
    from ociforge.oci.descriptor import Descriptor
    from ociforge.platform import Platform
    from ociforge.transports.base import Blob, Outcome

__all__ = ["ArchiveDestination", "ArchiveSource"]

_BLOBS = "blobs/sha256"
_OTHER = "name a file, new or to be replaced"


class ArchiveSource:
    """One image of an OCI archive: the one called `ref` (a tag or a whole name), or with `digest`, or the only one.

    The file is opened, and its headers read, at once. An archive compressed as a whole is unpacked to a temporary file.
    """

    def __init__(self, path: Path, *, ref: str | None = None, digest: Digest | None = None) -> None:
        self._where = str(ArchiveLocation(path=path))
        self._tar = Tarball(path)
        entries = entries_of(self._index(path), self._where)
        self._root = select(entries, ref, digest, self._where)
        self._names = names_of(matching(entries, ref, digest))

    def root(self) -> Descriptor:
        return self._root

    def open(self, descriptor: Descriptor) -> BinaryIO:
        span = self._tar.find(f"{_BLOBS}/{descriptor.digest.hex}")
        if span is None:
            raise TransportError(f"`{self._where}` has no blob `{descriptor.digest}`", "the archive is incomplete")
        return VerifiedReader(self._tar.open(span), descriptor)

    def origin(self, descriptor: Descriptor) -> Reference | None:
        return None

    def names(self) -> tuple[Name, ...]:
        return self._names

    def _index(self, path: Path) -> bytes:
        layout, index = self._tar.find("oci-layout"), self._tar.find("index.json")
        if layout is None or index is None:
            hint = f"write `docker-archive:{path}`" if "manifest.json" in self._tar else None
            raise TransportError(f"`{self._where}` is no OCI archive: it has no `oci-layout` and `index.json`", hint)
        check_layout(self._tar.read(layout, MAX_MANIFEST_SIZE), self._where)
        return self._tar.read(index, MAX_MANIFEST_SIZE)


class ArchiveDestination:
    """Writes one image, or an index with its images, as a new archive in the place of FILE.

    `ref` and `names` are what `index.json` and `manifest.json` call the image. Of an index, `manifest.json`, which can
    show one, describes the image for `platform`, or the first where there is none for it.

    The members of the tar are sorted and nothing is written twice, so `put` only takes note of a blob: `tag` opens all,
    verifies them while it writes them, and raises what `put` would have raised. FILE appears when it is whole. The same
    image gives the same bytes.
    """

    def __init__(
        self,
        path: Path,
        *,
        ref: str | None = None,
        names: Sequence[Reference | Name] = (),
        platform: Platform | None = None,
        notify: Notify = ignore,
    ) -> None:
        self._path = path
        self._ref = ref
        self._names = Name.plan(None if ref is None else Name.of(Reference.parse(ref)), names)
        self._platform = platform
        self._notify = notify
        self._where = str(ArchiveLocation(path=path, ref=ref))
        self._blobs: dict[Digest, Blob] = {}

    def __str__(self) -> str:
        return self._where

    def __enter__(self) -> Self:
        with translated(f"writing `{self._where}`"):
            self._path = self._path.resolve()  # a link stays a link: the file that it leads to is replaced
            if self._path.exists() and not self._path.is_file():
                hint = f"for a directory write `oci:{self._path}`" if self._path.is_dir() else _OTHER
                raise TransportError(f"writing `{self._where}`: `{self._path}` is not a regular file", hint)
            check_parent(self._path, f"writing `{self._where}`")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._blobs.clear()

    def has(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self._blobs

    def put(self, blob: Blob) -> Outcome:
        return "uploaded" if self._blobs.setdefault(blob.descriptor.digest, blob) is blob else "exists"

    def tag(self, root: Descriptor) -> str:
        entries = list(self._entries(root))
        warn_of_docker_types(root, self._where, self._notify)
        with translated(f"writing `{self._where}`"):
            with replacing(self._path) as file:
                try:
                    for chunk in members(entries, lambda _: None):  # there are no hard links
                        file.write(chunk)
                except LayerError as error:
                    raise TransportError(f"writing `{self._where}`: {error}") from error
                file.write(END)
            sync_directory(self._path.parent)
        return f"{self._where}@{root.digest}"

    def _entries(self, root: Descriptor) -> Iterator[Entry]:
        """All members, sorted."""
        yield Directory(path="blobs")
        yield Directory(path=_BLOBS)
        for digest, blob in sorted(self._blobs.items()):
            yield File(
                path=f"{_BLOBS}/{digest.hex}",
                size=blob.descriptor.size,
                content=_Watched(blob, str(self), self._notify),
            )
        yield _document("index.json", canonical_json(merge(None, labelled(described(root, self._read), self._names))))
        if (docker := self._docker_manifest(root)) is not None:
            yield _document("manifest.json", docker)
        yield _document("oci-layout", LAYOUT)

    def _docker_manifest(self, root: Descriptor) -> bytes | None:
        """The `manifest.json` of the platform image; None for an artifact, or where `docker load` would miss a blob."""
        platform_image = self._platform_image(root)
        if platform_image is None:
            return None
        manifest = ImageManifest.parse(self._read(platform_image), platform_image.media_type)
        blobs = (manifest.config, *manifest.layers)
        if manifest.config.media_type not in (CONFIG, DOCKER_CONFIG) or not all(map(self.has, blobs)):
            return None
        config, *layers = (f"{_BLOBS}/{blob.digest.hex}" for blob in blobs)
        tags = [str(name.whole) for name in self._names if name.whole is not None]
        return canonical_json([{"Config": config, "RepoTags": tags, "Layers": layers}])

    def _platform_image(self, root: Descriptor) -> Descriptor | None:
        return min(self._images(root), key=self._distance, default=None)

    def _distance(self, image: Descriptor) -> int:
        """How far the image is from the platform that is wanted; of equals, the first will do."""
        wanted, found = self._platform, image.platform
        if wanted is None or found is None or not wanted.matches(found):
            return 2
        return int(str(wanted) != str(found))

    def _images(self, descriptor: Descriptor) -> Iterator[Descriptor]:
        """The images that a manifest or an index stands for, in its order; attestations are none."""
        if descriptor.media_type in MANIFEST_TYPES:
            if descriptor.platform is None or descriptor.platform.os != "unknown":
                yield descriptor
        elif descriptor.media_type in INDEX_TYPES:
            for child in ImageIndex.parse(self._read(descriptor), descriptor.media_type).manifests:
                yield from self._images(child)

    def _read(self, descriptor: Descriptor) -> bytes:
        try:
            return read_document(self._blobs[descriptor.digest].open(), descriptor)
        except KeyError:
            raise TransportError(f"writing `{self._where}`: `{descriptor.digest}` was not put there") from None


class _Watched(Struct, frozen=True):
    """The content of a blob, checked and told of while it is read."""

    blob: Blob
    place: str
    notify: Notify

    def open(self) -> BinaryIO:
        return watched(self.blob, self.place, self.notify)


def _document(path: str, data: bytes) -> File:
    return File(path=path, size=len(data), content=Bytes(data))
