"""What builds need -> a bundle: everything is fetched, or built, into the store, and listed."""

from __future__ import annotations

import platform as machine
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from layers.digest import Digest
from layers.entry import Bytes, FileContent
from ociforge.bundle.credentials import refuse_credentials
from ociforge.bundle.documents import pinned, read_documents
from ociforge.bundle.manifest import (
    BUILT_BY,
    BUILT_FROM,
    SOURCE,
    SUBDIRECTORY,
    BundledImage,
    BundleManifest,
    Item,
    unnamed,
)
from ociforge.conda.fetch import fetch
from ociforge.conda.url import without_credentials
from ociforge.errors import BaseImageError, LockError, StoreError
from ociforge.events import StageStarted
from ociforge.pins import FILE_NAME, Pins
from ociforge.pypi.gather import gather
from ociforge.pypi.location import Local, Remote, Repository
from ociforge.pypi.provided import Origin
from ociforge.pypi.tags import Filename
from ociforge.transports.naming import REF_NAME
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from layers.entry import Content
    from ociforge.base import Base
    from ociforge.needs import Needs, Wanted
    from ociforge.oci.descriptor import Descriptor
    from ociforge.platform import Platform
    from ociforge.pypi.fetch import Archive
    from ociforge.pypi.jobs import Job
    from ociforge.store import Store
    from ociforge.supplies import Means
    from ociforge.workspace import Workspace

__all__ = ["Bundle", "collect"]

_Piece = tuple[Item, "Content"]


class Bundle(Struct, frozen=True, kw_only=True):
    """A bundle to write: the bytes of each file by digest, and its base images as `index.json` lists them."""

    manifest: BundleManifest
    contents: Mapping[Digest, Content]
    bases: tuple[Descriptor, ...]


def collect(
    workspace: Workspace,
    images: Sequence[Wanted],
    needed: Needs,
    *,
    bases: Mapping[tuple[str, Platform], Base],
    means: Means,
) -> Bundle:
    """Bring everything that `images` need into the store, and list it.

    `needed` is what they need, `bases` has each base image of it that is not a file (`rootfs:`). Raises WorkspaceError
    for a document with a credential, before anything is fetched, and LockError for a base image without a pin, besides
    the errors of fetching and building.
    """
    pins = Pins.read(workspace.root / FILE_NAME)
    listed: list[Descriptor] = []
    pieces = [
        *_documents(workspace, means),
        *_conda(needed, means),
        *_wheels(needed, means),
        *_built(needed, means),
        *_requirements(needed, means),
    ]
    for base, platform in needed.bases:
        if base.startswith("rootfs:"):
            pieces.append(_rootfs(workspace.root, base, platform, pins))
        else:
            parts, manifest = _base(bases[base, platform], base, platform, pins, means)
            pieces += parts
            listed.append(manifest)
    return Bundle(
        manifest=BundleManifest.of((item for item, _ in pieces), map(_image, images)),
        contents={item.digest: content for item, content in pieces},
        bases=tuple(_unambiguous(listed)),
    )


def _image(wanted: Wanted) -> BundledImage:
    return BundledImage(
        environment=wanted.settings.environment,
        platform=str(wanted.platform),
        locked=wanted.selection.platform.name,
        base=wanted.settings.base,
    )


def _documents(workspace: Workspace, means: Means) -> list[_Piece]:
    pieces: list[_Piece] = []
    texts: dict[str, bytes] = {}
    for role, path in (
        ("manifest", workspace.manifest.path),
        ("lock", workspace.lock_path),
        ("pins", workspace.root / FILE_NAME),
    ):
        try:
            data = texts[path.name] = path.read_bytes()
        except FileNotFoundError:
            if role != "pins":
                raise
            continue
        pieces.append((Item(role=role, name=path.name, digest=Digest.of(data), size=len(data)), Bytes(data)))
    refuse_credentials(texts, means.notify)
    return pieces


def _conda(needed: Needs, means: Means) -> Iterator[_Piece]:
    means.notify(StageStarted(f"fetching {_counted(len(needed.records), 'conda archive')}"))
    archives = fetch(needed.records, cache=means.archives, network=means.network, notify=means.notify)
    for archive in archives:
        record = archive.record
        name = f"conda/{record.subdir}/{record.file_name}"
        item = Item(role="conda", name=name, digest=archive.digest, size=archive.size, notes=_source(record.url))
        yield item, FileContent(archive.path.resolve())


def _wheels(needed: Needs, means: Means) -> Iterator[_Piece]:
    if needed.wheels:
        means.notify(StageStarted(f"fetching {_counted(len(needed.wheels), 'wheel')}"))
    for job, archive in zip(needed.wheels, gather(partial(_fetched, means), needed.wheels, means.map_), strict=True):
        url = job.source.url if isinstance(job.source, Remote) else ""
        yield _wheel("wheel", archive, _source(url))


def _built(needed: Needs, means: Means) -> Iterator[_Piece]:
    """The wheels of what is locked as source; building twice for two targets is looking up what was built."""

    def wheel(item: tuple[Job, object]) -> Archive:
        job, _ = item
        if (known := means.provided.find(job.source)) is not None:
            return known
        file = _fetched(means, job) if isinstance(job.source, Remote | Local) else None
        return means.builder.wheel(job.project(file))

    for (job, target), archive in zip(needed.builds, gather(wheel, needed.builds), strict=True):
        job.check(Filename.parse(archive.filename), target)
        yield _wheel("built", archive, _provenance(job))


