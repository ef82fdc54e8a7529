"""What all parts of the lock check share: the documents, the report, and what has been read once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from ociforge.workspace.cutoff import parse_cutoff
from ociforge.workspace.satisfy.local_metadata import Metadata, read_metadata
from ociforge.workspace.satisfy.provided import Purls
from ociforge.workspace.satisfy.verdict import Report

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from ociforge.workspace.environment import Environment
    from ociforge.workspace.lockfile import Lock, LockedPlatform, Rows
    from ociforge.workspace.manifest import Manifest

__all__ = ["Context"]

_ARCHIVES = ("/", "file:", "https://", "http://", "s3://", "gcs://", "oci://")  # what they hold, the lock tells
_REMOTE = ("https://", "http://", "git+", "direct+http")  # where rows of PyPI lie that are on no file system


class Context(Struct, frozen=True, kw_only=True):
    """One check of a lock; `now` is what durations of `exclude-newer` count from. `beside` is what was looked at
    besides the two documents.
    """

    manifest: Manifest
    lock: Lock
    now: datetime
    report: Report = field(default_factory=Report)
    purls: Purls = field(default_factory=Purls)
    _rows: dict[tuple[str, str], Rows] = field(default_factory=dict)
    beside: set[str] = field(default_factory=set)
    _trees: dict[Path, Metadata | None] = field(default_factory=dict)

    def rows(self, environment: str, platform: LockedPlatform) -> Rows:
        """The packages of an environment on one of the lock's platforms."""
        key = environment, platform.name
        if key not in self._rows:
            rows = self._rows[key] = self.lock.rows(environment, platform)
            self.beside.update(package.location for package in rows.conda if not package.location.startswith(_ARCHIVES))
            self.beside.update(row.location for row in rows.pypi if not row.location.startswith(_REMOTE))
        return self._rows[key]

    def tree(self, directory: Path) -> Metadata | None:
        """The static metadata of a source tree, or None when it has none."""
        if directory not in self._trees:
            self._trees[directory] = read_metadata(directory)
        return self._trees[directory]

    def moment(self, text: str) -> datetime:
        """What `exclude-newer` means by `text`. Raises ValueError."""
        self.beside.add("the time")
        return parse_cutoff(text, self.now)

    def key(self, key: str) -> str:
        """A key as it stands in this manifest: below `tool.pixi` in a `pyproject.toml`."""
        return f"tool.pixi.{key}" if self.manifest.path.name == "pyproject.toml" else key

    def setting(self, environment: Environment, key: str) -> str:
        """Where an environment has a setting from: the first of its features that has it, else the workspace."""
        attribute = key.partition(".")[0].replace("-", "_")
        for name in environment.features:
            feature = self.manifest.features.get(name) or self.manifest.environments[environment.name].inline
            if feature is not None and getattr(feature, attribute) is not None:
                return self.key(self._prefix(environment, name, key) + key)
        return self.key(f"workspace.{key}")

    def _prefix(self, environment: Environment, feature: str, key: str) -> str:
        """Where the keys of a feature are. The default one's are the workspace's, but `pypi-options` has a table."""
        if feature == "default":
            return "" if key.startswith("pypi-options") else "workspace."
        return f"feature.{feature}." if feature in self.manifest.features else f"environments.{environment.name}."
