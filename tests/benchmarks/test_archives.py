from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from benchmarks.archives import Measure, measure, package_tar
from benchmarks.channels import load_channel
from benchmarks.floor import archive, piped
from benchmarks.growth import Shape, packages
from layers.compress import Codec
from tests.benchmarks.tiny import tiny_ground
from tests.support.channel import write_channel
from tests.support.conda import CondaPackage, Link

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = CondaPackage(name="some", files={"share/large": bytes(3_000_000), "share/text": "text\n", "link": Link("x")})


def test_archives_are_measured_and_read(tmp_path: Path) -> None:
    path = PACKAGE.write(tmp_path).path
    assert measure(path) == Measure(3, 3_000_005)
    with package_tar(path) as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as tar:
        assert sorted(tar.getnames()) == ["link", "share/large", "share/text"]


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_floors_do_the_same_work_both_ways(tmp_path: Path, codec: str) -> None:
    path = PACKAGE.write(tmp_path).path
    with package_tar(path) as stream:
        tar = stream.read()
    packed = archive(path, Codec.parse(codec))
    assert packed == piped(io.BytesIO(tar), Codec.parse(codec))
    assert packed.diff_id == hashlib.sha256(tar).hexdigest()
    assert packed.digest != packed.diff_id


def test_channel_is_read_back(tmp_path: Path) -> None:
    ground = tiny_ground(tmp_path)
    found = load_channel(ground.channel.path)
    assert found.url == ground.channel.url
    assert {archive.path: archive.record for archive in found.archives} == {
        archive.path: archive.record for archive in ground.channel.archives
    }


def test_grown_packages_have_the_shape_asked_for(tmp_path: Path) -> None:
    shape = Shape(count=3, files=4, size=1000)
    channel = write_channel(tmp_path, packages(shape, bytes(range(256)) * 40_000 + b"end"))
    assert sum((measure(archive.path) for archive in channel.archives), start=Measure(0, 0)) == Measure(12, 12_000)
    assert len({archive.record["name"] for archive in channel.archives}) == 3
    assert shape.total == 12_000
