"""The composition of `ociforge lock`: a workspace -> what all its environments hold on all their platforms.

`lock` only computes: nothing is written but caches. What was locked before is kept where the manifest still allows it.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from ociforge.conda.solve import solve
from ociforge.errors import BuildError, LockError, SolveError
from ociforge.events import StageStarted, Warned, ignore
from ociforge.network import ONLINE
from ociforge.platform import Platform
from ociforge.pypi.resolve import Resolver
from ociforge.questions import conda_request, locked_row, pypi_request, static_description
from ociforge.workspace.environment import environment_platforms
from ociforge.workspace.lockfile import read, select
from ociforge.workspace.lockwriter import CondaRow, Contents, SolvedEnvironment, lock_text, write_lock
from ociforge.workspace.purls import purls_of, stated_purls
from ociforge.workspace.satisfy import check
from ociforge.workspace.satisfy.matching import record_of
from ociforge.workspace.subset import Draft
from ociforge.workspace.units import Moments, places, refuse_sources, units

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from layers.compress import OrderedMap
    from ociforge.conda.solve import Record, SolveRequest
    from ociforge.events import Notify
    from ociforge.network import Network
    from ociforge.pypi.fetch import Access, Fetcher
    from ociforge.workspace import Environment, Workspace
    from ociforge.workspace.lockfile import Lock, PypiRow, Selection
    from ociforge.workspace.platforms import WorkspacePlatform
    from ociforge.workspace.units import Unit

__all__ = ["Change", "LockRequest", "LockResult", "Tally", "bases", "lock"]


class LockRequest(Struct, frozen=True, kw_only=True):
    """`previous` is what was locked before; its packages are kept where they fit, unless `upgrade` is set.

    `now` has a time zone. `cache` is a directory for the indexes of channels; `retries` how often a request to one is
    repeated. `fetcher` and `access` bring what PyPI packages say of themselves, read through `map_`; `environ` is that
    of uv and git. `network` says where channels may be had.
    """

    workspace: Workspace
    previous: Lock | None
    now: datetime
    cache: Path
    fetcher: Fetcher
    access: Access
    environ: Mapping[str, str]
    upgrade: bool = False
    map_: OrderedMap = map
    retries: int = 3
    network: Network = ONLINE


class Tally(Struct, frozen=True, kw_only=True):
    """How many packages an environment has on a platform."""

    environment: str
    platform: str
    conda: int
    pypi: int


class Change(Struct, frozen=True, kw_only=True):
    """A package that is another one than before; None is "not there". `before` and `after` are version and build."""

    environment: str
    platform: str
    kind: Literal["conda", "pypi"]
    name: str
    before: str | None
    after: str | None


class LockResult(Struct, frozen=True, kw_only=True):
    """The text of `pixi.lock`, and what is in it, in the manifest's order of environments and platforms."""

    text: str
    tallies: tuple[Tally, ...]
    changes: tuple[Change, ...]


class _Solution(Struct, kw_only=True):
    """What a unit has been given; `purls` says what conda packages bring, by URL, as far as a lock of before knew."""

    unit: Unit
    records: tuple[Record, ...]
    purls: Mapping[str, tuple[str, ...]]
    pypi: tuple[PypiRow, ...] = ()

    def contents(self) -> Contents:
        """All of it; as pixi does, a lock says what conda packages bring only where PyPI is asked."""
        asks = self.unit.has_pypi
        rows = (
            CondaRow(record=record, purls=purls_of(record, self.purls) if asks else None) for record in self.records
        )
        return Contents(conda=tuple(rows), pypi=self.pypi)


def lock(request: LockRequest, *, notify: Notify = ignore) -> LockResult:
    """Solve every environment on every platform, those of a solve group together.

    Raises SolveError with everything that has no solution, WorkspaceError for what contradicts itself, PackageError for
    a PyPI package that cannot be read, LockError when the result does not fit the manifest after all.
    """
    manifest = request.workspace.manifest
    found = units(manifest)
    refuse_sources(manifest, found)
    if manifest.conda_pypi_map:
        notify(Warned("`conda-pypi-map` is not used: what a conda package brings is taken from its channel"))
    notify(StageStarted(f"solving {_counted(len(found))}"))
    answers = solve(
        [_conda_request(request, unit) for unit in found],
        cache=request.cache,
        retries=request.retries,
        network=request.network,
        notify=notify,
    )
    known = _known_purls(request, found)
    solutions = [_Solution(unit=unit, records=recs, purls=known) for unit, recs in zip(found, answers, strict=True)]
    _resolve(request, solutions, notify)
    solved = _environments(request, solutions)
    text = lock_text(solved, places=places(manifest, found))
    with _read_back(text) as made:
        _check(request, made)
        changes = tuple(_changes(found, request.previous, made))
    return LockResult(text=text, tallies=tuple(_tallies(solved)), changes=changes)


