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
    for path in sorted(path for path in forge.cache.iterdir() if path.is_dir()):
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


# The bytes of format 2. Whoever changes them raises `ociforge.plan.FORMAT` (see CHANGELOG.md) and writes the new ones.
DIFF_IDS = {
    "environment": "sha256:e3b7936b4a0624db9d4065444b662e2fca741859fef76db1be46dec50127450f",
    "hook 1.0": "sha256:f91e5d5331198d02aa2ba2455d333ed674ebccef530bb9b260d14d1c64002bca",
    "liba 1.0": "sha256:414ac994e09f5af3795674b1670d9457103ea1409057df426864ddca3c6aee4b",
    "pure 1.0": "sha256:634b60147e65fefb128c4b0884345963b7952b2a49071bc582a9d0626794433b",
    "python 3.11.9": "sha256:0b5f10d3960e2edeb1938707559ddeea661ac161cd4a46e6326519296c861519",
    "tool 2.1": "sha256:cadd98502ae8c539010907d16e18b54a6aba4ae04851374e418699ad813e9a8a",
    "words 1.0": "sha256:c0730859924958f43c9322954800be8fa67126da98ebfa654f6174ca97702f68",
    "application": "sha256:993ab1bf4dee7c62f3447fdec9be7e4cbdccbc650b8cb6db6d2a7f023eb7761d",
}
KEYS = {
    "hook 1.0": "sha256:909be780cc161c6346abaf4a8841da6ca57fd26e309ff37784bf5e779301950d",
}
DIGEST = "sha256:7db55eb502e53783504792d067fdb115e18f55107c6cf0816a1dff1ea827aa4c"


def test_golden(forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    done = forge("build", made.root, "--base", base, "--compression", "none", "-o", f"oci-archive:{archive}")
    assert done.code == 0, done.err
    [(image,)] = archive_images(archive).values()
    names = [layer.get("annotations", {}).get("dev.ociforge.layer.title") for layer in image.manifest["layers"]]
    assert image.manifest["annotations"]["dev.ociforge.format"] == "2"
    assert dict(zip(names[2:], image.diff_ids[2:], strict=True)) == DIFF_IDS
    assert image.manifest["layers"][3]["annotations"]["dev.ociforge.layer.key"] == KEYS[names[3]]
    assert image.digest == DIGEST
