"""Prefix replacement, held to rattler's."""

from __future__ import annotations

import tempfile
import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ociforge.conda.prefix import PrefixError, Replacement, binary, text
from tests.conda.environment import records
from tests.support import rattling
from tests.support.channel import write_channel
from tests.support.conda import CondaPackage, Regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.support.conda import FileLike

WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
OLD, NEW = "/old/place", "/new"


@contextmanager
def hold(chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield b"".join(chunks)


def replaced(mode: str, data: bytes, old: str = OLD, new: str = NEW, piece: int = 0) -> bytes:
    """`data` given in one, and in pieces of `piece` bytes."""
    replacement = Replacement(old, new)
    if mode == "text":
        return b"".join(text(data, replacement))
    chunks = [data[start : start + piece] for start in range(0, len(data), piece)] if piece else [data]
    return b"".join(binary(iter(chunks), replacement, hold))


def by_rattler(cases: list[tuple[str, bytes]], old: str, new: str) -> list[bytes]:
    """The same by rattler: each a file of one package."""
    files: dict[str, FileLike] = {
        f"{number:03}": Regular(content=data, placeholder="text" if mode == "text" else "binary", prefix=old)
        for number, (mode, data) in enumerate(cases)
    }
    with tempfile.TemporaryDirectory() as root:
        channel = write_channel(Path(root) / "channel", [CondaPackage(name="p", files=files)])
        made = rattling.install(records(channel), Path(root) / "prefix", cache=Path(root) / "cache", prefix=new)
        return [(made / name).read_bytes() for name in files]


OLDS = st.sampled_from([OLD, "/a/b", "/ab/ab", "/aa", "aa", "/é/x", "/long" * 30])
NEWS = st.sampled_from(["/x", "/aa", "/ab", "/", "/opt/e v", "/é", "/new" * 40])


@st.composite
def replacements(draw: st.DrawFn) -> tuple[str, str, list[tuple[str, bytes]]]:
    old, new = draw(OLDS), draw(NEWS)
    encoded = old.encode()
    fits = all(len(new.encode(name)) <= len(old.encode(name)) for name in ("utf-8", *WIDE))
    pieces = st.sampled_from(
        [
            *[encoded] * 4,
            encoded[:-1],
            encoded[1:],
            *(old.encode(name) for name in WIDE),
            *(b"\0", b"\0\0", b"\0\0\0\0", b"\n", b"\r\n", b"x", b"/", b"\xff", b"\xed\xa0\x80", b"\xf0\x9f"),
            *(b"#!", b"#! /", b"#!" + encoded, b"/bin/python3", b"/bin/perl", b" -E", b"\t", b"\\ ", b"q" * 130),
        ]
    )
    data = st.lists(pieces, max_size=30).map(b"".join)
    modes = st.sampled_from(["text", "binary"] if fits else ["text"])
    return old, new, draw(st.lists(st.tuples(modes, data), min_size=20, max_size=40))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(replacements(), st.integers(1, 200))
@example((OLD, NEW, [("binary", b""), ("text", b""), ("binary", OLD.encode()), ("binary", OLD.encode() * 3)]), 1)
def test_the_bytes_are_those_of_rattler(case: tuple[str, str, list[tuple[str, bytes]]], piece: int) -> None:
    old, new, cases = case
    for (mode, data), expected in zip(cases, by_rattler(cases, old, new), strict=True):
        assert replaced(mode, data, old, new, piece) == expected, (mode, old, new, data)


@pytest.mark.parametrize("piece", [*range(1, 12), 64, 0])
@pytest.mark.parametrize("end", [b"", b"\0", b"/lib", b"/lib\0rest"])
def test_strings_keep_their_length_wherever_they_are_cut(piece: int, end: bytes) -> None:
    old, new = OLD.encode(), NEW.encode()
    data = b"\0head\0" + old + b"/a:" + old + end
    gap = bytes(2 * (len(old) - len(new)))
    string, nul, rest = end.partition(b"\0")
    assert replaced("binary", data, piece=piece) == b"\0head\0" + new + b"/a:" + new + string + gap + nul + rest


def test_a_file_without_wide_strings_is_never_held() -> None:
    def never(chunks: Iterable[bytes]) -> Iterator[bytes]:
        raise AssertionError(chunks)

    data = (b"x" * 1000 + OLD.encode() + b"\0") * 100
    chunks = iter([data[:50_000], data[50_000:]])
    made = b"".join(binary(chunks, Replacement(OLD, NEW), contextmanager(never)))
    assert made == replaced("binary", data)


def test_text_is_replaced_everywhere() -> None:
    assert replaced("text", f"a{OLD}/b\r\n{OLD}{OLD}".encode()) == f"a{NEW}/b\r\n{NEW}{NEW}".encode()


def test_memory_does_not_grow_with_what_is_replaced() -> None:
    data = b"a" * (64 << 10)
    tracemalloc.start()
    assert sum(map(len, text(data, Replacement("aa", "b")))) == len(data) // 2
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 512 << 10


LONG = "/" + "p" * 130


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("#!{}/bin/python", "#!/bin/sh\n'''exec' \"{}/bin/python\" \"$0\" \"$@\" #'''"),
        ("#!  {}/bin/python3.11 -E", "#!/bin/sh\n'''exec' \"{}/bin/python3.11\" -E \"$0\" \"$@\" #'''"),
        ("#!{}/bin/perl -w", "#!/usr/bin/env perl -w"),
        ("#!{}/bin/pythonw", "#!/usr/bin/env pythonw"),
        ("#!{}/bin/env python\r", "#!/usr/bin/env env python\r"),
        ("#! no path {}", "#! no path {}"),
    ],
)
def test_a_first_line_too_long_for_the_kernel(line: str, expected: str) -> None:
    data = line.format(OLD).encode() + b"\nrest"
    assert replaced("text", data, new=LONG) == expected.format(LONG).encode() + b"\nrest"


@pytest.mark.parametrize("encoding", ["utf-8", *WIDE])
def test_a_prefix_must_fit_where_the_placeholder_is(encoding: str) -> None:
    assert replaced("binary", b"nothing", new=LONG) == b"nothing"
    with pytest.raises(PrefixError) as caught:
        replaced("binary", OLD.encode(encoding), new=LONG)
    assert str(caught.value) == (f"target prefix cannot be longer than the placeholder prefix (encoding '{encoding}')")
