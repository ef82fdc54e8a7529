"""What the user sees: the result on stdout, all else on stderr."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import click

from ociforge.events import BlobDone, CredentialUsed, LayerMade, StageStarted, Warned

if TYPE_CHECKING:
    from typing import Self

    from ociforge.events import Event

__all__ = ["Console", "megabytes", "styled"]


def styled(text: str, color: str, *, bold: bool = True) -> str:
    """The text in a colour, unless `NO_COLOR` is set (no-color.org); click drops colours where nobody sees them."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=color, bold=bold)


def megabytes(size: int) -> str:
    """A size in bytes for people: `12.3 MB` (10^6 bytes)."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e3:.1f} kB" if size < 1_000_000 else f"{size / 1e6:.1f} MB"


class Console:
    """Prints events as lines. `verbosity` is -1 (errors only), 0 or 1 (each layer and blob too)."""

    def __init__(self, verbosity: int = 0) -> None:
        self._verbosity = verbosity
        self._lock = threading.Lock()  # events come from worker threads
        self._warned: set[str] = set()

    @classmethod
    def of(cls, *, quiet: bool, verbose: bool) -> Self:
        """The console that `--quiet` and `--verbose` ask for; the latter wins."""
        return cls(1 if verbose else -1 if quiet else 0)

    def notify(self, event: Event) -> None:
        """Show one event, if the verbosity asks for it; a warning is shown once."""
        with self._lock:
            match event:
                case Warned(message, hint) if self._verbosity >= 0 and message not in self._warned:
                    self._warned.add(message)
                    click.echo(styled("warning: ", "yellow") + message, err=True)
                    if hint is not None:
                        click.echo(styled("   hint: ", "cyan", bold=False) + hint, err=True)
                case StageStarted(what) if self._verbosity >= 0:
                    click.echo(what, err=True)
                case LayerMade(title, digest, size, reused) if self._verbosity >= 1:
                    state = "reused" if reused else "made"
                    click.echo(f"  layer {digest} {megabytes(size)} {state}: {title}", err=True)
                case BlobDone(digest, size, outcome) if self._verbosity >= 1:
                    click.echo(f"  blob {digest} {megabytes(size)} {outcome}", err=True)
                case CredentialUsed(registry, source) if self._verbosity >= 1:
                    click.echo(f"  credential for `{registry}` from {source}", err=True)
                case _:
                    pass

    def say(self, line: str) -> None:
        """A line of prose on stderr, unless quiet."""
        if self._verbosity >= 0:
            click.echo(line, err=True)

    def result(self, lines: list[str], document: object, *, as_json: bool) -> None:
        """The outcome of the command: `lines`, or `document` as JSON, on stdout."""
        click.echo(json.dumps(document, indent=2, sort_keys=True) if as_json else "\n".join(lines))
