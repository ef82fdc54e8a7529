"""Features and environments: what the tables below the top level of a manifest declare."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from ociforge.workspace.cutoff import parse_cutoff
from ociforge.workspace.platforms import SystemRequirements, read_system_requirements
from ociforge.workspace.pypi_options import PypiOptions, read_pypi_options
from ociforge.workspace.reading import Table, describe, suggestion
from ociforge.workspace.specs import CondaSpec, PypiSpec, read_conda_specs, read_pypi_specs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = [
    "CHANNEL_PRIORITIES",
    "SOLVE_STRATEGIES",
    "Activation",
    "Channel",
    "EnvironmentDeclaration",
    "Feature",
    "Target",
    "Task",
    "read_channels",
    "read_cutoff",
    "read_environments",
    "read_feature",
    "read_features",
]

CHANNEL_PRIORITIES: Final = ("strict", "flexible", "disabled")
SOLVE_STRATEGIES: Final = ("highest", "lowest", "lowest-direct")

_ENVIRONMENT_NAME: Final = re.compile(r"[a-z0-9-]+")
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEPENDENCY_TABLES: Final = ("dependencies", "host-dependencies", "build-dependencies")  # later ones win
_FEATURE_KEYS: Final = (
    *_DEPENDENCY_TABLES,
    "constraints",
    "pypi-dependencies",
    "dev",
    "activation",
    "tasks",
    "target",
    "platforms",
    "channels",
    "channel-priority",
    "solve-strategy",
    "pypi-options",
)
_SOME_MOMENT: Final = datetime(2026, 1, 1, tzinfo=UTC)  # whether a text is a duration does not depend on it
_NOT_INLINE: Final = ("host-dependencies", "build-dependencies", "system-requirements")  # of an environment


class Channel(Struct, frozen=True, kw_only=True):
    """A channel as the manifest names it: a name, a URL or a path."""

    name: str
    priority: int = 0
    exclude_newer: str | None = None


class Activation(Struct, frozen=True, kw_only=True):
    """`scripts` is None when the key is absent, which lets a less specific target decide."""

    scripts: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)


class Task(Struct, frozen=True, kw_only=True):
    """A pixi task; `cmd` is None for an alias. Only what an image could run is kept apart from `other_keys`."""

    name: str
    where: str
    cmd: str | tuple[str, ...] | None = None
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    depends_on: bool = False
    other_keys: tuple[str, ...] = ()


class Target(Struct, frozen=True, kw_only=True):
    """What a feature asks for where `selector` matches; None is everywhere."""

    selector: str | None = None
    dependencies: Mapping[str, CondaSpec] = field(default_factory=dict)
    run_dependencies: Mapping[str, CondaSpec] = field(default_factory=dict)
    constraints: Mapping[str, CondaSpec] = field(default_factory=dict)
    pypi_dependencies: Mapping[str, tuple[PypiSpec, ...]] = field(default_factory=dict)
    dev: Mapping[str, CondaSpec] = field(default_factory=dict)
    activation: Activation = field(default_factory=Activation)
    tasks: Mapping[str, Task] = field(default_factory=dict)


class Feature(Struct, frozen=True, kw_only=True):
    """A named part of the manifest; the first of `targets` is the one without selector."""

    name: str
    targets: tuple[Target, ...] = (Target(),)
    platforms: tuple[str, ...] | None = None
    channels: tuple[Channel, ...] | None = None
    channel_priority: str | None = None
    solve_strategy: str | None = None
    pypi_options: PypiOptions | None = None
    system_requirements: SystemRequirements | None = None


class EnvironmentDeclaration(Struct, frozen=True, kw_only=True):
    """An entry of `environments`; `inline` is its own implicit feature."""

    name: str
    features: tuple[str, ...] = ()
    inline: Feature | None = None
    solve_group: str | None = None
    no_default_feature: bool = False


def read_channels(table: Table) -> tuple[Channel, ...] | None:
    """The `channels` of a workspace or feature, or None when there is no such key."""
    items = table.array("channels")
    if items is None:
        return None
    found = [_read_channel(table, item, index) for index, item in enumerate(items)]
    return tuple(channel for channel in found if channel is not None)


def _read_channel(table: Table, item: object, index: int) -> Channel | None:
    if isinstance(item, str) and item:
        return Channel(name=item)
    if not isinstance(item, dict):
        table.findings.add(table.at("channels", index), f"expected a string or a table, got {describe(item)}")
        return None
    entry = table.enter(item, "channels", index)
    assert entry is not None
    name = entry.text("channel")
    priority = entry.integer("priority", low=-(2**31), high=2**31 - 1) or 0
    cutoff = read_cutoff(entry, "exclude-newer")
    if "channel" not in entry:
        entry.findings.add(entry.crumb, "the key `channel` is missing")
    entry.finish()
    return None if name is None else Channel(name=name, priority=priority, exclude_newer=cutoff)


def read_features(top: Table, pool: Mapping[str, object]) -> dict[str, Feature]:
    """The `feature` tables; `pool` is `workspace.dependencies`."""
    found: dict[str, Feature] = {}
    for name, table in top.tables("feature"):
        if name == "default":
            table.findings.add(table.crumb, "the name `default` is reserved for the top level of the manifest")
        found[name] = read_feature(name, table, pool)
        table.finish()
    return found


def read_feature(name: str, table: Table, pool: Mapping[str, object]) -> Feature:
    """The keys of a feature, wherever they stand; the caller finishes the table."""
    return Feature(
        name=name,
        targets=_read_targets(table, pool),
        platforms=table.texts("platforms"),
        channels=read_channels(table),
        channel_priority=table.choice("channel-priority", CHANNEL_PRIORITIES),
        solve_strategy=table.choice("solve-strategy", SOLVE_STRATEGIES),
        pypi_options=read_pypi_options(table.table("pypi-options")),
        system_requirements=read_system_requirements(table.table("system-requirements")),
    )


def read_environments(
    top: Table, features: Collection[str], pool: Mapping[str, object]
) -> dict[str, EnvironmentDeclaration]:
    """The `environments` table; `default` is there even when it is not listed."""
    found = {"default": EnvironmentDeclaration(name="default")}
    table = top.table("environments")
    for name in table.values if table is not None else ():
        assert table is not None
        value = table.take(name)
        if not _ENVIRONMENT_NAME.fullmatch(name):
            table.wrong(name, "no environment name: lower case letters, digits and `-`")
        declaration = _read_environment(table, name, value, pool)
        if declaration is not None:
            _check_features(table, declaration, features)
            found[name] = declaration
    return found


def _read_environment(
    table: Table, name: str, value: object, pool: Mapping[str, object]
) -> EnvironmentDeclaration | None:
    if isinstance(value, list):
        return EnvironmentDeclaration(name=name, features=table.texts(name) or ())
    if not isinstance(value, dict):
        table.wrong(name, f"expected an array of features or a table, got {describe(value)}")
        return None
    entry = table.enter(value, name)
    assert entry is not None
    features, group = entry.texts("features") or (), entry.text("solve-group")
    alone = bool(entry.flag("no-default-feature"))
    for key in _NOT_INLINE:
        if key in entry:
            entry.wrong(key, "not allowed in an environment: put it into a feature")
    rest = {key: item for key, item in value.items() if key in _FEATURE_KEYS and key not in _NOT_INLINE}
    inline = read_feature(f"<{name}>", Table(rest, entry.crumb, entry.findings), pool) if rest else None
    entry.ignore(*_FEATURE_KEYS, *_NOT_INLINE)
    entry.finish()
    return EnvironmentDeclaration(
        name=name, features=features, inline=inline, solve_group=group, no_default_feature=alone
    )


def _check_features(table: Table, declaration: EnvironmentDeclaration, features: Collection[str]) -> None:
    seen: set[str] = set()
    for name in declaration.features:
        if name not in features:
            table.wrong(declaration.name, f"there is no feature `{name}`{suggestion(name, features)}")
        if name in seen:
            table.wrong(declaration.name, f"the feature `{name}` is listed twice")
        seen.add(name)


def _read_targets(table: Table, pool: Mapping[str, object]) -> tuple[Target, ...]:
    found = [_read_target(None, table, pool)]
    for selector, inner in table.tables("target"):
        if "(" in selector:
            inner.findings.add(inner.crumb, "expected a platform: `if(…)` is only known inside `[package]`")
        found.append(_read_target(selector, inner, pool))
        inner.finish()
    return tuple(found)


def _read_target(selector: str | None, table: Table, pool: Mapping[str, object]) -> Target:
    """The keys that can be selected by platform; the caller finishes the table."""
    kinds = [read_conda_specs(table.table(key), pool) for key in _DEPENDENCY_TABLES]
    return Target(
        selector=selector,
        dependencies={name: spec for kind in kinds for name, spec in kind.items()},
        run_dependencies=kinds[0],
        constraints=read_conda_specs(table.table("constraints"), pool),
        pypi_dependencies={n: (spec,) for n, spec in read_pypi_specs(table.table("pypi-dependencies")).items()},
        dev=read_conda_specs(table.table("dev"), pool),
        activation=_read_activation(table.table("activation")),
        tasks=_read_tasks(table.table("tasks")),
    )


def _read_activation(table: Table | None) -> Activation:
    if table is None:
        return Activation()
    env = table.pairs("env") or {}
    for name in env:
        if not _VARIABLE_NAME.fullmatch(name):
            table.findings.add(table.at("env", name), "no name for a variable: letters, digits and `_`")
    activation = Activation(scripts=table.texts("scripts"), env=env)
    table.finish()
    return activation


def _read_tasks(table: Table | None) -> dict[str, Task]:
    found: dict[str, Task] = {}
    for name in table.values if table is not None else ():
        assert table is not None
        value, where = table.take(name), ".".join(str(part) for part in table.at(name))
        if isinstance(value, str):
            found[name] = Task(name=name, where=where, cmd=value)
        elif isinstance(value, list):
            found[name] = Task(name=name, where=where, depends_on=True)
        elif (entry := table.enter(value, name)) is not None:
            found[name] = _read_task(entry, name, where)
    return found


def _read_task(entry: Table, name: str, where: str) -> Task:
    raw = entry.values.get("cmd")
    cmd: str | tuple[str, ...] | None = entry.texts("cmd") if isinstance(raw, list) else entry.text("cmd")
    depends = [entry.take(key) is not None for key in ("depends-on", "depends_on")]
    entry.text("description", empty=True)
    others = ("inputs", "outputs", "clean-env", "args", "default-environment")
    entry.ignore(*others)
    task = Task(
        name=name,
        where=where,
        cmd=cmd,
        cwd=entry.text("cwd"),
        env=entry.pairs("env") or {},
        depends_on=any(depends),
        other_keys=tuple(key for key in others if key in entry),
    )
    entry.finish()
    return task


def read_cutoff(table: Table, key: str) -> str | None:
    """A duration, a date or a time; TOML's own dates count as their text."""
    value = table.values.get(key)
    text = str(value.isoformat()) if hasattr(value, "isoformat") else table.text(key)
    table.ignore(key)
    if text is None:
        return None
    try:
        parse_cutoff(text, _SOME_MOMENT)
    except ValueError:
        table.wrong(key, "expected a duration such as `7d`, a date such as `2026-01-31`, or a time in RFC 3339")
        return None
    return text
