"""Whether locked conda packages satisfy specs, in conda's own grammar (py-rattler)."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from ociforge.errors import LockError
from ociforge.workspace.environment import channel_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from rattler import MatchSpec, PackageRecord
    from rattler.lock import CondaLockedBinaryPackage

    from ociforge.workspace.platforms import VirtualPackage
    from ociforge.workspace.specs import CondaSpec, Condition

__all__ = ["LockedConda", "parse_spec", "record_of", "spec_text"]

_DEPTH: Final = 32  # of parentheses in a `when`
_TOKEN: Final = re.compile(r"\s*(\(|\)|\b(?:and|or)\b)\s*")
_SIMPLE: Final = (
    ("version", "version"),
    ("build", "build"),
    ("build_number", "build_number"),
    ("subdir", "subdir"),
    ("license", "license"),
    ("license_family", "license_family"),
    ("md5", "md5"),
    ("sha256", "sha256"),
    ("file_name", "fn"),
)


@lru_cache(maxsize=65_536)
def parse_spec(text: str) -> MatchSpec:
    """A match spec, leniently read as repodata's `depends` are; raises ValueError when it is none."""
    from rattler import MatchSpec

    try:
        return MatchSpec(text, exact_names_only=False)
    except Exception as error:
        raise ValueError(f"`{text[:200]}` is no match spec: {str(error).partition(chr(10))[0]}") from error


def spec_text(spec: CondaSpec) -> str:
    """The spec as a match spec; `channel`, `url`, `path` and `when` are not in it and are tested apart.

    Raises ValueError when a value cannot be written in a match spec.
    """
    fields = [(key, getattr(spec, name)) for name, key in _SIMPLE]
    parts = [f"{key}={_quoted(value)}" for key, value in fields if value is not None]
    for key, values in (("extras", spec.extras), ("flags", spec.flags), ("track_features", spec.track_features)):
        if values:
            parts.append(f"{key}=[{', '.join(_quoted(value) if key != 'extras' else value for value in values)}]")
    return f"{spec.name}[{', '.join(parts)}]" if parts else spec.name


def _quoted(value: str) -> str:
    if not {"'", "]", "[", "\\"} & set(value):
        return f"'{value}'"
    raise ValueError(f"`{value[:200]}` cannot be part of a match spec")


