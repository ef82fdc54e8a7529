from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ociforge.errors import WorkspaceError
from ociforge.workspace.platforms import SUBDIRS, VirtualPackage, WorkspacePlatform, version_key
from tests.workspace.making import workspace

if TYPE_CHECKING:
    from pathlib import Path


def platforms(root: Path, item: str) -> dict[str, WorkspacePlatform]:
    head = f"[workspace]\nchannels = []\nplatforms = [{item}]\n"
    return dict(workspace(root, "", head=head).manifest.platforms)


@pytest.mark.parametrize(
    ("item", "name", "customised"),
    [
        ('"linux-64"', "linux-64", []),
        ('{ name = "osx-arm64" }', "osx-arm64", []),
        ('{ platform = "linux-64" }', "linux-64", []),
        ('{ platform = "linux-64", cuda = "12" }', "linux-64-cuda-12", ["__cuda=12"]),
        ('{ platform = "linux-64", glibc = "2.28", cuda = "12.0" }', "linux-64-cuda-12-0", ["__cuda=12.0"]),
        ('{ name = "gpu", platform = "linux-64", cuda = "12" }', "gpu", ["__cuda=12"]),
        (
            '{ platform = "linux-64", linux = "5.10", archspec = "x86_64_v3", glibc = "2.31" }',
            "linux-64-archspec-x86-64-v3-glibc-2-31-linux-5-10",
            ["__archspec=0=x86_64_v3", "__glibc=2.31", "__linux=5.10"],
        ),
        ('{ platform = "osx-arm64", macos = "14" }', "osx-arm64-macos-14", ["__osx=14"]),
        ('{ platform = "osx-arm64", osx = "14" }', "osx-arm64-macos-14", ["__osx=14"]),
        ('{ platform = "win-64", windows = "11" }', "win-64-windows-11", ["__win=11"]),
        ('{ platform = "linux-64", __rocm = "6=gfx90a" }', "linux-64-rocm-6-gfx90a", ["__rocm=6=gfx90a"]),
        (
            '{ platform = "linux-64", cuda = { driver = "12", arch = "8.6" } }',
            "linux-64-cuda-12-cuda-arch-8-6",
            ["__cuda=12", "__cuda_arch=8.6"],
        ),
        ('{ platform = "linux-64", __musl = "1.2" }', "linux-64-musl-1-2", ["__musl=1.2"]),
    ],
)
def test_name_and_identity(tmp_path: Path, item: str, name: str, customised: list[str]) -> None:
    found = platforms(tmp_path, item)
    assert list(found) == [name]
    assert sorted(str(package) for package in found[name].customised) == customised


def test_defaults(tmp_path: Path) -> None:
    assert {str(p) for p in WorkspacePlatform.of_subdir("linux-aarch64").virtual_packages} == {
        "__unix=0", "__linux=4.18", "__glibc=2.28", "__archspec=0=aarch64",
    }  # fmt: skip
    assert {str(p) for p in WorkspacePlatform.of_subdir("osx-arm64").virtual_packages} == {
        "__unix=0", "__osx=13.0", "__archspec=0=m1",
    }  # fmt: skip
    assert {str(p) for p in WorkspacePlatform.of_subdir("win-64").virtual_packages} == {
        "__win=10.0", "__archspec=0=x86_64",
    }  # fmt: skip
    assert not any(WorkspacePlatform.of_subdir(subdir).customised for subdir in SUBDIRS)


def test_another_libc_replaces_glibc(tmp_path: Path) -> None:
    (found,) = platforms(tmp_path, '{ platform = "linux-64", __musl = "1.2" }').values()
    assert "__glibc" not in {package.name for package in found.virtual_packages}


