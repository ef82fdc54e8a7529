"""What we push the common clients read, and what they push we read: gzip and zstd, single images and indexes.

A client that copies keeps every digest; one that writes anew keeps the configuration and every byte of the layers
under their compression.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pytest

from ociforge import transports
from ociforge.publish import publish
from tests.external.clients import skopeo, umoci
from tests.support.bases import tar_of, tiny_image
from tests.support.images import HandmadeImage, write_layout
from tests.support.reading import Image, layout_images, whole_images
from tests.support.registry import Registry, running_registry
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.external.clients import Podman
    from tests.support.docker import Docker
    from tests.support.images import Compression

CODECS: tuple[Compression, ...] = ("gzip", "zstd")
CASES = [f"{kind}-{codec}" for kind in ("image", "index") for codec in CODECS]
every_case = pytest.mark.parametrize("case", CASES)
either_codec = pytest.mark.parametrize("codec", CODECS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """An image or index that we have pushed: where it was in a layout, `place:tag`, and where it is in the registry."""

    layout: Path
    reference: str
    digest: str
    images: tuple[Image, ...]

    @property
    def place(self) -> str:
        """The layout as clients name it."""
        return f"oci:{self.layout}:1"

    @property
    def identity(self) -> str:
        """What engines call the first image, that of this machine's platform, whatever they store it as."""
        return str(self.images[0].manifest["config"]["digest"])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One registry for all, of which only this module's images are known."""
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running
    shutil.rmtree(running.storage)


@pytest.fixture(scope="module")
def originals(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Original]:
    """Every case, pushed by us."""
    found = {}
    for case in CASES:
        kind, _, codec = case.partition("-")
        layout = tmp_path_factory.mktemp("original")
        digest = write_layout(
            handmade(case) if kind == "image" else [handmade(case), handmade(case, "arm64")],
            layout,
            tag="1",
            compression="gzip" if codec == "gzip" else "zstd",
        )
        reference = f"{registry.host}/ours/{case}:1"
        copy(f"oci:{layout}:1", f"docker://{reference}")
        images = layout_images(layout)["1"]
        found[case] = Original(layout=layout, reference=reference, digest=digest, images=images)
    return found


def handmade(what: str, architecture: Literal["amd64", "arm64"] = "amd64") -> HandmadeImage:
    """An image with a configuration of its own: engines pull no layer of one that they know already."""
    return tiny_image(architecture=architecture, extra={"etc/what": what.encode()})


def copy(source: str, destination: str) -> str:
    """Copy by ociforge; returns the digest of what it has read and written."""
    return str(publish(transports.source(source), transports.destination(destination)).descriptor.digest)


def read(source: str, directory: Path) -> tuple[str, tuple[Image, ...]]:
    """What ociforge reads there: its digest and its images, once these are in a layout."""
    layout = directory / "read"
    shutil.rmtree(layout, ignore_errors=True)
    digest = copy(source, f"oci:{layout}:1")
    assert whole_images(layout) == {"1": digest}
    return digest, layout_images(layout)["1"]


def contents(images: tuple[Image, ...]) -> list[tuple[Any, tuple[bytes, ...]]]:
    """Configurations and layers under their compression."""
    return [(image.config, image.layers) for image in images]


def layer_types(images: tuple[Image, ...]) -> set[str]:
    return {layer["mediaType"] for image in images for layer in image.manifest["layers"]}


def new_image(directory: Path, what: str, compression: Compression) -> Path:
    """A layout with a layer that no registry has: clients compress none anew that they know to be in one."""
    layout = directory / "new"
    write_layout(HandmadeImage(layers=(tar_of({"etc/new": what.encode()}),)), layout, tag="1", compression=compression)
    return layout


# -- skopeo


@every_case
def test_skopeo_pulls_what_we_pushed(case: str, originals: dict[str, Original], tmp_path: Path) -> None:
    original = originals[case]
    flags = ("--all", "--preserve-digests", "--src-tls-verify=false")
    skopeo(tmp_path, "copy", *flags, f"docker://{original.reference}", f"oci:{tmp_path}/layout:1")

    assert whole_images(tmp_path / "layout") == {"1": original.digest}
    assert contents(layout_images(tmp_path / "layout")["1"]) == contents(original.images)


@every_case
def test_we_pull_what_skopeo_pushed(
    case: str, originals: dict[str, Original], registry: Registry, tmp_path: Path
) -> None:
    original, reference = originals[case], f"docker://{registry.host}/skopeo/{case}:1"
    skopeo(tmp_path, "copy", "--all", "--preserve-digests", "--dest-tls-verify=false", original.place, reference)

    digest, images = read(reference, tmp_path)

    assert digest == original.digest
    assert contents(images) == contents(original.images)


