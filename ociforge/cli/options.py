"""Options that several verbs share, each declared once, and what they resolve to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ociforge.errors import ForgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ociforge.store import Store

__all__ = [
    "OptionError",
    "cache_directory",
    "insecure",
    "json_output",
    "open_store",
    "source_date_epoch",
    "verbosity",
    "workers",
]

_Command = TypeVar("_Command", bound="Callable[..., Any]")


class OptionError(ForgeError):
    """A value given on the command line or in a variable that is no value of its kind."""

    exit_code = 2


def verbosity(command: _Command) -> _Command:
    """`--quiet` and `--verbose`, as the parameters `quiet` and `verbose`."""
    command = click.option("-v", "--verbose", is_flag=True, help="Show every layer, blob and credential source.")(
        command
    )
    return click.option("-q", "--quiet", is_flag=True, help="Show errors only.")(command)


json_output = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
insecure = click.option(
    "--insecure",
    is_flag=True,
    help="Accept any certificate of registries, and plain http where one does not speak TLS.",
)
workers = click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=min(os.cpu_count() or 1, 8),
    show_default="processors, at most 8",
    help="Threads that pack and transfer; the result does not depend on it.",
)


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Where the store is: `OCIFORGE_CACHE`, else the user's cache directory."""
    if configured := environ.get("OCIFORGE_CACHE"):
        return Path(configured).absolute()
    import platformdirs

    try:
        found = platformdirs.user_cache_path("ociforge")
    except RuntimeError:
        found = Path("~")
    if not found.is_absolute():  # HOME is not set, and the user is not in /etc/passwd
        raise OptionError("there is no home directory for the cache", "let `OCIFORGE_CACHE` name a directory")
    return found


def open_store() -> Store:
    """The store that this process works with."""
    from ociforge.store import Store

    return Store(cache_directory(os.environ))


def source_date_epoch(environ: Mapping[str, str]) -> int | None:
    """`SOURCE_DATE_EPOCH` in seconds, or None when unset (reproducible-builds.org/specs/source-date-epoch)."""
    text = environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 33):
        raise OptionError(f"SOURCE_DATE_EPOCH: `{text}`: expected seconds since 1970", "unset it or use `date +%s`")
    return int(text)
