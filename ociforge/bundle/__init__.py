"""Bundles: everything that a build needs, in one file that any tool for images can carry to where no network is.

`collect` and `write` make one, `open_bundle` and `read_bundle` open one, `verify` judges it, `take` puts it into a
store.
"""

from __future__ import annotations

from ociforge.bundle.check import structure, verify
from ociforge.bundle.collect import Bundle, collect
from ociforge.bundle.manifest import BundleManifest
from ociforge.bundle.source import Offer, open_bundle, read_bundle
from ociforge.bundle.take import Taken, take
from ociforge.bundle.write import NAME, Written, write

__all__ = [
    "NAME",
    "Bundle",
    "BundleManifest",
    "Offer",
    "Taken",
    "Written",
    "collect",
    "open_bundle",
    "read_bundle",
    "structure",
    "take",
    "verify",
    "write",
]
