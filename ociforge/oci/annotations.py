"""The annotations of our own: what a later run, anywhere, can know of an image from its manifest alone."""

from __future__ import annotations

__all__ = [
    "APPLICATION",
    "BASE_DIGEST",
    "BASE_NAME",
    "ENVIRONMENT",
    "FORMAT",
    "GLIBC",
    "IMAGE_KEY",
    "LAYER_KEY",
    "LAYER_TITLE",
    "RESTATED",
]

# The specification's (annotations.md), of the manifest: the image that this one stands on.
BASE_DIGEST = "org.opencontainers.image.base.digest"  # of what the name leads to, so often of an index
BASE_NAME = "org.opencontainers.image.base.name"

FORMAT = "dev.ociforge.format"  # of the manifest: the number that changes whenever the bytes of layers do
GLIBC = "dev.ociforge.glibc"  # of the manifest: the version that the packages ask of the base; absent for none
IMAGE_KEY = "dev.ociforge.key"  # of the manifest: the digest of all that the image follows from
LAYER_KEY = "dev.ociforge.layer.key"  # of a layer: the digest of its inputs
LAYER_TITLE = "dev.ociforge.layer.title"  # of a layer: what is in it
ENVIRONMENT = "environment"  # the title of the lowest layer that is an image's own
APPLICATION = "application"  # the title of the highest
RESTATED = "dev.ociforge.restated"  # of the manifest: what it sets though its base has the same; absent for nothing
