from __future__ import annotations

import subprocess
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rattler import LockFile

from tests.support.conda import PLACEHOLDER
from tests.support.demo import executable, write_demo
from tests.support.python import SUBDIR
from tests.support.rattling import install, solve
from tests.support.tools import missing, need

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "/app/.pixi/envs/default"
SHIPPED = Path(str(resources.files("ociforge.demo")))


def tree(root: Path) -> Mapping[str, bytes]:
    """Every file but Python's own."""
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def patched(subdir: str, directory: Path) -> Path:
    placeholder, prefix = PLACEHOLDER.encode(), PREFIX.encode()
    path = directory / f"hello-{subdir}"
    path.write_bytes(executable(subdir).replace(placeholder, prefix + bytes(len(placeholder) - len(prefix))))
    path.chmod(0o755)
    return path


def test_the_shipped_files_are_what_the_script_makes(tmp_path: Path) -> None:
    write_demo(tmp_path)

    assert tree(SHIPPED) == tree(tmp_path)


def test_the_shipped_files_are_small() -> None:
    assert sum(len(content) for content in tree(SHIPPED).values()) < 10_000


def test_the_executable_of_this_machine_prints_its_prefix(tmp_path: Path) -> None:
    if SUBDIR != "linux-64":
        missing("this machine is not linux-64")

    done = subprocess.run([patched("linux-64", tmp_path)], capture_output=True, check=True)

    assert done.stdout == f"hello from {PREFIX}\n".encode()


def test_the_executable_of_aarch64_prints_its_prefix(tmp_path: Path) -> None:
    emulator = need("qemu-aarch64-static")

    done = subprocess.run([emulator, patched("linux-aarch64", tmp_path)], capture_output=True, check=True)

    assert done.stdout == f"hello from {PREFIX}\n".encode()


@pytest.mark.parametrize("subdir", ["linux-64", "linux-aarch64"])
def test_rattler_installs_the_channel(subdir: str, tmp_path: Path) -> None:
    records = solve((SHIPPED / "channel").as_uri(), "hello", subdir=subdir)

    root = install(records, tmp_path / "env", cache=tmp_path / "cache", prefix=PREFIX, subdir=subdir)

    assert (root / "bin/hello").read_bytes() == patched(subdir, tmp_path).read_bytes()
    assert f"made for {PREFIX}\n" in (root / "share/greeting/README.txt").read_text()


def test_rattler_reads_the_lock() -> None:
    environment = LockFile.from_path(SHIPPED / "pixi.lock").default_environment()

    assert environment is not None
    packages = {platform.name: rows for platform, rows in environment.packages_by_platform().items()}
    assert [row.location for row in packages["linux-aarch64"]] == [
        "./channel/linux-aarch64/hello-1.0.0-h0123456_0.conda",
        "./channel/noarch/greeting-1.0-0.conda",
    ]
