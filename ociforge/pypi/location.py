"""Where a locked package comes from, and how its installed metadata may tell it (PEP 610, `direct_url.json`)."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit, urlunsplit

from msgspec import Struct

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.errors import PackageError
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from ociforge.pypi.package import Locked

__all__ = ["Local", "Remote", "Repository", "Source", "Tree", "direct_url", "image_path", "locate"]

_SDISTS = (".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tar.xz")
_GIT_SCHEMES = ("https", "http", "ssh", "git", "file")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class Remote(Struct, frozen=True, kw_only=True):
    """A wheel or source distribution behind http or https. `url` may hold credentials.

    `direct`: asked for by this URL, not found in an index. `subdirectory` belongs to source distributions.
    """

    url: str
    filename: str
    sha256: Digest
    direct: bool
    subdirectory: str = ""


class Local(Struct, frozen=True, kw_only=True):
    """A wheel or source distribution on this machine; without `sha256` the file is taken as it is."""

    path: Path
    filename: str
    sha256: Digest | None
    subdirectory: str = ""


class Tree(Struct, frozen=True, kw_only=True):
    """A source tree on this machine."""

    path: Path


class Repository(Struct, frozen=True, kw_only=True):
    """A commit of a git repository. `url` may hold credentials; `requested` is the branch, tag or revision asked for.

    `lfs`: files in Git LFS are fetched too.
    """

    url: str
    commit: str
    requested: str | None = None
    subdirectory: str = ""
    lfs: bool = False


Source = Remote | Local | Tree | Repository


def locate(locked: Locked, root: Path) -> Source:
    """Where the package is; paths are relative to `root`.

    A file behind http must have a sha256, from the lock's row or in the URL's fragment (`#sha256=…`): pixi locks none
    for direct URLs. A file of this machine may do without: like the application, it is an input as it lies there.
    Raises PackageError for a location that nothing can be installed from.
    """
    text = locked.location.removeprefix("direct+")
    if _UNPRINTABLE.search(text):
        raise PackageError(f"`{locked.name}` is locked at an address with control characters")
    parts = _split(locked, text)
    if parts is None:
        return _on_disk(locked, Path(os.path.normpath(root.absolute() / text)), "")
    if parts.scheme.startswith("git+"):
        return _repository(locked, parts)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise PackageError(f"`{locked.name}` is locked at `{redacted(text)}`, which is on another machine")
        place = Path(os.path.normpath(os.fsdecode(unquote(parts.path, errors="surrogateescape"))))
        return _on_disk(locked, place, _fragment(parts, "subdirectory"))
    if parts.scheme in ("https", "http") and parts.hostname:
        return _remote(locked, parts)
    raise PackageError(f"`{locked.name}` is locked at `{redacted(text)}`: nothing is known about such addresses")


def image_path(path: Path, *, root: Path, workdir: str) -> str | None:
    """Where the workspace's `path` is in the image, None when it lies outside the workspace."""
    relative = os.path.relpath(path, os.path.normpath(root.absolute()))
    if relative.split("/")[0] == "..":
        return None
    return os.path.normpath(f"{workdir}/{relative}")


def direct_url(source: Source, *, place: str | None, digest: Digest | None, editable: bool) -> bytes | None:
    """The text of `direct_url.json`, None for what comes from an index: no credential, no path of this machine.

    A path of this machine is told as its `place` in the image; without one, by its last component. `digest` is that
    of the archive.
    """
    document: dict[str, object]
    match source:
        case Remote(direct=False):
            return None
        case Remote():
            document = {"url": redacted(source.url), "archive_info": _hashes(digest)}
        case Local():
            document = {"url": _image_url(source.path, place), "archive_info": _hashes(digest)}
        case Tree():
            document = {
                "url": _image_url(source.path, place),
                "dir_info": {"editable": True} if editable else {},
            }
        case Repository():
            requested = {"requested_revision": source.requested} if source.requested else {}
            document = {
                "url": _git_url(source.url),
                "vcs_info": {"vcs": "git", "commit_id": source.commit, **requested},
            }
    if not isinstance(source, Tree) and source.subdirectory:
        document["subdirectory"] = source.subdirectory
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _hashes(digest: Digest | None) -> dict[str, object]:
    return {} if digest is None else {"hashes": {"sha256": digest.hex}}


