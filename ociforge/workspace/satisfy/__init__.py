"""Does the lock satisfy the manifest? The check behind `--locked`: the whole workspace, every reason.

It follows the order of pixi 0.77 (crates/pixi_core/src/lock_file/satisfiability), but goes on after the first
mismatch. What cannot be decided here is reported by name and never taken for a yes.

    environment    what an environment must agree on as a whole
    platform       its rows on one platform: conda_walk over conda specs, pypi_walk over PyPI requirements
    group          environments that are solved together
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ociforge.workspace.environment import environment_platforms, resolve
from ociforge.workspace.satisfy.context import Context
from ociforge.workspace.satisfy.environment import check_environment
from ociforge.workspace.satisfy.group import check_groups
from ociforge.workspace.satisfy.platform import Outcome, check_platform
from ociforge.workspace.satisfy.verdict import Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from ociforge.workspace.lockfile import Lock
    from ociforge.workspace.manifest import Manifest

__all__ = ["Reason", "Verdict", "check"]


def check(manifest: Manifest, lock: Lock, *, now: datetime) -> Verdict:
    """Compare a lock with its manifest; `now` (with a time zone) is what durations of `exclude-newer` count from.

    Reads the metadata of path packages, too. Raises LockError when the lock is damaged, WorkspaceError when the
    manifest contradicts itself.
    """
    context = Context(manifest=manifest, lock=lock, now=now)
    if manifest.has_package:
        context.report.open(None, "SourcePackage", "`[package]` needs pixi-build", None, context.key("package"))
    for name in lock.environments:
        if name not in manifest.environments:
            message = f"the environment `{name}` is in `{lock.path.name}` but not in the manifest"
            context.report.against("EnvironmentRemoved", message, name, where=context.key("environments"))
    outcomes = [outcome for name in manifest.environments for outcome in _environment(context, name)]
    check_groups(context, outcomes)
    return context.report.verdict(lasting=not context.beside)


def _environment(context: Context, name: str) -> Iterator[Outcome]:
    """Report everything against an environment; yields the platforms on which there was nothing."""
    locked = context.lock.environments.get(name)
    if locked is None:
        message = f"the environment is not in `{context.lock.path.name}`"
        where = context.key(f"environments.{name}")
        context.report.against("EnvironmentMissing", message, name, where=where)
        return
    platforms = environment_platforms(context.manifest, context.manifest.environments[name])
    resolved = [resolve(context.manifest, name, platform.name) for platform in platforms]
    check_environment(context, resolved, locked)
    has_pypi = any(environment.pypi_dependencies for environment in resolved)
    for environment in resolved:
        outcome = check_platform(context, environment, locked, has_pypi=has_pypi)
        if outcome is not None:
            yield outcome
