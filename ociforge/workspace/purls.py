"""Which PyPI distributions a solved conda package brings, as package URLs (github.com/package-url/purl-spec)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from rattler import RepoDataRecord

__all__ = ["purls_of"]


def purls_of(record: RepoDataRecord) -> tuple[str, ...]:
    """What the channel says; of a Python package of conda-forge that says nothing, the distribution of its name.

    pixi asks a service first, which knows the few packages that are called otherwise there; without it this is pixi's
    own rule, but for packages that have nothing to do with Python.
    """
    stated = json.loads(record.to_json()).get("purls")
    if stated is not None:
        return tuple(sorted(stated))
    from_forge = urlsplit(record.url).path.startswith("/conda-forge/")
    if from_forge and any(text.split(" ", 1)[0] in ("python", "python_abi") for text in record.depends):
        return (f"pkg:pypi/{record.name.normalized}",)
    return ()
