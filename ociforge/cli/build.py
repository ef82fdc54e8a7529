"""`ociforge build`: workspace -> image -> wherever it is wanted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ociforge.cli import options
from ociforge.cli.console import Console

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from layers.compress import Codec, OrderedMap
    from ociforge.platform import Platform
    from ociforge.store import Store
    from ociforge.transports import Location
    from ociforge.workspace import Environment, ImageSettings, Workspace
    from ociforge.workspace.lockfile import Lock, Selection

__all__ = ["command"]


@click.command("build")
@click.argument("workspace", type=click.Path(path_type=Path), default=Path(), required=False)
@click.option("-e", "--environment", metavar="NAME", help="The pixi environment to install.  [default: the settings']")
@click.option("--image", "images", metavar="NAME", multiple=True, help="Which of `[tool.ociforge.images]` to build.")
@click.option(
    "--platform",
    "platforms",
    metavar="OS/ARCH",
    multiple=True,
    help="Such as linux/amd64 or linux/arm64; given several times, an image index is made."
    "  [default: linux/amd64, or the only one that is locked]",
)
@click.option("--base", metavar="IMAGE", help="The base image: docker://…, oci:…, …-archive:…, rootfs:FILE or scratch.")
@click.option(
    "--locked",
    is_flag=True,
    help="Refuse locks that are missing or do not fit, and base images that are not pinned."
    "  [default: make a lock where there is none, warn of missing pins]",
)
@click.option("--frozen", is_flag=True, help="Use the lock and the pins that there are, unchecked.")
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
    help="Name of the image in the layouts and archives that `--output` writes.",
)
@click.option("--compression", metavar="CODEC", help="gzip, zstd or none, with a level if wanted: zstd:3.")
@click.option("--clamp-mtime", is_flag=True, help="Let no file be newer than SOURCE_DATE_EPOCH.")
@options.insecure
@options.workers
@options.json_output
@options.verbosity
def command(
    workspace: Path,
    environment: str | None,
    images: tuple[str, ...],
    platforms: tuple[str, ...],
    base: str | None,
    locked: bool,
    frozen: bool,
    outputs: tuple[str, ...],
    pushes: tuple[str, ...],
    tags: tuple[str, ...],
    compression: str | None,
    clamp_mtime: bool,
    insecure: bool,
    workers: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Build the image of a pixi environment from the WORKSPACE's manifest and `pixi.lock`.

    The settings come from `[tool.ociforge]` of the manifest; options beat them. Without `--output` and `--push` the
    layers are made and kept, and only the digest is told.

    \b
    ociforge build -e prod --push ghcr.io/team/app:1.4
    ociforge build -e prod -o oci-archive:app.tar -t app:1.4 && docker load -i app.tar
    ociforge build --base scratch --platform linux/arm64 -o oci:layout:latest

    stdout has one line for each place the image went to, ending in its digest; all else is on stderr.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from ociforge.build import Request, build, ordered_map
    from ociforge.built import built_index
    from ociforge.cli.bases import Bases
    from ociforge.cli.places import Places
    from ociforge.cli.report import built_json, layers_line, published_json, send
    from ociforge.events import Warned
    from ociforge.oci.reference import Reference
    from ociforge.pins import FILE_NAME, Pins
    from ociforge.platform import Platform
    from ociforge.transports import RegistryLocation, parse
    from ociforge.transports.files import check_parent
    from ociforge.transports.options import RegistryOptions
    from ociforge.workspace import load
    from ociforge.workspace.manifest import FILE_NAMES

    if locked and frozen:
        raise options.OptionError("--locked and --frozen exclude each other", "leave one of them out")
    if len(images) > 1:
        raise options.OptionError("--image: one at a time", "run `ociforge build` once for each")
    strict = True if locked else False if frozen else None
    names = [Reference.parse(tag) for tag in tags]
    targets = [*(parse(text) for text in outputs), *(_registry(ref) for ref in pushes)]
    if names and all(isinstance(target, RegistryLocation) for target in targets):
        raise options.OptionError(
            "--tag: names an image in a layout or an archive, and there is none to write",
            "put the tag into `--push REF`, or give an `--output`",
        )
    wanted = list(dict.fromkeys(Platform.parse(text) for text in platforms))
    epoch = options.source_date_epoch(os.environ)
    if clamp_mtime and epoch is None:
        raise options.OptionError("--clamp-mtime: SOURCE_DATE_EPOCH is not set", "set it to the latest time to allow")
    places = Places(RegistryOptions(insecure=insecure, workers=workers), console.notify)
    destinations = [places.destination(target, names) for target in targets]
    for target in targets:
        if not isinstance(target, RegistryLocation):
            check_parent(target.path.absolute(), f"writing `{target}`")
    found = load(workspace.parent, workspace) if workspace.name in FILE_NAMES else load(workspace)
    for warning in found.manifest.warnings:
        console.notify(Warned(warning))
    settings = _settings(found, images, {"environment": environment, "base": base, "compression": compression})
    # Of what the settings name, relative paths start at the workspace; of options at the working directory.
    bases = Bases(found.root if base is None else Path(), places, Pins.read(found.root / FILE_NAME), strict=strict)
    codec = _codec(settings.compression, console)
    store = options.open_store()
    with ordered_map(workers) as map_:
        lock = _lock(found, strict, console, map_)
    chosen = wanted or [_default_platform(lock, settings.environment)]
    selections = {platform: _select(found, lock, settings.environment, platform) for platform in chosen}
    made = []
    with ordered_map(workers) as map_:
        for platform in chosen:
            if len(chosen) > 1:
                console.say(f"{platform}:")
            pixi_environment, selection = selections[platform]
            below = bases.open(settings.base, platform, store=store, codec=codec, map_=map_)
            request = Request(
                workspace=found,
                settings=settings,
                environment=pixi_environment,
                selection=selection,
                platform=platform,
                base=below,
                codec=codec,
                epoch=epoch,
                clamp=clamp_mtime,
                leave_out=(found.root / FILE_NAME, *_own_files(targets, store)),
                environ=os.environ,
            )
            made.append(build(request, store=store, workers=workers, notify=console.notify))
            console.say(layers_line(made[-1].layers))
        built = made[0] if len(made) == 1 else built_index(made, settings.annotations)
        copies = [send(built, destination, map_, console) for destination in destinations]
    console.result(
        [copy.name for copy in copies] or [str(built.descriptor.digest)],
        {**built_json(built), "destinations": [published_json(copy) for copy in copies]},
        as_json=as_json,
    )


def _registry(text: str) -> Location:
    """What `--push` names; the transport may be there, as it is in `--output`."""
    from ociforge.transports import parse

    return parse(f"docker://{text.removeprefix('docker://')}")


def _select(workspace: Workspace, lock: Lock, environment: str, platform: Platform) -> tuple[Environment, Selection]:
    """What pixi's environment is on `platform`, and what the lock holds for it."""
    from ociforge.workspace.lockfile import select

    found = workspace.environment(environment, platform.subdir)
    return found, select(lock, environment, found.platform)


