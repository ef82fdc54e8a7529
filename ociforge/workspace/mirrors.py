"""`[tool.ociforge.mirrors]`: where packages may be had instead of the places that the lock names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ociforge.network import Mirrors, prefix_problem

if TYPE_CHECKING:
    from ociforge.workspace.reading import Table

__all__ = ["read_mirrors"]


def read_mirrors(table: Table) -> Mirrors:
    """The mirrors in the settings `table`; what is wrong with them is noted."""
    inner = table.table("mirrors")
    found: dict[str, tuple[str, ...]] = {}
    for prefix in inner.values if inner else ():
        assert inner is not None
        if (problem := prefix_problem(prefix, mirror=False)) is not None:
            inner.wrong(prefix, problem)
        found[prefix] = inner.texts(prefix) or ()
        for index, mirror in enumerate(found[prefix]):
            if (problem := prefix_problem(mirror, mirror=True)) is not None:
                inner.findings.add(inner.at(prefix, index), problem)
    return Mirrors(prefixes=found)
