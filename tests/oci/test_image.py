from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers.digest import Digest
from ociforge.errors import ImageError
from ociforge.oci.config import ConfigChanges, ImageConfig
from ociforge.oci.descriptor import CONFIG, DOCKER_CONFIG, DOCKER_MANIFEST, MANIFEST, canonical_json
from ociforge.oci.image import Image, ImageManifest, assemble
from ociforge.oci.validate import validate
from ociforge.platform import Platform
from tests.oci.documents import GZIP, config, descriptor, digest, json_values, layer, manifest_document

NOTHING = ConfigChanges()
DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def parse(media_type: str | None = None, **members: Any) -> ImageManifest:
    return ImageManifest.parse(canonical_json(manifest_document(**members)), media_type)


def test_manifest_reads_back() -> None:
    subject = descriptor("subject", MANIFEST)
    data = canonical_json(
        manifest_document(2, annotations={"b": "2", "a": "1"}, artifactType="a/b", subject=subject.to_json())
    )
    manifest = ImageManifest.parse(data)
    assert manifest.to_bytes() == data
    assert manifest.layers == (descriptor("base 0"), descriptor("base 1"))
    assert manifest.subject == subject
    assert ImageManifest.parse(manifest.to_bytes(), MANIFEST) == manifest


def test_a_manifest_need_not_say_what_it_is() -> None:
    assert parse(mediaType=None).media_type == MANIFEST
    assert parse(DOCKER_MANIFEST, mediaType=None).media_type == DOCKER_MANIFEST
    assert parse(mediaType=DOCKER_MANIFEST).media_type == DOCKER_MANIFEST


def test_the_unknown_is_ignored_and_null_is_absent() -> None:
    assert parse(annotations=None, subject=None, artifactType=None, unknown=[1]) == parse()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"manifests": []}, "image manifest: has `manifests`, which belong to an index"),
        ({"manifests": None}, "image manifest: has `manifests`, which belong to an index"),
        ({"Manifests": []}, "image manifest: `Manifests`: the specification spells it `manifests`"),
        ({"Layers": []}, "image manifest: `Layers`: the specification spells it `layers`"),
        ({"schemaVersion": 1}, "image manifest.schemaVersion: expected 2, got `1`"),
        ({"schemaVersion": 2.0}, "image manifest.schemaVersion: expected 2, got `2.0`"),
        ({"schemaVersion": True}, "image manifest.schemaVersion: expected 2, got `True`"),
        ({"schemaVersion": None}, "image manifest.schemaVersion: expected 2, got `None`"),
        ({"mediaType": 1}, "image manifest.mediaType: expected a string, got a number"),
        (
            {"mediaType": "text/plain"},
            f"image manifest.mediaType: expected one of `{MANIFEST}` and `{DOCKER_MANIFEST}`, got `text/plain`",
        ),
        ({"config": None}, "image manifest: config: expected an object, got null"),
        ({"config": {}}, "image manifest: config.mediaType: missing or not a media type"),
        ({"layers": None}, "image manifest.layers: missing"),
        ({"layers": {}}, "image manifest.layers: expected an array, got an object"),
        ({"layers": [1]}, "image manifest.layers[0]: expected an object, got a number"),
        ({"layers": [{}]}, "image manifest: layers[0].mediaType: missing or not a media type"),
        ({"annotations": {"a": None}}, "image manifest.annotations[`a`]: expected a string, got null"),
        ({"subject": {}}, "image manifest: subject.mediaType: missing or not a media type"),
        ({"artifactType": 1}, "image manifest.artifactType: expected a string, got a number"),
    ],
)
def test_bad_manifests(members: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse(**members)
    assert caught.value.message == message


def test_a_manifest_is_what_it_was_announced_as() -> None:
    with pytest.raises(ImageError) as caught:
        parse(DOCKER_MANIFEST)
    assert caught.value.message == (
        f"image manifest.mediaType: `{MANIFEST}`, but it was announced as `{DOCKER_MANIFEST}`"
    )


def test_docker_schema_1_is_explained() -> None:
    with pytest.raises(ImageError) as caught:
        parse(schemaVersion=1)
    assert caught.value.hint is not None
    assert "2015" in caught.value.hint


def test_a_huge_manifest_is_not_parsed() -> None:
    with pytest.raises(ImageError, match="registries take at most 4194304"):
        ImageManifest.parse(b"{" + b" " * (4 << 20) + b"}")


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "annotations", "subject", "manifests"]),
        json_values,
    )
)
def test_any_json_is_a_manifest_or_an_error(members: dict[str, Any]) -> None:
    try:
        manifest = parse(**members)
    except ImageError:
        return
    assert ImageManifest.parse(manifest.to_bytes()) == manifest


