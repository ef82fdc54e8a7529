"""The packages of an environment as layers: what settings leave out of them and add to them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from layers.compress import Codec
from ociforge import base
from ociforge.build import build, planned
from ociforge.bytecode import Compiler
from ociforge.errors import BuildError, PackageError
from ociforge.platform import Platform
from ociforge.request import Request
from ociforge.store import Store
from ociforge.workspace import load
from ociforge.workspace.lockfile import read, select
from tests.support.channel import Channel, write_channel
from tests.support.conda import Archive, CondaPackage, Link
from tests.support.lock import LockedEnvironment, conda_rows, write_lock
from tests.support.python import SHORT, python_archive
from tests.support.reading import read_images
from tests.support.tiny import MANIFEST, Tiny, tiny_workspace

if TYPE_CHECKING:
    import tarfile

    from ociforge.built import Built
    from ociforge.packages import Installer

AMD64 = Platform.parse("linux/amd64")
PREFIX = "app/.pixi/envs/default"
HOOK = CondaPackage(name="hook", files={"bin/sh": ""}, activate="true\n")
SOURCE = "def main():\n    return {1, 2, None, 'x'}\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A real interpreter, a noarch package without bytecode, and a library with what can be stripped."""
    root = tmp_path_factory.mktemp("packages") / "workspace"
    packages: list[CondaPackage | Archive] = [
        python_archive(),
        CondaPackage(
            name="pure",
            noarch="python",
            depends=("python",),
            files={"site-packages/pure/__init__.py": SOURCE, "site-packages/pure/broken.py": "def ("},
        ),
        CondaPackage(
            name="lib",
            files={
                "lib/liblib.a": "static",
                "lib/liblib.so": "shared",
                "lib/lib.js.map": "map",
                "include/lib.h": "header",
                "share/man/man1/lib.1": "manual",
                "lib/link.h": Link("../include/lib.h"),
            },
        ),
    ]
    channel: Channel = write_channel(root.with_name("channel"), packages)
    root.mkdir()
    names = sorted({archive.record["name"] for archive in channel.archives})
    (root / "pixi.toml").write_text(
        MANIFEST.format(
            channel=channel.url,
            platforms='"linux-64"',
            dependencies="\n".join(f'{name} = "*"' for name in names),
            settings="files = []\n",
        )
    )
    locked = LockedEnvironment(channels=(channel.url,), packages={"linux-64": conda_rows(channel)})
    write_lock(root / "pixi.lock", {"default": locked})
    return Tiny(root=root, channel=channel)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def request_of(tiny: Tiny, platform: Platform = AMD64, **settings: Any) -> Request:
    workspace = load(tiny.root)
    environment = workspace.environment("default", "linux-64")
    return Request(
        workspace=workspace,
        settings=replace(workspace.settings.image(None), **settings),
        environment=environment,
        selection=select(read(workspace.lock_path), "default", environment.platform),
        platform=platform,
        base=base.scratch(platform),
        codec=Codec.parse("none"),
    )


def members(built: Built) -> dict[str, tarfile.TarInfo]:
    """What the image's layers hold."""

    def blob(digest: str) -> bytes:
        (found,) = [d for d in (*built.documents, *built.blobs) if str(d) == digest]
        data = built.documents.get(found)
        if data is not None:
            return data
        with built.blobs[found].open() as stream:
            return stream.read()

    images = read_images(lambda path: _read(built, path, blob))
    [(image,)] = images.values()
    return image.tree()


def _read(built: Built, path: str, blob: Any) -> bytes:
    import json

    if path == "index.json":
        return json.dumps({"manifests": [built.descriptor.to_json()]}).encode()
    return bytes(blob("sha256:" + path.rpartition("/")[2]))


@pytest.mark.parametrize("installer", ["stream", "rattler"])
def test_by_default_static_libraries_and_source_maps_are_left_out(
    tiny: Tiny, tmp_path: Path, installer: Installer
) -> None:
    tree = members(build(request_of(tiny), store=Store(tmp_path), installer=installer))
    kept = {path.removeprefix(f"{PREFIX}/") for path in tree}
    assert {"lib/liblib.so", "include/lib.h", "share/man/man1/lib.1", "conda-meta/lib-1.0-0.json"} <= kept
    assert kept.isdisjoint({"lib/liblib.a", "lib/lib.js.map"})


