"""`ociforge bundle`: everything that builds need in one file, for where there is no network."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ociforge.cli import options
from ociforge.cli.console import Console, megabytes
from ociforge.cli.local_file import PLACES, LocalFile
from ociforge.cli.needed import base_key, bases_of, choice, means
from ociforge.cli.platforms import several, several_platforms

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from layers.digest import Digest
    from ociforge.base import Base
    from ociforge.bundle import Bundle, Offer, Taken
    from ociforge.cli.places import Places
    from ociforge.needs import Wanted
    from ociforge.platform import Platform
    from ociforge.store import Store
    from ociforge.transports import Location
    from ociforge.transports.base import Source
    from ociforge.transports.options import RegistryOptions
    from ociforge.workspace import Workspace

__all__ = ["command", "differing", "increment_is_told", "refuse_registries", "take_missing"]


@click.group("bundle")
def command() -> None:
    """Carry everything that builds need to where there is no network.

    \b
    ociforge bundle create -o app.bundle           here: fetch it all, and write it to one file
    ociforge bundle verify app.bundle              is every byte right, and does it fit the lock?
    ociforge bundle import app.bundle              there: put it into the local store
    ociforge build --locked --push registry.internal/app:1
                                                   and build

    A bundle is an OCI artifact, too: `ociforge push oci-archive:app.bundle:bundle docker://REF` moves it through a
    registry, as skopeo and oras do, and `ociforge bundle import docker://REF` takes it from there.

    Base images in it have their full names, with the platform behind it where a bundle has one for several:
    `skopeo copy oci-archive:app.bundle:docker.io/library/ubuntu:24.04-linux-arm64 ...` takes one out.
    """


@command.command("create")
@click.argument("workspace", type=click.Path(path_type=Path), default=Path(), required=False)
@click.option(
    "-o",
    "--output",
    type=LocalFile("write a file, and move that by `ociforge push oci-archive:FILE:bundle {}`"),
    required=True,
    metavar="FILE",
    help="The file to write.",
)
@choice("Bundle")
@several_platforms
@click.option(
    "--since",
    metavar="FILE|docker://REF",
    help="Leave out the files that this older bundle has: it must be imported before the new one.",
)
@click.option("--frozen", is_flag=True, help="Use the lock that there is, unchecked.")
@options.registry_options
@options.workers
@options.json_output
@options.verbosity
def create(
    workspace: Path,
    output: Path,
    environments: tuple[str, ...],
    images: tuple[str, ...],
    platforms: tuple[str, ...],
    since: str | None,
    frozen: bool,
    registry: RegistryOptions,
    workers: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Write everything that builds of the WORKSPACE need to one file.

    That is the manifest, `pixi.lock` and `ociforge.lock`; every conda archive and wheel for the environments and
    platforms; wheels built of what is locked as source; the base images; and what the builds of the workspace's own
    packages require, as wheels. The workspace's code is not in it. Base images must be pinned (`ociforge lock`).

    The same lock gives the same bytes. stdout has the file and the digest of its manifest. Documents with passwords or
    tokens in them are refused.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from layers.compress import Codec
    from layers.digest import Digest
    from ociforge.bundle import collect, write
    from ociforge.cli.bases import Bases
    from ociforge.cli.fit import fitting_lock
    from ociforge.cli.places import Places
    from ociforge.needs import needs, wanted
    from ociforge.parallel import ordered_map
    from ociforge.pins import FILE_NAME, Pins
    from ociforge.transports.files import check_parent

    check_parent(output.absolute(), f"writing `{output}`")
    found = options.open_workspace(workspace)
    lock = fitting_lock(found, frozen=frozen, verb="bundle")
    chosen = several(platforms)
    asked = wanted(found, lock, images=images, environments=environments, platforms=chosen)
    _refuse_overwriting(output, _sources(found, asked, since))
    places = Places(registry, console.notify)
    old = None if since is None else _open_whole(since, places)
    had = frozenset[Digest]() if old is None else frozenset(item.digest for item in old.manifest.items)
    store = options.open_store()
    with ordered_map(workers) as map_, store.staging() as staging:
        looked_up = Bases(found.root, places, Pins.read(found.root / FILE_NAME), strict=False)

        def look(image: Wanted) -> Base | None:
            """None for a file, which goes into the bundle as it is."""
            if image.settings.base.startswith("rootfs:"):
                return None
            codec = Codec.parse(image.settings.compression)
            return looked_up.open(*base_key(image), store=store, codec=codec, map_=map_)

        opened = bases_of(asked, look, console, lenient=chosen is None)
        asked = _there(asked, opened)
        by = means(found, store, staging, map_, console, offline=registry.offline)
        bases = {key: base for key, base in opened.items() if base is not None}
        bundle = collect(found, asked, needs(asked, root=found.root), bases=bases, means=by)
        console.say(f"writing {output}")
        written = write(output, bundle, since=None if old is None else old.root.digest, had=had)
    console.say(_created_line(bundle, asked, written.count, written.size))
    console.result(
        [f"{output}@{written.digest}"],
        {
            "file": str(output),
            "digest": str(written.digest),
            "count": written.count,
            "size": written.size,
            "since": None if old is None else str(old.root.digest),
            "images": [image.to_json() for image in bundle.manifest.images],
            "files": _files_json(bundle, had),
        },
        as_json=as_json,
    )


@command.command("import")
@click.argument("source", metavar="FILE|docker://REF")
@options.registry_options
@options.workers
@options.json_output
@options.verbosity
def take(source: str, registry: RegistryOptions, workers: int, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Put what is in the bundle FILE, or in a registry, into the local store.

    Everything is verified on the way; what the store has already is not written again. Builds of the workspace that the
    bundle was made for then need no network.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from ociforge.bundle import take as take_bundle
    from ociforge.cli.places import Places
    from ociforge.parallel import ordered_map

    offer = _open(source, Places(registry, console.notify))
    store = options.open_store()
    with ordered_map(workers) as map_:
        taken = take_bundle(offer, store, map_=map_, notify=console.notify)
    console.say(_taken_line(taken))
    console.result(
        [f"{source}@{offer.root.digest}"],
        {
            "digest": str(offer.root.digest),
            "imported": {"count": taken.count, "size": taken.size},
            "known": {"count": taken.known, "size": taken.known_size},
        },
        as_json=as_json,
    )


@command.command("verify")
@click.argument("source", metavar="FILE|docker://REF")
@options.registry_options
@options.workers
@options.json_output
@options.verbosity
def check(source: str, registry: RegistryOptions, workers: int, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Check a bundle: every digest, and that its files are those that its lock and pins ask for.

    Names everything that is damaged, missing or foreign. Exit code 1 when there is anything.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from ociforge.bundle import verify
    from ociforge.cli.places import Places
    from ociforge.errors import TransportError
    from ociforge.parallel import ordered_map

    offer = _open(source, Places(registry, console.notify))
    with ordered_map(workers) as map_:
        wrong = verify(offer, map_)
    if wrong:
        raise TransportError.collect(
            [f"`{source}`: {line}" for line in wrong],
            "copy the bundle again, or make a new one with `ociforge bundle create`",
        )
    items = [item for item in offer.manifest.items if offer.has(item)]
    size = sum(item.size for item in items)
    console.say(f"{len(items)} files ({megabytes(size)}) are what the lock asks for")
    if offer.since is not None:
        console.say(
            f"{len(offer.manifest.items) - len(items)} more were not looked at: they are in the bundle `{offer.since}`,"
            " which this one builds upon"
        )
    console.result(
        [f"{source}@{offer.root.digest}"],
        {
            "digest": str(offer.root.digest),
            "since": None if offer.since is None else str(offer.since),
            "images": [image.to_json() for image in offer.manifest.images],
            "count": len(items),
            "size": size,
            "elsewhere": _elsewhere_json(offer),
        },
        as_json=as_json,
    )


def take_missing(path: Path, workspace: Workspace, store: Store, workers: int, console: Console) -> None:
    """Put what the store lacks of the bundle `path`, or has damaged, into it before a build; says so when it is for
    another lock.
    """
    from ociforge.bundle import open_bundle, take
    from ociforge.events import Warned
    from ociforge.parallel import ordered_map

    offer = open_bundle(path)
    with ordered_map(workers) as map_:
        taken = take(offer, store, map_=map_, notify=console.notify)
    console.say(_taken_line(taken))
    for name in differing(offer, workspace.root):
        console.notify(Warned(f"`{name}` is another one than that of the bundle `{path}`"))


def differing(offer: Offer, root: Path) -> Iterator[str]:
    """The locks of the workspace `root`, by name, that are not those of the bundle."""
    from layers.digest import Digest
    from ociforge.pins import FILE_NAME

    for role, document in (("lock", root / "pixi.lock"), ("pins", root / FILE_NAME)):
        own = Digest.of(document.read_bytes()) if document.is_file() else None
        if own is not None and own not in [item.digest for item in offer.manifest.with_role(role)]:
            yield document.name


@contextmanager
def increment_is_told(source: Source) -> Iterator[None]:
    """Let an error of reading `source` tell of what a bundle builds upon, if it is one that does."""
    from ociforge.bundle.write import SINCE
    from ociforge.errors import TransportError

    try:
        yield
    except TransportError as error:
        since = source.root().annotations.get(SINCE) if type(error) is TransportError else None
        if since is None:
            raise
        raise TransportError(
            f"{error.message}: this is a bundle that builds upon `{since}`",
            "push that one to the same repository first, or make a whole one, without `--since`",
        ) from error


def refuse_registries(path: Path, targets: Iterable[Location]) -> None:
    """Raise OfflineError for a build from the bundle `path` that is to go to a registry."""
    from ociforge.errors import OfflineError
    from ociforge.transports import RegistryLocation

    for target in targets:
        if isinstance(target, RegistryLocation):
            raise OfflineError(
                f"--bundle: `{target}` is in a registry, and with a bundle nothing is connected to",
                f"write `-o oci:DIRECTORY`, and copy that: `ociforge push oci:DIRECTORY {target}`; or run"
                f" `ociforge bundle import {path}`, then the same command without `--bundle`, but with `--locked`",
            )


def _open(source: str, places: Places) -> Offer:
    from ociforge.bundle import open_bundle, read_bundle
    from ociforge.transports import parse

    if source.startswith(PLACES):
        return read_bundle(places.source(parse(source)), source)
    return open_bundle(Path(source))


def _open_whole(source: str, places: Places) -> Offer:
    """A bundle to build upon. Raises TransportError for one that nobody could import."""
    from ociforge.bundle import structure
    from ociforge.errors import TransportError

    offer = _open(source, places)
    if wrong := structure(offer):
        raise TransportError.collect(
            [f"--since: `{source}`: {line}" for line in wrong],
            "copy that bundle again, or make a whole one, without `--since`",
        )
    return offer


def _sources(workspace: Workspace, asked: Sequence[Wanted], since: str | None) -> Iterator[tuple[Path, str]]:
    """The files of this machine that a bundle is made of, and what they are."""
    from ociforge.pins import FILE_NAME
    from ociforge.transports import ArchiveLocation, parse

    yield workspace.manifest.path, "the manifest of the workspace"
    yield workspace.lock_path, "the lock of the workspace"
    yield workspace.root / FILE_NAME, "where the workspace has the pins of its base images"
    if since is not None:
        place = parse(since) if since.startswith(PLACES) else None
        if place is None or isinstance(place, ArchiveLocation):
            yield Path(since) if place is None else place.path, "the older bundle, which the new one is to build upon"
    for base in {image.settings.base for image in asked}:
        kind, _, path = base.partition(":")
        if kind == "rootfs":
            yield workspace.root / path, "a base image"
        elif kind.endswith("-archive") and isinstance(place := parse(base), ArchiveLocation):
            yield workspace.root / place.path, "a base image"


def _refuse_overwriting(output: Path, sources: Iterable[tuple[Path, str]]) -> None:
    """Raise OptionError when `output` is one of `sources`, under whatever name."""
    for path, what in sources:
        if output.resolve() == path.resolve() or (output.exists() and path.exists() and output.samefile(path)):
            raise options.OptionError(f"--output: `{output}` is {what}", "write another file")


def _there(asked: Sequence[Wanted], opened: Collection[tuple[str, Platform]]) -> tuple[Wanted, ...]:
    """The images whose base image is there. Raises BuildError when that is none."""
    from ociforge.errors import BuildError

    found = tuple(image for image in asked if base_key(image) in opened)
    if not found:
        raise BuildError(
            "`--platform all`: the base images are there for no platform of the lock",
            "choose other base images, or lock the environment for the platforms of these",
        )
    return found


def _created_line(bundle: Bundle, asked: tuple[Wanted, ...], count: int, size: int) -> str:
    left = len({item.digest for item in bundle.manifest.items}) - count
    more = f", {left} more are in the older bundle" if left else ""
    return f"{count} files ({megabytes(size)}) for {len(asked)} image{'' if len(asked) == 1 else 's'}{more}"


def _taken_line(taken: Taken) -> str:
    return (
        f"{taken.count} files imported ({megabytes(taken.size)}),"
        f" {taken.known} there already ({megabytes(taken.known_size)})"
    )


def _elsewhere_json(offer: Offer) -> dict[str, int]:
    """What only the older bundle has."""
    found = [item.size for item in offer.manifest.items if not offer.has(item)]
    return {"count": len(found), "size": sum(found)}


def _files_json(bundle: Bundle, had: frozenset[Digest]) -> list[dict[str, Any]]:
    from ociforge.bundle.manifest import DOCUMENTS

    return [
        {
            "role": item.role,
            "name": item.name,
            "digest": str(item.digest),
            "size": item.size,
            "written": item.role in DOCUMENTS or item.digest not in had,
        }
        for item in bundle.manifest.items
    ]
