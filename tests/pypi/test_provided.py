"""Wheels that were built elsewhere, and what builds require."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from ociforge.errors import PackageError
from ociforge.pypi.fetch import Cache
from ociforge.pypi.location import Local, Remote, Repository, Tree
from ociforge.pypi.provided import Origin, Provided
from ociforge.pypi.requirements import Requirements
from tests.support.wheelbuilder import Wheel

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from ociforge.pypi.fetch import Archive

SHA256 = Digest.of(b"source")
SDIST = Remote(url="https://a:b@example.com/a-1.tar.gz", filename="a-1.tar.gz", sha256=SHA256, direct=False)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "files")


def kept(cache: Cache, path: Path) -> Archive:
    def write(sink: BinaryIO) -> Digest:
        sink.write(path.read_bytes())
        return Digest.of(path.read_bytes())

    return cache.store(path.name, write)


def test_origins(tmp_path: Path) -> None:
    local = Local(path=tmp_path / "a-1.tar.gz", filename="a-1.tar.gz", sha256=SHA256)
    assert Origin.of(SDIST) == Origin.of(local) == Origin(identity=str(SHA256))
    repository = Repository(url="https://u:secret@example.com/a", commit="c" * 40, subdirectory="b", lfs=True)
    origin = Origin.of(repository)
    assert origin == Origin(identity=f"https://example.com/a {'c' * 40} lfs", subdirectory="b")
    assert Origin.of(Tree(path=tmp_path)) is None
    assert Origin.of(Local(path=tmp_path / "a-1.tar.gz", filename="a-1.tar.gz", sha256=None)) is None


def test_a_wheel_that_was_provided_is_found_and_verified(cache: Cache, tmp_path: Path) -> None:
    provided, archive = Provided(tmp_path / "provided", cache), kept(cache, Wheel(name="a").write(tmp_path))
    assert provided.find(SDIST) is None
    provided.record(Origin(identity=str(SHA256)), archive.filename, archive.digest)
    assert provided.find(SDIST) == archive
    other = Remote(url=SDIST.url, filename=SDIST.filename, sha256=SHA256, direct=False, subdirectory="b")
    assert provided.find(other) is None
    archive.path.write_bytes(b"damaged")
    assert provided.find(SDIST) is None


def test_a_damaged_record_is_none(cache: Cache, tmp_path: Path) -> None:
    provided, archive = Provided(tmp_path / "provided", cache), kept(cache, Wheel(name="a").write(tmp_path))
    provided.record(Origin(identity=str(SHA256)), archive.filename, archive.digest)
    [record] = (tmp_path / "provided").iterdir()
    for text in ("", "[]", '{"filename": "a"}', '{"filename": "a", "wheel": "x"}'):
        record.write_text(text)
        assert provided.find(SDIST) is None


def test_requirements_are_offered_under_their_names(cache: Cache, tmp_path: Path) -> None:
    requirements = Requirements(tmp_path / "requires", cache)
    requirements.offer(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
    good, bad = (kept(cache, Wheel(name=name).write(tmp_path)) for name in ("good", "bad"))
    for archive in (good, bad):
        requirements.record(archive.filename, archive.digest)
    bad.path.write_bytes(b"damaged")
    requirements.offer(tmp_path / "house")
    assert [path.name for path in (tmp_path / "house").iterdir()] == [good.filename]
    assert (tmp_path / "house" / good.filename).read_bytes() == good.path.read_bytes()


def test_places_that_cannot_be_written(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    place = tmp_path / "file" / "x"
    with pytest.raises(PackageError, match="Not a directory"):
        Provided(place, cache).record(Origin(identity="a"), "a.whl", SHA256)
    with pytest.raises(PackageError, match="Not a directory"):
        Requirements(place, cache).record("a.whl", SHA256)
    with pytest.raises(PackageError, match="Not a directory"):
        Requirements(tmp_path / "none", cache).offer(place)
