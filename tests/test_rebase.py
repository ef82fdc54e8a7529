"""Another base under an image, through the Python API: images in memory, bases in layouts."""

from __future__ import annotations

import dataclasses
import io
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from layers.compress import Codec
from layers.digest import Digest
from layers.entry import Bytes, Directory, Entry, File, Symlink
from layers.layer import write_layer
from layers.tree import Segment
from ociforge import base, transports
from ociforge.errors import BaseImageError, ForgeError, ImageError
from ociforge.events import Warned
from ociforge.oci.annotations import BASE_DIGEST, BASE_NAME, FORMAT, GLIBC, IMAGE_KEY, LAYER_KEY, LAYER_TITLE, RESTATED
from ociforge.oci.config import ConfigChanges, ImageConfig
from ociforge.oci.descriptor import MANIFEST
from ociforge.oci.image import ImageManifest, assemble
from ociforge.oci.index import ImageIndex, assemble_index
from ociforge.oci.restated import restated
from ociforge.platform import Platform
from ociforge.publish import publish
from ociforge.rebase import rebase
from ociforge.store import Store
from tests.support.bases import PATH, Member, tar_of, tiny_image
from tests.support.images import HandmadeImage, write_docker_archive, write_layout
from tests.support.memory import MemoryDestination, MemorySource, keep

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from layers.layer import Layer
    from ociforge.base import Base
    from ociforge.built import Built
    from ociforge.events import Event
    from ociforge.transports.base import Source

AMD64, ARM64 = Platform(architecture="amd64"), Platform(architecture="arm64", variant="v8")
PREFIX = "app/.pixi/envs/default"
OWN_ENV = {
    "PATH": f"/{PREFIX}/bin:(base)",  # a build puts the base's there
    "CONDA_PREFIX": f"/{PREFIX}",
    "PIXI_PROJECT_ROOT": "/app",
}
CHANGES = ConfigChanges(
    env=OWN_ENV,
    entrypoint=("/app/entrypoint.sh",),
    cmd=("tool",),
    workdir="/app",
    expose=("8000",),
    labels={"maintainer": "me", "own": "1"},
)


def regular(path: str, text: str = "", mode: int = 0o644) -> File:
    return File(path=path, size=len(text.encode()), content=Bytes(text.encode()), mode=mode)


def above(*paths: str, **metadata: int) -> tuple[Directory, ...]:
    """Directory entries of `paths` and all above them."""
    found = {"/".join(path.split("/")[:n]) for path in paths for n in range(1, path.count("/") + 2)}
    return tuple(Directory(path=path, **metadata) for path in sorted(found))


def skeleton(prefix: str = PREFIX, shell: str = "/bin/sh", place: str = "app", **metadata: int) -> tuple[Entry, ...]:
    return (
        *above(f"{prefix}/conda-meta", place, **metadata),
        regular(f"{prefix}/conda-meta/history"),
        regular(f"{place}/entrypoint.sh", f'#!{shell}\nexec "$@"\n', 0o755),
    )


def own_layers(
    environment: Iterable[Entry] = skeleton(), application: Iterable[Entry] = (*above("app"), regular("app/main.py"))
) -> dict[str, Iterable[Entry]]:
    package: tuple[Entry, ...] = (*above(f"{PREFIX}/bin")[3:], regular(f"{PREFIX}/bin/tool"))
    return {"environment": environment, "tool 2.1": package, "application": application}


@dataclass
class Scene:
    """Bases by location, a store, and what was told."""

    directory: Path
    store: Store
    bases: dict[str, Path] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    opened_as: dict[str, MemorySource] = field(default_factory=dict)

    def base(self, name: str, *images: HandmadeImage, docker: bool = False) -> Base:
        """Keep a base that is called `name`; what it is for amd64."""
        path = self.directory / name.replace("/", "-").replace(":", "-")
        many = images if len(images) > 1 else images[0]
        write_layout(
            many if isinstance(many, HandmadeImage) else list(many), path, dialect="docker" if docker else "oci"
        )
        self.bases[name] = path
        return self.open(f"docker://{name}", AMD64)

    def open(self, location: str, platform: Platform) -> Base:
        self.opened.append(location)
        if location == "scratch":
            return base.scratch(platform)
        if location in self.opened_as:
            return base.load(self.opened_as[location], platform=platform, store=self.store)
        name = location.removeprefix("docker://").partition("@")[0]
        source = transports.source(f"oci:{self.bases[name]}")
        return base.load(source, platform=platform, store=self.store, name=name)

    def rebase(self, image: Source, new: str, old: str | None = None) -> Built:
        return rebase(image, new, old=old, open_base=self.open, store=self.store, notify=self.events.append)

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, Store(tmp_path / "store"))


def build(
    on: Base,
    layers: Mapping[str, Iterable[Entry]] | None = None,
    changes: ConfigChanges = CHANGES,
    *,
    titled: bool = True,
    created: int | None = None,
    notes: Mapping[str, str | None] | None = None,
) -> MemorySource:
    """What a build would make on a base; `notes` are annotations to add, or to leave out."""
    contents: dict[Digest, bytes] = {}
    made: list[tuple[Layer, str, dict[str, str]]] = []
    for title, entries in (own_layers() if layers is None else layers).items():
        sink = io.BytesIO()
        layer = write_layer([Segment(title, tuple(entries))], sink, Codec.parse("none"))
        contents[layer.digest] = sink.getvalue()
        names = {LAYER_TITLE: title, LAYER_KEY: str(Digest.of(title.encode()))} if titled else {}
        made.append((layer, f"ociforge: {title}", names))
    path = on.config.env.get("PATH", PATH)
    changes = replace(changes, env={name: value.replace("(base)", path) for name, value in changes.env.items()})
    said: dict[str, str | None] = {
        "title": "app",
        BASE_NAME: on.name,
        BASE_DIGEST: None if on.digest is None else str(on.digest),
    }
    said |= {FORMAT: "1", GLIBC: "2.28", IMAGE_KEY: str(Digest.of(repr(on.digest).encode()))} if titled else {}
    said |= restated(on.config, changes) if titled else {}
    annotations = {key: value for key, value in {**said, **(notes or {})}.items() if value is not None}
    image = assemble(on.config, on.layers, made, changes, annotations, created)
    contents |= {image.descriptor.digest: image.manifest, image.config_descriptor.digest: image.config}
    return MemorySource(image.descriptor, contents)


