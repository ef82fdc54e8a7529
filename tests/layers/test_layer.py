"""Whole layers: pinned bytes, any order, any number of workers, constant memory, foreign readers."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers import (
    FORMAT,
    Arrangement,
    Bytes,
    Codec,
    Digest,
    Directory,
    EntryError,
    File,
    Hardlink,
    Layer,
    Segment,
    Symlink,
    arrange,
    decompress,
    write_layer,
)
from tests.layers.trees import fixture, generated, streamed, threaded, trees
from tests.support.tools import need

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

CODECS = ["none", "gzip", "zstd"]

# diff_ids of the fixture tree, by format number. They change with the format number and never without it.
GOLDEN = {
    2: {
        "all": "sha256:2d0c7d54be143e282b40a9e389c8fac984982dc3f6ad5cba825794721b163ffb",
        "demo": "sha256:7e1142d3da5e1ca875fffa8f6d3ab38381e660140515c4f2b2e6937f92bade24",
        "names": "sha256:e3e72c9976a0faa99ee0304bb1ca3ba82cf522f11d10120390ca59d2588ead7c",
        "empty": "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    },
}


def written(segments: Arrangement | Iterable[Segment], codec: str = "none", workers: int = 0) -> tuple[Layer, bytes]:
    sink = io.BytesIO()
    layer = write_layer(segments, sink, Codec.parse(codec), threaded(workers) if workers else map)
    return layer, sink.getvalue()


def test_golden_diff_ids() -> None:
    segments = {segment.name: segment for segment in fixture()}
    trees_ = {"all": fixture(), "demo": [segments["demo"]], "names": [segments["names"]], "empty": []}
    assert {name: str(written(tree)[0].diff_id) for name, tree in trees_.items()} == GOLDEN[FORMAT]


@pytest.mark.parametrize("codec", CODECS)
def test_a_layer_describes_what_was_written(codec: str) -> None:
    layer, blob = written(fixture(), codec)
    tar = decompress(io.BytesIO(blob), layer.media_type, limit=1 << 24).read()
    assert layer.diff_id == Digest.of(tar)
    assert layer.digest == Digest.of(blob)
    assert layer.size == len(blob)
    assert layer.media_type == Codec.parse(codec).media_type


def test_codecs_differ_in_compression_only() -> None:
    assert len({written(fixture(), codec)[0].diff_id for codec in [*CODECS, "gzip:1", "zstd:1"]}) == 1


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_makes_the_same_blob(codec: str, workers: int) -> None:
    assert written(fixture(), codec, workers) == written(fixture(), codec)


@settings(max_examples=30)
@given(trees(), st.randoms(use_true_random=False), st.sampled_from(CODECS), st.integers(0, 3))
def test_any_order_makes_the_same_blob(
    segments: list[Segment], chance: random.Random, codec: str, workers: int
) -> None:
    expected = written(segments, codec)
    chance.shuffle(segments)
    assert written(segments, codec, workers) == expected
    assert written(arrange(segments), codec) == expected
    assert written(streamed(segments), codec, workers) == expected


def test_segments_do_not_depend_on_their_neighbours() -> None:
    def tar(*segments: Segment) -> bytes:
        return written(segments)[1][:-1024]

    a = Segment("a", (generated("a", b"A" * 3000), Hardlink(path="a2", target="a")))
    b = Segment("b", (generated("b", b"B"),))
    c = Segment("c", (Symlink(path="c", target="b"),))
    assert tar(a, b, c) == tar(a) + tar(b) + tar(c)


def test_nothing_to_write_is_an_empty_tar() -> None:
    layer, blob = written([])
    assert blob == bytes(1024)
    assert layer.size == 1024


def test_the_error_of_a_file_comes_through_any_map() -> None:
    segments = [Segment("s", (File(path="opt/f", size=9, content=Bytes(b"short")),))]
    for codec in CODECS:
        for workers in (0, 2):
            with pytest.raises(EntryError, match="`opt/f`: has 5 bytes, not the 9 announced"):
                written(segments, codec, workers)


def test_bad_entries_write_nothing() -> None:
    sink = io.BytesIO()
    with pytest.raises(EntryError, match="`/f`: is absolute"):
        write_layer([Segment("s", (generated("/f", b""),))], sink, Codec.parse("gzip"))
    assert sink.getvalue() == b""


class Generated:
    """Content made while it is read, never held."""

    def __init__(self, size: int) -> None:
        self.size = size

    def open(self) -> BinaryIO:
        return io.BufferedReader(_Pattern(self.size), buffer_size=1 << 16)


class _Pattern(io.RawIOBase):
    _BLOCK = hashlib.shake_128(b"pattern").digest(1 << 16)

    def __init__(self, size: int) -> None:
        self.left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # any buffer will do
        count = min(len(buffer), self.left, len(self._BLOCK))
        buffer[:count] = self._BLOCK[:count]
        self.left -= count
        return count


@pytest.mark.parametrize(("codec", "budget"), [("none", 6 << 20), ("gzip:1", 12 << 20), ("zstd:1", 40 << 20)])
def test_memory_is_constant(codec: str, budget: int) -> None:
    """64 MiB in one file and 4 MiB in many pass through; what is held is a few blocks (zstd: of 4 MiB)."""
    many = tuple(File(path=f"many/{n}", size=1 << 14, content=Generated(1 << 14)) for n in range(256))
    segments = [Segment("s", (File(path="big", size=64 << 20, content=Generated(64 << 20)), *many))]
    with Path(os.devnull).open("wb") as sink:
        tracemalloc.start()
        try:
            layer = write_layer(segments, sink, Codec.parse(codec))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert layer.size > 100_000
    assert peak < budget


def test_a_stream_is_taken_as_the_layer_is_written() -> None:
    """Each content is read before the next entry is asked for, and none of them is kept."""
    alive: list[int] = []

    class Once:
        def __init__(self, number: int) -> None:
            self.number = number

        def open(self) -> BinaryIO:
            assert alive == [self.number]
            return io.BytesIO(bytes(1000))

    def entries() -> Iterator[File]:
        for number in range(2000):
            alive[:] = [number]
            yield File(path=f"d/{number}", size=1000, content=Once(number))

    directories = (Directory(path="d"),)
    with Path(os.devnull).open("wb") as sink:
        layer = write_layer([Segment("s", entries(), directories)], sink, Codec.parse("none"))
    known = tuple(generated(f"d/{number}", bytes(1000)) for number in range(2000))
    assert layer == written([Segment("s", (*directories, *known))])[0]


def test_an_entry_that_is_found_bad_late_ends_the_writing() -> None:
    entries = iter([generated("a", bytes(3 << 20)), generated("/b", b"")])
    with pytest.raises(EntryError, match="`/b`: is absolute"):
        written([Segment("s", entries)])


def test_what_a_stream_raises_comes_through() -> None:
    def entries() -> Iterator[File]:
        yield generated("a", b"")
        raise RuntimeError("the archive is damaged")

    with pytest.raises(RuntimeError, match="the archive is damaged"):
        written([Segment("s", entries())], "zstd", 2)


def on_disk(root: Path) -> dict[str, tuple[object, ...]]:
    """Type, mode, mtime, link target or content of everything below `root`."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        what: object = None
        if path.is_symlink():
            what = str(path.readlink())
        elif path.is_file():
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(root))] = (
            stat.S_IFMT(status.st_mode),
            status.st_mode & 0o777,
            int(status.st_mtime),
            what,
        )
    return found


