"""OCI layouts: what ends up on disk, what others read of it, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from layers.digest import Digest
from ociforge import transports
from ociforge.errors import ForgeError, ImageError, ReferenceFormatError, TransportError
from ociforge.events import Event, Warned
from ociforge.oci.descriptor import Descriptor
from ociforge.oci.reference import Reference
from ociforge.publish import publish
from ociforge.transports.base import Blob
from ociforge.transports.layout import LayoutDestination, LayoutSource
from ociforge.transports.naming import Name
from tests.support.memory import MemorySource, index_of, sample_image
from tests.support.tools import need

if TYPE_CHECKING:
    from pathlib import Path

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
ONE = sample_image(({"one": b"1"},))
TWO = sample_image(({"two": b"2"},))


def index(layout: Path) -> list[dict[str, Any]]:
    document = json.loads((layout / "index.json").read_bytes())
    assert (document["schemaVersion"], document["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    manifests: list[dict[str, Any]] = document["manifests"]
    return manifests


def names(layout: Path) -> list[tuple[str | None, str | None, str]]:
    """Tag, whole name and digest of each entry."""
    return [
        (notes.get(REF_NAME), notes.get(CONTAINERD_NAME), entry["digest"])
        for entry in index(layout)
        for notes in [entry.get("annotations", {})]
    ]


def write(source: MemorySource, layout: Path, ref: str | None = None, *also: str) -> str:
    destination = LayoutDestination(layout, ref=ref, names=[Reference.parse(name) for name in also])
    return publish(source, destination).name


def test_a_new_layout_holds_the_image_and_nothing_else(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    name = write(ONE, layout, "1.4")
    assert name == f"oci:{layout}:1.4@{ONE.top.digest}"
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    files = {str(path.relative_to(layout)) for path in layout.rglob("*") if path.is_file()}
    assert files == {"oci-layout", "index.json", *(f"blobs/sha256/{digest.hex}" for digest in ONE.contents)}
    for digest, data in ONE.contents.items():
        assert (layout / "blobs/sha256" / digest.hex).read_bytes() == data
    (entry,) = index(layout)
    assert entry["platform"] == {"architecture": "amd64", "os": "linux"}
    assert entry["annotations"] == {REF_NAME: "1.4"}


@pytest.mark.parametrize("ref", [None, "1.4", "localhost:5000/app:1", "h.io/a/b"])
@pytest.mark.parametrize("transport", ["oci", "oci-archive"])
def test_the_name_that_is_told_can_be_read_again(tmp_path: Path, transport: str, ref: str | None) -> None:
    place = f"{transport}:{tmp_path}/place"
    if transport == "oci":
        publish(TWO, transports.destination(f"{place}:2"))
    target = place if ref is None else f"{place}:{ref}"
    name = publish(ONE, transports.destination(target)).name
    assert name == f"{target}@{ONE.top.digest}"
    assert transports.source(name).root().digest == ONE.top.digest


def test_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(ONE, tmp_path / "layout", "1")
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "layout").rglob("*") if path.is_file()} == {
        "0o640"
    }


def test_a_platform_that_the_root_does_not_tell_comes_from_the_configuration(tmp_path: Path) -> None:
    arm = sample_image(platform="linux/arm64")
    root = Descriptor(media_type=arm.top.media_type, digest=arm.top.digest, size=arm.top.size)
    write(MemorySource(root, arm.contents), tmp_path, "1")
    assert index(tmp_path)[0]["platform"] == {"architecture": "arm64", "os": "linux", "variant": "v8"}


class TestNames:
    def test_a_whole_name_gives_both_annotations(self, tmp_path: Path) -> None:
        write(ONE, tmp_path, None, "ubuntu:1")
        assert names(tmp_path) == [("1", "docker.io/library/ubuntu:1", str(ONE.top.digest))]

    def test_a_whole_name_may_stand_for_the_tag(self, tmp_path: Path) -> None:
        write(ONE, tmp_path, "localhost:5000/app:1")
        assert names(tmp_path) == [("1", "localhost:5000/app:1", str(ONE.top.digest))]

    def test_the_tag_and_a_name_with_that_tag_are_one_entry(self, tmp_path: Path) -> None:
        write(ONE, tmp_path, "1", "h.io/app:1", "h.io/other:1", "h.io/app:2", "h.io/app:1")
        digest = str(ONE.top.digest)
        assert names(tmp_path) == [
            ("1", "h.io/app:1", digest),
            (None, "h.io/other:1", digest),
            ("2", "h.io/app:2", digest),
        ]

    def test_names_that_the_source_gave_are_dropped_and_other_annotations_kept(self, tmp_path: Path) -> None:
        annotations = {REF_NAME: "old", CONTAINERD_NAME: "h.io/old:1", "com.example.team": "blue"}
        root = Descriptor(
            media_type=ONE.top.media_type, digest=ONE.top.digest, size=ONE.top.size, annotations=annotations
        )
        write(MemorySource(root, ONE.contents), tmp_path, "new")
        assert index(tmp_path)[0]["annotations"] == {REF_NAME: "new", "com.example.team": "blue"}

    def test_an_entry_of_the_same_name_is_replaced(self, tmp_path: Path) -> None:
        write(ONE, tmp_path, "1")
        write(ONE, tmp_path, "2")
        write(TWO, tmp_path, "1")
        assert names(tmp_path) == [("2", None, str(ONE.top.digest)), ("1", None, str(TWO.top.digest))]

    def test_a_tag_passes_to_the_new_image_but_whole_names_stay(self, tmp_path: Path) -> None:
        write(ONE, tmp_path, None, "h.io/one:1")
        write(TWO, tmp_path, None, "h.io/two:1")
        assert names(tmp_path) == [
            (None, "h.io/one:1", str(ONE.top.digest)),
            ("1", "h.io/two:1", str(TWO.top.digest)),
        ]
        assert transports.source(f"oci:{tmp_path}:h.io/one:1").root().digest == ONE.top.digest

    def test_nameless_images_stand_side_by_side(self, tmp_path: Path) -> None:
        for image in (ONE, TWO, ONE):
            write(image, tmp_path)
        assert names(tmp_path) == [(None, None, str(TWO.top.digest)), (None, None, str(ONE.top.digest))]

    def test_what_others_wrote_into_the_index_stays(self, tmp_path: Path) -> None:
        write(ONE, tmp_path, "1")
        path = tmp_path / "index.json"
        document = json.loads(path.read_bytes())
        document["annotations"] = {"com.example": "kept"}
        document["manifests"][0]["data"] = "e30="
        path.write_text(json.dumps(document))
        write(TWO, tmp_path, "2")
        after = json.loads(path.read_bytes())
        assert after["annotations"] == {"com.example": "kept"}
        assert after["manifests"][0] == document["manifests"][0]
        assert len(after["manifests"]) == 2

    @pytest.mark.parametrize("tag", ["-x", "a*b", "x" * 129])
    def test_what_is_no_tag_is_refused(self, tmp_path: Path, tag: str) -> None:
        with pytest.raises(ReferenceFormatError, match="is not a tag"):
            LayoutDestination(tmp_path, ref=tag)

    def test_a_name_by_digest_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ReferenceFormatError, match="is no name for an image: it has a digest"):
            LayoutDestination(tmp_path, names=[Reference.parse(f"h.io/a@{ONE.top.digest}")])


class TestNamesOfSources:
    def told(self, location: str) -> list[str]:
        return [str(name.whole or name.tag) for name in transports.source(location).names()]

    def test_of_a_layout(self, tmp_path: Path) -> None:
        write(ONE, tmp_path, None, "h.io/app:1", "h.io/other:1")
        write(TWO, tmp_path, "2")
        assert self.told(f"oci:{tmp_path}@{ONE.top.digest}") == ["h.io/app:1", "h.io/other:1"]
        assert self.told(f"oci:{tmp_path}:h.io/other:1") == ["h.io/other:1"]
        assert self.told(f"oci:{tmp_path}:2") == ["2"]

    @pytest.mark.parametrize(
        ("annotations", "told"),
        [
            ({}, []),
            ({REF_NAME: "1"}, ["1"]),
            ({REF_NAME: "h.io/app:1"}, ["h.io/app:1"]),  # some tools write the whole name there
            ({REF_NAME: "a b"}, []),
            ({CONTAINERD_NAME: "app"}, ["docker.io/library/app:latest"]),
            ({CONTAINERD_NAME: "UPPER", REF_NAME: "1"}, ["1"]),
            ({CONTAINERD_NAME: f"h.io/app:1@{Digest.of(b'')}"}, ["h.io/app:1"]),
            ({CONTAINERD_NAME: f"h.io/app@{Digest.of(b'')}"}, []),
        ],
    )
    def test_of_what_others_wrote(self, tmp_path: Path, annotations: dict[str, str], told: list[str]) -> None:
        write(ONE, tmp_path)
        document = json.loads((tmp_path / "index.json").read_bytes())
        document["manifests"][0]["annotations"] = annotations
        (tmp_path / "index.json").write_text(json.dumps(document))
        assert self.told(f"oci:{tmp_path}") == told

    def test_of_a_registry(self) -> None:
        assert self.told("docker://h.io/app") == ["h.io/app:latest"]
        assert self.told(f"docker://h.io/app:1@{ONE.top.digest}") == ["h.io/app:1"]
        assert self.told(f"docker://h.io/app@{ONE.top.digest}") == []

    def test_they_name_a_copy(self, tmp_path: Path) -> None:
        write(ONE, tmp_path / "from", None, "h.io/app:1", "h.io/other:1", "h.io/app:2")
        source = LayoutSource(tmp_path / "from")
        publish(source, LayoutDestination(tmp_path / "to", names=source.names()))
        assert names(tmp_path / "to") == names(tmp_path / "from")

    def test_bare_tags_and_whole_names_are_one_where_they_agree(self, tmp_path: Path) -> None:
        also: list[Reference | Name] = [
            Name(tag="1"),
            Name(tag="2"),
            Reference.parse("h.io/app:1"),
            Name(tag="1"),
            Name(tag="2"),
        ]
        publish(ONE, LayoutDestination(tmp_path, names=also))
        assert names(tmp_path) == [("1", "h.io/app:1", str(ONE.top.digest)), ("2", None, str(ONE.top.digest))]


class TestSelection:
    @pytest.fixture
    def layout(self, tmp_path: Path) -> Path:
        write(ONE, tmp_path, None, "docker.io/library/app:1")
        write(TWO, tmp_path, "2")
        return tmp_path

    @pytest.mark.parametrize("ref", ["1", "app:1", "docker.io/library/app:1", "index.docker.io/library/app:1"])
    def test_by_tag_or_whole_name(self, layout: Path, ref: str) -> None:
        assert LayoutSource(layout, ref=ref).root().digest == ONE.top.digest

    def test_by_digest(self, layout: Path) -> None:
        assert LayoutSource(layout, digest=TWO.top.digest).root().digest == TWO.top.digest

    def test_a_tag_that_has_another_digest_is_not_found(self, layout: Path) -> None:
        with pytest.raises(TransportError, match=re.escape(f"no image `1` with the digest `{TWO.top.digest}`")):
            LayoutSource(layout, ref="1", digest=TWO.top.digest).root()

    def test_without_a_name_there_must_be_one_image(self, layout: Path) -> None:
        with pytest.raises(TransportError) as caught:
            LayoutSource(layout).root()
        assert caught.value.message == f"`oci:{layout}`: 2 images: found `docker.io/library/app:1`, `2`"
        assert caught.value.hint == "name one of them behind the path, as in `:TAG` or `@sha256:…`"

    def test_an_unknown_name_lists_those_there_are(self, layout: Path) -> None:
        with pytest.raises(TransportError) as caught:
            LayoutSource(layout, ref="3").root()
        assert caught.value.message == f"`oci:{layout}`: no image `3`: found `docker.io/library/app:1`, `2`"

    def test_one_image_with_several_names_needs_none(self, tmp_path: Path) -> None:
        write(ONE, tmp_path, None, "h.io/a:1", "h.io/b:2")
        assert LayoutSource(tmp_path).root().digest == ONE.top.digest

    def test_an_index_in_the_index_is_a_root(self, tmp_path: Path) -> None:
        both = index_of(sample_image(), sample_image(platform="linux/arm64"))
        write(both, tmp_path, "1")
        source = LayoutSource(tmp_path, ref="1")
        assert source.root().digest == both.top.digest
        with source.open(source.root()) as stream:
            assert stream.read() == both.contents[both.top.digest]

    def test_what_is_no_image_is_no_root(self, layout: Path) -> None:
        document = {"manifests": [{"mediaType": "text/plain", "digest": str(ONE.top.digest), "size": 1}]}
        (layout / "index.json").write_text(json.dumps(document))
        with pytest.raises(TransportError, match="is no image: `text/plain`"):
            LayoutSource(layout).root()


class TestUntrusted:
    @pytest.fixture
    def layout(self, tmp_path: Path) -> Path:
        write(ONE, tmp_path / "layout", "1")
        return tmp_path / "layout"

    def blob(self, layout: Path) -> Path:
        return layout / "blobs" / "sha256" / ONE.blobs()[0].digest.hex

    def read(self, layout: Path) -> bytes:
        with LayoutSource(layout).open(ONE.blobs()[0]) as stream:
            return stream.read()

    @pytest.mark.parametrize("damage", [b"", b"short", b"x" * ONE.blobs()[0].size, b"x" * 10_000])
    def test_damaged_blobs_are_noticed(self, layout: Path, damage: bytes) -> None:
        self.blob(layout).write_bytes(damage)
        with pytest.raises(ImageError):
            self.read(layout)

    def test_a_missing_blob_is_named(self, layout: Path) -> None:
        self.blob(layout).unlink()
        with pytest.raises(TransportError, match=f"has no blob `{ONE.blobs()[0].digest}`"):
            self.read(layout)

    def test_a_symbolic_link_for_a_blob_is_refused(self, layout: Path, tmp_path: Path) -> None:
        self.blob(layout).rename(tmp_path / "elsewhere")
        self.blob(layout).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(TransportError, match="symbolic links"):
            self.read(layout)
        assert not LayoutDestination(layout).has(ONE.blobs()[0])

    def test_a_pipe_for_a_blob_is_refused_at_once(self, layout: Path) -> None:
        self.blob(layout).unlink()
        os.mkfifo(self.blob(layout))
        with pytest.raises(TransportError, match="not a regular file"):
            self.read(layout)

    def test_damage_is_mended_by_writing_again(self, layout: Path) -> None:
        self.blob(layout).write_bytes(b"short")
        write(ONE, layout, "1")
        assert self.read(layout) == ONE.contents[ONE.blobs()[0].digest]

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("oci-layout", '{"imageLayoutVersion":"2.0.0"}', "names the version `2.0.0`: expected `1.0.0`"),
            ("oci-layout", "", "`oci-layout` is not valid JSON"),
            ("oci-layout", "{}" + " " * 70_000, "more than 65536 bytes"),
            ("index.json", "[]", "not a JSON object"),
            ("index.json", "{}", "no list of manifests"),
            ("index.json", '{"manifests":[],"manifests":[]}', "duplicate"),
            ("index.json", '{"manifests":[{"mediaType":"a/b","size":1,"digest":"../../x"}]}', "manifests[0].digest"),
            ("index.json", '{"manifests":[]}' + " " * (4 << 20), "more than 4194304 bytes"),
            ("index.json", '{"manifests":[]}', "no image: found none"),
        ],
    )
    def test_broken_documents_are_refused(self, layout: Path, file: str, content: str, message: str) -> None:
        (layout / file).write_text(content)
        with pytest.raises(ForgeError, match=re.escape(message)):
            LayoutSource(layout).root()

    def test_a_directory_that_is_no_layout(self, tmp_path: Path) -> None:
        with pytest.raises(TransportError) as caught:
            LayoutSource(tmp_path / "nothing").root()
        assert caught.value.message == (
            f"reading `oci:{tmp_path}/nothing`: `{tmp_path}/nothing/oci-layout`: No such file or directory"
        )


class TestWriting:
    def test_a_directory_of_other_things_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.odt").touch()
        with pytest.raises(TransportError) as caught:
            write(ONE, tmp_path, "1")
        assert caught.value.message == (
            f"writing `oci:{tmp_path}:1`: `{tmp_path}` has files in it, but is no OCI layout"
        )
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.odt"]

    def test_a_file_in_the_place_of_the_directory(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        hint = f"for an archive write `oci-archive:{tmp_path}/file`"
        with pytest.raises(TransportError, match=r"`.*/file` is a file$") as caught:
            write(ONE, tmp_path / "file", "1")
        assert caught.value.hint == hint
        with pytest.raises(TransportError, match=r"`.*/file` is a file$") as caught:
            LayoutSource(tmp_path / "file").root()
        assert caught.value.hint == hint

    @pytest.mark.parametrize("transport", ["oci", "oci-archive"])
    def test_the_directory_around_it_is_not_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "file").touch()
        for place, why, hint in (
            ("none/x", f"there is no directory `{tmp_path}/none`", "make it first"),
            ("file/x", f"`{tmp_path}/file` is not a directory", "check the path"),
        ):
            with pytest.raises(TransportError) as caught:
                publish(ONE, transports.destination(f"{transport}:{place}"))
            assert caught.value.message == f"writing `{transport}:{place}`: {why}"
            assert caught.value.hint == hint
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        publish(ONE, transports.destination(f"{transport}:x"))
        assert (tmp_path / "x").exists()

    def test_a_layout_of_another_version_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
        with pytest.raises(TransportError, match="names the version"):
            write(ONE, tmp_path, "1")

    def test_a_broken_index_is_not_overwritten(self, tmp_path: Path) -> None:
        write(ONE, tmp_path, "1")
        (tmp_path / "index.json").write_text("{")
        with pytest.raises(ImageError):
            write(TWO, tmp_path, "2")
        assert (tmp_path / "index.json").read_text() == "{"

    def test_what_a_killed_writer_left_is_taken_over(self, tmp_path: Path) -> None:
        (tmp_path / "oci-layout").touch()
        (tmp_path / ".ociforge-0123").touch()
        write(ONE, tmp_path, "1")
        assert LayoutSource(tmp_path, ref="1").root().digest == ONE.top.digest

    @pytest.mark.parametrize("there", [False, True])
    def test_what_is_begun_is_a_layout_from_the_first(self, tmp_path: Path, there: bool) -> None:
        """Blobs are put into a whole layout, so there is one whenever the writer is killed."""
        umoci, layout = need("umoci"), tmp_path / "layout"
        if there:
            layout.mkdir()
        with LayoutDestination(layout, ref="1") as destination:
            destination.put(Blob(descriptor=ONE.blobs()[0], open=partial(ONE.open, ONE.blobs()[0])))
            assert index(layout) == []
            done = subprocess.run([umoci, "ls", "--layout", layout], check=True, capture_output=True, text=True)
            assert done.stdout == ""
        with pytest.raises(TransportError, match="no image `1`: found none"):
            LayoutSource(layout, ref="1").root()
        assert [path.name for path in tmp_path.iterdir()] == ["layout"]
        write(ONE, layout, "1")
        assert LayoutSource(layout, ref="1").root().digest == ONE.top.digest

    @pytest.mark.parametrize("there", [False, True])
    def test_nothing_is_begun_for_nothing(self, tmp_path: Path, there: bool) -> None:
        """Where no blob came, say because the build failed, later readers would find a layout without an image."""
        layout = tmp_path / "layout"
        if there:
            layout.mkdir()
            (layout / ".ociforge-0123456789abcdef").mkdir()  # of another writer, which was killed
        before = [path.name for path in tmp_path.iterdir()]
        with LayoutDestination(layout, ref="1") as destination:
            assert not destination.has(ONE.blobs()[0])
        assert [path.name for path in tmp_path.iterdir()] == before
        assert not there or not list(layout.iterdir())

    def test_a_layout_without_an_index_is_incomplete(self, tmp_path: Path) -> None:
        write(ONE, tmp_path, "1")
        (tmp_path / "index.json").unlink()
        with pytest.raises(TransportError) as caught:
            LayoutSource(tmp_path).root()
        assert caught.value.message.endswith(f"there is no `{tmp_path}/index.json`: the layout is incomplete")
        write(TWO, tmp_path, "2")
        assert LayoutSource(tmp_path).root().digest == TWO.top.digest

    def test_writers_at_the_same_time_lose_no_entry(self, tmp_path: Path) -> None:
        images = [sample_image(({"n": str(number).encode()},)) for number in range(8)]
        threads = [threading.Thread(target=write, args=(image, tmp_path, str(n))) for n, image in enumerate(images)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {(tag, digest) for tag, _, digest in names(tmp_path)} == {
            (str(n), str(image.top.digest)) for n, image in enumerate(images)
        }
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    def test_dockers_media_types_are_kept_with_a_warning(self, tmp_path: Path) -> None:
        events: list[Event] = []
        image = sample_image(docker_types=True)
        publish(image, LayoutDestination(tmp_path, notify=events.append))
        assert LayoutSource(tmp_path).root().digest == image.top.digest
        (warning,) = [event for event in events if isinstance(event, Warned)]
        assert warning.message == f"`oci:{tmp_path}` has docker's media types, as its source has: umoci refuses them"


class TestForeignReaders:
    def test_skopeo_and_umoci_read_what_is_written(self, tmp_path: Path) -> None:
        skopeo, umoci = need("skopeo"), need("umoci")
        write(ONE, tmp_path / "layout", "1", "localhost/app:1")
        write(TWO, tmp_path / "layout", "2")
        out = subprocess.run([umoci, "ls", "--layout", tmp_path / "layout"], check=True, capture_output=True, text=True)
        assert sorted(out.stdout.split()) == ["1", "2"]
        for ref, image in (("1", ONE), ("2", TWO)):
            place = f"oci:{tmp_path}/layout:{ref}"
            raw = subprocess.run([skopeo, "inspect", "--raw", place], check=True, capture_output=True).stdout
            assert Digest.of(raw) == image.top.digest
        subprocess.run(
            [umoci, "unpack", "--rootless", "--image", f"{tmp_path}/layout:1", tmp_path / "bundle"],
            check=True,
            capture_output=True,
        )
        assert (tmp_path / "bundle" / "rootfs" / "one").read_bytes() == b"1"

    def test_what_skopeo_writes_is_read_and_added_to(self, tmp_path: Path) -> None:
        skopeo = need("skopeo")
        write(ONE, tmp_path / "ours", "1")
        copy = [skopeo, "--insecure-policy", "copy", f"oci:{tmp_path}/ours:1", f"oci:{tmp_path}/theirs:copied"]
        subprocess.run(copy, check=True, capture_output=True)
        write(TWO, tmp_path / "theirs", "added")
        assert LayoutSource(tmp_path / "theirs", ref="copied").root().digest == ONE.top.digest
        assert LayoutSource(tmp_path / "theirs", ref="added").root().digest == TWO.top.digest