def documents(image: MemorySource | Built) -> tuple[ImageManifest, ImageConfig]:
    top = image.root()
    manifest = ImageManifest.parse(image.open(top).read())
    return manifest, ImageConfig.parse(image.open(manifest.config).read())


def without_key(manifest: ImageManifest) -> ImageManifest:
    return replace(manifest, annotations={k: v for k, v in manifest.annotations.items() if k != IMAGE_KEY})


def tiny(*, extra: Mapping[str, Member] | None = None, **config: Any) -> HandmadeImage:
    image = tiny_image(extra=extra)
    return dataclasses.replace(image, config={**image.config, **config})


NEWER = tiny(
    extra={"etc/new": b"new\n"},
    Env=["PATH=/usr/bin:/new/bin", "LANG=C", "NEWER=1"],
    User="1000",
    Labels={"maintainer": "new", "org.opencontainers.image.version": "2"},
    StopSignal="SIGINT",
    Cmd=["/bin/new"],
    WorkingDir="/new",
)


class TestTheSameAsBuilding:
    def test_on_the_new_base(self, scene: Scene) -> None:
        """The manifest, up to the key of the image; so the configuration and the layers as well."""
        old, new = scene.base("h.io/old:1", tiny()), scene.base("h.io/new:1", NEWER)
        for created in (None, 1_700_000_000):
            rebased = scene.rebase(build(old, created=created), "docker://h.io/new:1")
            wanted = build(new, created=created)
            assert documents(rebased) == (without_key(documents(wanted)[0]), documents(wanted)[1])
            assert rebased.descriptor.platform == wanted.top.platform

    def test_there_and_back(self, scene: Scene) -> None:
        old, new = scene.base("h.io/old:1", tiny()), scene.base("h.io/new:1", NEWER)
        there = scene.rebase(build(old), "docker://h.io/new:1")
        assert scene.opened[-2] == f"docker://h.io/old:1@{old.digest}"
        destination = MemoryDestination()
        publish(there, destination)
        back = scene.rebase(destination.source(), "docker://h.io/old:1")
        assert scene.opened[-2] == f"docker://h.io/new:1@{new.digest}"
        assert documents(back)[0] == without_key(documents(build(old))[0])

    @pytest.mark.parametrize("compression", ["gzip", "none"])
    def test_a_base_in_dockers_types(self, scene: Scene, compression: str) -> None:
        old, new = scene.base("h.io/old:1", tiny(), docker=True), scene.base("h.io/new:1", NEWER, docker=True)
        rebased = scene.rebase(build(old), "docker://h.io/new:1")
        assert documents(rebased)[0] == without_key(documents(build(new))[0])
        assert rebased.descriptor.media_type == MANIFEST

    def test_scratch_above_and_below(self, scene: Scene) -> None:
        changes = replace(CHANGES, entrypoint=(), env={**OWN_ENV})
        environment: list[Entry] = [entry for entry in skeleton() if not entry.path.endswith(".sh")]
        layers = own_layers(environment)
        old = scene.base("h.io/old:1", tiny())
        empty = build(base.scratch(AMD64), layers, changes)
        on_nothing = scene.rebase(build(old, layers, changes), "scratch")
        assert documents(on_nothing)[0].layers == documents(empty)[0].layers
        assert BASE_NAME not in documents(on_nothing)[0].annotations
        assert documents(on_nothing) == (without_key(documents(empty)[0]), documents(empty)[1])
        on_old = scene.rebase(empty, "docker://h.io/old:1")
        assert documents(on_old)[0] == without_key(documents(build(old, layers, changes))[0])

    def test_one_layer_and_several(self, scene: Scene) -> None:
        old = scene.base("h.io/old:1", dataclasses.replace(tiny(), layers=(tiny().layers[0],), history=None))
        new = scene.base(
            "h.io/new:1", dataclasses.replace(NEWER, layers=(*NEWER.layers, tar_of({"etc/more": b""})), history=())
        )
        rebased = scene.rebase(build(old), "docker://h.io/new:1")
        assert documents(rebased) == (without_key(documents(build(new))[0]), documents(build(new))[1])
        assert len(documents(rebased)[0].layers) == 3 + 3


