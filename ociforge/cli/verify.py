"""`ociforge verify`: read an image through and tell whether it is what it says it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ociforge.cli import options
from ociforge.cli.console import Console, counted, megabytes

if TYPE_CHECKING:
    from ociforge.transports.options import RegistryOptions

__all__ = ["command"]


@click.command("verify")
@click.argument("source")
@options.registry_options
@options.transfers
@options.json_output
@options.verbosity
def command(source: str, registry: RegistryOptions, workers: int, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Read all of the image or index SOURCE, and check every digest, size and diff_id.

    Builds reuse layers of images that were pushed before, by what these say of themselves: this command tells whether
    that is true of their bytes. It does not check the keys by which builds find layers: whether a layer is what its key
    stands for shows only when it is made, as `ociforge build --no-reuse` does.

    SOURCE is docker://REF, oci:DIRECTORY[:TAG], oci-archive:FILE[:NAME] or docker-archive:FILE[:NAME].
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from ociforge.cli.places import Places
    from ociforge.parallel import ordered_map
    from ociforge.transports import parse
    from ociforge.verify import verify

    places = Places(registry, console.notify)
    with ordered_map(workers) as map_:
        found = verify(places.source(parse(source)), map_=map_)
    console.say(
        f"{counted(found.manifests, 'manifest')} and {counted(found.blobs, 'blob')} ({megabytes(found.size)}) are what"
        " they should be"
    )
    console.result(
        [str(found.descriptor.digest)],
        {
            "digest": str(found.descriptor.digest),
            "mediaType": found.descriptor.media_type,
            "manifests": found.manifests,
            "blobs": {"count": found.blobs, "size": found.size},
        },
        as_json=as_json,
    )
