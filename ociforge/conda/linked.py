"""Packages that rattler has linked, as its own records tell where each path went."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ociforge.conda.meta import PathRecord, record_name
from ociforge.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ociforge.conda.contents import Placed
    from ociforge.conda.fetch import Archive

__all__ = ["Linked", "on_disk", "read_back"]


class Linked(msgspec.Struct, frozen=True, kw_only=True):
    """A package in the staging directory.

    `paths` are sorted and bear the package's own names; `lost` are those whose place another package's file took.
    `members`: the archive's members by path below the prefix (see `contents.Contents.placed`).
    """

    archive: Archive
    paths: tuple[PathRecord, ...]
    lost: frozenset[str]
    members: Mapping[str, Placed]

    @property
    def name(self) -> str:
        """The package's name, normalised."""
        return self.archive.record.name.normalized

    @property
    def filename(self) -> str:
        """The archive's name, for messages."""
        return self.archive.record.file_name


class _Paths(msgspec.Struct, frozen=True):
    paths: list[PathRecord]


class _Document(msgspec.Struct, frozen=True):
    """The part of rattler's own `conda-meta` record that says where each path went."""

    paths_data: _Paths


def on_disk(root: Path, path: str) -> Path:
    """Where rattler puts `path` of a package: names are UTF-8, whatever the locale says of the file system."""
    return root / os.fsdecode(path.encode())


def read_back(archive: Archive, root: Path, members: Mapping[str, Placed]) -> Linked:
    """What became of `archive` in the prefix `root`. Raises PackageError when rattler's record is not there."""
    path = on_disk(root, f"conda-meta/{record_name(archive.record)}")
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Document)
    except (OSError, msgspec.MsgspecError) as error:
        raise PackageError(f"rattler left no record of `{archive.record.file_name}`: {error}") from error
    # rattler keeps what lost its place under `__clobbers__/<package>/`.
    losers = f"__clobbers__/{archive.record.name.normalized}/"
    paths = [
        msgspec.structs.replace(entry, path=entry.path.removeprefix(losers), original_path=None)
        for entry in document.paths_data.paths
    ]
    unique = {(entry.path, entry.path_type): entry for entry in paths}  # an entry point may be listed twice
    return Linked(
        archive=archive,
        paths=tuple(sorted(unique.values(), key=lambda entry: entry.path.split("/"))),
        lost=frozenset(
            entry.path.removeprefix(losers) for entry in document.paths_data.paths if entry.path.startswith(losers)
        ),
        members=members,
    )
