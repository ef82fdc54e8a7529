"""A bundle -> the store: every file where builds look for it, verified on the way."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from layers.digest import Digest
from ociforge.bundle.check import agreement, explained, structure
from ociforge.errors import ImageError, StoreError, TransportError
from ociforge.events import BlobDone, BlobStarted, Notify, StageStarted, ignore
from ociforge.oci.blob import READ_SIZE
from ociforge.pypi.fetch import Cache
from ociforge.pypi.provided import Provided
from ociforge.pypi.requirements import Requirements

if TYPE_CHECKING:
    from layers.compress import OrderedMap
    from ociforge.bundle.manifest import Item
    from ociforge.bundle.source import Offer
    from ociforge.store import Store

__all__ = ["Taken", "take"]

_HINT = "copy the bundle again, or make a new one with `ociforge bundle create`"
_STORE_HINT = "free some space, or let `OCIFORGE_CACHE` name a directory that can be written"


class Taken(Struct, frozen=True, kw_only=True):
    """What was new to the store and what was there already, in files and bytes."""

    count: int
    size: int
    known: int
    known_size: int


def take(
    offer: Offer,
    store: Store,
    *,
    map_: OrderedMap = map,
    notify: Notify = ignore,
) -> Taken:
    """Put the bundle's files into `store`, but for those that it has and that are whole, which reading them tells;
    files appear there when they are whole.

    Nothing is taken from a bundle that is wrong as far as its documents tell. Raises TransportError with one line for
    each file that is missing, damaged or foreign, and for those that only an older bundle has; StoreError when the
    store cannot be written.
    """
    notify(StageStarted(f"reading the bundle `{offer.where}`"))
    if wrong := (*structure(offer), *agreement(offer)):
        raise TransportError.collect([f"`{offer.where}`: {line}" for line in wrong], _HINT)
    files = {(item.digest, _place(store, item)): item for item in offer.manifest.items if item.role not in _UNKEPT}

    def bring(entry: tuple[tuple[Digest, Path], Item]) -> tuple[Item, str, bool]:
        (_, path), item = entry
        if _is_whole(path, item):
            return item, "", False
        if not offer.has(item):
            return item, f"the {item} is neither in it nor in the store: it is in `{offer.since}`", False
        try:
            _receive(offer, item, path, store, notify)
        except (ImageError, TransportError) as error:
            return item, explained(item, error), False
        return item, "", True

    done = list(map_(bring, files.items()))
    if failures := [f"`{offer.where}`: {why}" for _, why, _ in done if why]:
        raise TransportError.collect(failures, _hint(offer))
    _note(offer, store)
    new = [item.size for item, _, fresh in done if fresh]
    known = [item.size for item, _, fresh in done if not fresh]
    return Taken(count=len(new), size=sum(new), known=len(known), known_size=sum(known))


def _is_whole(path: Path, item: Item) -> bool:
    try:
        with path.open("rb") as stream:
            return os.fstat(stream.fileno()).st_size == item.size and Digest.of_stream(stream) == item.digest
    except OSError:
        return False


_UNKEPT = frozenset({"manifest", "lock", "pins"})  # the workspace has them


def _hint(offer: Offer) -> str:
    if offer.since is None:
        return _HINT
    older = f"the bundle that this one builds upon, whose manifest is `{offer.since}`"
    if offer.since == offer.root.digest:
        older += ", as this one's is: the whole one of the same lock"
    which = "`ociforge bundle verify FILE` tells a bundle's manifest, and what it builds upon in turn"
    return f"first import {older} ({which}); else {_HINT}"


def _place(store: Store, item: Item) -> Path:
    """Where builds look for the file."""
    if item.role == "conda":
        return store.archives / "archives" / f"{item.digest.hex}{item.suffix}"
    if item.role in ("wheel", "built", "requirement"):
        return store.archives / "pypi" / "files" / f"{item.digest.hex}.whl"
    return store.path(item.digest)


def _receive(offer: Offer, item: Item, path: Path, store: Store, notify: Notify) -> None:
    """Copy the file to `path` by way of a temporary one."""
    notify(BlobStarted(item.digest, item.size, offer.where, item.filename))
    if item.role.startswith("base-"):
        path.unlink(missing_ok=True)  # it is damaged: the store keeps what it has
        with offer.open(item) as stream:
            store.put(item.descriptor, stream)
    else:
        _copy(offer, item, path)
    notify(BlobDone(item.digest, item.size, "imported"))


def _copy(offer: Offer, item: Item, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        part = Path(name)
        try:
            with os.fdopen(number, "wb") as sink, offer.open(item) as stream:
                while chunk := stream.read(READ_SIZE):
                    sink.write(chunk)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreError(f"the store cannot be used: `{path}`: {error.strerror}", _STORE_HINT) from error


def _note(offer: Offer, store: Store) -> None:
    """Tell builds what the wheels are there for."""
    pypi = store.archives / "pypi"
    cache = Cache(pypi / "files")
    provided, requirements = Provided(pypi / "provided", cache), Requirements(pypi / "requires", cache)
    for item in offer.manifest.with_role("built"):
        provided.record(item.origin, item.filename, item.digest)
    for item in offer.manifest.with_role("requirement"):
        requirements.record(item.filename, item.digest)
