"""Codecs: the same bytes however the work is spread, in the exact form that readers were tried with."""

from __future__ import annotations

import gzip
import io
import re
import struct
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import deflate
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from layers import Codec, CodecError, compress, self_test
from layers.compress import blocks
from tests.layers.trees import threaded
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import Any

MIB = 1 << 20
CODECS = ["none", "gzip", "gzip:1", "zstd", "zstd:1"]


def mixed(size: int) -> bytes:
    """Compressible and incompressible stretches that differ from block to block."""
    words = b"".join(struct.pack("<LL", n * 2654435761 & 0xFFFFFFFF, n) for n in range(4096))
    return (words * (size // len(words) + 1))[:size]


def compressed(codec: str, data: bytes) -> bytes:
    return b"".join(Codec.parse(codec).compress([data]))


def gzip_members(blob: bytes) -> Iterator[bytes]:
    """What each member unpacks to."""
    while blob:
        inflate = zlib.decompressobj(31)
        yield inflate.decompress(blob)
        assert inflate.eof
        blob = inflate.unused_data


@pytest.mark.parametrize("text", ["none", "gzip:1", "gzip:12", "zstd:1", "zstd:19"])
def test_parse_and_str_are_inverse(text: str) -> None:
    assert str(Codec.parse(text)) == text


def test_default_levels() -> None:
    assert Codec.parse("gzip") == Codec("gzip", 1)
    assert Codec.parse("zstd") == Codec("zstd", 3)
    assert Codec.parse("none") == Codec("none", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown compression ``: expected `none`, `gzip` or `zstd`"),
        ("GZIP", "unknown compression `GZIP`: expected `none`, `gzip` or `zstd`"),
        ("bzip2:3", "unknown compression `bzip2:3`: expected `none`, `gzip` or `zstd`"),
        ("gzip:", "unknown compression `gzip:`: expected `gzip:LEVEL` or `zstd:LEVEL`"),
        ("gzip:fast", "unknown compression `gzip:fast`: expected `gzip:LEVEL` or `zstd:LEVEL`"),
        ("gzip:06", "unknown compression `gzip:06`: expected `gzip:LEVEL` or `zstd:LEVEL`"),
        ("gzip:-1", "unknown compression `gzip:-1`: expected `gzip:LEVEL` or `zstd:LEVEL`"),
        ("gzip:٣", "unknown compression `gzip:٣`: expected `gzip:LEVEL` or `zstd:LEVEL`"),
        ("none:1", "unknown compression `none:1`: expected `gzip:LEVEL` or `zstd:LEVEL`"),
        ("gzip:0", "`gzip` has no level 0: expected 1 to 12"),
        ("gzip:13", "`gzip` has no level 13: expected 1 to 12"),
        ("zstd:20", "`zstd` has no level 20: expected 1 to 19"),
    ],
)
def test_malformed_codecs_are_refused(text: str, message: str) -> None:
    with pytest.raises(CodecError) as caught:
        Codec.parse(text)
    assert str(caught.value) == message


def test_codecs_made_directly_are_checked_too() -> None:
    with pytest.raises(CodecError, match="unknown compression `lz4`"):
        Codec("lz4", 1)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(CodecError, match="`none` has no level 1"):
        Codec("none", 1)


def test_media_types() -> None:
    assert [Codec.parse(name).media_type for name in ("none", "gzip", "zstd")] == [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
    ]


def test_identities_tell_apart_all_that_changes_bytes() -> None:
    identities = [Codec.parse(text).identity for text in ("none", "gzip:1", "gzip:2", "zstd:1", "zstd:2")]
    assert len(set(identities)) == 5
    assert re.fullmatch(r"gzip:2:deflate-[0-9.]+-[0-9a-f]{16}:1048576", Codec.parse("gzip:2").identity)
    assert Codec.parse("zstd:2").identity.startswith("zstd:2:libzstd-1.5.")


@given(st.lists(st.binary(max_size=40)), st.integers(1, 50))
def test_blocks_are_full_but_for_the_last(chunks: list[bytes], size: int) -> None:
    data = b"".join(chunks)
    assert list(blocks(chunks, size)) == [data[n : n + size] for n in range(0, len(data), size)]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB, 3 * MIB + 7])