@pytest.mark.parametrize(
    ("flag", "media_type"),
    [
        ("--format=v2s2", "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        ("--dest-compress-format=zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
    ],
    ids=["docker-types", "zstd"],
)
def test_we_pull_what_skopeo_converted(flag: str, media_type: str, registry: Registry, tmp_path: Path) -> None:
    layout, reference = new_image(tmp_path, flag, "none"), f"docker://{registry.host}/skopeo/converted:1"
    skopeo(tmp_path, "copy", flag, "--dest-tls-verify=false", f"oci:{layout}:1", reference)
    _, images = read(reference, tmp_path)

    assert layer_types(images) == {media_type}
    assert contents(images) == contents(layout_images(layout)["1"])


def test_skopeo_reads_the_archive_that_we_wrote(originals: dict[str, Original], tmp_path: Path) -> None:
    original, archive = originals["index-zstd"], f"oci-archive:{tmp_path}/image.tar"
    copy(f"docker://{original.reference}", archive)
    skopeo(tmp_path, "copy", "--all", "--preserve-digests", archive, f"oci:{tmp_path}/layout:1")

    assert whole_images(tmp_path / "layout") == {"1": original.digest}
    assert contents(layout_images(tmp_path / "layout")["1"]) == contents(original.images)


@every_case
def test_we_read_the_archive_that_skopeo_wrote(case: str, originals: dict[str, Original], tmp_path: Path) -> None:
    original, archive = originals[case], f"oci-archive:{tmp_path}/image.tar:1"
    skopeo(tmp_path, "copy", "--all", "--preserve-digests", original.place, archive)

    digest, images = read(archive, tmp_path)

    assert digest == original.digest
    assert contents(images) == contents(original.images)


# -- podman and buildah, on one storage


@pytest.fixture(scope="module")
def buildah(podman: Podman) -> Podman:
    """buildah, with what podman has."""
    *around, _ = podman.command
    return replace(podman, command=(*around, need("buildah")))


def pulled(podman: Podman, original: Original) -> dict[str, Any]:
    """What podman says of an image after it has pulled it."""
    podman("pull", "--quiet", "--tls-verify=false", original.reference)
    [seen] = json.loads(podman("image", "inspect", original.reference).stdout)
    return dict(seen)


@every_case
def test_podman_pulls_what_we_pushed(case: str, originals: dict[str, Original], podman: Podman) -> None:
    original = originals[case]
    seen = pulled(podman, original)

    assert f"sha256:{seen['Id']}" == original.identity
    assert seen["RootFS"]["Layers"] == original.images[0].diff_ids  # which it has verified
    assert f"{original.reference.rpartition(':')[0]}@{original.digest}" in seen["RepoDigests"]


@either_codec
def test_we_pull_what_podman_pushed(codec: str, podman: Podman, registry: Registry, tmp_path: Path) -> None:
    layout, reference = new_image(tmp_path, codec, "gzip"), f"docker://{registry.host}/podman/{codec}:1"
    name = podman("pull", "--quiet", f"oci:{layout}:1").stdout.strip()
    flags = ("--quiet", "--tls-verify=false", "--format=oci", f"--compression-format={codec}")
    podman("push", *flags, name, reference)
    _, images = read(reference, tmp_path)

    assert layer_types(images) == {f"application/vnd.oci.image.layer.v1.tar+{codec}"}
    assert contents(images) == contents(layout_images(layout)["1"])


def test_we_pull_the_index_that_podman_pushed(
    originals: dict[str, Original], podman: Podman, registry: Registry, tmp_path: Path
) -> None:
    original, reference = originals["index-gzip"], f"docker://{registry.host}/podman/index:1"
    podman("manifest", "create", "--all", "both", f"oci:{original.layout}:1")
    podman("manifest", "push", "--all", "--tls-verify=false", "--format=oci", "both", reference)
    _, images = read(reference, tmp_path)

    assert contents(images) == contents(original.images)


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_we_read_the_archive_that_podman_saved(
    kind: str, originals: dict[str, Original], podman: Podman, tmp_path: Path
) -> None:
    original = originals["image-gzip"]
    pulled(podman, original)
    podman("save", "--quiet", f"--format={kind}", f"--output={tmp_path}/image.tar", original.reference)
    _, images = read(f"{kind}:{tmp_path}/image.tar", tmp_path)

    assert contents(images) == contents(original.images)


@either_codec
def test_buildah_goes_on_from_what_we_pushed(
    codec: str, originals: dict[str, Original], buildah: Podman, registry: Registry, tmp_path: Path
) -> None:
    """And we read what it has made: two layers of ours, and one more."""
    original, reference = originals[f"image-{codec}"], f"docker://{registry.host}/buildah/{codec}:1"
    (tmp_path / "note").write_text("by buildah\n")
    name = buildah("from", "--quiet", "--tls-verify=false", original.reference).stdout.strip()
    buildah("copy", "--quiet", name, str(tmp_path / "note"), "/etc/note")
    buildah("commit", "--quiet", "--rm", "--tls-verify=false", name, reference)
    _, [image] = read(reference, tmp_path)

    assert image.layers[:2] == original.images[0].layers
    assert len(image.layers) == 3
    assert image.text("etc/note") == "by buildah\n"
    assert image.config["config"]["Env"] == original.images[0].config["config"]["Env"]


# -- docker


@pytest.mark.parametrize("case", ["image-gzip", "index-gzip"])
def test_docker_and_we_exchange_images(
    case: str, originals: dict[str, Original], docker: Docker, registry: Registry, tmp_path: Path
) -> None:
    """It pulls ours, and we read what it pushes and saves of that."""
    original, name = originals[case], f"{registry.host}/docker/{case}:1"
    docker("pull", "--quiet", original.reference)
    [seen] = json.loads(docker("image", "inspect", original.reference).stdout)
    docker("tag", original.reference, name)
    docker("push", "--quiet", name)
    docker("save", f"--output={tmp_path}/saved.tar", name)

    assert seen["Id"] == original.identity
    assert seen["RepoDigests"] == [f"{original.reference.rpartition(':')[0]}@{original.digest}"]
    assert seen["RootFS"]["Layers"] == original.images[0].diff_ids
    _, images = read(f"docker://{name}", tmp_path)
    assert contents(images) == contents(original.images[:1])
    assert images[0].manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    _, images = read(f"docker-archive:{tmp_path}/saved.tar", tmp_path)
    assert contents(images) == contents(original.images[:1])


def test_docker_of_old_refuses_zstd(originals: dict[str, Original], docker: Docker) -> None:
    """Before version 23; later ones read it."""
    done = docker("pull", "--quiet", originals["image-zstd"].reference, check=False)
    if int(docker("version", "--format={{.Server.Version}}").stdout.partition(".")[0]) >= 23:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode != 0
        assert "invalid tar header" in done.stderr


# -- umoci


def test_umoci_goes_on_from_what_we_pulled(originals: dict[str, Original], registry: Registry, tmp_path: Path) -> None:
    """And we push what it has made, which skopeo finds as it is in umoci's layout."""
    original, layout, reference = originals["image-gzip"], tmp_path / "layout", f"docker://{registry.host}/umoci/more:1"
    copy(f"docker://{original.reference}", f"oci:{layout}:1")
    (tmp_path / "note").write_text("by umoci\n")
    umoci(tmp_path, "insert", "--rootless", "--image", f"{layout}:1", "--tag", "2", tmp_path / "note", "/etc/note")
    digest = copy(f"oci:{layout}:2", reference)
    seen = skopeo(tmp_path, "inspect", "--tls-verify=false", "--format={{.Digest}}", reference)
    again, [image] = read(reference, tmp_path)

    assert whole_images(layout) == {"1": original.digest, "2": digest}
    assert seen.strip() == again == digest
    assert image.layers[:2] == original.images[0].layers
    assert b"by umoci\n" in image.layers[2]  # a tar without end, which tarfile refuses


def test_umoci_unpacks_what_we_pulled(originals: dict[str, Original], tmp_path: Path) -> None:
    original, layout = originals["image-gzip"], tmp_path / "layout"
    copy(f"docker://{original.reference}", f"oci:{layout}:1")
    umoci(tmp_path, "unpack", "--rootless", "--image", f"{layout}:1", tmp_path / "bundle")

    assert (tmp_path / "bundle/rootfs/etc/os-release").read_text() == original.images[0].text("usr/lib/os-release")
    assert (tmp_path / "bundle/rootfs/etc/what").read_text() == "image-gzip"


def test_umoci_refuses_zstd(originals: dict[str, Original], tmp_path: Path) -> None:
    """Version 0.4 knows gzip alone."""
    layout = tmp_path / "layout"
    copy(f"docker://{originals['image-zstd'].reference}", f"oci:{layout}:1")

    with pytest.raises(AssertionError, match=r"not correct mediatype: .*\.tar\+zstd"):
        umoci(tmp_path, "unpack", "--rootless", "--image", f"{layout}:1", tmp_path / "bundle")
