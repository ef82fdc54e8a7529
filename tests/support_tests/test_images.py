from __future__ import annotations

import json
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.support.bases import tar_of, tiny_image
from tests.support.images import Compression, digest_of, write_docker_archive, write_layout, write_oci_archive
from tests.support.tools import need

if TYPE_CHECKING:
    from pathlib import Path


def inspect(reference: str) -> dict[str, object]:
    done = subprocess.run([need("skopeo"), "inspect", reference], check=True, capture_output=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_skopeo_reads_the_layout(compression: Compression, tmp_path: Path) -> None:
    digest = write_layout(tiny_image(), tmp_path / "layout", compression=compression)

    answer = inspect(f"oci:{tmp_path}/layout:latest")

    assert answer["Digest"] == digest
    assert answer["Labels"] == {"org.opencontainers.image.version": "1", "maintainer": "tiny"}


def test_skopeo_reads_the_archives(tmp_path: Path) -> None:
    digest = write_oci_archive(tiny_image(), tmp_path / "oci.tar", tag="v1")
    write_docker_archive(tiny_image(), tmp_path / "docker.tar", tags=["tiny:v1"])

    assert inspect(f"oci-archive:{tmp_path}/oci.tar:v1")["Digest"] == digest
    assert inspect(f"docker-archive:{tmp_path}/docker.tar:tiny:v1")["Architecture"] == "amd64"


def test_an_index_lists_its_platforms(tmp_path: Path) -> None:
    write_layout([tiny_image(), tiny_image(architecture="arm64")], tmp_path)

    [top] = json.loads((tmp_path / "index.json").read_text())["manifests"]
    index = json.loads((tmp_path / "blobs" / top["digest"].replace(":", "/")).read_text())
    platforms = [entry["platform"] for entry in index["manifests"]]
    assert platforms == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux", "variant": "v8"},
    ]


def test_a_layer_holds_what_was_asked(tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(tar_of({"tmp": 0o1777, "bin": "usr/bin", "usr/bin/x": b"x", "etc/y": b"y"}))

    with tarfile.open(tmp_path / "layer.tar") as tar:
        modes = {member.name: (member.type, oct(member.mode)) for member in tar}

    assert modes == {
        "tmp": (tarfile.DIRTYPE, "0o1777"),
        "bin": (tarfile.SYMTYPE, "0o777"),
        "usr/bin/x": (tarfile.REGTYPE, "0o755"),
        "etc/y": (tarfile.REGTYPE, "0o644"),
    }
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
