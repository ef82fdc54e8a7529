"""What is drawn while there is something to wait for, and what is said where nothing can be drawn."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from ociforge.cli.console import Console
from ociforge.cli.progress import Display, Rows, can_draw, escaped, name_of
from ociforge.events import (
    BlobDone,
    BlobProgress,
    BlobStarted,
    CredentialUsed,
    Event,
    LayerMade,
    LayerStarted,
    StageStarted,
    Warned,
)
from tests.cli.program import environment
from tests.support.bases import tiny_image
from tests.support.images import write_layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO

ONE, TWO, THREE = (Digest.of(bytes([number])) for number in range(3))
HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"
EVIL = "numpy\x1b[2J\x07.conda"


class Terminal:
    """A terminal of 80 columns: `stream` writes to it, `seen` is what has come out."""

    def __init__(self) -> None:
        self._ours, self.slave = pty.openpty()
        self.stream: TextIO = open(self.slave, "w", closefd=False)  # noqa: SIM115
        self.seen = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 65536):
                self.seen += data
        except OSError:  # the last writer is gone
            pass

    def wait_for(self, pattern: bytes) -> None:
        deadline = time.monotonic() + 20
        while not re.search(pattern, self.seen):
            assert time.monotonic() < deadline, self.seen
            time.sleep(0.005)

    def close(self) -> bytes:
        """All that was seen."""
        self.stream.close()
        os.close(self.slave)
        self._reader.join()
        os.close(self._ours)
        return self.seen


@contextmanager
def drawing(terminal: Terminal) -> Iterator[Console]:
    """A console on the terminal that draws at once."""
    with redirect_stderr(terminal.stream):
        console = Console()
    console._display = Display(terminal.stream, delay=0)
    try:
        yield console
    finally:
        console.close()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    found = Terminal()
    yield found
    if not found.stream.closed:
        found.close()


def tell(console: Console, *events: Event) -> None:
    for event in events:
        console.notify(event)


class TestDrawing:
    def test_a_row_for_each_blob_and_layer(self, terminal: Terminal) -> None:
        with drawing(terminal) as console:
            tell(
                console,
                LayerStarted("python"),
                BlobStarted(ONE, 4_000_000, "registry/app", "a title"),
                BlobStarted(TWO, 8_000_000, "https://channel/linux-64/numpy-1.0-0.conda"),
                BlobProgress(ONE, 1_000_000),
                BlobProgress(ONE, 1_000_000),
            )
            terminal.wait_for(b"2.0 MB of 12.0 MB, .*B/s, 0:00")
            lines = [re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", line) for line in terminal.seen.decode().split("\r\n")]
            rows = {line.split("  ")[1].strip(): line for line in lines if line.startswith("  ")}
            assert rows["a title"].endswith(f" {'━' * 12}{'─' * 12} 2.0 MB of 4.0 MB")
            assert rows["numpy-1.0-0.conda"].endswith(f" {'─' * 24} 0 B of 8.0 MB")
            assert re.fullmatch(r"  python +0:00", rows["python"])
            tell(console, BlobDone(ONE, 4_000_000, "uploaded"), LayerMade("python", THREE, 5, False))
            terminal.wait_for(b"2 done, 4.0 MB of 12.0 MB")
        seen = terminal.close()
        assert seen.count(HIDDEN) == seen.count(SHOWN) == 1
        assert seen.rpartition(SHOWN)[2].endswith(b"\x1b[2K")  # and the rows are gone

    def test_what_is_said_meanwhile_stands_above(self, terminal: Terminal) -> None:
        with drawing(terminal) as console:
            tell(console, BlobStarted(ONE, 10, "somewhere"))
            terminal.wait_for(b"0 B of 10 B")
            tell(console, Warned("look out", "do this"), Warned("look out"))
            console.say("a line")
            terminal.wait_for(b"a line\r\n.*0 B of 10 B")
        seen = terminal.close()
        assert seen.count(b"look out") == 1
        for said in (b"look out\r\n", b"   hint: \x1b[0mdo this\r\n", b"a line\r\n"):
            before, _, after = seen.partition(said)
            assert re.search(rb"\x1b\[2K[^\n]*$", before), "the rows were there still"
            assert b"0 B of 10 B" in after

    def test_the_result_comes_when_the_rows_are_gone(
        self, terminal: Terminal, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with drawing(terminal) as console:
            tell(console, StageStarted("waiting"))
            terminal.wait_for(re.escape(HIDDEN))
            console.result(["the result"], {}, as_json=False)
            assert not any(thread.name == "ociforge-progress" for thread in threading.enumerate())
            tell(console, StageStarted("later"), BlobStarted(ONE, 10, "somewhere"))
        assert capsys.readouterr().out == "the result\n"
        assert terminal.close().endswith(b"\x1b[2Klater\r\n")

    def test_hostile_and_long_names(self, terminal: Terminal) -> None:
        with drawing(terminal) as console:
            tell(
                console,
                BlobStarted(ONE, 10, f"https://channel/{EVIL}"),
                BlobStarted(TWO, 10, "registry", "long" * 1000),
                BlobStarted(THREE, 10, "registry", "漢" * 100),
            )
            terminal.wait_for(b"0 B of 30 B")
            tell(console, Warned(EVIL), StageStarted(EVIL), CredentialUsed("registry", EVIL))
        seen = terminal.close()
        assert rb"numpy\x1b[2J\x07.conda" in seen
        assert b"\x1b[2J" not in seen and b"\x07" not in seen
        frame = seen.partition(b"0 B of 30 B")[0].decode()
        widths = [
            sum(2 if character == "漢" else 1 for character in re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", line))
            for line in frame.split("\r\n")
        ]
        assert max(widths) <= 80

    def test_more_rows_than_fit(self, terminal: Terminal) -> None:
        with drawing(terminal) as console:
            tell(console, *(BlobStarted(Digest.of(b"%d" % n), 10, "registry", f"row{n}-") for n in range(30)))
            terminal.wait_for(b"and 20 more, 0 B of 300 B")
        assert set(re.findall(rb"row\d+-", terminal.close())) == {b"row%d-" % n for n in range(10)}

    def test_without_colours(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        with drawing(terminal) as console:
            tell(console, BlobStarted(ONE, 10, "registry"), BlobProgress(ONE, 5), Warned("plain"))
            terminal.wait_for(b"5 B of 10 B")
        assert not re.search(rb"\x1b\[(?:\d+;)*(?:3|4|9|10)\d", terminal.close())

    def test_nothing_is_drawn_for_what_is_short(self, terminal: Terminal) -> None:
        with redirect_stderr(terminal.stream):
            console = Console()
        tell(console, StageStarted("short"), BlobStarted(ONE, 10, "registry"), BlobDone(ONE, 10, "uploaded"))
        console.close()
        assert terminal.close() == b"short\r\n"

    def test_a_terminal_that_goes_away(self, terminal: Terminal) -> None:
        display = Display(terminal.stream, delay=0)
        display.hear(StageStarted("waiting"), "")
        assert display._thread is not None
        terminal.wait_for(re.escape(HIDDEN))
        with open(os.devnull) as unwritable:  # noqa: PTH123
            os.dup2(unwritable.fileno(), terminal.slave)
        display._thread.join(5)
        ended = not display._thread.is_alive()
        display.close()
        with open(os.devnull, "w") as writable:  # noqa: PTH123
            os.dup2(writable.fileno(), terminal.slave)
        assert ended

    def test_many_threads(self, terminal: Terminal) -> None:
        digests = [Digest.of(b"%d" % n) for n in range(8)]
        with drawing(terminal) as console:

            def transfer(digest: Digest) -> None:
                console.notify(BlobStarted(digest, 100_000, "registry", "x"))
                for _ in range(1000):
                    console.notify(BlobProgress(digest, 100))
                console.notify(BlobDone(digest, 100_000, "uploaded"))

            threads = [threading.Thread(target=transfer, args=(digest,)) for digest in digests]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            tell(console, BlobStarted(ONE, 1, "registry", "last"))
            terminal.wait_for(b"8 done, 800.0 kB of 800.0 kB")


@pytest.mark.parametrize(
    ("term", "drawn"), [("xterm", True), ("linux", True), ("dumb", False), ("unknown", False), ("", False)]
)
def test_where_rows_can_be_drawn(terminal: Terminal, tmp_path: Path, term: str, drawn: bool) -> None:
    assert can_draw(terminal.stream, {"TERM": term}) is drawn
    with (tmp_path / "file").open("w") as file:
        assert not can_draw(file, {"TERM": term})
    assert not can_draw(None, {"TERM": term})


@pytest.mark.parametrize("outcome", ["downloaded", "imported", "uploaded", "written"])
def test_a_transfer_that_begins_anew(outcome: str) -> None:
    rows = Rows()
    for _ in range(2):
        rows.hear(BlobStarted(ONE, 10, ""), "x")
        rows.advance(ONE, 8)
    assert [row.count for row in rows.current()] == [8]
    rows.advance(ONE, 8)  # the server sends more than it said
    assert rows.summary().startswith("10 B of 10 B, ")
    rows.hear(BlobDone(ONE, 10, outcome), "x")
    rows.advance(ONE, 8)
    assert (rows.current(), rows.summary()) == ([], "1 done, 0:00")
    rows.hear(StageStarted("next"), "")
    assert rows.summary() == "0:00"


@pytest.mark.parametrize(
    ("place", "title", "name"),
    [
        ("https://channel/linux-64/a-1.0-0.conda", None, "a-1.0-0.conda"),
        ("file:///srv/channel/a-1.0-0.conda", None, "a-1.0-0.conda"),
        ("https://index/w.whl?token=1#sha256=0", None, "w.whl"),
        ("registry/team/app", None, None),
        ("oci:/srv/layout:1", None, None),
        ("registry/team/app", "numpy\n", "numpy\\n"),
    ],
)
def test_names(place: str, title: str | None, name: str | None) -> None:
    assert name_of(BlobStarted(ONE, 1, place, title)) == name


def test_escaped() -> None:
    assert escaped("päckage 漢 \\x1b") == "päckage 漢 \\x1b"
    assert escaped("a\nb\x1b\x7f\x9b\u202e\udc80") == "a\\nb\\x1b\\x7f\\x9b\\u202e\\udc80"
    assert escaped("a\n\tb", keep="\n") == "a\n\\tb"


EVENTS: tuple[Event, ...] = (
    StageStarted("fetching"),
    BlobStarted(ONE, 10, f"https://channel/{EVIL}"),
    *[BlobProgress(ONE, 1)] * 10,
    BlobDone(ONE, 10, "downloaded"),
    LayerStarted("python"),
    LayerMade("python", TWO, 2_000_000, False),
    BlobDone(TWO, 2_000_000, "uploaded"),
    BlobDone(THREE, 3, "exists"),
    LayerMade("known", THREE, 3, True),
    CredentialUsed("registry", "file"),
)
LINES = [
    "fetching",
    f"  blob {ONE} 10 B downloaded: numpy\\x1b[2J\\x07.conda",
    f"  layer {TWO} 2.0 MB made: python",
    f"  blob {TWO} 2.0 MB uploaded: python",
]
MORE = [
    f"  blob {THREE} 3 B exists",
    f"  layer {THREE} 3 B reused: known",
    "  credential for `registry` from file",
]


@pytest.mark.parametrize(("verbosity", "lines"), [(-1, []), (0, LINES), (1, [*LINES, *MORE])])
def test_lines_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str], verbosity: int, lines: list[str]) -> None:
    """One for each blob and layer that is done."""
    tell(Console(verbosity), *EVENTS)
    assert capfd.readouterr() == ("", "".join(f"{line}\n" for line in lines))


def test_lines_on_a_dumb_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with redirect_stderr(terminal.stream):
        tell(Console(), *EVENTS, Warned("plain"))
    assert terminal.close().decode().splitlines() == [*LINES, "warning: plain"]


def test_rich_is_not_loaded_where_nothing_is_drawn(tmp_path: Path) -> None:
    write_layout(tiny_image(), tmp_path / "from")
    program = """
