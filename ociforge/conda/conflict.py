"""Conflicts: paths that several packages provide. rattler settles who wins, independent of the records' order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layers.digest import Digest
from ociforge.conda.clobber import content, refuse_mixtures
from ociforge.conda.linked import on_disk
from ociforge.conda.package import Conflict
from ociforge.errors import PackageError
from ociforge.events import Warned

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence
    from pathlib import Path

    from ociforge.conda.linked import Linked
    from ociforge.conda.meta import PathRecord

__all__ = ["conflicts", "warnings"]

_HINT = "build again, or with the streaming installer, which settles it itself"


def conflicts(linked: Sequence[Linked], root: Path) -> tuple[Conflict, ...]:
    """Who won which path in the prefix `root`, sorted by path.

    Raises PackageError for a path that is a file for one package and a directory for another: what rattler makes of
    it differs from run to run. Also when a file on disk is not the one of the package that rattler says has won, and
    for scripts that it generates where another package has a file, which it writes in any order.
    """
    refuse_mixtures([(package.filename, [entry.path for entry in package.paths]) for package in linked])
    providers: dict[str, dict[str, tuple[Linked, PathRecord]]] = {}
    for package in linked:
        for entry in package.paths:
            providers.setdefault(entry.path, {})[package.name] = package, entry
    contested = sorted(path for path, found in providers.items() if len(found) > 1)
    return tuple(_conflict(path, list(providers[path].values()), root) for path in contested)


def _conflict(path: str, providers: Sequence[tuple[Linked, PathRecord]], root: Path) -> Conflict:
    winners = [(package, entry) for package, entry in providers if path not in package.lost]
    losers = [(package, entry) for package, entry in providers if path in package.lost]
    if len(winners) != 1 or not _is_there(winners[0][1], root):
        names = ", ".join(f"`{package.filename}`" for package, _ in providers)
        raise PackageError(f"{names} all provide `{path}`, and rattler did not settle whose is used", _HINT)
    winner, kept = winners[0]
    return Conflict(
        path=path,
        winner=winner.name,
        losers=tuple(package.name for package, _ in losers),
        differs=any(_content(entry) != _content(kept) for _, entry in losers),
    )


def _is_there(entry: PathRecord, root: Path) -> bool:
    """Whether the file on disk is the one recorded: rattler moves clobbered files about after linking.

    It leaves links where they are that lead nowhere from where they were put aside.
    """
    place = on_disk(root, entry.path)
    if place.is_symlink():
        return entry.path_type == "softlink"
    expected = entry.sha256_in_prefix or entry.sha256
    try:
        with place.open("rb") as stream:
            return expected is None or Digest.of_stream(stream).hex == expected
    except FileNotFoundError:
        return False


def _content(entry: PathRecord) -> Hashable:
    """What the package itself has there, as `clobber` judges it."""
    return content(entry.path_type, entry.sha256, entry.prefix_placeholder, entry.file_mode)


def warnings(conflicts: Iterable[Conflict]) -> Iterator[Warned]:
    """One for each set of packages; the same content twice is worth none."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for conflict in conflicts:
        if conflict.differs:
            groups.setdefault((conflict.winner, conflict.losers), []).append(conflict.path)
    for (winner, losers), paths in sorted(groups.items()):
        others = ", ".join(f"`{loser}`" for loser in losers)
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        yield Warned(f"`{winner}` and {others} provide `{paths[0]}`{more} with different content: `{winner}` wins")
