"""`ociforge demo`: the main job on a workspace that comes with the package."""

from __future__ import annotations

from importlib import resources

import click

from ociforge.cli import build, options
from ociforge.cli.console import Console

__all__ = ["command"]

_NAME = "ociforge-demo"
_NEXT = """
`{file}` holds one image for two platforms: a locked conda environment at /app/.pixi/envs/default, the workspace's
manifest in /app, and a command that runs. To run it, for example:

    docker load -i {file} && docker run --rm {name}
    podman load -i {file} && podman run --rm {name}

To put it into a registry:

    ociforge push oci-archive:{file} docker://REGISTRY/REPOSITORY:TAG"""


@click.command("demo")
@click.option(
    "-o",
    "--output",
    metavar="DEST",
    default="oci-archive:demo.tar",
    show_default=True,
    help="Where to write, as in `ociforge build`.",
)
@options.json_output
@options.verbosity
@click.pass_context
def command(context: click.Context, output: str, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Build a small image, for linux/amd64 and linux/arm64, from a channel inside this package.

    Needs no network, no base image and no daemon. The archive can be loaded by docker, podman, skopeo and ctr.
    """
    from ociforge.transports import ArchiveLocation, RegistryLocation, parse

    console = Console.of(quiet=quiet, verbose=verbose)
    target = parse(output)
    with resources.as_file(resources.files("ociforge.demo")) as workspace:
        context.invoke(
            build.command,
            workspace=workspace,
            platforms=("linux/amd64", "linux/arm64"),
            outputs=(output,),
            tags=() if isinstance(target, RegistryLocation) else (_NAME,),
            as_json=as_json,
            quiet=quiet,
            verbose=verbose,
        )
    if isinstance(target, ArchiveLocation):
        console.say(_NEXT.format(file=target.path, name=_NAME))
