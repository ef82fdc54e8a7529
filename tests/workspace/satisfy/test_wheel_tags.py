"""Wheel tags of a declared platform, held against what `packaging` finds on this machine."""

from __future__ import annotations

import platform
import sys
import sysconfig

import pytest
from packaging.tags import parse_tag, sys_tags

from ociforge.workspace.platforms import VirtualPackage, WorkspacePlatform, merge_virtual_packages
from ociforge.workspace.satisfy.wheel_tags import fits, is_free_threaded, supported_tags

HOSTS = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}


def declared(subdir: str, *packages: str) -> WorkspacePlatform:
    parsed = [package for text in packages if (package := VirtualPackage.parse(text)) is not None]
    return WorkspacePlatform(name="x", subdir=subdir, virtual_packages=merge_virtual_packages(subdir, parsed))


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or platform.machine() not in HOSTS,
    reason="no Linux with glibc",
)
def test_of_this_machine() -> None:
    host = declared(HOSTS[platform.machine()], f"__glibc={platform.libc_ver()[1]}")
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    assert supported_tags(host, platform.python_version(), free_threaded=free_threaded) == frozenset(sys_tags())


@pytest.mark.parametrize(
    ("subdir", "packages", "python", "tag", "expected"),
    [
        ("linux-64", (), "3.12.4", "py3-none-any", True),
        ("linux-64", (), "3.12.4", "py2-none-any", False),
        ("linux-64", (), "3.12.4", "cp312-cp312-manylinux_2_28_x86_64", True),
        ("linux-64", (), "3.12.4", "cp312-cp312-manylinux_2_29_x86_64", False),
        ("linux-64", ("__glibc=2.34",), "3.12.4", "cp312-cp312-manylinux_2_34_x86_64", True),
        ("linux-64", ("__glibc=2.12",), "3.12.4", "cp312-cp312-manylinux2014_x86_64", False),
        ("linux-64", ("__glibc=2.12",), "3.12.4", "cp312-cp312-manylinux2010_x86_64", True),
        ("linux-64", (), "3.12.4", "cp312-cp312-manylinux1_x86_64", True),
        ("linux-64", (), "3.12.4", "cp312-cp312-linux_x86_64", True),
        ("linux-64", (), "3.12.4", "cp39-abi3-manylinux_2_17_x86_64", True),
        ("linux-64", (), "3.12.4", "cp313-abi3-manylinux_2_17_x86_64", False),
        ("linux-64", (), "3.12.4", "cp311-cp311-manylinux_2_17_x86_64", False),
        ("linux-64", (), "3.12.4", "cp312-cp312-manylinux_2_17_aarch64", False),
        ("linux-64", (), "3.12.4", "cp312-cp312-musllinux_1_2_x86_64", False),
        ("linux-64", ("__musl=1.2",), "3.12.4", "cp312-cp312-musllinux_1_2_x86_64", True),
        ("linux-64", ("__musl=1.2",), "3.12.4", "cp312-cp312-manylinux_2_17_x86_64", False),
        ("linux-64", (), "3.7.9", "cp37-cp37m-manylinux2014_x86_64", True),
        ("linux-aarch64", (), "3.12.4", "cp312-cp312-manylinux_2_17_aarch64", True),
        ("linux-aarch64", (), "3.12.4", "cp312-cp312-manylinux_2_12_aarch64", False),
        ("osx-arm64", (), "3.12.4", "cp312-cp312-macosx_13_0_arm64", True),
        ("osx-arm64", (), "3.12.4", "cp312-cp312-macosx_14_0_arm64", False),
        ("osx-arm64", ("__osx=14.2",), "3.12.4", "cp312-cp312-macosx_14_0_arm64", True),
        ("osx-64", (), "3.12.4", "cp312-cp312-macosx_10_9_universal2", True),
        ("win-64", (), "3.12.4", "cp312-cp312-win_amd64", True),
        ("win-64", (), "3.12.4", "cp312-cp312-win32", False),
    ],
)
def test_tag(subdir: str, packages: tuple[str, ...], python: str, tag: str, expected: bool) -> None:
    tags = supported_tags(declared(subdir, *packages), python)
    assert tags is not None
    assert (not tags.isdisjoint(parse_tag(tag))) == expected
    assert fits(f"name-1.0-{tag}.whl", tags) == expected


def test_what_cannot_be_told_fits() -> None:
    assert supported_tags(declared("emscripten-wasm32"), "3.12.4") is None
    assert supported_tags(declared("linux-64"), "three") is None
    assert fits("name-1.0-cp27-cp27m-win32.whl", None)
    tags = supported_tags(declared("linux-64"), "3.12.4")
    assert fits("name-1.0.tar.gz", tags)
    assert fits("no-wheel.whl", tags)


@pytest.mark.parametrize(
    ("depends", "expected"),
    [
        (["tzdata", "python_abi 3.13.* *_cp313t"], True),
        (["python_abi 3.13.* *_cp313"], False),
        (["other 1.* *_cp313t"], False),
        ([], False),
    ],
)
def test_free_threaded(depends: list[str], expected: bool) -> None:
    assert is_free_threaded(depends) == expected
