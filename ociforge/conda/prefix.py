"""Prefix replacement: the placeholder that a package was built with becomes the prefix it will live at.

The bytes are those of rattler 0.28, to which differential tests hold them. The placeholder is looked for in UTF-8, and
in UTF-16 and UTF-32 of both byte orders, as programs for other systems store it. In text it is replaced wherever it
stands, and the `#!` line of a script is made one that kernels read. In binary data each string keeps its length: what
follows the placeholder moves up to it, and NULs fill the gap before the string's own NUL.
"""

from __future__ import annotations

import heapq
import re
from bisect import bisect
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["SHEBANG_LIMIT", "Buffer", "PrefixError", "Replacement", "binary", "text"]

SHEBANG_LIMIT = 127  # bytes of a `#!` line, without its end, that every Linux kernel reads
_PIECE = 1 << 20  # 1 MiB: the most that is passed on at once

_SHEBANG = re.compile(r"(#! *)(/(?:\\ |[^ \n\r\t])*)(.*)")
_PYTHON = re.compile(r"python(?:\d+(?:\.\d+)?)?")


class Buffer(Protocol):
    """Bytes or a mapped file."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> bytes: ...
    def find(self, sub: bytes, start: int = ..., end: int = ..., /) -> int: ...


class PrefixError(ValueError):
    """A placeholder in binary data that is shorter than the prefix."""


class _Encoded(Struct, frozen=True):
    """Placeholder and prefix in an encoding, whose NUL has `unit` bytes."""

    name: str
    unit: int
    old: bytes
    new: bytes

    def rank(self, offset: int) -> int:
        """How likely an occurrence at `offset` is meant, against those of other encodings: 0 most, 2 least."""
        return 0 if self.unit == 1 else 1 + (offset % self.unit != 0)

    @property
    def freed(self) -> int:
        """Bytes that one replacement frees in a string of fixed length."""
        if len(self.new) > len(self.old):
            raise PrefixError(f"target prefix cannot be longer than the placeholder prefix (encoding '{self.name}')")
        return len(self.old) - len(self.new)


class Replacement:
    """`placeholder`, which is not empty, and the `prefix` that takes its place."""

    def __init__(self, placeholder: str, prefix: str) -> None:
        self.placeholder = placeholder
        self.prefix = prefix
        encodings = (("utf-8", 1), ("utf-16-le", 2), ("utf-16-be", 2), ("utf-32-le", 4), ("utf-32-be", 4))
        self.all = tuple(
            _Encoded(name, unit, placeholder.encode(name), prefix.encode(name)) for name, unit in encodings
        )
        self.utf8 = self.all[0]
        # What both byte orders of an encoding have in common, so that two searches find all four. Only where the high
        # bytes are zeros: other placeholders must be searched for one by one.
        self.wide = (self.all[1].old[:-1], self.all[3].old[:-3]) if placeholder.isascii() else None


def text(data: Buffer, replacement: Replacement) -> Iterator[bytes]:
    """The pieces of the text `data` with the placeholder replaced."""
    start = _end_of_first_line(data) if data[:2] == b"#!" else 0
    if start:
        line = data[:start]
        end = b"\n" if line.endswith(b"\n") else b""
        shebang = _shebang(line.removesuffix(b"\n").decode(errors="replace"), replacement)
        yield shebang.encode() + end
    done = start
    for offset, encoded in _disjoint(data, replacement.all):
        if offset >= start:
            yield from _pieces(data, done, offset)
            yield encoded.new
            done = offset + len(encoded.old)
    yield from _pieces(data, done, len(data))


def _end_of_first_line(data: Buffer) -> int:
    return data.find(b"\n") + 1 or len(data)


def _disjoint(data: Buffer, encodings: Iterable[_Encoded]) -> Iterator[tuple[int, _Encoded]]:
    """Every occurrence in any encoding, in order.

    One that overlaps the last takes its place if it is a better one (UTF-8, else at a multiple of its unit), and is
    none if it is not.
    """
    every = (_occurrences(data, encoded) for encoded in encodings)
    last: tuple[int, _Encoded] | None = None
    for found in heapq.merge(*every, key=lambda pair: pair[0]):
        if last is None or found[0] >= last[0] + len(last[1].old):
            if last is not None:
                yield last
            last = found
        elif found[1].rank(found[0]) < last[1].rank(last[0]):
            last = found
    if last is not None:
        yield last


def _occurrences(data: Buffer, encoded: _Encoded) -> Iterator[tuple[int, _Encoded]]:
    return ((offset, encoded) for offset in _offsets(data, encoded.old, 0, len(data)))


def _offsets(data: Buffer, needle: bytes, start: int, end: int) -> Iterator[int]:
    """Where `needle` begins, leftmost first and without overlaps."""
    offset = data.find(needle, start, end)
    while offset >= 0:
        yield offset
        offset = data.find(needle, offset + len(needle), end)


def _pieces(data: Buffer, start: int, end: int) -> Iterator[bytes]:
    for offset in range(start, end, _PIECE):
        yield data[offset : min(offset + _PIECE, end)]


def _shebang(line: str, replacement: Replacement) -> str:
    """The first line of a script: kernels read neither blanks in the program's path nor more than 127 bytes."""
    old, new = replacement.placeholder, replacement.prefix
    if " " in new:
        return _by_way_of_env(line).replace(old, new) if old in line else line
    line = line.replace(old, new)
    fits = not line.startswith("#!") or len(line.encode()) <= SHEBANG_LIMIT
    return line if fits else _by_way_of_env(line)


