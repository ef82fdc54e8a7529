"""Patterns in the manner of `.gitignore` (gitignore(5)), each asked about one path itself.

pathspec translates the patterns. Its own matchers also report what lies below a match, which is of no use to a walk
that goes from the top down and may come into an ignored directory after all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct
from pathspec import GitIgnoreSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Patterns"]

_MARK = "ps_d"  # pathspec's group for the slash that ends a matched directory
_NAMED_MARK = f"?P<{_MARK}>"


class _Pattern(Struct, frozen=True):
    index: int  # of the line
    regex: re.Pattern[str]
    positive: bool  # does not begin with `!`
    inside: bool  # ends in `/**`: not the directory itself
    directories: bool  # ends in `/**/`

    def matches(self, path: str, *, is_directory: bool) -> bool:
        if self.directories and not is_directory:
            return False
        text = f"{path}/" if is_directory and not self.inside else path
        # A mark before the end is that of a parent.
        return any(
            _MARK not in self.regex.groupindex or found.start(_MARK) in (-1, len(text) - 1)
            for found in self.regex.finditer(text)
        )


class Patterns:
    """The patterns in `lines`, for paths relative to the directory that they speak of. Comments, blank lines and what
    git takes for malformed match nothing.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._patterns = [pattern for index, line in enumerate(lines) for pattern in _translated(index, line)]
        # Most paths match nothing: one search tells.
        every = "|".join(f"(?:{p.regex.pattern.replace(_NAMED_MARK, '?:')})" for p in self._patterns)
        self._any = re.compile(every) if every else None

    @classmethod
    def parse(cls, data: bytes) -> Patterns:
        """The patterns in an ignore file."""
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        return cls(line.removesuffix("\r") for line in text.split("\n"))

    def decide(self, path: str, *, is_directory: bool) -> bool | None:
        """What the last pattern that matches the path itself says: True to match, False if it begins with `!`.

        None when no pattern matches, whatever is said of the path's parents.
        """
        if self._any is None or not self._any.search(f"{path}/" if is_directory else path):
            return None
        for pattern in reversed(self._patterns):
            if pattern.matches(path, is_directory=is_directory):
                return pattern.positive
        return None

    def matching(self, path: str, *, is_directory: bool) -> frozenset[int]:
        """The indices of all lines that match the path itself."""
        if self._any is None or not self._any.search(f"{path}/" if is_directory else path):
            return frozenset()
        return frozenset(p.index for p in self._patterns if p.matches(path, is_directory=is_directory))


def _translated(index: int, line: str) -> Iterator[_Pattern]:
    directories = line.rstrip().endswith("/**/")
    text = line.rstrip()[:-1] if directories else line
    try:
        patterns = list(GitIgnoreSpec.from_lines([text]).patterns)
    except ValueError:
        return
    for pattern in patterns:
        if pattern.regex is not None:
            inside = text.rstrip().endswith("/**")
            yield _Pattern(index, re.compile(pattern.regex.pattern), bool(pattern.include), inside, directories)
