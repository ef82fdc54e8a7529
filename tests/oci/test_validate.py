from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from layers.digest import Digest
from ociforge.errors import ImageError
from ociforge.oci.config import ConfigChanges
from ociforge.oci.descriptor import CONFIG, DOCKER_MANIFEST, INDEX, MANIFEST, Descriptor, canonical_json
from ociforge.oci.image import Image, assemble
from ociforge.oci.validate import validate, validate_index
from ociforge.platform import Platform
from tests.oci.documents import config, config_document, descriptor, digest, json_values, layer, manifest_document


def image() -> Image:
    return assemble(
        config(1, {"Env": ["PATH=/bin"], "User": "app"}, architecture="arm64"),
        [descriptor("base")],
        [(layer(), "own", {})],
        ConfigChanges(expose=("80",), volumes=("/data",), workdir="/app", stop_signal="SIGRTMIN+3", labels={"a": "b"}),
        {"a": "b"},
        0,
    )


def findings(manifest: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> list[str]:
    """What is found in a manifest and a configuration that name each other rightly."""
    config_data = canonical_json(config_document() if config is None else config)
    document = manifest_document() if manifest is None else manifest
    if document.get("config") == manifest_document()["config"]:
        named = Descriptor(media_type=CONFIG, digest=Digest.of(config_data), size=len(config_data))
        document = document | {"config": named.to_json()}
    try:
        validate(canonical_json(document), config_data)
    except ImageError as error:
        return error.message.splitlines()
    return []


def run(**members: Any) -> dict[str, Any]:
    return config_document(1, members)


def test_our_own_images_are_valid() -> None:
    made = image()
    validate(made.manifest, made.config, made.descriptor)
    assert findings() == []


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"schemaVersion": 1}, "image manifest.schemaVersion: expected 2, got `1`"),
        ({"mediaType": None}, f"image manifest.mediaType: expected `{MANIFEST}`, got `None`"),
        ({"mediaType": DOCKER_MANIFEST}, f"image manifest.mediaType: expected `{MANIFEST}`, got `{DOCKER_MANIFEST}`"),
        ({"manifests": []}, "image manifest.manifests: belongs to another kind of document"),
        ({"Annotations": {}}, "image manifest: `Annotations`: the specification spells it `annotations`"),
        ({"annotations": {"a": 1}}, "image manifest.annotations[`a`]: expected a string, got a number"),
        ({"layers": None}, "image manifest.layers: expected an array of at least one layer"),
        ({"layers": []}, "image manifest.layers: expected an array of at least one layer"),
        ({"config": 1}, "image manifest: config: expected an object, got a number"),
        ({"subject": {}}, "image manifest: subject.mediaType: missing or not a media type"),
    ],
)
def test_manifest_findings(members: dict[str, Any], expected: str) -> None:
    assert expected in findings(manifest_document(**members))


def test_layer_findings() -> None:
    docker = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    layers = [
        descriptor("a", docker).to_json(),
        descriptor("b").to_json() | {"size": -1},
        descriptor("c").to_json() | {"digest": "sha256:x"},
        5,
    ]
    assert findings(manifest_document(layers=layers), config_document(4)) == [
        f"image manifest: layers[0].mediaType: `{docker}` is not that of a layer",
        "image manifest: layers[1].size: expected a number of bytes, got `-1`",
        "image manifest: layers[2].digest: expected `sha256:` and 64 lower-case hexadecimal digits, got `sha256:x`",
        "image manifest: layers[3]: expected an object, got a number",
    ]


def test_too_many_layers() -> None:
    assert findings(manifest_document(126), config_document(126)) == [
        "image manifest.layers: 126, but engines take at most 125"
    ]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            config_document(architecture="x86-64"),
            "image config.architecture: `x86-64` is none of Go's names, such as `amd64`",
        ),
        (config_document(architecture=None), "image config: needs `os` and `architecture`"),
        (config_document(os=""), "image config: needs `os` and `architecture`"),
        (config_document(created="yesterday"), "image config.created: `yesterday` is not a time as in RFC 3339"),
        (config_document(container_config={}), "image config.container_config: belongs to docker's format only"),
        (config_document(rootfs=None), "image config.rootfs: missing"),
        (config_document(2), "image manifest: 1 layers, but image config: 2 diff_ids"),
        (config_document(history=[{}, {}]), "image manifest: 1 layers, but image config: history of 2"),
        (
            config_document(history=[{"empty_layer": True}]),
            "image manifest: 1 layers, but image config: history of 0",
        ),
        (run(Hostname="x"), "image config: config.Hostname: belongs to docker's format only"),
        (run(user="x"), "image config: config: `user`: the specification spells it `User`"),
        (run(Env=["A"]), "image config: config.Env[0]: expected `NAME=value`, got `A`"),
        (run(Env=["A=1", "=2"]), "image config: config.Env[1]: expected `NAME=value`, got `=2`"),
        (run(Env=["A=\0"]), r"image config: config.Env[0]: expected `NAME=value`, got `'A=\x00'`"),
        (run(Env=["A=1", "A=2"]), "image config: config.Env[1]: `A` is set twice"),
        (run(Env="A=1"), "image config: config.Env: expected an array, got a string"),
        (run(WorkingDir="app"), "image config: config.WorkingDir: `app` is not an absolute path"),
        (run(WorkingDir=1), "image config: config.WorkingDir: expected a string, got a number"),
        (run(User="4294967296"), "image config: config.User: `4294967296`: beyond 2147483647, the largest id"),
        (run(User="a:2147483648"), "image config: config.User: `a:2147483648`: beyond 2147483647, the largest id"),
        (run(ExposedPorts={"http": {}}), "image config: config.ExposedPorts: `http` is not a port such as `8000/tcp`"),
        (run(ExposedPorts={"80": None}), "image config: config.ExposedPorts[`80`]: expected an empty object"),
        (run(ExposedPorts=["80"]), "image config: config.ExposedPorts: expected an object, got an array"),
        (run(Volumes={"data": {}}), "image config: config.Volumes: `data` is not an absolute path"),
        (run(StopSignal="kill -9"), "image config: config.StopSignal: `kill -9` is no signal"),
        (run(Entrypoint="/init"), "image config: config.Entrypoint: expected an array, got a string"),
        (run(Cmd=[1]), "image config: config.Cmd[0]: expected a string, got a number"),
        (run(Labels={"a": None}), "image config: config.Labels[`a`]: expected a string, got null"),
    ],
)
def test_configuration_findings(document: dict[str, Any], expected: str) -> None:
    assert expected in findings(config=document)


