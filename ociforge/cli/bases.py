"""What the names of base images stand for now, for the verbs that pin them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from layers.digest import Digest
    from ociforge.cli.places import Places
    from ociforge.oci.descriptor import Descriptor
    from ociforge.platform import Platform
    from ociforge.transports.base import Source

__all__ = ["Bases", "is_local"]


def is_local(base: str) -> bool:
    """Whether a base image lies on this machine, where looking costs nothing and names are no promise."""
    return not base.startswith("docker:")


@dataclass
class Bases:
    """Looks base images up, each once; relative paths start at `root`."""

    root: Path
    places: Places
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
            from ociforge import transports

            location = transports.parse(base)
            if not isinstance(location, transports.RegistryLocation):
                location = replace(location, path=self.root / location.path)
            self._sources[base] = self.places.source(location)
        return self._sources[base]


def _check_platform(base: str, source: Source, root: Descriptor, platform: Platform) -> None:
    from ociforge.errors import BaseImageError, ImageError
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
