"""The composition through the Python API: a request in, an image that has no name yet out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from layers.compress import Codec
from ociforge import base
from ociforge.build import build
from ociforge.built import built_index
from ociforge.errors import BaseImageError, BuildError
from ociforge.events import LayerMade, StageStarted
from ociforge.oci.image import ImageManifest
from ociforge.platform import Platform
from ociforge.publish import publish
from ociforge.request import Request
from ociforge.store import Store
from ociforge.transports import source
from ociforge.workspace import load
from ociforge.workspace.lockfile import read, select
from tests.support.conda import CondaPackage
from tests.support.memory import MemoryDestination
from tests.support.tiny import Tiny, tiny_base, tiny_packages, tiny_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.built import Built
    from ociforge.events import Event

AMD64 = Platform(architecture="amd64")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_workspace(tmp_path_factory.mktemp("tiny") / "workspace")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"oci:{tiny_base(tmp_path_factory.mktemp('base') / 'layout')}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def request_for(tiny: Tiny, store: Store, layout: str | None, codec: str = "none", **overrides: object) -> Request:
    """What the command line makes of a workspace; without `layout` the base is scratch."""
    workspace = load(tiny.root)
    settings = workspace.settings.image(None, overrides)
    environment = workspace.environment(settings.environment, "linux-64")
    below = base.scratch(AMD64) if layout is None else base.load(source(layout), platform=AMD64, store=store)
    return Request(
        workspace=workspace,
        settings=settings,
        environment=environment,
        selection=select(read(workspace.lock_path), settings.environment, environment.platform),
        platform=AMD64,
        base=below,
        codec=Codec.parse(codec),
    )


def titles(built: Built) -> list[str]:
    return [layer.title for layer in built.layers]


class TestBuild:
    def test_workers_change_nothing(self, tiny: Tiny, layout: str, tmp_path: Path) -> None:
        made = []
        for workers in (1, 3):
            store = Store(tmp_path / f"store{workers}")
            made.append(build(request_for(tiny, store, layout, "gzip"), store=store, workers=workers))
        assert made[0].descriptor == made[1].descriptor
        assert made[0].layers == made[1].layers
        assert made[0].documents == made[1].documents

    def test_order_of_layers(self, tiny: Tiny, layout: str, store: Store) -> None:
        """What changes most comes last; packages by name."""
        built = build(request_for(tiny, store, layout), store=store)
        packages = ["hook 1.0", "liba 1.0", "pure 1.0", "python 3.11.9", "tool 2.1", "words 1.0"]
        assert titles(built) == ["environment", *packages, "application"]
        assert len({layer.key for layer in built.layers} - {None}) == 8
        manifest = ImageManifest.parse(built.documents[built.descriptor.digest])
        assert [layer.digest for layer in manifest.layers[2:]] == [layer.layer.digest for layer in built.layers]

    def test_it_names_nothing_and_publishing_does(self, tiny: Tiny, layout: str, store: Store) -> None:
        built = build(request_for(tiny, store, layout), store=store)
        destination = MemoryDestination()
        published = publish(built, destination)
        assert published.descriptor == built.root()
        assert list(destination.tags.values()) == [built.descriptor]
        assert destination.contents.keys() == built.documents.keys() | built.blobs.keys()

    def test_known_layers_are_not_made_again(self, tiny: Tiny, layout: str, store: Store) -> None:
        request = request_for(tiny, store, layout)
        first, second = (build(request, store=store) for _ in range(2))
        assert first.descriptor == second.descriptor
        assert not any(layer.reused for layer in first.layers)
        assert all(layer.reused for layer in second.layers)

    def test_events(self, tiny: Tiny, layout: str, store: Store) -> None:
        events: list[Event] = []
        built = build(request_for(tiny, store, layout), store=store, notify=events.append)
        assert [event.what for event in events if isinstance(event, StageStarted)] == [
            "reading what is in 6 packages",
            "packing 8 of 8 layers",
        ]
        made = [event for event in events if isinstance(event, LayerMade)]
        assert sorted(made, key=lambda event: titles(built).index(event.title)) == [
            LayerMade(layer.title, layer.layer.digest, layer.layer.size, False) for layer in built.layers
        ]

    def test_nothing_temporary_is_left(self, tiny: Tiny, layout: str, store: Store) -> None:
        build(request_for(tiny, store, layout), store=store, workers=2)
        assert list((store.root / "ingest").iterdir()) == []

    def test_layers_share_a_budget(self, tmp_path: Path, store: Store, layout: str) -> None:
        small = tiny_workspace(tmp_path / "ws", settings="layers = 2\n")
        built = build(request_for(small, store, layout), store=store)
        assert len(built.layers) == 2 + 2
        assert [layer.title for layer in built.layers[1:-1]] == ["liba 1.0", "hook, pure, python and 2 more"]

    def test_the_time_is_an_input(self, tiny: Tiny, layout: str, store: Store) -> None:
        plain = request_for(tiny, store, layout)
        made = [build(replace(plain, epoch=epoch), store=store) for epoch in (None, 0, 1)]
        assert len({built.descriptor.digest for built in made}) == 3
        assert [layer.key for layer in made[0].layers] == [layer.key for layer in made[1].layers]
        assert {layer.key for layer in made[2].layers}.isdisjoint(layer.key for layer in made[0].layers)

    def test_files_that_are_no_input(self, tmp_path: Path, layout: str, store: Store) -> None:
        small = tiny_workspace(tmp_path / "ws")
        expected = build(request_for(small, store, layout), store=store).descriptor
        (small.root / "out").mkdir()
        (small.root / "out/a.tar").write_bytes(b"an image")
        request = request_for(small, store, layout)
        assert build(request, store=store).descriptor != expected
        assert build(replace(request, leave_out=(small.root / "out",)), store=store).descriptor == expected

    def test_two_platforms(self, tmp_path: Path, store: Store) -> None:
        both = [*tiny_packages()[:2], *tiny_packages("linux-aarch64")[:2]]
        small = tiny_workspace(tmp_path / "ws", packages=both, platforms=("linux-64", "linux-aarch64"))
        workspace = load(small.root)
        images = []
        for subdir in ("linux-aarch64", "linux-64"):
            platform = Platform.from_subdir(subdir)
            environment = workspace.environment("default", subdir)
            request = replace(
                request_for(small, store, None),
                environment=environment,
                selection=select(read(workspace.lock_path), "default", environment.platform),
                platform=platform,
                base=base.scratch(platform),
            )
            images.append(build(request, store=store))
        forward, backward = built_index(images, {}), built_index(images[::-1], {})
        assert forward.descriptor == backward.descriptor
        destination = MemoryDestination()
        publish(forward, destination)
        assert destination.contents.keys() == forward.documents.keys() | forward.blobs.keys()

    def test_a_prefix_that_the_base_has(self, tiny: Tiny, layout: str, store: Store) -> None:
        """Noticed before any package is fetched."""
        with pytest.raises(BaseImageError, match="prefix `/usr/lib`: the base image has a directory there"):
            build(request_for(tiny, store, layout, prefix="/usr/lib"), store=store)
        assert not (store.root / "archives").exists()

    def test_no_shell(self, tiny: Tiny, store: Store) -> None:
        with pytest.raises(BuildError, match="neither the base image nor the environment has a shell"):
            build(request_for(tiny, store, None), store=store)
        assert list((store.root / "ingest").iterdir()) == []


def test_who_wins_a_conflict_is_part_of_the_key(tmp_path: Path, layout: str) -> None:
    """The winner follows from the whole environment: a layer of one environment must not serve another's."""
    digests = []
    cold = [Store(tmp_path / name) for name in ("a", "b")]
    warm = Store(tmp_path / "warm")
    for index, depends in enumerate([(), ("aaa",)]):
        tiny = tiny_workspace(
            tmp_path / f"ws{index}",
            packages=[
                CondaPackage(name="aaa", files={"share/f": "aaa\n"}),
                CondaPackage(name="mid", version=f"{index}.0", depends=depends),
                CondaPackage(name="zzz", depends=("mid",), files={"share/f": "zzz\n"}),
            ],
            settings="files = []\nlayers = 40\n",
        )
        for store in (cold[index], warm):
            built = build(request_for(tiny, store, layout), store=store)
            digests.append([layer.layer.digest for layer in built.layers[1:-1]])
    assert digests[0] == digests[1] and digests[2] == digests[3]
    assert digests[0] != digests[2]
