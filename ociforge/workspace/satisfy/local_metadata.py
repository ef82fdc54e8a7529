"""What a source tree says of itself, without running anything, against what the lock noted when it was solved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ociforge.errors import WorkspaceError
from ociforge.workspace.reading import read_toml
from ociforge.workspace.satisfy.marker_equivalence import equivalent
from ociforge.workspace.satisfy.pypi_places import GitPlace, Place, wanted_place
from ociforge.workspace.specs import GitSource, PypiSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from ociforge.workspace.lockfile import PypiRow

__all__ = ["Metadata", "differences", "read_metadata"]

_DEPTH: Final = 16  # of extras that name extras of the same project
_ALWAYS: Final = 'python_version >= "0"'
_LIMIT: Final = 2_000  # requirements of one project; what has more is left to a build


class Metadata(Struct, frozen=True, kw_only=True):
    """Static metadata; `version` is None when it is dynamic.

    `sources` is where uv is told to take requirements from (`tool.uv.sources`); None in it is a place only uv knows.
    """

    version: Version | None
    requires_dist: tuple[Requirement, ...]
    requires_python: SpecifierSet | None
    sources: Mapping[str, tuple[Place | None, ...]] = field(default_factory=dict)


def read_metadata(directory: Path) -> Metadata | None:
    """What the `pyproject.toml` of a tree states; None when it leaves the dependencies to a build or cannot be read.

    Then the lock is trusted, as pixi does: to know more, code of the tree would have to run.
    """
    if not (directory / "pyproject.toml").is_file():
        return None
    try:
        return _metadata(read_toml(directory / "pyproject.toml"), directory)
    except (WorkspaceError, InvalidRequirement, InvalidSpecifier, InvalidVersion, TypeError, AttributeError):
        return None


def _metadata(document: Mapping[str, Any], directory: Path) -> Metadata | None:
    """Raises whatever odd types lead to; `read_metadata` takes all of it for "cannot be read"."""
    project, tool = document.get("project"), document.get("tool", {})
    if not isinstance(project, dict):
        return None
    dynamic = set(project.get("dynamic", ()))
    if ("poetry" in tool and "dependencies" not in project) or dynamic & {"dependencies", "optional-dependencies"}:
        return None
    requirements = [Requirement(text) for text in project.get("dependencies", ())]
    for extra, texts in project.get("optional-dependencies", {}).items():
        requirements += [_only_with(extra, Requirement(text)) for text in texts]
    if len(requirements) > _LIMIT:
        return None
    version, python = project.get("version"), project.get("requires-python")
    sources = tool.get("uv", {}).get("sources", {})
    return Metadata(
        version=None if version is None or "version" in dynamic else Version(version),
        requires_dist=tuple(requirements),
        requires_python=None if python is None else SpecifierSet(python),
        sources={canonicalize_name(name): _sources(value, directory) for name, value in sources.items()},
    )


def _only_with(extra: str, requirement: Requirement) -> Requirement:
    condition = f'extra == "{canonicalize_name(extra)}"'
    marker = _marker(requirement)
    return _with_marker(requirement, condition if marker is None else f"({marker}) and {condition}")


def _sources(value: Any, directory: Path) -> tuple[Place | None, ...]:
    """The places of one entry of `tool.uv.sources`: a table, or several for different environments."""
    return tuple(_source(table, directory) for table in (value if isinstance(value, list) else [value]))


def _source(table: Mapping[str, Any], directory: Path) -> Place | None:
    subdirectory, git = table.get("subdirectory"), None
    if "git" in table:
        branch, tag, rev = (table.get(kind) for kind in ("branch", "tag", "rev"))
        git = GitSource(url=table["git"], branch=branch, tag=tag, rev=rev, subdirectory=subdirectory)
    spec = PypiSpec(name="", where="", path=table.get("path"), url=table.get("url"), git=git)
    return wanted_place(spec, directory)


# --- comparing


def differences(row: PypiRow, tree: Metadata, root: Path) -> list[str]:
    """What has changed since the tree was locked, in words; `root` is where the lock's relative paths start."""
    found = []
    added, removed = _compare(row, tree, root)
    if added:
        found.append(f"it now depends on {_listed(added)}")
    if removed:
        found.append(f"it no longer depends on {_listed(removed)}")
    # Formats before 7 keep no version of a tree that counts, and later ones only one that was static.
    if tree.version is not None and row.version is not None and Version(row.version) != tree.version:
        found.append(f"its version is `{tree.version}`, in the lock `{row.version}`")
    locked = None if row.requires_python is None else SpecifierSet(row.requires_python)
    if locked != tree.requires_python:
        found.append(f"its `requires-python` is {_shown(tree.requires_python)}, in the lock {_shown(locked)}")
    return found


