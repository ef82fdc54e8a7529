"""Whether a bundle is what it says: every byte, and that lock, pins and files agree."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from layers.digest import Digest
from ociforge.bundle.documents import pinned, read_documents
from ociforge.bundle.manifest import DOCUMENTS, EMPTY, conda_suffix, unnamed
from ociforge.errors import ForgeError, ImageError, LockError, ReferenceFormatError, TransportError
from ociforge.oci.blob import READ_SIZE
from ociforge.pins import Pins
from ociforge.platform import Platform
from ociforge.pypi.location import Local, Remote, Repository, locate
from ociforge.pypi.package import Locked
from ociforge.pypi.provided import Origin
from ociforge.transports import RegistryLocation, parse
from ociforge.transports.naming import REF_NAME
from ociforge.workspace.lockfile import read as read_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from layers.compress import OrderedMap
    from ociforge.bundle.manifest import BundledImage, Item
    from ociforge.bundle.source import Offer
    from ociforge.oci.descriptor import Descriptor
    from ociforge.workspace.lockfile import Lock, PypiRow

__all__ = ["agreement", "damage", "explained", "structure", "verify"]


def verify(offer: Offer, map_: OrderedMap = map) -> tuple[str, ...]:
    """Everything that is wrong with a bundle, one line each; nothing for a good one.

    Of a bundle that builds upon another one, what is in that one is not looked at.
    """
    damaged = tuple(line for lines in map_(partial(damage, offer), offer.manifest.items) for line in lines)
    return tuple(dict.fromkeys((*structure(offer), *_config_damage(offer), *damaged, *agreement(offer))))


def structure(offer: Offer) -> tuple[str, ...]:
    """What shows without reading the files: those that are missing, and members that belong to nothing."""
    missing = [f"the {item} is missing" for item in offer.manifest.items if offer.since is None and not offer.has(item)]
    strays = (f"`{stray}` is foreign: the bundle's manifest does not name it" for stray in offer.strays)
    return (*offer.flaws, *missing, *strays)


def damage(offer: Offer, item: Item) -> tuple[str, ...]:
    """What is wrong with the bytes of one file, if it is here."""
    if not offer.has(item):
        return ()
    try:
        _read_through(offer, item.descriptor)
    except (ImageError, TransportError) as error:
        return (explained(item, error),)
    return ()


def _config_damage(offer: Offer) -> tuple[str, ...]:
    """Of the configuration, which nothing is in: registries and skopeo copy it all the same."""
    try:
        _read_through(offer, EMPTY)
    except (ImageError, TransportError) as error:
        return (f"the empty configuration is damaged: {error.message}",)
    return ()


def _read_through(offer: Offer, descriptor: Descriptor) -> None:
    with offer.source.open(descriptor) as stream:
        while stream.read(READ_SIZE):
            pass


def explained(item: Item, error: ForgeError) -> str:
    """An error of reading a file, with its role and name."""
    return f"the {item} is damaged: {error.message}"


def agreement(offer: Offer) -> tuple[str, ...]:
    """Where the files are not those that lock and pins ask for: missing ones by the name that these give them.

    Of documents that are damaged only that is told, and nothing where some are missing, which `structure` tells.
    """
    documents = [item for item in offer.manifest.items if item.role in DOCUMENTS]
    if damaged := tuple(line for item in documents for line in damage(offer, item)):
        return damaged
    if not all(map(offer.has, documents)):
        return ()
    return (*_package_findings(offer), *_base_findings(offer))


@contextmanager
def _lock(offer: Offer) -> Iterator[Lock]:
    items = offer.manifest.with_role("lock")
    if len(items) != 1:
        raise LockError(f"there are {len(items)} locks")
    with tempfile.TemporaryDirectory(prefix="ociforge-") as directory:
        path = Path(directory, "pixi.lock")  # as messages call it, whatever its title is
        path.write_bytes(offer.read(items[0]))
        yield read_lock(path)


def _package_findings(offer: Offer) -> Iterator[str]:
    """Archives and wheels that are missing, and those that no image asks for."""
    asked: dict[_Key, str] = {}
    try:
        with _lock(offer) as lock:
            for image in offer.manifest.images:
                asked |= {key: f"{shown}, which the lock has for {image}," for key, shown in _locked(lock, image)}
    except ForgeError as error:
        yield f"the lock does not agree with the bundle: {error.message}"
        return
    held = {_key(item): item for item in offer.manifest.with_role("conda", "wheel", "built")}
    yield from (f"{shown} is missing" for key, shown in asked.items() if key not in held)
    for key, item in held.items():
        if key not in asked:
            yield f"the {item} is foreign: the lock does not have it for the bundle's images"


_Key = tuple[str, str, str]


def _key(item: Item) -> _Key:
    """By what the lock can name a file."""
    if item.role == "built":
        return item.role, item.origin.identity, item.origin.subdirectory
    return item.role, str(item.digest), item.suffix if item.role == "conda" else ""  # by which it is kept


def _locked(lock: Lock, image: BundledImage) -> Iterator[tuple[_Key, str]]:
    """What the lock has for an image, and what to call it. Raises ForgeError."""
    row = next((row for row in lock.environment(image.environment).platforms if row.name == image.locked), None)
    if row is None:
        raise LockError(f"the lock has nothing for {image}")
    rows = lock.rows(image.environment, row)
    for package in rows.conda:
        record = package.package_record
        digest = "" if record is None or record.sha256 is None else record.sha256.hex()
        filename = _filename(package.location)
        yield ("conda", f"sha256:{digest}", conda_suffix(filename)), f"the conda archive `{filename}`"
    for locked in rows.pypi:
        source = _source(locked)
        if isinstance(source, Remote | Local) and source.filename.endswith(".whl"):
            yield ("wheel", str(source.sha256), ""), f"the wheel `{source.filename}`"
        elif source is not None and (origin := Origin.of(source)) is not None:
            yield ("built", origin.identity, origin.subdirectory), f"the wheel of `{locked.name}`"


def _source(row: PypiRow) -> Remote | Local | Repository | None:
    """Where a row's package comes from; None for what is part of the workspace. Looks at no file."""
    text = row.location.removeprefix("direct+")
    digest = None if row.sha256 is None else Digest(row.sha256)
    if "://" in text and not text.startswith("file:"):
        found = locate(Locked(name=row.name, location=row.location, sha256=digest), Path())
        return found if isinstance(found, Remote | Repository) else None
    path, _, fragment = text.partition("#")
    subdirectory = fragment.removeprefix("subdirectory=") if fragment.startswith("subdirectory=") else ""
    if digest is None:
        return None
    return Local(path=Path(path), filename=_filename(path), sha256=digest, subdirectory=subdirectory)


