"""Sources and destinations in memory, and small images to move between them."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from layers.compress import Codec
from layers.digest import Digest
from layers.entry import Bytes, File
from layers.layer import write_layer
from layers.tree import Segment
from ociforge.errors import TransportError
from ociforge.oci.blob import VerifiedReader
from ociforge.oci.descriptor import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    Descriptor,
    canonical_json,
    parse_json,
)
from ociforge.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Any, BinaryIO, Self

    from ociforge.oci.reference import Reference
    from ociforge.transports.base import Blob, Outcome

__all__ = ["MemoryDestination", "MemorySource", "index_of", "keep", "sample_image"]

_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass
class MemorySource:
    """An image as bytes by digest; `opened` notes what was read, in order."""

    top: Descriptor
    contents: dict[Digest, bytes]
    opened: list[Digest] = field(default_factory=list)

    def root(self) -> Descriptor:
        return self.top

    def open(self, descriptor: Descriptor) -> BinaryIO:
        self.opened.append(descriptor.digest)
        try:
            return VerifiedReader(io.BytesIO(self.contents[descriptor.digest]), descriptor)
        except KeyError:
            raise TransportError(f"memory has no blob `{descriptor.digest}`") from None

    def origin(self, descriptor: Descriptor) -> Reference | None:
        return None

    def blobs(self) -> list[Descriptor]:
        """Config and layers of the image that is the root, as its manifest lists them."""
        manifest = parse_json(self.contents[self.top.digest], "manifest")
        return [Descriptor.from_json(blob, "blob") for blob in (manifest["config"], *manifest["layers"])]


@dataclass
class MemoryDestination:
    """Keeps what is put; `tags` gets the name last. `log` has one line for each step, in order."""

    name: str = "image"
    contents: dict[Digest, bytes] = field(default_factory=dict)
    tags: dict[str, Descriptor] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __str__(self) -> str:
        return f"memory:{self.name}"

    def has(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self.contents

    def put(self, blob: Blob) -> Outcome:
        if self.has(blob.descriptor):
            return "exists"
        with VerifiedReader(blob.open(), blob.descriptor) as reader:
            data = reader.read()
        with self._lock:
            self.contents[blob.descriptor.digest] = data
            self.log.append(f"put {blob.descriptor.digest}")
        return "uploaded"

    def tag(self, root: Descriptor) -> str:
        if not self.has(root):
            raise TransportError(f"memory has no blob `{root.digest}`")
        self.tags[self.name] = root
        self.log.append(f"tag {root.digest}")
        return f"{self}@{root.digest}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def source(self) -> MemorySource:
        """What was tagged, to read."""
        return MemorySource(self.tags[self.name], self.contents)


def sample_image(
    files: Sequence[Mapping[str, bytes]] = ({"etc/first": b"1\n"}, {"etc/second": b"22\n"}),
    *,
    platform: str = "linux/amd64",
    codec: str = "gzip",
    docker_types: bool = False,
) -> MemorySource:
    """An image of one layer for each mapping from path to content."""
    contents: dict[Digest, bytes] = {}
    layers, diff_ids = [], []
    for mapping in files:
        sink = io.BytesIO()
        entries = tuple(File(path=path, size=len(data), content=Bytes(data)) for path, data in mapping.items())
        layer = write_layer([Segment("files", entries)], sink, Codec.parse(codec))
        contents[layer.digest] = sink.getvalue()
        layers.append(
            {
                "mediaType": _DOCKER_LAYER if docker_types else layer.media_type,
                "digest": str(layer.digest),
                "size": layer.size,
            }
        )
        diff_ids.append(str(layer.diff_id))
    wanted = Platform.parse(platform)
    config = keep(
        contents,
        {
            "architecture": wanted.architecture,
            "os": wanted.os,
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        | ({} if wanted.variant is None else {"variant": wanted.variant}),
        DOCKER_CONFIG if docker_types else CONFIG,
    )
    media_type = DOCKER_MANIFEST if docker_types else MANIFEST
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": config.to_json(), "layers": layers}
    return MemorySource(replace(keep(contents, manifest, media_type), platform=wanted), contents)


def index_of(*sources: MemorySource) -> MemorySource:
    """An index of images, or of indexes."""
    contents = {digest: data for source in sources for digest, data in source.contents.items()}
    manifests = [source.top.to_json() for source in sources]
    top = keep(contents, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, INDEX)
    return MemorySource(top, contents)


def keep(contents: dict[Digest, bytes], document: Mapping[str, Any], media_type: str) -> Descriptor:
    """Write a document into `contents`; returns its descriptor."""
    data = canonical_json(document)
    digest = Digest.of(data)
    contents[digest] = data
    return Descriptor(media_type=media_type, digest=digest, size=len(data))
