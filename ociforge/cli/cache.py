"""`ociforge cache`: what the store holds, and how to make it smaller."""

from __future__ import annotations

import re

import click

from ociforge.cli import options
from ociforge.cli.console import Console, counted, megabytes

__all__ = ["command"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def _size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Bytes, with a unit if wanted: `500MB`, `20G`, `1.5GiB`."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([KMGT]?I?)B?", value.strip().upper(), re.ASCII)
    if match is None or match[2] not in _UNITS:
        raise click.BadParameter(f"`{value}` is no size: expected one such as `20GB` or `512MiB`", ctx, param)
    return int(float(match[1]) * _UNITS[match[2]])


@click.group("cache")
def command() -> None:
    """Look at the local store, and bound its size.

    It holds downloaded packages, base images and layers. All of it can be made or fetched again.
    """


@command.command("info")
@options.json_output
def info(as_json: bool) -> None:
    """Tell where the store is, what it holds and how big it is."""
    from ociforge.prune import usage

    store = options.store_at_rest()
    found = usage(store)
    size = sum(kind.size for kind in found)
    lines = [f"{megabytes(kind.size):>10}  {kind.count:7d}  {kind.title}" for kind in found]
    Console.of(quiet=False, verbose=False).result(
        [str(store.root), *lines, f"{megabytes(size):>10}  {sum(kind.count for kind in found):7d}  in all"],
        {
            "directory": str(store.root),
            "size": size,
            "kinds": {kind.kind: {"count": kind.count, "size": kind.size} for kind in found},
        },
        as_json=as_json,
    )


@command.command("prune")
@click.option(
    "--max-size",
    callback=_size,
    metavar="SIZE",
    required=True,
    help="How big the store may stay, such as 20GB; 0 empties it.",
)
@options.json_output
@click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
def prune(max_size: int, as_json: bool, quiet: bool) -> None:
    """Remove what was not used for longest, until the store is no bigger than SIZE.

    What a running build needs stays.
    """
    from ociforge.prune import prune as prune_store

    pruned = prune_store(options.store_at_rest(), max_size)
    console = Console.of(quiet=quiet, verbose=False)
    if pruned.busy and pruned.size > max_size:
        console.say("another ociforge uses the store: what was used within the last 24 hours stays")
    removed = f"removed {counted(pruned.removed, 'file')}, {megabytes(pruned.freed)}"
    line = f"{removed}; {megabytes(pruned.size)} are left"
    console.result(
        [line],
        {"removed": pruned.removed, "freed": pruned.freed, "left": pruned.left, "size": pruned.size},
        as_json=as_json,
    )
