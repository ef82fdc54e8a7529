"""Image indexes: one name for the images of several platforms (image-spec, image-index.md)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from layers.digest import Digest
from ociforge.errors import ImageError, PlatformError
from ociforge.oci.descriptor import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_INDEX,
    INDEX,
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    canonical_json,
)
from ociforge.oci.document import optional_text, string_map
from ociforge.oci.envelope import agreed_type, check_size, descriptors, read_envelope, subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Self

    from ociforge.platform import Platform

__all__ = ["MAX_DEPTH", "ImageIndex", "assemble_index", "resolve", "select"]

MAX_DEPTH = 2  # an index in an index is seen in the wild, a third level only in attacks

_WHAT = "image index"
_ATTESTATION = "vnd.docker.reference.type"  # marks what is attached to an entry, not an image of its own


class ImageIndex(Struct, frozen=True, kw_only=True):
    """An index; the order of `manifests` counts, as engines take the first that fits."""

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_type: str = INDEX
    artifact_type: str | None = None
    subject: Descriptor | None = None

    @classmethod
    def parse(cls, data: bytes, media_type: str | None = None) -> Self:
        """Read an index; `media_type` is what its descriptor or the registry calls it.

        Raises ImageError when it breaks the specification, exceeds 4 MiB, calls itself something else, or could be
        read as an image manifest too (CVE-2021-41190). Unknown members are ignored.
        """
        document = read_envelope(data, _WHAT)
        for key in ("config", "layers"):
            if key in document:
                raise ImageError(f"{_WHAT}: has `{key}`, which belongs to an image manifest")
        return cls(
            manifests=descriptors(document, "manifests", _WHAT),
            annotations=string_map(document, "annotations", _WHAT),
            media_type=agreed_type(document, media_type, (INDEX, DOCKER_INDEX), _WHAT),
            artifact_type=optional_text(document, "artifactType", _WHAT),
            subject=subject(document, _WHAT),
        )

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.to_json() for manifest in self.manifests],
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


def select(index: ImageIndex, platform: Platform) -> Descriptor:
    """The entry to use for `platform`: an image, or an index to look into further.

    An entry of exactly this platform is preferred over one that merely runs there, else the first wins, as in engines;
    attestations are no images. Where no entry has a platform, a single one is taken for what is meant: its
    configuration tells. Raises PlatformError that lists the platforms there are.
    """
    images = [entry for entry in index.manifests if _is_image(entry)]
    fitting = [entry for entry in images if entry.platform is not None and platform.matches(entry.platform)]
    exact = [entry for entry in fitting if str(entry.platform) == str(platform)]
    silent = [entry for entry in images if entry.platform is None]
    if not fitting and len(images) == len(silent) == 1:
        return silent[0]
    for entry in (*exact, *fitting):
        return entry
    found = dict.fromkeys(f"`{entry.platform}`" for entry in images if entry.platform is not None)
    raise PlatformError(
        f"{_WHAT}: no image for `{platform}`: found {', '.join(found) or 'none with a platform'}",
        "choose another image, or a platform that this one has",
    )


def resolve(root: Descriptor, platform: Platform, read: Callable[[Descriptor], bytes]) -> Descriptor:
    """The image manifest that `root`, a manifest or an index, stands for on `platform`.

    `read` gives the verified bytes of an index. Raises ImageError when there is none, or when indexes are nested
    deeper than `MAX_DEPTH`.
    """
    descriptor = root
    for _ in range(MAX_DEPTH):
        if descriptor.media_type not in INDEX_TYPES:
            break
        descriptor = select(ImageIndex.parse(read(descriptor), descriptor.media_type), platform)
    if descriptor.media_type in INDEX_TYPES:
        raise ImageError(f"{_WHAT} `{root.digest}`: nested more than {MAX_DEPTH} deep")
    if descriptor.media_type not in MANIFEST_TYPES:
        raise ImageError(f"manifest `{descriptor.digest}`: `{descriptor.media_type}` is not that of an image")
    return descriptor


def assemble_index(manifests: Iterable[Descriptor], annotations: Mapping[str, str]) -> tuple[bytes, Descriptor]:
    """The index of images, ordered by platform, and its descriptor.

    Raises ImageError for an entry without a platform, an entry given twice, two images of one platform (engines would
    never see the second), or an index too large for registries.
    """
    entries = sorted(manifests, key=lambda entry: (str(entry.platform), str(entry.digest)))
    for entry in entries:
        if entry.platform is None:
            raise ImageError(f"{_WHAT}: manifest `{entry.digest}` has no platform")
    for entry, following in pairwise(entries):
        if str(entry.platform) == str(following.platform) and (_is_image(entry) or entry.digest == following.digest):
            raise ImageError(f"{_WHAT}: `{entry.digest}` and `{following.digest}` are both for `{entry.platform}`")
    data = ImageIndex(manifests=tuple(entries), annotations=annotations).to_bytes()
    check_size(data, _WHAT)
    return data, Descriptor(media_type=INDEX, digest=Digest.of(data), size=len(data))


def _is_image(entry: Descriptor) -> bool:
    if entry.media_type not in MANIFEST_TYPES | INDEX_TYPES or _ATTESTATION in entry.annotations:
        return False
    if entry.artifact_type not in (None, CONFIG, DOCKER_CONFIG):
        return False
    return entry.platform is None or "unknown" not in (entry.platform.os, entry.platform.architecture)
