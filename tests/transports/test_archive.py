"""Archives: the bytes that are written, what others read of them, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import random
import re
import subprocess
import tarfile
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from msgspec.structs import replace

from layers.digest import Digest
from ociforge import transports
from ociforge.errors import ForgeError, ImageError, TransportError
from ociforge.events import BlobDone, Event, Warned
from ociforge.oci.image import ImageManifest
from ociforge.oci.reference import Reference
from ociforge.platform import Platform
from ociforge.publish import publish
from ociforge.transports.archive import ArchiveDestination, ArchiveSource
from ociforge.transports.base import Blob
from ociforge.transports.docker_archive import DockerArchiveSource
from tests.support.memory import MemoryDestination, MemorySource, index_of, sample_image
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ociforge.transports.base import Source

ONE = sample_image(({"one": b"1"}, {"more": b"22"}))
TWO = sample_image(({"two": b"2"},))
ARM = sample_image(({"two": b"2"},), platform="linux/arm64")
LAYER = "application/vnd.oci.image.layer.v1.tar"


def write(source: MemorySource, path: Path, *names: str, platform: str | None = None) -> str:
    wanted = None if platform is None else Platform.parse(platform)
    destination = ArchiveDestination(path, names=[Reference.parse(name) for name in names], platform=wanted)
    return publish(source, destination).name


def read(path: Path) -> dict[str, bytes]:
    """The files of an archive, in order."""
    with tarfile.open(path, "r:") as tar:
        return {member.name: stream.read() for member in tar if (stream := tar.extractfile(member)) is not None}


def make(path: Path, files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> Path:
    """A tar as others write it."""
    with tarfile.open(path, "w:") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def plain_archive(source: MemorySource, names: Mapping[str, MemorySource] | None = None) -> dict[str, bytes]:
    """The files of an OCI archive without docker's manifest."""
    entries = [
        image.top.to_json() | {"annotations": {"org.opencontainers.image.ref.name": name}}
        for name, image in (names or {}).items()
    ]
    blobs = {digest: data for image in (source, *(names or {}).values()) for digest, data in image.contents.items()}
    index = {"schemaVersion": 2, "manifests": entries or [source.top.to_json()]}
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **{f"blobs/sha256/{digest.hex}": data for digest, data in blobs.items()},
    }


