"""Transfers and layers under way, drawn below what the program says, on terminals that can move the cursor.

A command that is done within half a second draws nothing, and does not even load rich.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from ociforge.events import BlobDone, BlobStarted, LayerMade, LayerStarted, StageStarted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from rich.live import Live
    from rich.text import Text

    from layers.digest import Digest
    from ociforge.events import Event

__all__ = ["Display", "Row", "Rows", "can_draw", "escaped", "megabytes", "name_of"]

_DELAY = 0.5  # seconds before anything is drawn
_INTERVAL = 0.25  # seconds between two drawings: one takes up to a millisecond
_WINDOW = 3.0  # seconds that the speed is averaged over
_MOST = 10  # rows
_BAR = 24  # columns
_MOVED = frozenset({"downloaded", "imported", "uploaded", "written"})  # outcomes of blobs whose bytes have passed
_FILE = re.compile(r"(?:https?|file):/[^?#]*/([^/?#]+)(?:[?#].*)?", re.DOTALL)


def can_draw(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Whether rows can be drawn over and over on `stream`: on a terminal, unless `TERM` calls it dumb or is not set."""
    return stream is not None and stream.isatty() and environ.get("TERM", "") not in ("", "dumb", "unknown")


def escaped(text: str, *, keep: str = "") -> str:
    """Text from outside with what is not printable written out (`\\x1b`), but for the characters in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def megabytes(size: float) -> str:
    """A size in bytes for people: `12.3 MB` (10^6 bytes)."""
    if size < 1000:
        return f"{size:.0f} B"
    return f"{size / 1e3:.1f} kB" if size < 1_000_000 else f"{size / 1e6:.1f} MB"


def name_of(event: BlobStarted) -> str | None:
    """What people call the blob: its title, or the name of the file that is fetched."""
    if event.title is not None:
        return escaped(event.title)
    match = _FILE.fullmatch(event.place)
    return None if match is None else escaped(match[1])


class Row(Struct):
    """Something under way since `since` (monotonic seconds): `count` of `size` bytes, 0 when the size is not known."""

    name: str
    size: int
    since: float
    count: int = 0


class Rows:
    """What is under way, what is done since the stage began, and how fast bytes pass.

    `advance` is called for every piece of a blob, and by one thread for one blob; `hear` by one thread at a time.
    """

    def __init__(self) -> None:
        self._rows: dict[Digest | str, Row] = {}
        self._began = time.monotonic()
        self._done = self._done_size = 0
        self._passed = 0  # bytes of rows that are gone
        self._samples: deque[tuple[float, int]] = deque()

    def advance(self, digest: Digest, count: int) -> None:
        """`count` more bytes have passed."""
        if (row := self._rows.get(digest)) is not None:
            row.count += count

    def hear(self, event: Event, name: str) -> None:
        """Take note of an event; `name` is what its blob or layer is called."""
        match event:
            case StageStarted():
                self._began = time.monotonic()
                self._done = self._done_size = 0
            case BlobStarted(digest, size):
                self._end(digest)
                self._rows[digest] = Row(name, size, time.monotonic())
            case LayerStarted(title):
                self._rows[title] = Row(name, 0, time.monotonic())
            case LayerMade(title, _, _, reused):
                self._end(title)
                self._done += not reused
            case BlobDone(digest, size, outcome) if outcome in _MOVED:
                self._end(digest)
                self._done += 1
                self._done_size += size
            case BlobDone(digest):
                self._end(digest)
            case _:
                pass

    def current(self) -> list[Row]:
        """What is under way, the oldest first."""
        return list(self._rows.values())

    def summary(self) -> str:
        """One line on all of it."""
        now = time.monotonic()
        rows = self.current()
        parts = [f"{self._done} done"] if self._done else []
        if sized := [row for row in rows if row.size]:
            count = self._done_size + sum(min(row.count, row.size) for row in sized)
            parts.append(f"{megabytes(count)} of {megabytes(self._done_size + sum(row.size for row in sized))}")
            parts.append(f"{megabytes(self._speed(now, rows))}/s")
        return ", ".join([*parts, _minutes(now - self._began)])

    def _speed(self, now: float, rows: list[Row]) -> float:
        """Bytes a second, over the last seconds."""
        self._samples.append((now, self._passed + sum(row.count for row in rows)))
        while now - self._samples[0][0] > _WINDOW and len(self._samples) > 2:
            self._samples.popleft()
        (then, before), (_, after) = self._samples[0], self._samples[-1]
        return max(after - before, 0) / (now - then) if now > then else 0.0

    def _end(self, key: Digest | str) -> None:
        if (row := self._rows.pop(key, None)) is not None:
            self._passed += row.count


class Display:
    """Draws rows on `stream`, a terminal, from a thread of its own; `close` removes them and shows the cursor again.

    Everything else that goes to the terminal meanwhile has to go through `echo`, and appears above the rows.
    """

    def __init__(self, stream: TextIO, delay: float = _DELAY) -> None:
        self._stream = stream
        self._delay = delay
        self._rows = Rows()
        self.advance = self._rows.advance
        self._drawing = threading.Lock()  # one writes to the terminal at a time
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._live: Live | None = None

    def hear(self, event: Event, name: str) -> None:
        """Take note of an event, and begin to draw if it is not the last for long; from one thread at a time."""
        self._rows.hear(event, name)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ociforge-progress", daemon=True)
            self._thread.start()

    def echo(self, line: str) -> None:
        """Write a line, which may hold colours of ours, above the rows."""
        with self._drawing:
            if self._live is None:
                click.echo(line, file=self._stream)
            else:
                from rich.text import Text

                self._live.console.print(Text.from_ansi(line), soft_wrap=True)

    def close(self) -> None:
        """Stop drawing, for good; waits until the terminal is as it was."""
        self._closing.set()
        if self._thread is not None:
            try:
                self._thread.join()
            except KeyboardInterrupt:
                self._thread.join(1)  # the cursor first; but a terminal that is held up must not hold up the end
                raise

    def _run(self) -> None:
        with suppress(OSError):  # of a terminal that is gone: who writes to it next will be told
            if not self._closing.wait(self._delay):
                self._draw()

    def _draw(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(
            file=self._stream, force_terminal=True, force_interactive=True, highlight=False, markup=False, emoji=False
        )
        live = Live(
            console=console,
            get_renderable=lambda: self._text(console.width, console.height, ascii_only=console.options.ascii_only),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with self._drawing:
            live.start()
            self._live = live
        try:
            while not self._closing.wait(_INTERVAL):
                with self._drawing:
                    live.refresh()
        finally:
            with self._drawing:
                self._live = None
                live.stop()

    def _text(self, width: int, height: int, *, ascii_only: bool) -> Text:
        from rich.text import Text

        text = Text(no_wrap=True, overflow="crop")
        rows = self._rows.current()
        shown = rows[: max(1, min(_MOST, height - 3))]
        for row in shown:
            _append(text, row, width, ascii_only=ascii_only)
        more = f" and {len(rows) - len(shown)} more, " if len(rows) > len(shown) else " "
        return text.append(f" {more}{self._rows.summary()}", "dim")


def _append(text: Text, row: Row, width: int, *, ascii_only: bool) -> None:
    """One row: name, bar, bytes; without a size, how long it takes already."""
    from rich.cells import set_cell_size

    room = max(8, min(44, width - _BAR - 26))
    text.append(f"  {set_cell_size(row.name, room)} ")
    if not row.size:
        text.append(f" {_minutes(time.monotonic() - row.since)}\n", "dim")
        return
    count = min(row.count, row.size)
    full = _BAR * count // row.size
    text.append(("#" if ascii_only else "━") * full, "green")
    text.append(("-" if ascii_only else "─") * (_BAR - full), "bright_black")
    text.append(f" {megabytes(count)} of {megabytes(row.size)}\n", "dim")


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
