"""The store: blobs under their digests, whole or absent, whatever happens to the processes that write them."""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from layers.layer import Layer
from ociforge.errors import StoreError
from ociforge.oci.descriptor import Descriptor
from ociforge.store import Documents, Store

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA = b"a blob\n" * 1000
KEY = Digest.of(b"key")


def described(data: bytes) -> Descriptor:
    return Descriptor(media_type="application/octet-stream", digest=Digest.of(data), size=len(data))


def keep(store: Store, data: bytes = DATA) -> Descriptor:
    descriptor = described(data)
    store.put(descriptor, io.BytesIO(data))
    return descriptor


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own that runs `code` with `store` at the first argument."""
    prelude = (
        "import sys\nfrom pathlib import Path\nfrom ociforge.store import Store\nstore = Store(Path(sys.argv[1]))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prelude + textwrap.dedent(code), *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answers(process: subprocess.Popen[str], lines: Sequence[str]) -> None:
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output.split()) == (0, list(lines)), errors


def files_below(path: Path) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())


def test_a_store_that_is_not_written_to_makes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    assert not store.has(KEY)
    assert store.catalog.find(KEY) is None
    assert store.trees.find(KEY) is None
    assert not store.root.exists()


def test_what_is_written_is_found_by_its_digest(tmp_path: Path) -> None:
    store = Store(tmp_path / "some" / "cache")
    with store.ingest() as blob:
        blob.write(DATA[:10])
        blob.write(DATA[10:])
        assert files_below(store.root / "blobs") == []
        assert blob.commit() == (Digest.of(DATA), len(DATA))
    assert store.has(Digest.of(DATA), len(DATA))
    assert not store.has(Digest.of(DATA), len(DATA) - 1)
    with store.open(described(DATA)) as stream:
        assert stream.read() == DATA
    assert files_below(store.root) == [f"blobs/sha256/{Digest.of(DATA).hex}"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_follow_the_umask(tmp_path: Path, umask: int) -> None:
    store = Store(tmp_path / "cache")
    before = os.umask(umask)
    try:
        descriptor = keep(store)
        store.trees.record(KEY, b"listing")
        assert store.archives.is_dir()
        with store.staging(), store.in_use():
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((store.root / "lock").stat().st_mode) == 0o644
    assert stat.S_IMODE(store.path(descriptor.digest).stat().st_mode) == 0o644
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [store.root, *store.root.rglob("*")] if path.is_dir()}
    assert modes == {0o755}


def test_what_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyError), store.ingest() as blob:
        blob.write(DATA)
        raise KeyError
    with store.ingest() as blob:
        blob.write(DATA)
    assert files_below(tmp_path) == []


def test_put_refuses_other_bytes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(StoreError, match=f"`{Digest.of(DATA)}` of 7000 bytes: got `{Digest.of(b'other')}` of 5 bytes"):
        store.put(described(DATA), io.BytesIO(b"other"))
    assert files_below(tmp_path) == []


def test_put_again_reads_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store)
    unread = io.BytesIO(DATA)
    store.put(described(DATA), unread)
    assert unread.tell() == 0


def test_an_absent_blob_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not in the store") as caught:
        Store(tmp_path).open(described(DATA))
    assert caught.value.hint == "run the command again"


@pytest.mark.parametrize("damaged", [DATA[:-1], DATA + b"x", b"", b"?" + DATA[1:]])
def test_a_damaged_blob_is_noticed_and_dropped(tmp_path: Path, damaged: bytes) -> None:
    store = Store(tmp_path)
    descriptor = keep(store)
    store.path(descriptor.digest).write_bytes(damaged)
    with pytest.raises(StoreError, match="damaged blob"), store.open(descriptor) as stream:
        while stream.read(1000):
            pass
    assert not store.has(descriptor.digest)
    keep(store)
    assert store.verify(descriptor)


def test_verify_tells_and_drops(tmp_path: Path) -> None:
    store = Store(tmp_path)
    descriptor = keep(store)
    assert store.verify(descriptor)
    store.path(descriptor.digest).write_bytes(b"?" + DATA[1:])
    assert not store.verify(descriptor)
    assert not store.path(descriptor.digest).exists()


def test_a_blob_replaced_while_a_damaged_one_is_read_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    descriptor = keep(store)
    path = store.path(descriptor.digest)
    path.write_bytes(b"?" + DATA[1:])
    stream = store.open(descriptor)
    path.rename(tmp_path / "damaged")
    keep(store)
    with pytest.raises(StoreError), stream:
        stream.read()
    assert store.verify(descriptor)


def layer_of(descriptor: Descriptor) -> Layer:
    return Layer(diff_id=Digest.of(b"tar"), digest=descriptor.digest, size=descriptor.size, media_type="a/type")


def test_the_catalog_gives_back_what_it_was_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    layer = layer_of(keep(store))
    store.catalog.record(KEY, layer)
    assert Store(tmp_path).catalog.find(KEY) == layer
    assert store.catalog.find(Digest.of(b"another key")) is None


@pytest.mark.parametrize("harm", ["unlink", "truncate"])
def test_a_key_without_its_blob_is_unknown(tmp_path: Path, harm: str) -> None:
    store = Store(tmp_path)
    layer = layer_of(keep(store))
    store.catalog.record(KEY, layer)
    if harm == "unlink":
        store.path(layer.digest).unlink()
    else:
        os.truncate(store.path(layer.digest), 3)
    assert store.catalog.find(KEY) is None


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"[]",
        b"{",
        b'{"format":1}',
        b'{"format":2,"diffId":"sha256:DIGEST","digest":"sha256:DIGEST","size":7000,"mediaType":"a/type"}',
        b'{"format":1,"diffId":"sha256:../..","digest":"sha256:DIGEST","size":7000,"mediaType":"a/type"}',
        b'{"format":1,"diffId":"sha256:DIGEST","digest":"sha256:DIGEST","size":"7000","mediaType":"a/type"}',
        b'{"format":1,"diffId":7,"digest":"sha256:DIGEST","size":7000,"mediaType":"a/type"}',
    ],
)
def test_a_damaged_catalog_entry_is_unknown(tmp_path: Path, entry: bytes) -> None:
    store = Store(tmp_path)
    layer = layer_of(keep(store))
    store.catalog.record(KEY, layer)
    Documents(tmp_path, "catalog").record(KEY, entry.replace(b"DIGEST", layer.digest.hex.encode()))
    assert store.catalog.find(KEY) is None
    store.catalog.record(KEY, layer)
    assert store.catalog.find(KEY) == layer


@pytest.mark.parametrize("damage", [0, 10, -1])
def test_a_damaged_document_is_absent(tmp_path: Path, damage: int) -> None:
    """Nothing that is planned or made follows from a flipped bit."""
    documents = Store(tmp_path).facts
    documents.record(KEY, b"facts")
    assert documents.find(KEY) == b"facts"
    data = bytearray(documents.path(KEY).read_bytes())
    data[damage] ^= 1
    documents.path(KEY).write_bytes(data)
    assert documents.find(KEY) is None


def test_a_pipe_in_the_place_of_a_document_is_not_waited_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = Digest.of(b"key")
    store.facts.record(key, b"data")
    store.facts.path(key).unlink()
    os.mkfifo(store.facts.path(key))
    assert store.facts.find(key) is None
    store.facts.record(key, b"data")
    assert store.facts.find(key) == b"data"


@pytest.mark.parametrize("other", [("facts", Digest.of(b"another key")), ("trees", KEY)])
def test_a_document_in_the_place_of_another_is_absent(tmp_path: Path, other: tuple[str, Digest]) -> None:
    store = Store(tmp_path)
    for documents, key in ((store.facts, KEY), (Documents(tmp_path, other[0]), other[1])):
        documents.record(key, b"facts of " + str(key).encode())
    Documents(tmp_path, other[0]).path(other[1]).replace(store.facts.path(KEY))
    assert store.facts.find(KEY) is None


def test_one_damaged_blob_makes_look_at_all_that_were_to_be_used(tmp_path: Path) -> None:
    """So that the next run makes all of them again, and not one in each run."""
    store = Store(tmp_path)
    blobs = [keep(store, data) for data in (b"first", b"second", b"third", b"not to be used")]
    for blob in (*blobs[:2], blobs[3]):
        store.path(blob.digest).write_bytes(b"x" * blob.size)
    store = Store(tmp_path)
    assert all(store.has(blob.digest, blob.size) for blob in blobs[:3])
    with pytest.raises(StoreError, match="damaged blob") as caught, store.open(blobs[0]) as stream:
        stream.read()
    assert caught.value.hint == (
        f"it was removed from `{tmp_path}/blobs/sha256`, and 1 other damaged blob: run the command again"
    )
    assert [store.path(blob.digest).exists() for blob in blobs] == [False, False, True, True]


def test_an_unusable_directory_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = Store(tmp_path / "file" / "cache")
    with (
        pytest.raises(StoreError, match=r"^the store cannot be used: `.*/file`: File exists$") as caught,
        store.ingest(),
    ):
        pass
    assert "OCIFORGE_CACHE" in str(caught.value.hint)
    with pytest.raises(StoreError, match="cannot be used"):
        store.catalog.record(KEY, layer_of(described(DATA)))


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    code = """
        import resource
        from ociforge.errors import StoreError
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            with store.ingest() as blob:
                for _ in range(1000):
                    blob.write(bytes(1000))
                blob.commit()
        except StoreError as error:
            print("StoreError" if "File too large" in error.message else error)
    """
    answers(start(code, tmp_path), ["StoreError"])
    assert files_below(tmp_path) == []


WRITER = """
    blob = store.ingest()
    with blob, store.staging() as staging:
        blob.write(b"half of it")
        (staging / "file").write_text("being made")
        print("ready", flush=True)
        sys.stdin.read()
        blob.commit()
    print("done")
