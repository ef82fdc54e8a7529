"""What the settings say about which of the workspace's files are taken: `files`, as `include` and `exclude`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.app.ignore import Patterns
from ociforge.errors import AppError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Selection"]


class Selection(Struct, frozen=True):
    """`include` patterns are relative to the workspace, without leading slash; the empty one is the workspace itself.

    `everything` is meant without any. `excluded` has the last word, in git's syntax.
    """

    everything: bool
    include: tuple[str, ...]
    patterns: Patterns
    excluded: Patterns

    @classmethod
    def parse(cls, include: Sequence[str] | None, exclude: Sequence[str]) -> Selection:
        """Read the settings, where no `include` at all means everything, and an empty one nothing.

        Raises AppError for a pattern that leads out of the workspace or cannot mean anything.
        """
        anchored = tuple(_anchored(pattern) for pattern in include or ())
        return cls(include is None, anchored, Patterns(f"/{pattern}" for pattern in anchored), Patterns(exclude))

    @property
    def takes_all(self) -> bool:
        """Whether the workspace as such is taken, by the rules for what lies in a named directory."""
        return self.everything or bool(self.whole)

    @property
    def whole(self) -> frozenset[int]:
        """The indices of the patterns that are the workspace itself."""
        return frozenset(index for index, pattern in enumerate(self.include) if not pattern)

    def named(self, path: str, *, is_directory: bool) -> frozenset[int]:
        """The indices of the `include` patterns that match the path itself."""
        return self.patterns.matching(path, is_directory=is_directory)

    def names(self, path: str) -> bool:
        """Whether a pattern is this very path."""
        return any(pattern.rstrip("/") == path for pattern in self.include if pattern)

    def names_below(self, directory: str) -> bool:
        """Whether a pattern begins with the very path of `directory`, and goes on."""
        return any(pattern.startswith(f"{directory}/") and pattern != f"{directory}/" for pattern in self.include)

    def may_hold(self, directory: str) -> bool:
        """Whether anything below `directory` may match: False spares the walk."""
        parts = directory.split("/")
        return any(_leads_to(pattern.split("/"), parts) for pattern in self.include)


def _anchored(pattern: str) -> str:
    parts = [part for part in pattern.strip().split("/") if part not in ("", ".")]
    if pattern.startswith(("!", "#")):
        raise AppError(f"`files`: `{pattern}`: a pattern cannot begin with `{pattern[0]}`", "see `files.exclude`")
    if not pattern.strip() or ".." in parts:
        why = "it leads out of the workspace" if parts else "it is empty"
        raise AppError(f"`files`: `{pattern}`: {why}", "name files of the workspace, `.` for all of it")
    return "/".join(parts) + ("/" if parts and pattern.endswith("/") else "")


def _leads_to(pattern: list[str], parts: list[str]) -> bool:
    """Whether a path below the directory `parts` may match: True in doubt."""
    for wanted, part in zip(pattern, parts, strict=False):
        if wanted == "**" or "\\" in wanted:
            return True
        if not fnmatchcase(part, wanted.replace("[^", "[!")):
            return False
    return len(parts) < len(pattern)
