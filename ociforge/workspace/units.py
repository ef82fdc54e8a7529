"""What is solved together: one environment, or those of a solve group, on one platform, in the solver's words."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from ociforge.errors import SolveError, WorkspaceError
from ociforge.workspace.cutoff import parse_cutoff
from ociforge.workspace.environment import channel_url, environment_platforms, resolve
from ociforge.workspace.satisfy.matching import spec_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path
    from typing import Self

    from ociforge.workspace.environment import Environment
    from ociforge.workspace.manifest import Manifest
    from ociforge.workspace.platforms import WorkspacePlatform
    from ociforge.workspace.pypi_options import PypiOptions
    from ociforge.workspace.specs import CondaSpec, Condition, PypiSpec

__all__ = ["Moments", "Unit", "places", "refuse_sources", "units"]

_ARCHIVES: Final = (".tar.bz2", ".conda")


class Unit(Struct, frozen=True, kw_only=True):
    """Environments that are solved together on a platform; `members` has at least one."""

    root: Path
    members: tuple[Environment, ...]

    @property
    def what(self) -> str:
        """How messages name it."""
        first, platform = self.members[0], f"on `{self.platform.name}`"
        if len(self.members) == 1:
            return f"environment `{first.name}` {platform}"
        listed = ", ".join(f"`{member.name}`" for member in self.members)
        return f"solve group `{first.solve_group}` ({listed}) {platform}"

    @property
    def platform(self) -> WorkspacePlatform:
        """The platform of all members."""
        return self.members[0].platform

    @property
    def channels(self) -> tuple[str, ...]:
        """Base URLs, those of all members together."""
        return self.members[0].group_channels

    @property
    def channel_priority(self) -> str:
        """One for all members; raises WorkspaceError when they disagree."""
        found = {member.name: member.channel_priority for member in self.members}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"`{name}` wants `{priority}`" for name, priority in found.items())
            raise WorkspaceError(
                f"{self.what} disagrees on `channel-priority`: {listed}",
                "set the same value in all of its environments",
            )
        return self.members[0].channel_priority

    @property
    def solve_strategy(self) -> str:
        """That of the first member, as the first feature that sets one counts."""
        return self.members[0].solve_strategy

    @property
    def pypi_options(self) -> PypiOptions:
        """Those of all members together."""
        return self.members[0].group_pypi_options

    @property
    def has_pypi(self) -> bool:
        """Whether there are PyPI requirements, on this platform at least."""
        return any(member.pypi_dependencies for member in self.members)

    def specs(self) -> tuple[str, ...]:
        """All conda specs as match specs, each once; raises SolveError for one that cannot be written as such."""
        return self._texts(member.dependencies for member in self.members)

    def constraints(self) -> tuple[str, ...]:
        """All constraints, likewise."""
        return self._texts(member.constraints for member in self.members)

    def pypi_requirements(self) -> tuple[PypiSpec, ...]:
        """All PyPI requirements, each once, wherever they stand in the manifest."""
        found: dict[PypiSpec, PypiSpec] = {}
        for member in self.members:
            for spec in (spec for same in member.pypi_dependencies.values() for spec in same):
                found.setdefault(replace(spec, where="", editable=None), spec)
        return tuple(found.values())

    def _texts(self, tables: Iterable[Mapping[str, tuple[CondaSpec, ...]]]) -> tuple[str, ...]:
        specs = [spec for table in tables for same in table.values() for spec in same]
        return tuple(dict.fromkeys(self._text(spec) for spec in specs))

    def _text(self, spec: CondaSpec) -> str:
        try:
            return _solver_text(spec, self.root)
        except ValueError as error:
            raise SolveError(f"{self.what}: `{spec.where}`: {error}") from error


def units(manifest: Manifest) -> tuple[Unit, ...]:
    """Everything that is to be solved, in the manifest's order."""
    found: dict[tuple[bool, str, str], list[Environment]] = {}
    for name, declaration in manifest.environments.items():
        group = declaration.solve_group
        for platform in environment_platforms(manifest, declaration):
            key = (group is not None, group or name, platform.name)
            found.setdefault(key, []).append(resolve(manifest, name, platform.name))
    return tuple(Unit(root=manifest.root, members=tuple(members)) for members in found.values())


