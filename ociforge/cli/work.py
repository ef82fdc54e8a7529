"""What `build` and `plan` have in common: the options that say what to build, and what they come to."""

from __future__ import annotations

import functools
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from msgspec import Struct
from msgspec.structs import replace

from ociforge.cli import options, platforms
from ociforge.cli.local_file import LocalFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from layers.compress import Codec, OrderedMap
    from ociforge.base import Base
    from ociforge.cli.bases import Bases
    from ociforge.cli.console import Console
    from ociforge.cli.places import Places
    from ociforge.errors import AnswerError, AuthError, ImageError, NotFoundError
    from ociforge.network import Network
    from ociforge.oci.reference import Reference
    from ociforge.packages import Installer
    from ociforge.platform import Platform
    from ociforge.request import Request
    from ociforge.reuse import Previous
    from ociforge.store import Store
    from ociforge.transports import Location, RegistryLocation
    from ociforge.transports.base import Destination, NamedSource
    from ociforge.transports.options import RegistryOptions
    from ociforge.workspace import Environment, ImageSettings, Workspace
    from ociforge.workspace.lockfile import Lock, Selection

    _Looked = Previous | AnswerError | AuthError | ImageError | NotFoundError | None

__all__ = ["Wanted", "Work", "work_options"]

_TRANSPORTS = ("docker", "docker-archive", "oci", "oci-archive")

_Command = TypeVar("_Command", bound="Callable[..., Any]")

_OPTIONS = (
    click.argument("workspace", type=click.Path(path_type=Path), default=Path(), required=False),
    click.option(
        "-e", "--environment", metavar="NAME", help="The pixi environment to install.  [default: the settings']"
    ),
    click.option(
        "--image", "images", metavar="NAME", multiple=True, help="Which of `[tool.ociforge.images]` to build."
    ),
    platforms.several_platforms,
    click.option(
        "--base", metavar="IMAGE", help="The base image: docker://…, oci:…, …-archive:…, rootfs:FILE or scratch."
    ),
    click.option(
        "--locked",
        is_flag=True,
        help="Refuse locks that are missing or do not fit, and base images that are not pinned."
        "  [default: make a lock where there is none, warn of missing pins]",
    ),
    click.option("--frozen", is_flag=True, help="Use the lock and the pins that there are, unchecked."),
    click.option(
        "--bundle",
        type=LocalFile("run `ociforge bundle import {}`, then the same command without `--bundle`"),
        metavar="FILE",
        help="Take what the store lacks from this file, which `ociforge bundle create` made.",
    ),
    click.option(
        "-o",
        "--output",
        "outputs",
        metavar="DEST",
        multiple=True,
        help="Write to oci:DIR[:TAG], oci-archive:FILE[:NAME] or docker://REF; may be given several times.",
    ),
    click.option(
        "--push", "pushes", metavar="REF", multiple=True, help="Push to a registry as REF; may be given several times."
    ),
    click.option(
        "-t",
        "--tag",
        "tags",
        metavar="NAME[:TAG]",
        multiple=True,
        help="Name of the image in the layouts and archives that `--output` writes.",
    ),
    click.option("--compression", metavar="CODEC", help="gzip, zstd or none, with a level if wanted: zstd:3."),
    click.option("--clamp-mtime", is_flag=True, help="Let no file be newer than SOURCE_DATE_EPOCH."),
    click.option(
        "--reuse",
        metavar="REF",
        multiple=True,
        help="Take layers of the image REF instead of making them; may be given several times."
        "  [default: what `--push` names now]",
    ),
    click.option("--no-reuse", is_flag=True, help="Take no layer of any image; only what the store has is reused."),
    click.option(
        "--installer",
        type=click.Choice(["stream", "rattler"]),
        default="stream",
        show_default=True,
        help="How conda packages are laid out: straight from their archives, or by rattler. The bytes are the same.",
    ),
)


class Wanted(Struct, frozen=True, kw_only=True):
    """What the command line says about what to build."""

    workspace: Path
    environment: str | None
    images: tuple[str, ...]
    platforms: tuple[str, ...]
    base: str | None
    locked: bool
    frozen: bool
    bundle: Path | None
    outputs: tuple[str, ...]
    pushes: tuple[str, ...]
    tags: tuple[str, ...]
    compression: str | None
    clamp_mtime: bool
    reuse: tuple[str, ...]
    no_reuse: bool
    installer: Installer
    registry: RegistryOptions
    workers: int

    @property
    def strict(self) -> bool | None:
        """What to make of locks and pins: True refuses missing ones, False looks at none, None does what it can."""
        return True if self.locked else False if self.frozen else None


