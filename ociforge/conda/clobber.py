"""Who wins a path that several packages provide, told by what the packages say about themselves: nothing is linked.

rattler's rule: of the packages that have a path, the last one wins when they are sorted topologically, dependencies
first. So a package's file replaces that of what it depends on; of packages that do not depend on each other, their
names and those of what depends on them decide. The order in which packages were linked does not matter.

Generated scripts (entry points) are files like others here; rattler itself leaves it to chance who wins one.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

from msgspec import Struct
from rattler import PackageRecord

from ociforge.conda.info import HINT, EntryPoint
from ociforge.conda.package import Conflict
from ociforge.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from rattler import RepoDataRecord

    from ociforge.conda.info import PathInfo

__all__ = ["Claim", "content", "directories", "link_order", "lost", "refuse_mixtures", "settle"]


class Claim(Struct, frozen=True, kw_only=True):
    """What the package `name`, of the archive `filename`, has at which path below the prefix."""

    name: str
    filename: str
    places: Mapping[str, PathInfo | EntryPoint]


def link_order(records: Iterable[RepoDataRecord]) -> tuple[str, ...]:
    """The names of `records` as rattler sorts them: a later one's files win.

    Asked of rattler itself, which also breaks cycles. Its answer depends on names, dependencies and `noarch` alone.
    """
    ordered: list[PackageRecord] = sorted(records, key=lambda record: record.name.normalized)
    return tuple(record.name.normalized for record in PackageRecord.sort_topologically(ordered))


def settle(claims: Iterable[Claim], order: Sequence[str]) -> tuple[Conflict, ...]:
    """Who provides which contested path in the end, sorted by path; `order` is that of `link_order`.

    Raises PackageError for a path that is a file of one package and a directory of another: what rattler makes of
    it differs from run to run.
    """
    by_name = sorted(claims, key=lambda claim: claim.name)
    refuse_mixtures([(claim.filename, claim.places) for claim in by_name])
    contested = _contested(by_name)
    if not contested:
        return ()
    rank = {name: number for number, name in enumerate(order)}
    return tuple(_conflict(path, contested[path], rank) for path in sorted(contested))


def lost(conflicts: Iterable[Conflict]) -> dict[str, frozenset[str]]:
    """By package, the paths that it does not provide in the end; packages that lose none are left out."""
    paths: dict[str, set[str]] = {}
    for conflict in conflicts:
        for loser in conflict.losers:
            paths.setdefault(loser, set()).add(conflict.path)
    return {name: frozenset(found) for name, found in paths.items()}


def content(
    kind: str | None, sha256: str | None, placeholder: str | None = None, file_mode: str | None = None
) -> Hashable:
    """Stands for what is at a path: equal where the bytes are sure to be; unlike anything where they are not known."""
    return object() if kind is None or sha256 is None else (kind, sha256, placeholder, file_mode)


def refuse_mixtures(packages: Sequence[tuple[str, Iterable[str]]]) -> None:
    """Raise PackageError for paths that are files and directories at once; `packages` are (archive's name, paths)."""
    files = {path for _, paths in packages for path in paths}
    mixed = files & directories(files)
    if not mixed:
        return
    owner: dict[str, str] = {}
    user: dict[str, str] = {}
    for filename, paths in packages:
        for path in paths:
            if path in mixed:
                owner.setdefault(path, filename)
            for above in mixed & directories([path]):
                user.setdefault(above, filename)
    alone = all(owner[path] == user[path] for path in mixed)
    raise PackageError.collect(
        [f"`{path}` is a file of `{owner[path]}` but a directory of `{user[path]}`" for path in sorted(mixed)],
        HINT if alone else "the two packages cannot be in one environment: lock another build of one",
    )


def directories(paths: Iterable[str]) -> set[str]:
    """Every directory above one of `paths`."""
    found: set[str] = set()
    for parent in {path.rpartition("/")[0] for path in paths}:
        above = parent
        while above and above not in found:
            found.add(above)
            above = above.rpartition("/")[0]
    return found


def _contested(claims: Sequence[Claim]) -> dict[str, list[Claim]]:
    """The packages that have a path, for each that several have."""
    several = {
        path for path, count in Counter(chain.from_iterable(claim.places for claim in claims)).items() if count > 1
    }
    contested: dict[str, list[Claim]] = {}
    for claim in claims:
        for path in several & claim.places.keys():
            contested.setdefault(path, []).append(claim)
    return contested


def _conflict(path: str, claims: Sequence[Claim], rank: Mapping[str, int]) -> Conflict:
    winner = max(claims, key=lambda claim: rank[claim.name])
    losers = [claim for claim in claims if claim is not winner]
    kept = _content(winner.places[path])
    return Conflict(
        path=path,
        winner=winner.name,
        losers=tuple(claim.name for claim in losers),
        differs=any(_content(claim.places[path]) != kept for claim in losers),
    )


def _content(there: PathInfo | EntryPoint) -> Hashable:
    if isinstance(there, EntryPoint):
        return there
    return content(there.kind, there.sha256, there.placeholder, there.file_mode)