@pytest.mark.parametrize(
    ("docker", "oci"),
    [
        (DOCKER_GZIP, GZIP),
        ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar"),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ),
        ("application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
    ],
)
def test_docker_types_become_oci_types(docker: str, oci: str) -> None:
    original = parse(
        mediaType=DOCKER_MANIFEST,
        config=descriptor("config", DOCKER_CONFIG).to_json(),
        layers=[descriptor("base", docker).to_json() | {"annotations": {"a": "1"}}],
    )
    rewritten = original.to_oci()
    assert rewritten.media_type == MANIFEST
    assert rewritten.config == descriptor("config", CONFIG)
    assert rewritten.layers[0].to_json() == descriptor("base", oci).to_json() | {"annotations": {"a": "1"}}
    assert rewritten.to_oci() == rewritten


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/octet-stream",
    ],
)
def test_layers_of_other_types_are_refused(media_type: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse(layers=[descriptor("base", media_type).to_json()]).to_oci()
    assert caught.value.message == f"layer `{digest('base')}`: unknown media type `{media_type}`"


def test_an_artifact_is_no_image() -> None:
    empty = descriptor("config", "application/vnd.oci.empty.v1+json").to_json()
    with pytest.raises(ImageError, match=r"config\.mediaType: `application/vnd\.oci\.empty\.v1\+json` is not that"):
        parse(config=empty).to_oci()


# Assembly.


def build(base: ImageConfig, layers: int, own: int = 1, **changes: Any) -> Image:
    return assemble(
        base,
        [descriptor(f"base {n}", DOCKER_GZIP) for n in range(layers)],
        [(layer(f"own {n}"), f"made {n}", {"title": str(n)}) for n in range(own)],
        ConfigChanges(**changes),
        {"org.opencontainers.image.title": "app", "org.opencontainers.image.base.name": "base"},
        0,
    )


def test_golden_image() -> None:
    """The bytes of an image may only change together with the format number."""
    image = build(
        config(1, {"Env": ["PATH=/bin"], "Labels": {"b": "1"}}, author="é"),
        1,
        env={"PATH": "/app/bin:/bin", "A": "1"},
        entrypoint=("/app/entrypoint.sh",),
        labels={"a": "2"},
        expose=("8000",),
    )
    assert image.config.decode() == (
        '{"architecture":"amd64","author":"é","config":{"Entrypoint":["/app/entrypoint.sh"],'
        '"Env":["PATH=/app/bin:/bin","A=1"],"ExposedPorts":{"8000/tcp":{}},"Labels":{"a":"2","b":"1"}},'
        '"created":"1970-01-01T00:00:00Z","history":[{"created_by":"layer 0"},'
        '{"created":"1970-01-01T00:00:00Z","created_by":"made 0"}],"os":"linux","rootfs":{"diff_ids":['
        '"sha256:BASE","sha256:OWN"],"type":"layers"}}'
    ).replace("BASE", digest("base 0 tar").hex).replace("OWN", digest("own 0 tar").hex)
    assert image.manifest.decode() == (
        '{"annotations":{"org.opencontainers.image.base.name":"base","org.opencontainers.image.title":"app"},'
        '"config":{"digest":"sha256:CONFIG","mediaType":"application/vnd.oci.image.config.v1+json","size":506},'
        '"layers":[{"digest":"sha256:BASE","mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":6},'
        '{"annotations":{"title":"0"},"digest":"sha256:OWN","mediaType":"application/vnd.oci.image.layer.v1.tar+gzip",'
        '"size":5}],"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}'
    ).replace("CONFIG", Digest.of(image.config).hex).replace("BASE", digest("base 0").hex).replace(
        "OWN", digest("own 0").hex
    )
    assert image.descriptor.digest == Digest.parse(
        "sha256:36058c846a0c17b011c021a91bcc7774b59a6e93793e4d8fabaff90c8f44c08f"
    )


def test_what_an_image_names() -> None:
    image = build(config(2), 2, 2)
    manifest = ImageManifest.parse(image.manifest, MANIFEST)
    assert manifest.config == image.config_descriptor
    assert manifest.layers == image.layers
    assert [entry.digest for entry in image.layers] == [digest(name) for name in ("base 0", "base 1", "own 0", "own 1")]
    assert image.descriptor.platform == Platform(architecture="amd64")
    assert image.descriptor.digest == Digest.of(image.manifest)
    assert image.descriptor.size == len(image.manifest)
    validate(image.manifest, image.config, image.descriptor)


def test_the_order_of_annotations_labels_and_members_does_not_matter() -> None:
    def image(names: str) -> Image:
        notes = dict.fromkeys(names, "x")
        return assemble(config(0), [], [(layer(), "made", notes)], ConfigChanges(labels=notes), notes, 0)

    assert image("abc") == image("cab")


def test_a_base_keeps_its_layers_as_they_are() -> None:
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    image = assemble(
        config(2),
        [descriptor("base 0", foreign), descriptor("base 1", "application/vnd.oci.image.layer.v1.tar+zstd")],
        [],
        NOTHING,
        {},
    )
    assert [entry["mediaType"] for entry in json.loads(image.manifest)["layers"]] == [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
    ]


def test_one_layer_may_come_twice() -> None:
    image = assemble(config(0), [], [(layer(), "a", {}), (layer(), "b", {})], NOTHING, {})
    assert image.layers[0] == image.layers[1]
    validate(image.manifest, image.config, image.descriptor)


def test_base_and_configuration_must_fit() -> None:
    with pytest.raises(ImageError) as caught:
        build(config(2), 1)
    assert caught.value.message == "base image: 1 layers in the manifest, 2 in the configuration"


def test_too_many_layers_are_refused() -> None:
    assert len(build(config(100), 100, 25).layers) == 125
    with pytest.raises(ImageError) as caught:
        build(config(100), 100, 26)
    assert caught.value.message == "image: 126 layers: engines take at most 125"
    assert caught.value.hint == "the base has 100 of them: lower the layer budget, or choose a base with fewer layers"


def test_documents_that_registries_refuse_are_not_made() -> None:
    with pytest.raises(ImageError, match=r"^image manifest: 5000"):
        assemble(config(0), [], [(layer(), "a", {})], NOTHING, {"a": "x" * 5_000_000})
    with pytest.raises(ImageError, match=r"^image config: 5000"):
        assemble(config(0), [], [(layer(), "a", {})], ConfigChanges(labels={"a": "x" * 5_000_000}), {})
