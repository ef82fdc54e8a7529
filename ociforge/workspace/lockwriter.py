"""`pixi.lock` as text (format 7): what was solved, in the form that pixi writes and py-rattler reads.

Conda rows are rattler's own; everything that py-rattler cannot write is added to them. The same values give the same
text: nothing of this machine is in it but the paths that the manifest itself has.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import yaml
from msgspec import Struct, field
from packaging.requirements import Requirement

from ociforge.errors import LockError
from ociforge.replacing import replacing
from ociforge.url_secrets import public
from ociforge.workspace.pypi_options import DEFAULT_INDEX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rattler import RepoDataRecord

    from ociforge.workspace.lockfile import PypiRow
    from ociforge.workspace.platforms import WorkspacePlatform

__all__ = ["CondaRow", "Contents", "SolvedEnvironment", "lock_text", "write_lock"]

FORMAT: Final = 7

_ENVIRONMENT: Final = "all"  # of the lock that rattler writes for us
_NUMBERS: Final = frozenset({"build_number", "legacy_bz2_size", "size", "timestamp"})
_BEHIND_PURLS: Final = ("run_exports", "size", "legacy_bz2_size", "timestamp", "python_site_packages_path")
_FLAGS: Final = {"true": True, "false": False}
_STRATEGIES: Final = {"lowest": "lowest-version", "lowest-direct": "lowest-version-direct"}  # as the lock names them


class CondaRow(Struct, frozen=True, kw_only=True):
    """A record, and the PyPI distributions it provides as package URLs (`pkg:pypi/numpy`); None for "not known"."""

    record: RepoDataRecord
    purls: tuple[str, ...] | None = None


class Contents(Struct, frozen=True, kw_only=True):
    """The packages of one environment on one platform."""

    conda: tuple[CondaRow, ...] = ()
    pypi: tuple[PypiRow, ...] = ()


class SolvedEnvironment(Struct, frozen=True, kw_only=True):
    """One environment. `channels` are base URLs; `indexes` is None where there are no PyPI requirements.

    `strategy`, `channel_priority` and `prerelease_mode` are as the manifest has them, None for the default.
    `packages` are by platform, which need not hold anything.
    """

    name: str
    channels: tuple[str, ...]
    indexes: tuple[str, ...] | None = None
    find_links: tuple[tuple[str, str], ...] = ()
    strategy: str = "highest"
    channel_priority: str = "strict"
    prerelease_mode: str | None = None
    packages: Mapping[WorkspacePlatform, Contents] = field(default_factory=dict)


def lock_text(environments: Iterable[SolvedEnvironment], *, places: Mapping[str, str] | None = None) -> str:
    """The lock's text. `places` maps `file:` URLs of channels (ending in `/`) and archives to what the manifest calls
    them relative to itself, so that the lock does not depend on where the workspace lies.

    Raises LockError when one platform's name stands for two, or two rows of one location differ.
    """
    solved = sorted(environments, key=lambda environment: environment.name)
    relative = _Relative(places or {})
    conda = _conda_rows(solved, relative)
    document = {
        "version": FORMAT,
        "platforms": _platforms(solved),
        "environments": {environment.name: _environment(environment, relative) for environment in solved},
        "packages": [*conda, *_pypi_rows(solved)],
    }
    text: str = yaml.dump(
        document, Dumper=_Dumper, default_flow_style=False, sort_keys=False, width=1 << 30, allow_unicode=True
    )
    return text


def write_lock(path: Path, text: str) -> None:
    """Write the lock in one step: whoever reads it meanwhile sees the old one or the new one."""
    try:
        with replacing(path) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise LockError(f"cannot write `{path}`: {error.strerror or error}") from error


class _Dumper(yaml.CSafeDumper):
    """Without anchors: pixi writes none."""

    def ignore_aliases(self, data: object) -> bool:
        return True


class _Relative:
    """Places of this machine as the manifest names them."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = {_path_of(url): text for url, text in places.items()}

    def channel(self, url: str) -> str:
        return self.location(url) if url.startswith("file:") else url

    def location(self, place: str) -> str:
        """A URL or path; what lies in a channel named relatively goes by its path from there."""
        path = _path_of(place)
        if path in self._places:
            return self._places[path]
        for base, text in self._places.items():
            if base.endswith("/") and path.startswith(base):
                return text.rstrip("/") + "/" + path.removeprefix(base)
        return place


def _path_of(place: str) -> str:
    return unquote(urlsplit(place).path) if place.startswith("file:") else place


# --- platforms and environments


def _platforms(environments: Iterable[SolvedEnvironment]) -> list[dict[str, Any]]:
    found: dict[str, WorkspacePlatform] = {}
    for platform in (platform for environment in environments for platform in environment.packages):
        if found.setdefault(platform.name, platform) != platform:
            raise LockError(f"the platform `{platform.name}` means two things in different environments")
    return [_platform(found[name]) for name in sorted(found)]


def _platform(platform: WorkspacePlatform) -> dict[str, Any]:
    row: dict[str, Any] = {"name": platform.name}
    if platform.rich:
        row["subdir"] = platform.subdir
    if platform.customised:
        row["virtual-packages"] = sorted(str(package) for package in platform.customised)
    return row


