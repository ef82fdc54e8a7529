"""Writing a layer: segments in, one blob out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from layers.compress import Codec, OrderedMap, blocks
from layers.digest import Digest, DigestWriter, Writable
from layers.tar import END, members
from layers.tree import Arrangement, Segment, arrange

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Layer", "write_layer"]


class Layer(Struct, frozen=True, kw_only=True):
    """A layer that has been written: `diff_id` is of the tar, `digest` and `size` (bytes) are of the blob."""

    diff_id: Digest
    digest: Digest
    size: int
    media_type: str


def write_layer(
    segments: Arrangement | Iterable[Segment], sink: Writable, codec: Codec, map_: OrderedMap = map
) -> Layer:
    """Write the tar of `segments`, compressed by `codec`, to `sink`, which is not closed. A fresh DigestWriter digests
    the blob as it is; what goes to anything else is digested on the way.

    Segments are put in order first, unless `arrange` has done so. Contents are read while the blob is written, one file
    at a time; memory is that of the paths plus the blocks that `map_` has under way, whatever the layer's size. The
    same segments give the same bytes, in any order and with any `map_`.

    Raises EntryError, EntriesError or LayerError for entries that no layer can hold, which a stream may show late, and
    whatever a stream raises; then, or when anything else fails on the way, what `sink` has got is no layer.
    """
    arrangement = segments if isinstance(segments, Arrangement) else arrange(segments)
    tar = DigestWriter()
    blob = sink if isinstance(sink, DigestWriter) and sink.size == 0 else DigestWriter(sink)
    # Hashed in these pieces, too, because a call per header costs more than the hashing.
    for piece in codec.compress(_through(tar, blocks(_tar(arrangement), codec.piece)), map_):
        blob.write(piece)
    return Layer(diff_id=tar.digest(), digest=blob.digest(), size=blob.size, media_type=codec.media_type)


def _tar(arrangement: Arrangement) -> Iterator[bytes]:
    yield from members(arrangement.entries(), arrangement.metadata)
    yield END


def _through(writer: DigestWriter, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """`chunks`, each written to `writer` on its way."""
    for chunk in chunks:
        writer.write(chunk)
        yield chunk
