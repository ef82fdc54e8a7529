"""OCI image layouts: a directory with blobs by digest and an index that names images (image-spec, image-layout.md)."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ociforge.errors import ImageError, TransportError
from ociforge.events import Warned, ignore
from ociforge.oci.blob import READ_SIZE, VerifiedReader, read_document
from ociforge.oci.descriptor import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    MANIFEST_TYPES,
    MAX_MANIFEST_SIZE,
    canonical_json,
    parse_json,
)
from ociforge.oci.image import ImageManifest
from ociforge.oci.reference import Reference
from ociforge.platform import Platform
from ociforge.regular import open_regular
from ociforge.replacing import appearing, check_writable, is_temporary, replacing, sweep
from ociforge.transports.files import check_parent, sync_directory, translated
from ociforge.transports.location import LayoutLocation
from ociforge.transports.naming import Name, entries_of, labelled, matching, merge, names_of, select
from ociforge.transports.watched import told_exists, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Any, BinaryIO, Self

    from layers.digest import Digest
    from ociforge.events import Notify
    from ociforge.oci.descriptor import Descriptor
    from ociforge.transports.base import Blob, Outcome

__all__ = ["LAYOUT", "LayoutDestination", "LayoutSource", "check_layout", "described", "warn_of_docker_types"]

LAYOUT = canonical_json({"imageLayoutVersion": "1.0.0"})
_NO_IMAGES = canonical_json(merge(None, []))  # what `index.json` says at first
_MAX_LAYOUT_SIZE = 64 << 10  # 64 KiB


class LayoutSource:
    """One image of a layout: the one called `ref` (a tag or a whole name), or with `digest`, or the only one."""

    def __init__(self, path: Path, *, ref: str | None = None, digest: Digest | None = None) -> None:
        self._path = path
        self._ref = ref
        self._digest = digest
        self._where = str(LayoutLocation(path=path))

    def root(self) -> Descriptor:
        return select(self._entries(), self._ref, self._digest, self._where)

    def names(self) -> tuple[Name, ...]:
        return names_of(matching(self._entries(), self._ref, self._digest))

    def _entries(self) -> tuple[Descriptor, ...]:
        """What `index.json` lists."""
        with translated(f"reading `{self._where}`"):
            _refuse_file(self._path, f"reading `{self._where}`")
            check_layout(_read(self._path / "oci-layout", _MAX_LAYOUT_SIZE), self._where)
            try:
                index = _read(self._path / "index.json", MAX_MANIFEST_SIZE)
            except FileNotFoundError:
                message = (
                    f"reading `{self._where}`: there is no `{self._path / 'index.json'}`: the layout is incomplete"
                )
                raise TransportError(message, "whoever wrote it did not come to an end: write it anew") from None
        return entries_of(index, self._where)

    def open(self, descriptor: Descriptor) -> BinaryIO:
        try:
            return VerifiedReader(open_regular(_blob_path(self._path, descriptor.digest)), descriptor)
        except FileNotFoundError:
            raise TransportError(
                f"`{self._where}` has no blob `{descriptor.digest}`", "the layout is incomplete"
            ) from None
        except OSError as error:
            raise TransportError(f"reading `{self._where}`: `{descriptor.digest}`: {error.strerror}") from error

    def origin(self, descriptor: Descriptor) -> Reference | None:
        return None


class LayoutDestination:
    """Creates a layout, or adds an image to one, named by `ref` (a tag or a whole name) and by each of `names`.

    A new layout is made for the first blob; it is whole, and has no image, from the first. Blobs are in place as soon
    as they are put, and stay when the rest fails: without an entry in `index.json` they are no image, and the next
    attempt finds them. `index.json` is replaced in one step, under a lock that other writers of this kind respect. What
    it lists besides stays, but for entries of the same name (see `naming.merge`).
    """

    def __init__(
        self,
        path: Path,
        *,
        ref: str | None = None,
        names: Sequence[Reference | Name] = (),
        notify: Notify = ignore,
    ) -> None:
        self._path = path
        self._ref = ref
        self._names = Name.plan(None if ref is None else _name(ref), names)
        self._notify = notify
        self._where = str(LayoutLocation(path=path, ref=ref))
        self._begun = False  # whether we have seen to it that there is a layout

    def __str__(self) -> str:
        return self._where

    def __enter__(self) -> Self:
        with translated(f"writing `{self._where}`"):
            _refuse_file(self._path, f"writing `{self._where}`")
            check_parent(self._path.absolute(), f"writing `{self._where}`")
            sweep(self._path.resolve().parent)
            present = self._present()
            if "oci-layout" in present:
                self._begin()
            elif present:
                raise TransportError(
                    f"writing `{self._where}`: `{self._path}` has files in it, but is no OCI layout",
                    "name a new or empty directory",
                )
            else:
                self._check_writable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def has(self, descriptor: Descriptor) -> bool:
        try:
            with open_regular(_blob_path(self._path, descriptor.digest)) as file:
                return os.fstat(file.fileno()).st_size == descriptor.size
        except OSError:
            return False

    def put(self, blob: Blob) -> Outcome:
        if self.has(blob.descriptor):
            told_exists(blob, self._notify)
            return "exists"
        path = _blob_path(self._path, blob.descriptor.digest)
        with watched(blob, str(self), self._notify) as reader, translated(f"writing `{self._where}`"):
            if not self._begun:
                self._begin()
            with replacing(path, scratch=self._path) as file:
                shutil.copyfileobj(reader, file, READ_SIZE)
        return "uploaded"

    def tag(self, root: Descriptor) -> str:
        if not self.has(root):
            raise TransportError(f"writing `{self._where}`: `{root.digest}` was not put there")
        entries = labelled(described(root, self._read), self._names)
        warn_of_docker_types(root, self._where, self._notify)
        with translated(f"writing `{self._where}`"):
            sync_directory(self._path / "blobs" / "sha256")
            with self._locked(), replacing(self._path / "index.json") as file:
                file.write(canonical_json(merge(self._index(), entries)))
            sync_directory(self._path)
        return str(LayoutLocation(path=self._path, ref=self._ref, digest=root.digest))

    def _present(self) -> frozenset[str]:
        """What is in the directory, if there is one, besides what other writers are about to name."""
        if not self._path.exists():
            return frozenset()
        return frozenset(entry.name for entry in self._path.iterdir() if not is_temporary(entry.name))

    def _check_writable(self) -> None:
        """Raise the OSError that beginning a layout would lead to: that is told before anything is made."""
        place = self._path.resolve()
        try:
            check_writable(place if place.exists() else place.parent)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def _begin(self) -> None:
        """See to it that there is a whole layout; several writers may do so at once."""
        if not self._path.exists():
            self._appear()
        with self._locked():  # which has checked or written `oci-layout`
            if not (self._path / "index.json").exists():
                with replacing(self._path / "index.json") as file:
                    file.write(_NO_IMAGES)
        (self._path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        self._begun = True

    def _appear(self) -> None:
        """Let a whole layout without images appear at once, unless another writer does first: whatever becomes of this
        process, there is nothing that other tools take for damaged.
        """
        try:
            with appearing(self._path) as new:
                (new / "blobs" / "sha256").mkdir(parents=True)
                (new / "index.json").write_bytes(_NO_IMAGES)
                (new / "oci-layout").write_bytes(LAYOUT)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise OSError(error.errno, error.strerror, str(self._path)) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the layout, whose file is `oci-layout`: it is there from the first and never replaced."""
        path = self._path / "oci-layout"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not (data := file.read(_MAX_LAYOUT_SIZE)):  # ours, or left by a writer that was killed
                file.write(LAYOUT)
                file.flush()
            else:
                check_layout(data, self._where)
            yield

    def _index(self) -> dict[str, Any] | None:
        """The present `index.json`; None when there is none yet."""
        try:
            data = _read(self._path / "index.json", MAX_MANIFEST_SIZE)
        except FileNotFoundError:
            return None
        entries_of(data, self._where)  # to write on top of nothing but a sound index
        return parse_json(data, f"`index.json` of `{self._where}`")

    def _read(self, descriptor: Descriptor) -> bytes:
        with translated(f"reading `{self._where}`"):
            return read_document(open_regular(_blob_path(self._path, descriptor.digest)), descriptor)


