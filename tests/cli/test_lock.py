"""`ociforge lock`: two files, one line on stdout for each, and what changed on stderr."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from ociforge.pins import Pins, Use
from ociforge.platform import Platform
from ociforge.workspace.lockfile import read
from tests.cli.program import Forge, ociforge
from tests.pypi.simple_index import Dist, write_index
from tests.support.bases import tiny_image
from tests.support.channel import serve, write_channel
from tests.support.conda import CondaPackage
from tests.support.images import write_layout
from tests.support.registry import push_layout, running_registry

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = """\
[workspace]
name = "demo"
channels = ["../channel"]
platforms = ["linux-64"]

[dependencies]
tool = "*"

[tool.ociforge]
base = "oci:../base"
"""
AMD = Platform.parse("linux/amd64")


@pytest.fixture
def root(tmp_path: Path, base: str) -> Path:
    """A workspace without locks, beside its channel and its base image."""
    packages = [CondaPackage(name="tool", version=version, depends=("lib",)) for version in ("1.0", "2.0")]
    write_channel(tmp_path / "channel", [*packages, CondaPackage(name="lib")])
    shutil.copytree(base.removeprefix("oci:"), tmp_path / "base")
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "pixi.toml").write_text(MANIFEST)
    return tmp_path / "workspace"


def edit(root: Path, old: str, new: str) -> None:
    path = root / "pixi.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def locked(root: Path) -> set[str]:
    lock = read(root / "pixi.lock")
    (row,) = lock.environment("default").platforms
    return {f"{package.name} {package.version}" for package in lock.rows("default", row).conda}


def test_nothing_to_pin_is_nothing_to_write(forge: Forge, root: Path) -> None:
    edit(root, "oci:../base", "scratch")
    for _ in range(2):
        done = forge("lock", root, "--only", "bases", "--json")
        assert json.loads(done.out)["bases"] == {"path": "ociforge.lock", "changed": False, "pins": []}
        assert forge("lock", root, "--only", "bases").out == "ociforge.lock: not needed\n"
    assert not (root / "ociforge.lock").exists()
    Pins(digests={Use.of("docker://gone:1", AMD): Digest.of(b"")}).write(root / "ociforge.lock")
    assert [forge("lock", root, "--only", "bases").out for _ in range(2)] == [
        "ociforge.lock: written\n",
        "ociforge.lock: unchanged\n",
    ]


def test_both_files_are_written(forge: Forge, root: Path) -> None:
    done = forge("lock", root)
    assert (done.code, done.out) == (0, "pixi.lock: written\nociforge.lock: written\n")
    assert done.err.splitlines() == [
        "solving 1 environment",
        "default on linux-64: 2 conda packages",
        "pinning the base image oci:../base for linux/amd64",
    ]
    assert locked(root) == {"lib 1.0", "tool 2.0"}
    (digest,) = Pins.read(root / "ociforge.lock").digests.values()
    index = json.loads((root.parent / "base" / "index.json").read_text())
    assert str(digest) == index["manifests"][0]["digest"]
    assert sorted(path.name for path in root.iterdir()) == ["ociforge.lock", "pixi.lock", "pixi.toml"]


def test_what_is_written_is_checked_and_built(forge: Forge, root: Path) -> None:
    assert forge("lock", root, "--quiet").code == 0
    done = forge("check", root)
    assert (done.code, done.out) == (0, "pixi.lock fits pixi.toml\n")
    done = forge("build", root, "--quiet")
    assert done.code == 0 and str(Digest.parse(done.out.strip())) + "\n" == done.out


def test_in_a_process_of_its_own(tmp_path: Path, root: Path) -> None:
    done = ociforge("lock", root, "--quiet", home=tmp_path)
    assert (done.code, done.out, done.err) == (0, "pixi.lock: written\nociforge.lock: written\n", "")


def test_a_lock_that_fits_is_left_alone(forge: Forge, root: Path) -> None:
    forge("lock", root)
    before = [(root / name).stat().st_mtime_ns for name in ("pixi.lock", "ociforge.lock")]
    done = forge("lock", root)
    assert (done.code, done.out) == (0, "pixi.lock: unchanged\nociforge.lock: unchanged\n")
    assert [(root / name).stat().st_mtime_ns for name in ("pixi.lock", "ociforge.lock")] == before


def test_versions_are_kept_unless_upgraded(forge: Forge, root: Path) -> None:
    edit(root, 'tool = "*"', 'tool = "<2"')
    forge("lock", root)
    edit(root, 'tool = "<2"', 'tool = "*"')
    assert forge("lock", root).out == "pixi.lock: unchanged\nociforge.lock: unchanged\n"
    edit(root, 'tool = "*"', 'tool = "*"\nlib = "*"')
    forge("lock", root)
    assert locked(root) == {"lib 1.0", "tool 1.0"}
    done = forge("lock", root, "--upgrade", "--json")
    assert locked(root) == {"lib 1.0", "tool 2.0"}
    document = json.loads(done.out)
    assert document["lock"] == {
        "path": "pixi.lock",
        "changed": True,
        "environments": [{"environment": "default", "platform": "linux-64", "conda": 2, "pypi": 0}],
        "changes": [
            {
                "environment": "default",
                "platform": "linux-64",
                "kind": "conda",
                "name": "tool",
                "before": "1.0 0",
                "after": "2.0 0",
            }
        ],
    }
    assert "  ~ tool 1.0 0 -> 2.0 0\n" in done.err


def test_changes_are_told(forge: Forge, root: Path) -> None:
    forge("lock", root)
    edit(root, 'tool = "*"', 'lib = "*"')
    done = forge("lock", root)
    assert done.err.splitlines()[1:3] == ["default on linux-64: 1 conda package", "  - tool 2.0 0"]
    edit(root, 'lib = "*"', 'tool = "*"')
    assert forge("lock", root).err.splitlines()[1:3] == ["default on linux-64: 2 conda packages", "  + tool 2.0 0"]


def test_a_mirror_that_gets_into_the_lock_is_warned_of(forge: Forge, root: Path, tmp_path: Path) -> None:
    """It does where the mirror's index links to a place that no mirror of the settings is."""
    write_channel(tmp_path / "channel", [CondaPackage(name="python", version="3.12.4", build="h1_0_cpython")])
    write_index(tmp_path / "index", [Dist(name="web")])
    edit(root, 'tool = "*"\n', 'python = "*"\n\n[pypi-dependencies]\nweb = "*"\n')
    with serve(tmp_path / "index") as mirror:
        index = f"https://pypi.org/simple={mirror.url}simple"
        variables = {"OCIFORGE_PYPI_MIRRORS": f"{index},https://files.pythonhosted.org/=file:///srv/pypi/"}
        done = forge("lock", root, "--only", "packages", variables=variables)
        assert done.code == 0, done.err
        assert (
            f"warning: `pixi.lock` names the host of the mirror `{mirror.url}simple`: 1 of its files are there, such as"
            f" `{mirror.url}files/web-1.0-py3-none-any.whl`"
        ) in done.err
        variables = {"OCIFORGE_PYPI_MIRRORS": f"{index},https://files.pythonhosted.org/={mirror.url}files/"}
        done = forge("lock", root, "--only", "packages", "--upgrade", variables=variables)
        assert done.code == 0, done.err
    assert "warning" not in done.err
    assert "https://files.pythonhosted.org/web-1.0-py3-none-any.whl" in (root / "pixi.lock").read_text()
    assert mirror.url not in (root / "pixi.lock").read_text()


