"""What is inside an archive, as far as rattler's own installation does not tell, and whether it may have it."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.conda.archive import ArchiveFile
from ociforge.conda.clobber import directories, refuse_mixtures
from ociforge.conda.info import INFO_FILES, PathInfo, is_plain, parse_info
from ociforge.conda.loop import collected, in_thread
from ociforge.conda.members import Members
from ociforge.conda.survey import claim, interpreter
from ociforge.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ociforge.conda.fetch import Archive
    from ociforge.conda.info import PackageInfo, Python
    from ociforge.conda.tar import Member

__all__ = ["Contents", "Placed", "contents", "looked_through"]

_CLOBBERS = "__clobbers__"
_HINT = "build without `--installer rattler`, and report it to the package's maintainers"


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


async def looked_through(archives: Sequence[Archive], *, hint: str = _HINT) -> tuple[Contents, ...]:
    """The contents of `archives`, in their order, after making sure that rattler can link them into one environment.

    rattler is given nothing before: it follows links, of an archive and of the prefix, wherever on this machine they
    lead. Raises PackageError as `contents` and `survey.claim` do, and for a path that is a file of one package and a
    directory of another. `hint` is for what rattler alone cannot do.
    """
    looked = await collected([in_thread(contents, archive, hint=hint) for archive in archives])
    python = interpreter(archive.record for archive in archives)
    claims = [claim(archive.record, inside.info, python) for archive, inside in zip(archives, looked, strict=True)]
    refuse_mixtures([(one.filename, one.places) for one in claims])
    return looked


def contents(archive: Archive, *, hint: str = _HINT) -> Contents:
    """Look through `archive`.

    Hard links are read from the archive's tar headers, never from inodes, which a copied or deduplicated cache changes.
    Checks all paths and members on the way. Raises PackageError for what cannot be linked in any way (see `parse_info`
    and `Members`), and, with `hint`, for what rattler could unpack into something else than is read here.
    """
    file = ArchiveFile(path=archive.path, filename=archive.record.file_name)
    info = parse_info(file.info(), file.filename)
    listed, unpacked = Members(info), _Unpacked(file.filename, hint)
    members: dict[str, Placed] = {}
    for position, member in enumerate(chain(file.payload(), file.rest())):
        listed.listed(member)
        unpacked.add(member)
        first = members.get(member.link) if member.kind == "hardlink" else None
        members[member.name] = Placed(position, first.member if first is not None else member.name)
    listed.check_complete()
    unpacked.check(info)
    return Contents(info=info, members=members)


class _Unpacked:
    """What rattler unpacks of an archive: every member, also those that the package does not list."""

    def __init__(self, filename: str, hint: str) -> None:
        self._filename = filename
        self._hint = hint
        self._kinds: dict[str, str] = {}

    def add(self, member: Member) -> None:
        """Note the next member. Raises PackageError for one that does not stay what it is, where it is."""
        name, kind = member.name, member.kind
        if name in self._kinds and not self._kinds[name] == kind == "directory":
            raise self._refused(f"has two members `{name}`")
        if not is_plain(name) and (name, kind) != (".", "directory"):
            raise self._refused(f"has a member `{name}`, which is no plain path")
        if kind == "hardlink" and self._kinds.get(member.link) != "file":
            raise self._refused(f"has a hard link `{name}` to `{member.link}`, which is no file")
        self._kinds[name] = "file" if kind == "hardlink" else kind

    def check(self, info: PackageInfo) -> None:
        """Raise PackageError for members that rattler would find through others, or take for other documents."""
        others = {name for name, kind in self._kinds.items() if kind != "directory"}
        if between := sorted(others & directories(self._kinds)):
            raise self._refused(f"has members below `{between[0]}`, which is no directory")
        for name in INFO_FILES:
            if self._kinds.get(name, "file") != "file":
                raise self._refused(f"has a member `{name}`, which is no file")
        for path in info.paths:
            if path.path.partition("/")[0] == _CLOBBERS:
                raise self._refused(f"ships `{path.path}`, where rattler puts files aside")

    def _refused(self, what: str) -> PackageError:
        return PackageError(f"`{self._filename}` {what}", self._hint)
