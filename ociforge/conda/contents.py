"""What is inside an archive, as far as it must be known before rattler links it."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec
from rattler.package_streaming import PackageArchive

from ociforge.conda.translate import RATTLER_ERRORS, reason
from ociforge.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ociforge.conda.fetch import Archive

__all__ = ["SMALLEST_LINK", "hard_links"]

# A second name of a smaller file is written as a file of its own: it costs less than unpacking the archive once
# more to find such links. A property of the archive alone, so the result is the same everywhere.
SMALLEST_LINK = 64 << 10  # 64 KiB


class _Path(msgspec.Struct, frozen=True):
    path: str = msgspec.field(name="_path")
    path_type: str = "hardlink"
    sha256: str | None = None
    size_in_bytes: int | None = None


class _Paths(msgspec.Struct, frozen=True):
    paths: list[_Path]


async def hard_links(archive: Archive) -> Mapping[str, str]:
    """Second names in `archive`: path -> the member that it is a hard link to, for files from SMALLEST_LINK up.

    They are read from the archive's tar headers, never from inodes, which a copied or deduplicated cache changes.
    Checks all paths on the way and raises PackageError for one that leads out of the prefix (rattler would follow it
    or abort the process) and for what rattler cannot link.
    """
    try:
        package = await PackageArchive.from_path(archive.path)
        paths = await _paths(archive, package)
        _check(archive, paths)
        if not _has_twins(paths):
            return {}
        links = {
            _normal(entry.name): _normal(entry.link_target)
            async for entry in package.stream("pkg")
            if entry.is_hardlink and entry.link_target
        }
    except RATTLER_ERRORS as error:
        raise PackageError(f"reading `{archive.record.file_name}`: {reason(error)}") from error
    return {path: _first(path, links) for path in links}


async def _paths(archive: Archive, package: PackageArchive) -> list[_Path]:
    """The package's paths; archives older than `paths.json` list them in `info/files`."""
    document = await package.read_file("info/paths.json")
    if document is not None:
        return msgspec.json.decode(document, type=_Paths).paths
    listing = await package.read_file("info/files")
    if listing is None:
        raise PackageError(f"`{archive.record.file_name}` is no conda package: it lists no files")
    return [_Path(line.strip()) for line in listing.decode().splitlines() if line.strip()]


def _check(archive: Archive, paths: Iterable[_Path]) -> None:
    name = archive.record.file_name
    problems = []
    for entry in paths:
        if not {"", ".", ".."}.isdisjoint(entry.path.split("/")) or "\0" in entry.path:
            problems.append(f"`{name}` ships `{entry.path}`, which is no plain path inside the prefix")
        elif entry.path_type == "directory":
            problems.append(f"`{name}` ships the directory `{entry.path}` as such, which rattler cannot install")
    if problems:
        raise PackageError.collect(problems, "report it to the package's maintainers, or lock another build of it")


def _has_twins(paths: Iterable[_Path]) -> bool:
    """Whether two files have the same content: hard links are among such, if there are any."""
    counts = Counter(entry.sha256 for entry in paths if (entry.size_in_bytes or 0) >= SMALLEST_LINK and entry.sha256)
    return any(count > 1 for count in counts.values())


def _normal(path: str) -> str:
    return str(PurePosixPath(path))


def _first(path: str, links: Mapping[str, str]) -> str:
    """The member at the end of a chain of links; tar allows a link to name a link."""
    seen = set()
    while path in links and path not in seen:
        seen.add(path)
        path = links[path]
    return path
