"""`pixi.lock`, formats 4 to 7, and what it holds for one environment on one platform.

The file is read twice: by py-rattler for the records, and as plain YAML for what py-rattler does not show
(format, solver options, indexes, the index of each PyPI package).
"""

from __future__ import annotations

import difflib
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import yaml
from msgspec import Struct

from ociforge.errors import ForgeError, LockError
from ociforge.url_secrets import public
from ociforge.workspace.platforms import VirtualPackage, WorkspacePlatform

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rattler import LockPlatform, RepoDataRecord
    from rattler.lock import CondaLockedBinaryPackage, LockedPackage
    from rattler.lock import Environment as RattlerEnvironment

__all__ = [
    "Lock",
    "LockedEnvironment",
    "LockedPlatform",
    "PypiRow",
    "Rows",
    "Selection",
    "read",
    "select",
    "translated",
]

_FORMATS: Final = range(4, 8)
_LIMIT: Final = 256 << 20  # 256 MiB: a thousand times a large lock
_MORE: Final = re.compile(rb"\n(?:-(?! conda:)|[^-\s#])")  # a package that is not conda's, or another top-level key
_VERSION_LINE: Final = re.compile(rb"^version:[ \t]*['\"]?([0-9]{1,9})\b", re.MULTILINE)
_NESTED: Final = re.compile(rb"(?:[\[{][ \t\r\n]*){200}")
_HINT: Final = "run `ociforge lock`"


class PypiRow(Struct, frozen=True, kw_only=True):
    """A locked PyPI package. `location` is a URL or a path relative to the lock; `sha256` is hexadecimal."""

    name: str
    version: str | None
    location: str
    sha256: str | None = None
    index: str | None = None
    requires_dist: tuple[str, ...] = ()
    requires_python: str | None = None


class LockedPlatform(Struct, frozen=True, kw_only=True):
    """A platform of the lock; rich ones are called `p1`, `p2`, … there, so the name means nothing."""

    name: str
    subdir: str
    virtual_packages: tuple[VirtualPackage, ...] = ()

    @property
    def identity(self) -> tuple[object, ...]:
        """Subdir and virtual packages beyond the defaults: what tells platforms apart."""
        return _identity(WorkspacePlatform(name=self.name, subdir=self.subdir, virtual_packages=self.virtual_packages))


def _identity(platform: WorkspacePlatform) -> tuple[object, ...]:
    return platform.subdir, sorted(str(package.identity) for package in platform.customised)


class LockedEnvironment(Struct, frozen=True, kw_only=True):
    """What the lock says about an environment as a whole. `indexes` is None when the block is missing."""

    name: str
    channels: tuple[str, ...]
    platforms: tuple[LockedPlatform, ...]
    indexes: tuple[str, ...] | None = None
    find_links: tuple[str, ...] = ()
    strategy: str = "highest"
    channel_priority: str = "strict"
    prerelease_mode: str = "if-necessary-or-explicit"

    def find(self, platform: WorkspacePlatform) -> LockedPlatform | None:
        """The row of a platform: by identity, by name, or the bare subdir's if that promises enough."""
        wanted = _identity(platform)
        same = [row for row in self.platforms if row.identity == wanted]
        named = [row for row in self.platforms if row.name == platform.name]
        for row in (*(row for row in same if row.name == platform.name), *same, *named):
            return row
        bare = next((row for row in self.platforms if row.name == platform.subdir == row.subdir), None)
        if bare is None or not bare.virtual_packages:
            return bare
        promised = {package.identity for package in bare.virtual_packages}
        return bare if all(package.identity in promised for package in platform.virtual_packages) else None


class Rows(Struct, frozen=True, kw_only=True):
    """The packages of one environment on one platform, by name; `sources` are the names of source packages."""

    conda: tuple[CondaLockedBinaryPackage, ...]
    sources: tuple[str, ...]
    pypi: tuple[PypiRow, ...]


class Selection(Struct, frozen=True, kw_only=True):
    """What goes into an image: conda records (each with URL and sha256) and PyPI rows."""

    environment: str
    platform: LockedPlatform
    channels: tuple[str, ...]
    records: tuple[RepoDataRecord, ...]
    pypi: tuple[PypiRow, ...]


