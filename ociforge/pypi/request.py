"""What PyPI requirements are resolved from and to: plain values, so that the manifest's meaning stays elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from ociforge.pypi.machine import Machine

__all__ = ["DEFAULT_INDEX", "PROJECT", "Distribution", "GitReference", "PypiRequest", "Requirement"]

DEFAULT_INDEX: Final = "https://pypi.org/simple"
PROJECT: Final = "ociforge-request"  # nobody's name: that of the project whose dependencies uv resolves


class GitReference(Struct, frozen=True, kw_only=True):
    """A git repository and at most one of `branch`, `tag` and `rev`."""

    url: str
    branch: str | None = None
    tag: str | None = None
    rev: str | None = None
    subdirectory: str | None = None
    lfs: bool = False


class Requirement(Struct, frozen=True, kw_only=True):
    """One requirement; at most one of `index`, `path`, `url` and `git` says where it is to come from.

    `name` is normalised, `specifier` PEP 440 or empty, `path` relative to the workspace or absolute.
    """

    name: str
    specifier: str = ""
    extras: tuple[str, ...] = ()
    markers: str | None = None
    index: str | None = None
    path: str | None = None
    url: str | None = None
    subdirectory: str | None = None
    git: GitReference | None = None

    @property
    def text(self) -> str:
        """The requirement in the form of PEP 508, without its place."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return f"{self.name}{extras}{self.specifier}" + (f" ; {self.markers}" if self.markers else "")


class PypiRequest(Struct, frozen=True, kw_only=True):
    """What to resolve. `what` names it in messages: "environment `prod` on `linux-64`".

    `provided`: name -> version of the distributions that conda packages bring. `indexes` are URLs, the primary one
    first; `find_links` are URLs or paths, which start at `root`, the workspace, as those of requirements do. A set of
    names is "these", True "all". `preferred`: name -> version to keep where it fits. Times have a time zone.
    """

    what: str
    requirements: tuple[Requirement, ...]
    machine: Machine
    root: Path
    provided: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[Requirement, ...] = ()
    indexes: tuple[str, ...] = (DEFAULT_INDEX,)
    find_links: tuple[str, ...] = ()
    index_strategy: str | None = None
    prerelease_mode: str | None = None
    no_build: frozenset[str] | bool = False
    no_binary: frozenset[str] | bool = False
    no_build_isolation: frozenset[str] | bool = False
    skip_wheel_filename_check: bool = False
    cutoff: datetime | None = None
    package_cutoffs: Mapping[str, datetime] = field(default_factory=dict)
    preferred: Mapping[str, str] = field(default_factory=dict)


class Distribution(Struct, frozen=True, kw_only=True):
    """A row for the lock. `location` is a URL or a path in the lock's form, `index` None for pypi.org and for files."""

    name: str
    version: str | None
    location: str
    sha256: str | None = None
    index: str | None = None
    requires_dist: tuple[str, ...] = ()
    requires_python: str | None = None
