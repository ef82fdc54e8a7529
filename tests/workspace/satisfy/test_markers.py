"""Markers of a target platform, held against what `packaging` finds on this machine; and when two mean the same."""

from __future__ import annotations

import platform
import sys

import pytest
from packaging.markers import default_environment

from ociforge.workspace.satisfy.marker_equivalence import equivalent
from ociforge.workspace.satisfy.markers import Markers, marker_environment

HOSTS = {("linux", "x86_64"): "linux-64", ("linux", "aarch64"): "linux-aarch64"}
LINUX = Markers(marker_environment("linux-64", "3.12.4"))


@pytest.mark.skipif((sys.platform, platform.machine()) not in HOSTS, reason="a platform that the table lacks")
def test_of_this_machine() -> None:
    subdir = HOSTS[sys.platform, platform.machine()]
    ours = marker_environment(subdir, platform.python_version())
    theirs = {key: str(value) for key, value in default_environment().items()}
    unknown = {"platform_release": "", "platform_version": ""}  # nothing is known of the target's kernel
    assert ours == theirs | unknown | {"implementation_version": platform.python_version()}


@pytest.mark.parametrize(
    ("subdir", "marker"),
    [
        ("linux-64", "sys_platform == 'linux' and platform_machine == 'x86_64' and os_name == 'posix'"),
        ("linux-aarch64", "platform_system == 'Linux' and platform_machine == 'aarch64'"),
        ("osx-arm64", "sys_platform == 'darwin' and platform_machine == 'arm64' and platform_system == 'Darwin'"),
        ("win-64", "sys_platform == 'win32' and platform_machine == 'AMD64' and os_name == 'nt'"),
        ("linux-64", "python_version == '3.12' and python_full_version == '3.12.4'"),
        ("linux-64", "implementation_name == 'cpython' and platform_python_implementation == 'CPython'"),
    ],
)
def test_holds(subdir: str, marker: str) -> None:
    assert Markers(marker_environment(subdir, "3.12.4")).hold(marker)


@pytest.mark.parametrize(
    "marker",
    [
        "platform_release >= '5'",
        "platform_version ~= '1.0'",
        "os_name >= '2'",
        "extra == 'a'",
        "python_version in '3.8,3.9'",
    ],
)
def test_does_not_hold(marker: str) -> None:
    assert not LINUX.hold(marker)


def test_extras() -> None:
    marker = "extra == 'Some_Extra' and python_version >= '3'"
    assert LINUX.hold(None)
    assert LINUX.hold(marker, ("other", "some-extra"))
    assert not LINUX.hold(marker, ("other",))
    assert LINUX.hold("extra != 'a'", ("b",))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("python_version < '3.10'", "python_full_version < '3.10'"),
        ("python_version <= '3.8'", "python_full_version < '3.9'"),
        ("python_version > '3.8'", "python_full_version >= '3.9'"),
        ("python_version == '3.8'", "python_full_version == '3.8.*'"),
        ("'3.8' <= python_version", "python_full_version >= '3.8'"),
        (
            "sys_platform == 'win32' and (python_version < '3.9' or extra == 'a')",
            "(extra == 'a' and sys_platform == 'win32') or (python_full_version < '3.9' and sys_platform == 'win32')",
        ),
        ("'linux' in sys_platform", "sys_platform == 'linux'"),
        ("platform_machine not in 'arm64 aarch64'", "platform_machine != 'arm64' and platform_machine != 'aarch64'"),
        ("extra == 'a-b'", "extra == 'A_B'"),
        (None, "python_version >= '0'"),
        (None, None),
    ],
)
def test_equivalent(left: str | None, right: str | None) -> None:
    assert equivalent(left, right)
    assert equivalent(right, left)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("python_version < '3.10'", "python_full_version < '3.10.1'"),
        ("python_version > '3.8'", "python_full_version > '3.8'"),
        ("python_version >= '3.8'", "python_version >= '3.9'"),
        ("sys_platform == 'win32'", "sys_platform != 'linux'"),
        ("extra == 'a'", "extra == 'b'"),
        ("extra == 'a'", None),
        ("os_name == 'nt' or extra == 'a'", "os_name == 'nt' and extra == 'a'"),
    ],
)
def test_not_equivalent(left: str | None, right: str | None) -> None:
    assert not equivalent(left, right)
    assert not equivalent(right, left)


def test_markers_that_would_take_too_long() -> None:
    """Then only the text counts."""
    names = ("os_name", "sys_platform", "platform_machine", "platform_system", "implementation_name")
    many = " or ".join(f"{name} == '{value}'" for name in names for value in "abcdefgh")
    assert equivalent(many, many)
    assert not equivalent(many, f"{many} or os_name == 'i'")
