"""Digests and the writer that makes them."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layers import Digest, DigestError, DigestWriter

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_parse_and_str_are_inverse() -> None:
    assert str(Digest.parse(f"sha256:{EMPTY}")) == f"sha256:{EMPTY}"
    assert Digest.parse(f"sha256:{EMPTY}") == Digest(EMPTY) == Digest.of(b"")


@pytest.mark.parametrize(
    "text",
    [
        "",
        EMPTY,
        f"sha256:{EMPTY.upper()}",
        f"sha256:{EMPTY[:-1]}",
        f"sha256:{EMPTY}0",
        f"sha256:{EMPTY}\n",
        f" sha256:{EMPTY}",
        f"sha512:{EMPTY}{EMPTY}",
        f"SHA256:{EMPTY}",
        "sha256:../../../../etc/passwd",
    ],
)
def test_nothing_else_is_a_digest(text: str) -> None:
    with pytest.raises(DigestError, match="is not a digest: expected `sha256:` and 64 lower-case hex digits"):
        Digest.parse(text)


def test_digests_made_directly_are_checked_too() -> None:
    with pytest.raises(DigestError, match="`xyz` is not a sha256 in lower-case hexadecimal"):
        Digest("xyz")


@given(st.lists(st.binary(max_size=50)))
def test_a_writer_hashes_counts_and_passes_on(chunks: list[bytes]) -> None:
    sink = io.BytesIO()
    writer = DigestWriter(sink)
    assert [writer.write(chunk) for chunk in chunks] == [len(chunk) for chunk in chunks]
    data = b"".join(chunks)
    assert sink.getvalue() == data
    assert writer.size == len(data)
    assert writer.digest() == Digest(hashlib.sha256(data).hexdigest()) == Digest.of_stream(io.BytesIO(data))


def test_a_writer_needs_no_sink() -> None:
    writer = DigestWriter()
    writer.write(b"x")
    assert writer.digest() == Digest.of(b"x")
