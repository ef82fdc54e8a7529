"""What this machine cannot make for another platform, known before anything is fetched or built.

Images of any platform are put together here; only compilers and the environment's own interpreter have to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ociforge.bytecode import elsewhere
from ociforge.conda.machine import runs_here
from ociforge.errors import PackageError

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.platform import Platform
    from ociforge.workspace import Environment, ImageSettings
    from ociforge.workspace.lockfile import Selection

__all__ = ["refuse_bytecode", "refuse_native"]


def refuse_bytecode(settings: ImageSettings, platform: Platform) -> None:
    """Raise BuildError when bytecode is asked for that would take an interpreter of another platform."""
    if settings.bytecode != "none" and not runs_here(platform.subdir):
        raise elsewhere(platform, settings.name)


def refuse_native(
    settings: ImageSettings, platform: Platform, *, environment: Environment, selection: Selection, root: Path
) -> None:
    """Raise PackageError, with all of their names, when packages that the lock has as sources are sure to be compiled,
    and for another platform than this machine's; also when wheels that it has do not fit the platform.

    What has to be fetched or built to know is left to the build. `root` is the workspace.
    """
    if not selection.pypi or runs_here(platform.subdir):
        return
    # Not imported where there are no such packages.
    from ociforge.needs import Wanted, needs
    from ociforge.pypi.native import compiled

    wanted = Wanted(settings=settings, environment=environment, platform=platform, selection=selection)
    found = needs([wanted], root=root)
    jobs = sorted((*found.trees, *(job for job, _ in found.builds)), key=lambda job: job.name)
    known = [(job.name, compiled(job.source)) for job in jobs]
    reasons = [f"`{name}` has compiled parts for `{platform}`: {why}" for name, why in known if why is not None]
    if reasons:
        raise PackageError.collect(
            reasons,
            f"lock a wheel of it or take it from a conda channel, or build on a machine of `{platform}`",
        )
