"""Bounding the store: what it holds, and the removal of what was not used for longest."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.store import locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ociforge.store import Store

__all__ = ["Pruned", "Usage", "prune", "usage"]

_KINDS = {
    "blobs": "layers and blobs of base images",
    "archives": "packages",
    "trees": "listings of base images",
    "catalog": "layer keys",
    "facts": "facts about packages",
    "images": "images by their inputs",
}
_DOCUMENTS = ("trees", "catalog", "facts", "images")  # small, and without them nobody knows what the rest is
_RECENT = 24 * 3600  # seconds; longer than any build runs


class Usage(Struct, frozen=True, kw_only=True):
    """Files of one kind in the store, and their bytes together."""

    kind: str
    title: str
    count: int
    size: int


class Pruned(Struct, frozen=True, kw_only=True):
    """What was removed and what is left, in files and bytes; `busy`: others used the store meanwhile."""

    removed: int
    freed: int
    left: int
    size: int
    busy: bool


class _Item(Struct, frozen=True, kw_only=True):
    kind: str
    used: int  # nanoseconds since 1970
    path: Path
    size: int

    @property
    def order(self) -> tuple[bool, int, Path]:
        """By which it goes. What uses an image need not look at the documents that tell of its layers, so of these it
        is not known whether they will be missed.
        """
        return self.kind in _DOCUMENTS, self.used, self.path


def usage(store: Store) -> tuple[Usage, ...]:
    """What `store` holds, by kind."""
    found: Mapping[str, list[int]] = defaultdict(list)
    for kind in _KINDS:
        found[kind].extend(item.size for item in _items(store, kind))
    return tuple(
        Usage(kind=kind, title=title, count=len(found[kind]), size=sum(found[kind])) for kind, title in _KINDS.items()
    )


def prune(store: Store, max_size: int) -> Pruned:
    """Remove what was not used for longest, until `store` has no more than `max_size` bytes: packages and blobs first,
    and then the documents that tell of them.

    Nobody begins to use the store meanwhile. While somebody uses it already, what was used within the last 24 hours
    stays, so the store may stay bigger. Raises StoreError when the store cannot be used.
    """
    if not store.root.is_dir():
        return Pruned(removed=0, freed=0, left=0, size=0, busy=False)
    try:
        with locked(store, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return _prune(store, max_size, None)
    except BlockingIOError:
        return _prune(store, max_size, time.time_ns() - _RECENT * 10**9)


def _prune(store: Store, max_size: int, latest: int | None) -> Pruned:
    """`latest`: nothing that was used since then goes, in nanoseconds; None when nobody uses the store."""
    items = sorted((item for kind in _KINDS for item in _items(store, kind)), key=lambda item: item.order)
    left, size = len(items), sum(item.size for item in items)
    before = (left, size)
    for item in items:
        if size <= max_size:
            break
        if (latest is None or item.used < latest) and _removed(item, latest):
            left, size = left - 1, size - item.size
    return Pruned(removed=before[0] - left, freed=before[1] - size, left=left, size=size, busy=latest is not None)


def _items(store: Store, kind: str) -> Iterator[_Item]:
    for directory, _, names in os.walk(store.root / kind):
        for name in names:
            path = store.root / kind / directory / name
            with contextlib.suppress(OSError):  # gone meanwhile
                status = path.lstat()
                yield _Item(kind=kind, used=_used(kind, status), path=path, size=status.st_size)


def _used(kind: str, status: os.stat_result) -> int:
    """When the file was last used. Packages keep their mtimes, by which who reads one sees that it stays the same."""
    return max(status.st_atime_ns, status.st_mtime_ns) if kind == "archives" else status.st_mtime_ns


def _removed(item: _Item, latest: int | None) -> bool:
    """Remove the file, unless it was used since it was looked at: that shows in its times, under any name."""
    try:
        if latest is None:
            item.path.unlink()
            return True
        if _used(item.kind, item.path.lstat()) >= latest:
            return False
        aside = item.path.with_name(f".{item.path.name}.pruned")
        item.path.rename(aside)
        if _used(item.kind, aside.lstat()) >= latest:
            aside.rename(item.path)
            return False
        aside.unlink()
    except OSError:  # gone meanwhile, or another user's
        return False
    return True
