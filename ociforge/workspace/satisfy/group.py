"""What environments that are solved together must agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ociforge.workspace.environment import environment_platforms, group_members
from ociforge.workspace.satisfy.conda_walk import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ociforge.workspace.feature import EnvironmentDeclaration
    from ociforge.workspace.satisfy.context import Context
    from ociforge.workspace.satisfy.platform import Outcome

__all__ = ["check_groups"]


def check_groups(context: Context, outcomes: Sequence[Outcome]) -> None:
    """Report what no environment alone can tell; `outcomes` are of the walks that found nothing amiss."""
    for declaration in context.manifest.environments.values():
        members = group_members(context.manifest, declaration)
        if members[0] is declaration:
            names = [member.name for member in members]
            _should_be_pypi(context, names, [o for o in outcomes if o.environment.name in names])
            if len(members) > 1:
                _same_packages(context, declaration, names)


def _should_be_pypi(context: Context, members: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """A conda package that only PyPI requirements lead to: its conda spec is gone, a new solve would take PyPI's."""
    for platform in dict.fromkeys(outcome.environment.platform.name for outcome in outcomes):
        here = [outcome for outcome in outcomes if outcome.environment.platform.name == platform]
        if len(here) < _expected_count(context, members, platform):
            continue  # another environment has reasons of its own, which may well be the cause
        expected = frozenset[str]().union(*(outcome.expected for outcome in here))
        for outcome in here:
            superfluous = sorted(outcome.used - expected)
            if superfluous:
                message = f"only PyPI packages ask for the conda packages {listed(superfluous)}"
                context.report.at(outcome.environment, "CondaPackageShouldBePypi", message, package=superfluous[0])


def _expected_count(context: Context, members: Sequence[str], platform: str) -> int:
    """How many environments of a group support a platform."""
    declarations = [context.manifest.environments[name] for name in members]
    supported = [environment_platforms(context.manifest, declaration) for declaration in declarations]
    return sum(any(known.name == platform for known in platforms) for platforms in supported)


def _same_packages(context: Context, declaration: EnvironmentDeclaration, members: Sequence[str]) -> None:
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for environment in members:
        for key, location in _locations(context, environment):
            other, known = seen.setdefault(key, (environment, location))
            if known != location:
                message = (
                    f"the solve group `{declaration.solve_group}` has two versions of `{key[1]}`:"
                    f" `{_file(known)}` in `{other}`, `{_file(location)}` here"
                )
                where = context.key(f"environments.{environment}.solve-group")
                package = key[1].partition(" ")[0]
                context.report.against("SolveGroupMismatch", message, environment, key[0], package=package, where=where)


def _locations(context: Context, environment: str) -> Iterator[tuple[tuple[str, str], str]]:
    locked = context.lock.environments.get(environment)
    for row in locked.platforms if locked is not None else ():
        rows = context.rows(environment, row)
        yield from (((row.name, package.name), package.location) for package in rows.conda)
        yield from (((row.name, f"{package.name} (PyPI)"), package.location) for package in rows.pypi)


def _file(location: str) -> str:
    return location.rpartition("/")[2]
