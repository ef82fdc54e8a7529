"""Rebasing: one image or index, and a new base -> the same layers on the new base."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.built import Built
from ociforge.errors import ForgeError, ImageError, ReferenceFormatError, TransportError
from ociforge.events import Notify, Warned, ignore
from ociforge.oci.annotations import BASE_DIGEST, BASE_NAME, ENVIRONMENT, FORMAT, GLIBC, LAYER_TITLE
from ociforge.oci.blob import read_document
from ociforge.oci.descriptor import INDEX_TYPES
from ociforge.oci.index import assemble_index
from ociforge.oci.rebase import rebase_annotations, rebase_config, rebase_image
from ociforge.oci.reference import Reference
from ociforge.oci.restated import read_restated
from ociforge.oci.summary import summarize
from ociforge.oci.validate import validate, validate_index
from ociforge.rebase.fit import check_fit
from ociforge.rebase.own import OwnLayers
from ociforge.transports.base import Blob

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ociforge.base import Base
    from ociforge.oci.config import ImageConfig
    from ociforge.oci.descriptor import Descriptor
    from ociforge.oci.image import ImageManifest
    from ociforge.oci.summary import ImageSummary, Summary
    from ociforge.platform import Platform
    from ociforge.store import Store
    from ociforge.transports.base import Source

__all__ = ["OpenBase", "rebase"]

_OLD_BASE: Final = "name the image that it was built on with `--old-base LOCATION`"
_ELSEWHERE: Final = (
    "where it is elsewhere, name that with `--old-base LOCATION`, or a registry that has it with `--mirror`"
)


class OpenBase(Protocol):
    """Opens the base image at a location for a platform; reads its paths only when they are asked for."""

    def __call__(self, location: str, platform: Platform, /) -> Base: ...


def rebase(
    source: Source, new: str, *, old: str | None = None, open_base: OpenBase, store: Store, notify: Notify = ignore
) -> Built:
    """The image that `source` names on the base image at `new`; of an index each, on the base for its platform.

    The old base is the one that the image's annotations tell, or the one at `old`. Listings are kept in `store`; blobs
    stay where they are until the result is published. Raises ForgeError with all that speaks against it.
    """
    job = _Rebase(source=source, new=new, old=old, open_base=open_base, store=store, notify=notify)
    summary = summarize(source.root(), job.read)
    for attached in summary.attachments:
        notify(Warned(f"`{attached.digest}` is left out: it is attached to an image on its old base"))
    if summary.root.media_type in INDEX_TYPES:
        return _index(summary, job)
    return job.image(summary.images[0])[0]


def _index(summary: Summary, job: _Rebase) -> Built:
    made: list[tuple[Built, Base]] = []
    refusals: list[ForgeError] = []
    for found in summary.images:
        try:
            image, base = job.image(found)
        except ForgeError as error:
            refusals.append(_of_platform(found, error))
            continue
        notes = rebase_annotations(found.descriptor.annotations, base.name, base.digest, add=False)
        made.append((replace(image, descriptor=replace(image.descriptor, annotations=notes)), base))
    if refusals:
        hints = dict.fromkeys(error.hint for error in refusals if error.hint)
        raise ForgeError.collect([error.message for error in refusals], "; ".join(hints) or None)
    if not made:
        raise ImageError(f"image index `{summary.root.digest}`: there are no images in it")
    _, base = made[0]
    return _built_index(
        [image for image, _ in made], rebase_annotations(summary.annotations, base.name, base.digest, add=False)
    )


def _of_platform(found: ImageSummary, error: ForgeError) -> ForgeError:
    return ForgeError.collect([f"{found.platform}: {line}" for line in error.message.splitlines()], error.hint)


def _built_index(images: Iterable[Built], annotations: dict[str, str]) -> Built:
    images = tuple(images)
    data, descriptor = assemble_index([image.descriptor for image in images], annotations)
    validate_index(data, descriptor)
    return Built(
        descriptor=descriptor,
        documents={descriptor.digest: data}
        | {key: value for image in images for key, value in image.documents.items()},
        blobs={key: value for image in images for key, value in image.blobs.items()},
        layers=(),
    )


class _Rebase(Struct, frozen=True, kw_only=True):
    """What is to be done to each image."""

    source: Source
    new: str
    old: str | None
    open_base: OpenBase
    store: Store
    notify: Notify

    def read(self, descriptor: Descriptor) -> bytes:
        return read_document(self.source.open(descriptor), descriptor)

    def image(self, found: ImageSummary) -> tuple[Built, Base]:
        """The image on its new base, and that."""
        what, config = f"image `{found.descriptor.digest}`", found.config
        if config is None:
            raise ImageError(f"{what}: `{found.manifest.config.media_type}` is not the configuration of an image")
        manifest = found.manifest.to_oci()
        if len(manifest.layers) != len(config.diff_ids):
            raise ImageError(
                f"{what}: {len(manifest.layers)} layers in the manifest, {len(config.diff_ids)} in the configuration"
            )
        old = self._old(what, manifest, config)
        new = self.open_base(self.new, config.platform)
        own = OwnLayers(
            layers=tuple(zip(manifest.layers, config.diff_ids, strict=True))[len(old.layers) :],
            source=self.source,
            store=self.store,
        )
        ours, before = FORMAT in manifest.annotations, read_restated(manifest.annotations)
        rebased, restated = rebase_config(config, old.config, new.config, ours=ours, restated=before)
        if not ours and rebased.user != config.user:
            self.notify(_other_user(what, config, rebased))
        check_fit(own, rebased, old, new, glibc=manifest.annotations.get(GLIBC), notify=self.notify)
        return self._built(manifest, rebased, new, restated), new

    def _old(self, what: str, manifest: ImageManifest, config: ImageConfig) -> Base:
        """The base that the image stands on: its layers are the image's lowest."""
        location = self.old or _told_base(what, manifest)
        try:
            old = self.open_base(location, config.platform)
        except TransportError as error:
            if self.old is not None:
                raise
            message = f"{what}: the base image in its annotations: {error.message}"
            raise TransportError(message, "; ".join(filter(None, (error.hint, _ELSEWHERE)))) from error
        if config.diff_ids[: len(old.layers)] != old.config.diff_ids:
            raise ImageError(
                f"{what}: it does not stand on `{location}`, whose layers are not its lowest",
                f"{_OLD_BASE}, by its digest where the name has moved on",
            )
        if self.old is not None:
            self._check_told(what, manifest, old)
        return old

    def _check_told(self, what: str, manifest: ImageManifest, old: Base) -> None:
        """Raise ImageError when what `--old-base` names is not what an image of ours stands on, though its layers are
        the lowest: as nothing at all, and the image itself. Of others' images, a warning tells of a contradiction.
        """
        if FORMAT in manifest.annotations:
            titles = [layer.annotations.get(LAYER_TITLE) for layer in manifest.layers[len(old.layers) :]]
            if titles[:1] != [ENVIRONMENT] or titles.count(ENVIRONMENT) > 1:
                raise ImageError(
                    f"{what}: it does not stand on `{self.old}`: its own layers do not begin above the layers of that",
                    f"{_OLD_BASE}, neither more nor less",
                )
            return
        told = manifest.annotations.get(BASE_DIGEST)
        if told is not None and told != str(old.digest):
            self.notify(
                Warned(
                    f"{what}: its annotations say that it stands on `{told}`, and not on `{self.old}`",
                    "that is right for another copy of the same base image",
                )
            )

    def _built(self, manifest: ImageManifest, config: ImageConfig, new: Base, restated: Iterable[str]) -> Built:
        notes = rebase_annotations(manifest.annotations, new.name, new.digest, restated)
        image = rebase_image(manifest, config, new.layers, notes)
        validate(image.manifest, image.config, image.descriptor)
        blobs = {layer.digest: self._blob(layer) for layer in image.layers[len(new.layers) :]}
        return Built(
            descriptor=image.descriptor,
            documents={image.descriptor.digest: image.manifest, image.config_descriptor.digest: image.config},
            blobs={layer.digest: new.blob(layer) for layer in new.layers} | blobs,
            layers=(),
        )

    def _blob(self, layer: Descriptor) -> Blob:
        return Blob(descriptor=layer, open=partial(self.source.open, layer), origin=self.source.origin(layer))


