"""Pixi's documents: the manifest, its environments, the image settings in it, and the lock.

Everything here is pure but for reading files. `load` is the way in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.workspace.environment import Environment, resolve
from ociforge.workspace.manifest import Manifest, discover, read_manifest
from ociforge.workspace.settings import ImageSettings, Settings, read_settings

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Environment", "ImageSettings", "Manifest", "Settings", "Workspace", "load"]


class Workspace(Struct, frozen=True, kw_only=True):
    """A workspace as its manifest declares it."""

    manifest: Manifest
    settings: Settings

    @property
    def root(self) -> Path:
        """The workspace's directory, absolute."""
        return self.manifest.root

    @property
    def name(self) -> str:
        """The workspace's name, never empty."""
        return self.manifest.name

    @property
    def lock_path(self) -> Path:
        """Where `pixi.lock` is, or should be."""
        return self.root / "pixi.lock"

    def environment(self, name: str, platform: str) -> Environment:
        """What an environment asks for on a platform (`linux-64`, or a platform's own name)."""
        return resolve(self.manifest, name, platform)


def load(path: Path, manifest_path: Path | None = None) -> Workspace:
    """The workspace that the directory `path` lies in, or the one of `manifest_path` (a file or its directory).

    Raises WorkspaceError when there is none, or its manifest or its image settings are wrong.
    """
    if manifest_path is not None and not manifest_path.is_dir():
        found = manifest_path.absolute()
    else:
        found = discover(path if manifest_path is None else manifest_path, upward=manifest_path is None)
    manifest = read_manifest(found)
    return Workspace(manifest=manifest, settings=read_settings(manifest))
