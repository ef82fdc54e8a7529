"""Whether a lock's PyPI row is what a requirement asks for."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from ociforge.workspace.pypi_options import DEFAULT_INDEX
from ociforge.workspace.satisfy.pypi_places import (
    GitPlace,
    LocalPlace,
    UrlPlace,
    comparable_url,
    locked_place,
    wanted_place,
)
from ociforge.workspace.specs import PypiSpec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ociforge.workspace.lockfile import PypiRow
    from ociforge.workspace.satisfy.pypi_places import Place

__all__ = ["Mismatch", "RowMatcher", "allows", "asked", "parse_requirement", "python_fits", "row_name"]

_LOWEST: Final = Version("0a0.dev0")  # for pixi, what has no version has the lowest
_DEFAULT_IN_ROWS: Final = 7  # since this format a row without index is one of pypi.org


class Mismatch(Struct, frozen=True):
    """Why a row is not what was asked for: pixi's name for it, and the words."""

    kind: str
    message: str


@lru_cache(maxsize=65_536)
def parse_requirement(text: str) -> PypiSpec:
    """A requirement of a locked package's metadata; raises ValueError when it is none."""
    return PypiSpec.of_requirement(text, "")


@lru_cache(maxsize=65_536)
def _specifiers(text: str) -> SpecifierSet:
    return SpecifierSet(text)


def allows(spec: PypiSpec, version: Version) -> bool:
    """Whether a requirement's version specifiers allow a version, pre-releases included."""
    return _specifiers(spec.version or "").contains(version, prereleases=True)


def asked(spec: PypiSpec) -> str:
    """A requirement as messages name it."""
    extras = f"[{','.join(spec.extras)}]" if spec.extras else ""
    if spec.git is not None:
        return f"{spec.name}{extras} @ git+{spec.git.url}"
    place = spec.url or spec.path
    return f"{spec.name}{extras}" + (f" @ {place}" if place is not None else f" {spec.version or ''}".rstrip())


def row_name(row: PypiRow) -> str:
    """A locked row as messages name it."""
    return f"{row.name} {row.version}" if row.version is not None else f"{row.name} at {row.location}"


def python_fits(requires_python: str, python: str) -> bool:
    """Whether the lower bound of `requires-python` is met; what stands above it does not count, as for pixi and uv.

    Only release numbers count, so that 3.13.0rc1 is a 3.13.
    """
    have = Version(python).release
    for specifier in SpecifierSet(requires_python):
        if specifier.operator in (">=", "==", "~=", "===", ">"):
            bound = Version(specifier.version.removesuffix(".*")).release
            width = max(len(have), len(bound))
            left, right = have + (0,) * (width - len(have)), bound + (0,) * (width - len(bound))
            if left < right or (specifier.operator == ">" and left == right):
                return False
    return True


