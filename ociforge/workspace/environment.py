"""What one environment asks for on one platform: the manifest's features put together by pixi's rules."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ociforge.errors import WorkspaceError
from ociforge.workspace.platforms import WorkspacePlatform, compose
from ociforge.workspace.pypi_options import PypiOptions, combine, overlay
from ociforge.workspace.reading import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import TypeVar

    from ociforge.workspace.feature import Channel, EnvironmentDeclaration, Feature, Target, Task
    from ociforge.workspace.manifest import Manifest
    from ociforge.workspace.specs import CondaSpec, PypiSpec

    _T = TypeVar("_T")

__all__ = ["Environment", "channel_url", "environment_platforms", "group_members", "resolve"]

_CHANNEL_ALIAS: Final = "https://conda.anaconda.org"


class Environment(Struct, frozen=True, kw_only=True):
    """One environment on one platform. Mappings are in the order in which pixi would meet their keys.

    `channels` are base URLs ending in `/`. `group_channels` and `group_pypi_options` are those of all
    environments that are solved together, which the lock records; without a solve group they are the own ones.
    """

    name: str
    workspace_name: str
    workspace_version: str | None
    platform: WorkspacePlatform
    platforms: tuple[WorkspacePlatform, ...]
    features: tuple[str, ...]
    solve_group: str | None
    channels: tuple[str, ...]
    channel_cutoffs: Mapping[str, str]
    group_channels: tuple[str, ...]
    channel_priority: str
    solve_strategy: str
    dependencies: Mapping[str, tuple[CondaSpec, ...]]
    constraints: Mapping[str, tuple[CondaSpec, ...]]
    dev: Mapping[str, tuple[CondaSpec, ...]]
    pypi_dependencies: Mapping[str, tuple[PypiSpec, ...]]
    pypi_options: PypiOptions
    group_pypi_options: PypiOptions
    activation_scripts: tuple[str, ...]
    activation_env: Mapping[str, str]
    tasks: Mapping[str, Task]

    @property
    def display_name(self) -> str:
        """What pixi calls it in CONDA_DEFAULT_ENV: `workspace:environment`, or the workspace for `default`."""
        return self.workspace_name if self.name == "default" else f"{self.workspace_name}:{self.name}"


def resolve(manifest: Manifest, name: str, platform: str) -> Environment:
    """The environment on a platform, given by its name or by a subdir such as `linux-64`.

    Of several platforms of one subdir the first in the manifest's order is meant. Raises WorkspaceError when
    there is no such environment, or it does not support the platform.
    """
    declaration = _declaration(manifest, name)
    platforms = environment_platforms(manifest, declaration)
    chosen = _choose(platforms, declaration, platform)
    features = _features(manifest, declaration)
    here = [feature for feature in features if _supports(manifest, feature, chosen)]
    group = _group_features(manifest, declaration)
    channels = _channels(manifest, features)
    return Environment(
        name=name,
        workspace_name=manifest.name,
        workspace_version=manifest.version,
        platform=chosen,
        platforms=platforms,
        features=tuple(feature.name for feature in features),
        solve_group=declaration.solve_group,
        channels=tuple(channels),
        channel_cutoffs={url: c.exclude_newer for url, c in channels.items() if c.exclude_newer is not None},
        group_channels=tuple(_channels(manifest, group)),
        channel_priority=_channel_priority(name, features),
        solve_strategy=next((f.solve_strategy for f in features if f.solve_strategy is not None), "highest"),
        dependencies=_gather(_overlaid([t.dependencies for t in _targets(f, chosen)]) for f in here),
        constraints=_gather(_overlaid([t.constraints for t in _targets(f, chosen)]) for f in here),
        dev=_gather(_overlaid([t.dev for t in _targets(f, chosen)]) for f in here),
        pypi_dependencies=_gather_pypi(_overlaid([t.pypi_dependencies for t in _targets(f, chosen)]) for f in here),
        pypi_options=_pypi_options(manifest, name, features),
        group_pypi_options=_pypi_options(manifest, name, group),
        activation_scripts=tuple(script for feature in here for script in _scripts(feature, chosen)),
        activation_env=_first_wins(t.activation.env for f in here for t in reversed(_targets(f, chosen))),
        tasks=_first_wins(t.tasks for f in here for t in reversed(_targets(f, chosen))),
    )


def _declaration(manifest: Manifest, name: str) -> EnvironmentDeclaration:
    declaration = manifest.environments.get(name)
    if declaration is None:
        listed = ", ".join(f"`{known}`" for known in manifest.environments)
        raise WorkspaceError(
            f"`{manifest.path.name}` has no environment `{name}`: found {listed}",
            f"pass one of them with `--environment`{suggestion(name, manifest.environments)}",
        )
    return declaration


def _choose(
    platforms: Sequence[WorkspacePlatform], declaration: EnvironmentDeclaration, wanted: str
) -> WorkspacePlatform:
    named = [platform for platform in platforms if platform.name == wanted]
    chosen = next(iter([*named, *(platform for platform in platforms if platform.subdir == wanted)]), None)
    if chosen is None:
        listed = ", ".join(f"`{platform.name}`" for platform in platforms) or "none"
        raise WorkspaceError(
            f"the environment `{declaration.name}` does not support the platform `{wanted}`: it has {listed}",
            f"add `{wanted}` to `workspace.platforms`, and run `ociforge lock`",
        )
    return chosen


# --- features


def _features(manifest: Manifest, declaration: EnvironmentDeclaration) -> tuple[Feature, ...]:
    """The inline feature, the listed ones, the default one last."""
    found = [] if declaration.inline is None else [declaration.inline]
    found += [manifest.features[name] for name in declaration.features]
    if not declaration.no_default_feature and "default" not in declaration.features:
        found.append(manifest.features["default"])
    return tuple(found)


def group_members(manifest: Manifest, declaration: EnvironmentDeclaration) -> tuple[EnvironmentDeclaration, ...]:
    """The environments that are solved together with this one, itself among them."""
    if declaration.solve_group is None:
        return (declaration,)
    return tuple(e for e in manifest.environments.values() if e.solve_group == declaration.solve_group)


def _group_features(manifest: Manifest, declaration: EnvironmentDeclaration) -> tuple[Feature, ...]:
    found: dict[str, Feature] = {}
    for member in group_members(manifest, declaration):
        for feature in _features(manifest, member):
            found.setdefault(feature.name, feature)
    return tuple(found.values())


# --- platforms


def environment_platforms(manifest: Manifest, declaration: EnvironmentDeclaration) -> tuple[WorkspacePlatform, ...]:
    """The platforms of an environment, in the manifest's order."""
    features = _features(manifest, declaration)
    if manifest.composes:
        return tuple(_composed(manifest, features))
    exact = {name for feature in features for name in feature.platforms or () if name in manifest.platforms}
    pinned = {manifest.platforms[name].subdir for name in exact}
    return tuple(
        platform
        for platform in manifest.platforms.values()
        if all(_supports(manifest, feature, platform) for feature in features)
        and (platform.name in exact or platform.subdir not in pinned)
    )


