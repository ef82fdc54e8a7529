"""Conflicts: paths that several packages provide. rattler settles who wins, independent of the records' order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layers.digest import Digest
from ociforge.conda.linked import on_disk
from ociforge.conda.package import Conflict
from ociforge.errors import PackageError
from ociforge.events import Warned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from ociforge.conda.linked import Linked
    from ociforge.conda.meta import PathRecord

__all__ = ["conflicts", "warnings"]


def conflicts(linked: Sequence[Linked], root: Path) -> tuple[Conflict, ...]:
    """Who won which path in the prefix `root`, sorted by path.

    Raises PackageError for a path that is a file for one package and a directory for another: what rattler makes of
    it differs from run to run. Also when a file on disk is not the one of the package that rattler says has won.
    """
    _refuse_mixtures(linked)
    providers: dict[str, list[tuple[Linked, PathRecord]]] = {}
    contested = {path for package in linked for path in package.lost}
    for package in linked:
        for entry in package.paths:
            if entry.path in contested:
                providers.setdefault(entry.path, []).append((package, entry))
    return tuple(_conflict(path, providers[path], root) for path in sorted(providers))


def _conflict(path: str, providers: Sequence[tuple[Linked, PathRecord]], root: Path) -> Conflict:
    winners = [(package, entry) for package, entry in providers if path not in package.lost]
    losers = [(package, entry) for package, entry in providers if path in package.lost]
    if len(winners) != 1 or not _is_there(winners[0][1], root):
        names = ", ".join(f"`{package.filename}`" for package, _ in providers)
        raise PackageError(f"{names} all provide `{path}`, and rattler did not settle whose is used", "build again")
    winner, kept = winners[0]
    return Conflict(
        path=path,
        winner=winner.name,
        losers=tuple(package.name for package, _ in losers),
        differs=any(_content(entry) != _content(kept) for _, entry in losers),
    )


def _is_there(entry: PathRecord, root: Path) -> bool:
    """Whether the file on disk is the one recorded: rattler moves clobbered files about after linking."""
    place = on_disk(root, entry.path)
    if place.is_symlink():
        return entry.path_type == "softlink"
    expected = entry.sha256_in_prefix or entry.sha256
    with place.open("rb") as stream:
        return expected is None or Digest.of_stream(stream).hex == expected


def _refuse_mixtures(linked: Sequence[Linked]) -> None:
    files: dict[str, Linked] = {}
    directories: dict[str, Linked] = {}
    for package in linked:
        for entry in package.paths:
            files.setdefault(entry.path, package)
            parent = entry.path.rpartition("/")[0]
            while parent and parent not in directories:
                directories[parent] = package
                parent = parent.rpartition("/")[0]
    problems = [
        f"`{path}` is a file of `{files[path].filename}` but a directory of `{directories[path].filename}`"
        for path in sorted(files.keys() & directories.keys())
    ]
    if problems:
        raise PackageError.collect(problems, "the two packages cannot be in one environment: lock another build of one")


def _content(entry: PathRecord) -> tuple[str, str | None]:
    return entry.path_type, entry.sha256_in_prefix or entry.sha256


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