def _counted(units: int) -> str:
    return "1 environment" if units == 1 else f"{units} environments (each platform counts)"


# --- conda


def _conda_request(request: LockRequest, unit: Unit) -> SolveRequest:
    moments = Moments.of(request.workspace.manifest, unit, request.now)
    return conda_request(unit, moments, _previous(request, unit)[0].values())


def _previous(request: LockRequest, unit: Unit) -> tuple[dict[str, Record], dict[str, str]]:
    """What the unit's environments had: conda records by name, and the versions of PyPI packages."""
    records: dict[str, Record] = {}
    versions: dict[str, str] = {}
    for selection in _selections(None if request.upgrade else request.previous, unit):
        for record in selection.records:
            records.setdefault(record.name.normalized, record)
        for row in selection.pypi:
            if row.version is not None:
                versions.setdefault(row.name, row.version)
    return records, versions


def _known_purls(request: LockRequest, found: Iterable[Unit]) -> dict[str, tuple[str, ...]]:
    """What the lock of before says that conda packages bring: it may have been made by pixi, which knows more."""
    records = [
        record for unit in found for selection in _selections(request.previous, unit) for record in selection.records
    ]
    return {record.url: purls for record in records if (purls := stated_purls(record)) is not None}


def _selections(previous: Lock | None, unit: Unit) -> Iterator[Selection]:
    for member in unit.members if previous is not None else ():
        assert previous is not None
        try:
            yield select(previous, member.name, unit.platform)
        except LockError:
            continue  # it was not locked, or in a way that cannot be kept


# --- PyPI


def _resolve(request: LockRequest, solutions: Sequence[_Solution], notify: Notify) -> None:
    """Add the PyPI packages, taking as given what the conda packages bring."""
    wanting = [solution for solution in solutions if solution.unit.has_pypi]
    if not wanting:
        return
    notify(StageStarted(f"resolving the PyPI requirements of {_counted(len(wanting))}"))
    with _draft(request, solutions) as draft:
        provided = [draft.provided(solution.unit.members[0]) for solution in wanting]
    resolver = Resolver(
        fetcher=request.fetcher,
        access=request.access,
        static=static_description,
        environ=request.environ,
        map_=request.map_,
        notify=notify,
    )
    failures: list[SolveError] = []
    for solution, given in zip(wanting, provided, strict=True):
        try:
            solution.pypi = _resolved(request, resolver, solution, given)
        except SolveError as error:
            failures.append(error)
    if failures:
        hints = dict.fromkeys(error.hint for error in failures if error.hint)
        raise SolveError.collect([error.message for error in failures], "; ".join(hints) or None)


def _resolved(
    request: LockRequest, resolver: Resolver, solution: _Solution, provided: Mapping[str, str]
) -> tuple[PypiRow, ...]:
    question = pypi_request(
        solution.unit,
        Moments.of(request.workspace.manifest, solution.unit, request.now),
        solution.records,
        provided=provided,
        preferred=_previous(request, solution.unit)[1],
    )
    return tuple(locked_row(distribution) for distribution in resolver.resolve(question))


# --- environments


def _environments(request: LockRequest, solutions: Sequence[_Solution]) -> list[SolvedEnvironment]:
    """Each environment with its own part of what its unit was given."""
    if all(len(solution.unit.members) == 1 for solution in solutions):
        return _whole(request, solutions)
    parts: dict[tuple[str, str], Contents] = {}
    with _draft(request, solutions) as draft:
        for solution in solutions:
            for member in solution.unit.members:
                subset = draft.subset(member)
                parts[member.name, member.platform.name] = replace(
                    whole := solution.contents(),
                    conda=tuple(row for row in whole.conda if row.record.name.normalized in subset.conda),
                    pypi=tuple(row for row in whole.pypi if row.name in subset.pypi),
                )
    return _whole(request, solutions, parts)


