"""Bundles: everything that a build needs, in one file that any tool for images can carry to where no network is.

`collect` and `write` make one, `open_bundle` and `read_bundle` open one, `verify` judges it, `take` puts it into a
store.
"""

from __future__ import annotations

from ociforge.bundle.check import verify
from ociforge.bundle.collect import Bundle, collect
from ociforge.bundle.manifest import BundleManifest
from ociforge.bundle.source import Offer, open_bundle, read_bundle
from ociforge.bundle.take import Taken, is_there, is_whole, take
from ociforge.bundle.write import NAME, Written, write

__all__ = [
    "NAME",
    "Bundle",
    "BundleManifest",
    "Offer",
    "Taken",
    "Written",
    "collect",
    "is_there",
    "is_whole",
    "open_bundle",
    "read_bundle",
    "take",
    "verify",
    "write",
]
