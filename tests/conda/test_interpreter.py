"""The interpreter that compiles bytecode is installed on this machine, from what a channel serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ociforge.conda.interpreter import install_interpreter
from ociforge.errors import PackageError
from tests.conda.environment import records
from tests.conda.odd import OddPackage, file, listing, soft
from tests.support.channel import write_channel
from tests.support.conda import CondaPackage, Link, Regular

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = CondaPackage(
    name="python",
    version="3.12.4",
    depends=("lib", "pip >=1"),
    files={"bin/python3.12": Regular(content=b"\x7fELF", executable=True), "bin/python": Link("python3.12")},
)
LIB = CondaPackage(name="lib", files={"lib/lib.so": "lib"})
PIP = CondaPackage(
    name="pip",
    noarch="python",
    depends=("python",),
    files={"site-packages/pip.py": ""},
    entry_points=("pip = pip:main",),
)
OTHER = CondaPackage(name="other", files={"share/other": ""})


def installed(tmp_path: Path, *packages: CondaPackage, site_packages: str | None = None) -> Path:
    rows = records(write_channel(tmp_path / "channel", packages))
    for row in rows:
        if row.name.normalized == "python":
            row.python_site_packages_path = site_packages
    (tmp_path / "deep/er/staging").mkdir(parents=True)
    return install_interpreter(rows, cache=tmp_path / "cache", staging=tmp_path / "deep/er/staging", retries=0)


def test_python_and_what_it_needs(tmp_path: Path) -> None:
    python = installed(tmp_path, PYTHON, LIB, PIP, OTHER)
    root = tmp_path / "deep/er/staging/root"
    assert python == root / "bin/python"
    assert python.read_bytes() == b"\x7fELF"
    assert (root / "lib/python3.12/site-packages/pip.py").exists()
    assert (root / "lib/lib.so").exists()
    assert not (root / "share").exists()


def test_an_environment_without_python(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="bytecode needs `python` in the environment"):
        installed(tmp_path, LIB)


@pytest.mark.parametrize("directory", ["../../../../escaped", "/escaped", "./lib//x/"])
def test_nothing_is_written_elsewhere(tmp_path: Path, directory: str) -> None:
    if directory.startswith("/"):
        directory = f"{tmp_path}{directory}"
    with pytest.raises(PackageError, match="`python_site_packages_path` is `"):
        installed(tmp_path, PYTHON, LIB, PIP, site_packages=directory)
    assert list((tmp_path / "deep/er/staging").iterdir()) == []
    assert not (tmp_path / "escaped").exists()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """Of one package to a directory of this machine, which another one has files in."""
    (tmp_path / "host").mkdir()
    lib = CondaPackage(name="lib", files={"lib/python3.12/site-packages": Link(f"{tmp_path}/host")})
    with pytest.raises(
        PackageError, match=r"`lib/python3\.12/site-packages` is a file of `lib-1\.0-0\.conda` but a dir"
    ):
        installed(tmp_path, PYTHON, lib, PIP)
    assert list((tmp_path / "host").iterdir()) == []


def test_what_rattler_cannot_be_trusted_with(tmp_path: Path) -> None:
    lib = OddPackage(name="lib", info_extra=listing({"_path": "x"}), members=(file("x"), soft("s", "/"), file("s/y")))
    with pytest.raises(PackageError, match="has members below `s`, which is no directory") as caught:
        installed(tmp_path, PYTHON, lib, PIP)
    assert caught.value.hint == 'set `bytecode = "none"`, or lock another build of the package'
    assert list((tmp_path / "deep/er/staging").iterdir()) == []
