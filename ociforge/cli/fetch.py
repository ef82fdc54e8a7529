"""`ociforge fetch`: what builds need from elsewhere, into the store ahead of time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from ociforge.cli import options
from ociforge.cli.console import Console, megabytes
from ociforge.cli.needed import base_key, bases_of, choice, means
from ociforge.cli.platforms import several, several_platforms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ociforge.base import Base
    from ociforge.needs import Wanted
    from ociforge.supplies import Kind, Supply
    from ociforge.transports.options import RegistryOptions

__all__ = ["command"]

_WORDS: Mapping[Kind, tuple[str, str]] = {
    "conda": ("conda archive", "conda archives"),
    "wheel": ("wheel", "wheels"),
    "built": ("wheel of what is locked as source", "wheels of what is locked as source"),
    "requirement": ("requirement of builds", "requirements of builds"),
    "base": ("base image", "base images"),
}


@click.command("fetch")
@click.argument("workspace", type=click.Path(path_type=Path), default=Path(), required=False)
@choice("Fetch")
@several_platforms
@click.option("--base", metavar="IMAGE", help="The base image, as `build --base` names it.")
@click.option("--frozen", is_flag=True, help="Use the lock that there is, unchecked.")
@options.connecting_options
@options.workers
@options.json_output
@options.verbosity
def command(
    workspace: Path,
    environments: tuple[str, ...],
    images: tuple[str, ...],
    platforms: tuple[str, ...],
    base: str | None,
    frozen: bool,
    registry: RegistryOptions,
    workers: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Bring everything that builds of the WORKSPACE need into the store, so that `ociforge build --offline` works.

    That is conda archives, wheels, base images, and wheels of what the lock has as sources, which are built for that,
    and of what the builds of the workspace's own packages require. What is there is not fetched again.

    \b
    ociforge fetch
    ociforge fetch -e prod --platform linux/amd64,linux/arm64
    ociforge fetch --platform all --json | jq .fetched

    Base images by tag must be pinned (`ociforge lock`): without a network nobody can tell what a tag stands for.

    stdout has one line for each kind of thing.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from layers.compress import Codec
    from ociforge.cli.bases import Bases, is_local
    from ociforge.cli.fit import fitting_lock
    from ociforge.cli.places import Places
    from ociforge.events import Warned
    from ociforge.needs import needs, wanted
    from ociforge.parallel import ordered_map
    from ociforge.pins import FILE_NAME, Pins
    from ociforge.supplies import fetch_base, fetch_packages

    chosen = several(platforms)
    found = options.open_workspace(workspace)
    for warning in found.manifest.warnings:
        console.notify(Warned(warning))
    asked = wanted(
        found,
        fitting_lock(found, frozen=frozen, verb="fetch"),
        images=images,
        environments=environments,
        platforms=chosen,
    )
    if base is not None:
        asked = tuple(replace(image, settings=replace(image.settings, base=base)) for image in asked)
    store = options.open_store()
    with ordered_map(workers) as map_, store.staging() as staging:
        by = means(found, store, staging, map_, console, offline=False)
        looked_up = Bases(
            Path() if base is not None else found.root,
            Places(registry, console.notify),
            Pins.read(found.root / FILE_NAME),
        )

        def look(image: Wanted) -> Base:
            codec = Codec.parse(image.settings.compression)
            return looked_up.open(*base_key(image), store=store, codec=codec, map_=map_)

        opened = bases_of(asked, look, console, lenient=chosen is None)
        needed = needs([image for image in asked if base_key(image) in opened], root=found.root)
        supplies = fetch_packages(needed, by)
        supplies += tuple(fetch_base(name, image, by) for (name, _), image in opened.items() if not is_local(name))
    console.result(list(_lines(supplies)), _json(supplies), as_json=as_json)


def _lines(supplies: Sequence[Supply]) -> Iterator[str]:
    for kind, (one, more) in _WORDS.items():
        found = [supply for supply in supplies if supply.kind == kind]
        if found:
            size, fresh = sum(supply.size for supply in found), [supply for supply in found if supply.fresh]
            yield (
                f"{len(found)} {one if len(found) == 1 else more} ({megabytes(size)}):"
                f" {len(fresh)} fetched ({megabytes(sum(supply.size for supply in fresh))})"
            )


def _json(supplies: Sequence[Supply]) -> dict[str, Any]:
    fresh = [supply for supply in supplies if supply.fresh]
    return {
        "fetched": {"count": len(fresh), "size": sum(supply.size for supply in fresh)},
        "supplies": [
            {
                "kind": supply.kind,
                "name": supply.name,
                "digest": str(supply.digest),
                "size": supply.size,
                "fetched": supply.fresh,
            }
            for supply in supplies
        ],
    }
