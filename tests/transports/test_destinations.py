"""One contract, held by every destination: in memory, layout, archive and registry."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from ociforge import transports
from ociforge.errors import ForgeError, ImageError, TransportError
from ociforge.oci.descriptor import Descriptor
from ociforge.publish import publish
from ociforge.transports.base import Blob
from tests.support.memory import MemoryDestination, MemorySource, index_of, sample_image
from tests.support.registry import running_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from ociforge.transports.base import Destination, Source

ONE = sample_image(({"one": b"1"}, {"more": b"22"}))
TWO = sample_image(({"two": b"2"},))


@dataclass(frozen=True)
class Place:
    """Somewhere an image can be: opened anew each time, as by another process. `keeps` blobs from one time to the next
    (an archive is written whole or not at all); `lazy` ones verify when they tag.
    """

    write: Callable[[], Destination]
    read: Callable[[], Source]
    keeps: bool = True
    lazy: bool = False

    def digest(self) -> Digest | None:
        """Of what has the place's name now; None when nothing has."""
        try:
            return self.read().root().digest
        except TransportError:
            return None

    def contents(self) -> dict[Digest, bytes]:
        copy = MemoryDestination()
        publish(self.read(), copy)
        return copy.contents


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running.host


@pytest.fixture(params=["memory", "layout", "archive", "registry"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    match request.param:
        case "memory":
            shared = MemoryDestination()
            return Place(write=partial(replace, shared), read=partial(memory_source, shared))
        case "layout":
            location = f"oci:{tmp_path}/layout:1"
        case "archive":
            location = f"oci-archive:{tmp_path}/archive.tar:localhost/app:1"
        case _:
            host = request.getfixturevalue("registry")
            location = f"docker://{host}/{tmp_path.name.lower().strip('_').replace('__', '_')}:1"
    return Place(
        write=partial(transports.destination, location),
        read=partial(transports.source, location),
        keeps=request.param != "archive",
        lazy=request.param == "archive",
    )


def memory_source(shared: MemoryDestination) -> MemorySource:
    if not shared.tags:
        raise TransportError("nothing has that name")
    return shared.source()


def blob(source: MemorySource, descriptor: Descriptor) -> Blob:
    return Blob(descriptor=descriptor, open=partial(source.open, descriptor))


def put_blobs(destination: Destination, source: MemorySource) -> None:
    for descriptor in source.blobs():
        destination.put(blob(source, descriptor))


def test_what_is_written_can_be_read(place: Place) -> None:
    published = publish(ONE, place.write())
    assert published.name.endswith(f"@{ONE.top.digest}")
    assert place.digest() == ONE.top.digest
    assert place.contents() == ONE.contents


def test_an_index_comes_with_its_images(place: Place) -> None:
    both = index_of(ONE, sample_image(platform="linux/arm64"))
    publish(both, place.write())
    assert place.digest() == both.top.digest
    assert place.contents() == both.contents


def test_a_blob_is_put_once(place: Place) -> None:
    layer = ONE.blobs()[1]
    with place.write() as destination:
        assert not destination.has(layer)
        assert destination.put(blob(ONE, layer)) == "uploaded"
        assert destination.has(layer)
        assert destination.put(blob(ONE, layer)) in ("exists", "uploaded")  # there, or what became of it before
        assert not destination.has(ONE.blobs()[2])


def test_a_blob_is_there_the_next_time(place: Place) -> None:
    with place.write() as destination:
        destination.put(blob(ONE, ONE.blobs()[1]))
    with place.write() as destination:
        assert destination.has(ONE.blobs()[1]) == place.keeps


def test_an_image_is_written_twice(place: Place) -> None:
    publish(ONE, place.write())
    published = publish(ONE, place.write())
    if place.keeps:
        assert published.blobs["uploaded"].count == 0
        assert published.blobs["exists"].count == 3
    assert place.contents() == ONE.contents


def test_nothing_has_a_name_before_it_is_tagged(place: Place) -> None:
    with place.write() as destination:
        put_blobs(destination, ONE)
        destination.put(blob(ONE, ONE.top))
        assert place.digest() is None
        destination.tag(ONE.top)
    assert place.digest() == ONE.top.digest


def test_a_name_passes_to_another_image(place: Place) -> None:
    publish(ONE, place.write())
    publish(TWO, place.write())
    assert place.digest() == TWO.top.digest


def test_leaving_early_leaves_what_was_there(place: Place) -> None:
    publish(ONE, place.write())
    with pytest.raises(KeyboardInterrupt), place.write() as destination:
        put_blobs(destination, TWO)
        destination.put(blob(TWO, TWO.top))
        raise KeyboardInterrupt
    assert place.digest() == ONE.top.digest
    assert place.contents() == ONE.contents


class Interrupted(io.BytesIO):
    """Ends with an exception that no code expects, after half of its bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data[: len(data) // 2])

    def read(self, size: int | None = -1, /) -> bytes:
        if data := super().read(size):
            return data
        raise KeyboardInterrupt


def test_an_interrupted_put_leaves_nothing(place: Place, tmp_path: Path) -> None:
    layer = ONE.blobs()[1]
    cut = Blob(descriptor=layer, open=partial(Interrupted, ONE.contents[layer.digest]))
    with pytest.raises(KeyboardInterrupt), place.write() as destination:
        destination.put(cut)
        destination.put(blob(ONE, ONE.blobs()[0]))
        destination.put(blob(ONE, ONE.blobs()[2]))
        destination.put(blob(ONE, ONE.top))
        destination.tag(ONE.top)
    assert place.digest() is None
    assert [path for path in tmp_path.rglob("*") if layer.digest.hex in path.name or path.name.startswith(".")] == []
    with place.write() as destination:
        assert not destination.has(layer)
    publish(ONE, place.write())
    assert place.contents() == ONE.contents


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: b"x" + data, lambda data: b"x" + data[1:], lambda _: b""]
)
@pytest.mark.parametrize("victim", [0, 1], ids=["config", "layer"])
def test_wrong_bytes_are_refused(place: Place, change: Callable[[bytes], bytes], victim: int) -> None:
    descriptor = ONE.blobs()[victim]
    wrong: Callable[[], BinaryIO] = partial(io.BytesIO, change(ONE.contents[descriptor.digest]))
    with pytest.raises(ForgeError), place.write() as destination:
        destination.put(Blob(descriptor=descriptor, open=wrong))
        assert place.lazy, "only an archive may find out later"
        put_blobs(destination, ONE)
        destination.put(blob(ONE, ONE.top))
        destination.tag(ONE.top)
    assert place.digest() is None
    with place.write() as destination:
        assert not destination.has(descriptor)


def test_of_a_stream_that_is_too_long_no_wrong_byte_is_kept(place: Place) -> None:
    layer = ONE.blobs()[1]
    with suppress(ImageError), place.write() as destination:
        destination.put(Blob(descriptor=layer, open=partial(io.BytesIO, ONE.contents[layer.digest] + b"x")))
    publish(ONE, place.write())
    assert place.contents() == ONE.contents


def test_what_was_never_put_is_not_tagged(place: Place) -> None:
    with pytest.raises(TransportError), place.write() as destination:
        destination.tag(ONE.top)
    assert place.digest() is None


def test_a_source_that_fails_is_reported_as_it_is(place: Place) -> None:
    class VanishedError(TransportError):
        pass

    def vanish() -> BinaryIO:
        raise VanishedError("the source is gone")

    with pytest.raises(VanishedError), place.write() as destination:
        for descriptor in ONE.blobs():
            destination.put(Blob(descriptor=descriptor, open=vanish))
        destination.put(blob(ONE, ONE.top))
        destination.tag(ONE.top)
    assert place.digest() is None


def test_threads_may_put_at_the_same_time(place: Place) -> None:
    image = sample_image([{f"file{number}": bytes([number]) * 70_000} for number in range(6)], codec="none")
    with ThreadPoolExecutor(4) as pool, place.write() as destination:
        outcomes = list(pool.map(lambda each: destination.put(blob(image, each)), image.blobs() * 3))
        destination.put(blob(image, image.top))
        destination.tag(image.top)
    assert set(outcomes) <= {"uploaded", "exists"}
    assert place.contents() == image.contents


def test_an_empty_blob(place: Place) -> None:
    nothing = Descriptor(media_type="application/octet-stream", digest=Digest.of(b""), size=0)
    with place.write() as destination:
        destination.put(Blob(descriptor=nothing, open=partial(io.BytesIO, b"")))
        assert destination.has(nothing)
