"""`ociforge push`: copy an image between places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ociforge.cli import options, platforms
from ociforge.cli.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ociforge.platform import Platform
    from ociforge.transports import Location
    from ociforge.transports.base import NamedSource
    from ociforge.transports.naming import Name
    from ociforge.transports.options import RegistryOptions

__all__ = ["command"]


@click.command("push")
@click.argument("source")
@click.argument("destinations", metavar="DESTINATION...", nargs=-1, required=True)
@platforms.one_platform
@options.registry_options
@options.transfers
@options.json_output
@options.verbosity
def command(
    source: str,
    destinations: tuple[str, ...],
    platform: Platform | None,
    registry: RegistryOptions,
    workers: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Copy the image or image index SOURCE to each DESTINATION.

    Nothing is repacked: digests stay. Of an index all images are copied, unless --platform chooses one. What a
    destination holds already is not sent again, and blobs of another repository on the same registry are mounted.

    \b
    docker://HOST/REPOSITORY:TAG    a registry
    oci:DIRECTORY[:TAG]             an OCI layout
    oci-archive:FILE[:NAME]         one file that docker, podman, skopeo and ctr load
    docker-archive:FILE[:NAME]      what `docker save` writes (as SOURCE)

    A layout or archive that is given no name calls the copy what SOURCE calls it.

    The name and digest of every copy go to stdout, one line each.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from ociforge.cli.bundle import increment_is_told
    from ociforge.cli.places import Places
    from ociforge.cli.report import published_json, send
    from ociforge.parallel import ordered_map
    from ociforge.transports import RegistryLocation, parse
    from ociforge.transports.files import check_parent

    places = Places(registry, console.notify)
    wanted = [parse(text) for text in destinations]
    for target in wanted:
        if not isinstance(target, RegistryLocation):  # before the first is written, though it is another's
            check_parent(target.path.absolute(), f"writing `{target}`")
    origin = platforms.select(places.source(parse(source)), platform)
    targets = [places.destination(location, _names(origin, location)) for location in wanted]
    with ordered_map(workers) as map_, increment_is_told(origin):
        copies = [send(origin, target, map_, console) for target in targets]
    console.result(
        [copy.name for copy in copies], {"destinations": [published_json(copy) for copy in copies]}, as_json=as_json
    )


def _names(source: NamedSource, target: Location) -> Sequence[Name]:
    """What the copy is called besides the name in its location: what it was called before, if there is none."""
    from ociforge.transports import RegistryLocation

    return () if isinstance(target, RegistryLocation) or target.ref is not None else source.names()
