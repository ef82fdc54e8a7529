"""A package with PyPI requirements, and two images of it: one that serves and one to develop in."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.external.clients import Forge, Image, as_root, ask, free_port
from tests.external.conftest import Loaded
from tests.support.bases import debian_layout
from tests.support.containers import Options
from tests.support.pypi import Index, downloaded, serve_index
from tests.support.python import SHORT
from tests.support.workspaces import docker_project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Crun, Runtime
    from tests.support.docker import Docker

PREFIXES = {"prod": "/app/.pixi/envs/prod", "dev": "/app/.pixi/envs/default"}
CODE = "docker_project/__init__.py"


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Everything that the workspace and its build ask PyPI for."""
    wheels = downloaded("flask>=2", "gunicorn", "pytest", "hatchling", "editables")
    root = tmp_path_factory.mktemp("index")
    with serve_index(root, wheels) as served:
        yield served
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def workspace(forge: Forge, index: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace; its base image lies beside it, and is pinned."""
    directory = tmp_path_factory.mktemp("docker")
    (directory / "base").symlink_to(debian_layout())
    workspace = docker_project(directory, index)
    edit(workspace / "pyproject.toml", "[tool.ociforge]\n", '[tool.ociforge]\nbase = "oci:../base"\n')
    smith(forge.home, index)("lock", workspace)
    return workspace


def another(workspace: Path, directory: Path) -> Path:
    """A copy of the workspace and of what lies beside it."""
    shutil.copytree(workspace.parent, directory, symlinks=True)
    return directory / workspace.name


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def smith(home: Path, index: Index, **more: str) -> Forge:
    """ociforge, whose builds ask our index for their backend."""
    return Forge(home=home, variables={"PIP_INDEX_URL": index.url, **more})


def build(smith: Forge, workspace: Path, image: str, *places: str) -> dict[str, Any]:
    """Build one image of the workspace; returns what is said of it."""
    result: dict[str, Any] = smith("build", workspace, "--image", image, "--locked", *places)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An image in a layout and an archive; `layers` is what the build says of those that are not the base's, `packages`
    of what is installed.
    """

    image: Image
    archive: Path
    layers: list[dict[str, Any]]
    packages: list[dict[str, Any]]

    @classmethod
    def of(cls, smith: Forge, workspace: Path, image: str, directory: Path) -> Made:
        """Build, into a new directory."""
        directory.mkdir()
        layout, archive = directory / "layout", directory / "app.tar"
        places = ("-o", f"oci:{layout}", "-o", f"oci-archive:{archive}", "-t", f"docker_project:{image}")
        built = build(smith, workspace, image, *places)
        (alone,) = built["images"]
        return cls(image=Image.only(layout), archive=archive, layers=built["layers"], packages=alone["packages"])


@pytest.fixture(scope="session")
def made(
    forge: Forge, index: Index, workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Made]]:
    """The two images by name."""
    directory = tmp_path_factory.mktemp("images")
    yield {name: Made.of(smith(forge.home, index), workspace, name, directory / name) for name in PREFIXES}
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def prod(made: dict[str, Made]) -> Made:
    return made["prod"]


@pytest.fixture(scope="session")
def dev(made: dict[str, Made]) -> Made:
    return made["dev"]


@pytest.fixture(scope="session")
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Docker, or what needs no daemon where there is none."""
    as_root()
    found: Docker | Crun
    try:
        found = request.getfixturevalue("docker")
    except pytest.skip.Exception:
        found = request.getfixturevalue("crun")
    return found


@pytest.fixture(scope="session")
def service(runtime: Runtime, prod: Made) -> Loaded:
    """The image that serves, ready to run."""
    return Loaded(runtime=runtime, image=runtime.load(prod.archive))


@pytest.fixture(scope="session")
def desk(runtime: Runtime, dev: Made) -> Loaded:
    """The image to develop in, ready to run."""
    return Loaded(runtime=runtime, image=runtime.load(dev.archive))


# --- serving


@pytest.mark.parametrize("options", [Options(), Options(user="12345:12345", read_only=True)], ids=["root", "nobody"])
def test_it_serves(service: Loaded, options: Options) -> None:
    port = free_port()
    command = ("gunicorn", "docker_project:app", "--bind", f"127.0.0.1:{port}", "--worker-tmp-dir", "/dev/shm")
    with service.runtime.start(service.image, *command, options=options) as container:
        assert ask(port, container) == b"Hello, World!"
        assert container.stop(5) == 0, container.logs()


def test_the_configuration_is_the_manifests(prod: Made, dev: Made) -> None:
    config = prod.image.config["config"]

    assert config["Cmd"] == ["gunicorn", "-w", "4", "docker_project:app", "--bind", ":8000"]
    assert config["ExposedPorts"] == {"8000/tcp": {}}
    assert dev.image.config["config"]["Cmd"][0] == "flask"


# --- the lock


def test_ociforge_locks_the_same_packages(forge: Forge, index: Index, workspace: Path, tmp_path: Path) -> None:
    unlocked = another(workspace, tmp_path / "unlocked")
    (unlocked / "pixi.lock").unlink()
    locker = smith(forge.home, index)
    locker("lock", unlocked, "--only", "packages")

    assert in_lock(unlocked) == in_lock(workspace)
    assert locker("check", unlocked)["satisfied"] is True


def in_lock(workspace: Path) -> tuple[Any, list[dict[str, Any]]]:
    """The environments of a lock, and what it says of PyPI packages, whose markers may be written in several ways."""
    lock = yaml.safe_load((workspace / "pixi.lock").read_text())
    rows = sorted((row for row in lock["packages"] if "pypi" in row), key=lambda row: str(row["pypi"]))
    return lock["environments"], [{key: row[key] for key in row if key != "requires_dist"} for row in rows]


# --- the installation


_REPORT = """
import base64, hashlib, json, sys
from importlib.metadata import distributions

