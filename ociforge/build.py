"""The composition: one workspace, one environment, one platform -> one image.

`planned` reads like the product, and `build` does what it says. Nothing of the target runs here unless bytecode is
asked for, and nothing is named before it is whole: layers are blobs in the store, and the image exists only in the
value returned, until `publish` gives it a name.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from layers.entry import Directory, File
from layers.layer import write_layer
from layers.tree import Segment
from ociforge.app import collect
from ociforge.base.libc import check_base
from ociforge.built import BuiltLayer, built_image, known_image
from ociforge.conda.meta import history_entry
from ociforge.errors import BuildError
from ociforge.events import LayerMade, LayerStarted, StageStarted, Warned, ignore
from ociforge.inputs import content_key, image_key
from ociforge.oci.annotations import APPLICATION, ENVIRONMENT, GLIBC, IMAGE_KEY
from ociforge.oci.restated import restated
from ociforge.parallel import ordered_map
from ociforge.planned import PlannedImage, PlannedLayer
from ociforge.runtime import annotate, runtime
from ociforge.workspace.settings import literal_dollars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from layers.compress import OrderedMap
    from layers.digest import Digest
    from layers.entry import Entry
    from ociforge.built import Built
    from ociforge.events import Notify
    from ociforge.packages import Installer
    from ociforge.request import Request
    from ociforge.reuse import Found, Previous
    from ociforge.store import Store

__all__ = ["build", "make", "planned", "remember"]

_LAYERS_AT_ONCE = 4  # each holds a few blocks; more of them would cost memory, and the blocks keep all workers busy
_BLOCKS_AHEAD = 3  # of a layer that is made alone: nothing else keeps the workers busy


def build(
    request: Request,
    *,
    store: Store,
    previous: Sequence[Previous] = (),
    pull: bool = False,
    installer: Installer = "stream",
    workers: int = 1,
    ready: Callable[[BuiltLayer], None] = lambda layer: None,
    notify: Notify = ignore,
) -> Built:
    """Make the image that `request` describes; its layers are in `store` when this returns, or in `previous` images.

    `previous` are images whose layers are taken instead of being made; with `pull`, which says that their bytes will be
    wanted, only where that is cheaper than making them. `ready` is called, from several threads, with each layer as
    soon as there is one. The result depends on the request alone, not on the other arguments or on what the store
    holds. Raises ForgeError or LayerError.
    """
    with (
        ordered_map(workers, ahead=1) as map_,
        planned(
            request, store=store, previous=previous, pull=pull, installer=installer, map_=map_, notify=notify
        ) as plan,
    ):
        built = make(plan, store=store, previous=previous, workers=workers, ready=ready, notify=notify)
    remember(plan, built, store)
    return built


def make(
    plan: PlannedImage,
    *,
    store: Store,
    previous: Sequence[Previous] = (),
    workers: int = 1,
    ready: Callable[[BuiltLayer], None] = lambda layer: None,
    notify: Notify = ignore,
) -> Built:
    """Do what `plan` says while its context lasts; the arguments are those of `build`. Images that were planned side by
    side may have layers in common: these are made once.
    """
    if plan.known is not None:
        return plan.known
    request = plan.request
    wanted = [layer for layer in plan.layers if layer.place == "make" and store.catalog.find(layer.key) is None]
    for layer in wanted:
        layer.claim()
    if wanted:
        notify(StageStarted(f"packing {len(wanted)} of {len(plan.layers)} layers"))
    with (
        ordered_map(workers, ahead=_BLOCKS_AHEAD if len(wanted) == 1 else 1) as over_blocks,
        ordered_map(min(workers, _LAYERS_AT_ONCE)) as over_layers,
    ):
        one = partial(_made, request=request, store=store, map_=over_blocks, ready=ready, notify=notify)
        # What exists first, so that it can be sent meanwhile; then the largest, so that none is left over at the end.
        order = sorted(plan.layers, key=lambda layer: (layer.place == "make", -layer.size))
        made = dict(zip((layer.key for layer in order), over_layers(one, order), strict=True))
    layers = tuple(made[layer.key] for layer in plan.layers)
    _compare(plan, layers, previous, notify)
    return built_image(plan.image(layers), request.base, layers, store)


def remember(plan: PlannedImage, built: Built, store: Store) -> None:
    """Let later builds find what was made of `plan`. Not before its context has ended: where an image is known nothing
    is left to do, so nobody would clear up after a process that was killed in it. Nor where a layer was taken from an
    image: what that claims is not to be believed any more when the image is not looked at.
    """
    if plan.key is not None and plan.known is None and all(layer.found is None for layer in built.layers):
        store.images.record(plan.key, built.image.to_json())


@contextmanager
def planned(
    request: Request,
    *,
    store: Store,
    previous: Sequence[Previous] = (),
    pull: bool = False,
    installer: Installer = "stream",
    map_: OrderedMap = map,
    notify: Notify = ignore,
) -> Iterator[PlannedImage]:
    """What `build` would do with these arguments: the layers, and where each comes from. They can be made while the
    context lasts. What an installed package holds is read from its archive only where nobody has told yet. Raises as
    `build` does.
    """
    settings, base = request.settings, request.base
    for warning in literal_dollars(settings):
        notify(Warned(warning))
    files = _files(request, notify)
    key = image_key(request, files)
    known = None if key is None else known_image(key, base, store, previous, request.codec.media_type)
    if known is not None:
        yield PlannedImage(request=request, key=key, layers=(), known=known)
        return
    # What lays out packages takes longest to import, and an image that is known needs none of it.
    from ociforge.packages import Packages

    native = any(record.subdir != "noarch" for record in request.selection.records)
    glibc = request.environment.platform.version("__glibc")

    def admit() -> None:
        base.tree.refuse_existing(request.prefix, "prefix")
        check_base(base, glibc=glibc, native=native)

    with (
        store.staging() as staging,
        Packages(
            request, store=store, staging=staging, admit=admit, installer=installer, map_=map_, notify=notify
        ) as packages,
    ):
        application = _application(request, files)
        run = runtime(
            request.environment,
            packages.activation,
            settings,
            base,
            manifest=request.workspace.manifest,
            installed=packages.present,
            application=frozenset(entry.path for entry in application if not isinstance(entry, Directory)),
            mtime=request.mtime,
            notify=notify,
        )
        skeleton = _skeleton(request, run.entrypoint)
        _refuse_overlap(application, skeleton, request.prefix)
        local = packages.local_layer()
        layers = (
            _generated(ENVIRONMENT, skeleton, request),
            *packages.layers(),
            *(() if local is None else (local,)),
            _generated(APPLICATION, application, request),
        )
        annotations = annotate(request.workspace.manifest, settings, base, request.epoch)
        yield PlannedImage(
            request=request,
            key=key,
            layers=tuple(_looked_up(layer, request, store, previous, pull=pull) for layer in layers),
            changes=run.changes,
            annotations=_own_annotations(key, (glibc or "0") if native else None)
            | restated(base.config, run.changes)
            | annotations,
            left_out=packages.left_out,
        )


def _own_annotations(key: Digest | None, glibc: str | None) -> dict[str, str]:
    """What later runs want to know of the image; `glibc` is None where nothing of it is compiled."""
    return ({} if key is None else {IMAGE_KEY: str(key)}) | ({} if glibc is None else {GLIBC: glibc})


def _looked_up(
    layer: PlannedLayer, request: Request, store: Store, previous: Sequence[Previous], *, pull: bool
) -> PlannedLayer:
    """The layer with what is known of it: here, else in an image of before."""
    here = store.catalog.find(layer.key)
    if here is not None:
        return replace(layer, layer=here)
    found = _in_images(layer.key, request, previous)
    # To make a layer of archives that are here takes less than to fetch it.
    if found is None or (pull and layer.download == 0):
        return layer
    return replace(layer, layer=found.layer, found=found)


def _in_images(key: Digest, request: Request, previous: Iterable[Previous]) -> Found | None:
    media_type = request.codec.media_type
    return next((found for image in previous if (found := image.find(key, media_type)) is not None), None)


def _generated(title: str, entries: tuple[Entry, ...], request: Request) -> PlannedLayer:
    """A layer that is no package's."""
    size = sum(entry.size for entry in entries if isinstance(entry, File))
    return PlannedLayer(
        title=title,
        key=content_key(entries, request.codec.identity),
        size=size,
        segments=lambda: (Segment(title, entries),),
    )


