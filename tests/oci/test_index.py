from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from layers.digest import Digest
from ociforge.errors import ImageError
from ociforge.oci.descriptor import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    Descriptor,
    canonical_json,
)
from ociforge.oci.index import ImageIndex, assemble_index, resolve, select
from ociforge.oci.validate import validate_index
from ociforge.platform import Platform
from tests.oci.documents import descriptor, digest, json_values

AMD64 = Platform(architecture="amd64")
ARM64 = Platform(architecture="arm64", variant="v8")


def entry(name: str, platform: str | None = None, media_type: str = MANIFEST, **annotations: str) -> Descriptor:
    """An entry of an index; `platform` is os/architecture[/variant]."""
    parts = [] if platform is None else [*platform.split("/"), None]
    named = None if platform is None else Platform(os=str(parts[0]), architecture=str(parts[1]), variant=parts[2])
    return replace(descriptor(name, media_type), platform=named, annotations=annotations)


def attestation(name: str) -> Descriptor:
    return entry(name, "unknown/unknown", **{"vnd.docker.reference.type": "attestation-manifest"})


def index(*manifests: Descriptor) -> ImageIndex:
    return ImageIndex(manifests=manifests)


def parse(media_type: str | None = None, **members: Any) -> ImageIndex:
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry("a", "linux/amd64").to_json()]}
    return ImageIndex.parse(canonical_json(document | members), media_type)


def test_index_reads_back() -> None:
    original = replace(
        index(entry("a", "linux/amd64"), entry("b", "linux/arm64/v8", x="y"), entry("c")),
        annotations={"b": "2", "a": "1"},
        artifact_type="a/b",
        subject=descriptor("subject", MANIFEST),
    )
    assert ImageIndex.parse(original.to_bytes(), INDEX) == original


def test_an_index_need_not_say_what_it_is() -> None:
    assert parse(mediaType=None).media_type == INDEX
    assert parse(DOCKER_INDEX, mediaType=None).media_type == DOCKER_INDEX
    assert parse(manifests=[]).manifests == ()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"layers": []}, "image index: has `layers`, which belongs to an image manifest"),
        ({"config": None}, "image index: has `config`, which belongs to an image manifest"),
        ({"LAYERS": []}, "image index: `LAYERS`: the specification spells it `layers`"),
        ({"schemaVersion": "2"}, "image index.schemaVersion: expected 2, got `2`"),
        (
            {"mediaType": MANIFEST},
            f"image index.mediaType: expected one of `{INDEX}` and `{DOCKER_INDEX}`, got `{MANIFEST}`",
        ),
        ({"manifests": None}, "image index.manifests: missing"),
        ({"manifests": [None]}, "image index.manifests[0]: expected an object, got null"),
        ({"manifests": [{}]}, "image index: manifests[0].mediaType: missing or not a media type"),
    ],
)
def test_bad_indexes(members: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse(**members)
    assert caught.value.message == message


def test_an_index_is_what_it_was_announced_as() -> None:
    with pytest.raises(ImageError, match="but it was announced as"):
        parse(DOCKER_INDEX)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["schemaVersion", "mediaType", "manifests", "annotations", "subject", "layers"]), json_values
    )
)
def test_any_json_is_an_index_or_an_error(members: dict[str, Any]) -> None:
    try:
        read = parse(**members)
    except ImageError:
        return
    assert ImageIndex.parse(read.to_bytes()) == read


# Choosing an image.


@pytest.mark.parametrize(
    ("manifests", "platform", "chosen"),
    [
        ([entry("a", "linux/amd64"), entry("b", "linux/arm64/v8")], ARM64, "b"),
        ([entry("a", "linux/amd64"), entry("b", "linux/arm64")], ARM64, "b"),
        ([entry("a", "linux/arm64/v8"), entry("b", "linux/amd64")], Platform(architecture="arm64"), "a"),
        ([entry("a", "linux/amd64"), entry("b", "linux/amd64")], AMD64, "a"),
        ([entry("a", "linux/amd64/v3"), entry("b", "linux/amd64")], AMD64, "b"),
        ([entry("a", "linux/amd64/v3"), entry("b", "linux/amd64/v2")], AMD64, "a"),
        ([entry("a", "windows/amd64"), entry("b", "linux/amd64")], AMD64, "b"),
        ([attestation("a"), entry("b", "linux/amd64"), attestation("c")], AMD64, "b"),
        ([entry("a", "linux/amd64", **{"vnd.docker.reference.type": "x"}), entry("b", "linux/amd64")], AMD64, "b"),
        ([entry("a", "linux/amd64", "text/plain"), entry("b", "linux/amd64", DOCKER_MANIFEST)], AMD64, "b"),
        ([replace(entry("a", "linux/amd64"), artifact_type="a/b"), entry("b", "linux/amd64")], AMD64, "b"),
        ([entry("a")], AMD64, "a"),
        ([attestation("a"), entry("b")], AMD64, "b"),
        ([entry("a"), entry("b", "linux/amd64")], AMD64, "b"),
        ([entry("a", None, INDEX)], AMD64, "a"),
    ],
)
def test_the_entry_that_is_chosen(manifests: list[Descriptor], platform: Platform, chosen: str) -> None:
    assert select(index(*manifests), platform).digest == digest(chosen)


