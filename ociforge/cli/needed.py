"""What the verbs share that bring what builds need: `fetch` and `bundle create`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from layers.compress import OrderedMap
    from ociforge.cli.console import Console
    from ociforge.needs import Wanted
    from ociforge.platform import Platform
    from ociforge.store import Store
    from ociforge.supplies import Means
    from ociforge.workspace import Workspace

__all__ = ["base_key", "bases_of", "choice", "means"]

_Command = TypeVar("_Command", bound="Callable[..., Any]")
_T = TypeVar("_T")


def choice(verb: str) -> Callable[[_Command], _Command]:
    """`--environment` and `--image`, as the parameters `environments` and `images`; `verb` is what help calls it."""
    environment = click.option(
        "-e",
        "--environment",
        "environments",
        metavar="NAME",
        multiple=True,
        help=f"{verb} for this environment; may be given several times.  [default: those of the images]",
    )
    image = click.option(
        "--image",
        "images",
        metavar="NAME",
        multiple=True,
        help=f"{verb} for this one of `[tool.ociforge.images]`; may be given several times.  [default: all]",
    )
    return lambda command: environment(image(command))


def means(
    workspace: Workspace, store: Store, staging: Path, map_: OrderedMap, console: Console, *, offline: bool
) -> Means:
    """What brings it, by the workspace's settings and this process's environment; `staging` is an empty directory."""
    from ociforge.cli import options
    from ociforge.cli.network import network
    from ociforge.supplies import Means

    return Means(
        store=store,
        staging=staging,
        network=network(os.environ, workspace.settings.mirrors, offline=offline),
        environ=os.environ,
        mtime=options.source_date_epoch(os.environ) or 0,
        map_=map_,
        notify=console.notify,
    )


def base_key(image: Wanted) -> tuple[str, Platform]:
    """The base image that an image is built on."""
    return image.settings.base, image.platform


def bases_of(
    asked: Iterable[Wanted], look: Callable[[Wanted], _T], console: Console, *, lenient: bool
) -> dict[tuple[str, Platform], _T]:
    """What `look` finds for the base image of each of `asked`, once for each base; `lenient` leaves out platforms that
    one is not there for, as `build --platform all` does. Raises PlatformError.
    """
    from ociforge.cli.bases import left_out_warning
    from ociforge.errors import PlatformError

    found = {}
    first: dict[tuple[str, Platform], Wanted] = {}
    for image in asked:
        first.setdefault(base_key(image), image)
    for key, image in first.items():
        try:
            found[key] = look(image)
        except PlatformError as error:
            if not lenient:
                raise
            console.notify(left_out_warning(image.platform, error))
    return found
