"""The composition: one workspace, one environment, one platform -> one image.

`build` reads like the product. Nothing of the target runs here, and nothing is named before it is whole: layers are
blobs in the store, and the image exists only in the value returned, until `publish` gives it a name.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from layers.digest import Digest
from layers.entry import Directory
from layers.layer import write_layer
from layers.tree import Segment
from ociforge.app import collect
from ociforge.base.libc import check_base
from ociforge.built import Built, BuiltLayer, built_image
from ociforge.conda.install import install
from ociforge.conda.meta import history_entry, identity
from ociforge.conda.package import Package as CondaPackage
from ociforge.errors import BuildError
from ociforge.events import LayerMade, StageStarted, Warned, ignore
from ociforge.oci.image import assemble
from ociforge.plan import Group, Kind, Member, Recipe, partition
from ociforge.pypi.package import Installation as Wheels
from ociforge.pypi.package import Interpreter, Locked
from ociforge.pypi.package import Package as Wheel
from ociforge.runtime import annotate, runtime
from ociforge.workspace.settings import literal_dollars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future
    from pathlib import Path
    from typing import Any, TypeVar

    from layers.compress import Codec, OrderedMap
    from layers.entry import Entry, File
    from ociforge.base import Base
    from ociforge.conda.package import Installation
    from ociforge.events import Notify
    from ociforge.platform import Platform
    from ociforge.store import Store
    from ociforge.workspace import Environment, ImageSettings, Workspace
    from ociforge.workspace.lockfile import Selection

    _A = TypeVar("_A")
    _B = TypeVar("_B")

__all__ = ["Request", "build", "ordered_map"]

_GRACE = 5.0  # seconds: enough to remove temporary files, too short to miss a second Ctrl-C
_LAYERS_AT_ONCE = 4  # each holds a few blocks; more of them would cost memory, and the blocks keep all workers busy
_KEY = "dev.ociforge.layer.key"
_TITLE = "dev.ociforge.layer.title"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One image to build. `selection` is what the lock holds for `environment`, which is of the workspace's.

    `epoch` is the time, in seconds, of the image and of generated files, None for no time at all (files get 0);
    `clamp` makes it the latest time of any file. `leave_out` are files of the workspace that are no input, such as
    the archive that is about to be written. `environ` is the environment of git and build backends, of which they
    see a part; only packages that the lock has as sources need them.
    """

    workspace: Workspace
    settings: ImageSettings
    environment: Environment
    selection: Selection
    platform: Platform
    base: Base
    codec: Codec
    epoch: int | None = None
    clamp: bool = False
    leave_out: tuple[Path, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """The environment's directory as a path of the image."""
        return self.settings.prefix.strip("/")

    @property
    def mtime(self) -> int:
        """The time of generated files."""
        return self.epoch or 0


def build(request: Request, *, store: Store, workers: int = 1, notify: Notify = ignore) -> Built:
    """Make the image that `request` describes; its layers are in `store` when this returns.

    The result depends on the request alone, not on `workers` or on what the store holds. Raises ForgeError or
    LayerError.
    """
    base, settings, workspace = request.base, request.settings, request.workspace
    for warning in literal_dollars(settings):
        notify(Warned(warning))
    base.tree.refuse_existing(request.prefix, "prefix")
    check_base(
        base,
        glibc=request.environment.platform.version("__glibc"),
        native=any(record.subdir != "noarch" for record in request.selection.records),
    )
    application = _application(request, notify)
    side_by_side = min(workers, _LAYERS_AT_ONCE)
    with (
        store.staging() as staging,
        ordered_map(side_by_side) as over_layers,
        ordered_map(workers, ahead=1) as over_blocks,
    ):
        environment = install(
            request.selection.records,
            prefix=settings.prefix,
            subdir=request.platform.subdir,
            cache=store.archives,
            staging=staging,
            mtime=request.mtime,
            clamp=request.epoch if request.clamp else None,
            notify=notify,
        )
        wheels = _wheels(request, environment, store, staging, over_layers, notify)
        run = runtime(
            request.environment,
            environment.activation,
            settings,
            base,
            manifest=workspace.manifest,
            installed=_paths(*(p.entries for p in environment.packages), *(w.entries for w in wheels.packages)),
            application=_paths(application),
            mtime=request.mtime,
            notify=notify,
        )
        skeleton = _skeleton(request, run.entrypoint)
        _refuse_overlap(application, skeleton, request.prefix)
        jobs = [
            _Job(title="environment", segments=(Segment("environment", skeleton),)),
            *_packages(request, environment, wheels),
            *_workspace_packages(wheels),
            _Job(title="application", segments=(Segment("application", application),)),
        ]
        notify(StageStarted(f"packing {len(jobs)} layers"))
        make = partial(_make, codec=request.codec, store=store, map_=over_blocks, notify=notify)
        layers = tuple(over_layers(make, jobs))
    image = assemble(
        base.config,
        base.layers,
        [(made.layer, f"ociforge: {made.title}", _annotations(made)) for made in layers],
        run.changes,
        annotate(workspace.manifest, settings, base, request.epoch),
        request.epoch,
    )
    return built_image(image, base, layers, store)


@contextmanager
def ordered_map(workers: int, ahead: int | None = None) -> Iterator[OrderedMap]:
    """A lazy `map` over `workers` threads that keeps the order.

    Each call has at most `ahead` items (default: `workers`) under way besides the one whose result is awaited. Calls
    may run side by side, but must not be made from within their own threads. Leaving the context by an exception
    drops what has not begun and waits for the rest, after an interrupt for a few seconds only.
    """
    if workers == 1:
        yield map
        return
    window = workers if ahead is None else ahead
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ociforge")
    begun: set[Future[Any]] = set()

    def over(function: Callable[[_A], _B], items: Iterable[_A], /) -> Iterator[_B]:
        pending: deque[Future[_B]] = deque()

        def first() -> _B:
            future = pending.popleft()
            result = future.result()
            begun.discard(future)
            return result

        for item in items:
            pending.append(pool.submit(function, item))
            begun.add(pending[-1])
            if len(pending) > window:
                yield first()
        while pending:
            yield first()

    grace = None
    try:
        yield over
    except KeyboardInterrupt:
        grace = _GRACE
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        wait([future for future in begun if not future.cancelled()], grace)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A layer to make, unless the store has one under `key`."""

    title: str
    segments: tuple[Segment, ...]
    packages: tuple[str, ...] = ()
    key: Digest | None = None


def _wheels(
    request: Request, environment: Installation, store: Store, staging: Path, map_: OrderedMap, notify: Notify
) -> Wheels:
    """The lock's PyPI packages, installed; the module for that is not imported where there are none."""
    rows, wanted = request.selection.pypi, request.environment.pypi_dependencies
    if not rows:
        return Wheels(packages=(), conflicts=(), overrides=())
    if environment.python is None:
        raise BuildError(
            f"environment `{request.environment.name}` has PyPI packages but no `python`",
            "add `python` to its dependencies, and run `ociforge lock`",
        )
    from ociforge.pypi.install import install as install_wheels

    return install_wheels(
        [
            Locked(
                name=row.name,
                location=row.location,
                version=row.version,
                sha256=None if row.sha256 is None else Digest(row.sha256),
                editable=next((s.editable for s in wanted.get(row.name, ()) if s.editable is not None), False),
            )
            for row in rows
        ],
        prefix=request.settings.prefix,
        python=Interpreter.parse(environment.python),
        platform=request.platform,
        root=request.workspace.root,
        workdir=request.settings.workdir,
        cache=store.archives / "pypi",
        staging=staging / "wheels",
        glibc=request.environment.platform.version("__glibc") or "2.28",
        keep_editable=request.settings.editable,
        taken={
            entry.path.removeprefix(f"{request.prefix}/"): package.name
            for package in environment.packages
            for entry in package.entries
            if not isinstance(entry, Directory)
        },
        mtime=request.mtime,
        environ=request.environ,
        map_=map_,
        notify=notify,
    )


def _application(request: Request, notify: Notify) -> tuple[Entry, ...]:
    """The workspace's files below the working directory, with the directories above them."""
    settings = request.settings
    files = collect(
        request.workspace.root,
        workdir=settings.workdir,
        mtime=request.mtime,
        include=settings.files.include,
        exclude=settings.files.exclude,
        leave_out=request.leave_out,
        notify=notify,
    )
    tree, workdir = request.base.tree, settings.workdir.strip("/")
    (below,) = tree.place([Directory(path=workdir, mtime=request.mtime)])
    return (*tree.parents([below.path], mtime=request.mtime), below, *tree.place(files))


def _skeleton(request: Request, entrypoint: File | None) -> tuple[Entry, ...]:
    """What belongs to the environment and to no package: directories above the prefix, its history, the entrypoint."""
    tree, prefix, mtime = request.base.tree, request.prefix, request.mtime
    if tree.resolve(prefix) != prefix:
        raise BuildError(
            f"prefix `/{prefix}`: the base image has a symbolic link on the way: it is `/{tree.resolve(prefix)}` there",
            "set `prefix` to a path without links: it is written into the environment's files",
        )
    placed = () if entrypoint is None else tree.place([entrypoint])
    return (
        *tree.parents([f"{prefix}/conda-meta", *(entry.path for entry in placed)], mtime=mtime),
        Directory(path=f"{prefix}/conda-meta", mtime=mtime),
        history_entry(prefix, mtime),
        *placed,
    )


def _packages(request: Request, environment: Installation, wheels: Wheels) -> Iterator[_Job]:
    """The layers of what is locked: conda packages, then wheels."""
    # Engines reset a directory that a layer leaves out to 0755 and 0:0: where the base has another one above the
    # prefix, every layer must carry it.
    parents = tuple(
        directory
        for directory in request.base.tree.parents([request.prefix])
        if (directory.mode, directory.uid, directory.gid) != (0o755, 0, 0)
    )
    recipe = Recipe(
        codec=request.codec.identity,
        prefix=request.settings.prefix,
        mtime=request.mtime,
        clamp=request.epoch if request.clamp else None,
        parents=tuple(repr(directory) for directory in parents),
    )
    facts = {record.name.normalized: identity(record) for record in request.selection.records}
    packages: dict[Member, CondaPackage | Wheel] = {
        _conda_member(package, facts[package.name], environment.python): package for package in environment.packages
    }
    packages |= {_wheel_member(wheel, environment.python): wheel for wheel in wheels.packages if not wheel.local}
    together: list[list[tuple[Kind, str]]] = [
        *([("conda", name) for name in (c.winner, *c.losers)] for c in environment.conflicts),
        *([("wheel", name) for name in (c.winner, *c.losers)] for c in wheels.conflicts),
    ]
    known = {member.id for member in packages}
    shared = [ids for ids in together if set(ids) <= known]  # those of the workspace's own packages are not
    for group in partition(packages, budget=request.settings.layers, together=shared):
        yield _Job(
            title=group.title,
            segments=tuple(Segment(m.name, (*parents, *packages[m].entries)) for m in group.members),
            packages=tuple(_shown(packages[m]) for m in group.members),
            key=recipe.key(group.members, _settled(group, environment, wheels)),
        )


def _settled(group: Group, environment: Installation, wheels: Wheels) -> Iterator[tuple[str, ...]]:
    """Who provides the paths that several packages of the group have."""
    names = {member.name for member in group.members}
    kind = group.members[0].kind
    for conflict in environment.conflicts if kind == "conda" else wheels.conflicts:
        if conflict.winner in names:
            yield conflict.path, conflict.winner, *conflict.losers


def _workspace_packages(wheels: Wheels) -> Iterator[_Job]:
    """The layer of packages built from the workspace: it changes with the code, so it lies above all that is locked."""
    if local := [wheel for wheel in wheels.packages if wheel.local]:
        yield _Job(
            title=", ".join(wheel.name for wheel in local),
            segments=tuple(Segment(wheel.name, wheel.entries) for wheel in local),
            packages=tuple(_shown(wheel) for wheel in local),
        )


def _conda_member(package: CondaPackage, record: Digest, python: str | None) -> Member:
    return Member(
        name=package.name,
        version=package.version,
        archive=package.sha256,
        record=record,
        size=package.size,
        python=python if package.noarch_python else None,
    )


def _wheel_member(wheel: Wheel, python: str | None) -> Member:
    return Member(
        kind="wheel",
        name=wheel.name,
        version=wheel.version,
        archive=wheel.sha256,
        record=wheel.record,
        size=wheel.size,
        python=python,
    )


def _shown(package: CondaPackage | Wheel) -> str:
    build = package.build if isinstance(package, CondaPackage) else "pypi"
    return f"{package.name} {package.version} {build}"


def _paths(*packages: Iterable[Entry]) -> frozenset[str]:
    """Every path but the directories'."""
    return frozenset(entry.path for entries in packages for entry in entries if not isinstance(entry, Directory))


def _refuse_overlap(application: Iterable[Entry], skeleton: Iterable[Entry], prefix: str) -> None:
    """Files of the application must not replace the environment's."""
    taken = {entry.path for entry in skeleton if not isinstance(entry, Directory)}
    overlap = [
        f"the application's `/{entry.path}` would replace a file of the environment in the image"
        for entry in application
        if entry.path in taken or entry.path.startswith(f"{prefix}/") or entry.path == prefix
    ]
    if overlap:
        raise BuildError.collect(overlap, "rename it, exclude it in `files`, or choose another `workdir` or `prefix`")


def _make(job: _Job, *, codec: Codec, store: Store, map_: OrderedMap, notify: Notify) -> BuiltLayer:
    """The job's layer, from the catalog when it is known."""
    layer = None if job.key is None else store.catalog.find(job.key)
    reused = layer is not None
    if layer is None:
        with store.ingest() as blob:
            layer = write_layer(job.segments, blob, codec, map_)
            blob.commit()
        if job.key is not None:
            store.catalog.record(job.key, layer)
    notify(LayerMade(job.title, layer.digest, layer.size, reused))
    return BuiltLayer(title=job.title, layer=layer, packages=job.packages, key=job.key, reused=reused)


def _annotations(made: BuiltLayer) -> dict[str, str]:
    """What a later build, anywhere, needs to know to reuse the layer."""
    return {_TITLE: made.title} | ({} if made.key is None else {_KEY: str(made.key)})
