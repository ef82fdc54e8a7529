"""Every workspace of the lock check's tests, locked anew from channels and an index made of its own lock."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.utils import parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from ociforge.lock import LockRequest, lock
from ociforge.pypi.fetch import Access, Cache, Fetcher
from ociforge.workspace import Workspace, load
from ociforge.workspace.lockfile import Lock, read
from ociforge.workspace.lockwriter import write_lock
from ociforge.workspace.satisfy import check
from tests.pypi.simple_index import Dist, write_index
from tests.support.channel import serve, write_channel
from tests.support.conda import CondaPackage

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKSPACES = Path(__file__).parent / "workspaces"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FORGE, BIOCONDA = "https://conda.anaconda.org/conda-forge/", "https://conda.anaconda.org/bioconda/"
# `indexes` and `places` name hosts that a test cannot be.
NAMES = ("conda", "cuda", "groups", "local", "no_build", "overrides", "provided", "web")


@pytest.fixture(scope="module")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv")


def rows(made: Lock) -> Iterator[tuple[str, object, Any]]:
    """(environment, platform, rows) of everything that is locked."""
    for name, environment in made.environments.items():
        for row in environment.platforms:
            yield name, str(row.identity), made.rows(name, row)


def summary(made: Lock) -> dict[tuple[str, object], set[str]]:
    """What is locked where, by names, versions and file names."""
    found = {}
    for environment, platform, has in rows(made):
        conda = {package.location.rpartition("/")[2] for package in has.conda}
        pypi = {f"{row.name} {row.location.rpartition('/')[2]}" for row in has.pypi}
        found[environment, platform] = conda | pypi
    return found


def facts(made: Lock) -> dict[str, tuple[object, frozenset[str], str | None]]:
    """What is locked of each PyPI package: its version, what it depends on, its Python."""
    return {
        row.name: (
            row.version and Version(row.version),
            frozenset(text.replace(" ", "") for text in row.requires_dist),
            row.requires_python,
        )
        for _, _, has in rows(made)
        for row in has.pypi
        if row.name != "local"  # extras of extras may be spelled in several ways
    }


def fill(made: Lock, root: Path) -> None:
    """Channels and an index with what a lock has, below `root`."""
    packages: dict[str, dict[str, CondaPackage]] = {"conda-forge": {}, "bioconda": {}}
    dists: dict[str, Dist] = {}
    for _, _, has in rows(made):
        for package in has.conda:
            channel, subdir, name = package.location.rsplit("/", 3)[1:]
            packages[channel][f"{subdir}/{name}"] = _conda(package.package_record)
        for row in has.pypi:
            if row.location.startswith("https://"):
                dists[row.location] = _dist(row)
    for channel, found in packages.items():
        write_channel(root / channel, found.values())
    write_index(root, dists.values())


def _conda(record: Any) -> CondaPackage:
    kind = record.noarch
    moment = record.timestamp
    return CondaPackage(
        name=record.name.normalized,
        version=str(record.version),
        build=str(record.build),
        build_number=record.build_number,
        subdir=str(record.subdir),
        noarch="python" if kind.python else "generic" if str(record.subdir) == "noarch" else None,
        depends=tuple(record.depends),
        constrains=tuple(record.constrains),
        timestamp=None if moment is None else int(moment.replace(tzinfo=UTC).timestamp() * 1000),
        purls=_purls(record),
    )


def _purls(record: Any) -> tuple[str, ...] | None:
    stated = json.loads(record.to_json()).get("purls")
    return None if stated is None else tuple(stated)


def _dist(row: Any) -> Dist:
    file_name = row.location.rpartition("/")[2]
    facts: dict[str, Any] = {"name": row.name, "requires": row.requires_dist, "requires_python": row.requires_python}
    if file_name.endswith(".whl"):
        _, version, _, _ = parse_wheel_filename(file_name)
        return Dist(version=str(version), tag=file_name.removesuffix(".whl").split("-", 2)[2], metadata=True, **facts)
    _, version = parse_sdist_filename(file_name)
    lines = [
        "[project]",
        f'name = "{row.name}"',
        f'version = "{version}"',
        f"dependencies = {list(row.requires_dist)!r}",
    ]
    return Dist(version=str(version), sdist=True, pyproject="\n".join(lines) + "\n", **facts)


# A build backend that needs nothing: what `generated` depends on, only a build can tell.
_BACKEND = """\
import zipfile
from pathlib import Path


def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "generated-1.0-py3-none-any.whl"
    with zipfile.ZipFile(Path(directory, name), "w") as wheel:
        for member, text in {
            "METADATA": "Metadata-Version: 2.1\\nName: generated\\nVersion: 1.0\\nRequires-Dist: click\\n",
            "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
            "RECORD": "",
        }.items():
            wheel.writestr(f"generated-1.0.dist-info/{member}", text)
    return name
"""


def complete(root: Path) -> None:
    """Make the stand-ins of the workspace `local` what they stand for."""
    Dist(name="helper").write(root / "wheels")
    (root / "generated" / "backend.py").write_text(_BACKEND)
    with (root / "generated" / "pyproject.toml").open("a") as stream:
        stream.write('[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n')


def relocate(root: Path, url: str) -> Workspace:
    """Make the manifest in `root` name the server at `url`."""
    path = next(root / name for name in ("pixi.toml", "pyproject.toml") if (root / name).exists())
    text = path.read_text()
    for channel in ("conda-forge", "bioconda"):
        text = text.replace(f'"{channel}"', f'"{url}{channel}"')
    table = "workspace.pypi-options" if path.name == "pixi.toml" else "tool.pixi.workspace.pypi-options"
    path.write_text(f'{text}\n[{table}]\nindex-url = "{url}simple"\n')
    return load(root)


@pytest.mark.parametrize("name", NAMES)
def test_locking_gives_what_the_check_wants(name: str, tmp_path: Path, uv_cache: Path) -> None:
    root = Path(shutil.copytree(WORKSPACES / name, tmp_path / name))
    if name == "local":
        complete(root)
    wanted = read(root / "pixi.lock")
    fill(wanted, tmp_path / "server")
    access = Access(attempts=1)
    with serve(tmp_path / "server") as served:
        workspace = relocate(root, served.url)
        request = LockRequest(
            workspace=workspace,
            previous=None,
            now=NOW,
            cache=tmp_path / "repodata",
            fetcher=Fetcher(Cache(tmp_path / "files"), access),
            access=access,
            environ={**os.environ, "UV_CACHE_DIR": str(uv_cache), "UV_HTTP_RETRIES": "0"},
            retries=0,
        )
        write_lock(root / "pixi.lock", lock(request).text)
    made = read(root / "pixi.lock")
    verdict = check(workspace.manifest, made, now=NOW)
    assert verdict.satisfied, [str(reason) for reason in (*verdict.reasons, *verdict.undecided)]
    assert summary(made) == summary(wanted)
    assert facts(made) == facts(wanted)