def test_foreign_libraries_read_what_was_written(codec: str, size: int) -> None:
    data = mixed(size)
    blob = compressed(codec, data)
    if codec.startswith("gzip"):
        assert b"".join(gzip_members(blob)) == data
        assert gzip.decompress(blob) == data
    elif codec.startswith("zstd"):
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob), read_across_frames=True) as reader:
            assert reader.read() == data
    else:
        assert blob == data


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_map_makes_the_same_bytes(codec: str, workers: int) -> None:
    data = mixed(3 * MIB + 5)
    spread = b"".join(Codec.parse(codec).compress([data], threaded(workers)))
    assert spread == compressed(codec, data)


@pytest.mark.parametrize("workers", [1, 3])
def test_zstd_frames_may_be_made_anywhere(workers: int) -> None:
    data = mixed(33 * MIB)
    spread = b"".join(Codec.parse("zstd:1").compress([data], threaded(workers)))
    assert spread == compressed("zstd:1", data)


@pytest.mark.parametrize("codec", CODECS)
def test_the_bytes_do_not_depend_on_the_chunks(codec: str) -> None:
    data = mixed(2 * MIB + 100)
    cut = [data[n : n + 70_001] for n in range(0, len(data), 70_001)]
    assert b"".join(Codec.parse(codec).compress(cut)) == compressed(codec, data)


@given(st.lists(st.binary(max_size=2000), max_size=6), st.sampled_from(["none", "gzip:2", "zstd:1"]))
def test_small_inputs_in_any_pieces(chunks: list[bytes], codec: str) -> None:
    assert b"".join(Codec.parse(codec).compress(chunks)) == compressed(codec, b"".join(chunks))


@pytest.mark.parametrize("level", [1, 6, 12])
def test_gzip_members_byte_by_byte(level: int) -> None:
    data = mixed(2 * MIB + 3)
    members = [b"".join(Codec("gzip", level).compress([data[n : n + MIB]])) for n in range(0, len(data), MIB)]
    assert b"".join(members) == compressed(f"gzip:{level}", data), "each depends on its own input alone"
    for number, member in enumerate(members):
        block = data[number * MIB : (number + 1) * MIB]
        extra = {1: 4, 12: 2}.get(level, 0)  # RFC 1952, 2.3.1, XFL: the fastest algorithm, the one of maximum effort
        assert member[:10] == bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, extra, 255]), "no name, no time, unknown system"
        assert member[-8:] == struct.pack("<LL", zlib.crc32(block), len(block))
        inflate = zlib.decompressobj(-15)
        assert inflate.decompress(member[10:-8]) == block
        assert inflate.eof


