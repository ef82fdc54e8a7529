"""`ociforge fetch`: what builds need from elsewhere, into the store ahead of time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from ociforge.cli import options
from ociforge.cli.console import Console, megabytes
from ociforge.cli.platforms import several, several_platforms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from layers.compress import OrderedMap
    from ociforge.base import Base
    from ociforge.cli.bases import Bases
    from ociforge.needs import Wanted
    from ociforge.platform import Platform
    from ociforge.store import Store
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
@click.option(
    "-e",
    "--environment",
    "environments",
    metavar="NAME",
    multiple=True,
    help="Fetch for this environment; may be given several times.  [default: those of the images]",
)
@click.option(
    "--image",
    "images",
    metavar="NAME",
    multiple=True,
    help="Fetch for this one of `[tool.ociforge.images]`; may be given several times.  [default: all]",
)
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
    from ociforge.cli.bases import Bases, is_local
    from ociforge.cli.fit import fitting_lock
    from ociforge.cli.network import network
    from ociforge.cli.places import Places
    from ociforge.events import Warned
    from ociforge.needs import needs, wanted
    from ociforge.parallel import ordered_map
    from ociforge.pins import FILE_NAME, Pins
    from ociforge.supplies import Means, fetch_base, fetch_packages

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
        means = Means(
            store=store,
            staging=staging,
            network=network(os.environ, found.settings.mirrors, offline=False),
            environ=os.environ,
            mtime=options.source_date_epoch(os.environ) or 0,
            map_=map_,
            notify=console.notify,
        )
        looked_up = Bases(
            Path() if base is not None else found.root,
            Places(registry, console.notify),
            Pins.read(found.root / FILE_NAME),
        )
        opened = _open(looked_up, asked, store, map_, console, lenient=chosen is None)
        needed = needs([image for image in asked if _key(image) in opened], root=found.root)
        supplies = fetch_packages(needed, means)
        supplies += tuple(fetch_base(name, image, means) for (name, _), image in opened.items() if not is_local(name))
    console.result(list(_lines(supplies)), _json(supplies), as_json=as_json)


def _key(image: Wanted) -> tuple[str, Platform]:
    return image.settings.base, image.platform


def _open(
    bases: Bases, asked: Sequence[Wanted], store: Store, map_: OrderedMap, console: Console, *, lenient: bool
) -> dict[tuple[str, Platform], Base]:
    """The base images; `lenient` leaves out platforms that one is not there for, as `build --platform all` does."""
    from layers.compress import Codec
    from ociforge.cli.bases import left_out_warning
    from ociforge.errors import PlatformError

    found = {}
    for image in asked:
        name, platform = _key(image)
        if (name, platform) in found:
            continue
        try:
            codec = Codec.parse(image.settings.compression)
            found[name, platform] = bases.open(name, platform, store=store, codec=codec, map_=map_)
        except PlatformError as error:
            if not lenient:
                raise
            console.notify(left_out_warning(platform, error))
    return found


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