def _filename(location: str) -> str:
    return location.rpartition("/")[2]


def _base_findings(offer: Offer) -> Iterator[str]:
    """Parts of base images that are missing, and those that belong to none."""
    wanted: set[Digest] = set()
    manifests: dict[Digest, tuple[Descriptor, set[str]]] = {}
    items = {item.digest: item for item in offer.manifest.items if item.role.startswith("base-")}
    try:
        pins = _pins(offer)
    except ForgeError as error:
        yield f"the pins of base images cannot be read: {error.message}"
        return
    for image in offer.manifest.images:
        if image.base == "scratch":
            continue
        digest = pinned(image.base, Platform.parse(image.platform), pins)
        if digest is None:
            yield f"the base image `{image.base}` for `{image.platform}` is not pinned"
        elif digest not in items:
            yield f"the base image `{image.base}` for `{image.platform}` is missing: its pin is `{digest}`"
        else:
            missing, found, manifest = _parts(offer, image, digest, items)
            wanted |= found
            if manifest is not None:
                _, names = manifests.setdefault(manifest.digest, (manifest, set()))
                names |= _names(image, digest)
            yield from missing
    for digest, item in items.items():
        if digest not in wanted:
            yield f"the {item} is foreign: it belongs to no base image that is pinned"
    for entry in offer.listed:
        if not _is_listed_right(entry, manifests):
            name = entry.annotations.get(REF_NAME, "")
            yield f"`index.json` is damaged: no base image of the bundle is `{entry.digest}` by the name {name!r}"


def _names(image: BundledImage, digest: Digest) -> set[str]:
    """What a base image may be called in `index.json`; with the platform, where there are several of a name."""
    name = unnamed(digest)
    with suppress(ReferenceFormatError):
        if isinstance(location := parse(image.base), RegistryLocation):
            name = str(location.reference)
    return {name, f"{name}-{image.platform.replace('/', '-')}"}


def _is_listed_right(entry: Descriptor, manifests: Mapping[Digest, tuple[Descriptor, set[str]]]) -> bool:
    if entry.digest not in manifests:
        return False
    manifest, names = manifests[entry.digest]
    return (entry.media_type, entry.size) == (manifest.media_type, manifest.size) and (
        entry.annotations.get(REF_NAME) in names
    )


def _parts(
    offer: Offer, image: BundledImage, digest: Digest, items: dict[Digest, Item]
) -> tuple[Iterable[str], set[Digest], Descriptor | None]:
    """What is wrong with one base image, the digests of what belongs to it, and its manifest if it has one."""
    if items[digest].role == "base-rootfs":
        return (), {digest}, None
    called = f"the base image `{image.base}` for `{image.platform}`"

    def read(digest: Digest) -> bytes:
        if digest not in items:
            raise ImageError(f"the document `{digest}` is missing")
        return offer.read(items[digest])

    try:
        found = read_documents(digest, Platform.parse(image.platform), read)
    except ForgeError as error:
        return (f"{called}: {error.message}",), {*items}, None
    wanted = [*found.documents, *found.layers]
    missing = [f"{called}: the blob `{part.digest}` is missing" for part in wanted if part.digest not in items]
    return missing, {digest, *(part.digest for part in wanted)}, found.manifest


def _pins(offer: Offer) -> Pins:
    items = offer.manifest.with_role("pins")
    return Pins.parse(offer.read(items[0])) if items else Pins()
