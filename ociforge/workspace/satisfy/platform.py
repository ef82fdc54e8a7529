"""Whether the lock holds what one environment asks for on one platform: rows, constraints, and the walk over them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.workspace.satisfy.conda_walk import CondaWalk, all_specs, listed, parse_asked, shown
from ociforge.workspace.satisfy.markers import Markers, marker_environment
from ociforge.workspace.satisfy.matching import LockedConda, record_of
from ociforge.workspace.satisfy.pypi_walk import PypiWalk

if TYPE_CHECKING:
    from ociforge.workspace.environment import Environment
    from ociforge.workspace.lockfile import LockedEnvironment, Rows
    from ociforge.workspace.satisfy.context import Context

__all__ = ["Outcome", "check_platform"]


class Outcome(Struct, frozen=True, kw_only=True):
    """What solve groups need to know of a walk that found nothing amiss.

    `expected` are the conda packages that conda specs have asked for, `used` those that PyPI requirements have.
    """

    environment: Environment
    expected: frozenset[str]
    used: frozenset[str]


def check_platform(
    context: Context, environment: Environment, locked: LockedEnvironment, *, has_pypi: bool
) -> Outcome | None:
    """Report everything against the lock; `has_pypi` says that the environment has PyPI requirements somewhere."""
    row = locked.find(environment.platform)
    if row is None:
        if environment.dependencies or environment.pypi_dependencies or environment.dev:
            message = "the lock has no such platform"
            where = context.key("workspace.platforms")
            context.report.against("PlatformMissing", message, environment.name, environment.platform.name, where=where)
        return None
    rows, before = context.rows(environment.name, row), len(context.report)
    conda = LockedConda(rows.conda, environment.platform.virtual_packages, context.manifest.root, rows.sources)
    _check_rows(context, environment, rows, conda)
    _constraints(context, environment, conda)
    is_open = _note_open(context, environment, rows)
    walk = CondaWalk(context.report, environment, conda)
    walk.run()
    pypi = _walk_pypi(context, environment, locked, rows, walk, has_pypi=has_pypi)
    asks = bool(environment.dependencies or environment.dev)
    if asks and not is_open and not (pypi is not None and pypi.broken):
        walk.finish()
    if len(context.report) > before:
        return None
    return Outcome(
        environment=environment, expected=frozenset(walk.expected), used=frozenset(() if pypi is None else pypi.used)
    )


def _check_rows(context: Context, environment: Environment, rows: Rows, conda: LockedConda) -> None:
    twice = [name for name, count in Counter(row.name for row in rows.pypi).items() if count > 1]
    for name in (*conda.duplicates, *twice):
        context.report.at(environment, "DuplicateEntry", f"`{name}` is locked twice", package=name)
    if conda.by_name and not environment.dependencies and not environment.dev:
        message = f"the lock has conda packages, but none is asked for: {listed(conda.by_name)}"
        context.report.at(environment, "TooManyCondaPackages", message, package=next(iter(conda.by_name)))


def _constraints(context: Context, environment: Environment, conda: LockedConda) -> None:
    for spec in all_specs(environment.constraints):
        if spec.is_source:
            message = f"the constraint on `{spec.name}` names a source package"
            context.report.at(environment, "SourceConstraintNotSupported", message, package=spec.name, where=spec.where)
            continue
        package = conda.by_name.get(spec.name)
        match = parse_asked(context.report, environment, spec)
        if package is None or match is None:
            continue
        # As pixi: a constraint is held against the record alone, its channel does not count.
        if not match.matches(record_of(package)):
            message = f"`{shown(package)}` breaks the constraint `{match}`"
            context.report.at(environment, "ConstraintViolated", message, package=spec.name, where=spec.where)


def _note_open(context: Context, environment: Environment, rows: Rows) -> bool:
    """Note what only pixi-build could tell; the rest is checked all the same."""
    report, before = context.report, len(context.report.undecided)
    for spec in all_specs(environment.dependencies):
        if spec.is_source:
            message = f"`{spec.name}` is a source package: needs pixi-build"
            report.open(environment, "SourcePackage", message, spec.name, spec.where)
    for spec in all_specs(environment.dev):
        message = f"the `[dev]` dependency `{spec.name}` needs pixi-build"
        report.open(environment, "DevSourceMetadata", message, spec.name, spec.where)
    for name in rows.sources:
        message = f"the lock builds `{name}` from source: needs pixi-build"
        report.open(environment, "SourcePackage", message, name)
    return len(report.undecided) > before


def _walk_pypi(
    context: Context,
    environment: Environment,
    locked: LockedEnvironment,
    rows: Rows,
    conda: CondaWalk,
    *,
    has_pypi: bool,
) -> PypiWalk | None:
    """Walk, if there is anything to walk over and all that it takes to decide; else `conda` counts as broken."""
    if has_pypi and not rows.pypi and context.purls.missing(conda.conda):
        message = "no conda package of the lock says which PyPI package it provides"
        context.report.at(environment, "MissingPurls", message)
        conda.broken = True
        return None
    if not environment.pypi_dependencies and not rows.pypi:
        return None
    markers = _markers(context, environment, conda.conda)
    if markers is None:
        conda.broken = True
        return None
    walk = PypiWalk(context, environment, conda, rows.pypi, locked, markers)
    walk.run()
    walk.finish()
    return walk


def _markers(context: Context, environment: Environment, conda: LockedConda) -> Markers | None:
    python = conda.by_name.get("python")
    if python is None:
        kind, message = "MissingPythonInterpreter", "there are PyPI packages, but the lock has no python"
        if "python" not in conda.sources:
            context.report.at(environment, kind, message, package="python")
        return None
    try:
        return Markers(marker_environment(environment.platform.subdir, str(record_of(python).version)))
    except ValueError as error:
        context.report.at(environment, "FailedToDetermineMarkerEnvironment", str(error), package="python")
        return None
