"""The local store: blobs by digest, layers by key, listings of base layers (DESIGN.md, D8).

    blobs/sha256/<hex>      the bytes
    catalog/<hex>           layer key -> diff_id, digest, size and media type of the layer it names
    trees/<hex>             the listing of one base layer, by the digest of its blob
    facts/<hex>             what must be known of a package before its layer is made, by the digest of its archive
    images/<hex>            manifest and configuration of an image, by the digest of its inputs
    ingest/                 blobs on their way in, and staging directories
    archives/               what `archives` is handed out for
    lock                    held (flock(2)) by those who use the store, against those who prune it

Every file appears under its final name by renaming a whole one, so readers take no lock. Anything may be deleted at any
time, by us or by the user: what is missing counts as absent and is made again, and so does a damaged document. That a
blob is damaged shows when it is read; then all others are looked at that are to be used, and the next run makes again
what was damaged. What is being written is locked with flock(2), which ends with its process: what nobody locks is left
over and is removed. The mtime of a file is when it was last used, by which `prune` chooses; of `archives`, the atime.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import secrets
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Self

from layers.digest import Digest, DigestWriter
from layers.errors import DigestError
from layers.layer import Layer
from ociforge.errors import ImageError, StoreError
from ociforge.oci.blob import VerifiedReader
from ociforge.oci.descriptor import Descriptor, canonical_json, parse_json
from ociforge.regular import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

__all__ = ["Catalog", "Documents", "Ingest", "Store", "locked", "touch"]

_CATALOG_FORMAT = 1
_READ_SIZE = 1 << 20  # 1 MiB
_ATTEMPTS = 100
_ABANDONED = 24 * 3600  # seconds without a byte, after which a download does not go on
_HINT = "free some space, or let `OCIFORGE_CACHE` name a directory that can be written"


class Store:
    """Blobs, layer keys and listings below `root`, which need not exist. Safe for several threads and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.catalog = Catalog(self)
        self.trees = Documents(root, "trees")
        self.facts = Documents(root, "facts")
        self.images = Documents(root, "images")
        self._swept = False
        self._told: dict[Digest, int] = {}  # blobs that we said are here, and their sizes
        self._looking = threading.Lock()

    def path(self, digest: Digest) -> Path:
        """Where the blob is when the store has it; not to be written to."""
        return self.root / "blobs" / "sha256" / digest.hex

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is here, of `size` bytes if that is given. Does not read it: see `open` and `verify`."""
        path = self.path(digest)
        try:
            found = path.stat()
        except OSError:
            return False
        if size is not None and found.st_size != size:
            return False
        self._told[digest] = found.st_size
        touch(path)
        return True

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """A stream of the blob, verified while it is read; the caller closes it.

        Raises StoreError when the blob is absent, or, by the read that reaches its end, when it is damaged; a damaged
        blob is dropped first, so that it is made again next time, and so are all damaged ones that `has` told of.
        """
        path = self.path(descriptor.digest)
        try:
            stream = path.open("rb")
        except FileNotFoundError as error:
            raise StoreError(f"blob `{descriptor.digest}` is not in the store", "run the command again") from error
        except OSError as error:
            _fail(path, error)
        found = os.fstat(stream.fileno())
        touch(path)
        blob = _StoredBlob(VerifiedReader(stream, descriptor), path, found.st_ino, self._drop_damaged)
        if found.st_size != descriptor.size:
            with blob:
                blob.drop(f"blob `{descriptor.digest}`: expected {descriptor.size} bytes, got {found.st_size}")
        return blob

    def verify(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here and whole, by reading all of it; a damaged one is dropped."""
        try:
            with self.open(descriptor) as stream:
                while stream.read(_READ_SIZE):
                    pass
        except StoreError:
            return False
        return True

    def _drop_damaged(self) -> int:
        """Read the blobs that we said are here, and remove the damaged ones; how many there were. Who comes while
        somebody looks waits: the process may end as soon as one damaged blob is known.
        """
        with self._looking:
            told, self._told = self._told, {}
            return sum(_dropped(self.path(digest), digest, size) for digest, size in list(told.items()))

    def ingest(self) -> Ingest:
        """A writer for one new blob, as a context manager; without `commit` nothing stays."""
        self._sweep()
        return Ingest(self)

    def put(self, descriptor: Descriptor, stream: BinaryIO) -> None:
        """Take in a blob that is known by name; `stream` stays open.

        Raises StoreError when the bytes are not the ones that `descriptor` names, and then keeps nothing.
        """
        if self.has(descriptor.digest, descriptor.size):
            return
        with self.ingest() as blob:
            while chunk := stream.read(_READ_SIZE):
                blob.write(chunk)
            if (blob.digest(), blob.size) != (descriptor.digest, descriptor.size):
                raise StoreError(
                    f"blob `{descriptor.digest}` of {descriptor.size} bytes: got `{blob.digest()}` of {blob.size} bytes"
                )
            blob.commit()

    @property
    def archives(self) -> Path:
        """A directory, made if need be, where downloaded packages may be kept."""
        return _directory(self.root, "archives")

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """While this context lasts, nothing that is used in it is pruned; any number of processes may be in one."""
        with locked(self, fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty directory, removed at the end, or by a later process if this one is killed."""
        self._sweep()
        path, lock = _new_locked(_directory(self.root, "ingest"), _make_directory)
        try:
            yield path
        finally:
            try:
                shutil.rmtree(path, ignore_errors=True)
            except KeyboardInterrupt:  # takes long enough for that; what is here can be large
                shutil.rmtree(path, ignore_errors=True)
                raise
            finally:
                os.close(lock)

    def _sweep(self) -> None:
        """Remove what killed processes left behind; once per store, since it is there to bound waste only."""
        if not self._swept:
            self._swept = True
            with contextlib.suppress(OSError):
                for path in (self.root / "ingest").iterdir():
                    _remove_stale(path)
            with contextlib.suppress(OSError):
                for path in (self.root / "archives").rglob("*.part"):  # downloads, which nobody locks
                    if path.stat().st_mtime < time.time() - _ABANDONED:
                        path.unlink()


class Ingest(DigestWriter):
    """One blob on its way into the store: `write` the bytes, then `commit`.

    A context manager: leaving it without `commit` leaves nothing. For one thread at a time.
    """

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def __enter__(self) -> Self:
        self._path, handle = _new_locked(_directory(self._store.root, "ingest"), _make_file)
        self._file = self._sink = os.fdopen(handle, "wb")
        return self

    def write(self, data: bytes) -> int:
        """Write some more. Raises StoreError."""
        try:
            return super().write(data)
        except OSError as error:
            _fail(self._path, error)

    def commit(self) -> tuple[Digest, int]:
        """Give the blob its name; returns digest and size. Nothing may be written afterwards."""
        digest = self.digest()
        final = self._store.path(digest)
        try:
            self._file.flush()
            # The bytes reach the disk before the name does. The directory is not synced: a name that is lost when the
            # power fails is only a blob that is made again.
            os.fsync(self._file.fileno())
            _directory(self._store.root, "blobs", "sha256")
            self._path.replace(final)
        except OSError as error:
            _fail(final, error)
        return digest, self.size

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what could not be flushed is not wanted any more
            self._file.close()


class Documents:
    """Small files by digest in one directory of the store: replaced whole, absent when they cannot be read.

    Each begins with a digest of its name and the rest: a damaged one is absent, too, and one that stands for another.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name

    def path(self, key: Digest) -> Path:
        return self._root / self._name / key.hex

    def find(self, key: Digest) -> bytes | None:
        path = self.path(key)
        try:
            with open_regular(path, follow=True) as stream:
                data = stream.read()
        except OSError:
            return None
        head, _, body = data.partition(b"\n")
        if head != self._head(key, body):
            return None
        touch(path)
        return body

    def record(self, key: Digest, data: bytes) -> None:
        """Keep `data` under `key`, in place of what was there. Raises StoreError."""
        _directory(self._root, self._name)
        path, handle = _new_locked(_directory(self._root, "ingest"), _make_file)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self._head(key, data) + b"\n" + data)
                file.flush()  # and no sync: a document that the disk lost counts as absent
                path.replace(self.path(key))
        except OSError as error:
            path.unlink(missing_ok=True)
            _fail(self.path(key), error)

    def _head(self, key: Digest, data: bytes) -> bytes:
        writer = DigestWriter()
        writer.write(f"{self._name} {key}\n".encode())
        writer.write(data)
        return str(writer.digest()).encode()


