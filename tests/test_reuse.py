"""Images of before as a catalog of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from layers.digest import Digest
from ociforge.errors import ImageError, NotFoundError, TransportError
from ociforge.oci.annotations import IMAGE_KEY, LAYER_KEY
from ociforge.oci.descriptor import CONFIG, MANIFEST, Descriptor, canonical_json, parse_json
from ociforge.platform import Platform
from ociforge.reuse import read_previous
from ociforge.store import Store
from tests.support.memory import MemorySource, index_of, sample_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
AMD64 = Platform.parse("linux/amd64")
KEYS = [Digest.of(b"first"), Digest.of(b"second")]


def keyed(change: Callable[[dict[str, Any], dict[str, Any]], None] = lambda manifest, config: None) -> MemorySource:
    """An image whose layers have KEYS; `change` edits manifest and configuration before they get their digests."""
    source = sample_image()
    manifest = parse_json(source.contents[source.top.digest], "manifest")
    config = parse_json(source.contents[Digest.parse(manifest["config"]["digest"])], "config")
    for layer, key in zip(manifest["layers"], KEYS, strict=True):
        layer["annotations"] = {LAYER_KEY: str(key)}
    change(manifest, config)
    data = canonical_json(config)
    manifest["config"] = {"mediaType": CONFIG, "digest": str(Digest.of(data)), "size": len(data)}
    top = canonical_json(manifest)
    descriptor = Descriptor(media_type=MANIFEST, digest=Digest.of(top), size=len(top))
    return MemorySource(descriptor, source.contents | {Digest.of(data): data, Digest.of(top): top})


def test_layers_are_found_by_their_keys() -> None:
    source = keyed()
    image = read_previous(source, AMD64, "before")
    assert image is not None
    found = image.find(KEYS[1], GZIP)
    assert found is not None
    assert found.descriptor.digest == source.blobs()[2].digest == found.layer.digest
    assert image.find(Digest.of(b"other"), GZIP) is None
    assert len(source.opened) == 2  # the manifest and the configuration


def test_the_image_of_the_platform_is_taken_out_of_an_index() -> None:
    assert read_previous(index_of(keyed()), AMD64, "before") is not None
    assert read_previous(index_of(keyed()), Platform.parse("linux/arm64"), "before") is None
    assert read_previous(keyed(), Platform.parse("linux/arm64"), "before") is None


def bad_keys(manifest: dict[str, Any], config: dict[str, Any]) -> None:
    for layer in manifest["layers"]:
        layer["annotations"][LAYER_KEY] = "sha256:../../x"


def too_few_ids(manifest: dict[str, Any], config: dict[str, Any]) -> None:
    config["rootfs"]["diff_ids"].pop()


@pytest.mark.parametrize("change", [bad_keys, too_few_ids])
def test_what_makes_no_sense_is_none_of_ours(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    assert read_previous(keyed(change), AMD64, "before") is None
    assert read_previous(sample_image(), AMD64, "before") is None


def test_the_images_own_key() -> None:
    def name(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["annotations"] = {IMAGE_KEY: str(KEYS[0])}

    image = read_previous(keyed(name), AMD64, "before")
    assert image is not None and image.key == KEYS[0]
    plain = read_previous(keyed(), AMD64, "before")
    assert plain is not None and plain.key is None


def test_a_layer_that_is_read_goes_through_the_store(tmp_path: Path) -> None:
    source, store = keyed(), Store(tmp_path)
    image = read_previous(source, AMD64, "before")
    assert image is not None
    found = image.find(KEYS[0], GZIP)
    assert found is not None
    for _ in range(2):
        with found.blob(store).open() as stream:
            assert Digest.of_stream(stream) == found.layer.digest
    assert source.opened.count(found.layer.digest) == 1


def test_a_layer_that_is_not_what_its_image_says_is_refused(tmp_path: Path) -> None:
    def poison(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"].reverse()

    image = read_previous(keyed(poison), AMD64, "before")
    assert image is not None
    found = image.find(KEYS[0], GZIP)
    assert found is not None
    for _ in range(2):  # by the second time the store has it
        with pytest.raises(ImageError, match="of `before` unpacks to") as caught:
            found.blob(Store(tmp_path)).open()
        assert "--no-reuse" in str(caught.value.hint)


def test_a_layer_that_was_found_right_is_not_unpacked_again(tmp_path: Path) -> None:
    image, store = read_previous(keyed(), AMD64, "before"), Store(tmp_path)
    assert image is not None
    found = image.find(KEYS[0], GZIP)
    assert found is not None
    assert not store.catalog.confirms(found.layer)
    found.blob(store).open().close()
    assert store.catalog.confirms(found.layer)
    other = image.find(KEYS[1], GZIP)
    assert other is not None
    assert not store.catalog.confirms(replace(found.layer, diff_id=other.layer.diff_id))
    store.path(found.layer.digest).unlink()
    assert not store.catalog.confirms(found.layer)


@pytest.mark.parametrize("media_type", [GZIP.replace("gzip", "zstd"), GZIP.replace("layer", "layer.nondistributable")])
def test_a_layer_of_another_media_type_is_not_what_its_key_says(media_type: str) -> None:
    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["layers"][0]["mediaType"] = media_type

    image = read_previous(keyed(change), AMD64, "before")
    assert image is not None
    assert image.find(KEYS[0], GZIP) is None
    assert image.find(KEYS[1], GZIP) is not None


def test_a_layer_that_is_not_there_any_more(tmp_path: Path) -> None:
    class Gone(MemorySource):
        def open(self, descriptor: Descriptor) -> BinaryIO:
            if descriptor.media_type == GZIP:
                raise NotFoundError(f"memory has no blob `{descriptor.digest}`")
            return super().open(descriptor)

    source = keyed()
    image = read_previous(Gone(source.top, source.contents), AMD64, "before")
    assert image is not None
    found = image.find(KEYS[0], GZIP)
    assert found is not None
    with pytest.raises(NotFoundError) as caught:
        found.blob(Store(tmp_path)).open()
    assert caught.value.hint == (
        "`before` lacks layers that it names: build with `--no-reuse`, which makes and pushes them again"
    )


def test_errors_of_the_place_are_passed_on() -> None:
    source = keyed()
    del source.contents[source.top.digest]
    with pytest.raises(TransportError):
        read_previous(source, AMD64, "before")
