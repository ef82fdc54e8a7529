"""Reading blobs that others made, and refusing those that nobody should have made."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zlib
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from layers import Codec, CodecError, decompress

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

DATA = b"".join(b"line %d of a text that compresses well\n" % n for n in range(40_000))  # 1.7 MB
OCI = "application/vnd.oci.image.layer.v1.tar"
DOCKER = "application/vnd.docker.image.rootfs.diff.tar"


def zstd(data: bytes, *, size: bool = True, checksum: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=size, write_checksum=checksum).compress(data)


WRITERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": zstd,
    "xz": lambda data: lzma.compress(data, preset=0),
}
COMPRESSED = ["gzip", "zstd", "xz"]


def unpacked(blob: bytes, media_type: str | None = None, limit: int = 1 << 30) -> bytes:
    with decompress(io.BytesIO(blob), media_type, limit=limit) as stream:
        return stream.read()


def refused(blob: bytes, media_type: str | None = None, limit: int = 1 << 30) -> str:
    with pytest.raises(CodecError) as caught:
        unpacked(blob, media_type, limit)
    return str(caught.value)


def skippable(data: bytes, number: int = 0) -> bytes:
    return (0x184D2A50 + number).to_bytes(4, "little") + len(data).to_bytes(4, "little") + data


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "tiny", "large"])
def test_the_bytes_tell_their_compression(name: str, data: bytes) -> None:
    assert unpacked(WRITERS[name](data)) == data


@pytest.mark.parametrize(
    ("media_type", "name"),
    [
        (OCI, "plain"),
        (f"{OCI}+gzip", "gzip"),
        (f"{OCI}+zstd", "zstd"),
        (DOCKER, "plain"),
        (f"{DOCKER}.gzip", "gzip"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "gzip"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "gzip"),
    ],
)
def test_media_types(media_type: str, name: str) -> None:
    assert unpacked(WRITERS[name](DATA), media_type) == DATA


def test_the_media_type_must_be_true() -> None:
    zipped = WRITERS["gzip"](b"x")
    assert refused(zipped, f"{OCI}+zstd") == f"data of type `{OCI}+zstd` is not compressed so: found gzip"
    assert refused(b"plain", f"{OCI}+gzip") == f"data of type `{OCI}+gzip` is not compressed so: found no compression"
    assert refused(zipped, OCI) == f"data of type `{OCI}` is not compressed so: found gzip"
    assert refused(b"", f"{OCI}+gzip").endswith("found no compression")
    assert refused(zipped, f"{OCI}+xz") == f"unknown layer type `{OCI}+xz`"
    assert refused(zipped, "application/json") == "unknown layer type `application/json`"


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_our_own_blobs(codec: str) -> None:
    made = Codec.parse(codec)
    assert unpacked(b"".join(made.compress([DATA])), made.media_type) == DATA


@pytest.mark.parametrize("name", COMPRESSED)
def test_members_and_frames_follow_each_other(name: str) -> None:
    write = WRITERS[name]
    assert unpacked(write(DATA) + write(b"") + write(b"more") + write(b"")) == DATA + b"more"


def test_gzip_headers_with_everything() -> None:
    member = io.BytesIO()
    with gzip.GzipFile("a name", "wb", 9, member, mtime=1) as sink:
        sink.write(b"named")
    extra = b"\x1f\x8b\x08\x04" + bytes(6) + b"\x04\x00abcd" + gzip.compress(b"extra", mtime=0)[10:]
    assert unpacked(member.getvalue() + extra) == b"namedextra"


def test_twenty_thousand_empty_members_are_no_problem() -> None:
    assert unpacked(gzip.compress(b"", mtime=0) * 20_000) == b""


def test_zstd_frames_of_every_shape() -> None:
    settings = [(size, checksum) for size in (True, False) for checksum in (True, False)]
    blob = b"".join(zstd(DATA, size=size, checksum=checksum) for size, checksum in settings)
    assert unpacked(blob) == DATA * 4
    streamed = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(streamed, closefd=False) as sink:
        sink.write(bytes(3 << 20))  # blocks of one repeated byte
        sink.flush(zstandard.FLUSH_FRAME)
        sink.write(b"more")
    assert unpacked(streamed.getvalue()) == bytes(3 << 20) + b"more"


def test_zstd_skippable_frames_are_skipped() -> None:
    blob = skippable(b"first") + zstd(b"a") + skippable(bytes(200_000), 15) + zstd(b"b") + skippable(b"")
    assert unpacked(blob) == b"ab"
    assert unpacked(skippable(b"only")) == b""


@pytest.mark.parametrize("name", COMPRESSED)
def test_every_cut_is_noticed(name: str) -> None:
    blob = WRITERS[name](b"short but whole" * 10)
    for end in range(6, len(blob)):
        assert refused(blob[:end]) == f"{name} data is cut short"


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_cut_in_a_large_blob_is_noticed(name: str) -> None:
    whole, large = WRITERS[name](b"whole"), WRITERS[name](DATA)
    for end in (-1, -4, -9, -1000):
        assert refused(large[:end]) == f"{name} data is cut short"
        assert refused(whole + large[:end]) == f"{name} data is cut short"


@pytest.mark.parametrize("tail", [b"\0", bytes(512), bytes(1000), b"garbage", b"\x1f"], ids=lambda tail: repr(tail[:9]))
@pytest.mark.parametrize("name", COMPRESSED)
def test_nothing_may_follow(name: str, tail: bytes) -> None:
    message = refused(WRITERS[name](DATA) + tail)
    assert message.startswith((f"{name} data is damaged: ", f"{name} data is cut short"))


@pytest.mark.parametrize("name", COMPRESSED)
def test_damage_is_noticed(name: str) -> None:
    blob = bytearray(WRITERS[name](DATA))
    for index in range(10, len(blob), len(blob) // 40):  # what is before may be another type, or a time
        blob[index] ^= 0x55
        assert refused(bytes(blob))
        blob[index] ^= 0x55


def test_the_checksums_are_checked() -> None:
    for name, place in (("gzip", -8), ("gzip", -4), ("zstd", -4)):
        blob = bytearray(WRITERS[name](DATA))
        blob[place] ^= 1
        assert refused(bytes(blob)).startswith(f"{name} data is damaged: ")


def test_windows_are_bounded() -> None:
    def frame(window_log: int) -> bytes:
        settings = zstandard.ZstdCompressionParameters(window_log=window_log, write_content_size=False)
        compressor = zstandard.ZstdCompressor(compression_params=settings).compressobj()
        return compressor.compress(b"small") + compressor.flush()

    assert zstandard.get_frame_parameters(frame(27)).window_size == 128 << 20
    assert unpacked(frame(27)) == b"small"
    assert refused(frame(28)).startswith("zstd data is damaged: ")
    big = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 28}])
    assert refused(big).startswith("xz data is damaged: ")


@pytest.mark.parametrize("name", WRITERS)
def test_the_limit_is_exact(name: str) -> None:
    blob = WRITERS[name](DATA)
    assert unpacked(blob, limit=len(DATA)) == DATA
    assert refused(blob, limit=len(DATA) - 1) == f"data expands to more than the {len(DATA) - 1} bytes allowed"


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_bomb_is_stopped_early(name: str) -> None:
    blob = WRITERS[name](bytes(8 << 20))
    source = io.BytesIO(blob * 400)
    stream = decompress(source, limit=1 << 20)
    with pytest.raises(CodecError, match="expands to more than"):
        stream.read()
    assert source.tell() <= 1 << 20


def test_output_comes_in_bounded_steps() -> None:
    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert 0 <= size <= 2 << 20
            return super().read(size)

    for name in COMPRESSED:
        stream = decompress(Watched(WRITERS[name](bytes(8 << 20))), limit=1 << 30)
        assert len(stream.read1(1 << 30)) <= 1 << 20


def test_an_error_stays() -> None:
    """A reader that goes on after an error must not take it for the end."""
    stream = decompress(io.BytesIO(WRITERS["gzip"](DATA)[:-1]), limit=1 << 30)
    for _ in range(3):
        with pytest.raises(CodecError, match="cut short"):
            while stream.read(1 << 20):
                pass


def test_errors_of_the_source_pass_through_and_stay() -> None:
    class Torn(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1000:
                raise ConnectionResetError("torn")
            return super().read(min(600, size or 0))

    stream = decompress(Torn(WRITERS["gzip"](DATA)), limit=1 << 30)
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            stream.read()


def test_the_source_is_read_to_its_end_and_stays_open() -> None:
    for name in WRITERS:
        source = io.BytesIO(WRITERS[name](DATA))
        with decompress(source, limit=1 << 30) as stream:
            assert stream.read(10) == DATA[:10]
            stream.read()
        assert source.read() == b""
        assert not source.closed


@pytest.mark.parametrize("name", WRITERS)
@given(data=st.data())
def test_sources_may_give_any_number_of_bytes(name: str, data: st.DataObject) -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, data.draw(st.integers(1, 40))))

    content = b"-" + data.draw(st.binary(max_size=300))  # plain data must not begin like a compressed one
    source: BinaryIO = Trickle(WRITERS[name](content))
    assert decompress(source, limit=301).read() == content


@given(st.binary(max_size=400), st.sampled_from([b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b""]))
def test_noise_is_an_error_or_plain(noise: bytes, magic: bytes) -> None:
    blob = magic + noise
    try:
        result = unpacked(blob, limit=1 << 24)
    except CodecError:
        return
    assert result == blob or magic


def test_tarfile_reads_from_it() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    blob = zlib.compress(packed.getvalue(), wbits=31)
    with tarfile.open(fileobj=decompress(io.BytesIO(blob), limit=1 << 20), mode="r|") as archive:
        assert archive.getnames() == ["a"]