import sys
from ociforge.cli import run
assert run(["push", "oci:from", "oci:to:1"]) == 0
assert run(["inspect", "oci:to:1"]) == 0
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(tmp_path, TERM="xterm"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = done.stdout.splitlines()[-1].split()
    assert "ociforge.cli.progress" in loaded
    assert "rich" not in loaded


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_the_terminal_as_it_was(terminal: Terminal, tmp_path: Path, number: int) -> None:
    """The cursor comes back and the rows go before the message, through the whole program."""
    write_layout(tiny_image(), tmp_path / "from")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"docker://127.0.0.1:{silent.getsockname()[1]}/app:1"
        running = subprocess.Popen(
            [sys.executable, "-m", "ociforge", "push", "oci:from", place, "oci:never"],
            env=environment(tmp_path, TERM="xterm"),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=terminal.slave,
            stderr=terminal.slave,
        )
        terminal.wait_for(re.escape(HIDDEN))
        running.send_signal(number)
        assert running.wait(20) == 130
    seen = terminal.close()
    assert seen.count(HIDDEN) == seen.count(SHOWN) == 1
    end = re.sub(r"\x1b\[[0-9;]*[a-zA-Z]|\r", "", seen.rpartition(SHOWN)[2].decode())
    assert end == "\nerror: interrupted\n"
