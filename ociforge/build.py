"""The composition: one workspace, one environment, one platform -> one image.

`build` reads like the product. Nothing of the target runs here, and nothing is named before it is whole: layers are
blobs in the store, and the image exists only in the value returned, until `publish` gives it a name.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from layers.entry import Directory
from layers.layer import write_layer
from layers.tree import Segment
from ociforge.app import collect
from ociforge.built import Built, BuiltLayer, built_image
from ociforge.conda.install import install
from ociforge.conda.meta import history_entry, identity
from ociforge.errors import BuildError
from ociforge.events import LayerMade, StageStarted, ignore
from ociforge.oci.image import assemble
from ociforge.plan import Member, Recipe, partition
from ociforge.runtime import annotate, runtime
from ociforge.workspace.lockfile import select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path
    from typing import Any, TypeVar

    from layers.compress import Codec, OrderedMap
    from layers.digest import Digest
    from layers.entry import Entry, File
    from ociforge.base import Base
    from ociforge.conda.package import Installation, Package
    from ociforge.events import Notify
    from ociforge.platform import Platform
    from ociforge.store import Store
    from ociforge.workspace import ImageSettings, Workspace
    from ociforge.workspace.lockfile import Lock, Selection
    from ociforge.workspace.platforms import WorkspacePlatform

    _A = TypeVar("_A")
    _B = TypeVar("_B")

__all__ = ["Request", "build", "ordered_map"]

_GRACE = 5.0  # seconds: enough to remove temporary files, too short to miss a second Ctrl-C
_KEY = "dev.ociforge.layer.key"
_TITLE = "dev.ociforge.layer.title"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One image to build. `lock` has been found to fit the workspace, or the user has waived that.

    `epoch` is the time, in seconds, of the image and of generated files, None for no time at all (files get 0);
    `clamp` makes it the latest time of any file. `leave_out` are files of the workspace that are no input, such as
    the archive that is about to be written.
    """

    workspace: Workspace
    settings: ImageSettings
    lock: Lock
    platform: Platform
    base: Base
    codec: Codec
    epoch: int | None = None
    clamp: bool = False
    leave_out: tuple[Path, ...] = ()

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
    environment = workspace.environment(settings.environment, request.platform.subdir)
    selection = _select(request, environment.platform)
    base.tree.refuse_existing(request.prefix, "prefix")
    application = _application(request, notify)
    with store.staging() as staging:
        installation = install(
            selection.records,
            prefix=settings.prefix,
            subdir=request.platform.subdir,
            cache=store.archives,
            staging=staging,
            mtime=request.mtime,
            clamp=request.epoch if request.clamp else None,
            notify=notify,
        )
        run = runtime(
            environment,
            installation,
            settings,
            base,
            manifest=workspace.manifest,
            application={entry.path for entry in application},
            mtime=request.mtime,
            notify=notify,
        )
        skeleton = _skeleton(request, run.entrypoint)
        _refuse_overlap(application, skeleton, request.prefix)
        jobs = [
            _Job(title="environment", segments=(Segment("environment", skeleton),)),
            *_packages(request, selection, installation),
            _Job(title="application", segments=(Segment("application", application),)),
        ]
        notify(StageStarted(f"packing {len(jobs)} layers"))
        with ordered_map(workers) as over_layers, ordered_map(workers, ahead=1) as over_blocks:
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


def _select(request: Request, platform: WorkspacePlatform) -> Selection:
    """The lock's packages; raises BuildError for kinds that cannot be installed yet."""
    selection = select(request.lock, request.settings.environment, platform)
    if selection.pypi:
        listed = ", ".join(f"`{row.name}`" for row in selection.pypi)
        raise BuildError(
            f"environment `{selection.environment}` has PyPI packages, which ociforge cannot install yet: {listed}",
            "take them from a conda channel instead",
        )
    return selection


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


def _packages(request: Request, selection: Selection, installation: Installation) -> Iterator[_Job]:
    """The layers of the environment's packages."""
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
    packages = {package.name: package for package in installation.packages}
    members = [
        _member(packages[record.name.normalized], identity(record), installation.python) for record in selection.records
    ]
    together = [(conflict.winner, *conflict.losers) for conflict in installation.conflicts]
    for group in partition(members, budget=request.settings.layers, together=together):
        chosen = [packages[member.name] for member in group.members]
        yield _Job(
            title=group.title,
            segments=tuple(Segment(package.name, (*parents, *package.entries)) for package in chosen),
            packages=tuple(f"{package.name} {package.version} {package.build}" for package in chosen),
            key=recipe.key(group.members),
        )


def _member(package: Package, record: Digest, python: str | None) -> Member:
    return Member(
        name=package.name,
        version=package.version,
        archive=package.sha256,
        record=record,
        size=package.size,
        python=python if package.noarch_python else None,
    )


def _refuse_overlap(application: Iterable[Entry], skeleton: Iterable[Entry], prefix: str) -> None:
    """Files of the application must not replace the environment's."""
    taken = {entry.path for entry in skeleton if not isinstance(entry, Directory)}
    overlap = [
        f"the workspace's `{entry.path}` would replace a file of the environment in the image"
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
