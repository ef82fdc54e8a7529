"""`ociforge rebase`: another base image under an image."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from ociforge.cli import options, platforms
from ociforge.cli.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ociforge.oci.reference import Reference
    from ociforge.platform import Platform
    from ociforge.transports import Location
    from ociforge.transports.base import NamedSource
    from ociforge.transports.naming import Name
    from ociforge.transports.options import RegistryOptions

__all__ = ["command"]

_OFFLINE = (
    "where there is a network, make a layout of it by `ociforge push docker://… oci:DIRECTORY`, and name that;"
    " a base image that the store has is found by its `@sha256:…`"
)


@click.command("rebase")
@click.argument("image")
@click.option(
    "--base",
    required=True,
    metavar="BASE",
    help="The new base: docker://…, oci:…, …-archive:…, rootfs:FILE or scratch.",
)
@click.option(
    "--old-base",
    metavar="BASE",
    help="What IMAGE was built on, where its annotations do not tell (as of bases that are in no registry), or where it"
    " is not there any more.",
)
@click.option(
    "-o",
    "--output",
    "outputs",
    metavar="DEST",
    multiple=True,
    help="Write to oci:DIR[:TAG], oci-archive:FILE[:NAME] or docker://REF; may be given several times.",
)
@click.option(
    "--push", "pushes", metavar="REF", multiple=True, help="Push to a registry as REF; may be given several times."
)
@click.option(
    "-t",
    "--tag",
    "tags",
    metavar="NAME[:TAG]",
    multiple=True,
    help="Name of the image in the layouts and archives that `--output` writes.  [default: IMAGE's]",
)
@platforms.one_platform
@options.registry_options
@options.transfers
@options.json_output
@options.verbosity
def command(
    image: str,
    base: str,
    old_base: str | None,
    outputs: tuple[str, ...],
    pushes: tuple[str, ...],
    tags: tuple[str, ...],
    platform: Platform | None,
    registry: RegistryOptions,
    workers: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Put another base image under IMAGE, an image or image index at any place that `push` reads from.

    Its own layers stay as they are; a registry that has them already is not sent any. What the image had from its old
    base (variables, user, labels, …) comes from the new one. Refused where the old base is not known by its digest,
    where the new one has an older C library, and where paths of the two clash. The next `build` stands on the base of
    the settings again, and on the pin of that (`ociforge lock --upgrade --only bases`).

    \b
    ociforge rebase docker://HOST/TEAM/APP:1 --base docker://debian:12-slim --push HOST/TEAM/APP:1
    ociforge rebase oci-archive:app.tar --base oci:bases:noble -o oci-archive:rebased.tar

    The name and digest of every copy go to stdout, one line each.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from layers.compress import Codec
    from ociforge.cli.bases import Bases
    from ociforge.cli.places import Places
    from ociforge.cli.report import published_json, send
    from ociforge.errors import OfflineError
    from ociforge.oci.reference import Reference
    from ociforge.parallel import ordered_map
    from ociforge.rebase import rebase
    from ociforge.transports import parse
    from ociforge.transports.location import parse_registry

    if not outputs and not pushes:
        raise options.OptionError(
            "there is nowhere to put the image",
            "pass `--push REF` or `--output DEST`; the name that IMAGE has is moved by `--push` with the same one",
        )
    if tags and not outputs:
        raise options.OptionError(
            "--tag: names an image in a layout or an archive, and there is none to write",
            "put the tag into `--push REF`, or give an `--output`",
        )
    places = Places(registry, console.notify)
    eager = Places(replace(registry, head_first=False), console.notify)  # its manifest is read in any case
    names = [Reference.parse(tag) for tag in tags]
    wanted = [
        *(parse(text) for text in outputs),
        *map(parse_registry, pushes),
    ]
    origin = platforms.select(eager.source(parse(image)), platform)
    targets = [places.destination(location, _names(origin, location, names)) for location in wanted]
    store = options.open_store()
    bases = Bases(Path(), places, strict=False)
    with ordered_map(workers) as map_:
        # Only a `rootfs:` base is compressed anew.
        opened = partial(bases.open, store=store, codec=Codec.parse("gzip"), map_=map_)
        try:
            rebased = rebase(origin, base, old=old_base, open_base=opened, store=store, notify=console.notify)
        except OfflineError as error:
            raise OfflineError(error.message, _OFFLINE) from error
        copies = [send(rebased, target, map_, console) for target in targets]
    console.result(
        [copy.name for copy in copies], {"destinations": [published_json(copy) for copy in copies]}, as_json=as_json
    )


def _names(source: NamedSource, target: Location, tags: Sequence[Reference]) -> Sequence[Reference | Name]:
    """What the copy is called besides the name in its location: by `--tag`, else as before if it has none."""
    from ociforge.transports import RegistryLocation

    if isinstance(target, RegistryLocation):
        return ()
    return tags or (() if target.ref is not None else source.names())
