"""An archive's members held against what its `info` lists of them.

What rattler would do to an archive that contradicts itself depends on this machine, or would copy files of it into the
image: such an archive is refused, by the same words whichever way it would be linked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ociforge.conda.info import HINT
from ociforge.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ociforge.conda.info import PackageInfo, PathInfo
    from ociforge.conda.tar import Member

__all__ = ["Members"]


class Members:
    """The members of one archive as they pass, in its order.

    `paths` are those that the package lists, by name. `first` leads from a hard link to the member that has its
    content, `softlinks` from a symbolic link to its target.
    """

    __slots__ = ("_filename", "_times", "first", "paths", "softlinks")

    def __init__(self, info: PackageInfo) -> None:
        self._filename = info.filename
        self._times: dict[str, int] = {}  # of every member but directories
        self.paths: Mapping[str, PathInfo] = {path.path: path for path in info.paths}
        self.first: dict[str, str] = {}
        self.softlinks: dict[str, str] = {}

    def listed(self, member: Member) -> PathInfo | None:
        """What the package says of the next member; None if it does not list it.

        Raises PackageError for a member that is something else than what the package says.
        """
        name, kind = member.name, member.kind
        path = self.paths.get(name)
        if path is None and (kind == "directory" or name in self._times):
            return None
        if kind == "directory":
            raise self._refused(f"ships the directory `{name}` as such, which rattler cannot install")
        if name in self._times:
            raise self._refused(f"has two members `{name}`")
        self._times[name] = member.mtime
        if kind == "hardlink":
            self._note_link(member)
        elif kind == "softlink":
            self.softlinks[name] = member.link
        if path is not None and (kind != "file" or path.kind == "softlink" or member.mtime < 0):
            self._check(path, member)
        return path

    @property
    def complete(self) -> bool:
        """Whether every path that the package lists has passed."""
        return self._times.keys() >= self.paths.keys()

    def check_complete(self) -> None:
        """Raise PackageError if a path that the package lists has not passed."""
        if missing := sorted(self.paths.keys() - self._times.keys()):
            raise self._refused(f"lists `{missing[0]}`, which is not in the archive")

    def _note_link(self, member: Member) -> None:
        first = self.first.get(member.link, member.link)
        if first not in self._times:
            raise self._refused(f"has a hard link `{member.name}` to `{member.link}`, which does not come before it")
        if self._times[first] != member.mtime:
            raise self._refused(f"has one time for `{first}` and another for its hard link `{member.name}`")
        self.first[member.name] = first

    def _check(self, path: PathInfo, member: Member) -> None:
        target = self.softlinks.get(self.first.get(path.path, path.path))
        if target is not None:
            self._check_softlink(path, target)
        elif path.kind == "softlink":
            raise self._refused(f"lists `{path.path}` as a symbolic link, which it is not in the archive")
        elif member.kind not in ("file", "hardlink"):
            raise self._refused(f"ships `{path.path}`, which is no regular file")
        if member.mtime < 0 and path.placeholder is None:
            raise self._refused(f"ships `{path.path}` with a time before 1970")

    def _check_softlink(self, path: PathInfo, target: str) -> None:
        """rattler copies what a link leads to, on this machine, where the package does not speak of a link."""
        if path.kind == "hardlink":
            raise self._refused(f"lists `{path.path}` as a file, but it is a symbolic link in the archive")
        if path.placeholder is not None or path.no_link:
            raise self._refused(f"wants the symbolic link `{path.path}` to be changed or copied")
        try:
            target.encode()
        except UnicodeEncodeError as error:
            raise self._refused(f"ships the link `{path.path}`, whose target is not UTF-8") from error

    def _refused(self, what: str) -> PackageError:
        return PackageError(f"`{self._filename}` {what}", HINT)