def _composed(manifest: Manifest, features: Iterable[Feature]) -> Iterator[WorkspacePlatform]:
    known = list(features)
    requirements = [f.system_requirements for f in known if f.system_requirements is not None]
    for platform in manifest.platforms.values():
        if all(_supports(manifest, feature, platform) for feature in known):
            yield compose(platform.subdir, requirements)


def _supports(manifest: Manifest, feature: Feature, platform: WorkspacePlatform) -> bool:
    """A feature without `platforms` is for all of them; composed platforms count by subdir."""
    if feature.platforms is None:
        return True
    if manifest.composes:
        return platform.subdir in feature.platforms
    return any(platform.named_by(name) for name in feature.platforms)


# --- targets


def _targets(feature: Feature, platform: WorkspacePlatform) -> list[Target]:
    """The targets that apply, least specific first: the plain one, then the manifest's order."""
    return [t for t in feature.targets if t.selector is None or platform.selected_by(t.selector)]


def _overlaid(tables: Iterable[Mapping[str, _T]]) -> dict[str, _T]:
    """Later tables override earlier ones, name by name."""
    return {name: value for table in tables for name, value in table.items()}


def _gather(tables: Iterable[Mapping[str, CondaSpec]]) -> dict[str, tuple[CondaSpec, ...]]:
    """Between features nothing is overridden: all specs of a name must hold together."""
    found: dict[str, tuple[CondaSpec, ...]] = {}
    for table in tables:
        for name, spec in table.items():
            found[name] = (*found.get(name, ()), spec)
    return found


def _gather_pypi(tables: Iterable[Mapping[str, tuple[PypiSpec, ...]]]) -> dict[str, tuple[PypiSpec, ...]]:
    found: dict[str, tuple[PypiSpec, ...]] = {}
    for table in tables:
        for name, specs in table.items():
            found[name] = (*found.get(name, ()), *specs)
    return found


def _first_wins(tables: Iterable[Mapping[str, _T]]) -> dict[str, _T]:
    found: dict[str, _T] = {}
    for table in tables:
        for name, value in table.items():
            found.setdefault(name, value)
    return found


def _scripts(feature: Feature, platform: WorkspacePlatform) -> tuple[str, ...]:
    """Of one feature only the last matching target that has `scripts` at all."""
    found = [t.activation.scripts for t in _targets(feature, platform) if t.activation.scripts is not None]
    return found[-1] if found else ()


# --- channels and options


def _channels(manifest: Manifest, features: Iterable[Feature]) -> dict[str, Channel]:
    """Base URL -> channel: concatenated, sorted by priority without changing the order of equals, first one kept."""
    listed = [c for f in features for c in (manifest.channels if f.channels is None else f.channels)]
    found: dict[str, Channel] = {}
    for channel in sorted(listed, key=lambda channel: -channel.priority):
        found.setdefault(channel_url(channel.name, manifest.root), channel)
    return found


def channel_url(channel: str, root: Path) -> str:
    """The base URL of a channel given by name, URL or path (relative to the workspace's `root`), ending in `/`."""
    if "://" in channel:
        return channel.rstrip("/") + "/"
    if channel.startswith(("./", "../", "/", "~")) or channel in (".", ".."):
        place = posixpath.normpath(posixpath.join(root.absolute().as_posix(), channel))
        return f"file://{place}/".replace(" ", "%20")
    return f"{_CHANNEL_ALIAS}/{channel.strip('/')}/"


def _channel_priority(name: str, features: Iterable[Feature]) -> str:
    found = {f.name: f.channel_priority for f in features if f.channel_priority is not None}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"`{feature}` wants `{priority}`" for feature, priority in found.items())
        raise WorkspaceError(
            f"the features of environment `{name}` disagree on `channel-priority`: {listed}",
            "set the same value in all of them",
        )
    return next(iter(found.values()), "strict")


def _pypi_options(manifest: Manifest, name: str, features: Iterable[Feature]) -> PypiOptions:
    options = [feature.pypi_options for feature in features if feature.pypi_options is not None]
    return overlay(manifest.pypi_options, combine(options, f"environment `{name}`"))