def test_what_bases_may_say_is_valid() -> None:
    members: dict[str, Any] = {
        "ExposedPorts": {"80": {}, "53/udp": {}, "8000-8010/tcp": {}, "132/sctp": {}},
        "User": "1000:app",
        "StopSignal": "15",
        "Entrypoint": None,
        "Env": None,
        "Unknown": 1,
    }
    assert findings(config=run(**members)) == []
    assert findings(config=config_document(history=None, created=None, variant="v2")) == []


def test_all_findings_are_named_once() -> None:
    found = findings(manifest_document(schemaVersion=1, layers=[]), run(WorkingDir="app", Env=["A"]))
    assert len(found) == len(set(found)) >= 4


def test_names_show_both_sides() -> None:
    made = image()
    right = made.descriptor.digest
    wrong = made.config + b" "
    with pytest.raises(ImageError) as caught:
        validate(made.manifest, wrong, replace(made.descriptor, size=1, digest=digest("x"), media_type=DOCKER_MANIFEST))
    assert caught.value.message.splitlines() == [
        f"image manifest: config.size: says {len(made.config)}, but the document has {len(wrong)} bytes",
        f"image manifest: config.digest: says `{Digest.of(made.config)}`, but the document has `{Digest.of(wrong)}`",
        f"descriptor of the image manifest.mediaType: expected `{MANIFEST}`, got `{DOCKER_MANIFEST}`",
        f"descriptor of the image manifest.size: says 1, but the document has {len(made.manifest)} bytes",
        f"descriptor of the image manifest.digest: says `{digest('x')}`, but the document has `{right}`",
    ]


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        (None, "missing, but image config says `linux/arm64/v8`"),
        (Platform(architecture="arm64"), "`linux/arm64`, but image config says `linux/arm64/v8`"),
        (Platform(architecture="amd64"), "`linux/amd64`, but image config says `linux/arm64/v8`"),
    ],
)
def test_platforms_are_compared(platform: Platform | None, expected: str) -> None:
    made = image()
    with pytest.raises(ImageError) as caught:
        validate(made.manifest, made.config, replace(made.descriptor, platform=platform))
    assert caught.value.message == f"descriptor of the image manifest: platform: {expected}"


def test_documents_that_are_none() -> None:
    with pytest.raises(ImageError) as caught:
        validate(b"[]", b"{" + b" " * (5 << 20) + b"}")
    assert caught.value.message.splitlines() == [
        "image manifest is not a JSON object",
        f"image config: {(5 << 20) + 2} bytes, but at most {4 << 20} are read",
    ]


def test_index_findings() -> None:
    amd64 = {"platform": {"os": "linux", "architecture": "amd64"}}
    document = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "config": None,
        "manifests": [
            descriptor("a", MANIFEST).to_json() | amd64,
            descriptor("b", DOCKER_MANIFEST).to_json() | amd64,
            descriptor("c", MANIFEST).to_json(),
            {},
        ],
    }
    data = canonical_json(document)
    with pytest.raises(ImageError) as caught:
        validate_index(data, Descriptor(media_type=INDEX, digest=Digest.of(data), size=1))
    assert caught.value.message.splitlines() == [
        "image index.config: belongs to another kind of document",
        f"image index: manifests[1].mediaType: `{DOCKER_MANIFEST}` is not that of a manifest",
        "image index: manifests[1].platform: `linux/amd64`, as manifests[0] has, which hides it",
        "image index: manifests[2].platform: missing",
        "image index: manifests[3].mediaType: missing or not a media type",
        f"descriptor of the image index.size: says 1, but the document has {len(data)} bytes",
    ]


_paths = st.sampled_from(
    [
        ("manifest", "layers"),
        ("manifest", "config"),
        ("manifest", "annotations"),
        ("manifest", "subject"),
        ("config", "config"),
        ("config", "rootfs"),
        ("config", "history"),
        ("config", "created"),
        ("config", "config", "Env"),
        ("config", "config", "User"),
        ("config", "config", "ExposedPorts"),
        ("config", "config", "WorkingDir"),
        ("config", "rootfs", "diff_ids"),
    ]
)


@settings(deadline=None)
@given(st.lists(st.tuples(_paths, json_values), min_size=1, max_size=3))
def test_any_json_is_valid_or_an_error(damages: list[tuple[tuple[str, ...], Any]]) -> None:
    documents: dict[str, Any] = copy.deepcopy({"manifest": manifest_document(), "config": config_document()})
    for path, value in damages:
        place = documents
        for key in path[:-1]:
            place = place[key] if isinstance(place.get(key), dict) else {}
        place[path[-1]] = value
    findings(documents["manifest"], documents["config"])
    data = canonical_json(documents["manifest"] | {"manifests": documents["manifest"].get("layers")})
    with pytest.raises(ImageError):
        validate_index(data)