class TestConfiguration:
    """Of images of others, where Docker's rules hold."""

    def config(self, scene: Scene, old: HandmadeImage, new: HandmadeImage, changes: ConfigChanges) -> ImageConfig:
        below = scene.base("h.io/old:1", old)
        scene.base("h.io/new:1", new)
        layers: dict[str, list[Entry]] = {"files": [*above("opt/own"), regular("opt/own/file")]}
        image = build(below, layers, changes, titled=False)
        return documents(scene.rebase(image, "docker://h.io/new:1"))[1]

    def test_all_that_was_inherited_is_replaced(self, scene: Scene) -> None:
        found = self.config(scene, tiny(User="5", Shell=["/bin/sh"], Volumes={"/old": {}}), NEWER, ConfigChanges())
        assert found.env == {"PATH": "/usr/bin:/new/bin", "LANG": "C", "NEWER": "1"}
        assert (found.user, found.workdir, found.stop_signal) == ("1000", "/new", "SIGINT")
        assert (found.entrypoint, found.cmd, found.shell, found.volumes) == (None, ("/bin/new",), None, ())
        assert found.labels == {"maintainer": "new", "org.opencontainers.image.version": "2"}

    def test_all_that_is_its_own_stays(self, scene: Scene) -> None:
        changes = ConfigChanges(
            env={"LANG": "de", "PATH": "/own"},
            entrypoint=("/opt/own/file",),
            user="7",
            workdir="/opt/own",
            volumes=("/data",),
            expose=("80",),
            labels={"maintainer": "me"},
            stop_signal="SIGQUIT",
            healthcheck={"Test": ["NONE"]},
        )
        found = self.config(scene, tiny(Volumes={"/old": {}}), tiny(Volumes={"/new": {}}, User="1000"), changes)
        assert found.env == {"PATH": "/own", "LANG": "de"}
        assert (found.entrypoint, found.cmd) == (("/opt/own/file",), None)
        assert (found.user, found.workdir, found.stop_signal) == ("7", "/opt/own", "SIGQUIT")
        assert (set(found.volumes), found.exposed_ports) == ({"/new", "/data"}, ("80/tcp",))
        assert found.labels == {"maintainer": "me", "org.opencontainers.image.version": "1"}
        assert found.healthcheck == {"Test": ["NONE"]}

    @pytest.mark.parametrize(
        ("changes", "command"),
        [
            ({}, (("/new",), ("new",))),
            ({"cmd": ("own",)}, (("/new",), ("own",))),
            ({"entrypoint": ("/own",)}, (("/own",), None)),
            ({"entrypoint": ("/own",), "cmd": ("old",)}, (("/own",), ("old",))),
        ],
    )
    def test_the_command(self, scene: Scene, changes: dict[str, Any], command: object) -> None:
        old, new = (tiny(Entrypoint=[f"/{name}"], Cmd=[name]) for name in ("old", "new"))
        found = self.config(scene, old, new, ConfigChanges(**changes))
        assert (found.entrypoint, found.cmd) == command

    @pytest.mark.parametrize(
        ("old", "own", "new", "path"),
        [
            ("/a:/b", "/x:/a:/b", "/c", "/x:/c"),
            ("/a", "/x:/b/a", "/c", "/x:/b/a"),  # it only ends like the base's
            ("/a", "/a", "/c", "/c"),
            (None, f"/x:{PATH}", "/c", "/x:/c"),
            ("/a", "/x:/a", None, f"/x:{PATH}"),
            ("/a", "/a", None, None),
        ],
    )
    def test_the_path(self, scene: Scene, old: str | None, own: str, new: str | None, path: str | None) -> None:
        below, above = (tiny(Env=[] if text is None else [f"PATH={text}"]) for text in (old, new))
        assert self.config(scene, below, above, ConfigChanges(env={"PATH": own})).env.get("PATH") == path

    def test_what_only_the_platform_or_docker_says(self, scene: Scene) -> None:
        """The version of the system is the base's; triggers and docker's notes are nobody's."""

        class Versioned(HandmadeImage):
            def config_document(self) -> dict[str, Any]:
                said = {"os.version": self.architecture + self.config["User"], "author": self.config["User"]}
                return {**super().config_document(), **said, "container": "c"}

        def versioned(user: str) -> HandmadeImage:
            image = tiny(User=user, OnBuild=["RUN true"])
            return Versioned(layers=image.layers, config=image.config, history=image.history)

        found = self.config(scene, versioned("1"), versioned("2"), ConfigChanges())
        assert (found.raw["os.version"], found.raw["author"], found.user) == ("amd642", "2", "2")
        assert "container" not in found.raw
        assert "OnBuild" not in found.raw["config"]

    def test_history(self, scene: Scene) -> None:
        old = scene.base("h.io/old:1", tiny())
        scene.base("h.io/new:1", NEWER)
        source = build(old, created=0)
        manifest, config = documents(source)
        above = [entry for entry in config.history if str(entry.get("created_by")).startswith("ociforge")]
        for history, own in (
            (config.history, above),
            ([{"created_by": "squashed"}, {"created_by": "x", "empty_layer": True}, *config.history[2:]], above),
            (config.history[1:], [{"comment": "layer without a history"}] * 3),
            ([], [{"comment": "layer without a history"}] * 3),
        ):
            changed = keep(source.contents, {**config.raw, "history": list(history)}, manifest.config.media_type)
            top = keep(source.contents, replace(manifest, config=changed).to_json(), MANIFEST)
            found = documents(scene.rebase(MemorySource(top, source.contents), "docker://h.io/new:1"))[1]
            assert list(found.history) == [*NEWER.history, *own]  # type: ignore[misc]  # it has one
            assert found.created == "1970-01-01T00:00:00Z"


class TestAnnotations:
    def test_the_base_is_told_anew_and_the_rest_stays(self, scene: Scene) -> None:
        old, new = scene.base("h.io/old:1", tiny()), scene.base("h.io/new:1", NEWER)
        source = build(old, notes={"org.example": "1"})
        before, after = (documents(image)[0] for image in (source, scene.rebase(source, "docker://h.io/new:1")))
        assert IMAGE_KEY in before.annotations
        assert after.annotations == {
            "title": "app",
            "org.example": "1",
            FORMAT: "1",
            GLIBC: "2.28",
            BASE_NAME: "h.io/new:1",
            BASE_DIGEST: str(new.digest),
        }
        assert [layer.annotations for layer in after.layers[2:]] == [layer.annotations for layer in before.layers[2:]]


RESTATING = replace(
    CHANGES,
    env={**OWN_ENV, "LANG": "C.UTF-8"},
    user="7",
    labels={"maintainer": "me"},
    expose=("8000",),
    volumes=("/data",),
    stop_signal="SIGQUIT",
    healthcheck={"Test": ("CMD", "true"), "Retries": 3},
)
SAME = tiny(
    Env=[f"PATH={PATH}", "LANG=C.UTF-8", "PIXI_PROJECT_ROOT=/app", "OTHER=1"],
    User="7",
    Labels={"maintainer": "me", "other": "1"},
    ExposedPorts={"8000/tcp": {}},
    Volumes={"/data": {}},
    StopSignal="SIGQUIT",
    Healthcheck={"Test": ["CMD", "true"], "Retries": 3},
    WorkingDir="/app",
    Entrypoint=["/app/entrypoint.sh"],
    Cmd=["tool"],
)