@pytest.mark.parametrize("size", [1, MIB - 1, MIB, MIB + 1, 4 * MIB])
def test_no_gzip_member_is_empty(size: int) -> None:
    """Go before 1.17.12 recurses for each (CVE-2022-30631)."""
    assert [len(member) for member in gzip_members(compressed("gzip", bytes(size)))] == [
        *[MIB] * (size // MIB),
        *([size % MIB] if size % MIB else []),
    ]


def test_gzip_without_input_is_one_empty_member() -> None:
    assert list(gzip_members(compressed("gzip", b""))) == [b""]
    assert compressed("none", b"") == b""
    assert compressed("zstd", b"") == b""


@pytest.mark.parametrize("level", [1, 3, 6, 12, 19])
def test_zstd_frames_are_what_every_reader_takes(level: int) -> None:
    blob = b"".join(Codec("zstd", level).compress([bytes(17 * MIB)]))
    sizes = []
    while blob:
        assert blob[:4] == bytes.fromhex("28b52ffd"), "no skippable frame"
        parameters = zstandard.get_frame_parameters(blob)
        assert parameters.window_size <= 8 * MIB
        assert parameters.has_checksum
        assert parameters.dict_id == 0
        sizes.append(parameters.content_size)
        frame = zstandard.ZstdDecompressor().decompressobj()
        frame.decompress(blob)
        blob = frame.unused_data
    assert sizes == [*[4 * MIB] * 4, MIB]


@pytest.mark.parametrize(
    ("program", "codec"), [("gzip", "gzip"), ("gzip", "gzip:9"), ("zstd", "zstd"), ("zstd", "zstd:19")]
)
def test_foreign_programs_accept_it(program: str, codec: str, tmp_path: Path) -> None:
    data = mixed(2 * MIB + 9)
    path = tmp_path / f"blob.{'gz' if program == 'gzip' else 'zst'}"
    path.write_bytes(compressed(codec, data))
    subprocess.run([need(program), "-t", path], check=True, capture_output=True)
    done = subprocess.run([need(program), "-dc", path], check=True, capture_output=True)
    assert done.stdout == data


@pytest.mark.parametrize(("codec", "block"), [("none", MIB), ("gzip:1", MIB), ("zstd:1", 16 * MIB)])
def test_input_is_taken_only_as_it_is_asked_for(codec: str, block: int) -> None:
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(5 * block // MIB):
            taken += MIB
            yield bytes(MIB)

    done = 0

    def counting(function: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]:
        nonlocal done
        for item in items:
            assert taken <= (done + 2) * block, "one block at work, one ahead"
            yield function(item)
            done += 1

    pieces = Codec.parse(codec).compress(source(), counting)
    assert taken == 0
    for _ in pieces:
        pass
    assert taken == 5 * block


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_the_installed_library_makes_the_recorded_bytes(name: str) -> None:
    for level in range(1, 13 if name == "gzip" else 20):
        assert self_test(Codec(name, level))  # type: ignore[arg-type]  # both are names of codecs


def test_self_test_of_no_compression() -> None:
    assert self_test(Codec("none", 0))


def test_self_test_without_a_record_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "_LIBZSTD", {})
    assert not self_test(Codec.parse("zstd"))


def test_another_libdeflate_is_no_error_and_has_keys_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package may be built with whatever libdeflate a distribution has, and does not tell which."""
    codec = Codec("gzip", 5)
    identity = codec.identity
    compress._compressed_vector.cache_clear()
    genuine = deflate.gzip_compress
    monkeypatch.setattr(deflate, "gzip_compress", lambda data, level: genuine(data, level + 1))
    try:
        assert not self_test(codec)
        assert codec.identity != identity
    finally:
        compress._compressed_vector.cache_clear()


def test_output_that_cannot_be_read_back_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec("gzip", 7)
    compress._compressed_vector.cache_clear()
    monkeypatch.setattr(deflate, "gzip_compress", lambda data, level: gzip.compress(bytes(len(data)), mtime=0))
    try:
        with pytest.raises(CodecError, match="`gzip:7` cannot be read back"):
            self_test(codec)
    finally:
        compress._compressed_vector.cache_clear()


def test_self_test_notices_other_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "_LIBZSTD", dict.fromkeys(compress._LIBZSTD, "0" * 16 * 19))
    with pytest.raises(CodecError, match=r"`zstd:3` with library version 1\.5\.\d+ makes other bytes than recorded: "):
        self_test(Codec.parse("zstd"))


def test_compressors_are_imported_when_used() -> None:
    script = """
import io, sys, layers
codec = layers.Codec.parse("none")
layers.write_layer([], io.BytesIO(), codec)
assert codec.identity == "none" and layers.self_test(codec)
assert not {"deflate", "zstandard", "zlib_ng"} & set(sys.modules), "imported too early"
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": ":".join(sys.path)})
