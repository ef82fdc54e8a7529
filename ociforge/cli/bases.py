"""Base images by the names that settings give them: what they stand for, what they are pinned to, and reading them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ociforge.errors import BaseImageError, ImageError, ReferenceFormatError
from ociforge.events import StageStarted, Warned
from ociforge.pins import Pins, Use
from ociforge.transports import RegistryLocation, parse

if TYPE_CHECKING:
    from pathlib import Path

    from layers.compress import Codec, OrderedMap
    from layers.digest import Digest
    from ociforge.base import Base
    from ociforge.cli.places import Places
    from ociforge.oci.descriptor import Descriptor
    from ociforge.platform import Platform
    from ociforge.store import Store
    from ociforge.transports import Location
    from ociforge.transports.base import Source

__all__ = ["Bases", "is_local"]

_UNPINNED = "run `ociforge lock`; what only `--base` names can be pinned by `@sha256:…` in its name"


def is_local(base: str) -> bool:
    """Whether a base image lies on this machine, where looking costs nothing and names are no promise."""
    return not base.startswith("docker:")


@dataclass
class Bases:
    """Looks base images up, each once; relative paths start at `root`.

    `strict` is what to make of `pins`: True refuses a base that has none or another one, None warns of that for images
    in registries, False keeps silent. A pin is built on in any case.
    """

    root: Path
    places: Places
    pins: Pins = field(default_factory=Pins)
    strict: bool | None = None
    _sources: dict[str, Source] = field(default_factory=dict)
    _digests: dict[tuple[str, Platform], Digest] = field(default_factory=dict)

    def digest(self, base: str, platform: Platform) -> Digest:
        """The digest to pin: of the index or manifest that the name leads to, or of the file of a `rootfs:` base.

        Raises BaseImageError when the image is not for the platform, besides the errors of the place it is in.
        """
        key = base, platform
        if key not in self._digests:
            self._digests[key] = self._look(base, platform)
        return self._digests[key]

    def open(self, base: str, platform: Platform, *, store: Store, codec: Codec, map_: OrderedMap = map) -> Base:
        """The base image to build on. Raises LockError for a pin that is missing or stale, if `strict`."""
        from ociforge import base as images

        if base == "scratch":
            return images.scratch(platform)
        self.places.notify(StageStarted(f"reading the base image {base}"))
        if base.startswith("rootfs:"):
            self._judge(base, platform, None if self.strict is None else self.digest(base, platform))
            path = self.root / base.removeprefix("rootfs:")
            return images.rootfs(path, platform=platform, store=store, codec=codec, map_=map_)
        location = self._location(base)
        name = None
        if isinstance(location, RegistryLocation):
            name = str(location.reference)
            pinned = self.pins.find(Use.of(base, platform))
            if pinned is not None and location.reference.digest is None:
                location = replace(location, reference=replace(location.reference, digest=pinned))
        source = self.places.source(location)
        known = location.reference.digest if isinstance(location, RegistryLocation) else None
        found = images.load(
            source, digest=known, platform=platform, store=store, name=name, notify=self.places.notify, map_=map_
        )
        self._judge(base, platform, found.digest)
        return found

    def _judge(self, base: str, platform: Platform, digest: Digest | None) -> None:
        use = Use.of(base, platform)
        if self.strict is False or "@sha256:" in base:  # which is a pin of its own
            return
        if self.strict:
            self.pins.require(use, digest, _UNPINNED)
        elif not is_local(base) and (complaint := self.pins.complaint(use, digest)) is not None:
            self.places.notify(Warned(complaint, _UNPINNED))

    def _location(self, base: str) -> Location:
        try:
            location = parse(base)
        except ReferenceFormatError as error:
            hints = [error.hint, "a base image can also be `rootfs:FILE` (a root file system as a tar) or `scratch`"]
            raise ReferenceFormatError(f"base image: {error.message}", "; ".join(filter(None, hints))) from error
        if isinstance(location, RegistryLocation):
            return location
        return replace(location, path=self.root / location.path)

    def _look(self, base: str, platform: Platform) -> Digest:
        if base.startswith("rootfs:"):
            from ociforge.base.rootfs_file import RootfsFile

            return RootfsFile(self.root / base.removeprefix("rootfs:")).digest()
        source = self._source(base)
        root = source.root()
        _check_platform(base, source, root, platform)
        return root.digest

    def _source(self, base: str) -> Source:
        if base not in self._sources:
            self._sources[base] = self.places.source(self._location(base))
        return self._sources[base]


def _check_platform(base: str, source: Source, root: Descriptor, platform: Platform) -> None:
    from ociforge.oci.blob import read_document
    from ociforge.oci.config import ImageConfig
    from ociforge.oci.image import ImageManifest
    from ociforge.oci.index import resolve

    def read(descriptor: Descriptor) -> bytes:
        return read_document(source.open(descriptor), descriptor)

    try:
        descriptor = resolve(root, platform, read)
        manifest = ImageManifest.parse(read(descriptor), descriptor.media_type).to_oci()
        found = ImageConfig.parse(read(manifest.config)).platform
    except ImageError as error:
        raise BaseImageError(f"base image `{base}`: {error.message}", error.hint) from error
    if not platform.matches(found):
        raise BaseImageError(f"base image `{base}`: it is for `{found}`, not for `{platform}`")