def work_options(command: _Command) -> _Command:
    """All options that say what to build and how to reach registries, as the parameter `wanted`; they are refused
    where they contradict.
    """

    @options.registry_options
    @options.workers
    @functools.wraps(command)
    def resolved(*, as_json: bool, quiet: bool, verbose: bool, **values: Any) -> Any:
        wanted = Wanted(**values)
        if wanted.locked and wanted.frozen:
            raise options.OptionError("--locked and --frozen exclude each other", "leave one of them out")
        if wanted.reuse and wanted.no_reuse:
            raise options.OptionError("--reuse and --no-reuse exclude each other", "leave one of them out")
        if wanted.bundle is not None:
            wanted = replace(wanted, registry=replace(wanted.registry, offline=True))
        if wanted.no_reuse:
            wanted = replace(wanted, registry=replace(wanted.registry, trust_manifests=False))
        if len(wanted.images) > 1:
            raise options.OptionError("--image: one at a time", "run the command once for each")
        return command(wanted=wanted, as_json=as_json, quiet=quiet, verbose=verbose)

    for option in reversed(_OPTIONS):
        option(resolved)
    return resolved  # type: ignore[return-value]  # click calls it by the names of its options


class Work:
    """What `wanted` comes to: the places that images go to, none of them touched, the workspace with its lock, and what
    is to be built for each platform.

    Making it reads the workspace; what is wrong with the options shows here. A lock that is missing is made when it is
    needed, if `solve`. Raises ForgeError.
    """

    def __init__(self, wanted: Wanted, console: Console, *, solve: bool) -> None:
        from ociforge.cli.bases import Bases
        from ociforge.cli.network import network
        from ociforge.cli.places import Places
        from ociforge.events import Warned
        from ociforge.oci.reference import Reference
        from ociforge.pins import FILE_NAME, Pins
        from ociforge.transports import RegistryLocation, parse
        from ociforge.transports.files import check_parent
        from ociforge.transports.location import parse_registry

        self.wanted = wanted
        self.console = console
        self._solve = solve
        self._names = [Reference.parse(tag) for tag in wanted.tags]
        self.targets: list[Location] = [
            *(parse(text) for text in wanted.outputs),
            *map(parse_registry, wanted.pushes),
        ]
        if wanted.bundle is not None:
            from ociforge.cli.bundle import refuse_registries

            refuse_registries(wanted.bundle, self.targets)
        self._reuse = [_image(text) for text in wanted.reuse]
        if self._names and all(isinstance(target, RegistryLocation) for target in self.targets):
            raise options.OptionError(
                "--tag: names an image in a layout or an archive, and there is none to write",
                "put the tag into `--push REF`, or give an `--output`",
            )
        self._platforms = platforms.several(wanted.platforms)
        self._epoch = options.source_date_epoch(os.environ)
        if wanted.clamp_mtime and self._epoch is None:
            raise options.OptionError(
                "--clamp-mtime: SOURCE_DATE_EPOCH is not set", "set it to the latest time to allow"
            )
        self.places: Places = Places(wanted.registry, console.notify)
        self.destinations: list[Destination] = [self.places.destination(target, self._names) for target in self.targets]
        for target in self.targets:
            if not isinstance(target, RegistryLocation):
                check_parent(target.path.absolute(), f"writing `{target}`")
        self._workspace: Workspace = options.open_workspace(wanted.workspace)
        for warning in self._workspace.manifest.warnings:
            console.notify(Warned(warning))
        self._overrides: dict[str, object] = {
            "environment": wanted.environment,
            "base": wanted.base,
            "compression": wanted.compression,
        }
        self.network: Network = network(os.environ, self._workspace.settings.mirrors, offline=wanted.registry.offline)
        # What holds on all platforms.
        self.settings = _settings(self._workspace, wanted.images, self._overrides)
        root = self.root = self._workspace.root
        # Of what the settings name, relative paths start at the workspace; of options at the working directory.
        self._bases: Bases = Bases(
            root if wanted.base is None else Path(), self.places, Pins.read(root / FILE_NAME), strict=wanted.strict
        )
        self._codecs: dict[str, Codec] = {}
        self._sources: dict[Location, NamedSource] = {}
        self._seen: dict[tuple[Location, Platform], _Looked] = {}
        self.store = options.open_store()
        if wanted.bundle is not None:
            from ociforge.cli.bundle import take_missing

            take_missing(wanted.bundle, self._workspace, self.store, wanted.workers, console)
        own = () if wanted.bundle is None else (wanted.bundle.absolute(),)
        self._leave_out = (root / FILE_NAME, *own, *_own_files(self.targets, self.store))

    @property
    def all_platforms(self) -> bool:
        """Whether `all` are wanted: then those that the base image is not there for are left out."""
        return self._platforms is None

    @cached_property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms that are wanted; the lock is read, or made."""
        if self._platforms is None:
            return _locked_platforms(self._locked, self.settings.environment, self.console)
        return self._platforms or (_default_platform(self._locked, self.settings.environment),)

    def settings_on(self, platform: Platform) -> ImageSettings:
        """The settings of the image for `platform`."""
        return self._workspace.settings.image(self.settings.name, self._overrides, platform=platform)

    def base(self, platform: Platform, map_: OrderedMap) -> Base:
        """The base image for `platform`, of which documents are read. Raises PlatformError when there is none."""
        settings = self.settings_on(platform)
        codec = self._codec(settings)
        return self._bases.open(settings.base, platform, store=self.store, codec=codec, map_=map_)

    def select(self, platform: Platform) -> tuple[Environment, Selection]:
        """What pixi's environment is on `platform`, and what the lock holds for it. Raises WorkspaceError."""
        from ociforge.workspace.lockfile import select

        name = self.settings.environment
        found = self._workspace.environment(name, platform.subdir)
        return found, select(self._locked, name, found.platform)

    def request(self, platform: Platform, base: Base, environment: Environment, selection: Selection) -> Request:
        """What to build on `base`; all arguments are what this object says of `platform`."""
        from ociforge.request import Request

        settings = self.settings_on(platform)
        return Request(
            workspace=self._workspace,
            settings=settings,
            environment=environment,
            selection=selection,
            platform=platform,
            base=base,
            codec=self._codec(settings),
            epoch=self._epoch,
            clamp=self.wanted.clamp_mtime,
            leave_out=self._leave_out,
            environ=os.environ,
            network=self.network,
        )

    def previous(self, platform: Platform) -> tuple[Previous, ...]:
        """The images to take layers of: those that `--reuse` names, else those that are going to be replaced. Where one
        is not there yet, or cannot be used, nothing is taken of it; that is told where it was not to be expected.
        """
        if self.wanted.no_reuse:
            return ()
        found = (self._reusable(location, platform) for location in self._reuse or self._pushed)
        return tuple(image for image in found if image is not None)

    def replaced(self, platform: Platform) -> tuple[Previous, ...]:
        """The images of ours, as far as they can be read, that are behind the names to push to."""
        found = (self._look(location, platform) for location in self._pushed)
        return tuple(image for image in found if image is not None and not isinstance(image, Exception))

    @property
    def pushed(self) -> tuple[Reference, ...]:
        """The names that the image is going to have in registries."""
        return tuple(location.reference for location in self._pushed)

    def _reusable(self, location: Location, platform: Platform) -> Previous | None:
        """The image at `location`, or a warning if it was to be there."""
        from ociforge.errors import AnswerError, AuthError, ImageError, NotFoundError
        from ociforge.events import Warned

        found = self._look(location, platform)
        message = f"no layer of `{location}` is reused: "
        match found:
            case NotFoundError():
                if self._reuse:
                    hint = found.hint or "that is right for the first build; else check the name"
                    self.console.notify(Warned(message + found.message, hint))
            case AuthError():  # some registries say so of what is not there
                self.console.notify(
                    Warned(message + found.message, f"that is right if there is no such image yet; else {found.hint}")
                )
            case AnswerError() | ImageError():
                if self._reuse:
                    raise found
                message = f"no layer of `{location}`, which is there now, is reused: {found.message}"
                self.console.notify(Warned(message, "it is going to be replaced; find out who pushed it"))
            case _:
                return found
        return None

    def _look(self, location: Location, platform: Platform) -> _Looked:
        """The image of ours at `location`, or why there is none that can be used; asked for once."""
        from ociforge.errors import AnswerError, AuthError, ImageError, NotFoundError
        from ociforge.reuse import read_previous

        if (location, platform) not in self._seen:
            try:
                found: _Looked = read_previous(self._source(location), platform, str(location))
            except (AnswerError, AuthError, ImageError, NotFoundError) as error:
                found = error
            self._seen[location, platform] = found
        return self._seen[location, platform]

    def _source(self, location: Location) -> NamedSource:
        """Where the image is read from; one for all platforms, as it remembers what it was asked for."""
        from ociforge.errors import NotFoundError
        from ociforge.transports import RegistryLocation

        if location not in self._sources:
            if not isinstance(location, RegistryLocation) and not location.path.exists():
                raise NotFoundError(f"reading `{location}`: there is no `{location.path}`")
            self._sources[location] = self.places.source(location)
        return self._sources[location]

    @cached_property
    def _pushed(self) -> tuple[RegistryLocation, ...]:
        from ociforge.transports import RegistryLocation

        return tuple(target for target in self.targets if isinstance(target, RegistryLocation))

    @cached_property
    def _locked(self) -> Lock:
        from ociforge.cli.fit import fitting_lock
        from ociforge.parallel import ordered_map

        if self._solve and self.wanted.strict is None:
            with ordered_map(self.wanted.workers) as map_:
                _make_lock(self._workspace, self.console, map_, offline=self.network.offline)
        return fitting_lock(self._workspace, frozen=self.wanted.frozen, verb="build", known=self.store.facts)

    def _codec(self, settings: ImageSettings) -> Codec:
        if settings.compression not in self._codecs:
            self._codecs[settings.compression] = _codec(settings.compression, self.console)
        return self._codecs[settings.compression]

    @property
    def wants_bytes(self) -> bool:
        """Whether some place needs the bytes of all layers: not only a registry that can be told where they are."""
        from ociforge.transports import RegistryLocation

        sources = () if self.wanted.no_reuse else self._reuse or self._pushed
        hosts = {source.reference.registry for source in sources if isinstance(source, RegistryLocation)}
        return any(
            not isinstance(target, RegistryLocation) or target.reference.registry not in hosts
            for target in self.targets
        )