@pytest.mark.parametrize(
    ("manifests", "found"),
    [
        ([], "none with a platform"),
        ([entry("a"), entry("b")], "none with a platform"),
        ([attestation("a")], "none with a platform"),
        ([entry("a"), entry("b", "linux/arm64/v8")], "`linux/arm64`"),
        (
            [entry("a", "linux/arm64/v8"), entry("b", "linux/arm/v7"), entry("c", "linux/arm/v7"), attestation("d")],
            "`linux/arm64`, `linux/arm/v7`",
        ),
    ],
)
def test_no_entry_lists_what_there_is(manifests: list[Descriptor], found: str) -> None:
    with pytest.raises(ImageError) as caught:
        select(index(*manifests), AMD64)
    assert caught.value.message == f"image index: no image for `linux/amd64`: found {found}"


def store(*documents: ImageIndex) -> dict[Digest, bytes]:
    return {Digest.of(document.to_bytes()): document.to_bytes() for document in documents}


def named(document: ImageIndex, platform: Platform | None = None) -> Descriptor:
    data = document.to_bytes()
    return Descriptor(media_type=INDEX, digest=Digest.of(data), size=len(data), platform=platform)


def test_resolving_through_indexes() -> None:
    image = entry("image", "linux/amd64")
    inner = index(image)
    outer = index(entry("other", "linux/arm64/v8"), named(inner, AMD64))
    blobs = store(inner, outer)
    assert resolve(image, AMD64, lambda _: b"") is image
    assert resolve(named(inner), AMD64, lambda d: blobs[d.digest]) == image
    assert resolve(named(outer), AMD64, lambda d: blobs[d.digest]) == image
    assert (
        resolve(named(index(named(inner))), AMD64, lambda d: {**blobs, **store(index(named(inner)))}[d.digest]) == image
    )


def test_indexes_are_not_followed_for_ever() -> None:
    inner = index(entry("image", "linux/amd64"))
    middle = index(named(inner))
    outer = index(named(middle))
    blobs = store(inner, middle, outer)
    with pytest.raises(ImageError) as caught:
        resolve(named(outer), AMD64, lambda d: blobs[d.digest])
    assert caught.value.message == f"image index `{named(outer).digest}`: nested more than 2 deep"


def test_a_root_of_another_kind_is_refused() -> None:
    with pytest.raises(ImageError, match="`text/plain` is not that of an image"):
        resolve(descriptor("x", "text/plain"), AMD64, lambda _: b"")


# Assembly.


def test_golden_index() -> None:
    data, named = assemble_index([entry("b", "linux/arm64/v8"), entry("a", "linux/amd64")], {"b": "2", "a": "1"})
    assert data.decode() == (
        '{"annotations":{"a":"1","b":"2"},"manifests":['
        '{"digest":"sha256:AAA","mediaType":"application/vnd.oci.image.manifest.v1+json",'
        '"platform":{"architecture":"amd64","os":"linux"},"size":1},'
        '{"digest":"sha256:BBB","mediaType":"application/vnd.oci.image.manifest.v1+json",'
        '"platform":{"architecture":"arm64","os":"linux","variant":"v8"},"size":1}],'
        '"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2}'
    ).replace("AAA", digest("a").hex).replace("BBB", digest("b").hex)
    assert named == Descriptor(media_type=INDEX, digest=Digest.of(data), size=len(data))
    validate_index(data, named)


@settings(deadline=None)
@given(st.permutations(["linux/amd64", "linux/arm64/v8", "linux/s390x", "unknown/unknown"]))
def test_the_order_of_images_does_not_matter(platforms: list[str]) -> None:
    data, _ = assemble_index([entry(platform, platform) for platform in platforms], {})
    assert [str(found.platform) for found in ImageIndex.parse(data).manifests] == [
        "linux/amd64",
        "linux/arm64",
        "linux/s390x",
        "unknown/unknown",
    ]


def test_attestations_may_be_several() -> None:
    data, _ = assemble_index([attestation("a"), attestation("b"), entry("c", "linux/amd64")], {})
    assert len(ImageIndex.parse(data).manifests) == 3
    validate_index(data)


@pytest.mark.parametrize(
    ("manifests", "message"),
    [
        ([entry("a")], f"image index: manifest `{digest('a')}` has no platform"),
        (
            [entry("a", "linux/amd64"), entry("b", "linux/amd64")],
            f"image index: `{digest('b')}` and `{digest('a')}` are both for `linux/amd64`",
        ),
        (
            [entry("a", "linux/arm64"), entry("a", "linux/arm64/v8")],
            f"image index: `{digest('a')}` and `{digest('a')}` are both for `linux/arm64`",
        ),
        (
            [attestation("a"), attestation("a")],
            f"image index: `{digest('a')}` and `{digest('a')}` are both for `unknown/unknown`",
        ),
    ],
)
def test_an_index_that_hides_an_image_is_not_made(manifests: list[Descriptor], message: str) -> None:
    with pytest.raises(ImageError) as caught:
        assemble_index(manifests, {})
    assert caught.value.message == message


def test_an_index_that_registries_refuse_is_not_made() -> None:
    with pytest.raises(ImageError, match="registries take at most"):
        assemble_index([entry("a", "linux/amd64")], {"a": "x" * 5_000_000})
