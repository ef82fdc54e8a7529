"""What is asked of a build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from ociforge.network import ONLINE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from layers.compress import Codec
    from ociforge.base import Base
    from ociforge.network import Network
    from ociforge.platform import Platform
    from ociforge.workspace import Environment, ImageSettings, Workspace
    from ociforge.workspace.lockfile import Selection

__all__ = ["Request"]


class Request(Struct, frozen=True, kw_only=True):
    """One image to build. `selection` is what the lock holds for `environment`, which is of the workspace's.

    `epoch` is the time, in seconds, of the image and of generated files, None for no time at all (files get 0);
    `clamp` makes it the latest time of any file. `leave_out` are files of the workspace that are no input, such as
    the archive that is about to be written. `environ` is the environment of git and build backends, of which they
    see a part; only packages that the lock has as sources need them. `network` says where packages may be had: no
    input of the image.
    """

    workspace: Workspace
    settings: ImageSettings
    environment: Environment
    selection: Selection
    platform: Platform
    base: Base
    codec: Codec
    epoch: int | None = None
    clamp: bool = False
    leave_out: tuple[Path, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    network: Network = ONLINE

    @property
    def prefix(self) -> str:
        """The environment's directory as a path of the image."""
        return self.settings.prefix.strip("/")

    @property
    def mtime(self) -> int:
        """The time of generated files."""
        return self.epoch or 0
