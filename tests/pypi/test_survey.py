from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from layers.digest import Digest
from ociforge.errors import PackageError
from ociforge.events import Event, StageStarted, Warned
from ociforge.platform import Platform
from ociforge.pypi.facts import Identity, Summary, WheelFiles, summary_key
from ociforge.pypi.fetch import Access, Cache, Fetcher
from ociforge.pypi.location import Local
from ociforge.pypi.package import Conflict, Locked
from ociforge.pypi.survey import Survey, survey
from ociforge.store import Documents
from tests.pypi.making import PYTHON, Bench, digest, locked
from tests.support.wheelbuilder import Wheel

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = Digest.of(b"1"), Digest.of(b"2")
SITE = "lib/python3.12/site-packages"
BACKEND = """\
import pathlib, zipfile

def build_wheel(directory, settings=None, metadata=None):
    with zipfile.ZipFile(pathlib.Path(directory, "tree-1.0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("both.py", "tree")
        wheel.writestr("tree-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tree\\nVersion: 1.0\\n")
        wheel.writestr("tree-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tree-1.0.dist-info/RECORD", "")
    return "tree-1.0-py3-none-any.whl"
"""


@dataclass
class Planner:
    """`survey` with the usual arguments: caches and documents are kept, staging is new each time."""

    directory: Path
    events: list[Event] = field(default_factory=list)
    asked_for_conda: int = 0
    numbers: Any = field(default_factory=itertools.count)

    @property
    def documents(self) -> Documents:
        return Documents(self.directory / "store", "facts")

    @property
    def stages(self) -> list[str]:
        return [event.what for event in self.events if isinstance(event, StageStarted)]

    def taken(self) -> dict[str, str]:
        self.asked_for_conda += 1
        return {f"{SITE}/both.py": "conda-one"}

    def survey(self, *rows: Locked, **changes: Any) -> Survey:
        self.events.clear()
        staging = self.directory / f"planned-{next(self.numbers)}"
        staging.mkdir()
        arguments: dict[str, Any] = {
            "prefix": "/app/.pixi/envs/prod",
            "python": PYTHON,
            "platform": Platform.parse("linux/amd64"),
            "root": self.directory,
            "workdir": "/app",
            "cache": self.directory / "cache",
            "staging": staging,
            "taken": self.taken,
            "documents": self.documents,
            "notify": self.events.append,
        }
        return survey(rows, **(arguments | changes))


@pytest.fixture
def planner(tmp_path: Path) -> Planner:
    return Planner(tmp_path)


@pytest.fixture
def rows(tmp_path: Path) -> list[Locked]:
    """Two locked wheels that share a path, and a source tree that has it too."""
    made = []
    for name in ("one", "two"):
        wheel = Wheel(
            name=name,
            files={"both.py": name.encode(), f"{name}.py": b""},
            entry_points=f"[console_scripts]\n{name} = {name}:main\n",
        )
        path = wheel.write(tmp_path / "wheels")
        made.append(locked(path, name, sha256=digest(path)))
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "backend.py").write_text(BACKEND)
    (tree / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]'
    )
    return [*made, Locked(name="tree", location="./tree")]


def emptied(directory: Path) -> None:
    """Forget all wheels: what is planned afterwards is planned without them."""
    shutil.rmtree(directory / "wheels")
    for path in (directory / "cache" / "files").iterdir():
        path.unlink()


