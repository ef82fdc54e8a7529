"""A bundle on its way into a store."""

from __future__ import annotations

import hashlib
import tarfile
from typing import TYPE_CHECKING

import pytest

from ociforge.bundle import open_bundle, take
from ociforge.errors import TransportError
from ociforge.events import BlobDone
from ociforge.store import Store
from tests.bundle.making import Bench, named, rewrite
from tests.bundle.test_check import LIBA, blob, flipped, swapped
from tests.support.tiny import tiny_packages

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.events import Event
    from tests.bundle.conftest import Made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def contents(store: Store) -> dict[str, bytes]:
    """The files of a store, by digest; nothing half-written is among them."""
    files = [path for path in store.root.rglob("*") if path.is_file() and path.name != "lock"]
    found = {path.name.partition(".")[0]: path.read_bytes() for path in files}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in found.items()} == {name: name for name in found}
    return found


def refusal(path: Path, store: Store) -> list[str]:
    with pytest.raises(TransportError) as caught:
        take(open_bundle(path), store)
    return [line.removeprefix(f"`{path}`: ") for line in caught.value.message.splitlines()]


def test_everything_is_where_builds_look(made: Made, store: Store) -> None:
    taken = take(open_bundle(made.path), store)
    own = {"pixi.toml", "pixi.lock", "ociforge.lock"}
    assert contents(store).keys() == {d.hex for name, d in named(made.path).items() if name not in own}
    assert (store.archives / "archives" / f"{named(made.path)[LIBA].hex}.tar.bz2").is_file()
    assert (taken.count, taken.known) == (len(contents(store)), 0)
    assert taken.size == sum(map(len, contents(store).values()))


def test_each_file_is_told_of(made: Made, store: Store) -> None:
    events: list[Event] = []
    taken = take(open_bundle(made.path), store, notify=events.append)
    done = [event for event in events if isinstance(event, BlobDone)]
    assert {event.outcome for event in done} == {"imported"}
    assert len(done) == taken.count


def test_what_is_there_is_not_written_again(made: Made, store: Store) -> None:
    first = take(open_bundle(made.path), store)
    again = take(open_bundle(made.path), store)
    assert (again.count, again.known, again.known_size) == (0, first.count, first.size)


@pytest.mark.parametrize("name", [LIBA, "base"])
def test_what_was_damaged_is_put_right(made: Made, store: Store, name: str) -> None:
    take(open_bundle(made.path), store)
    before = contents(store)
    digest = next(digest for title, digest in named(made.path).items() if title.startswith(name))
    [path] = store.root.rglob(f"{digest.hex}*")
    path.write_bytes(flipped(path.read_bytes()))
    assert take(open_bundle(made.path), store).count == 1
    assert contents(store) == before


def test_a_damaged_file_is_not_taken(made: Made, store: Store, tmp_path: Path) -> None:
    digest = named(made.path)[LIBA]
    place = blob(digest)
    spoilt = rewrite(made.path, tmp_path / "spoilt", lambda files: files | {place: flipped(files[place])})
    [line] = refusal(spoilt, store)
    assert line.startswith(f"the conda archive `{LIBA}` is damaged: blob `{digest}`")
    assert digest.hex not in contents(store)


def test_two_damaged_files_are_both_named(made: Made, store: Store, tmp_path: Path) -> None:
    places = [blob(digest) for name, digest in named(made.path).items() if name.startswith("conda/")][:2]
    spoilt = rewrite(
        made.path, tmp_path / "spoilt", lambda files: files | {place: flipped(files[place]) for place in places}
    )
    assert len(refusal(spoilt, store)) == 2


def test_nothing_is_taken_of_what_contradicts_itself(made: Made, store: Store, tmp_path: Path) -> None:
    """A damaged lock, another lock, a missing file, a file too many."""
    lock, liba = named(made.path)["pixi.lock"], named(made.path)[LIBA]
    text = made.bench.tiny.lock.read_text().replace(liba.hex, "0" * 64).encode()
    for number, change in enumerate(
        (
            lambda files: files | {blob(lock): flipped(files[blob(lock)])},
            lambda files: swapped(files, "pixi.lock", text),
            lambda files: {name: data for name, data in files.items() if name != blob(liba)},
            lambda files: files | {"blobs/sha256/" + "0" * 64: b""},
        )
    ):
        assert refusal(rewrite(made.path, tmp_path / str(number), change), store) != []
        assert not store.root.exists() or contents(store) == {}


def test_an_increment_of_the_same_lock(made: Made, store: Store, tmp_path: Path) -> None:
    """Its manifest is that of the whole bundle, which the hint has to tell apart."""
    made.bench.write(tmp_path / "new.bundle", since=made.path)
    with pytest.raises(TransportError) as caught:
        take(open_bundle(tmp_path / "new.bundle"), store)
    assert caught.value.hint is not None
    assert (
        ", as this one's is: the whole one of the same lock (`ociforge bundle verify FILE` tells" in caught.value.hint
    )


def test_an_increment_that_was_cut_off_between_two(made: Made, store: Store, tmp_path: Path) -> None:
    made.bench.write(tmp_path / "new.bundle", since=made.path)
    with tarfile.open(tmp_path / "new.bundle", "r:") as tar:
        last = [*tar][-1]
    (tmp_path / "spoilt").write_bytes((tmp_path / "new.bundle").read_bytes()[: last.offset])
    assert "it was cut off: its end is missing" in refusal(tmp_path / "spoilt", store)


def test_an_increment_needs_what_it_builds_upon(tmp_path: Path, store: Store) -> None:
    old = Bench.make(tmp_path / "old", tiny_packages()[:2])
    first = old.write(tmp_path / "old.bundle")
    new = Bench.make(tmp_path / "new", tiny_packages()[:3])
    new.write(tmp_path / "new.bundle", since=tmp_path / "old.bundle")
    with pytest.raises(TransportError) as caught:
        take(open_bundle(tmp_path / "new.bundle"), store)
    missing = [name for name in named(tmp_path / "old.bundle") if name.startswith("conda/")]
    layers = [name for name in named(tmp_path / "old.bundle") if name.startswith("base/") and ".json" not in name]
    assert caught.value.message.splitlines() == [
        f"`{tmp_path}/new.bundle`: the {what} `{name}` is neither in it nor in the store: it is in `{first.digest}`"
        for what, names in (("base image's layer", layers), ("conda archive", missing))
        for name in names
    ]
    assert caught.value.hint is not None
    assert f"first import the bundle that this one builds upon, whose manifest is `{first.digest}`" in caught.value.hint
    take(open_bundle(tmp_path / "old.bundle"), store)
    assert take(open_bundle(tmp_path / "new.bundle"), store).known > 0
    assert {digest.hex for name, digest in named(tmp_path / "new.bundle").items() if name.startswith("conda/")} <= (
        contents(store).keys()
    )
