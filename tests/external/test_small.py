"""Small images on a base that has nothing, and on one made by hand, read by everyone who reads images."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.external.clients import Image, as_root, call, skopeo, umoci
from tests.support import demo
from tests.support.bases import tiny_image
from tests.support.channel import write_channel
from tests.support.conda import PLACEHOLDER, CondaPackage, Link, Regular, SameFile
from tests.support.images import write_layout
from tests.support.python import SUBDIR
from tests.support.tools import need
from tests.support.workspaces import lock_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.external.clients import Forge, Podman
    from tests.support.docker import Docker
    from tests.support.registry import Registry

PREFIX = "/app/.pixi/envs/default"

_MANIFEST = f"""\
[workspace]
name = "small"
channels = ["../channel"]
platforms = ["{SUBDIR}"]

[dependencies]
hello = "*"
shapes = "*"

[tool.ociforge]
cmd = ["hello"]
"""

_LONG = "share/" + "/".join(f"a-folder-with-a-rather-long-name-{number:02}" for number in range(9)) + "/file"

SHAPES = CondaPackage(
    name="shapes",
    subdir=SUBDIR,
    files={
        "bin/tool": Regular(content=f"#!{PLACEHOLDER}/bin/hello\n".encode(), executable=True, placeholder="text"),
        "share/shapes/empty": b"",
        "share/shapes/first": b"the same\n",
        "share/shapes/second": SameFile("share/shapes/first"),
        "share/shapes/link": Link("../../bin/tool"),
        "share/shapes/nowhere": Link("nothing"),
        "share/shapes/Grüße, 世界": b"names are UTF-8\n",
        "share/shapes/" + "n" * 120: b"longer than the name field of a tar header\n",
        _LONG: b"longer than name and prefix together\n",
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A built image: a layout `image`, `archive`, and `reference` in a registry."""

    image: Image
    archive: Path
    reference: str
    name: str
    bases: int  # layers that are the base's

    @property
    def tag(self) -> str:
        """What the image is called in its layout."""
        return self.name.partition(":")[2]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages with everything that can be in a prefix."""
    directory = tmp_path_factory.mktemp("small") / "workspace"
    directory.mkdir()
    (directory / "pixi.toml").write_text(_MANIFEST)
    (directory / "data.txt").write_text("of the application\n")
    channel = write_channel(directory.parent / "channel", [*demo.packages(), SHAPES])
    lock_workspace(directory, channel, {"default": ["hello", "shapes"]})
    return directory


# zstd is not read by umoci 0.4 and docker 20.10, nor made into a docker archive by skopeo 1.9.
EVERYWHERE = ["scratch-gzip", "tiny-gzip", "tiny-none"]
readable_by_all = pytest.mark.parametrize("small", EVERYWHERE, indirect=True)


@pytest.fixture(scope="module", params=[*EVERYWHERE, "scratch-zstd"])
def small(request: pytest.FixtureRequest, workspace: Path, forge: Forge, registry: Registry) -> Small:
    """One of several images of the workspace."""
    base, _, codec = request.param.partition("-")
    directory = workspace.parent / request.param
    directory.mkdir()
    if base == "tiny":
        write_layout(tiny_image(), directory / "base")
    name = f"small:{request.param}"
    reference, layout, archive = f"{registry.host}/{name}", directory / "layout", directory / "app.tar"
    options = ("--base", "scratch" if base == "scratch" else f"oci:{directory}/base", "--compression", codec)
    forge(
        "build",
        workspace,
        *options,
        "-o",
        f"oci:{layout}",
        "-o",
        f"oci-archive:{archive}",
        "-t",
        name,
        "--push",
        reference,
    )
    bases = 2 if base == "tiny" else 0
    return Small(image=Image.only(layout), archive=archive, reference=reference, name=name, bases=bases)


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path below `root` and what matters of it."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        state = path.lstat()
        where = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[where] = ("link", os.readlink(path))  # noqa: PTH115  # as it is written
        elif path.is_dir():
            found[where] = ("folder", stat.S_IMODE(state.st_mode))
        else:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[where] = ("file", stat.S_IMODE(state.st_mode), int(state.st_mtime), digest)
    return found


def test_each_layer_is_a_sound_tar(small: Small) -> None:
    testers = {"gzip": "gzip", "zstd": "zstd"}
    for descriptor, layer in zip(small.image.manifest["layers"], small.image.layers(), strict=True):
        kind = descriptor["mediaType"].partition("+")[2]
        if kind:
            subprocess.run([need(testers[kind]), "--test", "--quiet", layer], check=True)
        done = subprocess.run([need("tar"), "--list", "--file", layer], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout


@readable_by_all
def test_gnu_tar_and_umoci_agree(small: Small, tmp_path: Path) -> None:
    by_tar = tmp_path / "tar"
    by_tar.mkdir()
    for layer in small.image.layers():
        call(need("tar"), "--extract", "--preserve-permissions", "--file", layer, "--directory", by_tar, home=tmp_path)
    umoci(tmp_path, "unpack", "--rootless", "--image", f"{small.image.layout}:{small.tag}", tmp_path / "bundle")

    found = listing(by_tar)
    assert found == listing(tmp_path / "bundle/rootfs")
    at = PREFIX.strip("/")
    assert found[f"{at}/share/shapes/link"] == ("link", "../../bin/tool")
    assert found[f"{at}/share/shapes/second"] == found[f"{at}/share/shapes/first"]
    assert f"{at}/{_LONG}" in found and f"{at}/share/shapes/Grüße, 世界" in found
    assert found[f"{at}/share/shapes"] == ("folder", 0o755)
    assert (by_tar / at / "bin/tool").read_text() == f"#!{PREFIX}/bin/hello\n"
    assert "app/data.txt" in found
    if small.bases:
        assert found["bin"] == ("link", "usr/bin")


@readable_by_all
def test_skopeo_makes_a_docker_archive_of_it(small: Small, tmp_path: Path) -> None:
    archive = tmp_path / "docker.tar"
    skopeo(tmp_path, "copy", f"oci-archive:{small.archive}:{small.tag}", f"docker-archive:{archive}:{small.name}")

    with tarfile.open(archive) as tar:
        [manifest] = json.load(tar.extractfile("manifest.json") or pytest.fail("no manifest"))
        layers = [tar.extractfile(tar.getmember(name)) for name in manifest["Layers"]]
        digests = [f"sha256:{hashlib.sha256(layer.read()).hexdigest()}" for layer in layers if layer]
    assert digests == small.image.config["rootfs"]["diff_ids"]


def test_skopeo_pulls_the_same_bytes(small: Small, tmp_path: Path) -> None:
    flags = ("--preserve-digests", "--src-tls-verify=false")  # else it compresses what is not
    skopeo(tmp_path, "copy", *flags, f"docker://{small.reference}", f"oci:{tmp_path}/layout:1")

    assert Image.only(tmp_path / "layout").digest == small.image.digest


def test_podman_loads_and_runs_it(small: Small, podman: Podman) -> None:
    podman("load", "--quiet", "--input", small.archive)
    [seen] = json.loads(podman("image", "inspect", small.name).stdout)

    assert f"sha256:{seen['Id']}" == small.image.config_digest
    if not small.bases:  # the other base's shell, which the entrypoint needs, is no program
        assert podman.run(small.name) == f"hello from {PREFIX}\n"
    podman("image", "rm", small.name)


@readable_by_all
def test_docker_pulls_and_runs_it(small: Small, docker: Docker) -> None:
    as_root()
    docker("pull", "--quiet", small.reference)

    done = docker("run", "--rm", "--network=none", f"--entrypoint={PREFIX}/bin/hello", small.reference)
    assert done.stdout == f"hello from {PREFIX}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """An image index for two platforms in a registry."""

    reference: str
    digest: str


@pytest.fixture(scope="module")
def both(forge: Forge, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """The image of the demonstration."""
    workspace = tmp_path_factory.mktemp("demo")
    demo.write_demo(workspace)
    reference = f"{registry.host}/demo/both:1"
    platforms = ("--platform", "linux/amd64", "--platform", "linux/arm64")
    return Both(reference=reference, digest=forge("build", workspace, *platforms, "--push", reference)["digest"])


def test_skopeo_copies_an_index_whole(both: Both, tmp_path: Path) -> None:
    raw = json.loads(skopeo(tmp_path, "inspect", "--raw", "--tls-verify=false", f"docker://{both.reference}"))
    flags = ("--all", "--src-tls-verify=false")
    skopeo(tmp_path, "copy", *flags, f"docker://{both.reference}", f"oci:{tmp_path}/layout:1")
    [top] = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]

    assert [entry["platform"]["architecture"] for entry in raw["manifests"]] == ["amd64", "arm64"]
    assert top["digest"] == both.digest


def test_podman_picks_its_platform_of_an_index(both: Both, podman: Podman) -> None:
    podman("pull", "--quiet", "--tls-verify=false", both.reference)

    assert podman.run(both.reference) == f"hello from {PREFIX}\n"


def test_docker_picks_its_platform_of_an_index(both: Both, docker: Docker) -> None:
    docker("pull", "--quiet", both.reference)

    assert docker("run", "--rm", "--network=none", both.reference).stdout == f"hello from {PREFIX}\n"