def _other_user(what: str, before: ImageConfig, after: ImageConfig) -> Warned:
    """Others' images do not tell whether they set the user that their base has, too."""
    return Warned(
        f"{what}: its containers run as `{after.user or 'root'}`, which the new base says, no longer as"
        f" `{before.user or 'root'}`, which the old one said",
        "where the image itself is to say so, build it anew, or name the user where it is run",
    )


def _told_base(what: str, manifest: ImageManifest) -> str:
    """Where the base is that the annotations of an image tell, with its digest."""
    name, digest = (manifest.annotations.get(key) for key in (BASE_NAME, BASE_DIGEST))
    if name is not None and digest is not None:
        try:
            return f"docker://{replace(Reference.parse(name), digest=Digest.parse(digest))}"
        except (DigestError, ReferenceFormatError) as error:
            raise ImageError(f"{what}: the base image in its annotations: {error}", _OLD_BASE) from error
    titled = all(LAYER_TITLE in layer.annotations for layer in manifest.layers)
    if name is digest is None and FORMAT in manifest.annotations and titled:
        return "scratch"  # there is nothing below our layers
    missing = f"there is no annotation `{BASE_NAME if name is None else BASE_DIGEST}`"
    if name is None and digest is not None:
        raise ImageError(
            f"{what}: it stands on `{digest}`, and does not say where that is: {missing}",
            f"{_OLD_BASE}: bases that are in no registry have no name",
        )
    raise ImageError(f"{what}: it does not say what it stands on: {missing}", _OLD_BASE)
