"""Which PyPI distributions a solved conda package brings, as package URLs (github.com/package-url/purl-spec)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rattler import RepoDataRecord

__all__ = ["purls_of", "stated_purls"]


def stated_purls(record: RepoDataRecord) -> tuple[str, ...] | None:
    """What the record says itself; None when it says nothing, empty when it says that there are none."""
    stated = json.loads(record.to_json()).get("purls")
    return None if stated is None else tuple(sorted(stated))


def purls_of(record: RepoDataRecord, known: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What the channel says, or else what is `known` of the archive at that URL, from a lock of before.

    Of a Python package of conda-forge of which neither says anything: the distribution of its name. pixi asks a service
    first, which knows the few packages that have another name there; without it this is pixi's own rule, but for
    packages that have nothing to do with Python.
    """
    stated = stated_purls(record)
    if stated is None:
        stated = known.get(record.url)
    if stated is not None:
        return stated
    from_forge = urlsplit(record.url).path.startswith("/conda-forge/")
    if from_forge and any(text.split(" ", 1)[0] in ("python", "python_abi") for text in record.depends):
        return (f"pkg:pypi/{record.name.normalized}",)
    return ()
