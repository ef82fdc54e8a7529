"""The file of a bundle, read by others."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from layers.entry import FileContent
from ociforge.bundle import write
from ociforge.errors import TransportError
from tests.bundle.making import Bench, named
from tests.support.tiny import tiny_packages
from tests.support.tools import need

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bundle.conftest import Made


def members(path: Path) -> dict[str, bytes]:
    """The files of a tar, in their order."""
    with tarfile.open(path, "r:") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]


def index(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(members(path)["index.json"])["manifests"]
    return found


def test_every_blob_is_what_it_is_called(made: Made) -> None:
    files = members(made.path)
    blobs = {name.removeprefix("blobs/sha256/"): data for name, data in files.items() if name.startswith("blobs/")}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in blobs.items()} == {name: name for name in blobs}
    [bundle, _] = index(made.path)
    manifest = json.loads(blobs[bundle["digest"].removeprefix("sha256:")])
    listed = {blob["digest"].removeprefix("sha256:") for blob in [manifest["config"], *manifest["layers"]]}
    assert blobs.keys() == {*listed, bundle["digest"].removeprefix("sha256:")}
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


def test_what_tells_the_contents_comes_first(made: Made) -> None:
    [bundle, _] = index(made.path)
    assert [*members(made.path)][:3] == [
        "oci-layout",
        "index.json",
        f"blobs/sha256/{bundle['digest'].removeprefix('sha256:')}",
    ]


def test_nothing_of_this_machine_is_in_the_headers(made: Made) -> None:
    with tarfile.open(made.path, "r:") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == (0o755 if member.isdir() else 0o644)


def test_all_that_a_build_needs_is_there(made: Made) -> None:
    archives = {archive.path.name: archive.path.read_bytes() for archive in made.bench.tiny.channel.archives}
    found = named(made.path)
    conda = {name.rpartition("/")[2]: digest for name, digest in found.items() if name.startswith("conda/")}
    assert {name: str(digest) for name, digest in conda.items()} == {
        name: f"sha256:{hashlib.sha256(data).hexdigest()}" for name, data in archives.items()
    }
    root = made.bench.tiny.root
    for name in ("pixi.toml", "pixi.lock", "ociforge.lock"):
        assert found[name].hex == hashlib.sha256((root / name).read_bytes()).hexdigest()
    blobs = {path.name for path in (made.bench.root / "base").glob("blobs/sha256/*")}
    assert {digest.hex for name, digest in found.items() if name.startswith("base/")} == blobs


def test_the_base_image_can_be_taken_out(made: Made, tmp_path: Path) -> None:
    [_, base] = index(made.path)
    name = base["annotations"]["org.opencontainers.image.ref.name"]
    done = subprocess.run(
        [need("skopeo"), "inspect", "--raw", f"oci-archive:{made.path}:{name}"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    assert f"sha256:{hashlib.sha256(done.stdout).hexdigest()}" == base["digest"]
    assert base["platform"] == {"os": "linux", "architecture": "amd64"}


def test_the_same_inputs_give_the_same_bytes(made: Made, tmp_path: Path) -> None:
    """Another store, umask and name of the file."""
    before = os.umask(0o077)
    try:
        other = Bench(root=made.bench.root, tiny=made.bench.tiny, store=type(made.bench.store)(tmp_path / "store"))
        other.write(tmp_path / "b")
    finally:
        os.umask(before)
    assert (tmp_path / "b").read_bytes() == made.path.read_bytes()


def test_an_older_bundle_is_built_upon(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path / "old", tiny_packages()[:2])
    old = bench.write(tmp_path / "old.bundle")
    grown = Bench.make(tmp_path / "new", tiny_packages()[:3])
    new = grown.write(tmp_path / "new.bundle", since=tmp_path / "old.bundle")
    whole = grown.write(tmp_path / "whole.bundle")
    assert new.digest == whole.digest != old.digest
    before, after = members(tmp_path / "old.bundle"), members(tmp_path / "new.bundle")
    more = [name for name in named(tmp_path / "whole.bundle") if name not in named(tmp_path / "old.bundle")]
    assert len(more) == 1
    assert f"blobs/sha256/{named(tmp_path / 'whole.bundle')[more[0]].hex}" in after
    shared = {name for name in before.keys() & after.keys() if name.startswith("blobs/")}
    documents = {f"blobs/sha256/{d.hex}" for n, d in named(tmp_path / "old.bundle").items() if n.endswith(".json")}
    empty = f"blobs/sha256/{hashlib.sha256(b'{}').hexdigest()}"
    assert shared == {*documents, empty, f"blobs/sha256/{named(tmp_path / 'old.bundle')['ociforge.lock'].hex}"}
    [entry] = index(tmp_path / "new.bundle")
    assert entry["annotations"] == {
        "org.opencontainers.image.ref.name": "bundle",
        "dev.ociforge.bundle.since": str(old.digest),
    }


def test_what_cannot_be_written_leaves_the_file_that_was_there(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "a.bundle"
    path.write_bytes(b"old")
    bundle = made.bench.bundle()
    archive = next(item for item in bundle.manifest.items if item.role == "conda")
    gone = FileContent(tmp_path / "none" / "gone")
    with pytest.raises(TransportError, match=archive.digest.hex):
        write(path, replace(bundle, contents={**bundle.contents, archive.digest: gone}))
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["a.bundle"]


def test_a_place_that_is_none(made: Made, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="there is no directory"):
        made.bench.write(tmp_path / "none" / "a.bundle")
