"""Rows of the lock -> what has to be done for each, and what its wheel must be."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import Struct
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ociforge.errors import PackageError
from ociforge.events import Warned
from ociforge.pypi.gather import gather
from ociforge.pypi.location import Local, Remote, Repository, Source, Tree, direct_url, image_path, locate
from ociforge.pypi.project import Project
from ociforge.pypi.tags import Filename

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from layers.digest import Digest
    from ociforge.pypi.fetch import Archive
    from ociforge.pypi.package import Locked
    from ociforge.pypi.tags import Target

__all__ = ["Job", "editables_warning", "plan"]


class Job(Struct, frozen=True, kw_only=True):
    """A package to install. `name` is normalised; `place` is its source tree in the image, None outside of it.

    `editable`: it is to stay so, and points to `place`.
    """

    name: str
    locked: Locked
    source: Source
    place: str | None = None
    editable: bool = False

    @property
    def local(self) -> bool:
        """Whether it is built from a source tree of this machine."""
        return isinstance(self.source, Tree)

    @property
    def is_wheel(self) -> bool:
        """Whether there is nothing to build."""
        return isinstance(self.source, Remote | Local) and self.source.filename.endswith(".whl")

    def direct_url(self, digest: Digest | None) -> bytes | None:
        """The text of `direct_url.json`; `digest` is that of the file that is locked."""
        return direct_url(self.source, place=self.place, digest=digest, editable=self.editable)

    def project(self, archive: Archive | None) -> Project:
        """What to build, from `archive` when it is a source distribution."""
        source = self.source
        if archive is not None and isinstance(source, Remote | Local):
            return Project(name=self.name, source=archive, subdirectory=source.subdirectory)
        if isinstance(source, Repository):
            return Project(name=self.name, source=source, subdirectory=source.subdirectory)
        assert isinstance(source, Tree)
        return Project(name=self.name, source=source, image=self.place if self.editable else None)

    def check(self, filename: Filename, target: Target) -> None:
        """Raises PackageError when a wheel of that name is not what the lock names or does not fit."""
        if filename.name != self.name:
            raise PackageError(f"`{self.locked.name}` is locked at a wheel of another package: `{filename}`")
        # A tree's version may move on without the lock, as pixi's `--frozen` allows.
        stated = None if self.local else self.locked.version
        if stated is not None and _version(stated) != filename.version:
            raise PackageError(
                f"`{self.locked.name} {stated}` is locked at a wheel of version {filename.version}: `{filename}`",
                "update the lock",
            )
        if self.is_wheel:
            target.check(filename)
        elif not target.fits(filename):
            raise PackageError(
                f"`{self.name}` has compiled parts: it was built as `{filename}` on this machine, which does not fit"
                f" {target}",
                "lock a wheel of it or take it from a conda channel; or build on a machine of that platform, with"
                " ociforge run by that Python",
            )


def plan(locked: Iterable[Locked], *, root: Path, workdir: str, keep_editable: bool, target: Target) -> list[Job]:
    """The jobs by name; what can be refused before anything is fetched is refused, with all reasons."""
    rows = sorted(locked, key=lambda row: (canonicalize_name(row.name), row.location))
    jobs = gather(partial(_job, root=root, workdir=workdir, keep_editable=keep_editable, target=target), rows)
    twice = {job.name for job, following in pairwise(jobs) if job.name == following.name}
    if twice:
        raise PackageError.collect([f"`{name}` is locked twice" for name in sorted(twice)], "update the lock")
    return jobs


def editables_warning(jobs: Sequence[Job]) -> Warned | None:
    """That packages which the manifest has as editable are not."""
    names = [f"`{job.name}`" for job in jobs if job.locked.editable and not job.editable]
    if not names:
        return None
    verb = "is" if len(names) == 1 else "are"
    return Warned(
        f"{', '.join(names)} {verb} editable in the manifest and installed as usual: an image never points outside"
        " itself",
        "for an image to develop with, set `editable = true` in its settings",
    )


def _job(row: Locked, *, root: Path, workdir: str, keep_editable: bool, target: Target) -> Job:
    source = locate(row, root)
    place = image_path(source.path, root=root, workdir=workdir) if isinstance(source, Tree | Local) else None
    editable = row.editable and keep_editable
    if editable and (place is None or not isinstance(source, Tree)):
        raise PackageError(
            f"`{row.name}` cannot stay editable: its source is not in the workspace, so not in the image",
            "move it into the workspace, or leave `editable` off in the image's settings",
        )
    job = Job(name=canonicalize_name(row.name), locked=row, source=source, place=place, editable=editable)
    if job.is_wheel and isinstance(source, Remote | Local):
        job.check(Filename.parse(source.filename), target)
    return job


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None
