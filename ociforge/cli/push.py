"""`ociforge push`: copy an image between places."""

from __future__ import annotations

import click

from ociforge.cli import options
from ociforge.cli.console import Console

__all__ = ["command"]


@click.command("push")
@click.argument("source")
@click.argument("destinations", metavar="DESTINATION...", nargs=-1, required=True)
@options.insecure
@options.workers
@options.json_output
@options.verbosity
def command(
    source: str,
    destinations: tuple[str, ...],
    insecure: bool,
    workers: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Copy the image or image index SOURCE to each DESTINATION.

    Nothing is repacked: digests stay. What a destination holds already is not sent again, and blobs of another
    repository on the same registry are mounted.

    \b
    docker://HOST/REPOSITORY:TAG    a registry
    oci:DIRECTORY[:TAG]             an OCI layout
    oci-archive:FILE[:NAME]         one file that docker, podman, skopeo and ctr load
    docker-archive:FILE[:NAME]      what `docker save` writes (as SOURCE)

    The name and digest of every copy go to stdout, one line each.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from ociforge.build import ordered_map
    from ociforge.cli.places import Places
    from ociforge.cli.report import published_json, send
    from ociforge.transports import parse
    from ociforge.transports.options import RegistryOptions

    places = Places(RegistryOptions(insecure=insecure, workers=workers), console.notify)
    targets = [places.destination(parse(text)) for text in destinations]
    origin = places.source(parse(source))
    with ordered_map(workers) as map_:
        copies = [send(origin, target, map_, console) for target in targets]
    console.result(
        [copy.name for copy in copies], {"destinations": [published_json(copy) for copy in copies]}, as_json=as_json
    )
