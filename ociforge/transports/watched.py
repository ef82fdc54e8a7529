"""Telling of transfers while they happen."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from ociforge.events import BlobDone, BlobProgress, BlobStarted
from ociforge.oci.annotations import LAYER_TITLE
from ociforge.oci.blob import VerifiedReader, verified
from ociforge.oci.descriptor import INDEX_TYPES, MANIFEST_TYPES

if TYPE_CHECKING:
    from ociforge.events import Notify
    from ociforge.transports.base import Blob

__all__ = ["WatchedReader", "started", "told_exists", "watched"]


def watched(blob: Blob, place: str, notify: Notify) -> WatchedReader:
    """Open a blob on its way to `place`; the caller closes it."""
    return WatchedReader(verified(blob.open(), blob.descriptor), blob, place, notify)


class WatchedReader(io.BufferedIOBase, BinaryIO):
    """The bytes of a blob on their way to `place`: `notify` hears of the start, each piece and the end.

    Of manifests and indexes it hears nothing: they are no transfers that a user waits for. Closing it closes `stream`.
    """

    def __init__(self, stream: VerifiedReader, blob: Blob, place: str, notify: Notify) -> None:
        self._stream = stream
        self._descriptor = blob.descriptor
        self._notify = notify if _is_told(blob) else None
        self._left = blob.descriptor.size
        if self._notify is not None:
            self._notify(started(blob, place))

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._stream.read(size)
        if self._notify is not None:
            self._notify(BlobProgress(self._descriptor.digest, len(data)))
            self._left -= len(data)
            if not self._left:
                self._notify(BlobDone(self._descriptor.digest, self._descriptor.size, "written"))
                self._notify = None
        return data

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._stream.close()


def started(blob: Blob, place: str) -> BlobStarted:
    """What to tell when the transfer of a blob to `place` begins."""
    descriptor = blob.descriptor
    return BlobStarted(descriptor.digest, descriptor.size, place, descriptor.annotations.get(LAYER_TITLE))


def told_exists(blob: Blob, notify: Notify) -> None:
    """Tell that a blob was there before."""
    if _is_told(blob):
        notify(BlobDone(blob.descriptor.digest, blob.descriptor.size, "exists"))


def _is_told(blob: Blob) -> bool:
    return blob.descriptor.media_type not in MANIFEST_TYPES | INDEX_TYPES