"""


def left_over(root: Path) -> int:
    return len(list((root / "ingest").iterdir()))


def test_a_killed_process_leaves_no_name_and_is_cleaned_up_after(tmp_path: Path) -> None:
    process = start(WRITER, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert left_over(tmp_path) == 2
    assert not (tmp_path / "blobs").exists()
    descriptor = keep(Store(tmp_path))
    assert left_over(tmp_path) == 0
    assert files_below(tmp_path) == [f"blobs/sha256/{descriptor.digest.hex}"]


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    process = start(WRITER, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    keep(Store(tmp_path))
    assert left_over(tmp_path) == 2
    answers(process, ["done"])
    assert left_over(tmp_path) == 0
    assert Store(tmp_path).verify(described(b"half of it"))


def test_processes_and_threads_write_the_same_blobs_at_once(tmp_path: Path) -> None:
    code = """
        import io
        from layers.digest import Digest
        from ociforge.oci.descriptor import Descriptor
        sys.stdin.read()
        for number in range(40):
            data = str(number).encode() * 5000
            blob = Descriptor(media_type="a/type", digest=Digest.of(data), size=len(data))
            Store(store.root).put(blob, io.BytesIO(data))
            assert store.verify(blob)
        print("done")
    """
    processes = [start(code, tmp_path) for _ in range(3)]
    store = Store(tmp_path)
    blobs = [str(number).encode() * 5000 for number in range(40)]
    threads = [threading.Thread(target=lambda: [keep(store, data) for data in blobs]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for process in processes:
        answers(process, ["done"])
    for thread in threads:
        thread.join()
    assert all(store.verify(described(data)) for data in blobs)
    assert left_over(tmp_path) == 0


def test_a_staging_directory_is_empty_and_goes_away(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.staging() as first, store.staging() as second:
        assert first != second
        assert list(first.iterdir()) == []
        (first / "below").mkdir()
        (first / "below" / "file").write_text("x")
        assert Store(tmp_path).archives.is_dir()
    assert left_over(tmp_path) == 0


def test_everything_may_be_deleted_at_any_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    descriptor = keep(store)
    store.trees.record(KEY, b"listing")
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert store.trees.find(KEY) is None
    assert not store.verify(descriptor)
    assert store.verify(keep(store))


def test_downloads_that_were_broken_off_are_removed_in_the_end(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    old, young = (store.archives / "archives" / f".{name}.part" for name in ("old", "young"))
    old.parent.mkdir()
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    with Store(store.root).staging():
        pass
    assert (old.exists(), young.exists()) == (False, True)