def _whole(
    request: LockRequest, solutions: Sequence[_Solution], parts: Mapping[tuple[str, str], Contents] | None = None
) -> list[SolvedEnvironment]:
    """The environments in the manifest's order; where `parts` has nothing for one, it gets all that its unit has."""
    packages: dict[str, dict[WorkspacePlatform, Contents]] = {
        name: {} for name in request.workspace.manifest.environments
    }
    resolved: dict[str, Environment] = {}
    for solution in solutions:
        for member in solution.unit.members:
            part = (parts or {}).get((member.name, member.platform.name))
            packages[member.name][member.platform] = solution.contents() if part is None else part
            resolved.setdefault(member.name, member)
    wants_pypi = {m.name for s in solutions for m in s.unit.members if m.pypi_dependencies}
    return [_environment(name, resolved.get(name), packages[name], has_pypi=name in wants_pypi) for name in packages]


def _environment(
    name: str, environment: Environment | None, packages: Mapping[WorkspacePlatform, Contents], *, has_pypi: bool
) -> SolvedEnvironment:
    if environment is None:  # it supports no platform of the workspace
        return SolvedEnvironment(name=name, channels=())
    options = environment.group_pypi_options
    return SolvedEnvironment(
        name=name,
        channels=environment.group_channels,
        indexes=options.indexes if has_pypi else None,
        find_links=options.find_links if has_pypi else (),
        strategy=environment.solve_strategy,
        channel_priority=environment.channel_priority,
        prerelease_mode=options.prerelease_mode,
        packages=packages,
    )


@contextmanager
def _draft(request: LockRequest, solutions: Sequence[_Solution]) -> Iterator[Draft]:
    """A lock in which every environment has all that its unit was given."""
    manifest = request.workspace.manifest
    text = lock_text(_whole(request, solutions), places=places(manifest, [solution.unit for solution in solutions]))
    with _read_back(text) as made:
        yield Draft(manifest, made, request.now)


@contextmanager
def _read_back(text: str) -> Iterator[Lock]:
    with tempfile.TemporaryDirectory(prefix="ociforge-") as directory:
        path = Path(directory, "pixi.lock")
        write_lock(path, text)
        yield read(path)


# --- the result


def _check(request: LockRequest, made: Lock) -> None:
    """What the solvers take for a solution and the check does not must not get into a lock."""
    verdict = check(request.workspace.manifest, made, now=request.now)
    if verdict.reasons:
        raise LockError.collect(
            [f"what was solved does not fit the manifest: {reason}" for reason in verdict.reasons],
            "change the requirements; if they are right, this is a bug in ociforge: please report it",
        )


def _tallies(solved: Iterable[SolvedEnvironment]) -> Iterator[Tally]:
    for environment in solved:
        for platform, contents in environment.packages.items():
            yield Tally(
                environment=environment.name,
                platform=platform.name,
                conda=len(contents.conda),
                pypi=len(contents.pypi),
            )


def _changes(found: Iterable[Unit], previous: Lock | None, made: Lock) -> Iterator[Change]:
    for member in (member for unit in found for member in unit.members):
        before, after = (_versions(lock, member) for lock in (previous, made))
        for kind, name in sorted(before.keys() | after.keys()):
            old, new = before.get((kind, name)), after.get((kind, name))
            if old != new:
                yield Change(
                    environment=member.name, platform=member.platform.name, kind=kind, name=name, before=old, after=new
                )


def _versions(lock: Lock | None, member: Environment) -> dict[tuple[Literal["conda", "pypi"], str], str]:
    """(kind, name) -> version and build."""
    environment = None if lock is None else lock.environments.get(member.name)
    row = None if environment is None else environment.find(member.platform)
    if lock is None or row is None:
        return {}
    rows = lock.rows(member.name, row)
    found: dict[tuple[Literal["conda", "pypi"], str], str] = {}
    for package in rows.conda:
        found["conda", package.name] = f"{package.version} {record_of(package).build}"
    for locked in rows.pypi:
        found["pypi", locked.name] = locked.version or locked.location
    return found


# --- base images


def bases(workspace: Workspace) -> tuple[tuple[str, Platform], ...]:
    """The base images of the workspace's images, with every platform that these can be built for; not `scratch`."""
    manifest, settings = workspace.manifest, workspace.settings
    found: dict[tuple[str, str], Platform] = {}
    for name in settings.images or [None]:
        image = settings.image(name)
        declaration = manifest.environments[image.environment]
        for platform in _buildable(known.subdir for known in environment_platforms(manifest, declaration)):
            found[settings.image(name, platform=platform).base, str(platform)] = platform
    return tuple((base, found[base, text]) for base, text in sorted(found) if base != "scratch")


def _buildable(subdirs: Iterable[str]) -> Iterator[Platform]:
    for subdir in subdirs:
        try:
            yield Platform.from_subdir(subdir)
        except BuildError:  # macOS and Windows: no image is made there
            continue