class TestWritten:
    def test_members_are_sorted_and_say_nothing_of_their_writer(self, tmp_path: Path) -> None:
        write(ONE, tmp_path / "a.tar", "localhost/app:1")
        with tarfile.open(tmp_path / "a.tar", "r:") as tar:
            members = tar.getmembers()
        paths = [member.name for member in members]
        blobs = [f"blobs/sha256/{digest.hex}" for digest in ONE.contents]
        assert paths == sorted(["blobs", "blobs/sha256", *blobs, "index.json", "manifest.json", "oci-layout"])
        for member in members:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == (0o755 if member.isdir() else 0o644)
            assert member.pax_headers == {}

    def test_its_documents(self, tmp_path: Path) -> None:
        name = write(ONE, tmp_path / "a.tar", "localhost/app:1", "ubuntu:2")
        assert name == f"oci-archive:{tmp_path}/a.tar@{ONE.top.digest}"
        files = read(tmp_path / "a.tar")
        config, *layers = ONE.blobs()
        assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
        assert json.loads(files["manifest.json"]) == [
            {
                "Config": f"blobs/sha256/{config.digest.hex}",
                "RepoTags": ["localhost/app:1", "docker.io/library/ubuntu:2"],
                "Layers": [f"blobs/sha256/{layer.digest.hex}" for layer in layers],
            }
        ]
        assert json.loads(files["index.json"]) == {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": str(ONE.top.digest),
                    "size": ONE.top.size,
                    "platform": {"os": "linux", "architecture": "amd64"},
                    "annotations": {
                        "io.containerd.image.name": whole,
                        "org.opencontainers.image.ref.name": tag,
                    },
                }
                for whole, tag in (("localhost/app:1", "1"), ("docker.io/library/ubuntu:2", "2"))
            ],
        }

    def test_the_name_in_the_location_is_a_whole_name(self, tmp_path: Path) -> None:
        destination = transports.destination(f"oci-archive:{tmp_path}/a.tar:app")
        assert publish(ONE, destination).name == f"oci-archive:{tmp_path}/a.tar:app@{ONE.top.digest}"
        assert json.loads(read(tmp_path / "a.tar")["manifest.json"])[0]["RepoTags"] == ["docker.io/library/app:latest"]
        assert transports.source(f"oci-archive:{tmp_path}/a.tar:app").root().digest == ONE.top.digest

    @pytest.mark.parametrize(("platform", "image"), [(None, TWO), ("linux/amd64", TWO), ("linux/arm64", ARM)])
    def test_of_an_index_docker_sees_one_image(self, tmp_path: Path, platform: str | None, image: MemorySource) -> None:
        write(index_of(TWO, ARM), tmp_path / "a.tar", "localhost/app:1", platform=platform)
        (docker,) = json.loads(read(tmp_path / "a.tar")["manifest.json"])
        assert docker["Config"] == f"blobs/sha256/{image.blobs()[0].digest.hex}"

    def test_the_first_image_may_be_in_a_nested_index(self, tmp_path: Path) -> None:
        write(index_of(index_of(TWO), ARM), tmp_path / "a.tar")
        (docker,) = json.loads(read(tmp_path / "a.tar")["manifest.json"])
        assert docker["Config"] == f"blobs/sha256/{TWO.blobs()[0].digest.hex}"

    def test_the_very_platform_comes_before_one_that_would_do(self, tmp_path: Path) -> None:
        """An image for later processors of the kind comes first in the index."""
        later = MemorySource(replace(TWO.top, platform=Platform(architecture="amd64", variant="v3")), TWO.contents)
        write(index_of(later, ONE), tmp_path / "a.tar", platform="linux/amd64")
        (docker,) = json.loads(read(tmp_path / "a.tar")["manifest.json"])
        assert docker["Config"] == f"blobs/sha256/{ONE.blobs()[0].digest.hex}"

    def test_a_platform_that_the_index_lacks(self, tmp_path: Path) -> None:
        write(index_of(TWO, ARM), tmp_path / "a.tar", platform="linux/s390x")
        (docker,) = json.loads(read(tmp_path / "a.tar")["manifest.json"])
        assert docker["Config"] == f"blobs/sha256/{TWO.blobs()[0].digest.hex}"

    def test_the_same_image_gives_the_same_bytes(self, tmp_path: Path) -> None:
        both = index_of(ONE, ARM)
        write(both, tmp_path / "first.tar", "localhost/app:1")
        shuffled = list(both.contents)
        random.Random(1).shuffle(shuffled)
        with ArchiveDestination(tmp_path / "second.tar", names=[Reference.parse("localhost/app:1")]) as destination:
            put_all(destination, MemorySource(both.top, {digest: both.contents[digest] for digest in shuffled}))
            destination.tag(both.top)
        assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()

    def test_an_older_file_is_replaced_through_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real.tar").write_text("old")
        (tmp_path / "link.tar").symlink_to("real.tar")
        write(ONE, tmp_path / "link.tar")
        assert (tmp_path / "link.tar").is_symlink()
        assert ArchiveSource(tmp_path / "real.tar").root().digest == ONE.top.digest

    @pytest.mark.parametrize(
        ("path", "why"),
        [("nowhere/a.tar", "there is no directory `{}/nowhere`"), ("folder", "`{}/folder` is not a regular file")],
    )
    def test_places_that_cannot_be_written(self, tmp_path: Path, path: str, why: str) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(TransportError) as caught:
            write(ONE, tmp_path / path)
        assert caught.value.message == f"writing `oci-archive:{tmp_path}/{path}`: {why.format(tmp_path)}"
        assert caught.value.hint is not None
        if path == "folder":
            assert caught.value.hint == f"for a directory write `oci:{tmp_path}/folder`"

    def test_a_device_is_not_replaced(self) -> None:
        with pytest.raises(TransportError, match="`/dev/null` is not a regular file"):
            transports.destination("oci-archive:/dev/null").__enter__()

    def test_each_transfer_is_told_of(self, tmp_path: Path) -> None:
        events: list[Event] = []
        publish(ONE, ArchiveDestination(tmp_path / "a.tar", notify=events.append))
        done = {event.digest: event.outcome for event in events if isinstance(event, BlobDone)}
        assert done == {blob.digest: "written" for blob in ONE.blobs()}

    def test_without_a_layer_docker_is_told_nothing(self, tmp_path: Path) -> None:
        foreign = json.loads(ONE.contents[ONE.top.digest])
        foreign["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        data = json.dumps(foreign).encode()
        contents = ONE.contents | {Digest.of(data): data}
        root = type(ONE.top)(media_type=ONE.top.media_type, digest=Digest.of(data), size=len(data))
        events: list[Event] = []
        publish(MemorySource(root, contents), ArchiveDestination(tmp_path / "a.tar"), notify=events.append)
        assert "manifest.json" not in read(tmp_path / "a.tar")
        assert [event for event in events if isinstance(event, Warned)] == [
            Warned(f"layer `{ONE.blobs()[1].digest}` is not copied: its media type forbids to distribute it")
        ]


def put_all(destination: ArchiveDestination, source: MemorySource) -> None:
    """Everything in the order in which the source has it."""
    for digest, data in source.contents.items():
        descriptor = type(source.top)(media_type=source.top.media_type, digest=digest, size=len(data))
        destination.put(Blob(descriptor=descriptor, open=partial(io.BytesIO, data)))


class TestRead:
    @pytest.mark.parametrize("prefix", ["", "./"])
    def test_a_plain_oci_archive(self, tmp_path: Path, prefix: str) -> None:
        make(tmp_path / "a.tar", {prefix + name: data for name, data in plain_archive(ONE).items()})
        assert copied(ArchiveSource(tmp_path / "a.tar")) == ONE.contents

    @pytest.mark.parametrize(
        "compress",
        [gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress],
        ids=["gzip", "xz", "zstd"],
    )
    def test_an_archive_compressed_as_a_whole(self, tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
        write(ONE, tmp_path / "a.tar", "localhost/app:1")
        (tmp_path / "b.tar").write_bytes(compress((tmp_path / "a.tar").read_bytes()))
        assert copied(ArchiveSource(tmp_path / "b.tar")) == ONE.contents
        assert copied(DockerArchiveSource(tmp_path / "b.tar")) == ONE.contents

    def test_several_images_by_name(self, tmp_path: Path) -> None:
        make(tmp_path / "a.tar", plain_archive(ONE, {"1": ONE, "localhost/app:2": TWO}))
        assert ArchiveSource(tmp_path / "a.tar", ref="1").root().digest == ONE.top.digest
        assert ArchiveSource(tmp_path / "a.tar", ref="localhost/app:2").root().digest == TWO.top.digest
        assert ArchiveSource(tmp_path / "a.tar", digest=TWO.top.digest).root().digest == TWO.top.digest
        with pytest.raises(TransportError, match="2 images: found `1`, `localhost/app:2`"):
            ArchiveSource(tmp_path / "a.tar")

    def test_streams_are_independent_and_outlive_their_source(self, tmp_path: Path) -> None:
        write(ONE, tmp_path / "a.tar")
        streams = [ArchiveSource(tmp_path / "a.tar").open(ONE.blobs()[1]) for _ in range(2)]
        first = streams[0].read(10)
        for stream, read_before in zip(streams, (first, b""), strict=True):
            with stream:
                assert read_before + stream.read() == ONE.contents[ONE.blobs()[1].digest]

    def test_a_blob_that_is_not_there(self, tmp_path: Path) -> None:
        files = plain_archive(ONE)
        del files[f"blobs/sha256/{ONE.blobs()[1].digest.hex}"]
        with pytest.raises(TransportError, match=f"has no blob `{ONE.blobs()[1].digest}`"):
            copied(ArchiveSource(make(tmp_path / "a.tar", files)))

    def test_a_blob_with_other_bytes(self, tmp_path: Path) -> None:
        files = plain_archive(ONE)
        files[f"blobs/sha256/{ONE.blobs()[1].digest.hex}"] = b"x" * ONE.blobs()[1].size
        with pytest.raises(ImageError):
            copied(ArchiveSource(make(tmp_path / "a.tar", files)))

    def test_the_other_kind_of_archive_is_recognised(self, tmp_path: Path) -> None:
        make(tmp_path / "oci.tar", plain_archive(ONE))
        make(tmp_path / "docker.tar", docker_archive(ONE))
        with pytest.raises(TransportError) as caught:
            ArchiveSource(tmp_path / "docker.tar")
        assert caught.value.hint == f"write `docker-archive:{tmp_path}/docker.tar`"
        with pytest.raises(TransportError) as caught:
            DockerArchiveSource(tmp_path / "oci.tar")
        assert caught.value.hint == f"write `oci-archive:{tmp_path}/oci.tar`"


class TestHostile:
    def refused(self, path: Path, message: str) -> None:
        with pytest.raises(ForgeError, match=message):
            copied(ArchiveSource(path))

    @pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a//b", "blobs/./x", ".."])
    def test_names_that_lead_elsewhere(self, tmp_path: Path, name: str) -> None:
        self.refused(make(tmp_path / "a.tar", plain_archive(ONE) | {name: b""}), "not a path inside of the archive")

    def test_a_name_that_is_there_twice(self, tmp_path: Path) -> None:
        make(tmp_path / "a.tar", {"./index.json": b"{}", **plain_archive(ONE)})
        self.refused(tmp_path / "a.tar", "'index.json': there twice")

    def test_a_link_for_a_blob_is_not_followed(self, tmp_path: Path) -> None:
        files = plain_archive(ONE)
        blob = f"blobs/sha256/{ONE.blobs()[1].digest.hex}"
        files["elsewhere"] = files.pop(blob)
        self.refused(make(tmp_path / "a.tar", files, {blob: "../../elsewhere"}), "has no blob")

    @pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE])
    def test_members_that_are_no_files(self, tmp_path: Path, kind: bytes) -> None:
        make(tmp_path / "a.tar", plain_archive(ONE))
        with tarfile.open(tmp_path / "a.tar", "a:") as tar:
            member = tarfile.TarInfo("odd")
            member.type = kind
            tar.addfile(member)
        self.refused(tmp_path / "a.tar", "'odd': not a whole regular file")

    def test_an_index_of_many_megabytes(self, tmp_path: Path) -> None:
        files = plain_archive(ONE)
        files["index.json"] += b" " * (4 << 20)
        self.refused(make(tmp_path / "a.tar", files), "at most 4194304 are read")

    def test_a_header_as_long_as_the_memory(self, tmp_path: Path) -> None:
        header = tarfile.TarInfo("x")
        header.type, header.size = tarfile.XHDTYPE, 8 << 30
        with (tmp_path / "a.tar").open("wb") as file:
            file.write(header.tobuf(tarfile.GNU_FORMAT))
            file.truncate(9 << 30)  # a sparse file
        self.refused(tmp_path / "a.tar", "a header of")

    def test_a_member_of_negative_size(self, tmp_path: Path) -> None:
        header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
        header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # base-256: -512
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
        self.refused(tmp_path / "a.tar", re.escape("reading `"))

    @pytest.mark.parametrize("data", [b"", b"PK\3\4" + bytes(600), b"x" * 5000, gzip.compress(b"y" * 5000)])
    def test_what_is_no_tar(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "a.tar").write_bytes(data)
        self.refused(tmp_path / "a.tar", "not a whole tar archive")

    def test_an_archive_that_was_cut_short(self, tmp_path: Path) -> None:
        write(ONE, tmp_path / "a.tar")
        data = (tmp_path / "a.tar").read_bytes()
        for size in range(512, len(data) - 1024, 512):
            (tmp_path / "b.tar").write_bytes(data[:size])
            self.refused(tmp_path / "b.tar", ".")

    def test_a_compressed_archive_that_was_cut_short(self, tmp_path: Path) -> None:
        write(ONE, tmp_path / "a.tar")
        (tmp_path / "b.tar").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes())[:-20])
        self.refused(tmp_path / "b.tar", f"reading `{tmp_path}/b.tar`: ")

    @pytest.mark.parametrize("source", [ArchiveSource, DockerArchiveSource])
    def test_what_is_no_file_is_not_waited_for(self, tmp_path: Path, source: Callable[[Path], Source]) -> None:
        """A named pipe, what a shell makes of `<(…)`, and `/dev/stdin`; but a link to a file is one."""
        os.mkfifo(tmp_path / "fifo")
        reading, writing = os.pipe()
        for path in (tmp_path / "fifo", Path(f"/dev/fd/{reading}"), Path("/dev/null")):
            with pytest.raises(TransportError) as caught:
                source(path)
            assert caught.value.message == f"reading `{path}`: it is not a regular file"
            assert caught.value.hint is not None
            assert "keep what comes from a pipe in a file" in caught.value.hint
        os.close(reading)
        os.close(writing)
        write(ONE, tmp_path / "a.tar", "h.io/app:1")
        (tmp_path / "link").symlink_to(tmp_path / "a.tar")
        assert copied(source(tmp_path / "link")).keys() >= {ONE.top.digest}

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(TransportError) as caught:
            ArchiveSource(tmp_path / "a.tar")
        assert caught.value.message == f"reading `{tmp_path}/a.tar`: `{tmp_path}/a.tar`: No such file or directory"