class Lock(Struct, frozen=True, kw_only=True):
    """A lock that has been read; `read` makes it."""

    path: Path
    version: int
    environments: Mapping[str, LockedEnvironment]
    _parsed: Mapping[str, RattlerEnvironment]
    _platforms: Mapping[tuple[str, str], LockPlatform]
    _indexes: Mapping[str, str]

    def environment(self, name: str) -> LockedEnvironment:
        """One environment; raises LockError that lists the ones there are."""
        found = self.environments.get(name)
        if found is None:
            listed = ", ".join(f"`{known}`" for known in self.environments) or "none"
            near = difflib.get_close_matches(name, list(self.environments), n=1) or ["default"]
            other = f", or pass `--environment {near[0]}`" if near[0] in self.environments else ""
            raise LockError(f"`{self.path.name}` has no environment `{name}`: found {listed}", f"{_HINT}{other}")
        return found

    def rows(self, environment: str, platform: LockedPlatform) -> Rows:
        """The packages of an environment on one of its platforms."""
        with translated(self.path):
            packages = self._parsed[environment].packages(self._platforms[environment, platform.name]) or []
            return _rows(packages, self._indexes)


def read(path: Path) -> Lock:
    """Read a lock; raises LockError when it is missing, damaged or of an unknown format."""
    from rattler import LockFile

    raw = _read_bytes(path)
    version = _check_version(path, raw)
    with translated(path):
        parsed = dict(sorted(LockFile.from_path(path).environments(), key=lambda item: item[0]))
        platforms = {(name, p.name): p for name, environment in parsed.items() for p in environment.platforms()}
        channels = {name: tuple(str(c) for c in environment.channels()) for name, environment in parsed.items()}
        rows = {key: _platform(platforms[key]) for key in sorted(platforms)}
    document = _yaml(path, raw)
    environments = {
        name: _environment(name, channels[name], [row for key, row in rows.items() if key[0] == name], document)
        for name in parsed
    }
    return Lock(
        path=path,
        version=version,
        environments=environments,
        _parsed=parsed,
        _platforms=platforms,
        _indexes=_pypi_indexes(document),
    )


def select(lock: Lock, environment: str, platform: WorkspacePlatform) -> Selection:
    """What the lock holds for an environment on a platform.

    Raises LockError when it holds nothing for it, or something that no image can be made of: conda source
    packages, records without sha256, a package twice, a package of another platform.
    """
    found = lock.environment(environment)
    row = found.find(platform)
    if row is None:
        listed = ", ".join(f"`{known.name}`" for known in found.platforms) or "none"
        raise LockError(
            f"`{lock.path.name}` does not lock `{environment}` for `{platform.name}`: found {listed}",
            f"add `{platform.subdir}` to `workspace.platforms`, and {_HINT}",
        )
    rows = lock.rows(environment, row)
    if rows.sources:
        listed = ", ".join(f"`{name}`" for name in rows.sources)
        raise LockError(
            f"`{lock.path.name}` has conda source packages in `{environment}`, which ociforge cannot build: {listed}",
            "build them with pixi-build, publish them to a channel, and depend on the packages there",
        )
    with translated(lock.path):
        records = tuple(_record(package, lock.path.absolute().parent) for package in rows.conda)
        _check_records(lock, environment, platform.subdir, records)
    return Selection(environment=environment, platform=row, channels=found.channels, records=records, pypi=rows.pypi)


# --- reading


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_LIMIT + 1)
    except FileNotFoundError:
        raise LockError(f"there is no `{path.name}` beside the manifest: `{path}`", _HINT) from None
    except OSError as error:
        raise LockError(f"cannot read `{path}`: {error.strerror or error}") from error
    if len(raw) > _LIMIT:
        raise LockError(f"cannot read `{path}`: it is larger than {_LIMIT >> 20} MiB")
    if _NESTED.search(raw):  # py-rattler refuses it too, but takes half a minute to see it
        raise LockError(f"`{path.name}` is damaged: it is nested too deeply", _HINT)
    return raw


