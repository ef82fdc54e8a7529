"""Packages linked in both ways: straight from their archives, and by rattler's own installer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ociforge.conda.archive import ArchiveFile
from ociforge.conda.fetch import fetch
from ociforge.conda.info import parse_info
from ociforge.conda.install import install
from ociforge.conda.link import link
from tests.conda.environment import facts, records
from tests.support.channel import write_channel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from rattler import RepoDataRecord

    from layers.tree import Segment
    from ociforge.conda.package import Installation
    from tests.support.conda import Archive, CondaPackage, Form

__all__ = ["PREFIX", "both", "lost", "segment_facts", "segments", "stream"]

PREFIX = "/app/.pixi/envs/prod"


def segments(
    rows: Sequence[RepoDataRecord],
    root: Path,
    *,
    python: str | None = None,
    lost: Mapping[str, frozenset[str]] | None = None,
    prefix: str = PREFIX,
    **times: Any,
) -> list[Segment]:
    """The segments of `rows`, by name."""
    scratch = root / "scratch"
    scratch.mkdir(exist_ok=True)
    made = []
    for archive in fetch(rows, cache=root / "cache/archives", retries=0):
        filename = archive.record.file_name
        info = parse_info(ArchiveFile(path=archive.path, filename=filename).info(), filename)
        taken = (lost or {}).get(archive.record.name.normalized, frozenset())
        options = {"python": python, "lost": taken, "scratch": scratch, "mtime": 0, **times}
        made.append(link(archive, info, prefix=prefix, **options))
    return sorted(made, key=lambda segment: segment.name)


def stream(package: CondaPackage, root: Path, form: Form = ".conda", **options: Any) -> Segment:
    """The segment of one package."""
    channel = write_channel(root / "channel", [package], form=form)
    (segment,) = segments(records(channel), root, **options)
    return segment


def segment_facts(segment: Segment) -> list[tuple[object, ...]]:
    """Everything of the segment that reaches a layer; each content is read before the next entry is taken."""
    return [*facts(segment.directories), *(fact for entry in segment.entries for fact in facts([entry]))]


def lost(installation: Installation) -> dict[str, frozenset[str]]:
    """The paths that each package loses to another."""
    losses: dict[str, set[str]] = {}
    for conflict in installation.conflicts:
        for loser in conflict.losers:
            losses.setdefault(loser, set()).add(conflict.path)
    return {name: frozenset(paths) for name, paths in losses.items()}


def both(
    packages: Iterable[CondaPackage | Archive], root: Path, form: Form = ".conda", *, prefix: str = PREFIX, **times: Any
) -> Iterator[tuple[str, list[tuple[object, ...]], list[tuple[object, ...]]]]:
    """Each package's name, what it gives streamed, and what rattler's installation gives."""
    rows = records(write_channel(root / "channel", packages, form=form))
    staging = root / "staging"
    staging.mkdir()
    installation = install(
        rows, prefix=prefix, subdir="linux-64", cache=root / "cache", staging=staging, retries=0, **times
    )
    streams = segments(rows, root, python=installation.python, lost=lost(installation), prefix=prefix, **times)
    for package, segment in zip(installation.packages, streams, strict=True):
        assert package.name == segment.name
        yield package.name, segment_facts(segment), facts(package.entries)
