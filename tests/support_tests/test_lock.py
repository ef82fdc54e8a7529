from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
from rattler import LockFile

from tests.support.channel import write_channel
from tests.support.conda import CondaPackage
from tests.support.lock import LockedConda, LockedEnvironment, LockedPlatform, LockedPypi, conda_rows, write_lock
from tests.support.rattling import install

if TYPE_CHECKING:
    from pathlib import Path

A = CondaPackage(name="a", version="1.10", build="1234", files={"share/a": b"a"})
ARM = CondaPackage(name="a", version="1.10", build="1234", subdir="linux-aarch64", files={"share/a": b"arm"})
B = CondaPackage(name="b", noarch="generic", build="h_3", build_number=7, depends=("a",), purls=("pkg:pypi/b",))
WHEEL = LockedPypi(
    name="x",
    location="https://example.com/x-1.0-py3-none-any.whl",
    version="1.0",
    sha256="0" * 64,
    requires_dist=("y>=1",),
    requires_python=">=3.8",
)


@pytest.mark.parametrize("version", [6, 7])
@pytest.mark.parametrize("served", [False, True])
def test_rattler_reads_the_lock(version: Literal[6, 7], served: bool, tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "channel", [A, ARM, B])
    if served:
        channel = channel.at("https://conda.example.com/channel")
    packages: dict[str, tuple[LockedConda | LockedPypi, ...]] = {
        name: (*conda_rows(channel, platform=name), WHEEL) for name in ("linux-64", "linux-aarch64")
    }
    environment = LockedEnvironment(channels=(channel.url,), packages=packages, indexes=("https://pypi.org/simple",))

    lock = LockFile.from_path(write_lock(tmp_path / "pixi.lock", {"prod": environment}, version=version))

    prod = lock.environment("prod")
    assert prod is not None
    assert sorted(platform.name for platform in lock.platforms()) == ["linux-64", "linux-aarch64"]
    for platform in lock.platforms():
        records = {
            record.name.normalized: record for record in prod.conda_repodata_records_for_platform(platform) or ()
        }
        assert records["a"].url == f"{channel.url}{platform.name}/a-1.10-1234.conda"
        assert (str(records["a"].version), records["a"].build_number) == ("1.10", 0)
        assert (records["b"].build_number, records["b"].channel) == (7, channel.url)
        [wheel] = prod.pypi_packages_for_platform(platform) or []
        assert (wheel.name, wheel.location) == ("x", WHEEL.location)


def test_rattler_installs_from_the_lock(tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "channel", [A, B])
    environment = LockedEnvironment(channels=(channel.url,), packages={"linux-64": conda_rows(channel)})

    lock = LockFile.from_path(write_lock(tmp_path / "pixi.lock", {"default": environment}))

    default = lock.default_environment()
    assert default is not None
    records = default.conda_repodata_records_for_platform(lock.platforms()[0]) or []
    root = install(records, tmp_path / "env", cache=tmp_path / "cache")
    assert (root / "share/a").read_bytes() == b"a"


def test_a_platform_can_have_virtual_packages(tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "channel", [A])
    environment = LockedEnvironment(channels=(channel.url,), packages={"p1": conda_rows(channel)})
    platform = LockedPlatform(name="p1", subdir="linux-64", virtual_packages=("__cuda=12",))

    lock = LockFile.from_path(write_lock(tmp_path / "pixi.lock", {"default": environment}, platforms=(platform,)))

    [loaded] = lock.platforms()
    assert (loaded.name, str(loaded.subdir), loaded.virtual_packages) == ("p1", "linux-64", ["__cuda=12"])
