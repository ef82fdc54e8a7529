"""`--platform`: of the verbs that build, several or `all`; of those that choose an image and build none, any one."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import click

from ociforge.cli import options
from ociforge.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ociforge.transports.base import NamedSource

__all__ = ["host", "one_platform", "select", "several", "several_platforms"]

_ALL = "all"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}  # what the kernel calls otherwise than OCI
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


def _parsed(context: click.Context, parameter: click.Parameter, text: str | None) -> Platform | None:
    if text is None:
        return None
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(map(_PART.fullmatch, parts)):
        raise click.BadParameter(f"`{text}`: expected OS/ARCH or OS/ARCH/VARIANT, such as linux/arm64")
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else None)


several_platforms = click.option(
    "--platform",
    "platforms",
    metavar="OS/ARCH[,OS/ARCH...]",
    multiple=True,
    help="Such as linux/amd64,linux/arm64; may be given several times. `all` are the Linux platforms of the lock that"
    " the base image is there for."
    "  [default: linux/amd64, or the only one that is locked]",
)

one_platform = click.option(
    "--platform",
    metavar="OS/ARCH[/VARIANT]",
    callback=_parsed,
    help="Take the one image for this platform out of an index.  [default: the whole index]",
)


def select(source: NamedSource, platform: Platform | None) -> NamedSource:
    """`source`, or the image for `platform` in it."""
    if platform is None:
        return source
    from ociforge.transports.selected import SelectedSource

    return SelectedSource(source, platform)


def several(texts: Iterable[str]) -> tuple[Platform, ...] | None:
    """What `several_platforms` stands for, each platform once: none when it is not given, None for `all`.

    Raises OptionError for what is no platform that an image can be built for.
    """
    names = [name.strip() for text in texts for name in text.split(",")]
    if _ALL not in names:
        return tuple(dict.fromkeys(options.platform(name) for name in names))
    if set(names) != {_ALL}:
        raise options.OptionError("--platform: `all` and single platforms exclude each other", "leave one of them out")
    return None


def host() -> Platform:
    """The platform of this machine, whether images can be built for it or not."""
    machine = os.uname().machine
    return Platform(architecture=_MACHINES.get(machine, machine))
