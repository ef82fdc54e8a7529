"""What the user sees: the result on stdout, all else on stderr."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import TYPE_CHECKING

import click

from ociforge.cli.progress import Display, can_draw, escaped, megabytes, name_of
from ociforge.events import (
    BlobDone,
    BlobProgress,
    BlobStarted,
    CredentialUsed,
    LayerMade,
    LayerStarted,
    StageStarted,
    Warned,
)

if TYPE_CHECKING:
    from typing import Self

    from layers.digest import Digest
    from ociforge.events import Event

__all__ = ["Console", "counted", "escaped", "megabytes", "styled"]


def styled(text: str, color: str, *, bold: bool = True) -> str:
    """The text in a colour, unless `NO_COLOR` is set (no-color.org) or the terminal is dumb; click drops colours where
    nobody sees them.
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else click.style(text, fg=color, bold=bold)


def counted(count: int, what: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


class Console:
    """Shows events: as lines, and on a terminal as rows that move while there is something to wait for.

    `verbosity` is -1 (errors only), 0, or 1 (what was there already, and credentials, too). Text from outside is
    escaped. `close` ends the drawing; `result` does so, too.
    """

    def __init__(self, verbosity: int = 0) -> None:
        self._verbosity = verbosity
        self._lock = threading.Lock()  # events come from worker threads
        self._warned: set[str] = set()
        self._names: dict[Digest, str] = {}
        self._display = Display(sys.stderr) if verbosity >= 0 and can_draw(sys.stderr, os.environ) else None

    @classmethod
    def of(cls, *, quiet: bool, verbose: bool) -> Self:
        """The console that `--quiet` and `--verbose` ask for; the latter wins. It is closed with the command."""
        console = cls(1 if verbose else -1 if quiet else 0)
        if (context := click.get_current_context(silent=True)) is not None:
            context.call_on_close(console.close)  # before an error of the command is shown
        return console

    def notify(self, event: Event) -> None:
        """Show one event, if the verbosity asks for it; a warning is shown once."""
        if isinstance(event, BlobProgress):  # there are thousands, and nothing to say of them
            if self._display is not None:
                self._display.advance(event.digest, event.count)
        elif self._verbosity >= 0:
            with self._lock:
                self._tell(event, self._name(event))

    def say(self, line: str) -> None:
        """A line of prose on stderr, unless quiet."""
        if self._verbosity >= 0:
            self._echo(line)

    def close(self) -> None:
        """Stop drawing; what is said later is said in lines."""
        if self._display is not None:
            self._display.close()

    def _tell(self, event: Event, name: str) -> None:
        match event:
            case Warned(message, hint) if message not in self._warned:
                self._warned.add(message)
                self._echo(styled("warning: ", "yellow") + escaped(message, keep="\n"))
                if hint is not None:
                    self._echo(styled("   hint: ", "cyan", bold=False) + escaped(hint, keep="\n"))
            case StageStarted(what):
                self._echo(escaped(what))
            case LayerMade(_, digest, size, reused) if self._lists(new=not reused):
                self._echo(f"  layer {digest} {megabytes(size)} {'reused' if reused else 'made'}: {name}")
            case BlobDone(digest, size, outcome) if self._lists(new=outcome != "exists"):
                self._echo(f"  blob {digest} {megabytes(size)} {outcome}{f': {name}' if digest in self._names else ''}")
            case CredentialUsed(registry, source) if self._verbosity >= 1:
                self._echo(f"  credential for `{registry}` from {escaped(source)}")
            case _:
                pass
        if self._display is not None:
            self._display.hear(event, name)

    def _lists(self, *, new: bool) -> bool:
        """Whether a blob or layer gets a line: on a terminal, rows have told of it."""
        return self._verbosity >= 1 or (new and self._display is None)

    def _name(self, event: Event) -> str:
        """What the blob or layer of an event is called, "" for other events."""
        match event:
            case LayerStarted(title):
                return escaped(title)
            case LayerMade(title, digest):
                return self._names.setdefault(digest, escaped(title))
            case BlobStarted(digest):
                if (name := name_of(event)) is not None:
                    self._names[digest] = name
                return self._names.get(digest, digest.hex[:12])
            case BlobDone(digest):
                return self._names.get(digest, "")
            case _:
                return ""

    def _echo(self, line: str) -> None:
        if self._display is not None:
            self._display.echo(line)
        else:
            click.echo(line, err=True)

    def result(self, lines: list[str], document: object, *, as_json: bool) -> None:
        """The outcome of the command: `lines`, or `document` as JSON, on stdout."""
        self.close()
        click.echo(json.dumps(document, indent=2, sort_keys=True) if as_json else "\n".join(lines))
