"""Images for a machine that this is not, read by others, and their programs run by qemu."""

from __future__ import annotations

import json
import platform
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.external.clients import as_root, call, skopeo, umoci
from tests.support import demo
from tests.support.channel import write_channel
from tests.support.conda import CondaPackage
from tests.support.foreign import arm64_python, arm64_rootfs, machines, qemu
from tests.support.lock import LockedEnvironment, conda_rows, write_lock
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.external.clients import Forge
    from tests.support.docker import Docker
    from tests.support.registry import Registry

PREFIX = "app/.pixi/envs/default"
HOST = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
MACHINES = {"amd64": "Advanced Micro Devices X86-64", "arm64": "AArch64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """The demonstration for two platforms: `reference` in a registry, `archive`, and what the build said."""

    reference: str
    archive: Path
    result: dict[str, Any]


@pytest.fixture(scope="module")
def both(forge: Forge, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Both:
    workspace = tmp_path_factory.mktemp("demo")
    demo.write_demo(workspace)
    reference, archive = f"{registry.host}/platforms/demo:1", tmp_path_factory.mktemp("out") / "demo.tar"
    places = ("--push", reference, "-o", f"oci-archive:{archive}", "-t", "platforms/demo:1")
    return Both(reference=reference, archive=archive, result=forge("build", workspace, "--platform", "all", *places))


def unpacked(source: str, architecture: str, home: Path) -> Path:
    """The root file system of the image for one architecture, out of an index."""
    flags = ("--src-tls-verify=false", "--override-arch", architecture)
    skopeo(home, "copy", *flags, source, f"oci:{home}/{architecture}:1")
    umoci(home, "unpack", "--rootless", "--image", f"{home}/{architecture}:1", home / f"{architecture}-bundle")
    return home / f"{architecture}-bundle/rootfs"


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_skopeo_finds_each_image(both: Both, architecture: str, tmp_path: Path) -> None:
    command = ("inspect", "--override-arch", architecture, "--tls-verify=false", f"docker://{both.reference}")
    seen = json.loads(skopeo(tmp_path, *command))
    assert (seen["Architecture"], seen["Os"]) == (architecture, "linux")
    raw = json.loads(skopeo(tmp_path, "inspect", "--raw", "--tls-verify=false", f"docker://{both.reference}"))
    assert [entry["platform"]["architecture"] for entry in raw["manifests"]] == ["amd64", "arm64"]
    assert set(seen["Layers"]) <= {layer["digest"] for layer in both.result["layers"]}


def test_images_share_what_has_no_architecture(both: Both, tmp_path: Path) -> None:
    """As another reads them; and each shared layer was sent once."""
    layers = [
        set(
            json.loads(
                skopeo(tmp_path, "inspect", "--override-arch", one, "--tls-verify=false", f"docker://{both.reference}")
            )["Layers"]
        )
        for one in MACHINES
    ]
    titles = {layer["digest"]: layer["title"] for layer in both.result["layers"]}
    assert {titles[digest] for digest in layers[0] & layers[1]} == {"environment", "greeting 1.0", "application"}
    made = [layer["title"] for layer in both.result["layers"] if not layer["reused"]]
    assert [made.count(title) for title in ("greeting 1.0", "application", "hello 1.0.0")] == [1, 1, 2]
    sent = [transfer["digest"] for transfer in both.result["destinations"][0]["transfers"]]
    assert len(sent) == len(set(sent))


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_every_program_is_for_its_machine(both: Both, architecture: str, tmp_path: Path) -> None:
    root = unpacked(f"docker://{both.reference}", architecture, tmp_path)
    assert machines(root) == {f"{PREFIX}/bin/hello": MACHINES[architecture]}
    program = root / PREFIX / "bin/hello"
    emulator = () if architecture == HOST else (qemu(),) if architecture == "arm64" else (need("qemu-x86_64-static"),)
    assert call(*emulator, program, home=tmp_path).stdout == f"hello from /{PREFIX}\n"


def test_docker_loads_this_machines_image(both: Both, docker: Docker) -> None:
    """Of an archive that holds several; skopeo finds the others in it."""
    as_root()
    name = docker.load(both.archive)
    (seen,) = json.loads(docker("image", "inspect", name).stdout)
    assert seen["Architecture"] == HOST
    docker("image", "rm", name)


_MANIFEST = """\
[workspace]
name = "arm"
channels = ["{channel}"]
platforms = ["linux-aarch64"]

[dependencies]
python = "*"
greet = "*"

[tool.ociforge]
files = ["pixi.toml"]
cmd = ["greet"]
"""
_GREET = """\
import json, platform, sys
def main():
    print(json.dumps([platform.machine(), sys.prefix, __file__, sys.flags.isolated]))
"""


def short_version() -> str:
    """The interpreter's `major.minor`."""
    return ".".join(str(arm64_python().record["version"]).split(".")[:2])


@pytest.fixture(scope="module")
def python_image(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root file system of an image with a real Python for arm64, on Debian's C library."""
    qemu()
    workspace = tmp_path_factory.mktemp("arm") / "workspace"
    workspace.mkdir()
    greet = CondaPackage(
        name="greet",
        noarch="python",
        depends=("python",),
        files={"site-packages/greet.py": _GREET},
        entry_points=("greet = greet:main",),
        activate="export GREETED=1\n",
    )
    channel = write_channel(workspace.parent / "channel", [greet, arm64_python()])
    (workspace / "pixi.toml").write_text(_MANIFEST.format(channel=channel.url))
    rows = {"linux-aarch64": conda_rows(channel)}
    write_lock(workspace / "pixi.lock", {"default": LockedEnvironment(channels=(channel.url,), packages=rows)})
    base = ("--base", f"rootfs:{arm64_rootfs()}")
    forge("build", workspace, *base, "--platform", "all", "-o", f"oci:{workspace.parent}/layout:1")
    yield unpacked(f"oci:{workspace.parent}/layout:1", "arm64", workspace.parent)
    shutil.rmtree(workspace.parent)


def test_a_real_python_for_another_machine(python_image: Path) -> None:
    found, short = machines(python_image), short_version()
    assert {path for path in found if path.startswith(PREFIX)} == {
        f"{PREFIX}/bin/python{short}",
        f"{PREFIX}/lib/python{short}/lib-dynload/_json.cpython-{short.replace('.', '')}-aarch64-linux-gnu.so",
        f"{PREFIX}/lib/libexpat.so.1",
        f"{PREFIX}/lib/libz.so.1",
    }
    assert set(found.values()) == {MACHINES["arm64"]}


def test_it_runs_in_qemu(python_image: Path, tmp_path: Path) -> None:
    """Through the image's own entrypoint, shell and interpreter, with nothing of this machine but the emulator."""
    as_root()
    shutil.copy(qemu(), python_image / "qemu")
    inside = (f"/{PREFIX}/bin/python", f"/{PREFIX}/bin/greet")
    command = (need("chroot"), python_image, "/qemu", "/bin/sh", "/app/entrypoint.sh", "/qemu", *inside)
    said = json.loads(call(*command, home=tmp_path).stdout)
    assert said == ["aarch64", f"/{PREFIX}", f"/{PREFIX}/lib/python{short_version()}/site-packages/greet.py", 0]
