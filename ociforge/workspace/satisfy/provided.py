"""The PyPI distributions that conda packages bring: pixi takes those as given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from msgspec import Struct
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ociforge.workspace.satisfy.matching import record_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rattler import PackageRecord
    from rattler.lock import CondaLockedBinaryPackage

    from ociforge.workspace.satisfy.matching import LockedConda

__all__ = ["Provided", "Purls"]


class Provided(Struct, frozen=True, kw_only=True):
    """A distribution and the conda package that brings it; `name` is normalised."""

    name: str
    version: Version
    conda: str


class Purls:
    """Reads the `purls` of locked packages, each once: py-rattler shows them in a record's JSON only."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, ...] | None] = {}

    def of(self, package: CondaLockedBinaryPackage) -> tuple[str, ...] | None:
        """The package URLs; None when the lock does not say, empty when it says there are none."""
        if package.location not in self._known:
            self._known[package.location] = _read(record_of(package))
        return self._known[package.location]

    def missing(self, conda: LockedConda) -> bool:
        """Whether there are packages and none of them says what it provides: a lock from before PyPI was asked for."""
        return bool(conda.by_name) and all(self.of(package) is None for package in conda.by_name.values())

    def provided(self, conda: LockedConda) -> dict[str, Provided]:
        """Every distribution that the packages bring, by name."""
        found = {}
        for name, package in conda.by_name.items():
            for provided in self._bring(conda, name, package):
                found[provided.name] = provided
        return found

    def _bring(self, conda: LockedConda, name: str, package: CondaLockedBinaryPackage) -> Iterable[Provided]:
        purls, version = self.of(package), str(record_of(package).version)
        if purls is None:
            if not any(urlsplit(url).path.startswith("/conda-forge") for url in conda.channels_of(package)):
                return []
            purls = (f"pkg:pypi/{name}",)  # conda-forge mostly calls packages as PyPI does
        try:
            return [p for text in purls if (p := _parse(text, version, name)) is not None]
        except InvalidVersion:
            return []


def _read(record: PackageRecord) -> tuple[str, ...] | None:
    purls = json.loads(record.to_json()).get("purls")
    return None if purls is None else tuple(purls)


def _parse(text: str, version: str, conda: str) -> Provided | None:
    """`pkg:pypi/NAME[@VERSION][?…]` (github.com/package-url/purl-spec); None for other kinds."""
    kind, _, rest = text.removeprefix("pkg:").partition("/")
    if kind.lower() != "pypi":
        return None
    name, _, own = rest.partition("#")[0].partition("?")[0].rpartition("/")[2].partition("@")
    return Provided(name=canonicalize_name(unquote(name)), version=Version(unquote(own) or version), conda=conda)