def _settings(workspace: Workspace, images: Sequence[str], overrides: Mapping[str, object]) -> ImageSettings:
    """The settings of the image that is asked for, or of the only one."""
    image = next(iter(images), None)
    if image is None and len(workspace.settings.images) == 1:
        (image,) = workspace.settings.images
    elif image is None and workspace.settings.images:
        listed = ", ".join(f"`{name}`" for name in workspace.settings.images)
        hint = "choose one with `--image`" + ("" if overrides["environment"] is None else ": `--environment` does not")
        raise options.OptionError(f"the workspace has several images: {listed}", hint)
    return workspace.settings.image(image, overrides)


def _lock(workspace: Workspace, locked: bool | None, console: Console, map_: OrderedMap) -> Lock:
    """The workspace's lock, which fits unless `locked` is False; it is made where there is none, unless it is given."""
    from ociforge.cli.fit import examine, refusal
    from ociforge.cli.lock import solve_packages, write_packages
    from ociforge.workspace.lockfile import read

    if locked is None and not workspace.lock_path.exists():
        console.say(f"there is no `{workspace.lock_path.name}` yet: solving")
        result = solve_packages(workspace, console, map_)
        if result is not None:
            write_packages(workspace, result, console)
    lock = read(workspace.lock_path)
    if locked is not False:
        error = refusal(examine(workspace, lock), lock.path.name, frozen="pass `--frozen` to build what is locked")
        if error is not None:
            raise error
    return lock


def _codec(text: str, console: Console) -> Codec:
    from layers.compress import Codec, self_test
    from ociforge.events import Warned

    codec = Codec.parse(text)
    if not self_test(codec):
        message = f"this version of the compressor ({codec.identity}) has no record of its bytes"
        console.notify(Warned(message, "digests may differ from those that other versions give"))
    return codec


def _default_platform(lock: Lock, environment: str) -> Platform:
    """linux/amd64, or the one Linux platform that the environment is locked for: never the host's."""
    from ociforge.platform import Platform

    subdirs = {row.subdir for row in lock.environment(environment).platforms if row.subdir.startswith("linux-")}
    return Platform.from_subdir(subdirs.pop() if len(subdirs) == 1 else "linux-64")


def _own_files(places: Sequence[Location], store: Store) -> tuple[Path, ...]:
    """What this program writes, which is no part of the application even where it lies in the workspace."""
    from ociforge.transports import RegistryLocation

    return (store.root, *(place.path.absolute() for place in places if not isinstance(place, RegistryLocation)))