def test_every_policy_does_the_same_with_either_installer(tiny: Tiny, tmp_path: Path) -> None:
    request = request_of(tiny, strip=("conda-meta", "docs", "headers"))
    made = [
        build(request, store=Store(tmp_path / installer), installer=installer) for installer in ("stream", "rattler")
    ]
    assert made[0].descriptor == made[1].descriptor
    kept = {path.removeprefix(f"{PREFIX}/") for path in members(made[0])}
    assert {"lib/liblib.a", "lib/link.h", "conda-meta/history"} <= kept
    assert not any(path.startswith(("include/lib", "share/man", "conda-meta/lib")) for path in kept)


def test_a_plan_tells_what_is_left_out(tiny: Tiny, tmp_path: Path) -> None:
    with planned(request_of(tiny), store=Store(tmp_path)) as plan:
        found = plan.left_out()
    assert found["js-maps"] == (1, 3)
    assert found["static-libraries"][0] >= 1


def test_bytecode_is_what_the_environments_interpreter_makes(tiny: Tiny, tmp_path: Path) -> None:
    """With any number of workers and either installer; a shipped one stays."""
    request = request_of(tiny, bytecode="unchecked-hash")
    first = build(request, store=Store(tmp_path / "a"), workers=2)
    second = build(request, store=Store(tmp_path / "b"), installer="rattler")
    assert first.descriptor == second.descriptor
    plain = build(request_of(tiny), store=Store(tmp_path / "c"))
    keys = [{layer.title.split()[0]: layer.key for layer in built.layers} for built in (first, plain)]
    assert keys[0]["pure"] != keys[1]["pure"]
    assert keys[0]["lib"] == keys[1]["lib"]  # no Python, no matter
    path = f"{PREFIX}/lib/python{SHORT}/site-packages/pure/__init__.py"
    with Compiler(Path(sys.executable), SHORT) as compiler:
        expected = compiler.compile(path, SOURCE.encode())
    assert expected is not None
    tree = members(first)
    assert tree[expected[0]].size == len(expected[1])
    assert not any("broken" in name and name.endswith(".pyc") for name in tree)


def test_bytecode_for_another_machine_is_refused(tiny: Tiny, store: Store) -> None:
    """Before anything is fetched."""
    request = request_of(tiny, Platform.parse("linux/arm64"), bytecode="unchecked-hash")
    with pytest.raises(BuildError, match="bytecode for `linux/arm64` cannot be compiled here"):
        build(replace(request, base=base.scratch(Platform.parse("linux/arm64"))), store=store)


def test_an_archive_that_changes_while_it_is_read(tiny: Tiny, tmp_path: Path) -> None:
    channel = tiny.copy(tmp_path / "workspace")
    request = request_of(channel)
    archive = channel.archive("lib")
    with planned(request, store=Store(tmp_path / "store")) as plan:
        (layer,) = [layer for layer in plan.layers if layer.title.startswith("lib")]
        (segment,) = layer.segments()
        entries = iter(segment.entries)
        next(entries)
        data = archive.read_bytes()
        try:
            archive.write_bytes(data)
            with pytest.raises(PackageError, match="was changed while it was read"):
                list(entries)
        finally:
            archive.write_bytes(data)


@pytest.mark.parametrize(
    ("installer", "message"),
    [("stream", "is not what the archive holds"), ("rattler", "is not what the channel served as their `info`")],
)
def test_what_a_channel_served_wrongly_is_forgotten(tmp_path: Path, installer: Installer, message: str) -> None:
    """A plan is made with another archive than the lock names; the build finds out, and the next one is right."""
    made = tiny_workspace(
        tmp_path / "workspace", packages=[dataclasses.replace(HOOK, activate=None, files={"bin/sh": "", "x": ""})]
    )
    lying = made.archive("hook").read_bytes()
    tiny = tiny_workspace(tmp_path / "other", packages=[HOOK], channel=tmp_path / "other-channel")
    archive, store = tiny.archive("hook"), Store(tmp_path / "store")
    honest = archive.read_bytes()
    archive.write_bytes(lying)
    with planned(request_of(tiny), store=store):
        pass
    archive.write_bytes(honest)
    with pytest.raises((BuildError, PackageError), match=message):
        build(request_of(tiny), store=store, installer=installer)
    if installer == "rattler":
        with pytest.raises(PackageError, match="what the channel served as its `info`"):
            build(request_of(tiny), store=store)
    clean = build(request_of(tiny), store=Store(tmp_path / "clean"))
    assert build(request_of(tiny), store=store).descriptor == clean.descriptor
