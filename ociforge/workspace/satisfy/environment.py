"""What a lock and a manifest must agree on for an environment as a whole: channels, platforms, options, cutoffs."""

from __future__ import annotations

import posixpath
from datetime import UTC
from typing import TYPE_CHECKING, Final

from ociforge.errors import WorkspaceError
from ociforge.url_secrets import public
from ociforge.workspace.environment import channel_url
from ociforge.workspace.platforms import WorkspacePlatform
from ociforge.workspace.satisfy.conda_walk import listed, shown
from ociforge.workspace.satisfy.matching import LockedConda, record_of
from ociforge.workspace.satisfy.pypi_places import GitPlace, LocalPlace, comparable_url, locked_place
from ociforge.workspace.satisfy.wheel_tags import fits, is_free_threaded, supported_tags

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from packaging.tags import Tag
    from rattler import PackageRecord

    from ociforge.workspace.environment import Environment
    from ociforge.workspace.lockfile import LockedEnvironment, LockedPlatform, PypiRow
    from ociforge.workspace.satisfy.context import Context

__all__ = ["check_environment"]

_STRATEGIES: Final = {"lowest": "lowest-version", "lowest-direct": "lowest-version-direct"}  # as the lock names them
_NAMES_INDEXES: Final = 5  # since this format a lock with PyPI packages says which indexes it was solved with
# What uv takes for an archive of sources.
_SDISTS: Final = (".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tar", ".tlz")


def check_environment(context: Context, resolved: Sequence[Environment], locked: LockedEnvironment) -> None:
    """Report every disagreement, in pixi's order; `resolved` is the environment on each of its platforms."""
    if resolved:
        _channels(context, resolved[0], locked)
    platforms = {environment.platform.name: environment.platform for environment in resolved}
    _locked_platforms(context, platforms, locked)
    if any(environment.pypi_dependencies for environment in resolved):
        _indexes(context, resolved[0], locked)
        for environment in resolved:
            _artifacts(context, environment, locked)
    if resolved:
        _options(context, resolved[0], locked)
    for environment in resolved:
        _cutoffs(context, environment, locked)


def _channels(context: Context, environment: Environment, locked: LockedEnvironment) -> None:
    wanted = list(environment.group_channels)
    found = [channel_url(channel, context.manifest.root) for channel in locked.channels]
    if wanted == found:
        return
    extended = wanted[: len(found)] == found
    context.report.against(
        "ChannelsExtended" if extended else "ChannelsMismatch",
        _differing("channels", wanted, found),
        environment.name,
        where=context.setting(environment, "channels"),
    )


def _differing(what: str, wanted: Sequence[str], found: Sequence[str]) -> str:
    message = f"the {what} are {listed(wanted)} in the manifest, {listed(found)} in the lock"
    hidden = [public(url) for url in wanted] == [public(url) for url in found]
    return f"{message}: what differs is a user, password or token, which is not shown" if hidden else message


def _locked_platforms(context: Context, platforms: dict[str, WorkspacePlatform], locked: LockedEnvironment) -> None:
    subdirs, where = {platform.subdir for platform in platforms.values()}, context.key("workspace.platforms")
    for row in locked.platforms:
        if row.name not in platforms and row.subdir not in subdirs:
            message = f"the lock has the platform `{row.name}`, which the environment does not support"
            context.report.against("AdditionalPlatformsInLockFile", message, locked.name, row.name, where=where)
        wanted = platforms.get(row.name)
        if wanted is not None and (row.subdir != wanted.subdir or _customised(row) != _customised(wanted)):
            message = f"the platform is {_promises(wanted)} in the manifest, {_promises(row)} in the lock"
            context.report.against("PlatformDefinitionChanged", message, locked.name, row.name, where=where)


def _customised(platform: WorkspacePlatform | LockedPlatform) -> list[str]:
    whole = WorkspacePlatform(
        name=platform.name, subdir=platform.subdir, virtual_packages=tuple(platform.virtual_packages)
    )
    return sorted(str(package.identity) for package in whole.customised)


def _promises(platform: WorkspacePlatform | LockedPlatform) -> str:
    packages = ", ".join(str(package) for package in platform.virtual_packages) or "nothing"
    return f"`{platform.subdir}` with {packages}"


# --- PyPI


def _indexes(context: Context, environment: Environment, locked: LockedEnvironment) -> None:
    options = environment.group_pypi_options
    where = context.setting(environment, "pypi-options")
    wanted = [*options.indexes, *(place for _, place in options.find_links)]
    if locked.indexes is None:
        has_rows = any(context.rows(locked.name, row).pypi for row in locked.platforms)
        if context.lock.version >= _NAMES_INDEXES and has_rows:
            message = f"the indexes are {listed(wanted)} in the manifest, the lock names none"
            context.report.against("IndexesMismatch", message, environment.name, where=where)
        return
    found = [*locked.indexes, *locked.find_links]
    if [_comparable(place) for place in wanted] != [_comparable(place) for place in found]:
        message = _differing("indexes", wanted, found)
        context.report.against("IndexesMismatch", message, environment.name, where=where)


