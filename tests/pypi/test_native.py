"""Projects that are sure to be compiled, and such as may not be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from ociforge.pypi.location import Local, Remote, Repository, Source, Tree
from ociforge.pypi.native import compiled
from tests.pypi.projects import project, sdist

if TYPE_CHECKING:
    from pathlib import Path

SETUPTOOLS = "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n"
MAIN = "from setuptools import Extension, setup\n"


def backend(name: str) -> str:
    return f"[build-system]\nrequires = []\nbuild-backend = '{name}'\n"


def tree(root: Path, pyproject: str | None, script: str | None = None) -> Tree:
    root.mkdir(exist_ok=True)
    for name, text in (("pyproject.toml", pyproject), ("setup.py", script)):
        if text is not None:
            (root / name).write_text(text)
    return Tree(path=root)


@pytest.mark.parametrize(
    ("pyproject", "script", "why"),
    [
        (backend("maturin"), None, "`maturin` builds it"),
        (backend("scikit_build_core.build"), None, "`scikit-build-core` builds it"),
        (
            f"{SETUPTOOLS}[[tool.setuptools.ext-modules]]\nname = 'x'\nsources = ['x.c']\n",
            None,
            "`pyproject.toml` has `tool.setuptools.ext-modules`",
        ),
        (
            f"{SETUPTOOLS}[[tool.setuptools-rust.ext-modules]]\ntarget = 'x'\n",
            None,
            "`pyproject.toml` has `tool.setuptools-rust.ext-modules`",
        ),
        (SETUPTOOLS, f"{MAIN}setup(ext_modules=[Extension('x', ['x.c'])])\n", "`setup.py` has `ext_modules`"),
        (None, "import setuptools\nsetuptools.setup(cffi_modules=['x.py:ffi'])\n", "`setup.py` has `cffi_modules`"),
        (None, f"{MAIN}setup(ext_modules=cythonize('x.pyx'))\n", "`setup.py` has `ext_modules`"),
        (None, f"{MAIN}setup(ext_modules=cythonize([Extension('x', ['x.pyx'])]))\n", "`setup.py` has `ext_modules`"),
    ],
)
def test_sure(tmp_path: Path, pyproject: str | None, script: str | None, why: str) -> None:
    assert compiled(tree(tmp_path / "demo", pyproject, script)) == why


@pytest.mark.parametrize(
    ("pyproject", "script"),
    [
        pytest.param(None, None, id="nothing"),
        pytest.param(backend("hatchling.build"), None, id="pure"),
        pytest.param(backend("mesonpy"), None, id="only a build tells"),
        pytest.param(backend("maturin") + "backend-path = ['.']\n", None, id="a backend of its own"),
        pytest.param(
            backend("scikit_build_core.build") + "[tool.scikit-build]\nwheel.platlib = false\n", None, id="pure CMake"
        ),
        pytest.param(SETUPTOOLS, "from setuptools import setup\nsetup()\n", id="plain"),
        pytest.param(None, f"{MAIN}setup(ext_modules=[])\n", id="none"),
        pytest.param(None, f"{MAIN}setup(ext_modules=[*found])\n", id="perhaps none"),
        pytest.param(None, f"{MAIN}setup(ext_modules=found)\n", id="who knows"),
        pytest.param(None, f"{MAIN}setup(**{{'ext_modules': [1]}})\n", id="in disguise"),
        pytest.param(None, f"{MAIN}if x:\n    setup(ext_modules=[1])\n", id="on a condition"),
        pytest.param(None, f"{MAIN}setup(ext_modules=[1])\nsetup()\n", id="twice"),
        pytest.param(backend("hatchling.build"), f"{MAIN}setup(ext_modules=[1])\n", id="not by setuptools"),
        pytest.param("[build-system\n", "print 'x'", id="broken"),
        pytest.param("build-system = 7\n", "\0", id="odd"),
    ],
)
def test_not_sure(tmp_path: Path, pyproject: str | None, script: str | None) -> None:
    assert compiled(tree(tmp_path / "demo", pyproject, script)) is None


def test_source_distributions(tmp_path: Path) -> None:
    inner = tree(tmp_path / "tree", None).path
    tree(inner / "sub", backend("maturin"))
    archive = sdist(tmp_path, inner)

    def local(subdirectory: str, path: Path = archive) -> Local:
        return Local(path=path, filename=archive.name, sha256=None, subdirectory=subdirectory)

    assert compiled(local("sub")) == "`maturin` builds it"
    assert compiled(local("")) is None
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(archive.read_bytes()[:40])
    assert compiled(local("sub", broken)) is None


@pytest.mark.parametrize(
    "source",
    [
        Remote(url="https://x.org/a-1.tar.gz", filename="a-1.tar.gz", sha256=Digest.of(b""), direct=False),
        Repository(url="https://x.org/a", commit="0" * 40),
    ],
)
def test_what_is_not_here(source: Source) -> None:
    assert compiled(source) is None


def test_the_laboratorys_backend_is_not_sure(tmp_path: Path) -> None:
    assert compiled(Tree(path=project(tmp_path / "demo", tag="cp311-cp311-linux_x86_64"))) is None