class TestWhatIsRestated:
    """Settings of an image which its base has, too."""

    def told(self, image: MemorySource | Built) -> object:
        """What counts; the order of variables is that of the bases which they met first."""
        manifest, config = documents(image)
        run = {**config.raw["config"], "Env": sorted(config.raw["config"]["Env"])}
        return manifest.layers, without_key(manifest).annotations, {**config.raw, "config": run}

    @pytest.mark.parametrize("new", [tiny(), NEWER, SAME])
    def test_stays_on_every_base(self, scene: Scene, new: HandmadeImage) -> None:
        """As if built on it. Also after a detour by a base that has the same, or nothing of it."""
        old = scene.base("h.io/old:1", SAME)
        wanted = build(scene.base("h.io/new:1", new), changes=RESTATING)
        image = build(old, changes=RESTATING)
        for detour in ("old", "tiny", "old"):
            scene.base(f"h.io/{detour}:1", SAME if detour == "old" else tiny())
            assert self.told(scene.rebase(image, "docker://h.io/new:1")) == self.told(wanted)
            destination = MemoryDestination()
            publish(scene.rebase(image, f"docker://h.io/{detour}:1"), destination)
            image = destination.source()
        config = documents(scene.rebase(image, "docker://h.io/new:1"))[1]
        assert (config.user, config.env["LANG"], config.labels["maintainer"]) == ("7", "C.UTF-8", "me")
        assert scene.warnings == []

    def test_is_told_only_where_there_is_any(self, scene: Scene) -> None:
        notes = documents(build(scene.base("h.io/same:1", SAME), changes=RESTATING))[0].annotations
        assert notes[RESTATED] == (
            '["Env:LANG","ExposedPorts:8000/tcp","Healthcheck","Labels:maintainer","StopSignal","User","Volumes:/data"]'
        )
        for on in (tiny(Env=[]), NEWER):
            assert RESTATED not in documents(build(scene.base("h.io/other:1", on), changes=RESTATING))[0].annotations

    def test_in_an_image_without_a_word_nothing_is(self, scene: Scene) -> None:
        source = build(scene.base("h.io/old:1", SAME), changes=RESTATING, notes={RESTATED: None})
        scene.base("h.io/new:1", NEWER)
        config = documents(scene.rebase(source, "docker://h.io/new:1"))[1]
        assert (config.user, config.env["LANG"], config.labels["maintainer"]) == ("1000", "C", "new")

    def test_of_an_image_of_others_the_user_is_told(self, scene: Scene) -> None:
        layers: dict[str, list[Entry]] = {"files": [regular("own")]}
        source = build(scene.base("h.io/old:1", SAME), layers, RESTATING, titled=False)
        for name, new, user in (("new", NEWER, "1000"), ("none", tiny(), "root")):
            scene.base(f"h.io/{name}:1", new)
            scene.events.clear()
            scene.rebase(source, f"docker://h.io/{name}:1")
            (warning,) = scene.warnings
            assert warning == (
                f"image `{source.top.digest}`: its containers run as `{user}`, which the new base says, no longer as"
                " `7`, which the old one said"
            )

    def test_of_an_image_of_others_stays_known(self, scene: Scene) -> None:
        """What the new base happens to say, too, is still the image's own on the one after."""
        layers: dict[str, list[Entry]] = {"files": [regular("own")]}
        changes = replace(RESTATING, env={"LANG": "C.UTF-8"})
        source = build(scene.base("h.io/old:1", tiny()), layers, changes, titled=False)
        scene.base("h.io/same:1", SAME)
        scene.base("h.io/new:1", NEWER)
        destination = MemoryDestination()
        publish(scene.rebase(source, "docker://h.io/same:1"), destination)
        there = documents(scene.rebase(source, "docker://h.io/new:1"))[1]
        assert documents(scene.rebase(destination.source(), "docker://h.io/new:1"))[1] == there
        assert scene.warnings == []

    @pytest.mark.parametrize("text", ["", "User", '{"User":1}', "[1]"])
    def test_an_annotation_that_is_none(self, scene: Scene, text: str) -> None:
        source = build(scene.base("h.io/old:1", SAME), notes={RESTATED: text}, changes=CHANGES)
        error = refusal(scene, source, NEWER)
        assert isinstance(error, ImageError)
        assert error.message.startswith(f"annotation `{RESTATED}`: ")