def _provenance(job: Job) -> dict[str, str]:
    origin, source = Origin.of(job.source), job.source
    assert origin is not None
    url = source.url if isinstance(source, Remote | Repository) else ""
    system = "-".join(filter(None, machine.libc_ver()))
    notes = {
        BUILT_FROM: origin.identity,
        BUILT_BY: f"{machine.python_implementation()} {machine.python_version()}, {machine.machine()}, {system}",
        SUBDIRECTORY: origin.subdirectory,
    }
    return _source(url) | {key: text for key, text in notes.items() if text}


def _requirements(needed: Needs, means: Means) -> Iterator[_Piece]:
    """What the builds of the workspace's own packages require."""
    for job in needed.trees:
        archive = None if job.local else _fetched(means, job)
        for path in means.builder.requirements(job.project(archive)):
            yield _wheel("requirement", means.cache.store(path.name, partial(_copy, path)), {})


def _copy(path: Path, sink: BinaryIO) -> Digest:
    data = path.read_bytes()
    sink.write(data)
    return Digest.of(data)


def _fetched(means: Means, job: Job) -> Archive:
    assert isinstance(job.source, Remote | Local)
    return means.fetcher.fetch(job.source)


def _wheel(role: str, archive: Archive, notes: Mapping[str, str]) -> _Piece:
    folder = {"wheel": "wheels", "built": "built", "requirement": "requirements"}[role]
    name = f"{folder}/{archive.filename}"
    item = Item(role=role, name=name, digest=archive.digest, size=archive.size, notes=notes)
    return item, FileContent(archive.path)


def _source(url: str) -> dict[str, str]:
    """Where a file came from; a path of this machine is nobody else's business."""
    return {SOURCE: redacted(without_credentials(url))} if url.startswith(("http:", "https:", "ssh:")) else {}


def _rootfs(root: Path, base: str, platform: Platform, pins: Pins) -> _Piece:
    path = root / base.removeprefix("rootfs:")
    try:
        with path.open("rb") as stream:
            digest, size = Digest.of_stream(stream), stream.tell()
    except OSError as error:
        raise BaseImageError(f"base image `{base}`: {error.strerror}") from error
    _require_pin(base, platform, digest, pins)
    name = path.name if path.name.isprintable() else f"{digest.hex[:12]}.tar"
    item = Item(role="base-rootfs", name=f"base/{name}", digest=digest, size=size)
    return item, FileContent(path.resolve())


def _base(base: Base, name: str, platform: Platform, pins: Pins, means: Means) -> tuple[list[_Piece], Descriptor]:
    """The files of a base image, and its manifest as `index.json` is to list it."""
    assert base.digest is not None
    _require_pin(name, platform, base.digest, pins)
    store = means.store
    found = read_documents(base.digest, platform, partial(_stored, store))
    kept = partial(_kept, base, store)
    descriptors = [(d, "base-document") for d in found.documents] + [
        (layer, "base-layer") for layer in means.map_(kept, base.layers)
    ]
    pieces: list[_Piece] = [
        (
            Item(
                role=role,
                name=f"base/{descriptor.digest.hex}{'.json' if role == 'base-document' else ''}",
                digest=descriptor.digest,
                size=descriptor.size,
                notes={SOURCE: name} if name.startswith("docker:") else {},
            ),
            FileContent(store.path(descriptor.digest)),
        )
        for descriptor, role in descriptors
    ]
    called = {REF_NAME: base.name or unnamed(base.digest)}
    return pieces, replace(found.manifest, platform=platform, annotations=called)


def _stored(store: Store, digest: Digest) -> bytes:
    """A document that reading the base image has left in the store."""
    try:
        data = store.path(digest).read_bytes()
    except OSError as error:
        raise StoreError(f"blob `{digest}` is not in the store", "run the command again") from error
    if Digest.of(data) != digest:
        raise StoreError(f"damaged blob `{digest}` in the store", f"remove `{store.path(digest)}`")
    return data


def _kept(base: Base, store: Store, layer: Descriptor) -> Descriptor:
    """See to it that the layer is in the store, and whole."""
    if not store.verify(layer):
        with base.blob(layer).open() as stream:
            store.put(layer, stream)
    return layer


def _require_pin(base: str, platform: Platform, digest: Digest, pins: Pins) -> None:
    found = pinned(base, platform, pins)
    if found != digest:
        why = "is not pinned" if found is None else f"is pinned to `{found}`, but is `{digest}` now"
        raise LockError(
            f"the base image `{base}` for `{platform}` {why}: without a network nobody could tell which one is meant",
            "run `ociforge lock`",
        )


def _unambiguous(listed: Iterable[Descriptor]) -> Iterator[Descriptor]:
    """Names that several platforms share get the platform behind them: readers take the first of a name."""
    manifests = {(d.annotations[REF_NAME], str(d.platform)): d for d in listed}
    names = [name for name, _ in manifests]
    for (name, platform), descriptor in sorted(manifests.items()):
        suffix = f"-{platform.replace('/', '-')}" if names.count(name) > 1 else ""
        yield replace(descriptor, annotations={REF_NAME: f"{name}{suffix}"})


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