def _by_way_of_env(line: str) -> str:
    """Python is started by `/bin/sh`, in lines that are a string to Python; other programs are looked for in PATH."""
    match = _SHEBANG.fullmatch(line)
    if match is None:
        return line
    _, path, rest = match.groups()
    program = path.rpartition("/")[2]
    if _PYTHON.fullmatch(program):
        return f"#!/bin/sh\n'''exec' \"{path}\"{rest} \"$0\" \"$@\" #'''"
    return f"#!/usr/bin/env {program}{rest}"


def binary(
    chunks: Iterator[bytes],
    replacement: Replacement,
    hold: Callable[[Iterable[bytes]], AbstractContextManager[Buffer]],
) -> Iterator[bytes]:
    """The bytes of `chunks` with the placeholder replaced: as many, in other pieces.

    A few KiB are kept back at a time, but from the first wide occurrence on, which hardly any file has: which of them
    are strings depends on all that follows, so `hold` makes a buffer of the rest. Raises PrefixError.
    """
    stream = _Strings(replacement)
    if replacement.wide is None:
        with hold(chunks) as rest:
            yield from stream.finish_wide(rest)
        return
    for chunk in chunks:
        data = stream.held + chunk
        wide = min((at for core in replacement.wide if (at := data.find(core)) >= 0), default=-1)
        if wide < 0:
            yield from stream.advance(data, len(data) - stream.reach)
            continue
        # A wide character of the other byte order begins up to three bytes before what was found.
        yield from stream.advance(data, max(0, wide - 3))
        with hold(_with_first(stream.held, chunks)) as rest:
            yield from stream.finish_wide(rest)
        return
    yield from stream.finish()


