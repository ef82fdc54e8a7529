"""Bases: pulled, checked, listed, kept."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from msgspec.structs import replace

from layers.compress import Codec
from layers.digest import Digest
from layers.entry import Bytes, Directory, File
from ociforge import base as images
from ociforge.base import Base, rootfs, scratch
from ociforge.base import image as image_module
from ociforge.errors import BaseImageError, ImageError, PlatformError, TransportError
from ociforge.events import BlobDone, BlobStarted, Event
from ociforge.oci.blob import VerifiedReader
from ociforge.oci.descriptor import CONFIG, DOCKER_MANIFEST, MANIFEST, Descriptor, canonical_json, parse_json
from ociforge.platform import Platform
from ociforge.store import Store
from ociforge.transports import source as source_of
from tests.support.bases import Member, tar_of, tiny_image
from tests.support.images import HandmadeImage, write_docker_archive, write_layout, write_oci_archive
from tests.support.memory import MemorySource, index_of, keep, sample_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from ociforge.transports.base import Source

AMD64 = Platform.parse("linux/amd64")
ARM64 = Platform.parse("linux/arm64")
LAYER = "application/vnd.oci.image.layer.v1.tar"
GZIP = Codec.parse("gzip")


def load(source: Source, *, platform: Platform, store: Store, **options: Any) -> Base:
    """The base with its paths looked at, as a build that has something to do does."""
    base = images.load(source, platform=platform, store=store, **options)
    assert base.tree is base.tree
    return base


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def image_of(*layers: bytes, media_type: str = LAYER, **config: Any) -> MemorySource:
    """An image of these blobs, which are uncompressed tars unless `media_type` says otherwise."""
    contents = {Digest.of(layer): layer for layer in layers}
    document = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": list(map(str, contents))},
    }
    described = keep(contents, document | config, CONFIG)
    blobs = [{"mediaType": media_type, "digest": str(Digest.of(layer)), "size": len(layer)} for layer in layers]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described.to_json(), "layers": blobs}
    return MemorySource(keep(contents, manifest, MANIFEST), contents)


def manifest_of(source: MemorySource) -> dict[str, Any]:
    return parse_json(source.contents[source.top.digest], "manifest")


def paths(base: Base) -> list[str]:
    return [path for path, _ in base.tree]


def written(base: Base) -> list[bytes]:
    """What a destination would be given."""
    blobs = []
    for layer in base.layers:
        with base.blob(layer).open() as stream:
            blobs.append(stream.read())
    return blobs


def test_an_image_is_listed_and_its_layers_passed_on_as_they_are(store: Store) -> None:
    source = sample_image()
    base = load(source, platform=AMD64, store=store, name="registry.example.com/base:1")
    assert (base.name, base.digest, base.platform) == ("registry.example.com/base:1", source.top.digest, AMD64)
    assert paths(base) == ["etc", "etc/first", "etc/second"]
    assert [str(diff_id) for diff_id in base.config.diff_ids] == [
        str(Digest.of(gzip.decompress(blob))) for blob in written(base)
    ]
    assert [Digest.of(blob) for blob in written(base)] == [layer.digest for layer in base.layers]


@pytest.mark.parametrize("form", ["layout", "docker layout", "oci-archive", "docker-archive", "docker-archive gzip"])
def test_every_form_gives_the_same_base(tmp_path: Path, store: Store, form: str) -> None:
    image, place = tiny_image(), tmp_path / "base"
    match form:
        case "layout":
            write_layout(image, place)
            location = f"oci:{place}:latest"
        case "docker layout":
            write_layout(image, place, dialect="docker")
            location = f"oci:{place}"
        case "oci-archive":
            write_oci_archive(image, place)
            location = f"oci-archive:{place}"
        case _:
            write_docker_archive(image, place, compressed=form.endswith("gzip"))
            location = f"docker-archive:{place}"
    base = load(source_of(location), platform=AMD64, store=store)
    sh = base.tree.lookup("bin/sh")
    assert sh is not None
    assert base.tree.resolve("lib/x") == "usr/lib/x"
    assert base.tree.os_release()["ID"] == "tiny"
    assert base.config.env["LANG"] == "C.UTF-8"
    assert {layer.media_type.removesuffix("+gzip") for layer in base.layers} == {LAYER}
    assert [str(diff_id) for diff_id in base.config.diff_ids] == [str(Digest.of(layer)) for layer in image.layers]


def test_docker_types_become_oci_and_blobs_stay(store: Store) -> None:
    source = sample_image(docker_types=True)
    assert source.top.media_type == DOCKER_MANIFEST
    base = load(source, platform=AMD64, store=store)
    assert [layer.media_type for layer in base.layers] == [f"{LAYER}+gzip"] * 2
    assert [Digest.of(blob) for blob in written(base)] == [layer.digest for layer in base.layers]


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_every_compression_is_read(store: Store, codec: str) -> None:
    assert paths(load(sample_image(codec=codec), platform=AMD64, store=store)) == ["etc", "etc/first", "etc/second"]


def test_the_usr_merge_trap(store: Store) -> None:
    source = image_of(*tiny_image().layers)
    tree = load(source, platform=AMD64, store=store).tree
    tool = File(path="bin/tool", size=1, content=Bytes(b"x"), mode=0o755)
    assert tree.place([tool]) == (replace(tool, path="usr/bin/tool"),)
    with pytest.raises(BaseImageError, match="`lib`: a directory would replace the base image's link to `usr/lib`"):
        tree.place([Directory(path="lib")])
    assert tree.parents(["tmp/x", "opt/env"])[1:] == (Directory(path="tmp", mode=0o1777, mtime=1704164645),)
    with pytest.raises(BaseImageError, match="prefix `/usr`: the base image has a directory there"):
        tree.refuse_existing("usr", "prefix")


def test_whiteouts_of_upper_layers_count(store: Store) -> None:
    lower = tar_of({"etc": 0o755, "etc/a": b"1", "etc/b": b"2", "opt": 0o755, "opt/x": b"3"})
    upper = tar_of({"etc": 0o700, "etc/.wh.a": b"", "opt/.wh..wh..opq": b"", "opt/y": b"4"})
    base = load(image_of(lower, upper), platform=AMD64, store=store)
    assert paths(base) == ["etc", "etc/b", "opt", "opt/y"]
    etc = base.tree.lookup("etc")
    assert etc is not None
    assert etc.mode == 0o700


def test_an_index_gives_the_image_of_the_platform(store: Store) -> None:
    amd64 = sample_image([{"amd64": b"x"}])
    arm64 = sample_image([{"arm64": b"x"}], platform="linux/arm64")
    source = index_of(amd64, arm64)
    assert paths(load(source, platform=AMD64, store=store)) == ["amd64"]
    base = load(source, platform=ARM64, store=store)
    assert paths(base) == ["arm64"]
    assert base.digest == source.top.digest
    with pytest.raises(BaseImageError) as caught:
        load(source, platform=Platform.parse("linux/s390x"), store=store, name="the/base")
    assert caught.value.message == (
        "base image `the/base`: image index: no image for `linux/s390x`: found `linux/amd64`, `linux/arm64`"
    )


def test_an_image_of_another_platform_is_refused(store: Store) -> None:
    with pytest.raises(BaseImageError) as caught:
        load(sample_image(), platform=ARM64, store=store, name="the/base")
    assert caught.value.message == "base image `the/base`: it is for `linux/amd64`, not for `linux/arm64`"
    assert "`--platform linux/amd64`" in str(caught.value.hint)


def test_an_index_that_lies_about_the_platform_is_refused(store: Store) -> None:
    liar = sample_image()
    liar.top = replace(liar.top, platform=ARM64)
    with pytest.raises(BaseImageError) as caught:
        load(index_of(liar), platform=ARM64, store=store)
    assert caught.value.message == (
        "base image: its index calls it `linux/arm64`, its configuration is for `linux/amd64`"
    )


def test_layers_are_not_read_before_their_paths_are_asked_for(store: Store) -> None:
    source = sample_image()
    base = images.load(source, platform=AMD64, store=store)
    layers = {layer.digest for layer in base.layers}
    assert base.identity == images.load(source, platform=AMD64, store=store).identity
    assert layers.isdisjoint(source.opened)
    assert base.tree is not None
    assert layers <= set(source.opened)


def test_nothing_is_read_twice(store: Store) -> None:
    source = sample_image()
    first = load(index_of(source), platform=AMD64, store=store)
    again = index_of(source)
    second = load(again, platform=AMD64, store=store)
    assert paths(second) == paths(first)
    assert [Digest.of(blob) for blob in written(second)] == [layer.digest for layer in second.layers]
    assert again.opened == []


def test_a_listing_spares_the_blob(store: Store) -> None:
    source = sample_image()
    layers = load(source, platform=AMD64, store=store).layers
    for layer in layers:
        store.path(layer.digest).unlink()
    source.opened.clear()
    base = load(source, platform=AMD64, store=store)
    assert source.opened == []
    assert [Digest.of(blob) for blob in written(base)] == [layer.digest for layer in layers]
    assert source.opened == [layer.digest for layer in layers]


@pytest.mark.parametrize("harm", [b"", b"not a listing", gzip.compress(b"{}")])
def test_a_damaged_listing_is_made_again(store: Store, harm: bytes) -> None:
    source = sample_image()
    layers = load(source, platform=AMD64, store=store).layers
    for layer in layers:
        store.trees.path(layer.digest).write_bytes(harm)
    source.opened.clear()
    assert paths(load(source, platform=AMD64, store=store)) == ["etc", "etc/first", "etc/second"]
    assert source.opened == []
    assert store.trees.find(layers[0].digest) not in (None, harm)


def test_damaged_blobs_in_the_store_are_fetched_again(store: Store) -> None:
    source = sample_image()
    top = load(source, platform=AMD64, store=store)
    for path in (store.root / "blobs" / "sha256").iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    for layer in top.layers:
        store.trees.path(layer.digest).unlink()
    base = load(source, platform=AMD64, store=store)
    assert paths(base) == paths(top)
    assert [Digest.of(blob) for blob in written(base)] == [layer.digest for layer in base.layers]
    assert all(store.verify(layer) for layer in base.layers)


def test_transfers_are_reported(store: Store) -> None:
    events: list[Event] = []
    base = load(sample_image(), platform=AMD64, store=store, notify=events.append)
    started = [event for event in events if isinstance(event, BlobStarted)]
    done = [event for event in events if isinstance(event, BlobDone)]
    assert [event.digest for event in started] == [layer.digest for layer in base.layers]
    assert [(event.digest, event.outcome) for event in done] == [(layer.digest, "downloaded") for layer in base.layers]


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("harm", [flip, lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_wrong_bytes_are_noticed_and_not_kept(store: Store, harm: Callable[[bytes], bytes]) -> None:
    source = sample_image()
    layer = source.blobs()[1]
    source.contents[layer.digest] = harm(source.contents[layer.digest])
    with pytest.raises(BaseImageError, match=f"base image `b`: layer `{layer.digest}`"):
        load(source, platform=AMD64, store=store, name="b")
    assert not store.has(layer.digest)
    assert store.trees.find(layer.digest) is None


@pytest.mark.parametrize("which", ["manifest", "config"])
def test_wrong_documents_are_noticed(store: Store, which: str) -> None:
    source = sample_image()
    digest = source.top.digest if which == "manifest" else source.blobs()[0].digest
    source.contents[digest] = flip(source.contents[digest])
    with pytest.raises(BaseImageError, match=f"base image: blob `{digest}`: got bytes with the digest"):
        load(source, platform=AMD64, store=store)
    assert not store.has(digest)


def test_a_source_that_fails_is_passed_on(store: Store) -> None:
    source = sample_image()
    del source.contents[source.blobs()[2].digest]
    with pytest.raises(TransportError, match="memory has no blob"):
        load(source, platform=AMD64, store=store)
    assert list((store.root / "ingest").iterdir()) == []


def retold(source: MemorySource, config: Mapping[str, Any] | bytes, layers: int | None = None) -> MemorySource:
    """The image with another configuration."""
    contents = dict(source.contents)
    data = config if isinstance(config, bytes) else canonical_json(config)
    descriptor = Descriptor(media_type=CONFIG, digest=Digest.of(data), size=len(data))
    contents[descriptor.digest] = data
    manifest = manifest_of(source)
    manifest = manifest | {"config": descriptor.to_json(), "layers": manifest["layers"][:layers]}
    return MemorySource(keep(contents, manifest, MANIFEST), contents)


def config_of(source: MemorySource) -> dict[str, Any]:
    return parse_json(source.contents[source.blobs()[0].digest], "config")


def test_diff_ids_are_compared(store: Store) -> None:
    source = sample_image()
    config = config_of(source)
    lie = str(Digest.of(b"something else"))
    config["rootfs"]["diff_ids"][1] = lie
    layer = source.blobs()[2]
    for _ in range(2):  # fresh, and from the listing
        with pytest.raises(BaseImageError, match=rf"layer `{layer.digest}` unpacks to `.*`, but .* says `{lie}`"):
            load(retold(source, config), platform=AMD64, store=store)


def test_as_many_diff_ids_as_layers(store: Store) -> None:
    source = sample_image()
    with pytest.raises(BaseImageError, match="base image: 1 layers in the manifest, 2 in the configuration"):
        load(retold(source, config_of(source), layers=1), platform=AMD64, store=store)


@pytest.mark.parametrize(
    "config", [b"", b"[]", b"{", b'{"os":"linux","os":"linux"}', b'{"a":NaN}', b"{}", b"\xff", b" " * (5 << 20)]
)
def test_configurations_that_are_none(store: Store, config: bytes) -> None:
    with pytest.raises(BaseImageError, match="base image: "):
        load(retold(sample_image(), config), platform=AMD64, store=store)


def test_what_is_no_image_is_refused(store: Store) -> None:
    source = sample_image()
    changes: list[dict[str, Any]] = [
        {"manifests": []},
        {"config": config_artifact(source)},
        {"mediaType": DOCKER_MANIFEST},
        {"layers": [manifest_of(source)["layers"][0] | {"mediaType": "application/zip"}]},
    ]
    for change in changes:
        contents = dict(source.contents)
        top = keep(contents, manifest_of(source) | change, MANIFEST)
        with pytest.raises(BaseImageError, match="base image: "):
            load(MemorySource(top, contents), platform=AMD64, store=store)


def config_artifact(source: MemorySource) -> dict[str, Any]:
    config: dict[str, Any] = manifest_of(source)["config"]
    return config | {"mediaType": "application/vnd.cncf.helm.config.v1+json"}


def endless() -> bytes:
    """What unpacks to a header and then 10 GiB of one file."""
    header = tarfile.TarInfo("file")
    header.size = 10 << 30
    return gzip.compress(header.tobuf() + bytes(1 << 20), mtime=0)


HOSTILE: dict[str, tuple[bytes, str, str]] = {
    "escape": (tar_of({"../../etc/passwd": b""}), LAYER, "`../../etc/passwd`: `..` in a path"),
    "nul": (tar_of({"x" * 150: b""}).replace(b"path=xx", b"path=x\0"), LAYER, "a NUL in a name"),
    "truncated tar": (tar_of({"x": bytes(5000)})[:2000], LAYER, "truncated in an entry"),
    "truncated gzip": (gzip.compress(tar_of({"x": b""}))[:-4], f"{LAYER}+gzip", "gzip data is cut short"),
    "truncated second member": (
        gzip.compress(tar_of({"x": b""})) + gzip.compress(b"y" * 1000)[:-9],
        f"{LAYER}+gzip",
        "gzip data is cut short",
    ),
    "garbage": (gzip.compress(tar_of({"x": b""})) + b"garbage", f"{LAYER}+gzip", "gzip data is damaged"),
    "a file longer than its tar": (endless(), f"{LAYER}+gzip", "truncated in an entry"),
    "window of 256 MiB": (bytes.fromhex("28b52ffd 00 90 010000"), f"{LAYER}+zstd", "zstd data is damaged"),
    "another compression": (tar_of({"x": b""}), f"{LAYER}+gzip", "found no compression"),
    "whiteout": (tar_of({"etc/.wh.": b""}), LAYER, "`etc/.wh.` is a whiteout of nothing"),
    "loop": (tar_of({"a": "b", "b": "a", "a/x": b""}), LAYER, "too many symbolic links, or a loop"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_layers_are_refused(store: Store, case: str) -> None:
    data, media_type, why = HOSTILE[case]
    with pytest.raises(BaseImageError) as caught:
        load(image_of(data, media_type=media_type), platform=AMD64, store=store)
    assert why in caught.value.message


def test_a_bomb_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "MAX_UNPACKED", 1 << 20)
    bomb = gzip.compress(tar_of({"zeros": bytes(2 << 20)}))
    with pytest.raises(BaseImageError, match="expands to more than the 1048576 bytes allowed"):
        load(image_of(bomb, media_type=f"{LAYER}+gzip"), platform=AMD64, store=store)
    assert list((store.root / "ingest").iterdir()) == []


class Padded(MemorySource):
    """Gives more than was asked for, against the contract of sources."""

    def open(self, descriptor: Descriptor) -> BinaryIO:
        if descriptor.media_type.startswith(LAYER):
            return io.BytesIO(self.contents[descriptor.digest] + bytes(512))
        return super().open(descriptor)


def test_a_source_that_does_not_verify_is_not_trusted(store: Store) -> None:
    honest = image_of(tar_of({"x": b""}))
    with pytest.raises(BaseImageError, match="got bytes with digest"):
        load(Padded(honest.top, honest.contents), platform=AMD64, store=store)
    assert not store.has(honest.blobs()[1].digest)


# Files given as a root file system.

ROOTFS = tar_of({"./": 0o755, "./bin": "usr/bin", "./usr": 0o755, "./usr/bin": 0o755, "./usr/bin/sh": b"#!"})


def built(data: bytes, store: Store, tmp_path: Path, codec: Codec = GZIP) -> Base:
    path = tmp_path / "rootfs.tar"
    path.write_bytes(data)
    return rootfs(path, platform=AMD64, store=store, codec=codec)


@pytest.mark.parametrize(
    ("packed", "media_type"),
    [
        (gzip.compress(ROOTFS), f"{LAYER}+gzip"),
        (zstandard.ZstdCompressor().compress(ROOTFS), f"{LAYER}+zstd"),
        (
            zstandard.ZstdCompressor().compress(ROOTFS[:1000]) + zstandard.ZstdCompressor().compress(ROOTFS[1000:]),
            f"{LAYER}+zstd",
        ),
    ],
)
def test_a_compressed_rootfs_is_kept_as_it_is(store: Store, tmp_path: Path, packed: bytes, media_type: str) -> None:
    base = built(packed, store, tmp_path)
    (layer,) = base.layers
    assert (layer.media_type, written(base)) == (media_type, [packed])
    assert base.config.diff_ids == (Digest.of(ROOTFS),)
    assert paths(base) == ["bin", "usr", "usr/bin", "usr/bin/sh"]


@pytest.mark.parametrize(
    "packed",
    [
        ROOTFS,
        lzma.compress(ROOTFS),
        gzip.compress(ROOTFS[:1000]) + gzip.compress(ROOTFS[1000:]),
        gzip.compress(b"") + gzip.compress(ROOTFS),
        bytes.fromhex("502a4d1804000000") + b"skip" + zstandard.ZstdCompressor().compress(ROOTFS),
    ],
)
@pytest.mark.parametrize("codec", ["gzip", "zstd", "none"])
def test_any_other_rootfs_is_compressed_by_the_codec(store: Store, tmp_path: Path, packed: bytes, codec: str) -> None:
    base = built(packed, store, tmp_path, Codec.parse(codec))
    (layer,) = base.layers
    assert layer.media_type == Codec.parse(codec).media_type
    assert b"".join(Codec.parse(codec).compress([ROOTFS])) == written(base)[0]
    assert base.config.diff_ids == (Digest.of(ROOTFS),)
    assert paths(base) == ["bin", "usr", "usr/bin", "usr/bin/sh"]


def test_a_rootfs_of_another_machine(store: Store, tmp_path: Path) -> None:
    loader: dict[str, Member] = {"./lib": 0o755, "./lib/ld-linux-aarch64.so.1": b"\x7fELF"}
    with pytest.raises(PlatformError) as caught:
        built(tar_of(loader), store, tmp_path)
    path = tmp_path / "rootfs.tar"
    assert caught.value.message == f"rootfs `{path}`: it is for `linux/arm64`, not for `linux/amd64`"
    assert rootfs(path, platform=Platform.parse("linux/arm64"), store=store, codec=GZIP).tree.lookup("lib") is not None


def test_a_rootfs_has_a_plain_configuration(store: Store, tmp_path: Path) -> None:
    base = built(ROOTFS, store, tmp_path)
    assert base.config.platform == AMD64
    assert base.config.env == {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    assert (base.name, base.digest, base.config.user, base.config.cmd) == (None, None, "", None)


def test_a_rootfs_is_packed_once_per_codec(store: Store, tmp_path: Path) -> None:
    first = built(ROOTFS, store, tmp_path)
    inode = store.path(first.layers[0].digest).stat().st_ino
    (tmp_path / "elsewhere").mkdir()
    again = built(ROOTFS, store, tmp_path / "elsewhere")
    assert (again.layers, again.config.to_bytes()) == (first.layers, first.config.to_bytes())
    assert store.path(again.layers[0].digest).stat().st_ino == inode
    other = built(ROOTFS, store, tmp_path, Codec.parse("zstd"))
    assert other.layers != first.layers


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_umask_and_time_zone_do_not_matter(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    expected = built(ROOTFS, store, tmp_path).config.to_bytes()
    before = os.umask(umask)
    try:
        base = built(ROOTFS, Store(tmp_path / "other"), tmp_path)
    finally:
        os.umask(before)
    assert base.config.to_bytes() == expected


def test_a_damaged_copy_of_a_rootfs_is_made_again(store: Store, tmp_path: Path) -> None:
    (layer,) = built(ROOTFS, store, tmp_path).layers
    os.truncate(store.path(layer.digest), 10)
    base = built(ROOTFS, store, tmp_path)
    assert store.verify(base.layers[0])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it has no end marker"),
        (ROOTFS[:-10240], "truncated|no end marker"),
        (b"not a tar" * 1000, "is not a usable tar archive"),
        (gzip.compress(ROOTFS)[:-1], "gzip data is cut short"),
        (gzip.compress(ROOTFS) + b"\0", "gzip data is cut short"),
        (lzma.compress(ROOTFS)[:-1], "xz data is cut short"),
        (ROOTFS + ROOTFS, "data behind its end marker"),
        (tar_of({"../x": b""}), r"`\.\.` in a path"),
    ],
)
def test_an_unusable_rootfs_is_refused(store: Store, tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(BaseImageError, match=why) as caught:
        built(data, store, tmp_path)
    assert caught.value.message.startswith(f"rootfs `{tmp_path / 'rootfs.tar'}`")
    assert not (store.root / "catalog").exists()


def test_a_rootfs_that_is_no_file_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BaseImageError, match="it cannot be read: No such file or directory"):
        rootfs(tmp_path / "none", platform=AMD64, store=store, codec=GZIP)
    with pytest.raises(BaseImageError, match="it cannot be read: not a regular file"):
        rootfs(tmp_path, platform=AMD64, store=store, codec=GZIP)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BaseImageError, match="it cannot be read: not a regular file"):  # and is not waited for
        rootfs(tmp_path / "pipe", platform=AMD64, store=store, codec=GZIP)


def test_a_git_archive_is_refused(store: Store, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers={"comment": "0" * 40}) as archive:
        archive.addfile(tarfile.TarInfo("x"))
    with pytest.raises(BaseImageError, match="it has a global PAX header"):
        built(buffer.getvalue(), store, tmp_path)


def test_scratch_has_nothing() -> None:
    base = scratch(ARM64)
    assert (base.layers, paths(base), base.config.diff_ids, base.config.platform) == ((), [], (), ARM64)
    stray = Descriptor(media_type=LAYER, digest=Digest.of(b""), size=0)
    with pytest.raises(BaseImageError, match="is none of the base image's"):
        base.blob(stray).open()


def test_layers_of_a_base_are_verified_streams(store: Store) -> None:
    source = sample_image()
    base = load(source, platform=AMD64, store=store)
    layer = base.layers[0]
    store.path(layer.digest).unlink()
    source.contents[layer.digest] = flip(source.contents[layer.digest])
    with base.blob(layer).open() as stream, pytest.raises(ImageError):
        stream.read()
    assert isinstance(base.blob(layer).open(), VerifiedReader)


def test_the_same_image_by_hand(tmp_path: Path, store: Store) -> None:
    """A layer listed twice, and an empty one."""
    layer = tar_of({"x": b"1"})
    write_layout(HandmadeImage(layers=(layer, layer, bytes(1024))), tmp_path / "layout")
    base = load(source_of(f"oci:{tmp_path / 'layout'}"), platform=AMD64, store=store)
    assert len(base.layers) == 3
    assert paths(base) == ["x"]
