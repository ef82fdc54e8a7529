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


class _Item(Struct, frozen=True):
    used: int  # nanoseconds since 1970
    path: Path
    size: int


def usage(store: Store) -> tuple[Usage, ...]:
    """What `store` holds, by kind."""
    found: Mapping[str, list[int]] = defaultdict(list)
    for kind in _KINDS:
        found[kind].extend(item.size for item in _items(store, kind))
    return tuple(
        Usage(kind=kind, title=title, count=len(found[kind]), size=sum(found[kind])) for kind, title in _KINDS.items()
    )


def prune(store: Store, max_size: int) -> Pruned:
    """Remove what was not used for longest, until `store` has no more than `max_size` bytes.

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
    items = sorted((item for kind in _KINDS for item in _items(store, kind)), key=lambda item: (item.used, item.path))
    left, size = len(items), sum(item.size for item in items)
    before = (left, size)
    for item in items:
        if size <= max_size or (latest is not None and item.used >= latest):
            break
        if _removed(item, latest):
            left, size = left - 1, size - item.size
    return Pruned(removed=before[0] - left, freed=before[1] - size, left=left, size=size, busy=latest is not None)


def _items(store: Store, kind: str) -> Iterator[_Item]:
    for directory, _, names in os.walk(store.root / kind):
        for name in names:
            path = store.root / kind / directory / name
            with contextlib.suppress(OSError):  # gone meanwhile
                status = path.lstat()
                yield _Item(status.st_mtime_ns, path, status.st_size)


def _removed(item: _Item, latest: int | None) -> bool:
    """Remove the file, unless it was used since it was looked at: that shows in its mtime, under any name."""
    try:
        if latest is None:
            item.path.unlink()
            return True
        aside = item.path.with_name(f".{item.path.name}.pruned")
        item.path.rename(aside)
        if aside.lstat().st_mtime_ns >= latest:
            aside.rename(item.path)
            return False
        aside.unlink()
    except OSError:  # gone meanwhile, or another user's
        return False
    return True
