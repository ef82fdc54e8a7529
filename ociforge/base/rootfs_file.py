"""A root file system in a tar file: `rootfs:FILE`, plain or compressed by gzip, zstd or xz."""

from __future__ import annotations

import contextlib
import shutil
import zlib
from typing import TYPE_CHECKING

from layers.compress import Codec, decompress
from layers.digest import Digest, DigestWriter
from layers.errors import CodecError
from layers.layer import Layer
from ociforge.base.listing import read_layer
from ociforge.errors import BaseImageError
from ociforge.regular import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from layers.compress import OrderedMap
    from layers.digest import Writable
    from ociforge.base.listing import Listing
    from ociforge.store import Store

__all__ = ["MAX_UNPACKED", "RootfsFile"]

MAX_UNPACKED = 64 << 30  # 64 GiB of tar in one layer; the largest in use have some ten
_READ_SIZE = 1 << 20  # 1 MiB
_GZIP_CONTAINER = 31  # zlib's window bits for one gzip member
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"  # of a frame: where a skippable one leads, podman 4 cannot read the blob


class RootfsFile:
    """The tar file at `path`; every method reads it anew. `str` names it in errors, which are BaseImageErrors."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return f"rootfs `{self._path}`"

    def digest(self) -> Digest:
        """The digest of the file as it is."""
        with self._open() as stream:
            return Digest.of_stream(stream)

    def listing(self) -> Listing:
        """Its members. What engines would refuse or read differently is an error."""
        with self._open() as stream, self._translated():
            return read_layer(decompress(stream, limit=MAX_UNPACKED), str(self), strict=True)

    def pack(self, digest: Digest, diff_id: Digest, store: Store, codec: Codec, map_: OrderedMap) -> Layer:
        """Put it into the store as the blob of a layer: as it is where every engine can read that, else by `codec`.

        To be called after `digest` and `listing`, whose digests it must still have.
        """
        kept = self._own_codec()
        with self._open() as stream, store.ingest() as blob, self._translated():
            if kept is None:
                tar = DigestWriter()
                for piece in codec.compress(_chunks(decompress(stream, limit=MAX_UNPACKED), tar), map_):
                    blob.write(piece)
                same = tar.digest() == diff_id
            else:
                shutil.copyfileobj(stream, blob, _READ_SIZE)
                same = blob.digest() == digest
            if not same:
                raise BaseImageError(f"{self}: it changed while it was read")
            found, size = blob.commit()
        return Layer(diff_id=diff_id, digest=found, size=size, media_type=(kept or codec).media_type)

    def _own_codec(self) -> Codec | None:
        """The codec that the file is in, if it is one of ours and the file may stay as it is."""
        with self._open() as stream:
            magic = stream.read(4)
            stream.seek(0)
            if magic == _ZSTD:
                return Codec.parse("zstd")
            if magic.startswith(_GZIP) and _is_one_member(stream):
                return Codec.parse("gzip")
        return None

    def _open(self) -> BinaryIO:
        try:
            return open_regular(self._path, follow=True)
        except OSError as error:
            raise BaseImageError(f"{self}: it cannot be read: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except CodecError as error:
            raise BaseImageError(f"{self}: {error}") from error
        except OSError as error:
            raise BaseImageError(f"{self}: it cannot be read: {error.strerror or error}") from error


def _chunks(stream: BinaryIO, sink: Writable) -> Iterator[bytes]:
    """What is left of `stream`, in pieces, each written to `sink` too."""
    while chunk := stream.read(_READ_SIZE):
        sink.write(chunk)
        yield chunk


def _is_one_member(stream: BinaryIO) -> bool:
    """Whether sound gzip data is a single member: of many, any may be empty, which exhausts readers in old Go."""
    member = zlib.decompressobj(_GZIP_CONTAINER)
    while not member.eof:
        data = member.unconsumed_tail or stream.read(_READ_SIZE)
        if not data:
            return False
        member.decompress(data, _READ_SIZE)
    return not member.unused_data and not stream.read(1)
