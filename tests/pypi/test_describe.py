from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from ociforge.errors import PackageError
from ociforge.pypi.describe import Describer, Description
from ociforge.pypi.fetch import Access, Cache, Fetcher
from ociforge.pypi.location import Local, Remote, Tree
from tests.pypi.simple_index import Dist
from tests.support.channel import Served, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "site").mkdir()
    with serve(tmp_path / "site") as served:
        yield served


class Builds:
    """A build that makes a wheel of what it is told, and notes the trees it was given."""

    def __init__(self, dist: Dist) -> None:
        self.dist = dist
        self.trees: list[Path] = []

    def __call__(self, tree: Path, place: Path) -> None:
        self.trees.append(tree)
        self.dist.write(place)


def describer(tmp_path: Path, *, build: Builds | None = None, access: Access | None = None) -> Describer:
    access = access or Access(attempts=1)
    return Describer(
        fetcher=Fetcher(Cache(tmp_path / "cache"), access),
        access=access,
        static=lambda tree: None,
        build=build or Builds(Dist(name="never")),
        environ={},
    )


def remote(site: Served, dist: Dist, *, credentials: str = "") -> Remote:
    url = site.url.replace("http://", f"http://{credentials}") + dist.filename
    return Remote(url=url, filename=dist.filename, sha256=Digest(dist.sha256), direct=False)


DIST = Dist(name="some-thing", requires=("a >=1", 'b ; extra == "x"'), requires_python=">=3.8, <4")
TOLD = Description(version="1.0", requires_dist=("a>=1", 'b; extra == "x"'), requires_python=">=3.8,<4")


def test_a_wheel_without_metadata_beside_it_is_fetched(tmp_path: Path, site: Served) -> None:
    DIST.write(tmp_path / "site")
    assert describer(tmp_path).describe("some-thing", remote(site, DIST)) == TOLD
    assert site.requests == [f"GET /{DIST.filename}.metadata", f"GET /{DIST.filename}"]


def test_metadata_beside_it_is_enough(tmp_path: Path, site: Served) -> None:
    (tmp_path / "site" / f"{DIST.filename}.metadata").write_bytes(DIST.describe())
    assert describer(tmp_path).describe("some-thing", remote(site, DIST)) == TOLD


@pytest.mark.parametrize("answer", [b"", b"<html>not found</html>", b"Name: other\nVersion: 1\n", b"\xff\xfe"])
def test_an_answer_that_is_no_metadata_is_not_taken(tmp_path: Path, site: Served, answer: bytes) -> None:
    DIST.write(tmp_path / "site")
    (tmp_path / "site" / f"{DIST.filename}.metadata").write_bytes(answer)
    assert describer(tmp_path).describe("some-thing", remote(site, DIST)) == TOLD


def test_a_wheel_that_is_not_the_one_locked_is_refused(tmp_path: Path, site: Served) -> None:
    (tmp_path / "site" / DIST.filename).write_bytes(b"something else")
    with pytest.raises(PackageError, match="is not the file that the lock names"):
        describer(tmp_path).describe("some-thing", remote(site, DIST))


def test_credentials_are_sent_and_not_shown(tmp_path: Path, site: Served) -> None:
    with pytest.raises(PackageError) as caught:
        describer(tmp_path).describe("some-thing", remote(site, DIST, credentials="me:s3cret@"))
    assert "s3cret" not in caught.value.message
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    DIST.write(tmp_path / "site")
    found = describer(tmp_path, access=Access(attempts=1, netrc=tmp_path / "netrc"))
    assert found.describe("some-thing", remote(site, DIST)) == TOLD


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"no zip"])
def test_files_that_are_no_wheels(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a-1.0-py3-none-any.whl").write_bytes(content)
    local = Local(path=tmp_path / "a-1.0-py3-none-any.whl", filename="a-1.0-py3-none-any.whl", sha256=None)
    with pytest.raises(PackageError, match=r"`a-1.0-py3-none-any.whl` is no wheel that can be read: "):
        describer(tmp_path).describe("a", local)


def test_a_source_distribution_is_built_when_only_that_tells(tmp_path: Path, site: Served) -> None:
    """Its metadata names what a build may change (PEP 643)."""
    dist = Dist(name="some-thing", sdist=True)
    whole = dist.write(tmp_path / "site")
    local = Local(path=whole, filename=dist.filename, sha256=None)
    build = Builds(DIST)
    assert describer(tmp_path, build=build).describe("some-thing", local) == Description(version="1.0")
    assert build.trees == []
    vague = Dist(name="some-thing", sdist=True, requires_python=">=3\nDynamic: Requires-Dist")
    local = Local(path=vague.write(tmp_path), filename=vague.filename, sha256=None)
    assert describer(tmp_path, build=build).describe("some-thing", local) == TOLD
    assert len(build.trees) == 1 and not build.trees[0].exists()


def test_a_tree_is_built_in_a_copy_and_has_no_version_then(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "setup.py").write_text("raise SystemExit('not to be run here')\n")
    build = Builds(DIST)
    found = describer(tmp_path, build=build).describe("some-thing", Tree(path=tree))
    assert found == Description(version=None, requires_dist=TOLD.requires_dist, requires_python=TOLD.requires_python)
    assert build.trees != [tree] and [path.name for path in tree.iterdir()] == ["setup.py"]


def test_requirements_that_are_none(tmp_path: Path) -> None:
    dist = Dist(name="a", requires=("!!",))
    local = Local(path=dist.write(tmp_path), filename=dist.filename, sha256=None)
    with pytest.raises(PackageError, match=r"the metadata of `a-1.0-py3-none-any.whl` is damaged: "):
        describer(tmp_path).describe("a", local)
    dist = Dist(name="a", requires_python="whatever")
    local = Local(path=dist.write(tmp_path), filename=dist.filename, sha256=None)
    assert describer(tmp_path).describe("a", local).requires_python is None
