"""Publishing: the order of things, what is sent, what is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from layers.digest import Digest
from ociforge import transports
from ociforge.errors import ImageError, TransportError
from ociforge.events import Event, StageStarted, Warned
from ociforge.oci.descriptor import MANIFEST, Descriptor
from ociforge.publish import Publication, Tally, publish
from ociforge.transports.base import Blob
from tests.support.memory import MemoryDestination, MemorySource, index_of, keep, sample_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ociforge.transports.base import Destination, Outcome


def sizes(count: int) -> MemorySource:
    """An image whose layers have very different sizes, the smallest first."""
    return sample_image([{f"file{n}": bytes([n]) * 10_000 * n} for n in range(1, count + 1)], codec="none")


def test_blobs_go_first_the_biggest_first_and_the_name_last() -> None:
    image, destination = sizes(3), MemoryDestination()
    published = publish(image, destination)
    config, *layers = image.blobs()
    order = [*reversed(layers), config, image.top]
    assert destination.log == [f"put {each.digest}" for each in order] + [f"tag {image.top.digest}"]
    assert destination.contents == image.contents
    assert published.name == f"memory:image@{image.top.digest}"
    assert published.descriptor == image.top


def test_manifests_come_before_the_index_that_names_them() -> None:
    first, second = sample_image(), sample_image(platform="linux/arm64")
    inner = index_of(first)
    outer = index_of(inner, second)
    destination = MemoryDestination()
    publish(outer, destination)
    manifests = [first.top, inner.top, second.top, outer.top]
    assert destination.log[-5:] == [f"put {each.digest}" for each in manifests] + [f"tag {outer.top.digest}"]
    assert destination.contents == outer.contents


def test_blobs_that_images_share_are_sent_and_counted_once() -> None:
    files: list[dict[str, bytes]] = [{"one": b"1" * 1000}, {"one": b"1" * 1000}]
    both = index_of(sample_image(files), sample_image(files, platform="linux/arm64"))
    published = publish(both, MemoryDestination())
    assert published.blobs["uploaded"].count == 3  # one layer, two configs
    assert len(both.opened) == len(set(both.opened)) == 6


def test_outcomes_are_counted_with_their_bytes() -> None:
    image, destination = sizes(2), MemoryDestination()
    config, first, second = image.blobs()
    destination.contents[second.digest] = image.contents[second.digest]
    published = publish(image, destination)
    assert published.blobs == {
        "exists": Tally(1, second.size),
        "mounted": Tally(0, 0),
        "uploaded": Tally(2, config.size + first.size),
    }
    assert second.digest not in image.opened


def test_each_blob_and_manifest_is_told_of_once() -> None:
    first, second = sizes(2), sample_image(platform="linux/arm64")
    both = index_of(first, second)
    destination = MemoryDestination()
    there = first.blobs()[1]
    destination.contents[there.digest] = first.contents[there.digest]
    published = publish(both, destination)
    assert [(transfer.descriptor.digest, transfer.kind) for transfer in published.transfers] == [
        *zip([blob.digest for blob in first.blobs()], ["config", "layer", "layer"], strict=True),
        (first.top.digest, "manifest"),
        *zip([blob.digest for blob in second.blobs()], ["config", "layer", "layer"], strict=True),
        (second.top.digest, "manifest"),
        (both.top.digest, "index"),
    ]
    outcomes = {transfer.descriptor.digest: (transfer.outcome, transfer.sent) for transfer in published.transfers}
    assert outcomes.pop(there.digest) == ("exists", 0)
    assert set(outcomes.values()) == {("uploaded", len(both.contents[digest])) for digest in outcomes}
    assert published.sent == sum(len(data) for data in both.contents.values()) - there.size


def test_results_are_the_same_with_threads() -> None:
    def threaded(function: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]:
        with ThreadPoolExecutor(4) as pool:
            yield from pool.map(function, items)

    image = sizes(8)
    alone, together = MemoryDestination(), MemoryDestination()
    assert publish(image, alone) == publish(image, together, map_=threaded)
    assert alone.contents == together.contents
    assert together.log[-2:] == alone.log[-2:]


@dataclass
class Broken(MemoryDestination):
    """Refuses one digest."""

    refused: Digest | None = None

    def put(self, blob: Blob) -> Outcome:
        if blob.descriptor.digest == self.refused:
            raise TransportError("the disk is full")
        return super().put(blob)


@pytest.mark.parametrize("which", ["layer", "manifest", "index"])
def test_a_failure_leaves_no_name_and_no_manifest_without_its_blobs(which: str) -> None:
    image = sample_image()
    both = index_of(image, sample_image(platform="linux/arm64"))
    refused = {"layer": image.blobs()[1], "manifest": image.top, "index": both.top}[which]
    destination = Broken(refused=refused.digest)
    with pytest.raises(TransportError, match="the disk is full"):
        publish(both, destination)
    assert destination.tags == {}
    assert both.top.digest not in destination.contents
    if which == "layer":
        assert image.top.digest not in destination.contents


def blob_of(image: MemorySource, descriptor: Descriptor) -> Blob:
    return Blob(descriptor=descriptor, open=partial(image.open, descriptor))


class TestPublication:
    """A caller that sends layers before there is an image."""

    @pytest.fixture(params=["memory:", "oci:{}/layout", "oci-archive:{}/archive.tar"])
    def destination(self, request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
        if request.param == "memory:":
            return MemoryDestination()
        return transports.destination(request.param.format(tmp_path))

    def test_what_was_sent_early_is_counted_as_it_was(self, destination: Destination) -> None:
        image = sizes(3)
        with ThreadPoolExecutor(4) as pool, Publication(destination) as publication:
            early = [blob_of(image, blob) for blob in image.blobs()[1:3]] * 4
            assert set(pool.map(publication.send, early)) == {"uploaded"}
            published = publication.finish(image)
            assert publication.send(early[0]) == "uploaded"
        assert published.blobs["uploaded"].count == 4
        assert published.sent == sum(len(data) for data in image.contents.values())
        assert sorted(set(image.opened)) == sorted(image.contents)
        assert [image.opened.count(layer.digest) for layer in image.blobs()[1:]] == [1, 1, 1]

    def test_it_makes_what_publish_makes(self, destination: Destination, tmp_path: Path) -> None:
        image = sizes(2)
        with Publication(destination) as publication:
            publication.send(blob_of(image, image.blobs()[2]))
            published = publication.finish(image)
        assert published.descriptor == image.top
        if isinstance(destination, MemoryDestination):
            assert destination.contents == image.contents
        else:
            copy = MemoryDestination()
            publish(transports.source(str(destination)), copy)
            assert copy.contents == image.contents

    def test_what_was_there_is_not_called_sent(self) -> None:
        image, destination = sizes(1), MemoryDestination()
        publish(image, destination)
        with Publication(destination) as publication:
            assert publication.send(blob_of(image, image.blobs()[1])) == "exists"
            published = publication.finish(image)
        assert published.blobs["exists"].count == 2
        assert published.sent == 0

    def test_a_blob_that_failed_may_be_sent_again(self) -> None:
        image = sizes(1)
        layer = image.blobs()[1]
        destination = Broken(refused=layer.digest)
        with Publication(destination) as publication:
            with pytest.raises(TransportError, match="the disk is full"):
                publication.send(blob_of(image, layer))
            destination.refused = None
            assert publication.send(blob_of(image, layer)) == "uploaded"
            assert publication.finish(image).blobs["uploaded"].count == 2

    def test_without_an_end_nothing_has_a_name(self, destination: Destination) -> None:
        image = sizes(1)
        with pytest.raises(KeyboardInterrupt), Publication(destination) as publication:
            publication.send(blob_of(image, image.blobs()[1]))
            raise KeyboardInterrupt
        if isinstance(destination, MemoryDestination):
            assert destination.tags == {}
        else:
            with pytest.raises(TransportError):
                transports.source(str(destination)).root()


def test_a_source_without_the_image_leaves_the_destination_alone(tmp_path: Path) -> None:
    image = sizes(1)
    del image.contents[image.top.digest]
    with pytest.raises(TransportError):
        publish(image, transports.destination(f"oci:{tmp_path}/layout"))
    assert not (tmp_path / "layout").exists()


class TestForeignLayers:
    def test_they_are_not_copied(self) -> None:
        image = sample_image()
        document = json.loads(image.contents[image.top.digest])
        document["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        top = keep(image.contents, document, MANIFEST)
        layer = image.blobs()[1]
        del image.contents[layer.digest]
        events: list[Event] = []
        destination = MemoryDestination()
        published = publish(MemorySource(top, image.contents), destination, notify=events.append)
        assert published.blobs["uploaded"].count == 2
        assert events == [
            StageStarted("publishing to `memory:image`"),
            Warned(f"layer `{layer.digest}` is not copied: its media type forbids to distribute it"),
        ]
        assert layer.digest not in [transfer.descriptor.digest for transfer in published.transfers]
        assert destination.tags == {"image": top}


class TestRefused:
    def image_with(self, change: Callable[[dict[str, Any]], object]) -> MemorySource:
        image = sample_image()
        document = json.loads(image.contents[image.top.digest])
        change(document)
        return MemorySource(keep(image.contents, document, MANIFEST), image.contents)

    def refused(self, source: MemorySource, message: str) -> None:
        destination = MemoryDestination()
        with pytest.raises(ImageError, match=message):
            publish(source, destination)
        assert destination.log == []

    def test_a_manifest_that_is_an_index_too(self) -> None:
        self.refused(self.image_with(lambda document: document.update(manifests=[])), "manifests")

    def test_a_manifest_that_calls_itself_something_else(self) -> None:
        self.refused(self.image_with(lambda document: document.update(mediaType="application/json")), "mediaType")

    def test_a_manifest_of_many_megabytes(self) -> None:
        image = self.image_with(lambda document: document.update(annotations={"x": "y" * (4 << 20)}))
        self.refused(image, "at most 4194304 are read")

    def test_a_manifest_with_other_bytes(self) -> None:
        image = sample_image()
        image.contents[image.top.digest] = b" " * image.top.size
        self.refused(image, f"blob `{image.top.digest}`")

    def test_an_index_three_levels_deep(self) -> None:
        self.refused(index_of(index_of(index_of(sample_image()))), "nested more than 2 deep")

    def test_what_is_no_image(self) -> None:
        data = b"{}"
        top = Descriptor(media_type="application/json", digest=Digest.of(data), size=2)
        self.refused(MemorySource(top, {top.digest: data}), "unknown media type `application/json`")


def test_artifacts_travel_too() -> None:
    contents: dict[Digest, bytes] = {}
    config = keep(contents, {}, "application/vnd.oci.empty.v1+json")
    layer = keep(contents, {"spdxVersion": "SPDX-2.3"}, "application/spdx+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/spdx+json",
        "config": config.to_json(),
        "layers": [layer.to_json()],
        "subject": sample_image().top.to_json(),
    }
    source = MemorySource(replace(keep(contents, manifest, MANIFEST), artifact_type="application/spdx+json"), contents)
    destination = MemoryDestination()
    publish(source, destination)
    assert destination.contents == contents