def _compare(row: PypiRow, tree: Metadata, root: Path) -> tuple[list[Requirement], list[Requirement]]:
    """Requirements of the tree that the lock lacks, and those of the lock that the tree lacks."""
    name = canonicalize_name(row.name)
    locked = _flattened([Requirement(text) for text in row.requires_dist], name)
    current = _flattened(tree.requires_dist, name)
    added = [ours for ours in current if not any(_same(ours, theirs, tree, root) for theirs in locked)]
    removed = [theirs for theirs in locked if not any(_same(ours, theirs, tree, root) for ours in current)]
    return added, removed


def _same(ours: Requirement, theirs: Requirement, tree: Metadata, root: Path) -> bool:
    name = canonicalize_name(ours.name)
    if name != canonicalize_name(theirs.name) or _extras(ours) != _extras(theirs):
        return False
    if theirs.url is None:
        if ours.url is not None or ours.specifier != theirs.specifier:
            return False
    else:
        places = tree.sources.get(name, ()) if ours.url is None else (_place(ours, root),)
        if not any(place is None or _comparable(place) == _comparable(_place(theirs, root)) for place in places):
            return False
    return equivalent(_marker(ours), _marker(theirs))


def _place(requirement: Requirement, root: Path) -> Place | None:
    return wanted_place(PypiSpec.of_requirement(str(requirement), ""), root)


def _comparable(place: Place | None) -> object:
    """A requirement's text cannot tell whether a git reference is a branch, a tag or a commit."""
    if not isinstance(place, GitPlace):
        return place
    return place.repository, place.reference and place.reference[1], place.subdirectory


def _extras(requirement: Requirement) -> set[str]:
    return {canonicalize_name(extra) for extra in requirement.extras}


def _marker(requirement: Requirement) -> str | None:
    return None if requirement.marker is None else str(requirement.marker)


def _with_marker(requirement: Requirement, marker: str) -> Requirement:
    copy = Requirement(str(requirement))
    copy.marker = None
    return Requirement(f"{copy} ; {marker}")


def _flattened(requirements: Iterable[Requirement], name: str) -> list[Requirement]:
    """The requirements with `name[extra]`, the project itself, replaced by what the extra stands for."""
    listed = list(requirements)
    own = [requirement for requirement in listed if canonicalize_name(requirement.name) == name]
    known = {str(requirement): requirement for requirement in listed if requirement not in own}
    for _ in range(_DEPTH if own else 0):
        more = {str(new): new for reference in own for new in _expanded(reference, list(known.values()))}
        if more.keys() <= known.keys() or len(known) > _LIMIT:
            break
        known |= more
    return list(known.values())


def _expanded(reference: Requirement, requirements: list[Requirement]) -> list[Requirement]:
    """What `name[a, b]; condition` brings: the requirements of `a` and `b`, under its own condition."""
    condition = _marker(reference) or _ALWAYS
    found = []
    for extra in sorted(_extras(reference)):
        wanted = f'extra == "{extra}"'
        for requirement in requirements:
            text = _marker(requirement) or ""
            if wanted in text:
                found.append(_with_marker(requirement, text.replace(wanted, f"({condition})")))
    return found


def _listed(requirements: Iterable[Requirement]) -> str:
    return ", ".join(f"`{requirement}`" for requirement in requirements)


def _shown(value: object) -> str:
    return "none" if value is None else f"`{value}`"
