from __future__ import annotations

import io
import shutil
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from layers.digest import Digest
from ociforge.errors import ImageError
from ociforge.oci.blob import VerifiedReader, read_document, verified
from ociforge.oci.descriptor import Descriptor

TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


class Trickle(io.RawIOBase):
    """Gives at most `step` bytes a read, as sockets may."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = io.BytesIO(data)
        self._step = step

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        chunk = self._data.read(min(len(view), self._step))
        view[: len(chunk)] = chunk
        return len(chunk)


def named(data: bytes) -> Descriptor:
    return Descriptor(media_type=TYPE, digest=Digest.of(data), size=len(data))


def reader(body: bytes, descriptor: Descriptor, step: int = 1 << 30) -> VerifiedReader:
    return VerifiedReader(Trickle(body, step), descriptor)  # type: ignore[arg-type]  # RawIOBase has all that is used


@pytest.mark.parametrize("data", [b"", b"x", b"some bytes", bytes(3 << 20)], ids=len)
@pytest.mark.parametrize("step", [1 << 16, 1 << 30])
def test_right_bytes_pass(data: bytes, step: int) -> None:
    with reader(data, named(data), step) as stream:
        assert stream.read() == data
        assert stream.read() == b""
        assert stream.read(5) == b""


def test_it_reads_as_a_buffered_stream_does() -> None:
    data = b"0123456789"
    stream = reader(data, named(data), 3)
    assert stream.readable()
    assert not stream.seekable()
    assert not stream.writable()
    assert stream.read(0) == b""
    assert stream.read(4) == b"0123"
    assert stream.read1(5) == b"456"
    buffer = bytearray(2)
    assert stream.readinto(buffer) == 2
    assert bytes(buffer) == b"78"
    assert stream.read(100) == b"9"
    assert stream.readinto(buffer) == 0
    assert stream.read1() == b""
    assert reader(b"a\nb\n", named(b"a\nb\n")).readlines() == [b"a\n", b"b\n"]
    sink = io.BytesIO()
    shutil.copyfileobj(reader(data, named(data)), sink)
    assert sink.getvalue() == data


def drain(stream: BinaryIO, size: int) -> bytes:
    parts = []
    while part := stream.read(size):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "expected 10 bytes, got 0"),
        (b"012345678", "expected 10 bytes, got 9"),
        (b"0123456789X", "expected 10 bytes, got more"),
        (b"012345678X", f"got bytes with the digest `{Digest.of(b'012345678X')}`"),
        (bytes(1 << 21), "expected 10 bytes, got more"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 10, 100, -1])
def test_wrong_bytes_are_an_error_at_every_read(body: bytes, why: str, size: int) -> None:
    descriptor = named(b"0123456789")
    stream = reader(body, descriptor, 4)
    with pytest.raises(ImageError) as caught:
        drain(stream, size)
    assert caught.value.message == f"blob `{descriptor.digest}`: {why}"
    with pytest.raises(ImageError):
        stream.read(1)
    with pytest.raises(ImageError):
        stream.read1(1)


def test_who_reads_exactly_the_size_never_gets_wrong_bytes() -> None:
    with pytest.raises(ImageError):
        reader(b"012345678X", named(b"0123456789")).read(10)
    with pytest.raises(ImageError):
        reader(b"0123456789X", named(b"0123456789")).read1(10)


def test_an_empty_blob_with_a_body_or_another_name_is_an_error() -> None:
    with pytest.raises(ImageError, match="got more"):
        reader(b"x", named(b"")).read(1)
    with pytest.raises(ImageError, match="digest"):
        reader(b"", replace(named(b"x"), size=0)).read(1)


def test_closing_closes_the_stream_below() -> None:
    below = io.BytesIO(b"x")
    with VerifiedReader(below, named(b"x")) as stream:
        pass
    assert below.closed
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)


def test_errors_of_the_stream_below_pass() -> None:
    class Broken(io.RawIOBase):
        def readinto(self, buffer: object) -> int:
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        VerifiedReader(Broken(), named(b"x")).read()  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.binary(max_size=30), st.binary(max_size=30), st.lists(st.integers(-1, 9), max_size=40), st.integers(1, 9))
def test_only_the_named_bytes_come_through(said: bytes, body: bytes, sizes: list[int], step: int) -> None:
    stream = reader(body, named(said), step)
    got = b""
    try:
        for size in sizes:
            got += stream.read(size)
        got += stream.read()
    except ImageError:
        assert body != said
        assert body.startswith(got)
        assert len(got) < max(len(said), 1)
    else:
        assert got == body == said


def test_what_verifies_itself_is_not_verified_again() -> None:
    data = b"some bytes"
    descriptor = named(data)
    stream = reader(data, descriptor)
    assert verified(stream, descriptor) is stream
    assert verified(stream, replace(descriptor, media_type="application/other")) is stream
    for wanted in (named(b"other bytes"), replace(descriptor, size=9)):
        with pytest.raises(ImageError):
            verified(reader(data, descriptor), wanted).read()
    stream.read(1)
    with pytest.raises(ImageError, match="expected 10 bytes, got 9"):
        verified(stream, descriptor).read()


def test_documents_are_read_whole_and_closed() -> None:
    below = io.BytesIO(b"{}")
    assert read_document(below, named(b"{}")) == b"{}"
    assert below.closed


def test_documents_too_large_are_not_read() -> None:
    below = Trickle(b"{}", 1)
    with pytest.raises(ImageError, match="5000000 bytes, but at most 4194304 are read"):
        read_document(below, replace(named(b"{}"), size=5_000_000))  # type: ignore[arg-type]
    assert below.closed