def _environment(environment: SolvedEnvironment, relative: _Relative) -> dict[str, Any]:
    document: dict[str, Any] = {"channels": [{"url": relative.channel(url)} for url in environment.channels]}
    if environment.indexes is not None:
        document["indexes"] = [_without_credentials(url) for url in environment.indexes]
        if environment.find_links:
            document["find-links"] = [{kind: _without_credentials(p)} for kind, p in environment.find_links]
    if options := _options(environment):
        document["options"] = options
    packages = sorted(environment.packages.items(), key=lambda item: item[0].name)
    document["packages"] = {platform.name: _selectors(contents, relative) for platform, contents in packages}
    return document


def _options(environment: SolvedEnvironment) -> dict[str, str]:
    found = {}
    if environment.strategy != "highest":
        found["strategy"] = _STRATEGIES[environment.strategy]
    if environment.channel_priority != "strict":
        found["channel-priority"] = environment.channel_priority
    if environment.prerelease_mode is not None:
        found["pypi-prerelease-mode"] = environment.prerelease_mode
    return found


def _selectors(contents: Contents, relative: _Relative) -> list[dict[str, str]]:
    conda = sorted(relative.location(_conda_location(row.record)) for row in contents.conda)
    return [
        *({"conda": place} for place in conda),
        *({"pypi": p} for p in sorted(row.location for row in contents.pypi)),
    ]


def _without_credentials(url: str) -> str:
    return re.sub(r"(?<=://)[^/@]*@", "", url)


# --- rows


def _conda_location(record: RepoDataRecord) -> str:
    """A `file:` URL is written as the path, as rattler does."""
    return _path_of(record.url)


def _conda_rows(environments: Iterable[SolvedEnvironment], relative: _Relative) -> list[dict[str, Any]]:
    rows = [row for e in environments for contents in e.packages.values() for row in contents.conda]
    purls: dict[str, tuple[str, ...]] = {}
    for row in rows:
        if row.purls is not None:
            purls[_conda_location(row.record)] = row.purls
    found = []
    for written in _written_by_rattler({row.record.url: row.record for row in rows}.values()):
        place = written["conda"]
        typed = {key: _typed(key, value) for key, value in written.items()}
        if place in purls:
            typed = _with_purls(typed, sorted(purls[place]))
        location = relative.location(place)
        if location != place:
            typed.pop("channel", None)  # it would tell where the workspace lies; the row's own path tells it too
        found.append({**typed, "conda": location})
    return sorted(found, key=lambda row: str(row["conda"]))


def _written_by_rattler(records: Iterable[RepoDataRecord]) -> list[dict[str, Any]]:
    """The rows as rattler writes them: it knows which keys a row's address tells already."""
    from rattler import LockFile, LockPlatform

    platform = LockPlatform("linux-64")  # rows do not depend on it
    lock = LockFile([platform])
    for record in records:
        lock.add_conda_package(_ENVIRONMENT, platform, record)
    with tempfile.TemporaryDirectory(prefix="ociforge-") as place:
        path = Path(place, "pixi.lock")
        lock.to_path(path)
        # All scalars as text: what looks like a number, a date or a truth to YAML 1.1 need not be one to rattler.
        document = yaml.load(path.read_bytes(), Loader=yaml.CBaseLoader)
    rows: list[dict[str, Any]] = document["packages"] or []
    return rows


def _typed(key: str, value: Any) -> Any:
    if key in _NUMBERS:
        return int(value)
    return _FLAGS.get(value, value) if key == "noarch" else value


def _with_purls(row: Mapping[str, Any], purls: list[str]) -> dict[str, Any]:
    """The row with `purls` where rattler has them: before sizes and times."""
    behind = [key for key in _BEHIND_PURLS if key in row]
    before = {key: value for key, value in row.items() if key != "purls" and key not in behind}
    return {**before, "purls": purls, **{key: row[key] for key in behind}}


def _pypi_rows(environments: Iterable[SolvedEnvironment]) -> list[dict[str, Any]]:
    found: dict[str, PypiRow] = {}
    for row in (row for e in environments for contents in e.packages.values() for row in contents.pypi):
        if found.setdefault(row.location, row) != row:
            raise LockError(f"the PyPI package `{row.name}` was read twice, and differently: `{public(row.location)}`")
    return [_pypi_row(found[location]) for location in sorted(found)]


def _pypi_row(row: PypiRow) -> dict[str, Any]:
    facts = {
        "pypi": row.location,
        "name": row.name,
        "version": row.version,
        "index": None if row.index is None or row.index.rstrip("/") == DEFAULT_INDEX else row.index,
        "sha256": row.sha256,
        "requires_dist": [_requirement(text) for text in row.requires_dist] or None,
        "requires_python": _spaced(row.requires_python),
    }
    return {key: value for key, value in facts.items() if value is not None}


def _requirement(text: str) -> str:
    """A requirement as rattler prints it: `name[extra]>=1 ; marker`, the marker's values in single quotes."""
    parsed = Requirement(text)
    marker, parsed.marker = parsed.marker, None
    if marker is None:
        return str(parsed)
    condition = str(marker)
    return f"{parsed} ; {condition if chr(39) in condition else condition.replace(chr(34), chr(39))}"


def _spaced(specifiers: str | None) -> str | None:
    return None if specifiers is None else ", ".join(part.strip() for part in specifiers.split(","))
