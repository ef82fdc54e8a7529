"""What the manifest of a bundle says."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from layers.digest import Digest
from ociforge.bundle.manifest import ARTIFACT_TYPE, BUILT_FROM, BundledImage, BundleManifest, Item
from ociforge.errors import TransportError
from ociforge.pypi.provided import Origin

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
IMAGE = BundledImage(environment="prod", platform="linux/amd64", locked="linux-64", base="scratch")


def conda(digest: Digest, name: str = "conda/noarch/a-1-0.conda") -> Item:
    return Item(role="conda", name=name, digest=digest, size=3)


def test_it_reads_what_it_writes() -> None:
    notes = {BUILT_FROM: str(TWO), "dev.ociforge.bundle.subdirectory": "package"}
    wheel = Item(role="built", name="built/a-1-py3-none-any.whl", digest=TWO, size=4, notes=notes)
    manifest = BundleManifest.of([wheel, conda(ONE)], [IMAGE])
    assert BundleManifest.parse(manifest.to_bytes(), "here") == manifest
    assert [str(item) for item in manifest.items] == [
        "conda archive `conda/noarch/a-1-0.conda`",
        "wheel built from source `built/a-1-py3-none-any.whl`",
    ]
    assert manifest.items[1].origin == Origin(identity=str(TWO), subdirectory="package")


def test_the_document_is_an_artifact() -> None:
    document = json.loads(BundleManifest.of([conda(ONE)], [IMAGE]).to_bytes())
    assert document["artifactType"] == ARTIFACT_TYPE
    assert document["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "size": 2,
    }
    assert document["layers"] == [
        {
            "mediaType": "application/vnd.conda.package.v2",
            "digest": str(ONE),
            "size": 3,
            "annotations": {
                "org.opencontainers.image.title": "conda/noarch/a-1-0.conda",
                "dev.ociforge.bundle.role": "conda",
            },
        }
    ]
    assert json.loads(document["annotations"]["dev.ociforge.bundle.images"]) == {
        "images": [{"environment": "prod", "platform": "linux/amd64", "locked": "linux-64", "base": "scratch"}]
    }


def test_order_and_repetition_do_not_matter() -> None:
    items = [conda(TWO, "conda/noarch/b-1-0.conda"), conda(ONE)]
    assert BundleManifest.of(items, [IMAGE]) == BundleManifest.of([*reversed(items), *items], [IMAGE, IMAGE])


def test_two_files_of_one_name_are_told_apart() -> None:
    manifest = BundleManifest.of([conda(ONE), conda(TWO)], [])
    assert {item.name for item in manifest.items} == {
        f"conda/noarch/{digest.hex[:12]}/a-1-0.conda" for digest in (ONE, TWO)
    }


def test_one_file_may_have_two_roles() -> None:
    wheel = Item(role="wheel", name="wheels/a-1-py3-none-any.whl", digest=ONE, size=3)
    other = replace(wheel, role="requirement", name="requirements/a-1-py3-none-any.whl")
    assert BundleManifest.of([other, wheel], []).items == (wheel, other)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (ARTIFACT_TYPE, "application/x", "its `artifactType` is `application/x`"),
        ('"conda"', '"future"', "layers[0]: no title, or a role that is not known: `future`"),
        ("a-1-0.conda", "a-1-0.zip", "layers[0]: conda archive `conda/noarch/a-1-0.zip` is no conda archive"),
        ('"conda"', '"wheel"', "`a-1-0.conda` is no name of a wheel"),
        ("org.opencontainers.image.title", "org.example.title", "layers[0]: no title"),
        ("dev.ociforge.bundle.images", "dev.example.images", "`dev.ociforge.bundle.images` is not valid JSON"),
        ('locked\\"', 'other\\"', "`dev.ociforge.bundle.images`: expected `environment`"),
    ],
)
def test_what_is_no_bundle_is_refused(before: str, after: str, why: str) -> None:
    text = BundleManifest.of([conda(ONE)], [IMAGE]).to_bytes().decode()
    assert before in text
    with pytest.raises(TransportError) as caught:
        BundleManifest.parse(text.replace(before, after).encode(), "here")
    assert caught.value.message.startswith("`here` is no bundle: ")
    assert why in caught.value.message


def test_a_built_wheel_says_what_of() -> None:
    wheel = Item(role="built", name="built/a-1-py3-none-any.whl", digest=TWO, size=4)
    with pytest.raises(TransportError, match="does not say what it was built from"):
        BundleManifest.parse(BundleManifest.of([wheel], []).to_bytes(), "here")


def test_a_wheel_has_the_name_of_one() -> None:
    wheel = Item(role="wheel", name="wheels/nothing", digest=TWO, size=4)
    with pytest.raises(TransportError, match="is no name of a wheel"):
        BundleManifest.parse(BundleManifest.of([wheel], []).to_bytes(), "here")


@pytest.mark.parametrize("name", ["..", "a/../b", "/pixi.lock", "x/", "a\0b", "a\nb", "\x1b[2J"])
def test_a_title_is_a_relative_path(name: str) -> None:
    """Clients of registries write files by these names, and messages show them."""
    item = Item(role="lock", name=name, digest=TWO, size=4)
    with pytest.raises(TransportError, match=r"`here` is no bundle: .* is no relative path"):
        BundleManifest.parse(BundleManifest.of([item], []).to_bytes(), "here")


def test_a_platform_that_is_none() -> None:
    image = BundledImage(environment="default", platform="bogus", locked="linux-64", base="scratch")
    with pytest.raises(TransportError, match=r"`here` is no bundle: `dev.ociforge.bundle.images`: unknown platform"):
        BundleManifest.parse(BundleManifest.of([], [image]).to_bytes(), "here")


def test_another_configuration() -> None:
    document = json.loads(BundleManifest.of([], []).to_bytes())
    document["config"]["digest"] = str(TWO)
    with pytest.raises(TransportError, match="`here` is no bundle: its configuration is not the empty one"):
        BundleManifest.parse(json.dumps(document).encode(), "here")
