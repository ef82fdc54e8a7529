"""`ociforge demo`: the main job on a workspace that comes with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from ociforge.cli import build, options
from ociforge.cli.console import Console

__all__ = ["command"]

_NAME = "ociforge-demo"


@click.command("demo")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("demo.tar"),
    show_default=True,
    help="The archive to write.",
)
@options.json_output
@options.verbosity
@click.pass_context
def command(context: click.Context, output: Path, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Build a small image, for linux/amd64 and linux/arm64, from a channel inside this package.

    Needs no network, no base image and no daemon. The archive can be loaded by docker, podman, skopeo and ctr.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    with resources.as_file(resources.files("ociforge.demo")) as workspace:
        context.invoke(
            build.command,
            workspace=workspace,
            platforms=("linux/amd64", "linux/arm64"),
            outputs=(f"oci-archive:{output}",),
            tags=(_NAME,),
            as_json=as_json,
            quiet=quiet,
            verbose=verbose,
        )
    console.say(f"""
`{output}` holds one image for two platforms: a locked conda environment at /app/.pixi/envs/default, the application's
files in /app, and a command that runs. To run it, for example:

    docker load -i {output} && docker run --rm {_NAME}
    podman load -i {output} && podman run --rm {_NAME}

To put it into a registry:

    ociforge push oci-archive:{output} docker://REGISTRY/REPOSITORY:TAG""")
