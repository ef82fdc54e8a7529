"""What builds need from elsewhere: conda archives, wheels, sources to build, and base images.

Known from the manifest, the lock and the settings alone, so that all of it can be fetched, or named as missing, at
once: nothing is read here but what the lock names on this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from layers.digest import Digest
from ociforge.conda.fetch import archive_digest
from ociforge.conda.survey import interpreter
from ociforge.errors import BuildError, LockError, PackageError
from ociforge.platform import Platform
from ociforge.pypi.jobs import plan
from ociforge.pypi.location import Local, Remote
from ociforge.pypi.package import Interpreter, Locked
from ociforge.pypi.provided import Origin
from ociforge.pypi.tags import Target
from ociforge.workspace.lockfile import select

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from ociforge.conda.solve import Record
    from ociforge.pypi.jobs import Job
    from ociforge.workspace import Environment, ImageSettings, Workspace
    from ociforge.workspace.lockfile import Lock, PypiRow, Selection

__all__ = ["Needs", "Wanted", "locked_rows", "needs", "wanted"]

_GLIBC = "2.28"  # what an environment has that declares none


class Wanted(Struct, frozen=True, kw_only=True):
    """One image that is to be built; `selection` is what the lock holds for `environment`."""

    settings: ImageSettings
    environment: Environment
    platform: Platform
    selection: Selection


class Needs(Struct, frozen=True, kw_only=True):
    """What all of some images need, each thing once, in an order that does not depend on theirs.

    `wheels` are locked with a digest; `builds` are source distributions and commits, whose wheels have to be built, for
    each target; `trees` are packages built from files of this machine, of which what their build requires is needed.
    Wheels that are locked by a path without a digest belong to the workspace, as its code does, and are left out.
    `bases` are named as in the settings, without `scratch`.
    """

    records: tuple[Record, ...]
    wheels: tuple[Job, ...]
    builds: tuple[tuple[Job, Target], ...]
    trees: tuple[Job, ...]
    bases: tuple[tuple[str, Platform], ...]


def wanted(
    workspace: Workspace,
    lock: Lock,
    *,
    images: Sequence[str] = (),
    environments: Sequence[str] = (),
    platforms: Sequence[Platform] | None = (),
) -> tuple[Wanted, ...]:
    """The images that these options ask for, in an order that does not depend on theirs.

    Without `images` all of the workspace's are meant, or, with `environments`, those of them; where the workspace
    names none, its settings are taken for each of `environments`. No `platforms` are what `build` takes: `linux/amd64`
    or the only one that is locked; None are all Linux platforms that the environment is locked for. Raises
    WorkspaceError, LockError or BuildError for what there is not.
    """
    found: dict[tuple[str, str, str], Wanted] = {}
    for settings in _settings(workspace, images, environments):
        locked = [Platform.from_subdir(subdir) for subdir in _linux_subdirs(lock, settings.environment)]
        default = locked if len(locked) == 1 else [Platform.from_subdir("linux-64")]
        for platform in locked if platforms is None else platforms or default:
            environment = workspace.environment(settings.environment, platform.subdir)
            key = settings.name or "", settings.environment, str(platform)
            found[key] = Wanted(
                settings=workspace.settings.image(
                    settings.name, {"environment": settings.environment}, platform=platform
                ),
                environment=environment,
                platform=platform,
                selection=select(lock, settings.environment, environment.platform),
            )
    return tuple(found[key] for key in sorted(found))


def needs(images: Iterable[Wanted], *, root: Path) -> Needs:
    """What the `images` of the workspace `root` need. Raises PackageError, with everything that cannot be had."""
    asked = list(images)
    records = {archive_digest(record): record for image in asked for record in image.selection.records}
    jobs = _jobs(asked, root)
    wheels = {
        job.source.sha256.hex: job
        for job, _ in jobs
        if job.is_wheel and isinstance(job.source, Remote | Local) and job.source.sha256 is not None
    }
    known = [(job, target, Origin.of(job.source)) for job, target in jobs if not job.is_wheel]
    builds = {(origin, str(target)): (job, target) for job, target, origin in known if origin is not None}
    trees = {(job.editable, repr(job.source)): job for job, _, origin in known if origin is None}
    bases = {(image.settings.base, str(image.platform)): image.platform for image in asked}
    return Needs(
        records=tuple(records[key] for key in sorted(records)),
        wheels=tuple(wheels[key] for key in sorted(wheels)),
        builds=tuple(builds[key] for key in sorted(builds)),
        trees=tuple(trees[key] for key in sorted(trees)),
        bases=tuple((base, bases[base, text]) for base, text in sorted(bases) if base != "scratch"),
    )


def _settings(workspace: Workspace, images: Sequence[str], environments: Sequence[str]) -> Iterator[ImageSettings]:
    settings = workspace.settings
    for name in images or settings.images or [None]:
        own = settings.image(name)
        if images or not settings.images:
            yield from (settings.image(name, {"environment": other}) for other in environments or [own.environment])
        elif not environments or own.environment in environments:
            yield own
    if settings.images and not images and (unknown := sorted(set(environments) - set(_environments(workspace)))):
        listed = ", ".join(f"`{name}`" for name in unknown)
        raise BuildError(f"no image of the workspace has the environment {listed}", "choose an image with `--image`")


def _environments(workspace: Workspace) -> Iterator[str]:
    return (workspace.settings.image(name).environment for name in workspace.settings.images)


def _linux_subdirs(lock: Lock, environment: str) -> list[str]:
    """Those that the environment is locked for. Raises LockError when there are none."""
    found = sorted({row.subdir for row in lock.environment(environment).platforms if row.subdir.startswith("linux-")})
    if not found:
        raise LockError(
            f"`{lock.path.name}` locks `{environment}` for no Linux platform",
            "add one to `workspace.platforms`, and run `ociforge lock`",
        )
    return found


def _jobs(images: Iterable[Wanted], root: Path) -> list[tuple[Job, Target]]:
    jobs: list[tuple[Job, Target]] = []
    errors: list[PackageError] = []
    for image in images:
        try:
            jobs += _pypi(image, root)
        except PackageError as error:
            errors.append(error)
    if errors:
        hints = dict.fromkeys(error.hint for error in errors if error.hint)
        raise PackageError.collect(list(dict.fromkeys(e.message for e in errors)), "; ".join(hints) or None)
    return jobs


def locked_rows(environment: Environment, rows: Iterable[PypiRow]) -> list[Locked]:
    """The lock's PyPI rows for `environment`, with what only the manifest tells of them."""
    asked = environment.pypi_dependencies
    return [
        Locked(
            name=row.name,
            location=row.location,
            version=row.version,
            sha256=None if row.sha256 is None else Digest(row.sha256),
            editable=next((s.editable for s in asked.get(row.name, ()) if s.editable is not None), False),
        )
        for row in rows
    ]


def _pypi(image: Wanted, root: Path) -> list[tuple[Job, Target]]:
    rows, python = image.selection.pypi, interpreter(image.selection.records)
    if not rows:
        return []
    if python is None:
        raise PackageError(
            f"environment `{image.environment.name}` has PyPI packages but no `python`",
            "add `python` to its dependencies, and run `ociforge lock`",
        )
    locked = locked_rows(image.environment, rows)
    glibc = image.environment.platform.version("__glibc") or _GLIBC
    target = Target.of(Interpreter.parse(str(python)), image.platform, glibc)
    settings = image.settings
    jobs = plan(locked, root=root, workdir=settings.workdir, keep_editable=settings.editable, target=target)
    return [(job, target) for job in jobs]
