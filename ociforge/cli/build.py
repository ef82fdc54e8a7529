"""`ociforge build`: workspace -> image -> wherever it is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ociforge.cli import options
from ociforge.cli.console import Console
from ociforge.cli.work import work_options

if TYPE_CHECKING:
    from ociforge.built import Built
    from ociforge.cli.work import Wanted
    from ociforge.platform import Platform

__all__ = ["command"]


@click.command("build")
@work_options
@options.json_output
@options.verbosity
def command(wanted: Wanted, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Build the image of a pixi environment from the WORKSPACE's manifest and `pixi.lock`.

    The settings come from `[tool.ociforge]` of the manifest; options beat them. Without `--output` and `--push` the
    layers are made and kept, and only the digest is told.

    \b
    ociforge build -e prod --push ghcr.io/team/app:1.4
    ociforge build -e prod -o oci-archive:app.tar -t app:1.4 && docker load -i app.tar
    ociforge build --platform linux/amd64,linux/arm64 --push ghcr.io/team/app:1.4
    ociforge build --base scratch --platform all -o oci:layout:latest

    Several platforms make an image index, one an image. With `--platform all`, a warning tells of platforms that the
    base image is not there for.

    What exists is not made again: layers that the store has, or the image that `--push` names now. `ociforge plan`
    tells before.

    stdout has one line for each place the image went to, ending in its digest; all else is on stderr.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from ociforge.build import make, remember
    from ociforge.built import built_index
    from ociforge.cli.memory import keep_freed_memory
    from ociforge.cli.offline import check_plans, missing_is_told
    from ociforge.cli.outlets import Outlets
    from ociforge.cli.plans import asked_of, labelled, planned_images
    from ociforge.cli.report import built_json, layers_line, published_json
    from ociforge.cli.work import Work
    from ociforge.parallel import ordered_map

    keep_freed_memory()
    work = Work(wanted, console, solve=True)
    with ordered_map(wanted.workers) as map_, missing_is_told(work, map_):
        asked = asked_of(work, map_)
        with Outlets(work.targets, work.destinations, console) as outlets:
            made: dict[Platform, Built] = {}
            with planned_images(work, asked.requests, map_) as plans:
                check_plans(work, (plan.image for plan in plans.values()))
                for platform, plan in plans.items():
                    built = made[platform] = make(
                        plan.image,
                        store=work.store,
                        previous=plan.previous,
                        workers=wanted.workers,
                        ready=lambda layer: outlets.send(layer.blob(work.store)),
                        notify=labelled(console, platform, plans),
                    )
                    line = layers_line(built.layers)
                    console.say(f"{platform}: {line}" if len(plans) > 1 else line)
            for platform, built in made.items():
                remember(plans[platform].image, built, work.store)
            images = list(made.values())
            result = images[0] if len(images) == 1 else built_index(images, work.settings.annotations)
            copies = outlets.finish(result, map_)
    lines = [copy.name for copy in copies] or [str(result.descriptor.digest)]
    document = None
    if as_json:
        document = {
            **built_json(result, made, {platform: one.selection for platform, one in asked.requests.items()}),
            "leftOutPlatforms": asked.left_out_json(),
            "destinations": [published_json(copy) for copy in copies],
        }
    console.result(lines, document, as_json=as_json)