def _with_first(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from chunks


class _Strings:
    """Replacement in binary data that comes bit by bit: `held` is what has come and is not settled yet."""

    def __init__(self, replacement: Replacement) -> None:
        self._all = replacement.all
        self._utf8 = replacement.utf8
        self._passed = 0  # bytes before `held`
        self._owed: int | None = None  # NULs to insert at the end of the string that is under way
        self.held = b""
        self.reach = 4 * len(self._utf8.old) + 3  # no occurrence that begins so far from the end is cut off

    def advance(self, data: bytes, end: int) -> Iterator[bytes]:
        """Settle `data` (what was held, and more) up to about `end`: no occurrence is split."""
        done = 0
        while done < end:
            done, pieces = self._step(data, done, end)
            yield from pieces
            if not pieces:
                break
        self.held = data[done:]
        self._passed += done

    def finish(self) -> Iterator[bytes]:
        """All that is left."""
        yield from self.advance(self.held, len(self.held))
        yield bytes(self._owed or 0)

    def _step(self, data: bytes, done: int, end: int) -> tuple[int, tuple[bytes, ...]]:
        """Up to the next occurrence or end of a string: how far that is, and what it gives."""
        old = self._utf8.old
        found = data.find(old, done)
        if self._owed is not None:
            nul = data.find(b"\0", done, end if found < 0 else min(found, end))
            if nul >= 0:
                padding, self._owed = bytes(self._owed), None
                return nul, (data[done:nul], padding)
        if found < 0 or found >= end:
            return end, (data[done:end],)
        after = found + len(old)
        if after > end:
            return found, (data[done:found],) if found > done else ()
        self._owed = (self._owed or 0) + self._utf8.freed
        return after, (data[done:found], self._utf8.new)

    def finish_wide(self, data: Buffer) -> Iterator[bytes]:
        """All of `data`, which is what was held and everything that follows."""
        done, owed = 0, self._owed or 0
        for string in self._strings(data):
            for offset in string.offsets:
                yield from _pieces(data, done, offset)
                yield string.encoded.new
                done = offset + len(string.encoded.old)
            yield from _pieces(data, done, string.end)
            yield bytes(owed + len(string.offsets) * string.encoded.freed if string.offsets else owed)
            done, owed = string.end, 0
        yield from _pieces(data, done, len(data))

    def _strings(self, data: Buffer) -> list[_String]:
        """The strings to change, in order.

        Occurrences of different encodings may overlap, as UTF-16 in one byte order is that of the other, moved by a
        byte. Preferred are, in this order: UTF-8, strings at a multiple of their unit, strings with an end, the first.
        """
        found = sorted(
            (string for encoded in self._all for string in self._candidates(data, encoded)),
            key=lambda string: (string.rank, string.start),
        )
        kept: list[_String] = []
        for string in found:
            place = bisect(kept, string.start, key=lambda other: other.start)
            # Those kept do not overlap each other, so the nearest on either side are enough.
            if not any(string.overlaps(other) for other in kept[max(0, place - 1) : place + 1]):
                kept.insert(place, string)
        return kept

    def _candidates(self, data: Buffer, encoded: _Encoded) -> Iterator[_String]:
        unit, first = encoded.unit, 0
        covered = [0] * unit  # by the offset's remainder: how far the last string of that alignment goes
        if encoded is self._utf8 and self._owed is not None:
            string = _String.at(data, encoded, -1, 0, 0)
            covered[0] = string.end
            yield string
        while (first := data.find(encoded.old, first)) >= 0:
            after = first + len(encoded.old)
            place = self._passed + first
            if first >= covered[place % unit]:
                string = _String.at(data, encoded, first, after, encoded.rank(place))
                covered[place % unit] = string.end
                yield string
            first = after


class _String(Struct, frozen=True):
    """A NUL-terminated string that holds the placeholder at `offsets`; `end` is that of its text."""

    encoded: _Encoded
    start: int
    offsets: tuple[int, ...]
    end: int
    rank: tuple[int, bool]

    @classmethod
    def at(cls, data: Buffer, encoded: _Encoded, start: int, after: int, rank: int) -> _String:
        """The string whose text goes on at `after`; before that is the occurrence at `start`, or none for -1."""
        nul = _nul(data, after, encoded.unit)
        end = len(data) if nul < 0 else nul
        offsets = (*((start,) if start >= 0 else ()), *_offsets(data, encoded.old, after, end))
        return cls(encoded, start, offsets, end, (rank, nul < 0 and rank > 0))

    def overlaps(self, other: _String) -> bool:
        """Whether the two have a byte in common."""
        return self.start < other.end and other.start < self.end


def _nul(data: Buffer, start: int, unit: int) -> int:
    """The next zero of `unit` bytes at a multiple of as many from `start`, -1 without one."""
    zero = bytes(unit)
    found = data.find(zero, start)
    while found >= 0 and (found - start) % unit:
        found = data.find(zero, found + 1)
    return found