def refuse_sources(manifest: Manifest, found: Iterable[Unit]) -> None:
    """Raise one SolveError that names everything that only pixi-build can solve."""
    messages = ["`[package]` needs pixi-build"] if manifest.has_package else []
    for member in (member for unit in found for member in unit.members):
        for spec in (spec for same in member.dependencies.values() for spec in same if spec.is_source):
            messages.append(f"`{spec.where}` names a source package, which needs pixi-build")
        for spec in (spec for same in member.dev.values() for spec in same):
            messages.append(f"`{spec.where}` needs pixi-build")
    if messages:
        raise SolveError.collect(
            [f"`{manifest.path.name}` cannot be locked: {message}" for message in dict.fromkeys(messages)],
            "lock it with pixi, or depend on a built package in a channel",
        )


class Moments(Struct, frozen=True, kw_only=True):
    """`exclude-newer` as moments: the workspace's, by conda package, by channel URL, by PyPI package."""

    default: datetime | None
    packages: Mapping[str, datetime]
    channels: Mapping[str, datetime]
    pypi: Mapping[str, datetime]

    @classmethod
    def of(cls, manifest: Manifest, unit: Unit, now: datetime) -> Self:
        """Durations count back from `now`, which has a time zone."""
        channels = {url: text for member in unit.members for url, text in member.channel_cutoffs.items()}
        default = manifest.exclude_newer
        return cls(
            default=None if default is None else _moment(manifest, default, now),
            packages={name: _moment(manifest, text, now) for name, text in manifest.package_exclude_newer.items()},
            channels={url: _moment(manifest, text, now) for url, text in channels.items()},
            pypi={name: _moment(manifest, text, now) for name, text in manifest.pypi_exclude_newer.items()},
        )


def _moment(manifest: Manifest, text: str, now: datetime) -> datetime:
    try:
        return parse_cutoff(text, now)
    except ValueError as error:
        raise WorkspaceError(f"`exclude-newer` in `{manifest.path.name}`: {error}") from error


def places(manifest: Manifest, found: Iterable[Unit]) -> dict[str, str]:
    """`file:` URL -> what the manifest calls it, for channels and archives that it names relative to itself."""
    features = [
        *manifest.features.values(),
        *(e.inline for e in manifest.environments.values() if e.inline is not None),
    ]
    channels = [*manifest.channels, *(channel for feature in features for channel in feature.channels or ())]
    relative = {c.name for c in channels if c.name in (".", "..") or c.name.startswith(("./", "../"))}
    named = {channel_url(name, manifest.root): name.rstrip("/") + "/" for name in sorted(relative)}
    members = (member for unit in found for member in unit.members)
    specs = [spec for member in members for same in member.dependencies.values() for spec in same]
    paths = {spec.path for spec in specs if spec.path is not None and not posixpath.isabs(spec.path)}
    return named | {_file_url(path, manifest.root): path for path in sorted(paths)}


# --- match specs


def _solver_text(spec: CondaSpec, root: Path) -> str:
    """The spec with what cannot be tested by name and version alone: its channel or place, and its condition."""
    spec = spec if spec.file_name is None else _by_file_name(spec, spec.file_name)
    parts = list(_places_of(spec, root))
    if spec.when is not None:
        condition = _condition(spec.when).replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'when="{condition}"')
    text = spec_text(spec)
    if not parts:
        return text
    head = f"{text[:-1]}, " if text.endswith("]") else f"{text}["
    return f"{head}{', '.join(parts)}]"


def _places_of(spec: CondaSpec, root: Path) -> Iterator[str]:
    if spec.channel is not None:
        yield f"channel='{channel_url(spec.channel, root)}'"
    if spec.url is not None:
        yield f"url='{spec.url}'"
    if spec.path is not None:
        yield f"url='{_file_url(spec.path, root)}'"


def _file_url(path: str, root: Path) -> str:
    return f"file://{quote(posixpath.normpath(posixpath.join(root.absolute().as_posix(), path)))}"


def _by_file_name(spec: CondaSpec, file_name: str) -> CondaSpec:
    """The solver does not look at file names, but a name tells version and build."""
    stem = next((file_name.removesuffix(suffix) for suffix in _ARCHIVES if file_name.endswith(suffix)), file_name)
    name, version, build = stem.rsplit("-", 2) if stem.count("-") > 1 else ("", "", "")
    if name.lower() != spec.name:
        raise ValueError(f"`{file_name}` is no archive of `{spec.name}`: expected `{spec.name}-VERSION-BUILD.conda`")
    return replace(spec, file_name=None, version=f"=={version}", build=build)


def _condition(condition: Condition) -> str:
    if condition.text is not None:
        return condition.text
    if condition.spec is not None:
        return spec_text(condition.spec)
    inner, word = (condition.every, " and ") if condition.every is not None else (condition.some, " or ")
    return word.join(f"({_condition(part)})" for part in inner or ())