def _image_url(path: Path, place: str | None) -> str:
    return f"file://{quote(place or f'/{path.name}')}"


def _git_url(url: str) -> str:
    """The user of an ssh address is part of it; a password never is, nor is a directory of this machine."""
    user = urlsplit(url).username
    shown = redacted(url)
    if url.startswith("file:"):
        return f"file:///{shown.rstrip('/').rpartition('/')[2]}"
    return shown.replace("://", f"://{user}@", 1) if user and url.startswith("ssh:") else shown


def _split(locked: Locked, text: str) -> SplitResult | None:
    """The parts of a URL, None for a path."""
    if "://" not in text:
        return None
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise PackageError(f"`{locked.name}` is locked at `{redacted(text)}`, which is no URL") from error
    return parts


def _remote(locked: Locked, parts: SplitResult) -> Remote:
    url = urlunsplit(parts._replace(fragment=""))
    stated = _fragment(parts, "sha256")
    try:
        digest = locked.sha256 or (Digest(stated.lower()) if stated else None)
    except DigestError as error:
        raise PackageError(f"`{locked.name}` is locked with a sha256 that is none: `{stated}`") from error
    if digest is None:
        raise PackageError(
            f"the lock names no sha256 for `{locked.name}`: `{redacted(url)}` cannot be verified",
            "lock it with `ociforge lock`, or add `#sha256=<64 hex digits>` to the URL in the manifest",
        )
    if stated and digest.hex != stated.lower():
        raise PackageError(f"`{locked.name}` is locked with two sha256: `{digest.hex}` and `{stated}`")
    return Remote(
        url=url,
        filename=_filename(locked, unquote(parts.path.rpartition("/")[2])),
        sha256=digest,
        direct=locked.location.startswith("direct+"),
        subdirectory=_fragment(parts, "subdirectory"),
    )


def _on_disk(locked: Locked, path: Path, subdirectory: str) -> Local | Tree:
    if path.is_dir():
        return Tree(path=path)
    if not path.is_file():
        raise PackageError(
            f"`{locked.name}` is locked at `{locked.location}`, which does not exist",
            "update the lock, or restore the file or directory",
        )
    filename = _filename(locked, path.name)
    return Local(path=path, filename=filename, sha256=locked.sha256, subdirectory=subdirectory)


def _repository(locked: Locked, parts: SplitResult) -> Repository:
    """A row as pixi writes it: `git+https://host/repository?tag=v1&subdirectory=package#<commit>`."""
    scheme = parts.scheme.removeprefix("git+")
    url = urlunsplit((scheme, parts.netloc, parts.path, "", ""))
    if scheme not in _GIT_SCHEMES:
        raise PackageError(f"`{locked.name}` is locked at a git repository by `{scheme}`, which is not supported")
    if not _COMMIT.fullmatch(parts.fragment):
        raise PackageError(
            f"`{locked.name}` is locked at the git repository `{redacted(url)}` without a whole commit id",
            "update the lock with a current pixi",
        )
    query = parse_qs(parts.query)
    asked = [query[key][0] for key in ("rev", "tag", "branch") if key in query]
    return Repository(
        url=url,
        commit=parts.fragment,
        requested=asked[0] if asked else None,
        subdirectory=query.get("subdirectory", [""])[0],
        lfs=query.get("lfs", ["false"])[0] == "true",
    )


def _fragment(parts: SplitResult, key: str) -> str:
    return parse_qs(parts.fragment).get(key, [""])[0]


def _filename(locked: Locked, name: str) -> str:
    if "/" in name or _UNPRINTABLE.search(name) or not name.endswith((".whl", *_SDISTS)):
        raise PackageError(
            f"`{locked.name}` is locked at a file that is neither a wheel nor a source distribution: `{name}`",
            f"expected a name that ends in {', '.join(f'`{suffix}`' for suffix in ('.whl', *_SDISTS))}",
        )
    return name
