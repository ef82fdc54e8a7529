"""Where PyPI packages come from when it is no index: paths, URLs and git repositories, in a form that compares."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from msgspec import Struct

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.workspace.specs import GitSource, PypiSpec

__all__ = ["GitPlace", "LocalPlace", "Place", "UrlPlace", "comparable_url", "locked_place", "wanted_place"]

_SCP: Final = re.compile(r"(?:[^@/]+@)?([^/:]+):(?!/)(.+)")  # git's short form of ssh: `git@host:path`
_REFERENCES: Final = ("branch", "tag", "rev")
_DIRECT: Final = "direct+"


class LocalPlace(Struct, frozen=True):
    """A file or directory; `path` is absolute and normalised."""

    path: str


class UrlPlace(Struct, frozen=True):
    """An archive by URL, without credentials: locks do not keep them. `direct` is how locks mark it."""

    url: str
    direct: bool = True


class GitPlace(Struct, frozen=True):
    """A repository, without credentials; `reference` is (`branch` | `tag` | `rev`, its name), None the default branch.

    `precise` is false where a lock of format 6 or older has kept the commit only.
    """

    repository: str
    reference: tuple[str, str] | None
    subdirectory: str | None
    lfs: bool = False
    precise: bool = True


Place = LocalPlace | UrlPlace | GitPlace


def wanted_place(spec: PypiSpec, root: Path) -> Place | None:
    """Where a requirement wants its package from; None is an index. Relative paths start at `root`."""
    if spec.git is not None:
        return _git(spec.git, spec.subdirectory)
    if spec.path is not None:
        return LocalPlace(_absolute(spec.path, root))
    if spec.url is None:
        return None
    if (path := _file_path(spec.url)) is not None:
        return LocalPlace(_absolute(path, root))
    return UrlPlace(comparable_url(spec.url))


def locked_place(location: str, root: Path) -> Place:
    """Where a lock's row has its package; a `UrlPlace` that is not `direct` came from an index."""
    if location.startswith("git+"):
        return _locked_git(location.removeprefix("git+"))
    if (path := _file_path(location.removeprefix(_DIRECT))) is not None:
        return LocalPlace(_absolute(path, root))
    return UrlPlace(comparable_url(location.removeprefix(_DIRECT)), direct=location.startswith(_DIRECT))


def comparable_url(url: str) -> str:
    """A URL without credentials, its scheme and host in lower case, a path of its own and no `subdirectory`."""
    parts = _split(url)
    host = parts.netloc.rpartition("@")[2].lower()
    options = [option for option in parts.fragment.split("&") if not option.startswith("subdirectory=")]
    return urlunsplit((parts.scheme.lower(), host, parts.path or "/", parts.query, "&".join(options)))


def _split(url: str) -> SplitResult:
    """The parts of a URL; one that is none has a path only, and so equals nothing but itself."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", url, "", "")


def _file_path(location: str) -> str | None:
    """The path that a location is, if it is one."""
    if location.startswith("file:"):
        return unquote(_split(location).path)
    return None if "://" in location else location


def _absolute(path: str, root: Path) -> str:
    return posixpath.normpath(posixpath.join(root.absolute().as_posix(), path))


def _git(source: GitSource, subdirectory: str | None) -> GitPlace:
    references = [(kind, name) for kind in _REFERENCES if (name := getattr(source, kind)) is not None]
    return GitPlace(
        repository=_repository(source.url.removeprefix("git+")),
        reference=references[0] if references else None,
        subdirectory=_subdirectory(subdirectory or source.subdirectory),
        lfs=source.lfs,
    )


def _locked_git(url: str) -> GitPlace:
    """`https://host/repo?tag=v1&subdirectory=a#COMMIT`; what stands behind an `@` in the path was never kept apart."""
    parts = _split(url)
    options = dict(parse_qsl(parts.query))
    path, marked, _ = parts.path.partition("@")
    references = [(kind, options[kind]) for kind in _REFERENCES if kind in options]
    return GitPlace(
        repository=_repository(urlunsplit((parts.scheme, parts.netloc, path, "", ""))),
        reference=references[0] if references else None,
        subdirectory=_subdirectory(options.get("subdirectory")),
        lfs=options.get("lfs") == "true",
        precise=bool(references or marked),
    )


def _repository(url: str) -> str:
    """Equal for the ways to write one repository: credentials, `.git`, a final slash; GitHub ignores case."""
    short = _SCP.fullmatch(url) if "://" not in url else None
    if short is not None:
        url = f"ssh://{short[1]}/{short[2]}"
    parts = _split(url)
    host = parts.netloc.rpartition("@")[2].lower()
    path = parts.path.rstrip("/").removesuffix(".git")
    return f"{parts.scheme.lower()}://{host}{path.lower() if host == 'github.com' else path}"


def _subdirectory(path: str | None) -> str | None:
    normal = None if path is None else posixpath.normpath(path.strip("/") or ".")
    return None if normal == "." else normal
