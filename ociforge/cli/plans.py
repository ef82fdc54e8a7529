"""The images that `build` and `plan` are asked for, one for each platform, planned side by side.

Whatever forbids to build one of them is found before anything is fetched, and told of all platforms at once; all are
planned before anything is made.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.build import planned
from ociforge.cli.bases import left_out_warning
from ociforge.errors import BaseImageError, BuildError, ForgeError, PackageError, PlatformError, WorkspaceError
from ociforge.events import StageStarted, Warned
from ociforge.foreign import refuse_bytecode, refuse_native

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from layers.compress import OrderedMap
    from ociforge.base import Base
    from ociforge.cli.console import Console
    from ociforge.cli.work import Work
    from ociforge.events import Event, Notify
    from ociforge.planned import PlannedImage
    from ociforge.platform import Platform
    from ociforge.request import Request
    from ociforge.reuse import Previous
    from ociforge.workspace import Environment
    from ociforge.workspace.lockfile import Selection

__all__ = ["Asked", "Plan", "Refusals", "asked_of", "labelled", "planned_images"]

_REFUSED = (WorkspaceError, PackageError, BaseImageError, BuildError)  # not what may be otherwise a minute later


class Asked(Struct, frozen=True, kw_only=True):
    """What is to be built: a request for each platform, and why platforms of `all` are left out."""

    requests: Mapping[Platform, Request]
    left_out: Mapping[Platform, str]

    def left_out_json(self) -> list[dict[str, str]]:
        """What `--json` says of the platforms that are left out."""
        return [{"platform": str(platform), "reason": reason} for platform, reason in self.left_out.items()]


class Plan(Struct, frozen=True, kw_only=True):
    """What is going to be done for one platform; `previous` are the images that layers may come from."""

    image: PlannedImage
    previous: Sequence[Previous]


class Refusals:
    """Why images cannot be built, on which platforms; `settle` tells all of it together."""

    def __init__(self) -> None:
        self._found: dict[Platform, list[ForgeError]] = {}

    @contextmanager
    def of(self, platform: Platform) -> Iterator[None]:
        """Take note of an error of the block, which ends there."""
        try:
            yield
        except _REFUSED as error:
            self._found.setdefault(platform, []).append(error)

    def settle(self, platforms: Collection[Platform]) -> None:
        """Raise one error for all of them, if there are any; what is the same on all of `platforms` is said once."""
        errors = [error for several in self._found.values() for error in several]
        if not errors:
            return
        texts = {"\n".join(error.message for error in several) for several in self._found.values()}
        if len(texts) == 1 and len(self._found) == len(platforms):
            errors = next(iter(self._found.values()))
            lines = [error.message for error in errors]
        else:
            lines = [
                f"`{platform}`: {line}"
                for platform, several in self._found.items()
                for error in several
                for line in error.message.splitlines()
            ]
        if len(errors) == 1:
            raise type(errors[0])("\n".join(lines), errors[0].hint) from errors[0]
        hints = dict.fromkeys(error.hint for error in errors if error.hint)
        raise BuildError.collect(lines, "; ".join(hints) or None) from errors[0]


def asked_of(work: Work, map_: OrderedMap) -> Asked:
    """A request for each platform that is wanted; of `all`, for those that the base image is there for: of others a
    warning tells.

    Documents of base images are read, and nothing else. Raises ForgeError.
    """
    refusals = Refusals()
    bases: dict[Platform, Base] = {}
    selected: dict[Platform, tuple[Environment, Selection]] = {}
    left_out: dict[Platform, str] = {}
    for platform in work.platforms:
        with refusals.of(platform):
            try:
                bases[platform] = work.base(platform, map_)
            except PlatformError as error:
                if not work.all_platforms:
                    raise
                left_out[platform] = error.message
                work.console.notify(left_out_warning(platform, error))
                continue
        settings = work.settings_on(platform)
        with refusals.of(platform):
            refuse_bytecode(settings, platform)
        with refusals.of(platform):
            environment, selection = selected[platform] = work.select(platform)
            refuse_native(settings, platform, environment=environment, selection=selection, root=work.root)
    chosen = [platform for platform in work.platforms if platform not in left_out]
    refusals.settle(chosen)
    if not chosen:
        raise BuildError(
            f"`--platform all`: the base image is there for no platform of the lock: {_listed(work.platforms)}",
            "choose another base image, or lock the environment for the platforms of this one",
        )
    found = {platform: work.request(platform, bases[platform], *selected[platform]) for platform in chosen}
    return Asked(requests=found, left_out=left_out)


@contextmanager
def planned_images(
    work: Work, asked: Mapping[Platform, Request], map_: OrderedMap
) -> Iterator[Mapping[Platform, Plan]]:
    """The plan for each of `asked`, to be made while the context lasts. Raises ForgeError."""
    refusals, warnings = Refusals(), _Warnings(work.console, asked)
    plans: dict[Platform, Plan] = {}
    with ExitStack() as stack:
        try:
            for platform, request in asked.items():
                with refusals.of(platform):
                    previous = work.previous(platform)
                    image = planned(
                        request,
                        store=work.store,
                        previous=previous,
                        pull=work.wants_bytes,
                        installer=work.wanted.installer,
                        map_=map_,
                        notify=warnings.of(platform),
                    )
                    plans[platform] = Plan(image=stack.enter_context(image), previous=previous)
        finally:
            warnings.tell()
        refusals.settle(asked)
        yield plans


def labelled(console: Console, platform: Platform, platforms: Collection[Platform]) -> Notify:
    """`console.notify`, which says what stages and warnings are of `platform`, if there are several."""

    def notify(event: Event) -> None:
        match event:
            case StageStarted(what):
                console.notify(StageStarted(f"{platform}: {what}"))
            case Warned(message, hint):
                console.notify(Warned(f"`{platform}`: {message}", hint))
            case _:
                console.notify(event)

    return console.notify if len(platforms) == 1 else notify


class _Warnings:
    """Holds warnings back until it is known for which of `platforms` they are; all other events pass, as do warnings
    that come later: what was planned goes on to tell when it is made.
    """

    def __init__(self, console: Console, platforms: Collection[Platform]) -> None:
        self._console = console
        self._platforms = platforms
        self._found: dict[Warned, dict[Platform, None]] | None = {}

    def of(self, platform: Platform) -> Notify:
        """What hears of the plan for `platform`."""
        pass_on = labelled(self._console, platform, self._platforms)

        def notify(event: Event) -> None:
            found = self._found
            if found is not None and isinstance(event, Warned):
                found.setdefault(event, {})[platform] = None
            else:
                pass_on(event)

        return notify

    def tell(self) -> None:
        """Show the warnings that there are, and any other at once."""
        found, self._found = self._found or {}, None
        for warned, platforms in found.items():
            everywhere = len(platforms) == len(self._platforms)
            message = warned.message if everywhere else f"{_listed(platforms)}: {warned.message}"
            self._console.notify(Warned(message, warned.hint))


def _listed(platforms: Iterable[Platform]) -> str:
    return ", ".join(f"`{platform}`" for platform in platforms)
