"""Pruning: what was not used for longest goes first, and nothing goes that somebody works with."""

from __future__ import annotations

import io
import os
import time
from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from layers.layer import Layer
from ociforge.conda.fetch import claim, fetch
from ociforge.oci.descriptor import Descriptor
from ociforge.prune import prune, usage
from ociforge.store import Store
from tests.conda.environment import records
from tests.support.channel import serve, write_channel
from tests.support.conda import CondaPackage, Regular

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 1000


def keep(store: Store, letter: str, age: float) -> Descriptor:
    """A blob of SIZE bytes, last used `age` hours ago."""
    data = letter.encode() * SIZE
    descriptor = Descriptor(media_type="application/octet-stream", digest=Digest.of(data), size=SIZE)
    store.put(descriptor, io.BytesIO(data))
    then = time.time() - age * 3600
    os.utime(store.path(descriptor.digest), (then, then))
    return descriptor


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def there(store: Store, *blobs: Descriptor) -> list[bool]:
    return [store.path(blob.digest).exists() for blob in blobs]


def test_the_least_recently_used_go_first_and_no_more_than_must(store: Store) -> None:
    old, middle, new = keep(store, "a", 900), keep(store, "b", 800), keep(store, "c", 700)
    pruned = prune(store, 2 * SIZE + 10)
    assert there(store, old, middle, new) == [False, True, True]
    assert (pruned.removed, pruned.freed, pruned.left, pruned.size, pruned.busy) == (1, SIZE, 2, 2 * SIZE, False)


@pytest.mark.parametrize("how", ["has", "open", "catalog", "put"])
def test_whatever_is_used_counts_as_new(store: Store, how: str) -> None:
    first, second = keep(store, "a", 900), keep(store, "b", 800)
    layer = Layer(diff_id=first.digest, digest=first.digest, size=SIZE, media_type=first.media_type)
    store.catalog.record(first.digest, layer)
    match how:
        case "has":
            assert store.has(first.digest)
        case "open":
            store.open(first).close()
        case "catalog":
            assert store.catalog.find(first.digest) == layer
        case _:
            store.put(first, io.BytesIO())
    prune(store, SIZE + 500)
    assert there(store, first, second) == [True, False]


def test_zero_empties_the_store(store: Store) -> None:
    keep(store, "a", 1)
    store.trees.record(Digest.of(b"tree"), b"listing")
    (store.archives / "archives").mkdir()
    (store.archives / "archives" / "package.conda").write_bytes(b"package")
    assert prune(store, 0).size == 0
    assert [kind.count for kind in usage(store)] == [0] * 6


def test_what_somebody_uses_now_stays(store: Store) -> None:
    old, recent = keep(store, "a", 900), keep(store, "b", 2)
    with store.in_use(), store.in_use():
        pruned = prune(store, 0)
    assert there(store, old, recent) == [False, True]
    assert (pruned.busy, pruned.size) == (True, SIZE)
    assert prune(store, 0).size == 0


def test_packages_that_a_build_is_going_to_read_stay(store: Store, tmp_path: Path) -> None:
    """However long ago they were downloaded."""
    packages = [CondaPackage(name=name, files={f"share/{name}": Regular(content=name.encode())}) for name in "abc"]
    channel = write_channel(tmp_path / "channel", packages)
    cache = store.archives / "archives"
    with serve(channel.path) as server:
        rows = records(channel, url=server.url)
        old = [found.path for found in fetch(rows, cache=cache)]
        for path in old:
            os.utime(path, (1000, 1000))
        with store.in_use():
            (read,) = fetch(rows[:1], cache=cache)
            claim(cache, rows[1])
            prune(store, 0)
            assert [path.exists() for path in old] == [True, True, False]
            read.check_unchanged()


def test_documents_go_last(store: Store) -> None:
    """An image that is built unchanged every day looks at none of its layers' documents."""
    keep(store, "a", 1)
    key = Digest.of(b"key")
    kinds = (store.trees, store.facts, store.images)
    for documents in kinds:
        documents.record(key, b"document")
        os.utime(documents.path(key), (1000, 1000))
    prune(store, SIZE)
    assert [documents.find(key) for documents in kinds] == [b"document"] * 3
    assert [kind.count for kind in usage(store) if kind.kind == "blobs"] == [0]


def test_what_is_used_while_it_is_removed_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking at a file and removing it, a build may take it: the mtime tells."""
    blob = keep(store, "a", 900)
    rename = os.rename

    def used_just_before(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        if os.fspath(source) == os.fspath(store.path(blob.digest)):
            os.utime(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", used_just_before)
    with store.in_use():
        assert prune(store, 0).removed == 0
    assert there(store, blob) == [True]
    assert [path.name for path in store.path(blob.digest).parent.iterdir()] == [blob.digest.hex]


def test_a_key_without_its_layer_is_unknown(store: Store) -> None:
    blob = keep(store, "a", 900)
    store.catalog.record(blob.digest, Layer(diff_id=blob.digest, digest=blob.digest, size=SIZE, media_type="x"))
    os.utime(store.path(blob.digest), (1, 1))
    prune(store, SIZE - 1)
    assert store.catalog.find(blob.digest) is None


def test_a_store_that_is_not_there_holds_nothing(store: Store) -> None:
    assert prune(store, 0).left == 0
    assert sum(kind.size for kind in usage(store)) == 0
    assert not store.root.exists()