class TestWhatIsRead:
    def test_of_our_image_two_documents_and_the_skeleton(self, scene: Scene) -> None:
        source = build(scene.base("h.io/old:1", tiny()))
        scene.base("h.io/new:1", NEWER)
        scene.rebase(source, "docker://h.io/new:1")
        manifest, _ = documents(source)
        assert source.opened[:3] == [source.top.digest, manifest.config.digest, manifest.layers[2].digest]
        assert len(source.opened) == 3 + 2

    def test_the_application_where_the_new_base_has_something(self, scene: Scene) -> None:
        source = build(scene.base("h.io/old:1", tiny()))
        scene.base("h.io/new:1", tiny(extra={"app": 0o755}))
        scene.rebase(source, "docker://h.io/new:1")
        manifest, _ = documents(source)
        assert source.opened[2:4] == [manifest.layers[2].digest, manifest.layers[4].digest]

    def test_all_of_another_image_once(self, scene: Scene) -> None:
        source = build(scene.base("h.io/old:1", tiny()), titled=False)
        scene.base("h.io/new:1", NEWER)
        for count in (3, 0):
            source.opened.clear()
            scene.rebase(source, "docker://h.io/new:1")
            assert len(source.opened) == 2 + count

    def test_the_old_base_only_by_its_documents(self, scene: Scene) -> None:
        old = scene.base("h.io/old:1", tiny())
        new = scene.base("h.io/new:1", NEWER)
        scene.rebase(build(old), "docker://h.io/new:1")
        kept = [scene.store.trees.find(layer.digest) is not None for layer in (*old.layers, *new.layers)]
        assert kept == [True, False, True, True]  # they have the first in common

    def test_a_skeleton_that_is_none(self, scene: Scene) -> None:
        old = scene.base("h.io/old:1", tiny())
        source = build(old, own_layers(above("app")))
        with pytest.raises(ImageError, match="it is called `environment`, but has no history of one"):
            scene.rebase(source, "docker://h.io/old:1")

    def test_a_layer_that_is_not_the_one_in_the_configuration(self, scene: Scene) -> None:
        old = scene.base("h.io/old:1", tiny())
        source = build(old)
        manifest, config = documents(source)
        wrong = str(Digest.of(b""))
        rootfs = {"type": "layers", "diff_ids": [*map(str, config.diff_ids[:2]), *[wrong] * 3]}
        changed = keep(source.contents, {**config.raw, "rootfs": rootfs}, manifest.config.media_type)
        top = keep(source.contents, replace(manifest, config=changed).to_json(), MANIFEST)
        with pytest.raises(ImageError, match=f"but the configuration says `{wrong}`"):
            scene.rebase(MemorySource(top, source.contents), "docker://h.io/old:1")


def refusal(scene: Scene, image: Source, new: HandmadeImage | str, old: str | None = None) -> ForgeError:
    if isinstance(new, HandmadeImage):
        scene.base("h.io/new:1", new)
        new = "docker://h.io/new:1"
    with pytest.raises(ForgeError) as caught:
        scene.rebase(image, new, old)
    return caught.value


class TestTheOldBase:
    def test_images_that_do_not_tell(self, scene: Scene) -> None:
        old = scene.base("h.io/old:1", tiny())
        hint = "name the image that it was built on with `--old-base LOCATION`"
        unnamed = ": bases that are in no registry have no name"
        for key, what, more in (
            (BASE_NAME, f"it stands on `{old.digest}`, and does not say where that is", unnamed),
            (BASE_DIGEST, "it does not say what it stands on", ""),
        ):
            source = build(old, notes={key: None})
            error = refusal(scene, source, NEWER)
            assert error.message == f"image `{source.top.digest}`: {what}: there is no annotation `{key}`"
            assert error.hint == hint + more
            rebased = scene.rebase(source, "docker://h.io/old:1", "docker://h.io/old:1")
            assert documents(rebased)[1] == documents(source)[1]

    def test_no_base_is_only_taken_for_scratch_where_all_layers_are_ours(self, scene: Scene) -> None:
        old = scene.base("h.io/old:1", tiny())
        unnamed = {BASE_NAME: None, BASE_DIGEST: None}
        for source in (build(old, notes=unnamed), build(base.scratch(AMD64), titled=False)):
            assert "does not say what it stands on" in refusal(scene, source, NEWER).message

    def test_one_that_is_not_where_it_was(self, scene: Scene) -> None:
        """What to do is told, but not of a base that `--old-base` itself names."""
        source = build(scene.base("h.io/old:1", tiny()))
        shutil.rmtree(scene.bases["h.io/old:1"])
        error = refusal(scene, source, NEWER)
        assert error.message.startswith(
            f"image `{source.top.digest}`: the base image in its annotations: reading `oci:{scene.directory}/"
        )
        assert error.hint is not None
        assert error.hint.endswith("name that with `--old-base LOCATION`, or a registry that has it with `--mirror`")
        assert "--old-base" not in str(refusal(scene, source, NEWER, "docker://h.io/old:1").hint)

    def test_another_than_the_one_below(self, scene: Scene) -> None:
        source = build(scene.base("h.io/old:1", tiny()))
        scene.base("h.io/other:1", NEWER)
        scene.base("h.io/large:1", dataclasses.replace(tiny(), layers=tiny().layers * 4, history=None))
        for name in ("other", "large"):
            error = refusal(scene, source, NEWER, f"docker://h.io/{name}:1")
            assert error.message == (
                f"image `{source.top.digest}`: it does not stand on `docker://h.io/{name}:1`, "
                "whose layers are not its lowest"
            )

    @pytest.mark.parametrize("wrong", ["scratch", "itself", "its lower half", "scratch, below a base of ours"])
    def test_one_that_leaves_out_or_takes_some_of_our_layers(self, scene: Scene, wrong: str) -> None:
        """All of them are the image's lowest."""
        old = scene.base("h.io/old:1", tiny())
        environment: list[Entry] = [*above("x/conda-meta"), regular("x/conda-meta/history")]
        ours = build(base.scratch(AMD64), {"environment": environment})
        source = build(old)
        location = "scratch"
        if wrong == "itself":
            scene.opened_as["docker://h.io/app:1"] = source
            location = "docker://h.io/app:1"
        elif wrong == "its lower half":
            scene.opened_as["docker://h.io/app:1"] = build(old, dict(list(own_layers().items())[:2]))
            location = "docker://h.io/app:1"
        elif wrong != "scratch":
            scene.opened_as["docker://h.io/ours:1"] = ours
            source = build(scene.open("docker://h.io/ours:1", AMD64))
        error = refusal(scene, source, NEWER, location)
        assert error.message == (
            f"image `{source.top.digest}`: it does not stand on `{location}`:"
            " its own layers do not begin above the layers of that"
        )
        assert error.hint is not None and error.hint.startswith("name the image that it was built on with `--old-base")

    def test_one_of_ours(self, scene: Scene) -> None:
        """Its layers have titles, too."""
        environment: list[Entry] = [*above("x/conda-meta"), regular("x/conda-meta/history")]
        scene.opened_as["docker://h.io/ours:1"] = build(base.scratch(AMD64), {"environment": environment})
        source = build(scene.open("docker://h.io/ours:1", AMD64), changes=replace(CHANGES, entrypoint=()))
        scene.base("h.io/new:1", NEWER)
        rebased = scene.rebase(source, "docker://h.io/new:1", "docker://h.io/ours:1")
        assert len(documents(rebased)[0].layers) == 2 + 3

    def test_a_contradiction_in_an_image_of_others(self, scene: Scene) -> None:
        old = scene.base("h.io/old:1", tiny())
        other = scene.base("h.io/copy:1", tiny(User="9"))
        scene.base("h.io/new:1", NEWER)
        source = build(old, titled=False)
        scene.rebase(source, "docker://h.io/new:1", "docker://h.io/old:1")
        assert not any("annotations" in warning for warning in scene.warnings)
        scene.rebase(source, "docker://h.io/new:1", "docker://h.io/copy:1")
        assert other.digest != old.digest
        assert any(
            warning.endswith(f"say that it stands on `{old.digest}`, and not on `docker://h.io/copy:1`")
            for warning in scene.warnings
        )

    def test_annotations_that_name_nothing(self, scene: Scene) -> None:
        old = scene.base("h.io/old:1", tiny())
        for notes in ({BASE_NAME: "h.io/UPPER"}, {BASE_DIGEST: "sha256:x"}):
            error = refusal(scene, build(old, notes=notes), NEWER)
            assert "the base image in its annotations: " in error.message

    def test_layers_that_were_packed_anew_are_known_by_their_content(self, scene: Scene, tmp_path: Path) -> None:
        """As `docker save` does."""
        old = tiny()
        scene.base("h.io/old:1", old)
        top = tar_of({"opt": 0o755, "opt/own": b"", "tmp/.wh..wh..opq": b"", "usr/.wh.lib": b""})
        write_docker_archive(
            dataclasses.replace(old, layers=(*old.layers, top), history=None), tmp_path / "saved.tar", tags=()
        )
        saved = transports.source(f"docker-archive:{tmp_path}/saved.tar")
        new = scene.base("h.io/new:1", NEWER)
        arguments: Any = {"old": "docker://h.io/old:1", "open_base": scene.open, "store": scene.store}
        rebased = rebase(saved, "docker://h.io/new:1", **arguments)
        assert documents(rebased)[1].diff_ids == (*new.config.diff_ids, Digest.of(top))
        destination = MemoryDestination()
        publish(rebased, destination)
        assert destination.contents.keys() == rebased.documents.keys() | rebased.blobs.keys()


