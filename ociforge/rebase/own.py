"""What an image has above its base, as far as it has to be known: paths and their metadata, never content.

Of an image of ours the layer `environment`, a few kB, tells where the environment is; the layers of its packages lie
below that, so they are not read. A layer that says nothing of itself is read, once: its listing stays in the store.
"""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from layers.compress import decompress
from layers.errors import CodecError
from ociforge.base.listing import decode, encode, read_layer
from ociforge.base.rootfs_file import MAX_UNPACKED
from ociforge.errors import ImageError
from ociforge.oci.annotations import APPLICATION, ENVIRONMENT, LAYER_TITLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from layers.digest import Digest
    from ociforge.base.listing import Listing, Member
    from ociforge.oci.descriptor import Descriptor
    from ociforge.store import Store
    from ociforge.transports.base import Source

__all__ = ["OwnLayers", "Skeleton"]

_MAX_SKELETON: Final = 4 << 20  # 4 MiB: directories, a line of history, an entrypoint of some kB
_HISTORY: Final = "/conda-meta/history"
_SHEBANG: Final = 256  # bytes of the first line that Linux looks at


class Skeleton(Struct, frozen=True, kw_only=True):
    """What belongs to an environment and to no package. `prefix` is without leading slash; `interpreters` are the paths
    of the programs that its scripts name in their first line.
    """

    members: tuple[Member, ...]
    prefix: str
    interpreters: tuple[str, ...]

    @property
    def directories(self) -> frozenset[str]:
        return frozenset(member.path for member in self.members if member.kind == "directory")

    @property
    def files(self) -> frozenset[str]:
        return frozenset(member.path for member in self.members if member.kind != "directory")


class OwnLayers(Struct, frozen=True, kw_only=True):
    """The layers of an image above its base with their diff_ids, lowest first; errors name the layer."""

    layers: tuple[tuple[Descriptor, Digest], ...]
    source: Source
    store: Store

    def skeleton(self) -> Skeleton | None:
        """What the layer `environment` has; None in an image of somebody else. Raises ImageError for what is none."""
        for layer, diff_id in self._titled(ENVIRONMENT):
            data = self._unpacked(layer)
            listing = self._listed(layer, diff_id, io.BytesIO(data))
            prefixes = [m.path.removesuffix(_HISTORY) for m in listing.members if m.path.endswith(_HISTORY)]
            if len(prefixes) != 1:
                raise ImageError(f"layer `{layer.digest}`: it is called `environment`, but has no history of one")
            return Skeleton(members=listing.members, prefix=prefixes[0], interpreters=tuple(_interpreters(data, layer)))
        return None

    def application(self) -> tuple[Member, ...]:
        """The paths of the application."""
        return tuple(member for pair in self._titled(APPLICATION) for member in self._members(*pair))

    def unknown(self) -> tuple[Member, ...]:
        """The paths of all layers that do not say what they are."""
        return tuple(
            member for pair in self.layers if LAYER_TITLE not in pair[0].annotations for member in self._members(*pair)
        )

    def _titled(self, title: str) -> Iterator[tuple[Descriptor, Digest]]:
        return (pair for pair in self.layers if pair[0].annotations.get(LAYER_TITLE) == title)

    def _members(self, layer: Descriptor, diff_id: Digest) -> tuple[Member, ...]:
        kept = self.store.trees.find(layer.digest)
        if kept is not None:
            try:
                listing = decode(kept)
            except ValueError:
                pass
            else:
                return _agreed(listing, layer, diff_id).members
        with self.source.open(layer) as stream:
            unpacked = decompress(stream, layer.media_type, limit=MAX_UNPACKED)
            return self._listed(layer, diff_id, unpacked).members

    def _listed(self, layer: Descriptor, diff_id: Digest, unpacked: BinaryIO | io.BufferedReader) -> Listing:
        try:
            listing = _agreed(read_layer(unpacked, f"layer `{layer.digest}`"), layer, diff_id)
        except CodecError as error:
            raise ImageError(f"layer `{layer.digest}`: {error}") from error
        self.store.trees.record(layer.digest, encode(listing))
        return listing

    def _unpacked(self, layer: Descriptor) -> bytes:
        try:
            with self.source.open(layer) as stream:
                return decompress(stream, layer.media_type, limit=_MAX_SKELETON).read()
        except CodecError as error:
            raise ImageError(f"layer `{layer.digest}`: {error}") from error


def _agreed(listing: Listing, layer: Descriptor, diff_id: Digest) -> Listing:
    if listing.diff_id != diff_id:
        raise ImageError(
            f"layer `{layer.digest}`: it unpacks to `{listing.diff_id}`, but the configuration says `{diff_id}`"
        )
    return listing


def _interpreters(data: bytes, layer: Descriptor) -> Iterator[str]:
    """The programs that the scripts in a tar ask for; it has been read by a stricter reader before."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() else None
                line = b"" if stream is None else stream.read(_SHEBANG).partition(b"\n")[0]
                if line.startswith(b"#!") and (words := line[2:].split()):
                    yield words[0].decode("utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise ImageError(f"layer `{layer.digest}`: {error}") from error
