"""Images written by hand, in every form that bases come in: OCI layout, OCI archive, docker archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import zstandard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = [
    "Compression",
    "Dialect",
    "HandmadeImage",
    "digest_of",
    "write_docker_archive",
    "write_layout",
    "write_oci_archive",
]

Dialect = Literal["oci", "docker"]
Compression = Literal["none", "gzip", "zstd"]

_MANIFEST = {
    "oci": "application/vnd.oci.image.manifest.v1+json",
    "docker": "application/vnd.docker.distribution.manifest.v2+json",
}
_INDEX = {
    "oci": "application/vnd.oci.image.index.v1+json",
    "docker": "application/vnd.docker.distribution.manifest.list.v2+json",
}
_CONFIG = {
    "oci": "application/vnd.oci.image.config.v1+json",
    "docker": "application/vnd.docker.container.image.v1+json",
}
_LAYER = {
    ("oci", "none"): "application/vnd.oci.image.layer.v1.tar",
    ("oci", "gzip"): "application/vnd.oci.image.layer.v1.tar+gzip",
    ("oci", "zstd"): "application/vnd.oci.image.layer.v1.tar+zstd",
    ("docker", "none"): "application/vnd.docker.image.rootfs.diff.tar",
    ("docker", "gzip"): "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HandmadeImage:
    """Uncompressed layer tars, and what the image config's `config` and `history` say."""

    layers: tuple[bytes, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    architecture: str = "amd64"
    variant: str | None = None
    history: tuple[Mapping[str, Any], ...] | None = None  # None: one entry per layer
    created: str | None = "2024-01-02T03:04:05Z"
    annotations: Mapping[str, str] = field(default_factory=dict)

    def config_document(self) -> dict[str, Any]:
        """The image config (image-spec, config.md)."""
        history = self.history if self.history is not None else [{"created_by": "by hand"} for _ in self.layers]
        document: dict[str, Any] = {
            "created": self.created,
            "architecture": self.architecture,
            "variant": self.variant,
            "os": "linux",
            "config": dict(self.config),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in self.layers]},
            "history": [dict(entry) for entry in history],
        }
        return {key: value for key, value in document.items() if value is not None}

    def platform(self) -> dict[str, str]:
        """The platform as index entries state it."""
        variant = {} if self.variant is None else {"variant": self.variant}
        return {"architecture": self.architecture, "os": "linux", **variant}


def digest_of(data: bytes) -> str:
    """`sha256:<hex>` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write_layout(
    images: HandmadeImage | Sequence[HandmadeImage],
    directory: Path,
    *,
    tag: str | None = "latest",
    dialect: Dialect = "oci",
    compression: Compression = "gzip",
) -> str:
    """Write an OCI layout: one image, or an index of several. Returns the digest that the tag names.

    The dialect `docker` is what registries hold; in a layout it is irregular, and skopeo refuses it.
    """
    (directory / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    if isinstance(images, HandmadeImage):
        top = _put_image(images, directory, dialect, compression)
    else:
        entries = [
            _put_image(image, directory, dialect, compression) | {"platform": image.platform()} for image in images
        ]
        index = {"schemaVersion": 2, "mediaType": _INDEX[dialect], "manifests": entries}
        top = _put(directory, _json(index), _INDEX[dialect])
    named = {} if tag is None else {"annotations": {"org.opencontainers.image.ref.name": tag}}
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [top | named]}))
    return str(top["digest"])


def write_oci_archive(
    images: HandmadeImage | Sequence[HandmadeImage], path: Path, *, tag: str | None = "latest"
) -> str:
    """Write the layout as one tar, with nothing else in it; returns the digest that the tag names."""
    directory = path.with_name(f"{path.name}.layout")
    digest = write_layout(images, directory, tag=tag)
    with tarfile.open(path, "w") as tar:
        for file in sorted(directory.rglob("*")):
            tar.add(file, file.relative_to(directory).as_posix(), recursive=False)
    return digest


def write_docker_archive(
    image: HandmadeImage, path: Path, *, tags: Sequence[str] = ("base:latest",), compressed: bool = False
) -> None:
    """Write what `docker save` wrote before it knew OCI: `manifest.json`, `<id>.json`, `<id>/layer.tar`.

    With `compressed` the layers are gzip all the same, as some tools leave them.
    """
    config = _json(image.config_document())
    members = {f"{hashlib.sha256(config).hexdigest()}.json": config}
    layers = []
    for layer in image.layers:
        name = f"{hashlib.sha256(layer).hexdigest()}/layer.tar"
        members[name] = gzip.compress(layer, mtime=0) if compressed else layer
        layers.append(name)
    manifest = [{"Config": next(iter(members)), "RepoTags": list(tags), "Layers": layers}]
    with tarfile.open(path, "w") as tar:
        for name, data in {**members, "manifest.json": _json(manifest)}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _put_image(image: HandmadeImage, directory: Path, dialect: Dialect, compression: Compression) -> dict[str, Any]:
    media_type = _LAYER[dialect, compression]
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST[dialect],
        "config": _put(directory, _json(image.config_document()), _CONFIG[dialect]),
        "layers": [_put(directory, _compress(layer, compression), media_type) for layer in image.layers],
    }
    if image.annotations:
        manifest["annotations"] = dict(image.annotations)
    return _put(directory, _json(manifest), _MANIFEST[dialect])


def _put(directory: Path, data: bytes, media_type: str) -> dict[str, Any]:
    digest = digest_of(data)
    (directory / "blobs" / digest.replace(":", "/")).write_bytes(data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _compress(layer: bytes, compression: Compression) -> bytes:
    match compression:
        case "none":
            return layer
        case "gzip":
            return gzip.compress(layer, compresslevel=1, mtime=0)
        case "zstd":
            return zstandard.ZstdCompressor().compress(layer)


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