class Catalog:
    """Which layer a key names (DESIGN.md, D1): known before anything is downloaded.

    Of a layer that others say what it unpacks to, it is kept that this was found to be so: by the digest of its blob.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._documents = Documents(store.root, "catalog")

    def find(self, key: Digest) -> Layer | None:
        """The layer of `key`; None when it is unknown, or its blob is missing or not of its size."""
        data = self._documents.find(key)
        if data is None:
            return None
        try:
            layer = _layer(parse_json(data, "catalog"))
        except (ImageError, DigestError, KeyError, TypeError, ValueError):
            return None
        return layer if self._store.has(layer.digest, layer.size) else None

    def record(self, key: Digest, layer: Layer) -> None:
        """Remember that `key` names `layer`, whose blob is in the store. Raises StoreError."""
        document = {
            "format": _CATALOG_FORMAT,
            "diffId": str(layer.diff_id),
            "digest": str(layer.digest),
            "size": layer.size,
            "mediaType": layer.media_type,
        }
        self._documents.record(key, canonical_json(document))

    def confirms(self, layer: Layer) -> bool:
        """Whether `confirm` was told of the layer, and its blob is here."""
        return self.find(layer.digest) == layer

    def confirm(self, layer: Layer) -> None:
        """Remember that the blob of the layer, which is in the store, unpacks to its diff_id. Raises StoreError."""
        self.record(layer.digest, layer)


def _layer(document: dict[str, Any]) -> Layer:
    size, media_type = document["size"], document["mediaType"]
    if document["format"] != _CATALOG_FORMAT or not isinstance(size, int) or not isinstance(media_type, str):
        raise ValueError("not of this format")
    return Layer(
        diff_id=Digest.parse(document["diffId"]),
        digest=Digest.parse(document["digest"]),
        size=size,
        media_type=media_type,
    )


class _StoredBlob(io.BufferedIOBase, BinaryIO):
    """A verified stream that drops its file when that is damaged."""

    def __init__(self, stream: VerifiedReader, path: Path, inode: int, drop_others: Callable[[], int]) -> None:
        self._stream = stream
        self._path = path
        self._inode = inode
        self._drop_others = drop_others

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except ImageError as error:
            self.drop(error.message)
        except OSError as error:
            _fail(self._path, error)

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(min(size, _READ_SIZE) if size >= 0 else _READ_SIZE)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._stream.close()

    def drop(self, why: str) -> NoReturn:
        _drop(self._path, self._inode)
        others = self._drop_others()
        also = f", and {others} other damaged blob{'' if others == 1 else 's'}" if others else ""
        raise StoreError(f"damaged {why}", f"it was removed from `{self._path.parent}`{also}: run the command again")


def _drop(path: Path, inode: int) -> None:
    """Remove a damaged file, but not a good one that another process has just put in its place."""
    with contextlib.suppress(OSError):
        if path.stat().st_ino == inode:
            path.unlink()


def _dropped(path: Path, digest: Digest, size: int) -> bool:
    """Remove the blob if it is damaged; whether it was."""
    try:
        with path.open("rb") as stream:
            inode = os.fstat(stream.fileno()).st_ino
            if (Digest.of_stream(stream), stream.tell()) == (digest, size):
                return False
    except OSError:  # gone meanwhile
        return False
    _drop(path, inode)
    return True


@contextlib.contextmanager
def locked(store: Store, operation: int) -> Iterator[None]:
    """The lock that keeps pruning and using apart; `operation` is flock(2)'s. Raises BlockingIOError with LOCK_NB."""
    path = _directory(store.root) / "lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if os.fstat(handle).st_mode & 0o777 != 0o644:
            with contextlib.suppress(OSError):  # another user's store
                os.fchmod(handle, 0o644)  # whatever the umask
    except OSError as error:
        _fail(path, error)
    try:
        _flock(handle, operation)
        yield
    finally:
        os.close(handle)