def _comparable(place: str) -> str:
    return comparable_url(place) if "://" in place else posixpath.normpath(place)


def _artifacts(context: Context, environment: Environment, locked: LockedEnvironment) -> None:
    """Whether every PyPI row may be built, if it has to be, and fits the platform, if it is a wheel.

    `no-binary` is for the solve alone: pixi holds no row against it.
    """
    row = locked.find(environment.platform)
    if row is None:
        return
    rows = context.rows(environment.name, row)
    python = next((record_of(package) for package in rows.conda if package.name == "python"), None)
    tags = None if python is None else _tags(environment, python)  # that there is none is reported elsewhere
    for package in rows.pypi:
        _no_build(context, environment, package)
        file_name = package.location.partition("#")[0].rpartition("/")[2]
        if python is not None and not fits(file_name, tags):
            where = f"Python {python.version} on {_promises(environment.platform)}"
            message = f"the wheel `{file_name}` does not fit {where}"
            context.report.at(environment, "PypiWheelTagsMismatch", message, package=package.name)


def _tags(environment: Environment, python: PackageRecord) -> frozenset[Tag] | None:
    free_threaded = is_free_threaded(python.depends)
    return supported_tags(environment.platform, str(python.version), free_threaded=free_threaded)


def _no_build(context: Context, environment: Environment, row: PypiRow) -> None:
    forbidden = environment.group_pypi_options.no_build
    if not forbidden or any(spec.editable for spec in environment.pypi_dependencies.get(row.name, ())[-1:]):
        return
    is_source = _is_source(context, row)
    where = context.setting(environment, "pypi-options.no-build")
    if is_source is None:
        kind, message = "InvalidDistExtensionInNoBuild", f"`{row.location}` is neither a wheel nor an archive"
        context.report.at(environment, kind, message, package=row.name, where=where)
    elif is_source and (forbidden is True or row.name in forbidden):
        message = f"`no-build` is set, but `{row.name}` has to be built from `{row.location}`"
        context.report.at(environment, "NoBuildWithNonBinaryPackages", message, package=row.name, where=where)


def _is_source(context: Context, row: PypiRow) -> bool | None:
    """Whether a row has to be built, or None when its name does not tell."""
    place = locked_place(row.location, context.manifest.root)
    if isinstance(place, GitPlace):
        return True
    path = place.path if isinstance(place, LocalPlace) else place.url.partition("#")[0].partition("?")[0]
    if isinstance(place, LocalPlace) and (context.manifest.root / path).is_dir():
        return True
    if path.endswith(".whl"):
        return False
    return True if path.endswith(_SDISTS) else None


# --- solver


def _options(context: Context, environment: Environment, locked: LockedEnvironment) -> None:
    strategy = _STRATEGIES.get(environment.solve_strategy, environment.solve_strategy)
    prerelease = environment.group_pypi_options.prerelease_mode or "if-necessary-or-explicit"
    for kind, key, wanted, found in (
        ("SolveStrategyMismatch", "solve-strategy", strategy, locked.strategy),
        ("ChannelPriorityMismatch", "channel-priority", environment.channel_priority, locked.channel_priority),
        ("PypiPrereleaseModeMismatch", "pypi-options.prerelease-mode", prerelease, locked.prerelease_mode),
    ):
        if wanted != found:
            message = f"`{key}` is `{wanted}` in the manifest, `{found}` in the lock"
            where = context.setting(environment, key)
            context.report.against(kind, message, environment.name, where=where)


def _cutoffs(context: Context, environment: Environment, locked: LockedEnvironment) -> None:
    manifest, row = context.manifest, locked.find(environment.platform)
    default, packages = manifest.exclude_newer, manifest.package_exclude_newer
    channels = environment.channel_cutoffs
    if row is None or (default is None and not packages and not channels):
        return
    conda = LockedConda(context.rows(environment.name, row).conda, (), manifest.root)
    for name, package in conda.by_name.items():
        of_channel = (channels[channel] for channel in conda.channels_of(package) if channel in channels)
        text = packages.get(name) or next(of_channel, default)
        moment = record_of(package).timestamp
        if text is None or moment is None or _utc(moment) <= _moment(context, text):
            continue
        message = f"`{shown(package)}` of {_utc(moment):%Y-%m-%d} is newer than `exclude-newer` `{text}` allows"
        context.report.at(environment, "ExcludeNewerMismatch", message, package=name, where=_cutoff_key(context, name))


def _cutoff_key(context: Context, name: str) -> str:
    of_package = name in context.manifest.package_exclude_newer
    return context.key(f"exclude-newer.{name}" if of_package else "workspace.exclude-newer")


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _moment(context: Context, text: str) -> datetime:
    try:
        return context.moment(text)
    except ValueError as error:
        raise WorkspaceError(f"`exclude-newer` in `{context.manifest.path.name}`: {error}") from error