def check_layout(data: bytes, where: str) -> None:
    """Raise TransportError unless `data` is the `oci-layout` file of a version that this module reads."""
    try:
        version = parse_json(data, "`oci-layout`").get("imageLayoutVersion")
    except ImageError as error:
        raise TransportError(f"`{where}`: {error}") from error
    if not isinstance(version, str) or not version.startswith("1."):
        raise TransportError(f"`{where}`: `oci-layout` names the version `{version}`: expected `1.0.0`")


def described(root: Descriptor, read: Callable[[Descriptor], bytes]) -> Descriptor:
    """`root` with the platform of its configuration, if it is an image and does not say so already.

    A configuration without a platform is passed over: to copy an image is not to judge it.
    """
    if root.platform is not None or root.media_type not in MANIFEST_TYPES:
        return root
    config = ImageManifest.parse(read(root), root.media_type).config
    if config.media_type not in (CONFIG, DOCKER_CONFIG):
        return root
    document = parse_json(read(config), f"image config `{config.digest}`")
    os, architecture, variant = (document.get(key) for key in ("os", "architecture", "variant"))
    if not isinstance(os, str) or not isinstance(architecture, str) or not os or not architecture:
        return root
    platform = Platform(
        os=os, architecture=architecture, variant=variant if isinstance(variant, str) and variant else None
    )
    return replace(root, platform=platform)


def warn_of_docker_types(root: Descriptor, where: str, notify: Notify) -> None:
    """Say that a copy keeps docker's media types: to change them would change the digest."""
    if root.media_type in (DOCKER_MANIFEST, DOCKER_INDEX):
        notify(
            Warned(f"`{where}` has docker's media types, as its source has: umoci refuses them", "`skopeo` reads them")
        )


def _name(ref: str) -> Name:
    """What the text behind the path calls the image: a tag, or a whole name if it could be no tag."""
    return Name.of(Reference.parse(ref)) if "/" in ref or ":" in ref else Name(tag=ref)


def _refuse_file(path: Path, what: str) -> None:
    """Raise a TransportError that begins with `what` for a file where a layout should be."""
    if path.is_file():
        raise TransportError(f"{what}: `{path}` is a file", f"for an archive write `oci-archive:{path}`")


def _blob_path(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / "sha256" / digest.hex


def _read(path: Path, limit: int) -> bytes:
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TransportError(f"reading `{path}`: more than {limit} bytes")
    return data
