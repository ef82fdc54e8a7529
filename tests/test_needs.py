"""What images need, from manifest and lock alone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from ociforge.errors import BuildError, LockError, PackageError, WorkspaceError
from ociforge.needs import Needs, Wanted, needs, wanted
from ociforge.platform import Platform
from ociforge.pypi.location import Local
from ociforge.workspace import load
from ociforge.workspace.lockfile import read
from tests.pypi.projects import project, sdist
from tests.support.lock import LockedPypi
from tests.support.tiny import SETTINGS, Tiny, tiny_packages, tiny_workspace
from tests.support.wheelbuilder import Wheel

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

SUBDIRS = ("linux-64", "linux-aarch64")
AMD64, ARM64 = (Platform.from_subdir(subdir) for subdir in SUBDIRS)
IMAGES = """
[tool.ociforge.images.one]
base = "docker://example.com/base:1"

[tool.ociforge.images.two]
"""


def asked(tiny: Tiny, **options: Any) -> tuple[Wanted, ...]:
    workspace = load(tiny.root)
    return wanted(workspace, read(workspace.lock_path), **options)


def found(tiny: Tiny, **options: Any) -> Needs:
    return needs(asked(tiny, **options), root=tiny.root)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Two images on two platforms; `tool` and `liba` are for either, the rest is noarch."""
    packages = [*tiny_packages(), *(p for p in tiny_packages("linux-aarch64") if p.noarch is None)]
    root = tmp_path_factory.mktemp("needs") / "workspace"
    return tiny_workspace(root, packages=packages, platforms=SUBDIRS, settings=f'{SETTINGS}base = "scratch"\n{IMAGES}')


def shown(images: tuple[Wanted, ...]) -> list[tuple[str | None, str]]:
    return [(image.settings.name, str(image.platform)) for image in images]


def test_all_images_for_the_usual_platform(both: Tiny) -> None:
    assert shown(asked(both)) == [("one", "linux/amd64"), ("two", "linux/amd64")]


def test_all_platforms_of_the_lock(both: Tiny) -> None:
    every = [("one", "linux/amd64"), ("one", "linux/arm64"), ("two", "linux/amd64"), ("two", "linux/arm64")]
    assert shown(asked(both, platforms=None)) == every
    assert shown(asked(both, platforms=[ARM64, AMD64])) == every


def test_one_image(both: Tiny) -> None:
    assert shown(asked(both, images=["two"], platforms=[ARM64])) == [("two", "linux/arm64")]


def test_images_of_an_environment(both: Tiny) -> None:
    assert shown(asked(both, environments=["default"])) == [("one", "linux/amd64"), ("two", "linux/amd64")]
    with pytest.raises(BuildError, match="no image of the workspace has the environment `other`"):
        asked(both, environments=["other"])
    with pytest.raises(WorkspaceError, match="got `other`"):
        asked(both, images=["one"], environments=["other"])


def test_each_archive_once_in_an_order_of_its_own(both: Tiny) -> None:
    needed = found(both, platforms=None)
    digests = [(record.sha256 or b"").hex() for record in needed.records]
    assert digests == sorted({archive.record["sha256"] for archive in both.channel.archives})
    assert needed == found(both, platforms=[ARM64, AMD64])
    assert needed.bases == (("docker://example.com/base:1", AMD64), ("docker://example.com/base:1", ARM64))


def test_a_platform_that_is_not_locked(both: Tiny) -> None:
    with pytest.raises((LockError, WorkspaceError)):
        asked(both, platforms=[Platform.from_subdir("linux-s390x")])


@pytest.fixture
def mixed(tmp_path: Path) -> Tiny:
    """Wheels with and without a digest, a source distribution, a commit and a tree."""
    wheel = Wheel(name="ready").write(tmp_path)
    loose = Wheel(name="loose").write(tmp_path)
    source = sdist(tmp_path, project(tmp_path / "packed", "packed"), stem="packed-1.0")
    rows = (
        LockedPypi(name="ready", version="1.0", location=wheel.as_uri(), sha256=_sha256(wheel)),
        LockedPypi(name="loose", version="1.0", location=loose.as_uri()),
        LockedPypi(name="packed", version="1.0", location=source.as_uri(), sha256=_sha256(source)),
        LockedPypi(name="committed", version="1.0", location=f"git+https://example.com/a#{'a' * 40}"),
        LockedPypi(name="local", version="1.0", location="./local"),
    )
    tiny = tiny_workspace(tmp_path / "workspace", settings=f'{SETTINGS}base = "scratch"\n', extra=rows)
    project(tiny.root / "local", "local")
    return tiny


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_becomes_of_pypi_rows(mixed: Tiny) -> None:
    needed = found(mixed)
    assert [job.name for job in needed.wheels] == ["ready"]
    assert sorted(job.name for job, _ in needed.builds) == ["committed", "packed"]
    assert [job.name for job in needed.trees] == ["local"]
    assert needed.bases == ()
    [ready] = needed.wheels
    assert isinstance(ready.source, Local)


def test_pypi_packages_need_a_python(tmp_path: Path) -> None:
    wheel = Wheel(name="ready").write(tmp_path)
    row = LockedPypi(name="ready", version="1.0", location=wheel.as_uri(), sha256=_sha256(wheel))
    packages = [package for package in tiny_packages() if package.name != "python"]
    tiny = tiny_workspace(tmp_path / "workspace", packages=packages, extra=(row,))
    with pytest.raises(PackageError, match="environment `default` has PyPI packages but no `python`"):
        found(tiny)