def _made(
    planned: PlannedLayer,
    *,
    request: Request,
    store: Store,
    map_: OrderedMap,
    ready: Callable[[BuiltLayer], None],
    notify: Notify,
) -> BuiltLayer:
    """The layer, made unless it exists: another process may have made it since it was planned."""
    layer = planned.layer or store.catalog.find(planned.key)
    reused = layer is not None
    if layer is None:
        notify(LayerStarted(planned.title))
        with store.ingest() as blob:
            layer = write_layer(planned.segments(), blob, request.codec, map_)
            blob.commit()
        store.catalog.record(planned.key, layer)
    notify(LayerMade(planned.title, layer.digest, layer.size, reused))
    made = BuiltLayer(
        title=planned.title,
        layer=layer,
        key=planned.key,
        reused=reused,
        found=planned.found,
    )
    ready(made)
    return made


def _compare(plan: PlannedImage, made: Sequence[BuiltLayer], previous: Sequence[Previous], notify: Notify) -> None:
    """Tell of images that claim another layer for a key than the one that was made for it here."""
    for layer, one in zip(plan.layers, made, strict=True):
        claimed = _in_images(layer.key, plan.request, previous)
        if claimed is not None and claimed.layer != one.layer:
            theirs, ours = f"`{claimed.layer.digest}`", f"`{one.layer.digest}`"
            if theirs == ours:
                theirs, ours = (f"{theirs} with the diff_id `{of.diff_id}`" for of in (claimed.layer, one.layer))
            notify(
                Warned(
                    f"`{claimed.image.name}` has {theirs} as the layer `{layer.title}`, which is {ours} when it is made"
                    " here",
                    "somebody has changed that image, or it was made by another version of a compressor: build with"
                    " `--no-reuse` to take nothing of it",
                )
            )


def _files(request: Request, notify: Notify) -> tuple[Entry, ...]:
    """The workspace's files, below the working directory."""
    settings = request.settings
    return collect(
        request.workspace.root,
        workdir=settings.workdir,
        mtime=request.mtime,
        include=settings.files.include,
        exclude=settings.files.exclude,
        leave_out=request.leave_out,
        notify=notify,
    )


def _application(request: Request, files: Sequence[Entry]) -> tuple[Entry, ...]:
    """`files` where they go in the image, with the directories above them."""
    tree, workdir = request.base.tree, request.settings.workdir.strip("/")
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
