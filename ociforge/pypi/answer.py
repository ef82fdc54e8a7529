"""uv's answer (`pylock.toml`, PyPA specification) as rows for the lock."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import msgspec
from msgspec.structs import replace
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from ociforge.errors import SolveError
from ociforge.pypi.request import DEFAULT_INDEX, Distribution
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packaging.tags import Tag
    from packaging.utils import BuildTag

    from ociforge.pypi.request import PypiRequest

__all__ = ["Package", "needs_indexes", "read_indexes", "read_packages", "row"]


class _File(msgspec.Struct, frozen=True):
    """A wheel or source distribution."""

    hashes: dict[str, str] = {}
    name: str | None = None
    url: str | None = None
    path: str | None = None
    subdirectory: str | None = None

    @property
    def filename(self) -> str:
        return self.name or unquote(urlsplit(self.url or self.path or "").path.rpartition("/")[2])


class _Directory(msgspec.Struct, frozen=True):
    path: str


class _Repository(msgspec.Struct, frozen=True, rename="kebab"):
    url: str
    commit_id: str
    requested_revision: str | None = None
    subdirectory: str | None = None


class Package(msgspec.Struct, frozen=True):
    """One of `packages`: exactly one kind of place is set, but for wheels beside a source distribution."""

    name: str
    version: str | None = None
    wheels: tuple[_File, ...] = ()
    sdist: _File | None = None
    archive: _File | None = None
    directory: _Directory | None = None
    vcs: _Repository | None = None


class _Document(msgspec.Struct, frozen=True):
    packages: tuple[Package, ...] = ()


def read_packages(path: Path) -> tuple[Package, ...]:
    """The packages of the `pylock.toml` at `path`; paths in it start where it lies, and are absolute here."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    for package in document.get("packages", ()):
        places = [package.get(key, {}) for key in ("archive", "directory", "sdist")]
        for place in (*places, *package.get("wheels", ())):
            if "path" in place:
                place["path"] = os.path.normpath(path.parent.resolve() / place["path"])
    return msgspec.convert(document, _Document).packages


def needs_indexes(request: PypiRequest) -> bool:
    """Whether it must be asked which index a distribution came from: `pylock.toml` does not tell."""
    return bool(len(request.indexes) > 1 or request.find_links or any(r.index for r in request.requirements))


def read_indexes(text: str) -> dict[str, str]:
    """`# from URL` below each line of a requirements file: name -> index or find-links, without credentials."""
    found: dict[str, str] = {}
    name = None
    for line in text.splitlines():
        if (start := re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)", line)) is not None:
            name = canonicalize_name(start[1])
        elif name is not None and (origin := re.fullmatch(r"\s+# from (\S+)", line)) is not None:
            found[name] = origin[1]
    return found


def row(request: PypiRequest, package: Package, indexes: Mapping[str, str]) -> Distribution:
    """A package as the lock has it; `indexes` are those of `read_indexes`, for names that it knows."""
    made = Distribution(name=canonicalize_name(package.name), version=package.version, location="")
    if package.vcs is not None:
        return replace(made, location=_git_location(request, made.name, package.vcs))
    if package.directory is not None:
        return replace(made, location=_lock_path(request, package.directory.path))
    if package.archive is not None:
        return replace(made, location=_direct(request, package.archive), sha256=package.archive.hashes.get("sha256"))
    file = _best(request, package)
    made = replace(made, location=_place(request, file), sha256=file.hashes.get("sha256"))
    return made if "://" not in made.location else replace(made, index=_index(request, made.name, indexes))


def _direct(request: PypiRequest, archive: _File) -> str:
    if archive.url is None or archive.url.startswith("file:"):
        return _place(request, archive)
    return f"direct+{archive.url}" + (f"#subdirectory={archive.subdirectory}" if archive.subdirectory else "")


def _place(request: PypiRequest, file: _File) -> str:
    if file.url is not None and not file.url.startswith("file:"):
        return file.url
    path = file.path or os.fsdecode(unquote(urlsplit(file.url or "").path, errors="surrogateescape"))
    return _lock_path(request, path)


def _best(request: PypiRequest, package: Package) -> _File:
    """The wheel that fits best (uv lists those that fit), else the source distribution."""
    ranks = {tag: rank for rank, tag in enumerate(request.machine.tags())}
    # Of equal tags the higher build number; the name makes the order total.
    ranked = [(-rank, build, wheel.filename, wheel) for wheel in package.wheels for rank, build in _fit(wheel, ranks)]
    if ranked:
        return max(ranked, key=lambda item: item[:3])[3]
    if package.sdist is not None:
        return package.sdist
    raise SolveError(
        f"{request.what}: the PyPI package `{package.name} {package.version}` has no wheel for"
        f" `{request.machine.subdir}` and Python {request.machine.version}, and no source distribution",
        "ask for another version of it",
    )


def _fit(wheel: _File, ranks: Mapping[Tag, int]) -> list[tuple[int, BuildTag]]:
    """The rank and the build number of a wheel that fits, in a list; an empty one for any other."""
    try:
        _, _, build, tags = parse_wheel_filename(wheel.filename)
    except InvalidWheelFilename:
        return []
    fitting = [ranks[tag] for tag in tags if tag in ranks]
    return [(min(fitting), build)] if fitting else []


def _index(request: PypiRequest, name: str, indexes: Mapping[str, str]) -> str | None:
    """The index of a row as the manifest writes it, without credentials; None for the default one, pypi.org."""
    asked = [r.index for r in request.requirements if r.name == name and r.index is not None]
    spelled = {_plain(url): redacted(url) for url in reversed([*asked, *request.indexes, *request.find_links])}
    told = indexes.get(name, request.indexes[0])
    index = spelled.get(_plain(told), redacted(told))
    return None if _plain(index) == DEFAULT_INDEX else index


def _plain(url: str) -> str:
    return redacted(url).rstrip("/")


def _git_location(request: PypiRequest, name: str, vcs: _Repository) -> str:
    """`git+https://host/repository?tag=v1&subdirectory=package#<commit>`, as pixi locks it."""
    asked = [r.git for r in (*request.overrides, *request.requirements) if r.name == name and r.git is not None]
    query = []
    if asked:
        references = ((key, getattr(asked[0], key)) for key in ("branch", "tag", "rev"))
        query += [(key, reference) for key, reference in references if reference is not None]
        query += [("lfs", "true")] if asked[0].lfs else []
    elif vcs.requested_revision is not None:
        query.append(("rev", vcs.requested_revision))
    if vcs.subdirectory is not None:
        query.append(("subdirectory", vcs.subdirectory))
    parts = urlsplit(vcs.url)
    text = "&".join(f"{key}={quote(value, safe='/')}" for key, value in query)
    return "git+" + urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, text, vcs.commit_id))


def _lock_path(request: PypiRequest, place: str) -> str:
    """A path as the lock has it: relative to the workspace, unless it lies outside and the manifest says it whole."""
    root = os.path.normpath(request.root.absolute())
    relative = os.path.relpath(place, root)
    if not relative.startswith(".."):
        return "./" if relative == "." else f"./{relative}"
    given = [r.path for r in (*request.requirements, *request.overrides) if r.path is not None]
    given += [link for link in request.find_links if "://" not in link]
    for path in given:
        whole = os.path.normpath(Path(root, path))
        if not Path(path).is_absolute() and (place == whole or place.startswith(f"{whole}/")):
            return relative
    return place
