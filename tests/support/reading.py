"""Images read without ociforge: `json`, `tarfile` and digests, and nothing that is not whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Image", "archive_images", "layout_images", "read_images", "whole_images"]

_REF = "org.opencontainers.image.ref.name"
_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image; `layers` are uncompressed tars, lowest first, and `descriptor` is how it was found."""

    descriptor: Mapping[str, Any]
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]
    layers: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        return str(self.descriptor["digest"])

    @property
    def diff_ids(self) -> list[str]:
        return [_digest(layer) for layer in self.layers]

    def members(self, layer: int) -> dict[str, tarfile.TarInfo]:
        """The members of a layer by path, directories without a slash."""
        with tarfile.open(fileobj=io.BytesIO(self.layers[layer])) as tar:
            return {member.name: member for member in tar}

    def tree(self) -> dict[str, tarfile.TarInfo]:
        """The topmost member for each path; whiteouts are not looked at."""
        found: dict[str, tarfile.TarInfo] = {}
        for index in range(len(self.layers)):
            found.update(self.members(index))
        return found

    def text(self, path: str) -> str:
        """The content of a file."""
        for layer in reversed(self.layers):
            with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
                if path in tar.getnames() and (stream := tar.extractfile(path)) is not None:
                    return stream.read().decode()
        raise KeyError(path)


def layout_images(layout: Path) -> dict[str | None, tuple[Image, ...]]:
    """The images of a layout by the name in `index.json`; several for an image index."""
    return read_images(lambda path: (layout / path).read_bytes())


def archive_images(archive: Path) -> dict[str | None, tuple[Image, ...]]:
    """The same of an OCI archive."""
    with tarfile.open(archive) as tar:
        files = {member.name: _extracted(tar, member) for member in tar if member.isreg()}
    return read_images(files.__getitem__)


def whole_images(layout: Path) -> dict[str | None, str]:
    """The digests of a layout's images by name, after checking all that is there; none where no index is."""
    for blob in layout.glob("blobs/sha256/*"):
        assert _digest(blob.read_bytes()) == f"sha256:{blob.name}", blob
    if not (layout / "index.json").exists():
        return {}
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout / "index.json").read_bytes())
    layout_images(layout)
    return {entry.get("annotations", {}).get(_REF): entry["digest"] for entry in index["manifests"]}


def read_images(read: Callable[[str], bytes]) -> dict[str | None, tuple[Image, ...]]:
    """The images of the layout whose files `read` gives; raises AssertionError for a blob that is not whole."""

    def blob(descriptor: Mapping[str, Any]) -> bytes:
        data = read(f"blobs/{descriptor['digest'].replace(':', '/')}")
        assert (len(data), _digest(data)) == (descriptor["size"], descriptor["digest"])
        return data

    def images(descriptor: Mapping[str, Any]) -> tuple[Image, ...]:
        document = json.loads(blob(descriptor))
        if descriptor["mediaType"] == _INDEX:
            return tuple(image for child in document["manifests"] for image in images(child))
        layers = tuple(_unpacked(blob(layer), layer["mediaType"]) for layer in document["layers"])
        config = json.loads(blob(document["config"]))
        assert [_digest(layer) for layer in layers] == config["rootfs"]["diff_ids"]
        return (Image(descriptor=descriptor, manifest=document, config=config, layers=layers),)

    entries = json.loads(read("index.json"))["manifests"]
    return {entry.get("annotations", {}).get(_REF): images(entry) for entry in entries}


def _extracted(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None
    return stream.read()


def _unpacked(data: bytes, media_type: str) -> bytes:
    if media_type.endswith("gzip"):
        return gzip.decompress(data)
    if media_type.endswith("zstd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
