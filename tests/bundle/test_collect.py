"""What gets into a bundle of several platforms, and how its base images are called."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from layers.digest import Digest
from ociforge import base, transports
from ociforge.bundle import collect, open_bundle, verify, write
from ociforge.errors import LockError
from ociforge.needs import needs, wanted
from ociforge.network import ONLINE
from ociforge.pins import FILE_NAME, Pins, Use
from ociforge.platform import Platform
from ociforge.store import Store
from ociforge.supplies import Means
from ociforge.workspace import load
from ociforge.workspace.lockfile import read
from tests.support.bases import tar_of, tiny_image
from tests.support.images import write_layout
from tests.support.tiny import SETTINGS, tiny_packages, tiny_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.bundle import Bundle

SUBDIRS = ("linux-64", "linux-aarch64")
PLATFORMS = tuple(Platform.from_subdir(subdir) for subdir in SUBDIRS)


def bundle(root: Path, text: str, pins: Pins) -> Bundle:
    """Of a workspace whose base image is called `text`, for both platforms."""
    packages = [*tiny_packages(), *(p for p in tiny_packages("linux-aarch64") if p.noarch is None)]
    settings = f'{SETTINGS}base = "{text}"\n'
    tiny = tiny_workspace(root / "workspace", packages=packages, platforms=SUBDIRS, settings=settings)
    pins.write(tiny.root / FILE_NAME)
    workspace, store = load(tiny.root), Store(root / "store")
    images = wanted(workspace, read(workspace.lock_path), platforms=None)
    bases = {}
    if not text.startswith("rootfs:"):
        source = transports.source(f"oci:{root / 'base'}")
        for platform in PLATFORMS:
            bases[text, platform] = base.load(source, platform=platform, store=store, name="example.com/base:1")
    means = Means(store=store, staging=root / "staging", network=ONLINE)
    return collect(workspace, images, needs(images, root=workspace.root), bases=bases, means=means)


def index(path: Path) -> list[dict[str, Any]]:
    with tarfile.open(path, "r:") as tar:
        stream = tar.extractfile("index.json")
        assert stream is not None
        found: list[dict[str, Any]] = json.load(stream)["manifests"]
        return found


def test_an_index_for_two_platforms(tmp_path: Path) -> None:
    digest = Digest.parse(write_layout([tiny_image(), tiny_image(architecture="arm64")], tmp_path / "base"))
    text = "docker://example.com/base:1"
    made = bundle(tmp_path, text, Pins(digests={Use.of(text, platform): digest for platform in PLATFORMS}))
    write(tmp_path / "a.bundle", made)
    assert verify(open_bundle(tmp_path / "a.bundle")) == ()
    assert [str(image) for image in made.manifest.images] == [
        "`default` on `linux/amd64`",
        "`default` on `linux/arm64`",
    ]
    documents, layers = (made.manifest.with_role(role) for role in ("base-document", "base-layer"))
    assert len(documents) == 1 + 2 * 2
    assert str(digest) in [str(item.digest) for item in documents]
    assert len(layers) == 2  # the platforms have the same
    assert {item.notes["dev.ociforge.bundle.source"] for item in documents} == {text}
    names = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index(tmp_path / "a.bundle")]
    assert names == ["bundle", "example.com/base:1-linux-amd64", "example.com/base:1-linux-arm64"]
    conda = [item.name for item in made.manifest.with_role("conda")]
    assert {"conda/linux-64/liba-1.0-0.tar.bz2", "conda/linux-aarch64/liba-1.0-0.tar.bz2"} <= {*conda}
    assert len(conda) == len({*conda}) == 10


def test_a_root_file_system(tmp_path: Path) -> None:
    (tmp_path / "rootfs.tar").write_bytes(tar_of({"bin": 0o755, "bin/sh": b"not a program\n"}))
    text, pins = "rootfs:../rootfs.tar", Pins()
    with pytest.raises(LockError, match="is not pinned"):
        bundle(tmp_path / "unpinned", f"rootfs:{tmp_path}/rootfs.tar", pins)
    digest = Digest.of((tmp_path / "rootfs.tar").read_bytes())
    pins = Pins(digests={Use.of(text, platform): digest for platform in PLATFORMS})
    made = bundle(tmp_path, text, pins)
    write(tmp_path / "a.bundle", made)
    assert verify(open_bundle(tmp_path / "a.bundle")) == ()
    [item] = made.manifest.with_role("base-rootfs")
    assert (item.name, item.digest) == ("base/rootfs.tar", digest)


def test_a_base_image_that_has_moved(tmp_path: Path) -> None:
    write_layout([tiny_image(), tiny_image(architecture="arm64")], tmp_path / "base")
    old = Digest.of(b"old")
    pins = Pins(digests={Use.of("oci:../base", platform): old for platform in PLATFORMS})
    with pytest.raises(LockError, match=f"is pinned to `{old}`, but is `sha256:"):
        bundle(tmp_path, "oci:../base", pins)