def expected_on_disk(segments: list[Segment]) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    files: dict[str, File] = {}
    for entry in arrange(segments).entries():
        match entry:
            case Directory():
                found[entry.path] = (stat.S_IFDIR, entry.mode & 0o777, entry.mtime, None)
            case Symlink():
                found[entry.path] = (stat.S_IFLNK, 0o777, entry.mtime, entry.target)
            case File() | Hardlink():
                file = files[entry.target] if isinstance(entry, Hardlink) else entry
                files[entry.path] = file
                with file.content.open() as stream:
                    what = hashlib.sha256(stream.read()).hexdigest()
                found[entry.path] = (stat.S_IFREG, file.mode & 0o777, file.mtime, what)
    return found


@pytest.mark.parametrize("codec", CODECS)
def test_gnu_tar_extracts_what_was_put_in(codec: str, tmp_path: Path) -> None:
    tar = need("tar")
    if codec != "none":
        need(codec)
    blob = tmp_path / "layer"
    blob.write_bytes(written(fixture(), codec)[1])
    root = tmp_path / "root"
    root.mkdir()
    filters = [] if codec == "none" else [f"--{codec}"]
    # Directories come first, so their times are set when all is done, as container engines do.
    options = ["-x", "-p", "--no-same-owner", "--delay-directory-restore"]
    command = [tar, *filters, *options, "-f", str(blob), "-C", str(root)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert on_disk(root) == expected_on_disk(fixture())
    demo = root / "opt/demo/bin"
    assert (demo / "again").stat().st_ino == (demo / "demo").stat().st_ino == (demo / "zlast").stat().st_ino


def test_gnu_tar_lists_owners_modes_and_names(tmp_path: Path) -> None:
    blob = tmp_path / "layer.tar"
    blob.write_bytes(written(fixture())[1])
    command = [need("tar"), "-tv", "--numeric-owner", "--full-time", "--utc", "--quoting-style=literal"]
    done = subprocess.run([*command, "-f", blob], check=True, capture_output=True, env={"LC_ALL": "C.UTF-8"})
    assert done.stderr == b""
    lines = [" ".join(line.split()) for line in done.stdout.decode().splitlines()]
    assert "-rwxr-xr-x 0/0 20 2023-11-14 22:13:20 opt/demo/bin/demo" in lines
    assert "hrwxr-xr-x 0/0 0 2023-11-14 22:13:20 opt/demo/bin/again link to opt/demo/bin/demo" in lines
    assert "-rwsr-xr-x 3000000/2097152 1 1970-01-01 00:00:00 opt/demo/setuid" in lines
    assert "drwxrwxrwt 0/0 0 1970-01-01 00:01:00 opt/demo/sticky/" in lines
    assert "lrwxrwxrwx 0/0 0 1970-01-01 00:00:05 opt/demo/bin/link -> demo" in lines
    assert "-rw-r--r-- 0/0 2 1970-01-01 00:00:00 opt/ünï/ç" in lines
    assert len(lines) == sum(1 for _ in arrange(fixture()).entries())


def test_python_reads_gzip_layers_in_one_go() -> None:
    layer, blob = written(fixture(), "gzip")
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob)), mode="r:") as archive:
        names = archive.getnames()
    assert names == [entry.path for entry in arrange(fixture()).entries()]
    assert Digest.of(gzip.decompress(blob)) == layer.diff_id


def test_the_environment_does_not_reach_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = written(fixture(), "gzip")
    for name, value in (
        ("TZ", "Asia/Tokyo"),
        ("LC_ALL", "tr_TR.UTF-8"),
        ("SOURCE_DATE_EPOCH", "77"),
        ("TAR_OPTIONS", "-v"),
    ):
        monkeypatch.setenv(name, value)
    before = os.umask(0o077)
    try:
        assert written(fixture(), "gzip") == expected
    finally:
        os.umask(before)