def with_glibc(version: str) -> HandmadeImage:
    return tiny(
        extra={
            "usr/lib/x86_64-linux-gnu": 0o755,
            "usr/lib/x86_64-linux-gnu/libc.so.6": f"libc-{version}.so",
            f"usr/lib/x86_64-linux-gnu/libc-{version}.so": b"",
            "usr/lib64/ld-linux-x86-64.so.2": b"",
        }
    )


class TestTheLibrary:
    def test_older_than_the_packages_ask_for(self, scene: Scene) -> None:
        old = scene.base("h.io/old:1", with_glibc("2.31"))
        error = refusal(scene, build(old), with_glibc("2.17"))
        assert error.message == "base image `h.io/new:1`: glibc 2.17: the lock asks for `__glibc` 2.28"
        scene.base("h.io/newer:1", with_glibc("2.28"))
        scene.rebase(build(old), "docker://h.io/newer:1")

    def test_older_than_the_old_one(self, scene: Scene) -> None:
        """Where the image does not tell what it needs."""
        silent = build(scene.base("h.io/old:1", with_glibc("2.31")), notes={GLIBC: None})
        error = refusal(scene, silent, with_glibc("2.28"))
        assert error.message == "base image `h.io/new:1`: it has glibc 2.28: the image was built on glibc 2.31"
        musl = tiny(extra={"usr/lib/ld-musl-x86_64.so.1": b""})
        assert refusal(scene, silent, musl).message.endswith("it has musl: the image was built on glibc 2.31")
        for name, image in {"same": with_glibc("2.31"), "none": NEWER}.items():
            scene.base(f"h.io/{name}:1", image)
            scene.rebase(silent, f"docker://h.io/{name}:1")


