"""Of what a solve group has been given, the part that each of its environments asks for.

The walk is that of the lock check, so what it leads to here is what it will want there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.workspace.satisfy.conda_walk import CondaWalk
from ociforge.workspace.satisfy.context import Context
from ociforge.workspace.satisfy.markers import Markers, marker_environment
from ociforge.workspace.satisfy.matching import LockedConda, record_of
from ociforge.workspace.satisfy.pypi_walk import PypiWalk

if TYPE_CHECKING:
    from datetime import datetime

    from ociforge.workspace.environment import Environment
    from ociforge.workspace.lockfile import Lock, Rows
    from ociforge.workspace.manifest import Manifest

__all__ = ["Draft", "Subset"]


class Subset(Struct, frozen=True, kw_only=True):
    """Names of the conda packages and of the PyPI distributions that an environment needs."""

    conda: frozenset[str]
    pypi: frozenset[str]


class Draft:
    """A lock in which every environment has all that its solve group was given."""

    def __init__(self, manifest: Manifest, lock: Lock, now: datetime) -> None:
        self._context = Context(manifest=manifest, lock=lock, now=now)

    def provided(self, environment: Environment) -> dict[str, str]:
        """The PyPI distributions that conda packages bring: name -> version."""
        _, conda = self._rows(environment)
        return {name: str(found.version) for name, found in self._context.purls.provided(conda).items()}

    def subset(self, environment: Environment) -> Subset:
        """What the environment's own requirements lead to; what is missing is left for the check to find."""
        locked = self._context.lock.environment(environment.name)
        rows, conda = self._rows(environment)
        walk = CondaWalk(self._context.report, environment, conda)
        walk.run()
        python = conda.by_name.get("python")
        if not environment.pypi_dependencies or python is None:
            return Subset(conda=frozenset(walk.visited), pypi=frozenset())
        markers = Markers(marker_environment(environment.platform.subdir, str(record_of(python).version)))
        pypi = PypiWalk(self._context, environment, walk, rows.pypi, locked, markers)
        pypi.run()
        return Subset(conda=frozenset(walk.visited), pypi=frozenset(pypi.visited))

    def _rows(self, environment: Environment) -> tuple[Rows, LockedConda]:
        locked = self._context.lock.environment(environment.name)
        row = locked.find(environment.platform)
        assert row is not None
        rows = self._context.rows(environment.name, row)
        return rows, LockedConda(rows.conda, environment.platform.virtual_packages, self._context.manifest.root)