def _image(text: str) -> Location:
    """What `--reuse` names: an image anywhere; without a transport, in a registry."""
    from ociforge.transports import parse
    from ociforge.transports.location import parse_registry

    return parse(text) if text.partition(":")[0] in _TRANSPORTS else parse_registry(text)


def _settings(workspace: Workspace, images: Sequence[str], overrides: Mapping[str, object]) -> ImageSettings:
    """The settings of the image that is asked for, or of the only one."""
    from ociforge.errors import WorkspaceError

    image = next(iter(images), None)
    if image is None and len(workspace.settings.images) == 1:
        (image,) = workspace.settings.images
    elif image is None and workspace.settings.images:
        listed = ", ".join(f"`{name}`" for name in workspace.settings.images)
        hint = "choose one with `--image`" + ("" if overrides["environment"] is None else ": `--environment` does not")
        raise options.OptionError(f"the workspace has several images: {listed}", hint)
    try:
        return workspace.settings.image(image, overrides)
    except WorkspaceError as error:  # the manifest alone was found to be right
        raise options.OptionError(error.message, error.hint) from error


def _make_lock(workspace: Workspace, console: Console, map_: OrderedMap, *, offline: bool) -> None:
    """Write a lock where there is none."""
    from ociforge.cli.lock import solve_packages, write_packages

    if workspace.lock_path.exists():
        return
    console.say(f"there is no `{workspace.lock_path.name}` yet: solving")
    result = solve_packages(workspace, console, map_, offline=offline)
    if result is not None:
        write_packages(workspace, result, console)


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


def _locked_platforms(lock: Lock, environment: str, console: Console) -> tuple[Platform, ...]:
    """All platforms of the lock that images can be made for; others are told of."""
    from ociforge.errors import BuildError, LockError
    from ociforge.platform import Platform

    found = []
    for subdir in sorted({row.subdir for row in lock.environment(environment).platforms}):
        try:
            found.append(Platform.from_subdir(subdir))
        except BuildError as error:
            console.say(f"`{subdir}` is left out: {error.message}")
    if not found:
        raise LockError(
            f"`{lock.path.name}` locks `{environment}` for no platform that an image can be built for",
            "add `linux-64` to `workspace.platforms`, and run `ociforge lock`",
        )
    return tuple(found)


def _own_files(places: Sequence[Location], store: Store) -> tuple[Path, ...]:
    """What this program writes, which is no part of the application even where it lies in the workspace."""
    from ociforge.transports import RegistryLocation

    return (store.root, *(place.path.absolute() for place in places if not isinstance(place, RegistryLocation)))
