from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from layers.entry import File
from ociforge.errors import PackageError
from ociforge.pypi.package import Locked, Package
from tests.pypi.making import HERE, Bench, extract
from tests.pypi.projects import backends, project

SITE = "app/.pixi/envs/prod/lib/python3.12/site-packages"
ROW = Locked(name="demo", location=".", editable=True)
POINTING = "import os\nreturn {'demo.pth': os.getcwd() + '/src\\n'} if kind == 'editable' else {}"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def texts(package: Package) -> dict[str, str]:
    found = {}
    for entry in package.entries:
        if isinstance(entry, File):
            with entry.content.open() as stream:
                found[entry.path.removeprefix(f"{SITE}/")] = stream.read().decode()
    return found


def failure(bench: Bench, row: Locked, **changes: object) -> PackageError:
    with pytest.raises(PackageError) as caught:
        bench.install(row, **changes)
    return caught.value


def test_an_editable_package_becomes_an_ordinary_install(bench: Bench, workspace: Path) -> None:
    project(workspace, extra=POINTING)
    package = bench.one(ROW, root=workspace)
    assert texts(package)["demo.py"] == "x = 1\n"
    assert "demo.pth" not in texts(package)
    assert json.loads(texts(package)["demo-1.0.dist-info/direct_url.json"])["dir_info"] == {}
    assert bench.warnings == [
        "`demo` is editable in the manifest and installed as usual: an image never points outside itself"
    ]


def test_several_are_told_at_once(bench: Bench, workspace: Path) -> None:
    for name in ("a", "b"):
        project(workspace / name, name, files={f"{name}.py": ""})
    bench.install(*(Locked(name=name, location=name, editable=True) for name in ("b", "a")), root=workspace)
    assert bench.warnings == [
        "`a`, `b` are editable in the manifest and installed as usual: an image never points outside itself"
    ]


def test_it_can_stay_editable_and_point_to_its_place_in_the_image(bench: Bench, workspace: Path) -> None:
    project(workspace / "packages" / "demo", extra=POINTING)
    row = Locked(name="demo", location="./packages/demo", editable=True)
    package = bench.one(row, root=workspace, workdir="/srv/app", keep_editable=True)
    found = texts(package)
    assert found["demo.pth"] == "/srv/app/packages/demo/src\n"
    assert "demo.py" not in found
    assert json.loads(found["demo-1.0.dist-info/direct_url.json"]) == {
        "dir_info": {"editable": True},
        "url": "file:///srv/app/packages/demo",
    }
    assert package.local
    assert bench.warnings == []
    other = bench.one(row, root=workspace, workdir="/app", keep_editable=True)
    assert texts(other)["demo.pth"] == "/app/packages/demo/src\n"


def test_packages_that_are_not_editable_in_the_manifest_are_installed(bench: Bench, workspace: Path) -> None:
    project(workspace, extra=POINTING)
    package = bench.one(Locked(name="demo", location="."), root=workspace, keep_editable=True)
    assert "demo.py" in texts(package)
    assert bench.warnings == []


def test_a_tree_outside_of_the_workspace_cannot_stay_editable(bench: Bench, workspace: Path) -> None:
    workspace.mkdir()
    project(workspace.parent / "beside", extra=POINTING)
    row = Locked(name="demo", location="../beside", editable=True)
    error = failure(bench, row, root=workspace, keep_editable=True)
    assert error.message == "`demo` cannot stay editable: its source is not in the workspace, so not in the image"
    assert bench.one(row, root=workspace).name == "demo"


@pytest.mark.parametrize(
    ("extra", "file"),
    [
        ("return {'demo.pth': 'import hook\\n'}", "`demo.pth` does more than name a directory of it"),
        ("return {'demo.pth': '/usr/lib\\n'}", "`demo.pth` does more than name a directory of it"),
        ("return {'demo.pth': os.getcwd() + '/made-by-the-build\\n'}", "`demo.pth` does more than name a directory"),
        ("return {'demo.pth': os.getcwd() + '/../..\\n'}", "`demo.pth` does more than name a directory of it"),
        (
            "return {'_loader.py': 'where = ' + repr(os.getcwd())}",
            "`_loader.py` works on the machine that built it only",
        ),
    ],
)
def test_other_ways_of_being_editable_are_refused_by_name(extra: str, file: str, bench: Bench, workspace: Path) -> None:
    project(workspace, extra=f"import os\nos.makedirs('made-by-the-build', exist_ok=True)\n{extra}")
    error = failure(bench, ROW, root=workspace, keep_editable=True)
    assert error.message.startswith(f"`demo-1.0-py3-none-any.whl` cannot stay editable: {file}")
    assert error.hint == "build it with hatchling or setuptools, or take it as an ordinary install"


def test_compiled_parts_cannot_stay_editable(bench: Bench, workspace: Path) -> None:
    project(workspace, tag="cp312-cp312-linux_x86_64", extra=POINTING)
    assert (
        "cannot stay editable: it has compiled parts" in failure(bench, ROW, root=workspace, keep_editable=True).message
    )


def test_a_backend_without_editables_is_told(bench: Bench, workspace: Path) -> None:
    project(workspace, editable=False)
    error = failure(bench, ROW, root=workspace, keep_editable=True)
    assert error.message == f"building `demo` in `{workspace}`: its backend cannot make editable wheels"


# --- real backends

HATCHLING = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
SETUPTOOLS = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
METADATA = '[project]\nname = "demo-app"\nversion = "1.0"\n[project.scripts]\ndemo-app = "demo_app:main"\n'


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip that finds real backends in a directory and asks no index."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(backends()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.mark.usefixtures("pip")
@pytest.mark.parametrize(
    ("backend", "layout", "keep_editable"),
    [(HATCHLING, "", False), (HATCHLING, "", True), (SETUPTOOLS, "", True), (SETUPTOOLS, "src", True)],
    ids=["hatchling-installed", "hatchling", "setuptools", "setuptools-src"],
)
def test_what_real_backends_make_runs(backend: str, layout: str, keep_editable: bool, tmp_path: Path) -> None:
    """The workspace is at its place of the image; a change of the code there is seen by an editable install alone."""
    image, workspace = tmp_path / "image", tmp_path / "workspace"
    environment = image / "env"
    (workspace / layout / "demo_app").mkdir(parents=True)
    (workspace / layout / "demo_app" / "__init__.py").write_text("def main():\n    print('one')\n")
    (workspace / "pyproject.toml").write_text(backend + METADATA)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    installation = Bench(tmp_path).install(
        Locked(name="Demo.App", location=".", editable=True),
        root=workspace,
        workdir=str(image / "app"),
        prefix=str(environment),
        python=HERE,
        keep_editable=keep_editable,
    )
    extract(installation, Path("/"))
    shutil.copytree(workspace, image / "app")
    assert _run(environment / "bin" / "demo-app") == "one"
    code = image / "app" / layout / "demo_app" / "__init__.py"
    code.write_text(code.read_text().replace("one", "two"))
    assert _run(environment / "bin" / "demo-app") == ("two" if keep_editable else "one")
    assert str(workspace) not in "".join(texts(installation.packages[0]).values())
    assert {path.name for path in workspace.iterdir()} == {"pyproject.toml", layout or "demo_app"}


def _run(script: Path) -> str:
    done = subprocess.run([script], capture_output=True, text=True, check=True, env={"PYTHONDONTWRITEBYTECODE": "1"})
    return done.stdout.strip()