def test_parts(forge: Forge, root: Path) -> None:
    assert forge("lock", root, "--only", "bases").out == "ociforge.lock: written\n"
    assert not (root / "pixi.lock").exists()
    (root / "ociforge.lock").unlink()
    assert forge("lock", root, "--only", "packages").out == "pixi.lock: written\n"
    assert not (root / "ociforge.lock").exists()


def test_a_conflict_leaves_everything_as_it_was(forge: Forge, root: Path) -> None:
    forge("lock", root)
    before = (root / "pixi.lock").read_bytes(), (root / "ociforge.lock").read_bytes()
    edit(root, 'tool = "*"', 'tool = ">=3"')
    edit(root, "oci:../base", "oci:../missing")
    done = forge("lock", root)
    assert done.message == (
        "environment `default` on `linux-64` cannot be solved: No candidates were found for tool >=3"
    )
    assert done.hint is not None and done.hint.startswith("check the name and the version; the channels are `file://")
    assert ((root / "pixi.lock").read_bytes(), (root / "ociforge.lock").read_bytes()) == before


def test_a_base_that_cannot_be_reached_does_not_lose_what_was_solved(forge: Forge, root: Path) -> None:
    edit(root, "oci:../base", "oci:../missing")
    assert forge("lock", root).code == 1
    assert locked(root) == {"lib 1.0", "tool 2.0"}
    assert not (root / "ociforge.lock").exists()


def test_damaged_pins_are_made_anew_when_asked(forge: Forge, root: Path) -> None:
    forge("lock", root)
    good = (root / "ociforge.lock").read_bytes()
    (root / "ociforge.lock").write_text("<<<<<<< ours")
    refused = forge("lock", root)
    assert refused.code == 1 and "`ociforge lock --upgrade --only bases`" in (refused.hint or "")
    assert forge("lock", root, "--only", "packages").code == 0
    assert forge("lock", root, "--upgrade", "--only", "bases").code == 0
    assert (root / "ociforge.lock").read_bytes() == good


def test_a_damaged_lock_is_not_overwritten_unless_upgraded(forge: Forge, root: Path) -> None:
    (root / "pixi.lock").write_text("version: 99\n")
    done = forge("lock", root)
    assert done.hint == "make a new one with `ociforge lock --upgrade`, or upgrade ociforge"
    assert forge("lock", root, "--upgrade").code == 0
    assert locked(root) == {"lib 1.0", "tool 2.0"}


# --- base images


