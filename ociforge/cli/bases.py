"""Base images by the names that settings give them: what they stand for, what they are pinned to, and reading them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from ociforge.errors import BaseImageError, ImageError, OfflineError, ReferenceFormatError
from ociforge.events import StageStarted, Warned
from ociforge.pins import Pins, Use
from ociforge.transports import RegistryLocation, parse
from ociforge.transports.unreachable import UnreachableSource

if TYPE_CHECKING:
    from pathlib import Path

    from layers.compress import Codec, OrderedMap
    from layers.digest import Digest
    from ociforge.base import Base
    from ociforge.cli.places import Places
    from ociforge.errors import PlatformError
    from ociforge.oci.descriptor import Descriptor
    from ociforge.platform import Platform
    from ociforge.store import Store
    from ociforge.transports import Location
    from ociforge.transports.base import Source

__all__ = ["Bases", "UnpinnedError", "is_local", "left_out_warning"]

_LEFT_OUT = "name the platforms in place of `all` to make it an error"
_UNPINNED = "run `ociforge lock`; what only `--base` names can be pinned by `@sha256:…` in its name"


def is_local(base: str) -> bool:
    """Whether a base image lies on this machine, where looking costs nothing and names are no promise."""
    return not base.startswith("docker:")


def left_out_warning(platform: Platform, error: PlatformError) -> Warned:
    """What is told of a platform of `all` that the base image is not there for."""
    return Warned(f"`{platform}` is left out: {error.message}", _LEFT_OUT)


class UnpinnedError(OfflineError):
    """A base image that only its registry could tell, which cannot be asked."""


class Bases(Struct, dict=True):
    """Looks base images up, each once; relative paths start at `root`.

    `strict` is what to make of `pins`: True refuses a base that has none or another one, None warns of that for images
    in registries, False keeps silent. A pin is built on in any case.
    """

    root: Path
    places: Places
    pins: Pins = field(default_factory=Pins)
    strict: bool | None = None
    _sources: dict[Location, Source] = field(default_factory=dict)
    _roots: dict[Location, Digest | None] = field(default_factory=dict)
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
        """The base image to build on. Raises LockError for a pin that is missing or stale, if `strict`, and
        OfflineError for an image that would have to be pulled where there is no network.
        """
        from ociforge import base as images
        from ociforge.base.absent import Absent

        if base == "scratch":
            return images.scratch(platform)
        location = None if base.startswith("rootfs:") else self._location(base)
        self.places.notify(StageStarted(f"reading the base image {base} for {platform}"))
        if location is None:
            path = self.root / base.removeprefix("rootfs:")
            if (brought := self._brought(base, platform, path, store)) is not None:
                path = store.path(brought)
            else:
                self._judge(base, platform, None if self.strict is None else self.digest(base, platform))
            return images.rootfs(path, platform=platform, store=store, codec=codec, map_=map_)
        name = None
        if isinstance(location, RegistryLocation):
            name = str(location.reference)
            pinned = self.pins.find(Use.of(base, platform))
            if pinned is not None and location.reference.digest is None:
                location = replace(location, reference=replace(location.reference, digest=pinned))
            known = location.reference.digest
            is_here = True
        else:
            known = self._brought(base, platform, location.path, store)
            is_here = known is None
        source = self._source(location) if is_here else Absent(_called(base, platform))
        if isinstance(location, RegistryLocation) and self.places.registry.offline:
            source = _unreachable(base, platform, location)
        found = images.load(
            source,
            digest=known or self._roots.get(location),  # what the name stood for when it was looked up first
            platform=platform,
            store=store,
            name=name,
            notify=self.places.notify,
            map_=map_,
        )
        self._roots[location] = found.digest
        self._judge(base, platform, found.digest)
        return found

    def _brought(self, base: str, platform: Platform, path: Path, store: Store) -> Digest | None:
        """The pin of an image that is not at `path`, as its name says, but in the store: a bundle brought it."""
        pinned = self.pins.find(Use.of(base, platform))
        return pinned if pinned is not None and not path.exists() and store.has(pinned) else None

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
        source = self._source(self._location(base))
        root = source.root()
        _check_platform(base, source, root, platform)
        return root.digest

    def _source(self, location: Location) -> Source:
        """One for all platforms: a registry is asked once what a tag stands for."""
        if location not in self._sources:
            self._sources[location] = self.places.source(location)
        return self._sources[location]


def _unreachable(base: str, platform: Platform, location: RegistryLocation) -> UnreachableSource:
    """The image where there is no network: the store must have it. Raises OfflineError when nobody can tell which."""
    what = _called(base, platform)
    if location.reference.digest is None:
        raise UnpinnedError(f"{what} is not pinned: without a network nobody can tell which one is meant", _UNPINNED)
    return UnreachableSource(location.reference, what)


def _called(base: str, platform: Platform) -> str:
    return f"the base image `{base}` for `{platform}`"


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