def copied(source: Source) -> dict[Digest, bytes]:
    """Everything that a source leads to."""
    destination = MemoryDestination()
    publish(source, destination)
    return destination.contents


def layers_of(image: MemorySource) -> list[bytes]:
    return [image.contents[layer.digest] for layer in image.blobs()[1:]]


def docker_archive(
    image: MemorySource, *, compressed: bool = False, tags: tuple[str, ...] = ("app:1",)
) -> dict[str, bytes]:
    """The files of `docker save` before version 25: one directory for each layer."""
    config = image.blobs()[0].digest
    names = [f"{number:064x}/layer.tar" for number in range(len(layers_of(image)))]
    layers = [data if compressed else gzip.decompress(data) for data in layers_of(image)]
    manifest = [{"Config": f"{config.hex}.json", "RepoTags": list(tags), "Layers": names}]
    return {
        **dict(zip(names, layers, strict=True)),
        f"{config.hex}.json": image.contents[config],
        "manifest.json": json.dumps(manifest).encode(),
        "repositories": b"{}",
    }


class TestDockerArchive:
    @pytest.mark.parametrize(("compressed", "suffix"), [(False, ""), (True, "+gzip")])
    def test_a_manifest_is_made_for_an_old_one(self, tmp_path: Path, compressed: bool, suffix: str) -> None:
        make(tmp_path / "a.tar", docker_archive(ONE, compressed=compressed))
        source = DockerArchiveSource(tmp_path / "a.tar")
        contents = copied(source)
        manifest = ImageManifest.parse(contents[source.root().digest], source.root().media_type)
        assert manifest.config.digest == ONE.blobs()[0].digest
        wanted = [data if compressed else gzip.decompress(data) for data in layers_of(ONE)]
        assert [contents[layer.digest] for layer in manifest.layers] == wanted
        assert {layer.media_type for layer in manifest.layers} == {LAYER + suffix}
        assert DockerArchiveSource(tmp_path / "a.tar").root() == source.root()

    def test_a_layer_that_is_there_twice_is_a_link(self, tmp_path: Path) -> None:
        image = sample_image(({"one": b"1"}, {"one": b"1"}))
        files = docker_archive(image)
        first, second = f"{0:064x}/layer.tar", f"{1:064x}/layer.tar"
        del files[second]
        make(tmp_path / "a.tar", files, {second: f"../{first}"})
        source = DockerArchiveSource(tmp_path / "a.tar")
        manifest = ImageManifest.parse(copied(source)[source.root().digest], None)
        assert manifest.layers[0] == manifest.layers[1]

    @pytest.mark.parametrize("target", ["../../../etc/passwd", "/etc/passwd", "layer.tar", "../nowhere"])
    def test_a_link_that_leads_nowhere(self, tmp_path: Path, target: str) -> None:
        files = docker_archive(ONE)
        name = f"{0:064x}/layer.tar"
        del files[name]
        make(tmp_path / "a.tar", files, {name: target})
        with pytest.raises(TransportError, match=f"has no `{name}`, which `manifest.json` names"):
            DockerArchiveSource(tmp_path / "a.tar")

    def test_a_layer_that_is_not_the_one_in_the_configuration(self, tmp_path: Path) -> None:
        files = docker_archive(ONE)
        files[f"{0:064x}/layer.tar"] = bytes(10240)
        with pytest.raises(ImageError, match="got bytes with the digest"):
            copied(DockerArchiveSource(make(tmp_path / "a.tar", files)))

    @pytest.mark.parametrize(
        ("ref", "image"),
        [("one", ONE), ("docker.io/library/one:latest", ONE), ("localhost/two:2", TWO), ("two", None), (None, None)],
    )
    def test_several_images_need_a_name(self, tmp_path: Path, ref: str | None, image: MemorySource | None) -> None:
        one, two = docker_archive(ONE, tags=("one:latest", "one:x")), docker_archive(TWO, tags=("localhost/two:2",))
        manifests = json.loads(one["manifest.json"]) + json.loads(two["manifest.json"])
        manifests[1]["Layers"] = ["two.tar"]
        two["two.tar"] = two.pop(f"{0:064x}/layer.tar")
        make(tmp_path / "a.tar", two | one | {"manifest.json": json.dumps(manifests).encode()})
        if image is not None:
            source = DockerArchiveSource(tmp_path / "a.tar", ref=ref)
            assert image.blobs()[0].digest in copied(source)
            return
        with pytest.raises(TransportError) as caught:
            DockerArchiveSource(tmp_path / "a.tar", ref=ref)
        why = "no image `two`" if ref else "2 images"
        assert caught.value.message == (
            f"`docker-archive:{tmp_path}/a.tar`: {why}: found `one:latest`, `one:x`, `localhost/two:2`"
        )

    def test_an_image_that_has_its_oci_manifest_keeps_it(self, tmp_path: Path) -> None:
        write(index_of(TWO, ARM), tmp_path / "a.tar", "localhost/app:1", platform="linux/arm64")
        source = transports.source(f"docker-archive:{tmp_path}/a.tar:localhost/app:1")
        assert source.root().digest == ARM.top.digest

    def test_the_digest_asked_for(self, tmp_path: Path) -> None:
        write(ONE, tmp_path / "a.tar")
        assert transports.source(f"docker-archive:{tmp_path}/a.tar@{ONE.top.digest}").root().digest == ONE.top.digest
        with pytest.raises(
            TransportError, match=f"the image has the digest `{ONE.top.digest}`, not `{TWO.top.digest}`"
        ):
            transports.source(f"docker-archive:{tmp_path}/a.tar@{TWO.top.digest}")

    @pytest.mark.parametrize(
        ("manifest", "message"),
        [
            ({}, "expected an array"),
            ([], "no image: found none"),
            ([{}], "[0].Config: missing"),
            ([{"Config": "nowhere.json", "Layers": []}], "has no `nowhere.json`"),
            ([{"Config": f"{ONE.blobs()[0].digest.hex}.json", "Layers": []}], "0 layers, but 2 diff_ids"),
            ([{"Config": 1}], "Config: expected a string"),
        ],
    )
    def test_broken_manifests(self, tmp_path: Path, manifest: Any, message: str) -> None:
        make(tmp_path / "a.tar", docker_archive(ONE) | {"manifest.json": json.dumps(manifest).encode()})
        with pytest.raises(ForgeError, match=re.escape(message)):
            DockerArchiveSource(tmp_path / "a.tar")

    def test_a_manifest_of_many_megabytes(self, tmp_path: Path) -> None:
        make(tmp_path / "a.tar", docker_archive(ONE) | {"manifest.json": b"[" + b" " * (4 << 20) + b"]"})
        with pytest.raises(TransportError, match="at most 4194304 are read"):
            DockerArchiveSource(tmp_path / "a.tar")


