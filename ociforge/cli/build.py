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
    from ociforge.base import Base
    from ociforge.cli.places import Places
    from ociforge.platform import Platform
    from ociforge.store import Store
    from ociforge.transports import Location
    from ociforge.workspace import Environment, ImageSettings, Workspace
    from ociforge.workspace.lockfile import Lock, Selection

__all__ = ["command"]


@click.command("build")
@click.argument("workspace", type=click.Path(path_type=Path), default=Path(), required=False)
@click.option("-e", "--environment", metavar="NAME", help="The pixi environment to install.  [default: the settings']")
@click.option("--image", metavar="NAME", help="Which of `[tool.ociforge.images]` to build.")
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
    "--locked/--frozen",
    "locked",
    default=True,
    help="Refuse a lock that does not fit the manifest, or use it unchecked.  [default: locked]",
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
    image: str | None,
    platforms: tuple[str, ...],
    base: str | None,
    locked: bool,
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
    from ociforge.cli.places import Places
    from ociforge.cli.report import built_json, layers_line, published_json, send
    from ociforge.events import Warned
    from ociforge.oci.reference import Reference
    from ociforge.platform import Platform
    from ociforge.transports import RegistryLocation, parse
    from ociforge.transports.options import RegistryOptions
    from ociforge.workspace import load

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
    found = load(workspace)
    for warning in found.manifest.warnings:
        console.notify(Warned(warning))
    settings = _settings(found, image, {"environment": environment, "base": base, "compression": compression})
    # Of what the settings name, relative paths start at the workspace; of options at the working directory.
    start = found.root if base is None else Path()
    lock = _lock(found, locked=locked)
    codec = _codec(settings.compression)
    store = options.open_store()
    chosen = wanted or [_default_platform(lock, settings.environment)]
    selections = {platform: _select(found, lock, settings.environment, platform) for platform in chosen}
    images = []
    with ordered_map(workers) as map_:
        for platform in chosen:
            if len(chosen) > 1:
                console.say(f"{platform}:")
            pixi_environment, selection = selections[platform]
            below = _base(settings.base, start, platform, codec, store, places, map_)
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
                leave_out=_own_files(targets, store),
                environ=os.environ,
            )
            images.append(build(request, store=store, workers=workers, notify=console.notify))
            console.say(layers_line(images[-1].layers))
        built = images[0] if len(images) == 1 else built_index(images, settings.annotations)
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


def _settings(workspace: Workspace, image: str | None, overrides: Mapping[str, object]) -> ImageSettings:
    if image is None and len(workspace.settings.images) == 1:
        (image,) = workspace.settings.images
    elif image is None and workspace.settings.images:
        listed = ", ".join(f"`{name}`" for name in workspace.settings.images)
        raise options.OptionError(f"the workspace has several images: {listed}", "choose one with `--image`")
    return workspace.settings.image(image, overrides)


def _lock(workspace: Workspace, *, locked: bool) -> Lock:
    from ociforge.cli.fit import examine, refusal
    from ociforge.workspace.lockfile import read

    lock = read(workspace.lock_path)
    if locked:
        error = refusal(examine(workspace, lock), lock.path.name, frozen="pass `--frozen` to build what is locked")
        if error is not None:
            raise error
    return lock


def _codec(text: str) -> Codec:
    from layers.compress import Codec, self_test

    codec = Codec.parse(text)
    self_test(codec)
    return codec


def _default_platform(lock: Lock, environment: str) -> Platform:
    """linux/amd64, or the one Linux platform that the environment is locked for: never the host's."""
    from ociforge.platform import Platform

    subdirs = {row.subdir for row in lock.environment(environment).platforms if row.subdir.startswith("linux-")}
    return Platform.from_subdir(subdirs.pop() if len(subdirs) == 1 else "linux-64")


def _base(
    text: str,
    root: Path,
    platform: Platform,
    codec: Codec,
    store: Store,
    places: Places,
    map_: OrderedMap,
) -> Base:
    """The base image that `text` names; relative paths start at `root`."""
    from ociforge import base, transports
    from ociforge.errors import ReferenceFormatError
    from ociforge.events import StageStarted

    if text == "scratch":
        return base.scratch(platform)
    places.notify(StageStarted(f"reading the base image {text}"))
    if text.startswith("rootfs:"):
        path = root / text.removeprefix("rootfs:")
        return base.rootfs(path, platform=platform, store=store, codec=codec, map_=map_)
    try:
        location = transports.parse(text)
    except ReferenceFormatError as error:
        also = "a base image can also be `rootfs:FILE` (a root file system as a tar) or `scratch`"
        raise ReferenceFormatError(
            f"base image: {error.message}", f"{error.hint or ''}; {also}".lstrip("; ")
        ) from error
    if isinstance(location, transports.RegistryLocation):
        name: str | None = str(location.reference)
    else:
        from dataclasses import replace

        location, name = replace(location, path=root / location.path), None
    source = places.source(location)
    return base.load(source, platform=platform, store=store, name=name, notify=places.notify, map_=map_)


def _own_files(places: Sequence[Location], store: Store) -> tuple[Path, ...]:
    """What this program writes, which is no part of the application even where it lies in the workspace."""
    from ociforge.transports import RegistryLocation

    return (store.root, *(place.path.absolute() for place in places if not isinstance(place, RegistryLocation)))
