"""The image where it was sent: others find the same bytes there, and sending them again moves nothing."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.external.clients import Image, skopeo
from tests.support.bases import debian_layout
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.external.clients import Built, Forge, Podman
    from tests.external.conftest import Loaded
    from tests.support.containers import Crun
    from tests.support.docker import Docker
    from tests.support.registry import Registry

PREFIX = "/app/.pixi/envs/prod"


def changing(requests: Iterable[str]) -> list[str]:
    """The requests that would add something to a registry."""
    return [request for request in requests if request.split()[0] not in ("HEAD", "GET")]


def test_what_the_build_says_is_what_it_wrote(built: Built) -> None:
    assert built.result["digest"] == built.image.digest
    assert {copy["digest"] for copy in built.result["destinations"]} == {built.image.digest}
    assert [layer["digest"] for layer in built.result["layers"]] == [
        layer["digest"] for layer in built.image.manifest["layers"][1:]
    ]


def test_the_base_is_mounted_and_never_uploaded(built: Built) -> None:
    base = Image.only(debian_layout())
    [layer] = base.manifest["layers"]
    writes = changing(built.requests)

    assert built.image.manifest["layers"][0] == layer
    assert [request for request in writes if layer["digest"].partition(":")[2] in request and "PUT" in request] == []
    assert [request for request in writes if "mount=" in request and request.endswith(" 201")] != []
    assert built.image.manifest["annotations"]["org.opencontainers.image.base.digest"] == base.digest
    assert built.image.manifest["annotations"]["org.opencontainers.image.base.name"].endswith("/base/debian:latest")


def test_the_tag_is_the_last_thing_sent(built: Built) -> None:
    assert changing(built.requests)[-1] == "PUT /v2/team/my_project/manifests/1 201"


def test_skopeo_sees_the_image(built: Built, tmp_path: Path) -> None:
    seen = json.loads(skopeo(tmp_path, "inspect", "--tls-verify=false", f"docker://{built.reference}"))

    assert seen["Digest"] == built.image.digest
    assert (seen["Os"], seen["Architecture"]) == ("linux", built.image.config["architecture"])
    assert seen["Layers"] == [layer["digest"] for layer in built.image.manifest["layers"]]
    assert f"CONDA_PREFIX={PREFIX}" in seen["Env"]
    assert seen["Labels"]["org.opencontainers.image.title"] == "my_project"


def test_skopeo_pulls_the_same_bytes(built: Built, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    skopeo(tmp_path, "copy", "--src-tls-verify=false", f"docker://{built.reference}", f"oci:{layout}:1")

    assert Image.only(layout).digest == built.image.digest
    found = {f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in layout.glob("blobs/sha256/*")}
    assert found == built.image.blobs


def test_gnu_tar_reads_every_layer(built: Built) -> None:
    for layer in built.image.layers()[1:]:
        done = subprocess.run([need("tar"), "--list", "--file", layer], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_umoci_unpacks_what_was_meant(in_crun: Loaded, crun: Crun) -> None:
    root = crun.directory / in_crun.image / "rootfs"
    prefix = root / PREFIX.strip("/")

    assert (prefix / "bin/uvicorn").read_text().startswith(f"#!{PREFIX}/bin/python")
    assert (prefix / "bin/python").is_symlink()
    assert (root / "bin").is_symlink()  # the base's merged /usr is as it was
    assert (root / "app/entrypoint.sh").stat().st_mode == stat.S_IFREG | 0o755
    assert (root / "app/my_project/__init__.py").is_file()
    assert {path.name for path in (prefix / "conda-meta").iterdir()} >= {"history"}
    files = [path.lstat() for path in (root / "app").rglob("*")]
    assert {(file.st_uid, file.st_gid) for file in files} == {(0, 0)}
    assert {stat.S_IMODE(file.st_mode) for file in files if not stat.S_ISLNK(file.st_mode)} == {0o644, 0o755}


def test_podman_pulls_and_runs_it(built: Built, podman: Podman) -> None:
    podman("pull", "--quiet", "--tls-verify=false", built.reference)
    [seen] = json.loads(podman("image", "inspect", built.reference).stdout)

    assert (seen["Digest"], f"sha256:{seen['Id']}") == (built.image.digest, built.image.config_digest)
    program = "import sys, fastapi, os; print(sys.prefix, os.environ['ACTIVATED_BY_SCRIPT'])"
    assert podman.run(built.reference, "python", "-c", program) == f"{PREFIX} {PREFIX}/share/activated\n"


def test_docker_pulls_the_image_that_it_loaded(built: Built, docker: Docker, in_docker: Loaded) -> None:
    docker("pull", "--quiet", built.reference)
    [pulled, loaded] = json.loads(docker("image", "inspect", built.reference, in_docker.image).stdout)

    assert in_docker.image == built.name
    assert pulled["Id"] == loaded["Id"] == built.image.config_digest
    assert pulled["RepoDigests"] == [f"{built.reference.rpartition(':')[0]}@{built.image.digest}"]
    assert pulled["Config"]["ExposedPorts"] == {"8000/tcp": {}}
    assert pulled["Config"]["Cmd"] == ["uvicorn", "my_project:app", "--host", "0.0.0.0"]


def test_there_and_back_keeps_every_digest(built: Built, forge: Forge, registry: Registry, tmp_path: Path) -> None:
    layout, archive, copy = f"oci:{tmp_path}/layout:1", f"oci-archive:{tmp_path}/app.tar", f"{registry.host}/copy/app:1"

    steps = (f"docker://{built.reference}", layout, archive, f"docker://{copy}")
    results = [forge("push", *step) for step in pairwise(steps)]
    before = len(registry.requests())
    [again] = forge("push", archive, f"docker://{copy}")["destinations"]
    requests = registry.requests()[before:]

    assert {result["destinations"][0]["digest"] for result in results} == {built.image.digest}
    assert Image.only(tmp_path / "layout").blobs == built.image.blobs
    assert changing(requests) == []
    assert {outcome for outcome, tally in again["blobs"].items() if tally["count"]} == {"exists"}
    seen = skopeo(tmp_path, "inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{copy}")
    assert seen.strip() == built.image.digest


def test_building_again_makes_and_sends_nothing(built: Built, project: Path, forge: Forge, registry: Registry) -> None:
    before = len(registry.requests())
    again = forge(
        "build",
        project,
        "-e",
        "prod",
        "--base",
        f"docker://{registry.host}/base/debian:latest",
        "--push",
        built.reference,
    )

    assert again["digest"] == built.image.digest
    assert changing(registry.requests()[before:]) == []
    assert all(layer["reused"] for layer in again["layers"])
