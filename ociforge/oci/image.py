"""Image manifests, and the assembly of an image from a base and layers (image-spec, manifest.md).

Documents that others wrote are named by the digest of their bytes as they came, never of what is written here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from layers.digest import Digest
from ociforge.errors import ImageError
from ociforge.oci.config import derive
from ociforge.oci.descriptor import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    MANIFEST,
    Descriptor,
    canonical_json,
    parse_json,
)
from ociforge.oci.document import optional_text, string_map
from ociforge.oci.envelope import agreed_type, check_size, descriptors, read_envelope, subject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from layers.layer import Layer
    from ociforge.oci.config import ConfigChanges, ImageConfig

__all__ = ["LAYER_TYPES", "MAX_LAYERS", "Image", "ImageManifest", "assemble", "oci_layer"]

MAX_LAYERS = 125  # docker's graph drivers mount no more: `max depth exceeded`

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
LAYER_TYPES = frozenset(f"{family}{suffix}" for family in (_LAYER, _FOREIGN) for suffix in ("", "+gzip", "+zstd"))
# zstd has no docker type: what some tools write in its place most engines refuse.
_FROM_DOCKER = {
    "application/vnd.docker.image.rootfs.diff.tar": _LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{_LAYER}+gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": _FOREIGN,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": f"{_FOREIGN}+gzip",
}
_WHAT = "image manifest"


class ImageManifest(Struct, frozen=True, kw_only=True):
    """The manifest of an image, or of an artifact in the form of one. Layers are listed base first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_type: str = MANIFEST
    artifact_type: str | None = None
    subject: Descriptor | None = None

    @classmethod
    def parse(cls, data: bytes, media_type: str | None = None) -> Self:
        """Read a manifest; `media_type` is what its descriptor or the registry calls it.

        Raises ImageError when it breaks the specification, exceeds 4 MiB, calls itself something else, or could be
        read as an index too (CVE-2021-41190). Unknown members are ignored.
        """
        document = read_envelope(data, _WHAT)
        if "manifests" in document:
            raise ImageError(f"{_WHAT}: has `manifests`, which belong to an index")
        return cls(
            config=Descriptor.from_json(document.get("config"), f"{_WHAT}: config"),
            layers=descriptors(document, "layers", _WHAT),
            annotations=string_map(document, "annotations", _WHAT),
            media_type=agreed_type(document, media_type, (MANIFEST, DOCKER_MANIFEST), _WHAT),
            artifact_type=optional_text(document, "artifactType", _WHAT),
            subject=subject(document, _WHAT),
        )

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.artifact_type is not None:
            document["artifactType"] = self.artifact_type
        if self.subject is not None:
            document["subject"] = self.subject.to_json()
        return document

    def to_bytes(self) -> bytes:
        """The canonical form, which is not that of a document someone else wrote."""
        return canonical_json(self.to_json())

    def to_oci(self) -> ImageManifest:
        """The same image in OCI media types: digests and sizes stay, for the blobs do.

        Raises ImageError when it is no image, or when a layer's type has no counterpart.
        """
        if self.config.media_type not in (CONFIG, DOCKER_CONFIG):
            raise ImageError(f"{_WHAT}: config.mediaType: `{self.config.media_type}` is not that of an image")
        return replace(
            self,
            media_type=MANIFEST,
            config=replace(self.config, media_type=CONFIG),
            layers=tuple(oci_layer(layer) for layer in self.layers),
        )


class Image(Struct, frozen=True, kw_only=True):
    """An assembled image: both documents, and the descriptor of the manifest, with the platform."""

    manifest: bytes
    config: bytes
    descriptor: Descriptor

    @classmethod
    def from_json(cls, data: bytes) -> Self | None:
        """The inverse of `to_json`; None for what is not its result."""
        try:
            document = parse_json(data, "image")
            manifest, config = document["manifest"].encode(), document["config"].encode()
            descriptor = Descriptor.from_json(document["descriptor"], "image")
            ImageManifest.parse(manifest, descriptor.media_type)
        except (ImageError, KeyError, AttributeError):
            return None
        return cls(manifest=manifest, config=config, descriptor=descriptor)

    def to_json(self) -> bytes:
        """Both documents in one."""
        return canonical_json(
            {
                "descriptor": self.descriptor.to_json(),
                "manifest": self.manifest.decode(),
                "config": self.config.decode(),
            }
        )

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The base's and our own, base first."""
        return ImageManifest.parse(self.manifest, self.descriptor.media_type).layers

    @property
    def config_descriptor(self) -> Descriptor:
        return Descriptor(media_type=CONFIG, digest=Digest.of(self.config), size=len(self.config))


def oci_layer(layer: Descriptor) -> Descriptor:
    """The descriptor of a layer with its OCI media type; raises ImageError when it has none."""
    media_type = _FROM_DOCKER.get(layer.media_type, layer.media_type)
    if media_type not in LAYER_TYPES:
        raise ImageError(f"layer `{layer.digest}`: unknown media type `{layer.media_type}`")
    return replace(layer, media_type=media_type)


def assemble(
    base_config: ImageConfig,
    base_layers: Sequence[Descriptor],
    layers: Sequence[tuple[Layer, str, Mapping[str, str]]],
    changes: ConfigChanges,
    annotations: Mapping[str, str],
    created: int | None = None,
) -> Image:
    """The image of `layers` on top of a base.

    Each of `layers` comes with what the history says made it and the annotations of its descriptor, lowest first.
    `annotations` are the manifest's; `created`, in seconds since 1970, is the configuration's. Raises ImageError when
    base and configuration do not fit together, or when engines would refuse the image.
    """
    if len(base_layers) != len(base_config.diff_ids):
        raise ImageError(
            f"base image: {len(base_layers)} layers in the manifest, {len(base_config.diff_ids)} in the configuration"
        )
    _check_count(len(base_layers), len(layers))
    described = (
        *(replace(oci_layer(layer), platform=None) for layer in base_layers),
        *(_describe(layer, notes) for layer, _, notes in layers),
    )
    derived = derive(base_config, [(layer.diff_id, made_by) for layer, made_by, _ in layers], changes, created)
    config = derived.to_bytes()
    check_size(config, "image config")
    manifest = ImageManifest(
        config=Descriptor(media_type=CONFIG, digest=Digest.of(config), size=len(config)),
        layers=described,
        annotations=annotations,
    ).to_bytes()
    check_size(manifest, _WHAT)
    return Image(
        manifest=manifest,
        config=config,
        descriptor=Descriptor(
            media_type=MANIFEST, digest=Digest.of(manifest), size=len(manifest), platform=derived.platform
        ),
    )


def _check_count(base: int, own: int) -> None:
    if base + own > MAX_LAYERS:
        raise ImageError(
            f"image: {base + own} layers: engines take at most {MAX_LAYERS}",
            f"the base has {base} of them: lower the layer budget, or choose a base with fewer layers",
        )


def _describe(layer: Layer, annotations: Mapping[str, str]) -> Descriptor:
    return oci_layer(
        Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size, annotations=annotations)
    )
