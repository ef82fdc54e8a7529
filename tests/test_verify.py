"""Verification finds every lie that an image can tell about its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from layers.digest import Digest
from ociforge.errors import ImageError
from ociforge.oci.descriptor import CONFIG, MANIFEST, Descriptor, canonical_json, parse_json
from ociforge.oci.reference import Reference
from ociforge.verify import verify
from tests.support.memory import MemorySource, index_of, sample_image

if TYPE_CHECKING:
    from collections.abc import Callable


def rewritten(source: MemorySource, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> MemorySource:
    """The image with other documents, whose digests are right; `change` edits manifest and configuration."""
    manifest = parse_json(source.contents[source.top.digest], "manifest")
    config = parse_json(source.contents[Digest.parse(manifest["config"]["digest"])], "config")
    change(manifest, config)
    data = canonical_json(config)
    manifest["config"] = {"mediaType": CONFIG, "digest": str(Digest.of(data)), "size": len(data)}
    top = canonical_json(manifest)
    descriptor = Descriptor(media_type=MANIFEST, digest=Digest.of(top), size=len(top))
    return MemorySource(descriptor, source.contents | {Digest.of(data): data, Digest.of(top): top})


@pytest.mark.parametrize("docker", [False, True])
def test_a_good_image(docker: bool) -> None:
    source = sample_image(docker_types=docker)
    found = verify(source)
    assert (found.descriptor, found.manifests) == (source.root(), 1)
    assert (found.blobs, found.size) == (3, sum(blob.size for blob in source.blobs()))


def test_an_index_counts_shared_blobs_once() -> None:
    image = sample_image()
    found = verify(index_of(image))
    assert (found.manifests, found.blobs) == (1, 3)


def test_a_diff_id_that_does_not_belong_to_the_digest() -> None:
    """What a poisoned image would have builds reuse."""

    def poison(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"].reverse()

    with pytest.raises(ImageError, match=r"(?s)unpacks to `sha256:.*unpacks to `sha256:") as caught:
        verify(rewritten(sample_image(), poison))
    assert caught.value.hint == "do not use the image: write it anew"


def test_who_pushed_it_is_asked_where_it_was_pushed() -> None:
    class Pushed(MemorySource):
        def origin(self, descriptor: Descriptor) -> Reference:
            return Reference.parse(f"host.io/app@{descriptor.digest}")

    image = sample_image()
    image.contents[image.blobs()[1].digest] = b""
    with pytest.raises(ImageError) as caught:
        verify(Pushed(image.top, image.contents))
    assert "`--no-reuse`, and find out who pushed" in str(caught.value.hint)


def test_a_damaged_blob() -> None:
    source = sample_image()
    layer = source.blobs()[1]
    data = source.contents[layer.digest]
    source.contents[layer.digest] = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(ImageError, match=f"layer `{layer.digest}`"):
        verify(source)


def test_what_is_missing_and_what_is_wrong_is_told_at_once() -> None:
    source = sample_image()
    _, first, second = source.blobs()
    del source.contents[first.digest]
    source.contents[second.digest] = b"x" * second.size
    with pytest.raises(ImageError) as caught:
        verify(source)
    assert str(first.digest) in caught.value.message
    assert str(second.digest) in caught.value.message


def test_layers_without_diff_ids() -> None:
    def shorten(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        del config["rootfs"]["diff_ids"][0]
        config.pop("history", None)

    with pytest.raises(ImageError, match="diff_ids"):
        verify(rewritten(sample_image(), shorten))


def test_what_is_no_image_is_checked_by_digest_alone() -> None:
    """As attestations in indexes are."""

    def other(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        for layer in manifest["layers"]:
            layer["mediaType"] = "application/vnd.in-toto+json"

    source = rewritten(sample_image(), other)
    assert verify(source).blobs == 3
    source.contents[source.blobs()[2].digest] = b""
    with pytest.raises(ImageError):
        verify(source)