def sound(file):
    if file.hash is None:
        return file.name == "RECORD"
    digest = hashlib.new(file.hash.mode, file.locate().read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value

print(json.dumps({
    found.name: {
        "version": found.version,
        "requires": found.requires or [],
        "installer": found.read_text("INSTALLER"),
        "origin": json.loads(found.read_text("direct_url.json") or "null"),
        "unsound": [str(file) for file in found.files if not sound(file)],
    }
    for found in distributions(path=[path for path in sys.path if path.endswith("site-packages")])
}))
"""


def installed(loaded: Loaded) -> dict[str, dict[str, Any]]:
    """What Python itself finds in the container: name -> facts."""
    done = loaded.runtime.run(loaded.image, "python", "-I", "-c", _REPORT)
    assert done.returncode == 0, done.stderr
    return {canonicalize_name(name): facts for name, facts in json.loads(done.stdout).items()}


def unmet(found: dict[str, dict[str, Any]]) -> list[str]:
    """Requirements that the installation breaks, as `pip check` tells them."""
    texts = [(name, text) for name, facts in found.items() for text in facts["requires"]]
    wanted = [(name, Requirement(text)) for name, text in texts]
    needed = [(name, r) for name, r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    have = {name: facts["version"] for name, facts in found.items()}
    return [
        f"{name}: {r}"
        for name, r in needed
        if not r.specifier.contains(have.get(canonicalize_name(r.name), "0.dev0"), prereleases=True)
    ]


def test_metadata_tells_what_is_locked(service: Loaded, index: Index) -> None:
    found = installed(service)
    locked = {row.name: row.version for row in index.rows("flask>=2", "gunicorn")} | {"docker-project": "0.1.0"}

    assert {name: facts["version"] for name, facts in found.items()} == locked
    assert unmet(found) == []
    assert [name for name, facts in found.items() if facts["unsound"]] == []
    assert {facts["installer"] for facts in found.values()} == {"uv-pixi"}
    origins = {name: facts["origin"] for name, facts in found.items() if facts["origin"]}
    assert origins == {"docker-project": {"dir_info": {}, "url": "file:///app"}}


def test_scripts_run(service: Loaded, index: Index) -> None:
    versions = {row.name: row.version for row in index.rows("flask>=2", "gunicorn")}
    flask = service.runtime.run(service.image, "flask", "--version")
    gunicorn = service.runtime.run(service.image, "gunicorn", "--version", options=Options(read_only=True))

    assert f"Flask {versions['flask']}\n" in flask.stdout, flask.stderr
    assert gunicorn.stdout == f"gunicorn (version {versions['gunicorn']})\n", gunicorn.stderr


_WHERE = "import docker_project; print(docker_project.__file__)"


def test_the_package_is_in_the_environment(service: Loaded) -> None:
    """`-I`: the working directory, which has the code too, does not count."""
    done = service.runtime.run(service.image, "python", "-I", "-c", _WHERE)

    assert done.stdout == f"{PREFIXES['prod']}/lib/python{SHORT}/site-packages/{CODE}\n", done.stderr


# --- layers


def test_wheels_lie_above_conda_packages_and_below_the_workspaces(prod: Made) -> None:
    titles = [layer["title"] for layer in prod.layers]
    kinds = {package["name"]: package["kind"] for package in prod.packages}
    locked = [kinds[re.split("[ ,]", title)[0]] for title in titles[1:-2]]  # titles begin with a package's name

    assert titles[0] == "environment" and titles[-2:] == ["docker-project", "application"]
    assert set(locked) == {"conda", "pypi"} and locked == sorted(locked)
    assert {"kind": "pypi", "name": "docker-project", "version": "0.1.0", "build": None} in prod.packages


def test_a_second_build_makes_nothing_again(prod: Made, forge: Forge, index: Index, workspace: Path) -> None:
    again = build(smith(forge.home, index), workspace, "prod")

    assert again["digest"] == prod.image.digest
    assert not_reused(again["layers"]) == []


def not_reused(layers: list[dict[str, Any]]) -> list[str]:
    return [layer["title"] for layer in layers if not layer["reused"]]


def test_a_change_of_the_code_changes_the_applications_layers(
    prod: Made, forge: Forge, index: Index, workspace: Path, tmp_path: Path
) -> None:
    changed = another(workspace, tmp_path / "changed")
    edit(changed / CODE, "Hello, World!", "Changed!")
    after = Made.of(smith(forge.home, index), changed, "prod", tmp_path / "image")

    assert after.image.manifest["layers"][:-2] == prod.image.manifest["layers"][:-2]
    assert not_reused(after.layers) == ["docker-project", "application"]
    site_packages = f"{PREFIXES['prod'][1:]}/lib/python{SHORT}/site-packages"
    record = f"{site_packages}/docker_project-0.1.0.dist-info/RECORD"
    assert change(prod, after, -2) == {f"{site_packages}/{CODE}", record}
    assert change(prod, after, -1) == {f"app/{CODE}"}


def change(before: Made, after: Made, layer: int) -> set[str]:
    """The paths of a layer that are not the same in two images."""
    left, right = before.image.files(layer), after.image.files(layer)
    return {path for path in left.keys() | right.keys() if left.get(path) != right.get(path)}


def test_the_digest_is_the_same_everywhere(prod: Made, index: Index, workspace: Path, tmp_path: Path) -> None:
    """In another directory, for another user, with nothing in the cache."""
    elsewhere = another(workspace, tmp_path / "a rather" / "different" / "place")
    for path in elsewhere.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    home = tmp_path / "someone"
    home.mkdir()
    someone = smith(home, index, TZ="Asia/Kathmandu", LC_ALL="C", USER="someone", TMPDIR=str(home))

    assert build(replace(someone, umask=0o077), elsewhere, "prod")["digest"] == prod.image.digest


@pytest.mark.parametrize("name", ["prod", "dev"])
def test_no_path_of_this_machine_is_in_an_image(
    name: str, made: dict[str, Made], workspace: Path, forge: Forge
) -> None:
    paths = (workspace.parent, forge.home, made[name].archive.parent, Path.home())
    secrets = re.compile(b"|".join(re.escape(str(path).encode()) for path in paths))
    layers = made[name].image.layers()[-len(made[name].layers) :]

    assert [found for layer in layers for found in mentions(layer, secrets)] == []


def mentions(layer: Path, secrets: re.Pattern[bytes]) -> list[str]:
    """What of `secrets` is in a layer's contents and headers."""
    with gzip.open(layer) as tar:
        return [f"{layer.name}: {found[0]!r}" for found in secrets.finditer(tar.read())]


# --- developing


def test_the_environment_to_develop_in(desk: Loaded, index: Index) -> None:
    found = installed(desk)
    locked = {row.name: row.version for row in index.rows("flask>=2", "pytest")} | {"docker-project": "0.1.0"}
    where = desk.runtime.run(desk.image, "python", "-I", "-c", _WHERE)
    pytest_ = desk.runtime.run(desk.image, "pytest", "--version")

    assert {name: facts["version"] for name, facts in found.items()} == locked
    assert unmet(found) == [] and [name for name, facts in found.items() if facts["unsound"]] == []
    assert found["docker-project"]["origin"] == {"dir_info": {"editable": True}, "url": "file:///app"}
    assert where.stdout == f"/app/{CODE}\n", where.stderr
    assert pytest_.stdout == f"pytest {locked['pytest']}\n", pytest_.stderr


def test_mounted_code_is_loaded_again_when_it_changes(desk: Loaded, workspace: Path, tmp_path: Path) -> None:
    code = another(workspace, tmp_path / "mine") / "docker_project"
    edit(code / "__init__.py", "Hello, World!", "mounted")
    port = free_port()
    command = ("flask", "--app", "docker_project:app", "run", "--debug", "--port", str(port))
    options = Options(mounts={"/app/docker_project": code})
    with desk.runtime.start(desk.image, *command, options=options) as container:
        assert ask(port, container) == b"mounted"
        edit(code / "__init__.py", "mounted", "changed")
        assert ask(port, container, lambda said: said != b"mounted") == b"changed"
