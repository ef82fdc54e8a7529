"""A bundle -> one file: an OCI layout in an uncompressed tar (image-spec, image-layout.md).

What tells what is in it comes first, so that a file which was cut off can still say what it has lost. `index.json`
lists the bundle as `bundle`, and each base image whose blobs are all here by its own name. A bundle that builds upon
an older one has the same manifest as a whole one, lacks the blobs that the older manifest names, and says so beside its
entry in `index.json`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from layers.digest import Digest
from layers.entry import Bytes, Directory, File
from layers.errors import LayerError
from layers.tar import END, members
from ociforge.bundle.manifest import ARTIFACT_TYPE, DOCUMENTS, EMPTY, EMPTY_DATA
from ociforge.errors import TransportError
from ociforge.oci.descriptor import INDEX, MANIFEST, Descriptor, canonical_json
from ociforge.replacing import replacing
from ociforge.transports.files import check_parent, sync_directory, translated
from ociforge.transports.layout import LAYOUT
from ociforge.transports.naming import REF_NAME

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from layers.entry import Entry
    from ociforge.bundle.collect import Bundle

__all__ = ["NAME", "SINCE", "Written", "write"]

NAME: Final = "bundle"
SINCE: Final = "dev.ociforge.bundle.since"  # of the entry in `index.json`: the manifest of the bundle to import before
_BLOBS = "blobs/sha256"


class Written(Struct, frozen=True, kw_only=True):
    """A bundle's file: `digest` is its manifest's; `count` and `size`, in bytes, of the blobs that are in it."""

    digest: Digest
    count: int
    size: int


def write(path: Path, bundle: Bundle, *, since: Digest | None = None, had: Collection[Digest] = frozenset()) -> Written:
    """Write `bundle` in the place of `path`, which appears when it is whole; the same bundle gives the same bytes.

    `since` is the manifest of an older bundle and `had` are the files that it names: they are left out, but for the
    documents, so that the new one can be understood by itself. Contents were verified when they were brought into the
    store. Raises TransportError, or ImageError for more files than a manifest has room for.
    """
    data = bundle.manifest.to_bytes()
    root = Descriptor(media_type=MANIFEST, digest=Digest.of(data), size=len(data), artifact_type=ARTIFACT_TYPE)
    files = {item.digest: item for item in bundle.manifest.items if item.role in DOCUMENTS or item.digest not in had}
    documents = sorted(digest for digest, item in files.items() if item.role in DOCUMENTS)
    others = sorted(files.keys() - set(documents))

    def entries() -> Iterator[Entry]:
        yield _document("oci-layout", LAYOUT)
        yield _document("index.json", _index(bundle, root, since, files.keys()))
        yield Directory(path="blobs")
        yield Directory(path=_BLOBS)
        yield _document(f"{_BLOBS}/{root.digest.hex}", data)
        yield _document(f"{_BLOBS}/{EMPTY.digest.hex}", EMPTY_DATA)
        for digest in (*documents, *others):
            content = bundle.contents[digest]
            yield File(path=f"{_BLOBS}/{digest.hex}", size=files[digest].size, content=content)

    with translated(f"writing `{path}`"):
        check_parent(path.absolute(), f"writing `{path}`")
        with replacing(path) as file:
            try:
                for chunk in members(entries(), lambda _: None):  # there are no hard links
                    file.write(chunk)
            except LayerError as error:
                raise TransportError(f"writing `{path}`: {error}") from error
            file.write(END)
        sync_directory(path.resolve().parent)
    return Written(digest=root.digest, count=len(files), size=sum(item.size for item in files.values()))


def _index(bundle: Bundle, root: Descriptor, since: Digest | None, held: Collection[Digest]) -> bytes:
    """The bundle, and the base images that are whole here."""
    notes = {REF_NAME: NAME} | ({} if since is None else {SINCE: str(since)})
    layers = {item.digest for item in bundle.manifest.with_role("base-layer")}
    bases: Iterable[Descriptor] = bundle.bases if layers <= set(held) else ()
    entries = [root.to_json() | {"annotations": notes}, *(base.to_json() for base in bases)]
    return canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})


def _document(path: str, data: bytes) -> File:
    return File(path=path, size=len(data), content=Bytes(data))