class LockedConda:
    """The binary conda packages of one environment on one platform, and the platform's virtual packages."""

    def __init__(
        self,
        packages: Iterable[CondaLockedBinaryPackage],
        virtual_packages: Iterable[VirtualPackage],
        root: Path,
        sources: Iterable[str] = (),
    ) -> None:
        """`sources` are the names of packages that the lock builds, of which nothing else is known here."""
        self.root = root
        self.sources = frozenset(name.lower() for name in sources)
        self.by_name: dict[str, CondaLockedBinaryPackage] = {}
        self.duplicates: list[str] = []
        for package in packages:
            name = package.name.lower()
            if name in self.by_name:
                self.duplicates.append(name)
            self.by_name.setdefault(name, package)
        self.virtual = {package.name: _as_solved(package) for package in virtual_packages}

    def find(self, spec: MatchSpec, extra: Callable[[CondaLockedBinaryPackage], bool] | None = None) -> str | None:
        """The name of the package that satisfies a spec, `""` when a virtual one does, None when none does."""
        exact = spec.name.as_package_name()
        if exact is None:
            return next((name for name, package in self.by_name.items() if package.satisfies(spec)), None)
        name = exact.normalized
        package = self.by_name.get(name)
        if package is not None:
            return name if package.satisfies(spec) and (extra is None or extra(package)) else None
        return "" if name in self.virtual and self._virtual_matches(name, spec) else None

    def _virtual_matches(self, name: str, spec: MatchSpec) -> bool:
        from rattler import Version, VersionSpec

        version, build = self.virtual[name]
        if spec.version is not None and not VersionSpec(spec.version).matches(Version(version)):
            return False
        return spec.build is None or _matches_text(spec.build, build)

    def place_matches(self, spec: CondaSpec) -> Callable[[CondaLockedBinaryPackage], bool]:
        """A test for what a match spec cannot say: the channel by URL, and where the archive is."""
        wanted = None if spec.channel is None else channel_url(spec.channel, self.root)
        place = spec.url if spec.url is not None else spec.path

        def matches(package: CondaLockedBinaryPackage) -> bool:
            location = package.location
            if wanted is not None and wanted not in self.channels_of(package):
                return False
            if spec.file_name is not None and location.rpartition("/")[2] != spec.file_name:
                return False
            return place is None or self._same_place(location, place)

        return matches

    def channels_of(self, package: CondaLockedBinaryPackage) -> tuple[str, ...]:
        """The base URLs that a package's channel goes by: as recorded, and as its location says."""
        base = package.location.rpartition("/")[0].rpartition("/")[0]
        found = [] if not base else [channel_url(base if "://" in base else f"./{base}".replace(".//", "/"), self.root)]
        if "://" in package.location:
            recorded = package.repo_data_record().channel
            found += [channel_url(recorded, self.root)] if recorded else []
        return tuple(found)

    def _same_place(self, location: str, wanted: str) -> bool:
        return self._absolute(location) == self._absolute(wanted)

    def _absolute(self, place: str) -> str:
        if "://" not in place:
            return (self.root / place).resolve().as_posix()
        parts = urlsplit(place)
        return unquote(parts.path) if parts.scheme == "file" else place.partition("#")[0]

    # --- conditions

    def holds(self, condition: Condition) -> bool:
        """Whether a manifest's `when` is met by a locked package or by a virtual one."""
        if condition.text is not None:
            return self._text_holds(condition.text)
        if condition.spec is not None:
            return self.find(parse_spec(spec_text(condition.spec))) is not None
        if condition.every is not None:
            return all(self.holds(inner) for inner in condition.every)
        return any(self.holds(inner) for inner in condition.some or ())

    def condition_holds(self, text: str) -> bool:
        """Whether a record's `when` is met: match specs with `and`, `or` and parentheses."""
        tokens = [token for token in _TOKEN.split(text) if token]
        value, rest = self._any(tokens, 0)
        if rest:
            raise ValueError(f"`{text[:200]}` is no condition")
        return value

    def _any(self, tokens: list[str], depth: int) -> tuple[bool, list[str]]:
        value, rest = self._all(tokens, depth)
        while rest[:1] == ["or"]:
            other, rest = self._all(rest[1:], depth)
            value = value or other
        return value, rest

    def _all(self, tokens: list[str], depth: int) -> tuple[bool, list[str]]:
        value, rest = self._one(tokens, depth)
        while rest[:1] == ["and"]:
            other, rest = self._one(rest[1:], depth)
            value = value and other
        return value, rest

    def _one(self, tokens: list[str], depth: int) -> tuple[bool, list[str]]:
        if not tokens or tokens[0] in (")", "and", "or") or depth > _DEPTH:
            raise ValueError("a condition that cannot be read")
        if tokens[0] != "(":
            return self._text_holds(tokens[0]), tokens[1:]
        value, rest = self._any(tokens[1:], depth + 1)
        if rest[:1] != [")"]:
            raise ValueError("a condition with an open parenthesis")
        return value, rest[1:]

    def _text_holds(self, text: str) -> bool:
        return self.find(parse_spec(text.strip())) is not None


def _as_solved(package: VirtualPackage) -> tuple[str, str]:
    """Version and build as the solver sees them: manifests and locks give `__archspec` the version 0, solves 1."""
    version = "1" if package.name == "__archspec" and package.version == "0" else package.version
    return version, package.build or "0"


def _matches_text(pattern: str, text: str) -> bool:
    if pattern.startswith("^") and pattern.endswith("$"):
        try:
            return re.fullmatch(pattern[1:-1], text) is not None
        except re.error:
            return False
    return fnmatchcase(text, pattern)


def record_of(package: CondaLockedBinaryPackage) -> PackageRecord:
    """The record of a locked binary package, which always has one."""
    record = package.package_record
    if record is None:
        raise LockError(f"the locked conda package `{package.name}` has no record")
    return record
