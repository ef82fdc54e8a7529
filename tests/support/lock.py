"""`pixi.lock` files as pixi writes them (format 6 and 7), for channels made here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.channel import Channel


__all__ = [
    "Locked",
    "LockedConda",
    "LockedEnvironment",
    "LockedPlatform",
    "LockedPypi",
    "conda_rows",
    "lock_text",
    "write_lock",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedConda:
    """A conda row: where the archive is, its record in the channel, and the channel's URL."""

    location: str
    channel: str
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedPypi:
    """A PyPI row; `location` is a URL, or a path relative to the lock."""

    name: str
    location: str
    version: str | None = None
    sha256: str | None = None
    index: str | None = None
    requires_dist: tuple[str, ...] = ()
    requires_python: str | None = None


Locked = LockedConda | LockedPypi


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedPlatform:
    """A platform of the lock; only format 7 can name its virtual packages."""

    name: str
    subdir: str | None = None
    virtual_packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedEnvironment:
    """What one environment has on each platform (keys: platform names)."""

    channels: tuple[str, ...]
    packages: Mapping[str, tuple[Locked, ...]]
    indexes: tuple[str, ...] | None = None
    options: Mapping[str, str] = field(default_factory=dict)


def conda_rows(channel: Channel, *names: str, platform: str | None = None) -> tuple[LockedConda, ...]:
    """Rows for the packages `names` of a channel (all, when none is given) that fit the subdir `platform`."""
    return tuple(
        LockedConda(location=channel.url_of(archive), channel=channel.url, record=archive.record)
        for archive in channel.named(*names)
        if platform is None or archive.subdir in ("noarch", platform)
    )


def lock_text(
    environments: Mapping[str, LockedEnvironment],
    *,
    version: Literal[6, 7] = 7,
    platforms: tuple[LockedPlatform, ...] | None = None,
) -> str:
    """The lock's YAML; `platforms` (format 7) defaults to those that the environments name."""
    document: dict[str, Any] = {"version": version}
    if version == 7:
        names = sorted({name for environment in environments.values() for name in environment.packages})
        listed = platforms if platforms is not None else tuple(LockedPlatform(name=name) for name in names)
        document["platforms"] = [_platform(platform) for platform in listed]
    document["environments"] = {name: _environment(environment) for name, environment in environments.items()}
    document["packages"] = _packages(environments, version)
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def write_lock(
    path: Path,
    environments: Mapping[str, LockedEnvironment],
    *,
    version: Literal[6, 7] = 7,
    platforms: tuple[LockedPlatform, ...] | None = None,
) -> Path:
    """Write `lock_text` to `path`; returns it."""
    path.write_text(lock_text(environments, version=version, platforms=platforms), encoding="utf-8")
    return path


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper without anchors: pixi writes none."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _platform(platform: LockedPlatform) -> dict[str, Any]:
    row: dict[str, Any] = {"name": platform.name}
    if platform.subdir is not None:
        row["subdir"] = platform.subdir
    if platform.virtual_packages:
        row["virtual-packages"] = list(platform.virtual_packages)
    return row


def _environment(environment: LockedEnvironment) -> dict[str, Any]:
    document: dict[str, Any] = {"channels": [{"url": url} for url in environment.channels]}
    if environment.indexes is not None:
        document["indexes"] = list(environment.indexes)
    if environment.options:
        document["options"] = dict(environment.options)
    document["packages"] = {name: [_key(row) for row in rows] for name, rows in environment.packages.items()}
    return document


def _key(row: Locked) -> dict[str, str]:
    return {"conda": _location(row.location)} if isinstance(row, LockedConda) else {"pypi": row.location}


def _packages(environments: Mapping[str, LockedEnvironment], version: int) -> list[dict[str, Any]]:
    rows = [row for environment in environments.values() for rows in environment.packages.values() for row in rows]
    unique = {row.location: row for row in rows}
    return [_row(row, version) for row in sorted(unique.values(), key=_order)]


def _order(row: Locked) -> tuple[str, str]:
    name = row.record["name"] if isinstance(row, LockedConda) else row.name
    return name, row.location


def _row(row: Locked, version: int) -> dict[str, Any]:
    return _conda_row(row, version) if isinstance(row, LockedConda) else _pypi_row(row)


_RECORD_KEYS = (
    "constrains",
    "track_features",
    "license",
    "license_family",
    "purls",
    "size",
    "timestamp",
    "python_site_packages_path",
)


def _conda_row(row: LockedConda, version: int) -> dict[str, Any]:
    record = row.record
    # A remote row leaves out what its URL tells; a file's row must state it (rattler: "missing field 'subdir'").
    remote = row.location.startswith(("http://", "https://"))
    document: dict[str, Any] = {"conda": _location(row.location)}
    if not remote and version == 6:
        document |= {key: record[key] for key in ("name", "version", "build")}
    if _derived_number(record["build"]) != record["build_number"]:
        document["build_number"] = record["build_number"]
    if not remote:
        document["subdir"] = record["subdir"]
    if "noarch" in record:
        document["noarch"] = record["noarch"]
    document |= {key: record[key] for key in ("sha256", "md5")}
    if record["depends"]:
        document["depends"] = record["depends"]
    if "://" in row.channel and not remote:  # a channel relative to the lock cannot be stated in a row
        document["channel"] = row.channel
    return document | {key: record[key] for key in _RECORD_KEYS if key in record and (record[key] or key == "purls")}


def _location(location: str) -> str:
    """A `file:` URL is written as the path, as rattler does."""
    return unquote(urlsplit(location).path) if location.startswith("file:") else location


def _derived_number(build: str) -> int:
    """The build number that readers take from a build text such as `py311_3` when the row states none."""
    tail = build.rpartition("_")[2]
    return int(tail) if tail.isdigit() else 0


def _pypi_row(row: LockedPypi) -> dict[str, Any]:
    facts = {
        "pypi": row.location,
        "name": row.name,
        "version": row.version,
        "sha256": row.sha256,
        "index": row.index,
        "requires_dist": list(row.requires_dist) or None,
        "requires_python": row.requires_python,
    }
    return {key: value for key, value in facts.items() if value is not None}