class RowMatcher:
    """Holds rows against requirements.

    `indexes` are those that the lock was solved with, find-links included; `version` is the lock's format.
    """

    def __init__(self, root: Path, version: int, indexes: Iterable[str]) -> None:
        self.root = root
        self.version = version
        self.indexes = tuple(indexes) or (DEFAULT_INDEX,)

    def mismatch(
        self, spec: PypiSpec, row: PypiRow, *, direct: bool, siblings: Iterable[PypiSpec] = ()
    ) -> Mismatch | None:
        """Why `row` is not what `spec` asks for, or None.

        `direct` is for requirements of the manifest; `siblings` are all that it has for the name. The requirements
        of packages name no index and no LFS, so nothing is concluded from that.
        """
        place = wanted_place(spec, self.root)
        locked = locked_place(row.location, self.root)
        match place:
            case None:
                return self._of_index(spec, row, locked, direct=direct, siblings=siblings)
            case UrlPlace():
                return _of_url(place, row, locked)
            case LocalPlace():
                return self._of_path(place, row, locked, editable=bool(spec.editable))
            case GitPlace():
                return _of_git(place, row, locked, direct=direct)

    def _of_index(
        self,
        spec: PypiSpec,
        row: PypiRow,
        locked: Place,
        *,
        direct: bool,
        siblings: Iterable[PypiSpec],
    ) -> Mismatch | None:
        if not direct and isinstance(locked, LocalPlace):
            return None  # the user has put a tree of their own in its place, whose version may be dynamic
        if not allows(spec, _version(row)):
            return Mismatch("LockedPyPIVersionsMismatch", f"the lock has `{row_name(row)}`")
        index = self._index(row, locked)
        if index is None or not (direct or spec.index):
            return None
        if spec.index is not None:
            wanted: tuple[str, ...] = (spec.index,)
            fits = comparable_url(spec.index) == comparable_url(index)
        else:
            # uv pins an index per name: where one requirement of the manifest does, it holds for all of them.
            wanted = (*self.indexes, *(s.index for s in siblings if s.index is not None))
            fits = _plain(index) in {_plain(url) for url in wanted}
        if fits:
            return None
        listed = ", ".join(f"`{url}`" for url in wanted)
        return Mismatch("LockedPyPIIndexMismatch", f"the lock has it from `{index}`, not from {listed}")

    def _index(self, row: PypiRow, locked: Place) -> str | None:
        """The index that a row came from, or None when the lock does not tell."""
        if row.index is not None or not isinstance(locked, UrlPlace):
            return row.index
        return DEFAULT_INDEX if self.version >= _DEFAULT_IN_ROWS else None

    def _of_path(self, place: LocalPlace, row: PypiRow, locked: Place, *, editable: bool) -> Mismatch | None:
        if not isinstance(locked, LocalPlace):
            kind = "EditablePackageIsUrl" if editable else "LockedPyPIRequiresPath"
            return Mismatch(kind, f"the lock has `{row.location}`, which is no path")
        if locked.path == place.path or self._same_file(locked.path, place.path):
            return None
        kind = "EditablePackagePathMismatch" if editable else "LockedPyPIPathMismatch"
        return Mismatch(kind, f"the lock has it at `{row.location}`")

    def _same_file(self, left: str, right: str) -> bool:
        first, second = (self.root / path for path in (left, right))
        return first.exists() and second.exists() and first.samefile(second)


def _version(row: PypiRow) -> Version:
    try:
        return _LOWEST if row.version is None else Version(row.version)
    except InvalidVersion:
        return _LOWEST


def _plain(url: str) -> str:
    return comparable_url(url).rstrip("/")


def _of_url(place: UrlPlace, row: PypiRow, locked: Place) -> Mismatch | None:
    if isinstance(locked, LocalPlace):
        return Mismatch("LockedPyPIRequiresDirectUrl", f"the lock has `{row.location}`, which is no URL")
    if isinstance(locked, GitPlace) or not locked.direct:
        return Mismatch("LockedPyPIMalformedUrl", f"the lock has `{row.location}`, which is no direct URL")
    if locked.url == place.url:
        return None
    return Mismatch("LockedPyPIDirectUrlMismatch", f"the lock has it at `{locked.url}`")


def _of_git(place: GitPlace, row: PypiRow, locked: Place, *, direct: bool) -> Mismatch | None:
    if not isinstance(locked, GitPlace):
        return Mismatch("LockedPyPIRequiresGitUrl", f"the lock has `{row.location}`, which is not git")
    if locked.repository != place.repository:
        return Mismatch("LockedPyPIGitUrlMismatch", f"the lock has it from `{locked.repository}`")
    if direct and locked.lfs != place.lfs:
        return Mismatch("LockedPyPIGitLfsMismatch", f"`lfs` is `{_flag(place.lfs)}`, in the lock `{_flag(locked.lfs)}`")
    # In pixi's order: the default branch is compared first, and then the subdirectory no longer.
    if place.reference is None:
        return None if locked.reference is None else _other_reference(place, locked)
    if locked.subdirectory != place.subdirectory:
        shown, found = place.subdirectory or ".", locked.subdirectory or "."
        return Mismatch("LockedPyPIGitSubdirectoryMismatch", f"it is in `{shown}`, in the lock in `{found}`")
    if not locked.precise or locked.reference == place.reference:
        return None
    return _other_reference(place, locked)


def _other_reference(place: GitPlace, locked: GitPlace) -> Mismatch:
    wanted, found = (" ".join(ref) if ref else "default branch" for ref in (place.reference, locked.reference))
    return Mismatch("LockedPyPIGitRefMismatch", f"the lock has it from `{found}`, not from `{wanted}`")


def _flag(value: bool) -> str:
    return str(value).lower()
