from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from layers.entry import File
from ociforge.errors import PackageError
from ociforge.pypi.package import Conflict, Locked
from tests.pypi.making import Bench, locked, tar
from tests.support.wheelbuilder import Executable, Wheel

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.pypi.package import Installation

SITE = "lib/python3.12/site-packages"
BACKEND = """\
import pathlib, zipfile

def build_wheel(directory, settings=None, metadata=None):
    with zipfile.ZipFile(pathlib.Path(directory, "NAME-1.0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("shared.py", "NAME")
        wheel.writestr("NAME-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: NAME\\nVersion: 1.0\\n")
        wheel.writestr("NAME-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("NAME-1.0.dist-info/RECORD", "")
    return "NAME-1.0-py3-none-any.whl"
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def row(bench: Bench, name: str, **files: bytes | Executable) -> Locked:
    """A wheel of top-level modules."""
    wheel = Wheel(name=name, files={f"{path}.py": content for path, content in files.items()})
    return locked(wheel.write(bench.directory / "wheels"), name)


def tree(bench: Bench, name: str) -> Locked:
    """A source tree that provides `shared.py`."""
    root = bench.directory / name
    root.mkdir()
    (root / "backend.py").write_text(BACKEND.replace("NAME", name))
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]'
    )
    return Locked(name=name, location=f"./{name}")


def content(installation: Installation, path: str) -> dict[str, str]:
    """What each package has at a path below the prefix."""
    found = {}
    for package in installation.packages:
        for entry in package.entries:
            if isinstance(entry, File) and entry.path.endswith(f"prod/{path}"):
                with entry.content.open() as stream:
                    found[package.name] = stream.read().decode()
    return found


def test_the_last_wheel_by_name_wins(bench: Bench) -> None:
    rows = [row(bench, name, shared=name.encode(), own=name.encode()) for name in ("b", "c", "a")]
    installation = bench.install(*rows)
    assert installation.conflicts == (
        Conflict(path=f"{SITE}/own.py", winner="c", losers=("a", "b"), differs=True),
        Conflict(path=f"{SITE}/shared.py", winner="c", losers=("a", "b"), differs=True),
    )
    assert content(installation, f"{SITE}/shared.py") == {"c": "c"}
    assert bench.warnings == [f"`c` and `a`, `b` provide `{SITE}/own.py` and 1 more: `c` wins"]
    assert bench.install(*reversed(rows)).conflicts == installation.conflicts
    tar(installation.packages)  # one layer can hold them all


def test_the_same_content_is_no_cause_for_alarm(bench: Bench) -> None:
    installation = bench.install(row(bench, "a", shared=b"x"), row(bench, "b", shared=b"x"))
    assert installation.conflicts == (Conflict(path=f"{SITE}/shared.py", winner="b", losers=("a",), differs=False),)
    assert content(installation, f"{SITE}/shared.py") == {"b": "x"}
    assert bench.warnings == []


def test_another_mode_is_another_content(bench: Bench) -> None:
    installation = bench.install(row(bench, "a", shared=b"x"), row(bench, "b", shared=Executable(b"x")))
    assert [conflict.differs for conflict in installation.conflicts] == [True]


def test_a_wheel_hides_a_conda_package(bench: Bench) -> None:
    taken = {f"{SITE}/shared.py": "conda-a", "bin/python3.12": "python"}
    installation = bench.install(row(bench, "a", shared=b"a"), row(bench, "b", shared=b"b"), taken=taken)
    assert installation.conflicts == (Conflict(path=f"{SITE}/shared.py", winner="b", losers=("a",), differs=True),)
    assert installation.overrides == (
        Conflict(path=f"{SITE}/shared.py", winner="b", losers=("conda-a",), differs=True),
    )
    assert bench.warnings == [
        f"`b` and `a` provide `{SITE}/shared.py`: `b` wins",
        f"`b` and `conda-a` provide `{SITE}/shared.py`: `b` wins",
    ]


def test_a_package_of_the_workspace_hides_locked_ones_and_leaves_them_as_they_are(bench: Bench) -> None:
    installation = bench.install(tree(bench, "a"), row(bench, "b", shared=b"b"), row(bench, "c", shared=b"c"))
    assert installation.conflicts == (Conflict(path=f"{SITE}/shared.py", winner="c", losers=("b",), differs=True),)
    assert installation.overrides == (Conflict(path=f"{SITE}/shared.py", winner="a", losers=("c",), differs=True),)
    assert content(installation, f"{SITE}/shared.py") == {"a": "a", "c": "c"}
    assert [package.local for package in installation.packages] == [True, False, False]


def test_packages_of_the_workspace_settle_it_among_themselves(bench: Bench) -> None:
    installation = bench.install(tree(bench, "a"), tree(bench, "b"))
    assert installation.conflicts == (Conflict(path=f"{SITE}/shared.py", winner="b", losers=("a",), differs=True),)
    assert content(installation, f"{SITE}/shared.py") == {"b": "b"}


def test_a_file_cannot_be_a_directory(bench: Bench) -> None:
    wheel = Wheel(name="b", files={"a/x.py": b""}).write(bench.directory)
    other = Wheel(name="a", files={"a": b"", "b/x.py": b""}).write(bench.directory)
    with pytest.raises(PackageError) as caught:
        bench.install(locked(wheel, "b"), locked(other, "a"), taken={f"{SITE}/b": "conda-b", "lib64": "python"})
    assert caught.value.message == (
        f"`{SITE}/a` is a file of `a` but a directory of `b`\n`{SITE}/b` is a file of `conda-b` but a directory of `a`"
    )


def test_nothing_is_written_through_a_link_of_a_conda_package(bench: Bench) -> None:
    wheel = Wheel(files={"{data}/data/lib64/x": b""}).write(bench.directory)
    with pytest.raises(PackageError, match="`lib64` is a file of `python` but a directory of `demo`"):
        bench.install(locked(wheel), taken={"lib64": "python"})


def test_a_file_where_conda_has_a_directory_is_refused(bench: Bench) -> None:
    wheel = Wheel(files={"{data}/data/share/doc": b""}).write(bench.directory)
    with pytest.raises(PackageError, match="`share/doc` is a file of `demo` but a directory of `conda-a`"):
        bench.install(locked(wheel), taken={"share/doc/README": "conda-a"})


def test_a_distribution_that_conda_has_too_is_told(bench: Bench) -> None:
    taken = {f"{SITE}/Other_Name-2.0.dist-info/METADATA": "conda-other", f"{SITE}/x-1.dist-info/METADATA": "x"}
    bench.install(row(bench, "other-name", other=b""), taken=taken)
    assert bench.warnings == ["`other-name` is installed from PyPI and by the conda package `conda-other`"]
