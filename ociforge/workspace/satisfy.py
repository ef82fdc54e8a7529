"""Does the lock satisfy the manifest? The check behind `--locked`: the whole workspace, every reason.

It follows the order of pixi 0.77 (crates/pixi_core/src/lock_file/satisfiability), but goes on after the first
mismatch. What cannot be decided here is reported by name and never taken for a yes.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from ociforge.errors import WorkspaceError
from ociforge.workspace.cutoff import parse_cutoff
from ociforge.workspace.environment import channel_url, environment_platforms, group_members, resolve
from ociforge.workspace.matching import LockedConda, record_of
from ociforge.workspace.platforms import WorkspacePlatform
from ociforge.workspace.verdict import Reason, Report, Verdict
from ociforge.workspace.walk import CondaWalk, all_specs, listed, parse_asked, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from ociforge.workspace.environment import Environment
    from ociforge.workspace.lockfile import Lock, LockedEnvironment, Rows
    from ociforge.workspace.manifest import Manifest

__all__ = ["Reason", "Verdict", "check"]

_STRATEGIES: Final = {"lowest": "lowest-version", "lowest-direct": "lowest-version-direct"}  # as the lock names them


def check(manifest: Manifest, lock: Lock, *, now: datetime) -> Verdict:
    """Compare a lock with its manifest; `now` (with a time zone) is what durations of `exclude-newer` count from.

    Raises LockError when the lock is damaged, WorkspaceError when the manifest contradicts itself.
    """
    checker = _Checker(manifest, lock, now)
    checker.workspace()
    return checker.report.verdict()


class _Checker:
    def __init__(self, manifest: Manifest, lock: Lock, now: datetime) -> None:
        self.manifest = manifest
        self.lock = lock
        self.now = now
        self.report = Report()

    def workspace(self) -> None:
        """Every environment, then what solve groups and the set of environments say."""
        if self.manifest.has_package:
            self.report.open(None, "SourcePackage", "`[package]` needs pixi-build", None, "package")
        for name in self.lock.environments:
            if name not in self.manifest.environments:
                message = f"the environment `{name}` is in `{self.lock.path.name}` but not in the manifest"
                self.report.against("EnvironmentRemoved", message, name)
        for name in self.manifest.environments:
            self._environment(name)
        self._solve_groups()

    # --- one environment

    def _environment(self, name: str) -> None:
        locked = self.lock.environments.get(name)
        if locked is None:
            message = f"the environment is not in `{self.lock.path.name}`"
            self.report.against("EnvironmentMissing", message, name)
            return
        platforms = environment_platforms(self.manifest, self.manifest.environments[name])
        resolved = [resolve(self.manifest, name, platform.name) for platform in platforms]
        if resolved:
            self._channels(resolved[0], locked)
        self._locked_platforms(name, platforms, locked)
        if resolved:
            self._options(resolved[0], locked)
        for environment in resolved:
            self._platform(environment, locked)

    def _channels(self, environment: Environment, locked: LockedEnvironment) -> None:
        wanted = list(environment.group_channels)
        found = [channel_url(channel, self.manifest.root) for channel in locked.channels]
        if wanted == found:
            return
        extended = wanted[: len(found)] == found
        self.report.against(
            "ChannelsExtended" if extended else "ChannelsMismatch",
            f"the channels are {listed(wanted)} in the manifest, {listed(found)} in the lock",
            environment.name,
            where="workspace.channels",
        )

    def _locked_platforms(self, name: str, platforms: tuple[WorkspacePlatform, ...], locked: LockedEnvironment) -> None:
        names, subdirs = {p.name: p for p in platforms}, {p.subdir for p in platforms}
        for row in locked.platforms:
            if row.name not in names and row.subdir not in subdirs:
                message = f"the lock has the platform `{row.name}`, which the environment does not support"
                self.report.against(
                    "AdditionalPlatformsInLockFile", message, name, row.name, where="workspace.platforms"
                )
            wanted = names.get(row.name)
            if wanted is not None and (row.subdir != wanted.subdir or _customised(row) != _customised(wanted)):
                message = f"the platform is {_promises(wanted)} in the manifest, {_promises(row)} in the lock"
                self.report.against("PlatformDefinitionChanged", message, name, row.name, where="workspace.platforms")

    def _options(self, environment: Environment, locked: LockedEnvironment) -> None:
        strategy = _STRATEGIES.get(environment.solve_strategy, environment.solve_strategy)
        prerelease = environment.group_pypi_options.prerelease_mode or "if-necessary-or-explicit"
        for kind, key, wanted, found in (
            ("SolveStrategyMismatch", "solve-strategy", strategy, locked.strategy),
            ("ChannelPriorityMismatch", "channel-priority", environment.channel_priority, locked.channel_priority),
            ("PypiPrereleaseModeMismatch", "pypi-options.prerelease-mode", prerelease, locked.prerelease_mode),
        ):
            if wanted != found:
                message = f"`{key}` is `{wanted}` in the manifest, `{found}` in the lock"
                self.report.against(kind, message, environment.name, where=f"workspace.{key}")

    # --- one environment on one platform

    def _platform(self, environment: Environment, locked: LockedEnvironment) -> None:
        row = locked.find(environment.platform)
        rows = None if row is None else self.lock.rows(environment.name, row)
        if rows is None:
            if environment.dependencies or environment.pypi_dependencies or environment.dev:
                message = "the lock has no such platform"
                self.report.against("PlatformMissing", message, environment.name, environment.platform.name)
            return
        conda = LockedConda(rows.conda, environment.platform.virtual_packages, self.manifest.root)
        self._cutoffs(environment, conda)
        for name in (*conda.duplicates, *_duplicates(row.name for row in rows.pypi)):
            self.report.at(environment, "DuplicateEntry", f"`{name}` is locked twice", package=name)
        if environment.dependencies or environment.dev:
            self._constraints(environment, conda)
        elif conda.by_name and not environment.pypi_dependencies:
            message = f"the lock has conda packages, but none is asked for: {listed(conda.by_name)}"
            self.report.at(environment, "TooManyCondaPackages", message)
            return
        if self._is_open(environment, rows):
            return
        walk = CondaWalk(self.report, environment, conda)
        walk.run()
        walk.finish()

    def _is_open(self, environment: Environment, rows: Rows) -> bool:
        """Note what keeps the walk over the packages from a verdict."""
        before = len(self.report.undecided)
        for spec in all_specs(environment.dependencies):
            if spec.is_source:
                self.report.open(
                    environment,
                    "SourcePackage",
                    f"`{spec.name}` is a source package: needs pixi-build",
                    spec.name,
                    spec.where,
                )
        for spec in all_specs(environment.dev):
            self.report.open(
                environment,
                "DevSourceMetadata",
                f"the `[dev]` dependency `{spec.name}` needs pixi-build",
                spec.name,
                spec.where,
            )
        for name in rows.sources:
            self.report.open(
                environment, "SourcePackage", f"the lock builds `{name}` from source: needs pixi-build", name
            )
        names = [*environment.pypi_dependencies, *(row.name for row in rows.pypi)]
        if names:
            message = f"PyPI packages are not checked yet: {listed(dict.fromkeys(names))}"
            self.report.open(environment, "PypiPackages", message, names[0])
        return len(self.report.undecided) > before

    def _constraints(self, environment: Environment, conda: LockedConda) -> None:
        for spec in all_specs(environment.constraints):
            if spec.is_source:
                message = f"the constraint on `{spec.name}` names a source package"
                self.report.at(
                    environment, "SourceConstraintNotSupported", message, package=spec.name, where=spec.where
                )
                continue
            package = conda.by_name.get(spec.name)
            match = parse_asked(self.report, environment, spec)
            if package is None or match is None:
                continue
            # As pixi: a constraint is held against the record alone, its channel does not count.
            if not match.matches(record_of(package)):
                message = f"`{shown(package)}` breaks the constraint `{match}`"
                self.report.at(environment, "ConstraintViolated", message, package=spec.name, where=spec.where)

    def _cutoffs(self, environment: Environment, conda: LockedConda) -> None:
        default = self.manifest.exclude_newer
        packages, channels = self.manifest.package_exclude_newer, environment.channel_cutoffs
        if default is None and not packages and not channels:
            return
        for name, package in conda.by_name.items():
            of_channel = (channels[c] for c in conda.channels_of(package) if c in channels)
            text = packages.get(name) or next(of_channel, default)
            moment = record_of(package).timestamp
            if text is not None and moment is not None and _utc(moment) > self._moment(text):
                message = f"`{shown(package)}` of {_utc(moment):%Y-%m-%d} is newer than `exclude-newer` `{text}` allows"
                self.report.at(environment, "ExcludeNewerMismatch", message, package=name, where="exclude-newer")

    def _moment(self, text: str) -> datetime:
        try:
            return parse_cutoff(text, self.now)
        except ValueError as error:
            raise WorkspaceError(f"`exclude-newer` in `{self.manifest.path.name}`: {error}") from error

    # --- solve groups

    def _solve_groups(self) -> None:
        """Environments that are solved together must agree on every package they share."""
        for declaration in self.manifest.environments.values():
            members = group_members(self.manifest, declaration)
            if declaration.solve_group is not None and members[0] is declaration:
                self._solve_group(declaration.solve_group, [member.name for member in members])

    def _solve_group(self, group: str, members: list[str]) -> None:
        seen: dict[tuple[str, str], tuple[str, str]] = {}
        for environment in members:
            for key, location in self._locations(environment):
                other, known = seen.setdefault(key, (environment, location))
                if known != location:
                    message = (
                        f"the solve group `{group}` has two versions of `{key[1]}`:"
                        f" `{_file(known)}` in `{other}`, `{_file(location)}` here"
                    )
                    self.report.against("SolveGroupMismatch", message, environment, key[0], package=key[1])

    def _locations(self, environment: str) -> Iterator[tuple[tuple[str, str], str]]:
        locked = self.lock.environments.get(environment)
        for row in locked.platforms if locked is not None else ():
            rows = self.lock.rows(environment, row)
            yield from (((row.name, package.name), package.location) for package in rows.conda)
            yield from (((row.name, f"{package.name} (PyPI)"), package.location) for package in rows.pypi)


def _file(location: str) -> str:
    return location.rpartition("/")[2]


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _duplicates(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _customised(platform: Any) -> list[str]:
    whole = WorkspacePlatform(
        name=platform.name, subdir=platform.subdir, virtual_packages=tuple(platform.virtual_packages)
    )
    return sorted(str(package.identity) for package in whole.customised)


def _promises(platform: Any) -> str:
    packages = ", ".join(str(package) for package in platform.virtual_packages) or "nothing"
    return f"`{platform.subdir}` with {packages}"