def _flock(handle: int, operation: int) -> None:
    try:
        fcntl.flock(handle, operation)
    except BlockingIOError:
        raise
    except OSError:
        pass  # a file system without locks: whoever prunes there has to know that nothing runs


def touch(path: Path) -> None:
    """Note that the file was used now."""
    with contextlib.suppress(OSError):  # another user's store
        os.utime(path)


def _fail(path: Path | str, error: OSError) -> NoReturn:
    raise StoreError(f"the store cannot be used: `{path}`: {error.strerror or error}", _HINT) from error


def _directory(root: Path, *names: str) -> Path:
    """The directory `root/names…`; what has to be made gets mode 0755 whatever the umask."""
    path = root.joinpath(*names)
    try:
        if not path.is_dir():
            root.parent.mkdir(parents=True, exist_ok=True)
            for directory in [root, *(root.joinpath(*names[: i + 1]) for i in range(len(names)))]:
                with contextlib.suppress(FileExistsError):
                    directory.mkdir()
                    directory.chmod(0o755)
    except OSError as error:
        _fail(path if error.filename is None else error.filename, error)
    return path


def _make_file(path: Path) -> int:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    os.fchmod(handle, 0o644)  # whatever the umask
    return handle


def _make_directory(path: Path) -> int:
    path.mkdir()
    path.chmod(0o755)  # whatever the umask
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _new_locked(parent: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """A new file or directory in `parent`, and its open, locked handle.

    Between making and locking it, another process may take it for a left-over; then the next one is made.
    """
    for _ in range(_ATTEMPTS):
        path = parent / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            handle = make(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            _fail(path, error)
        with contextlib.suppress(OSError):  # a file system without locks: its left-overs stay
            fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists():
            return path, handle
        os.close(handle)
    raise StoreError(f"the store cannot be used: `{parent}`: what is made there disappears", _HINT)


def _remove_stale(path: Path) -> None:
    """Remove `path` unless the process that makes it is alive, which then holds the lock."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(handle)
