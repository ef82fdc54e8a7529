"""What builds require, as wheels on this machine: gathered where there is an index, used where there is none."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from layers.digest import Digest
from ociforge.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from ociforge.pypi.fetch import Archive, Cache

__all__ = ["Requirements", "gather", "install"]


class Requirements:
    """The wheels that builds may use here: `<root>/<sha256>` says what a file of `cache` is called elsewhere."""

    def __init__(self, root: Path, cache: Cache) -> None:
        self._root = root
        self._cache = cache

    def record(self, filename: str, wheel: Digest) -> None:
        """Let builds use `wheel`, which is in the cache. Raises PackageError."""
        place = self._root / wheel.hex
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            part = place.with_name(f".{place.name}.{os.getpid()}.part")
            part.write_text(filename, encoding="utf-8")
            part.replace(place)
        except OSError as error:
            raise PackageError(f"cannot write `{place}`: {error.strerror}") from error

    def offer(self, house: Path) -> None:
        """Put all of them that are whole into the new directory `house`, under their own names."""
        try:
            house.mkdir(parents=True)
            names = sorted(self._root.iterdir()) if self._root.is_dir() else []
            for place in (name for name in names if not name.name.startswith(".")):
                filename = place.read_text(encoding="utf-8")
                archive = self._cache.find(Digest(place.name), filename)
                if archive is not None:
                    _link(archive, house)
        except OSError as error:
            raise PackageError(f"cannot use the wheels in `{self._root}`: {error.strerror}") from error


def _link(archive: Archive, house: Path) -> None:
    target = house / archive.filename
    try:
        os.link(archive.path, target)
    except FileExistsError:
        pass  # two builds that require one version of something, built twice
    except OSError:  # another file system
        shutil.copyfile(archive.path, target)


def gather(python: str, requirements: Collection[str], house: Path, *, offered: Path | None = None) -> None:
    """Bring `requirements`, and all that they need, into `house` as wheels, and install them from there.

    Both for the environment of `python`, and the former as pip is configured on this machine, or out of the directory
    `offered` alone. Raises subprocess.CalledProcessError, whose `stderr` says why.
    """
    if requirements:
        alone = [] if offered is None else ["--isolated", "--no-index", "--find-links", str(offered)]
        _pip(python, "wheel", ["--wheel-dir", str(house), *alone], requirements)
        install(python, requirements, house)


def install(python: str, requirements: Collection[str], house: Path) -> None:
    """Install `requirements` from `house` alone into the environment of `python`.

    No configuration of pip's is used, and no network. Raises subprocess.CalledProcessError.
    """
    if requirements:
        options = ["--isolated", "--no-index", "--find-links", str(house), "--no-compile", "--no-warn-script-location"]
        _pip(python, "install", options, requirements)


def _pip(python: str, command: str, options: Collection[str], requirements: Collection[str]) -> None:
    """pip of this interpreter, or, where it has none, the one that the environment was given instead."""
    pip = [python, "-m", "pip"]
    if importlib.util.find_spec("pip") is not None:
        pip = [sys.executable, "-m", "pip", "--python", python]
    # Behind `--` no requirement is taken for an option.
    subprocess.run(
        [*pip, command, "--no-input", "--quiet", *options, "--", *requirements],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