@pytest.fixture
def runroot() -> Iterator[Path]:
    """A directory whose name is short enough for podman: 50 characters."""
    with tempfile.TemporaryDirectory(prefix="forge-", dir="/tmp") as folder:
        yield Path(folder)


class TestForeignTools:
    def run(self, *command: object) -> bytes:
        done = subprocess.run([str(word) for word in command], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def test_gnu_tar_lists_it(self, tmp_path: Path) -> None:
        write(ONE, tmp_path / "a.tar", "localhost/app:1")
        assert self.run(need("tar"), "tf", tmp_path / "a.tar").decode().split()[:2] == ["blobs/", "blobs/sha256/"]

    def test_skopeo_reads_it_both_ways(self, tmp_path: Path) -> None:
        skopeo = need("skopeo")
        write(ONE, tmp_path / "a.tar", "localhost/app:1")
        raw = self.run(skopeo, "inspect", "--raw", f"oci-archive:{tmp_path}/a.tar:1")
        assert Digest.of(raw) == ONE.top.digest
        config = self.run(skopeo, "inspect", "--raw", "--config", f"docker-archive:{tmp_path}/a.tar:localhost/app:1")
        assert Digest.of(config) == ONE.blobs()[0].digest

    def test_what_skopeo_writes_is_read(self, tmp_path: Path) -> None:
        skopeo = need("skopeo")
        write(ONE, tmp_path / "a.tar", "localhost/app:1")
        copy = (skopeo, "--insecure-policy", "copy", f"oci-archive:{tmp_path}/a.tar")
        self.run(*copy, f"oci-archive:{tmp_path}/b.tar:there")
        self.run(*copy, f"docker-archive:{tmp_path}/c.tar:localhost/there:1")
        assert copied(ArchiveSource(tmp_path / "b.tar", ref="there")) == ONE.contents
        contents = copied(DockerArchiveSource(tmp_path / "c.tar", ref="localhost/there:1"))
        assert {Digest.of(gzip.decompress(data)) for data in layers_of(ONE)} <= set(contents)
        assert ONE.blobs()[0].digest in contents

    def test_podman_loads_and_saves_it(self, tmp_path: Path, runroot: Path) -> None:
        podman = (need("podman"), "--root", tmp_path / "root", "--runroot", runroot, "--storage-driver", "vfs")
        write(ONE, tmp_path / "a.tar", "localhost/app:1", "localhost/app:2")
        self.run(*podman, "load", "-i", tmp_path / "a.tar")
        for tag in ("1", "2"):
            found = (
                self.run(*podman, "image", "inspect", "--format", "{{.Id}}", f"localhost/app:{tag}").decode().strip()
            )
            assert found == ONE.blobs()[0].digest.hex
        for kind in ("docker-archive", "oci-archive"):
            saved = tmp_path / f"{kind}.tar"
            self.run(*podman, "save", "--format", kind, "-o", saved, "localhost/app:1")
            contents = copied(transports.source(f"{kind}:{saved}:localhost/app:1"))
            tars = {Digest.of(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data) for data in contents.values()}
            assert {Digest.of(gzip.decompress(data)) for data in layers_of(ONE)} <= tars
