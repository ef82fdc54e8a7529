"""What of packages is left out of images, by the names of `strip` in the settings.

A rule looks at one path below the prefix and at nothing else, so what a package loses does not depend on its
neighbours. Names and rules are part of the layer key: a rule that changes is a new format.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from layers.entry import Directory, File, Hardlink
from layers.tree import parents

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from layers.entry import Entry

__all__ = ["POLICIES", "remaining", "stripped", "tally"]

# Matched against the whole path, relative to the prefix.
POLICIES: dict[str, re.Pattern[str]] = {
    name: re.compile(rule, re.DOTALL)
    for name, rule in {
        # Not below `lib/gcc` and in sysroots: a compiler in the environment links with those.
        "static-libraries": r"lib/[^/]+\.a|lib/python3[^/]*/config-[^/]*/[^/]+\.a",
        "js-maps": r".+\.(?:js|mjs|cjs|css)\.map",
        # `sysconfig` reads pyconfig.h at run time.
        "headers": r"include/(?!python3[^/]*/pyconfig\.h$).+",
        "tests": r"lib/python3[^/]*/(?:test|site-packages/.+/tests?)/.+|lib/python3[^/]*/site-packages/tests?/.+",
        "docs": r"(?:share/(?:doc|man|info|gtk-doc)|man|doc|docs)/.+",
        # Conda's own record of what is installed: without it neither conda nor scanners see the packages.
        "conda-meta": r"conda-meta/[^/]+\.json",
    }.items()
}


def stripped(path: str, policies: Iterable[str]) -> str | None:
    """The first of `policies`, in their order, that leaves out `path` (relative to the prefix); None if it stays."""
    return next((name for name in policies if POLICIES[name].fullmatch(path)), None)


def tally(paths: Iterable[tuple[str, int]], policies: Iterable[str]) -> dict[str, tuple[int, int]]:
    """How many of `paths`, given with their sizes, each of `policies` leaves out, and of how many bytes together."""
    found = dict.fromkeys(policies, (0, 0))
    for path, size in paths:
        if (name := stripped(path, found)) is not None:
            count, total = found[name]
            found[name] = count + 1, total + size
    return found


def remaining(entries: Collection[Entry], prefix: str, policies: Collection[str]) -> tuple[Entry, ...]:
    """`entries` of a package without what `policies` leave out below `prefix` (without leading slash), nor directories
    that nothing is left in. The first hard link to a file that is gone takes its place.
    """
    if not policies:
        return tuple(entries)
    start = f"{prefix}/"

    def is_gone(path: str) -> bool:
        return path.startswith(start) and stripped(path.removeprefix(start), policies) is not None

    files = {entry.path: entry for entry in entries if isinstance(entry, File)}
    heirs: dict[str, str] = {}

    def kept() -> Iterator[Entry]:
        for entry in entries:
            if is_gone(entry.path):
                continue
            if isinstance(entry, Hardlink) and is_gone(entry.target):
                heir = heirs.setdefault(entry.target, entry.path)
                yield (
                    replace(files[entry.target], path=heir)
                    if heir == entry.path
                    else Hardlink(path=entry.path, target=heir)
                )
            else:
                yield entry

    result = tuple(kept())
    needed = {prefix, f"{prefix}/conda-meta", *parents(e.path for e in result if not isinstance(e, Directory))}
    return tuple(entry for entry in result if not isinstance(entry, Directory) or entry.path in needed)
