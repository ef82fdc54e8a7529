"""Small documents for the tests of this package, and JSON that means nothing."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from layers.digest import Digest
from layers.layer import Layer
from ociforge.oci.config import ImageConfig
from ociforge.oci.descriptor import Descriptor, canonical_json

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def digest(text: str) -> Digest:
    return Digest.of(text.encode())


def layer(text: str = "own", media_type: str = GZIP) -> Layer:
    """What a writer of layers would say of one."""
    return Layer(diff_id=digest(f"{text} tar"), digest=digest(text), size=len(text), media_type=media_type)


def descriptor(text: str = "base", media_type: str = GZIP) -> Descriptor:
    return Descriptor(media_type=media_type, digest=digest(text), size=len(text))


def config_document(layers: int = 1, run: dict[str, Any] | None = None, /, **members: Any) -> dict[str, Any]:
    """The configuration of a base image of `layers` layers."""
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {} if run is None else run,
        "rootfs": {"type": "layers", "diff_ids": [str(digest(f"base {n} tar")) for n in range(layers)]},
        "history": [{"created_by": f"layer {n}"} for n in range(layers)],
    } | members


def config(layers: int = 1, run: dict[str, Any] | None = None, /, **members: Any) -> ImageConfig:
    return ImageConfig.parse(canonical_json(config_document(layers, run, **members)))


def manifest_document(layers: int = 1, /, **members: Any) -> dict[str, Any]:
    """A manifest of `layers` layers, in OCI types."""
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config", "application/vnd.oci.image.config.v1+json").to_json(),
        "layers": [descriptor(f"base {n}").to_json() for n in range(layers)],
    } | members
