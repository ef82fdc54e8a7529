"""What is inside an archive, as far as rattler's own installation does not tell."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.conda.archive import ArchiveFile
from ociforge.conda.info import PathInfo, parse_info

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ociforge.conda.fetch import Archive
    from ociforge.conda.info import PackageInfo, Python

__all__ = ["Contents", "Placed", "contents"]


class Placed(Struct, frozen=True):
    """A file of the archive: its `position` there, and the `member` that has its content, for hard links another."""

    position: int
    member: str


class Contents(Struct, frozen=True, kw_only=True):
    """What the archive says of itself, and its members by name, directories included."""

    info: PackageInfo
    members: Mapping[str, Placed]

    def placed(self, python: Python | None) -> Mapping[str, Placed]:
        """The members of the package's files by their path below the prefix."""
        return {
            place: self.members[path.path]
            for place, path in self.info.places(python)
            if isinstance(path, PathInfo) and path.path in self.members
        }


def contents(archive: Archive) -> Contents:
    """Look through `archive`.

    Hard links are read from the archive's tar headers, never from inodes, which a copied or deduplicated cache changes.
    Checks all paths on the way and raises PackageError for one that leads out of the prefix (rattler would follow it
    or abort the process) and for what rattler cannot link.
    """
    file = ArchiveFile(path=archive.path, filename=archive.record.file_name)
    info = parse_info(file.info(), file.filename)
    members: dict[str, Placed] = {}
    for position, member in enumerate(chain(file.payload(), file.rest())):
        first = members.get(member.link) if member.kind == "hardlink" else None
        members[member.name] = Placed(position, first.member if first is not None else member.name)
    return Contents(info=info, members=members)