class TestPaths:
    @pytest.mark.parametrize(
        ("extra", "reasons"),
        [
            ({"app": "srv", "srv": 0o755}, ["`/app`: a directory would replace the symlink that is there"]),
            ({"app": b""}, ["`/app`: a directory would replace the file that is there"]),
            (
                {"app": 0o700},
                ["`/app`: a directory of mode 0755, owner 0:0 would replace the one there: mode 0700, owner 0:0"],
            ),
            ({"app": 0o755, "app/entrypoint.sh": 0o755}, ["`/app/entrypoint.sh`: there is a directory"]),
            ({"app": 0o755, "app/main.py": 0o755}, ["`/app/main.py`: there is a directory"]),
            (
                {"app": 0o755, "app/.pixi": 0o755, "app/.pixi/envs": 0o755, PREFIX: 0o755, f"{PREFIX}/x": b""},
                [f"prefix `/{PREFIX}`: the base image has a directory there"],
            ),
            ({"usr/bin/sh": "nothing"}, ["`/bin/sh`: the image is run by it, but the base image has no such program"]),
        ],
    )
    def test_of_our_image(self, scene: Scene, extra: dict[str, Member], reasons: list[str]) -> None:
        source = build(scene.base("h.io/old:1", tiny()))
        error = refusal(scene, source, tiny(extra=extra))
        assert isinstance(error, BaseImageError)
        assert error.message.splitlines() == [f"base image `h.io/new:1`: {reason}" for reason in reasons]
        assert error.hint == "choose another base image, or build the image anew on this one"

    @pytest.mark.parametrize(
        "extra",
        [
            {"app": 0o755},
            {"app": 0o755, "app/entrypoint.sh": b"", "app/main.py": b"", "app/other": 0o700},
            {"app": 0o755, "app/.pixi": 0o755, "app/.pixi/envs": 0o755, PREFIX: 0o755},
        ],
    )
    def test_that_clash_with_nothing(self, scene: Scene, extra: dict[str, Member]) -> None:
        source = build(scene.base("h.io/old:1", tiny()))
        scene.base("h.io/new:1", tiny(extra=extra))
        scene.rebase(source, "docker://h.io/new:1")
        assert scene.warnings == []

    def test_that_lay_behind_a_link_of_the_old_base(self, scene: Scene) -> None:
        """`/app` and `/srv` lead elsewhere in the old base, so the layers have the files there."""
        old = scene.base("h.io/old:1", tiny(extra={"app": "data", "data": 0o755, "srv": "data/srv", "data/srv": 0o755}))
        layers = own_layers(
            skeleton(prefix="opt/envs/default", place="data"), (*above("data/srv/app"), regular("data/srv/app/main.py"))
        )
        changes = replace(CHANGES, env={**OWN_ENV, "PIXI_PROJECT_ROOT": "/srv/app"}, workdir="/srv/app")
        source = build(old, layers, changes)
        scene.rebase(source, "docker://h.io/old:1")
        why = "a symbolic link that only the old base image had leads from there to the image's files"
        assert refusal(scene, source, tiny()).message.splitlines() == [
            f"base image `h.io/new:1`: `/{path}`: {why}" for path in ("srv/app", "app/entrypoint.sh")
        ]

    def test_a_shell_that_the_command_names(self, scene: Scene) -> None:
        old = scene.base("h.io/old:1", tiny(extra={"usr/bin/bash": b""}))
        layers = own_layers(skeleton(shell=f"/{PREFIX}/bin/bash"))
        changes = replace(CHANGES, cmd=("/bin/bash", "-c", "true"))
        error = refusal(scene, build(old, layers, changes), tiny())
        assert error.message == (
            "base image `h.io/new:1`: `/bin/bash`: the image is run by it, but the base image has no such program"
        )

    def test_of_another_image(self, scene: Scene) -> None:
        entries: list[Entry] = [
            *above("bin"),
            regular("bin/tool"),
            regular("lib/tool"),
            regular("etc/passwd/x"),
            Directory(path="tmp", mode=0o755),
            regular("home"),
            Symlink(path="etc/os-release", target="x"),
            regular("etc/fine"),
        ]
        old = scene.base("h.io/old:1", dataclasses.replace(tiny(), layers=(tar_of({"etc": 0o755}),), history=None))
        error = refusal(scene, build(old, {"files": entries}, titled=False), tiny())
        lines = [line.removeprefix("base image `h.io/new:1`: ") for line in error.message.splitlines()]
        assert sorted(lines) == [
            "`/bin`: a directory would replace the symlink that is there",
            "`/etc/os-release`: a layer of the image replaces it, and the old base image has none",
            "`/etc/passwd/x`: there is a file at `/etc/passwd`",
            "`/home`: there is a directory",
            "`/lib/tool`: there is a symbolic link on the way: it is `/usr/lib/tool` there",
            "`/tmp`: a directory of mode 0755, owner 0:0 would replace the one there: mode 1777, owner 0:0",
        ]

    def test_another_image_that_replaces_files(self, scene: Scene) -> None:
        old = scene.base("h.io/old:1", tiny())
        names = ["etc/passwd", "etc/group", "etc/os-release", "usr/bin/env", "etc/own"]
        scene.base("h.io/new:1", NEWER)
        source = build(old, {"files": [regular(name) for name in names]}, titled=False)
        scene.rebase(source, "docker://h.io/new:1")
        warning = scene.warnings[-1]
        assert warning.startswith("base image `h.io/new:1`: layers of the image replace files that it has: ")
        assert warning.endswith(": `/etc/group`, `/etc/os-release`, `/etc/passwd`, 1 more")

    @pytest.mark.parametrize(
        ("path", "hidden"),
        [
            ("etc/.wh.passwd", ["etc/passwd"]),
            ("usr/.wh.lib", ["usr/lib"]),
            ("usr/bin/.wh..wh..opq", ["usr/bin/env", "usr/bin/sh"]),
            (".wh.home", ["home"]),
        ],
    )
    def test_another_image_that_hides_some(self, scene: Scene, path: str, hidden: list[str]) -> None:
        """What the image hid of its old base, it means to; other paths of the new one it does not know."""
        scene.base("h.io/same:1", tiny())
        scene.rebase(self.foreign(scene, tiny(), path), "docker://h.io/same:1", "docker://h.io/old:1")
        shown = ", ".join(f"`/{name}`" for name in hidden)
        assert [warning for warning in scene.warnings if "hide" in warning] == [
            f"base image `h.io/same:1`: layers of the image hide paths that it has: {shown}"
        ]
        bare = dataclasses.replace(tiny(), layers=(tar_of({"x": b""}),), history=None)
        error = refusal(scene, self.foreign(scene, bare, path), tiny(), "docker://h.io/old:1")
        lines = [line for line in error.message.splitlines() if "hides" in line]
        assert lines == [
            f"base image `h.io/new:1`: `/{name}`: a layer of the image hides it, and the old base image has none"
            for name in hidden
        ]

    @pytest.mark.parametrize("path", ["usr/.wh.share", "usr/share/.wh..wh..opq", "usr/.wh..wh..opq", ".wh..wh..opq"])
    def test_what_only_the_new_base_has_in_a_directory_that_is_hidden(self, scene: Scene, path: str) -> None:
        old, new = (tiny(extra={f"usr/share/{name}": b"" for name in names}) for names in (["a"], ["a", "b"]))
        error = refusal(scene, self.foreign(scene, old, path), new, "docker://h.io/old:1")
        assert error.message == (
            "base image `h.io/new:1`: `/usr/share/b`: a layer of the image hides it, and the old base image has none"
        )

    def test_another_image_that_replaces_what_its_old_base_has_not(self, scene: Scene) -> None:
        source = build(scene.base("h.io/old:1", tiny()), {"files": [regular("etc/more")]}, titled=False)
        error = refusal(scene, source, tiny(extra={"etc/more": b"more"}))
        assert error.message == (
            "base image `h.io/new:1`: `/etc/more`: a layer of the image replaces it, and the old base image has none"
        )

    def test_another_image_that_hides_nothing(self, scene: Scene) -> None:
        source = self.foreign(scene, tiny(), "opt/own/.wh..wh..opq", "opt/.wh.gone", "etc/.wh..wh.plnk")
        scene.base("h.io/new:1", tiny(extra={"etc/new": b""}))
        scene.rebase(source, "docker://h.io/new:1", "docker://h.io/old:1")
        assert scene.warnings == []

    def foreign(self, scene: Scene, old: HandmadeImage, *paths: str) -> Source:
        """An image on `old`, which is kept, with empty files that may be whiteouts."""
        scene.base("h.io/old:1", old)
        image = dataclasses.replace(old, layers=(*old.layers, tar_of(dict.fromkeys(paths, b""))), history=None)
        write_layout(image, scene.directory / "foreign")
        return transports.source(f"oci:{scene.directory / 'foreign'}")

    def test_many_reasons(self, scene: Scene) -> None:
        old = scene.base("h.io/old:1", tiny())
        source = build(old, {"files": [regular(f"d{n}") for n in range(30)]}, titled=False)
        error = refusal(scene, source, tiny(extra={f"d{n}": 0o755 for n in range(30)}))
        assert len(error.message.splitlines()) == 21
        assert error.message.endswith("… and 10 more")