def test_it_tells_what_an_installation_would(planner: Planner, rows: list[Locked], tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    installation = bench.install(*rows, taken=planner.taken())
    found = planner.survey(*rows)
    assert found.packages() == tuple(
        replace(package, entries=own.entries)  # read from another staging directory
        for package, own in zip(installation.packages, found.packages(), strict=True)
    )
    for package, own in zip(installation.packages, found.packages(), strict=True):
        assert [entry.path for entry in package.entries] == [entry.path for entry in own.entries]
    assert (found.summary.conflicts, found.summary.overrides) == (installation.conflicts, installation.overrides)
    assert found.summary.conflicts == (Conflict(path=f"{SITE}/both.py", winner="two", losers=("one",), differs=True),)
    assert found.summary.overrides == (
        Conflict(path=f"{SITE}/both.py", winner="tree", losers=("conda-one", "two"), differs=True),
    )
    for wheel, package in zip(found.summary.wheels, installation.packages, strict=True):
        told = (wheel.name, wheel.version, wheel.filename, wheel.sha256, wheel.size, wheel.record, wheel.local)
        assert told == (
            *(package.name, package.version, package.filename, package.sha256),
            *(package.size, package.record, package.local),
        )
        assert wheel.pure == package.pure
    assert [event.message for event in planner.events if isinstance(event, Warned)] == bench.warnings


def test_what_is_known_needs_no_wheel(planner: Planner, rows: list[Locked], tmp_path: Path) -> None:
    url = Locked(
        name="one", version="1.0", location="https://127.0.0.1:1/one-1.0-py3-none-any.whl", sha256=rows[0].sha256
    )
    fetched = Fetcher(Cache(tmp_path / "cache" / "files"), Access())
    assert rows[0].sha256 is not None
    fetched.fetch(Local(path=tmp_path / "wheels" / "one-1.0-py3-none-any.whl", filename="x.whl", sha256=rows[0].sha256))
    first = planner.survey(url).summary
    assert planner.stages == ["reading what is in 1 wheel"]
    emptied(tmp_path)
    again = planner.survey(url)
    assert (again.summary, planner.stages, planner.asked_for_conda) == (first, [], 1)
    with pytest.raises(PackageError, match="fetching `one-1"):
        again.packages()


def test_what_is_built_is_built_once(planner: Planner, rows: list[Locked]) -> None:
    first = planner.survey(*rows)
    assert planner.stages == [f"building `tree` in `{planner.directory / 'tree'}`", "reading what is in 3 wheels"]
    again = planner.survey(*rows)
    assert (again.summary, planner.stages, planner.asked_for_conda) == (first.summary, [], 1)


def test_of_changed_rows_only_these_are_read(planner: Planner, rows: list[Locked]) -> None:
    planner.survey(*rows)
    (planner.directory / "tree" / "more.txt").write_text("a change")
    planner.survey(*rows)
    assert planner.stages == [f"building `tree` in `{planner.directory / 'tree'}`"]  # to the same wheel
    planner.survey(*rows[:2], prefix="/elsewhere")
    assert planner.stages == ["reading what is in 2 wheels"]
    planner.survey(rows[0])
    assert planner.stages == []


def test_packages_are_laid_out_on_demand(planner: Planner, rows: list[Locked]) -> None:
    planner.survey(*rows)
    found = planner.survey(*rows)
    (two,) = found.packages(["two"])
    assert planner.stages == ["linking 1 wheel"]
    assert found.packages([]) == ()
    assert planner.stages == ["linking 1 wheel"]
    (one,) = found.packages(["one"])
    assert [package.name for package in found.packages()] == ["one", "tree", "two"]
    assert f"app/.pixi/envs/prod/{SITE}/both.py" in [entry.path for entry in two.entries]
    assert f"app/.pixi/envs/prod/{SITE}/both.py" not in [entry.path for entry in one.entries]


def test_paths_that_were_asked_for_are_in_the_summary(planner: Planner, rows: list[Locked]) -> None:
    found = planner.survey(*rows, asked=["bin/two", "bin/none", f"{SITE}/one.py"])
    assert found.summary.present == ("bin/two", f"{SITE}/one.py")


def test_without_documents_nothing_is_kept(planner: Planner, rows: list[Locked]) -> None:
    planner.survey(*rows, documents=None)
    assert not (planner.directory / "store").exists()


def test_damaged_documents_count_as_absent(planner: Planner, rows: list[Locked]) -> None:
    first = planner.survey(*rows).summary
    for path in (planner.directory / "store" / "facts").iterdir():
        path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":0'))
    assert planner.survey(*rows).summary == first
    assert planner.stages == ["reading what is in 3 wheels"]


def test_summaries_survive_a_round_trip(planner: Planner, rows: list[Locked]) -> None:
    summary = planner.survey(*rows, asked=["bin/one"]).summary
    assert Summary.from_json(summary.to_json()) == summary


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"format":0,"name":"x","version":"1","size":1,"files":{}}'])
def test_what_is_no_document_is_none(data: bytes) -> None:
    assert Summary.from_json(data) is None
    assert WheelFiles.from_json(data) is None


def test_the_key_is_that_of_all_inputs() -> None:
    identity = Identity(name="a", filename="a-1-py3-none-any.whl", sha256=ONE, record=ONE, local=False)
    newer = replace(PYTHON, version="3.13")
    key = summary_key([identity], "p", PYTHON, below=ONE, asked=["x", "y"])
    assert summary_key([identity], "p", PYTHON, below=ONE, asked=["y", "x"]) == key
    others = {
        summary_key([identity], "p", PYTHON, below=ONE, asked=["x"]),
        summary_key([identity], "p", PYTHON, below=TWO, asked=["x", "y"]),
        summary_key([identity], "q", PYTHON, below=ONE, asked=["x", "y"]),
        summary_key([identity], "p", newer, below=ONE, asked=["x", "y"]),
        summary_key([], "p", PYTHON, below=ONE, asked=["x", "y"]),
        *(
            summary_key([changed], "p", PYTHON, below=ONE, asked=["x", "y"])
            for changed in (
                replace(identity, name="b"),
                replace(identity, filename="b"),
                replace(identity, sha256=TWO),
                replace(identity, record=TWO),
                replace(identity, local=True),
            )
        ),
    }
    assert len(others - {key}) == 10
    keys = {identity.key("p", PYTHON), identity.key("q", PYTHON), identity.key("p", newer)}
    assert len({*keys, replace(identity, record=TWO).key("p", PYTHON)}) == 4


def test_nothing_that_opens_wheels_is_imported_to_plan() -> None:
    """Their libraries take longer to import than a plan to make."""
    program = "import sys, ociforge.pypi.survey; print({'requests', 'installer', 'build'} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"
