"""Options that name a file of this machine, and are given a place where images live."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from ociforge.cli.options import OptionError

__all__ = ["PLACES", "LocalFile"]

PLACES: Final = ("docker:", "oci:", "oci-archive:", "docker-archive:")


class LocalFile(click.Path):
    """A file by its path; `instead` says what to do with a place, whose text replaces `{}`."""

    def __init__(self, instead: str) -> None:
        super().__init__(path_type=Path, dir_okay=False)
        self._instead = instead

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name = "" if param is None else f"{max(param.opts, key=len)}: "
        if value == "":
            raise OptionError(f"{name}the name of the file is empty", "name a file")
        if isinstance(value, str) and value.startswith(PLACES):
            raise OptionError(f"{name}`{value}` is no file of this machine", self._instead.replace("{}", value))
        return super().convert(value, param, ctx)
