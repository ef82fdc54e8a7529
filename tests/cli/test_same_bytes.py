"""Same inputs, same bytes: what the machine, its user and earlier builds are like must not be seen in an image."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.cli.program import nobody, ociforge
from tests.support.reading import archive_images
from tests.support.tiny import Tiny, tiny_workspace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.cli.program import Forge


@pytest.fixture(scope="module")
def reference(made: Tiny, base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `ociforge build` says on stdout for the tiny workspace."""
    return built(made, base, tmp_path_factory.mktemp("reference"))


def built(
    tiny: Tiny,
    base: str,
    home: Path,
    *arguments: str,
    umask: int = -1,
    variables: Mapping[str, str] | None = None,
) -> str:
    """The same of another build, in a process of its own."""
    done = ociforge("build", tiny.root, "--base", base, *arguments, home=home, umask=umask, variables=variables)
    assert done.code == 0, done.err
    return done.out


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        pytest.param((), {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8"}, id="locale, zone"),
        pytest.param(
            (), {"PYTHONHASHSEED": "2", "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, id="ascii"
        ),
        pytest.param(("--workers", "1"), {"USER": "somebody", "HOSTNAME": "elsewhere", "COLUMNS": "20"}, id="1 worker"),
        pytest.param(("--workers", "4"), {"PIXI_HOME": "/opt/pixi", "CONDA_PREFIX": "/opt/conda"}, id="4 workers"),
    ],
)
def test_environment(
    made: Tiny, base: str, reference: str, tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    assert built(made, base, tmp_path, *arguments, variables=variables) == reference


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_umask(base: str, reference: str, tmp_path: Path, umask: int) -> None:
    """Also of who checked out the workspace and downloaded the packages, in directories of another name."""
    before = os.umask(umask)
    try:
        other = tiny_workspace(tmp_path / "a workspace of another name", channel=tmp_path / "mirror/deep/channel")
    finally:
        os.umask(before)
    assert built(other, base, tmp_path, umask=umask) == reference


def test_times_modes_and_order_of_the_files(tiny: Tiny, base: str, reference: str, tmp_path: Path) -> None:
    """What git gives a checkout depends on the day, the umask and the file system."""
    again = tmp_path / "again"
    for path in sorted(tiny.root.rglob("*"), reverse=True):
        target = again / path.relative_to(tiny.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(path.readlink())
        elif path.is_file():
            target.write_bytes(path.read_bytes())
            target.chmod(0o710 if path.name == "run.sh" else 0o664)
            os.utime(target, (1, 2_000_000_000))
    assert built(Tiny(root=again, channel=tiny.channel), base, tmp_path) == reference


def test_state_of_the_store(forge: Forge, made: Tiny, base: str, reference: str) -> None:
    """Cold, warm, and with any part of it gone."""

    def result() -> str:
        done = forge("build", made.root, "--base", base)
        assert done.code == 0, done.err
        return done.out

    assert [result(), result()] == [reference, reference]
    for path in sorted(path for path in forge.cache.rglob("*") if path.is_file()):
        path.unlink(missing_ok=True)
        assert result() == reference, path
    for path in sorted(forge.cache.iterdir()):
        shutil.rmtree(path)
        assert result() == reference, path


def test_own_files_in_the_workspace(forge: Forge, tiny: Tiny, base: str, reference: str) -> None:
    """Neither the cache nor the output is part of the application, nor what a killed build left of an output."""
    for place in (tiny.root, tiny.root / "pkg"):
        (place / ".ociforge-0123456789abcdef").write_bytes(b"half an archive")
    for output in (f"oci-archive:{tiny.root}/a.tar", f"oci:{tiny.root}/layout"):
        for _ in range(2):
            done = forge(
                "build", tiny.root, "--base", base, "-o", output, variables={"OCIFORGE_CACHE": f"{tiny.root}/cache"}
            )
            assert done.out == f"{output}@{reference}", done.err
        (tiny.root / "a.tar").unlink(missing_ok=True)


def test_another_user(base: str, reference: str, reachable: Path) -> None:
    """Somebody who owns nothing of the workspace and may not write to it."""
    other = tiny_workspace(reachable / "workspace")
    layout = shutil.copytree(base.removeprefix("oci:"), reachable / "base")
    done = ociforge("build", other.root, "--base", f"oci:{layout}", home=reachable, prefix=nobody())
    assert (done.code, done.out) == (0, reference), done.err
    assert {path.stat().st_uid for path in (reachable / "cache").rglob("*")} == {65534}


# The bytes of format 1. Whoever changes them raises `ociforge.plan.FORMAT` (see CHANGELOG.md) and writes the new ones.
DIFF_IDS = {
    "environment": "sha256:e3b7936b4a0624db9d4065444b662e2fca741859fef76db1be46dec50127450f",
    "hook 1.0": "sha256:2c2327ff1357754b12acef13e7a7277853ba85596e8d3267507d26dc0f599a18",
    "liba 1.0": "sha256:e5d083e7bb4db139dbb7171d235d7e63447ba87ce7bed877d0b683f288b8f512",
    "pure 1.0": "sha256:b1479dd886d91b0a815c3e0a956a849502a36c25c306f2c52c30f1a711311722",
    "python 3.11.9": "sha256:0b5f10d3960e2edeb1938707559ddeea661ac161cd4a46e6326519296c861519",
    "tool 2.1": "sha256:783ea63b0bd7eac7e1205739fc368465c5fa773c33eac3b8bc6105a103301b65",
    "words 1.0": "sha256:0bc195a5c334816b46ffbb5638a0b5b81c5624500db2f2ef01b8094d833d03e6",
    "application": "sha256:993ab1bf4dee7c62f3447fdec9be7e4cbdccbc650b8cb6db6d2a7f023eb7761d",
}
KEYS = {
    "hook 1.0": "sha256:5b59e839504442c28d77607af9810ba8d16bb867ba65ea9d7ef3a4a89119971f",
}
DIGEST = "sha256:fa6c79c5d12a6125ebdbccec77d68cbd0b9021b6bc0fd959ed396909e2ca2d81"


def test_golden(forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    done = forge("build", made.root, "--base", base, "--compression", "none", "-o", f"oci-archive:{archive}")
    assert done.code == 0, done.err
    [(image,)] = archive_images(archive).values()
    names = [layer.get("annotations", {}).get("dev.ociforge.layer.title") for layer in image.manifest["layers"]]
    assert image.manifest["annotations"]["dev.ociforge.format"] == "1"
    assert dict(zip(names[2:], image.diff_ids[2:], strict=True)) == DIFF_IDS
    assert image.manifest["layers"][3]["annotations"]["dev.ociforge.layer.key"] == KEYS[names[3]]
    assert image.digest == DIGEST