class TestIndex:
    def images(self, scene: Scene, name: str, image: HandmadeImage) -> None:
        scene.base(name, image, dataclasses.replace(image, architecture="arm64", variant="v8"))

    def index(self, scene: Scene, **notes: str) -> MemorySource:
        """Two images on `h.io/old:1`, and an attestation of one."""
        self.images(scene, "h.io/old:1", tiny())
        sources = [build(scene.open("docker://h.io/old:1", platform)) for platform in (AMD64, ARM64)]
        contents = {digest: data for source in sources for digest, data in source.contents.items()}
        attached = replace(
            sources[0].top,
            digest=Digest.of(b"attestation"),
            platform=Platform(os="unknown", architecture="unknown"),
            annotations={"vnd.docker.reference.type": "attestation-manifest"},
        )
        entries = [replace(source.top, annotations={BASE_DIGEST: "old", "entry": "1"}) for source in sources]
        data, top = assemble_index([*entries, attached], {"whole": "1", **notes})
        return MemorySource(top, {**contents, top.digest: data})

    def test_each_on_the_base_of_its_platform(self, scene: Scene) -> None:
        source = self.index(scene, **{IMAGE_KEY: "sha256:0"})
        self.images(scene, "h.io/new:1", NEWER)
        built = scene.rebase(source, "docker://h.io/new:1")
        index = ImageIndex.parse(built.documents[built.descriptor.digest])
        assert index.annotations == {"whole": "1"}
        new = {str(platform): scene.open("docker://h.io/new:1", platform) for platform in (AMD64, ARM64)}
        assert [str(entry.platform) for entry in index.manifests] == list(new)
        for entry in index.manifests:
            below = new[str(entry.platform)]
            assert entry.annotations == {BASE_DIGEST: str(below.digest), "entry": "1"}
            manifest = ImageManifest.parse(built.documents[entry.digest])
            assert manifest == without_key(documents(build(below))[0])
        assert scene.warnings == [
            f"`{Digest.of(b'attestation')}` is left out: it is attached to an image on its old base"
        ]
        destination = MemoryDestination()
        assert publish(built, destination).descriptor == built.descriptor

    def test_all_refusals_at_once(self, scene: Scene) -> None:
        source = self.index(scene)
        self.images(scene, "h.io/new:1", tiny(extra={"app": b""}))
        lines = refusal(scene, source, "docker://h.io/new:1").message.splitlines()
        assert {line.partition(": ")[0] for line in lines} == {"linux/amd64", "linux/arm64"}

    def test_a_base_without_one_of_the_platforms(self, scene: Scene) -> None:
        error = refusal(scene, self.index(scene), NEWER)
        assert error.message == ("linux/arm64: base image `h.io/new:1`: it is for `linux/amd64`, not for `linux/arm64`")

    def test_without_images(self, scene: Scene) -> None:
        data, top = assemble_index([], {})
        assert refusal(scene, MemorySource(top, {top.digest: data}), "scratch").message == (
            f"image index `{top.digest}`: there are no images in it"
        )


def test_more_layers_than_engines_take(scene: Scene) -> None:
    source = build(scene.base("h.io/old:1", tiny()))
    many = tuple(tar_of({f"etc/{n}": b""}) for n in range(123))
    error = refusal(scene, source, dataclasses.replace(tiny(), layers=(tiny().layers[0], *many[1:]), history=None))
    assert error.message == "image: 126 layers: engines take at most 125"


def test_what_is_no_image(scene: Scene) -> None:
    contents: dict[Digest, bytes] = {}
    config = keep(contents, {}, "application/vnd.example")
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config.to_json(), "layers": []}
    top = keep(contents, document, MANIFEST)
    assert refusal(scene, MemorySource(top, contents), "scratch").message == (
        f"image `{top.digest}`: `application/vnd.example` is not the configuration of an image"
    )
