"""Paths that several packages provide: who wins, whatever the order in which packages are linked.

As if conda's packages were installed first, then locked wheels, then those built from the workspace, each kind in the
order of names, every later file replacing an earlier one.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct
from packaging.utils import canonicalize_name

from ociforge.errors import PackageError
from ociforge.events import Warned
from ociforge.pypi.package import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Claims", "Verdict", "judge", "lost_paths"]


class Claims(Protocol):
    """A package with the paths that it has below the prefix; `content` stands for what is at one of them."""

    @property
    def name(self) -> str: ...

    @property
    def files(self) -> Mapping[str, object]: ...

    def content(self, path: str) -> str: ...


class Verdict(Struct, frozen=True, kw_only=True):
    """As in `Installation`."""

    conflicts: tuple[Conflict, ...]
    overrides: tuple[Conflict, ...]
    warnings: tuple[Warned, ...]


class _Provider(Struct, frozen=True):
    """Of one path; `content` is None for a conda package's file, which no one has looked at."""

    rank: int  # 0 conda, 1 locked wheel, 2 built from the workspace
    name: str
    content: str | None


def judge(linked: Sequence[Claims], local: frozenset[str], taken: Mapping[str, str]) -> Verdict:
    """Who wins which path below the prefix.

    `local` are the names of packages built from the workspace; `taken` has the conda package of each path that is no
    directory. Raises PackageError for paths that are a file of one package and a directory of another.
    """
    ordered = sorted(linked, key=lambda package: (package.name in local, package.name))
    _refuse_mixtures(ordered, taken)
    conflicts: list[Conflict] = []
    overrides: list[Conflict] = []
    for path, providers in sorted(_contested(ordered, local, taken).items()):
        groups = [list(group) for _, group in groupby(providers, key=attrgetter("rank"))]
        for *losers, winner in groups:
            if losers:
                conflicts.append(_conflict(path, winner, losers))
        if below := [group[-1] for group in groups[:-1]]:
            overrides.append(_conflict(path, providers[-1], below))
    names = {package.name for package in linked}
    return Verdict(
        conflicts=tuple(sorted(conflicts)),
        overrides=tuple(sorted(overrides)),
        warnings=(*_owned_twice(names, taken), *_warnings([*conflicts, *overrides])),
    )


def lost_paths(conflicts: Iterable[Conflict], name: str) -> frozenset[str]:
    """The paths that the entries of the package `name` leave out."""
    return frozenset(conflict.path for conflict in conflicts if name in conflict.losers)


def _contested(
    ordered: Sequence[Claims], local: frozenset[str], taken: Mapping[str, str]
) -> dict[str, list[_Provider]]:
    """The providers of each path that has several, the winner last."""
    providers: dict[str, list[_Provider]] = {}
    for package in ordered:
        rank = 2 if package.name in local else 1
        for path in package.files:
            found = providers.setdefault(path, [_Provider(0, taken[path], None)] if path in taken else [])
            found.append(_Provider(rank, package.name, package.content(path)))
    return {path: found for path, found in providers.items() if len(found) > 1}


def _conflict(path: str, winner: _Provider, losers: Sequence[_Provider]) -> Conflict:
    return Conflict(
        path=path,
        winner=winner.name,
        losers=tuple(loser.name for loser in losers),
        differs=any(loser.content != winner.content for loser in losers),
    )


def _refuse_mixtures(ordered: Sequence[Claims], taken: Mapping[str, str]) -> None:
    files = dict(taken)
    directories: dict[str, str] = {}
    provided = [(path, package.name) for package in ordered for path in package.files]
    for path, name in provided:
        files[path] = name
    for path, name in (*taken.items(), *provided):
        parent = path.rpartition("/")[0]
        while parent and parent not in directories:
            directories[parent] = name
            parent = parent.rpartition("/")[0]
    problems = [
        f"`{path}` is a file of `{files[path]}` but a directory of `{directories[path]}`"
        for path in sorted(files.keys() & directories.keys())
    ]
    if problems:
        raise PackageError.collect(problems, "the two packages cannot be in one environment: lock another version")


def _owned_twice(names: set[str], taken: Mapping[str, str]) -> Iterator[Warned]:
    """Distributions that a conda package has installed already: both stay, as with pixi, and Python finds either."""
    found: dict[str, str] = {}
    for path, owner in sorted(taken.items()):
        directory, _, file = path.rpartition("/")
        stem = directory.rpartition("/")[2].removesuffix(".dist-info")
        if file == "METADATA" and directory.endswith(".dist-info"):
            name: str = canonicalize_name(stem.rpartition("-")[0])
            if name in names:
                found[name] = owner
    for twice, owner in sorted(found.items()):
        yield Warned(
            f"`{twice}` is installed from PyPI and by the conda package `{owner}`",
            "leave one of the two out of the manifest",
        )


def _warnings(conflicts: Sequence[Conflict]) -> Iterator[Warned]:
    """One for each set of packages; the same content twice is worth none."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for conflict in sorted(conflicts):
        if conflict.differs:
            groups.setdefault((conflict.winner, conflict.losers), []).append(conflict.path)
    for (winner, losers), paths in sorted(groups.items()):
        others = ", ".join(f"`{loser}`" for loser in losers)
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        yield Warned(f"`{winner}` and {others} provide `{paths[0]}`{more}: `{winner}` wins")