def _check_version(path: Path, raw: bytes) -> int:
    match = _VERSION_LINE.search(raw)
    if match is None:
        raise LockError(f"`{path}` is no lock of pixi's: it has no `version`", _HINT)
    version = int(match[1])
    if version not in _FORMATS:
        age = "newer" if version >= _FORMATS.stop else "older"
        raise LockError(
            f"`{path.name}` has format {version}: {age} than the formats {_FORMATS.start} to {_FORMATS.stop - 1}"
            " that this ociforge reads",
            "upgrade ociforge" if age == "newer" else _HINT,
        )
    return version


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn whatever py-rattler raises into a LockError: its exceptions have no common base, and Rust may panic."""
    try:
        yield
    except ForgeError:
        raise
    except Exception as error:
        raise LockError(f"`{path.name}` is damaged: {_first_line(error)}", _HINT) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise LockError(f"`{path.name}` is damaged: {_first_line(error)}", _HINT) from error


def _first_line(error: BaseException) -> str:
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return "".join(c if c.isprintable() else "�" for c in line[:300])


def _yaml(path: Path, raw: bytes) -> Mapping[str, Any]:
    """The document with every scalar as text: what looks like a date or a number in it need not be one.

    Without `packages` where all of them are conda's, of which rattler tells everything: they are nearly all of it.
    """
    head, _, packages = raw.partition(b"\npackages:\n")
    if not _MORE.search(b"\n" + packages):
        raw = head + b"\n"
    try:
        document = yaml.load(raw, Loader=yaml.CBaseLoader)  # the base loader makes strings, lists and dicts only
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LockError(f"`{path.name}` is damaged: {_first_line(error)}", _HINT) from error
    return document if isinstance(document, dict) else {}


def _platform(platform: LockPlatform) -> LockedPlatform:
    parsed = [VirtualPackage.parse(text) for text in platform.virtual_packages]
    return LockedPlatform(
        name=platform.name,
        subdir=str(platform.subdir),
        virtual_packages=tuple(package for package in parsed if package is not None),
    )


def _environment(
    name: str, channels: tuple[str, ...], platforms: list[LockedPlatform], document: Mapping[str, Any]
) -> LockedEnvironment:
    block = _mapping(_mapping(document.get("environments")).get(name))
    options = _mapping(block.get("options"))
    indexes = block.get("indexes")
    return LockedEnvironment(
        name=name,
        channels=channels,
        platforms=tuple(platforms),
        indexes=tuple(_texts(indexes)) if isinstance(indexes, list) else None,
        find_links=tuple(_link(item) for item in _items(block.get("find-links"))),
        strategy=_text(options, "strategy", "highest"),
        channel_priority=_text(options, "channel-priority", "strict"),
        prerelease_mode=_text(options, "pypi-prerelease-mode", "if-necessary-or-explicit"),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [item for item in _items(value) if isinstance(item, str)]


def _text(block: Mapping[str, Any], key: str, default: str) -> str:
    value = block.get(key, default)
    return value if isinstance(value, str) else default


def _link(item: object) -> str:
    """`path: …` or `url: …`, in one string."""
    return next((str(value) for value in item.values()), "") if isinstance(item, dict) else str(item)


def _pypi_indexes(document: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for row in _items(document.get("packages")):
        location, index = _mapping(row).get("pypi"), _mapping(row).get("index")
        if isinstance(location, str) and isinstance(index, str):
            found[location] = index
    return found


# --- rows


def _rows(packages: list[LockedPackage], indexes: Mapping[str, str]) -> Rows:
    from rattler.lock import CondaLockedBinaryPackage, CondaLockedSourcePackage, PypiLockedPackage

    packages = sorted(packages, key=lambda package: (package.name, package.location))
    return Rows(
        conda=tuple(p for p in packages if isinstance(p, CondaLockedBinaryPackage)),
        sources=tuple(p.name for p in packages if isinstance(p, CondaLockedSourcePackage)),
        pypi=tuple(_pypi_row(p, indexes) for p in packages if isinstance(p, PypiLockedPackage)),
    )


def _pypi_row(package: Any, indexes: Mapping[str, str]) -> PypiRow:
    version = package.version
    try:
        sha256 = package.hashes.sha256
    except AttributeError:  # how py-rattler says that there are no digests
        sha256 = None
    return PypiRow(
        name=package.name,
        version=None if version in (None, "<dynamic>") else version,
        location=package.location,
        sha256=None if sha256 is None else sha256.hex(),
        index=indexes.get(package.location),
        requires_dist=tuple(package.requires_dist),
        requires_python=package.requires_python,
    )


def _record(package: Any, root: Path) -> RepoDataRecord:
    """The record of a binary package; py-rattler cannot make one of a path that is relative to the lock."""
    from rattler import RepoDataRecord

    location: str = package.location
    if "://" in location or location.startswith("/"):
        record: RepoDataRecord = package.repo_data_record()
        return record
    place = Path(root, location)
    place = place.parent.resolve() / place.name  # the name is the lock's, even of a link
    url, channel = (f"file://{quote(p.as_posix())}" for p in (place, place.parent.parent))
    return RepoDataRecord(package.package_record, place.name, url, f"{channel}/")


def _check_records(lock: Lock, environment: str, subdir: str, records: tuple[RepoDataRecord, ...]) -> None:
    seen: set[str] = set()
    wrong = []
    for record in records:
        name = record.name.normalized
        shown = f"`{lock.path.name}`, environment `{environment}`: `{name} {record.version}`"
        if name in seen:
            wrong.append(f"{shown} is locked twice")
        if record.sha256 is None:
            wrong.append(f"{shown} has no sha256, so its archive cannot be verified")
        if record.subdir not in (subdir, "noarch"):
            wrong.append(f"{shown} is for `{record.subdir}`, not for `{subdir}`")
        if urlsplit(record.url).scheme not in ("https", "http", "file"):
            wrong.append(f"{shown} lies at `{public(record.url)}`, which is neither http nor a file")
        seen.add(name)
    if wrong:
        raise LockError.collect(wrong, _HINT)