@pytest.mark.parametrize(
    ("item", "key", "why"),
    [
        ('"linux64"', "platforms[0]", "unknown platform `linux64`: did you mean `linux-64`?"),
        ("7", "platforms[0]", "expected a platform or a table, got integer `7`"),
        ("{}", "platforms[0]", "expected `platform` or `name`"),
        ('{ name = "gpu" }', "platforms[0].name", "`gpu` is no subdir: set `platform` too"),
        (
            '{ name = "linux-64", cuda = "12" }',
            "platforms[0]",
            "`linux-64` is a subdir and cannot promise virtual packages: give it a `name`",
        ),
        (
            '{ name = "unix", platform = "linux-64", cuda = "12" }',
            "platforms[0]",
            "`unix` is a reserved platform name",
        ),
        (
            '{ name = "a_b", platform = "linux-64", cuda = "12" }',
            "platforms[0]",
            "`a_b` is no platform name: letters, digits and `-`, beginning with a letter",
        ),
        (
            '{ platform = "linux-64", cuda = { arch = "8.6" } }',
            "platforms[0]",
            "`__cuda_arch` needs `__cuda` too",
        ),
        ('{ platform = "linux-64", cuda = "?" }', "platforms[0].cuda", "`?` is no version"),
        (
            '{ platform = "linux-64", kuda = "12" }',
            "platforms[0].kuda",
            "unknown key: did you mean `cuda`?",
        ),
        (
            '{ platform = "osx-64", macos = "14", osx = "14" }',
            "platforms[0].osx",
            "an alias of `macos`: set only one",
        ),
        ('"linux-64", "linux-64"', "platforms[1]", "the platform `linux-64` is listed twice"),
    ],
)
def test_message(tmp_path: Path, item: str, key: str, why: str) -> None:
    with pytest.raises(WorkspaceError) as caught:
        platforms(tmp_path, item)
    assert caught.value.message == f"`workspace.{key}` in `pixi.toml`: {why}"


def test_a_name_has_at_most_64_bytes(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="is longer than 64 bytes"):
        platforms(tmp_path, f'{{ name = "a{"b" * 64}", platform = "linux-64", cuda = "12" }}')


@pytest.mark.parametrize(
    ("selector", "matching"),
    [
        ("linux", ["linux-64", "linux-aarch64", "gpu"]),
        ("unix", ["linux-64", "linux-aarch64", "gpu", "osx-arm64"]),
        ("win", ["win-64"]),
        ("osx", ["osx-arm64"]),
        ("macos", ["osx-arm64"]),
        ("linux-64", ["linux-64", "gpu"]),
        ("gpu", ["gpu"]),
        ("linux-*", ["linux-64", "linux-aarch64"]),
        ("*", ["linux-64", "linux-aarch64", "gpu", "osx-arm64", "win-64"]),
        ("nothing", []),
    ],
)
def test_selectors(tmp_path: Path, selector: str, matching: list[str]) -> None:
    declared = (
        '"linux-64", "linux-aarch64", { name = "gpu", platform = "linux-64", cuda = "12" }, "osx-arm64", "win-64"'
    )
    found = platforms(tmp_path, declared)
    assert [name for name, platform in found.items() if platform.selected_by(selector)] == matching


def test_versions_are_equal_as_conda_has_them() -> None:
    assert version_key("12") == version_key("12.0") != version_key("12.1")
    assert VirtualPackage.parse("__glibc=2.28=0") == VirtualPackage(name="__glibc", version="2.28", build="0")
    assert VirtualPackage.parse("__glibc") is None
    assert VirtualPackage.parse("glibc=1") is None


class TestSystemRequirements:
    def of(self, root: Path, text: str, environment: str = "default") -> list[str]:
        found = workspace(root, text).environment(environment, "linux-64")
        return [platform.name for platform in found.platforms]

    def test_compose_a_platform_per_subdir(self, tmp_path: Path) -> None:
        text = "[system-requirements]\ncuda = '12'\nmacos = '14.0'\n"
        assert self.of(tmp_path, text) == ["linux-64-cuda-12", "linux-aarch64-cuda-12", "osx-arm64-macos-14-0"]

    def test_the_highest_of_all_features_counts(self, tmp_path: Path) -> None:
        text = (
            "[system-requirements]\nlibc = '2.17'\ncuda = '11'\n"
            "[feature.new.system-requirements]\ncuda = '12.4'\nlibc = '2.9'\n"
            "[environments]\nnew = ['new']\n"
        )
        assert self.of(tmp_path, text, "new")[0] == "linux-64-cuda-12-4-glibc-2-17"

    def test_defaults_vanish(self, tmp_path: Path) -> None:
        text = "[system-requirements]\nlinux = '4.18'\nlibc = { family = 'glibc', version = '2.28' }\n"
        assert self.of(tmp_path, text) == ["linux-64", "linux-aarch64", "osx-arm64"]

    def test_exclude_rich_platforms(self, tmp_path: Path) -> None:
        head = "[workspace]\nchannels = []\nplatforms = [{ platform = 'linux-64', cuda = '12' }]\n"
        with pytest.raises(WorkspaceError, match="cannot be used beside the platform `linux-64-cuda-12`"):
            workspace(tmp_path, "[system-requirements]\nlinux = '5'\n", head=head)