def test_a_local_base_is_looked_at_each_time(forge: Forge, root: Path) -> None:
    forge("lock", root)
    before = Pins.read(root / "ociforge.lock")
    shutil.rmtree(root.parent / "base")
    write_layout(tiny_image(), root.parent / "base", compression="gzip")
    assert forge("lock", root).out == "pixi.lock: unchanged\nociforge.lock: written\n"
    after = Pins.read(root / "ociforge.lock")
    assert after.digests.keys() == before.digests.keys() and after != before


def test_every_image_and_platform_is_pinned(forge: Forge, root: Path) -> None:
    (root.parent / "root.tar").write_bytes(b"not looked into")
    edit(root, '"linux-64"]', '"linux-64", "osx-arm64"]')
    edit(root, "[dependencies]", "[target.linux-64.dependencies]")
    with (root / "pixi.toml").open("a") as stream:
        stream.write(
            '[tool.ociforge.images.web]\n[tool.ociforge.images.bare]\nbase = "scratch"\n'
            '[tool.ociforge.images.old]\nbase = "rootfs:../root.tar"\n'
        )
    done = forge("lock", root, "--json", "--quiet")
    pins = json.loads(done.out)["bases"]["pins"]
    assert [(pin["base"], pin["platform"]) for pin in pins] == [
        ("oci:../base", "linux/amd64"),
        ("rootfs:../root.tar", "linux/amd64"),
    ]
    assert pins[1]["digest"] == str(Digest.of(b"not looked into"))


def test_pins_that_nothing_uses_go(forge: Forge, root: Path) -> None:
    Pins(digests={Use.of("docker://gone:1", AMD): Digest.of(b"")}).write(root / "ociforge.lock")
    forge("lock", root, "--only", "bases")
    assert [use.base for use in Pins.read(root / "ociforge.lock").digests] == ["oci:../base"]


def test_a_base_that_lacks_a_platform(forge: Forge, root: Path) -> None:
    edit(root, '"linux-64"]', '"linux-64", "linux-aarch64"]')
    done = forge("lock", root, "--only", "bases")
    assert done.code == 0
    assert "warning: not pinned for `linux/arm64`: base image `oci:../base`: it is for `linux/amd64`" in done.err
    edit(root, '"linux-64", ', "")
    done = forge("lock", root, "--only", "bases")
    assert done.message.startswith("base image `oci:../base`: it is for `linux/amd64`, not for `linux/arm64`")


def test_a_pin_of_a_registry_is_kept_unless_upgraded(forge: Forge, root: Path, tmp_path: Path) -> None:
    with serve(tmp_path / "base") as nowhere:  # a server, but no registry
        name = f"docker://{nowhere.url.removeprefix('http://')}base:1"
        edit(root, "oci:../base", name)
        kept = Pins(digests={Use.of(name, AMD): Digest.of(b"kept")})
        kept.write(root / "ociforge.lock")
        assert forge("lock", root, "--only", "bases").out == "ociforge.lock: unchanged\n"
        assert nowhere.requests == []
        assert forge("lock", root, "--only", "bases", "--upgrade", "--insecure").code == 1
        assert nowhere.requests != []
    assert Pins.read(root / "ociforge.lock") == kept


def test_builds_stand_on_the_pin_though_the_tag_moves(forge: Forge, root: Path, tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        edit(root, "oci:../base", f"docker://{registry.host}/team/base:1")
        pinned = push_layout(tmp_path / "base", registry, "team/base", "1")
        warned = forge("build", root)
        assert warned.code == 0 and "is not pinned in `ociforge.lock`" in warned.err
        assert "run `ociforge lock`" in warned.err
        assert "not pinned" not in forge("build", root, "--frozen").err
        assert forge("build", root, "--locked").code == 1

        assert forge("lock", root).code == 0
        before = forge("build", root, "--locked")
        assert before.code == 0 and before.err.count("warning") == 0, before
        write_layout(tiny_image(extra={"etc/moved": b"moved"}), tmp_path / "moved")
        assert push_layout(tmp_path / "moved", registry, "team/base", "1") != pinned
        for option in ((), ("--locked",), ("--frozen",)):
            assert forge("build", root, *option).out == before.out

        assert forge("lock", root, "--upgrade", "--only", "bases").code == 0
        assert forge("build", root, "--locked").out != before.out


def test_a_digest_in_the_settings_is_a_pin_of_its_own(forge: Forge, root: Path, tmp_path: Path) -> None:
    assert forge("lock", root, "--only", "packages").code == 0
    with running_registry(tmp_path / "registry") as registry:
        digest = push_layout(tmp_path / "base", registry, "team/base", "1")
        edit(root, "oci:../base", f"docker://{registry.host}/team/base@{digest}")
        done = forge("build", root, "--locked")
    assert done.code == 0 and "not pinned" not in done.err, done


def test_pins_are_no_part_of_the_application(forge: Forge, root: Path) -> None:
    assert forge("lock", root).code == 0
    before = forge("build", root).out
    Pins().write(root / "ociforge.lock")
    assert forge("build", root).out == before
