"""Trees for the tests of this package: one fixed, the others drawn by hypothesis."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import strategies as st

from layers import Bytes, Directory, Entry, File, Hardlink, Segment, Symlink, parents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from layers import OrderedMap

__all__ = ["fixture", "generated", "names", "streamed", "threaded", "trees"]

_A = TypeVar("_A")
_B = TypeVar("_B")


def generated(path: str, data: bytes, **metadata: Any) -> File:
    return File(path=path, size=len(data), content=Bytes(data), **metadata)


@cache
def _big() -> bytes:
    """Crosses 1 MiB twice."""
    return b"".join(n.to_bytes(4, "big") for n in range(640_000))


def fixture() -> list[Segment]:
    """One of everything that a layer can hold; its diff_ids are pinned."""
    long = "/".join(["directory-with-a-long-name"] * 11)  # 296 characters
    paths = [f"opt/{long}/file", "opt/demo/bin/demo", "opt/ünï/ç", "opt/split/" + "s" * 96]
    directories = tuple(Directory(path=path) for path in parents(paths))
    script = generated("opt/demo/bin/demo", b"#!/bin/sh\nexec true\n", mode=0o755, mtime=1_700_000_000)
    demo: tuple[Entry, ...] = (
        script,
        Hardlink(path="opt/demo/bin/again", target="opt/demo/bin/demo"),
        Hardlink(path="opt/demo/bin/zlast", target="opt/demo/bin/demo"),
        Symlink(path="opt/demo/bin/link", target="demo", mtime=5),
        Symlink(path="opt/demo/dangling", target="../" * 40 + "nowhere"),
        generated("opt/demo/empty", b"", mode=0o600, uid=1000, gid=1001),
        generated("opt/demo/block", bytes(range(256)) * 2),
        generated("opt/demo/big", _big()),
        generated("opt/demo/setuid", b"x", mode=0o4755, uid=3_000_000, gid=2_097_152),
        generated("opt/demo/capable", b"x", xattrs=(("security.capability", b"\1\0\0\2\0\4\0\0" + bytes(12)),)),
        Directory(path="opt/demo/sticky", mode=0o1777, mtime=60),
    )
    names_: tuple[Entry, ...] = (
        generated(f"opt/{long}/file", b"deep"),
        Hardlink(path="opt/deep", target=f"opt/{long}/file"),
        generated("opt/ünï/ç", "ß".encode()),
        generated("opt/split/" + "s" * 96, b"ustar prefix"),
        Symlink(path="opt/ünï/link", target="ç"),
        generated("opt/a-b", b"order"),
        generated("opt/a", b"order"),
    )
    return [Segment("names", (*names_, *directories)), Segment("demo", (*demo, *directories))]


def streamed(segments: Iterable[Segment]) -> list[Segment]:
    """The same segments, their entries as streams."""
    return [
        Segment(
            segment.name,
            iter([entry for entry in segment.entries if not isinstance(entry, Directory)]),
            tuple(entry for entry in segment.entries if isinstance(entry, Directory)),
        )
        for segment in segments
    ]


names = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=60).filter(
    lambda name: name not in {".", ".."} and not name.startswith(".wh.")
)

_metadata = st.fixed_dictionaries(
    {
        "uid": st.integers(0, 1 << 22),
        "gid": st.integers(0, 1 << 22),
        "mtime": st.integers(0, 1 << 34),
    }
)
_modes = st.integers(0, 0o7777)


@st.composite
def _leaf(draw: st.DrawFn, path: str) -> Entry:
    metadata = draw(_metadata)
    if draw(st.integers(0, 3)) == 0:
        target = draw(st.lists(names, min_size=1, max_size=4).map("/".join))
        return Symlink(path=path, target=target, **metadata)
    return generated(path, draw(st.binary(max_size=1200)), mode=draw(_modes), **metadata)


@st.composite
def trees(draw: st.DrawFn) -> list[Segment]:
    """Legal segments: nothing is below a leaf, directories agree, hard links stay at home."""
    paths = draw(st.lists(st.lists(names, min_size=1, max_size=5).map("/".join), unique=True, max_size=12))
    above = set(parents(paths))
    directories = [Directory(path=path, mode=draw(_modes), **draw(_metadata)) for path in sorted(above)]
    segments: list[list[Entry]] = [[], [], []]
    for path in paths:
        if path in above:
            continue
        entries = draw(st.sampled_from(segments))
        files = [entry.path for entry in entries if isinstance(entry, File)]
        if files and draw(st.integers(0, 3)) == 0:
            entries.append(Hardlink(path=path, target=draw(st.sampled_from(files))))
        else:
            entries.append(draw(_leaf(path)))
    for directory in directories:
        for index in draw(st.sets(st.integers(0, 2))):
            segments[index].append(directory)
    return [Segment(name, tuple(entries)) for name, entries in zip("cab", segments, strict=True)]


def threaded(workers: int) -> OrderedMap:
    """An ordered map over threads, with a bounded number of items under way."""

    def run(function: Callable[[_A], _B], items: Iterable[_A], /) -> Iterator[_B]:
        waiting: deque[Future[_B]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    return run
