"""Installing wheels in tests: the usual arguments, and the result as files on disk."""

from __future__ import annotations

import io
import sys
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from layers.compress import Codec
from layers.digest import Digest
from layers.layer import write_layer
from layers.tree import Segment
from ociforge.events import Event, Warned
from ociforge.platform import Platform
from ociforge.pypi.install import install
from ociforge.pypi.package import Installation, Interpreter, Locked, Package

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["HERE", "PYTHON", "Bench", "digest", "extract", "locked", "tar"]

SHORT = f"{sys.version_info.major}.{sys.version_info.minor}"
HERE = Interpreter(version=SHORT, site_packages=f"lib/python{SHORT}/site-packages")
PYTHON = Interpreter(version="3.12", site_packages="lib/python3.12/site-packages")


def locked(path: Path, name: str = "demo", version: str | None = "1.0", **changes: Any) -> Locked:
    """The row of a file on disk."""
    return Locked(name=name, version=version, location=str(path), **changes)


@dataclass
class Bench:
    """A place to install in; `events` collects what was told."""

    directory: Path
    events: list[Event] = field(default_factory=list)
    count: int = 0

    @property
    def cache(self) -> Path:
        return self.directory / "cache"

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]

    def install(self, *rows: Locked, **changes: Any) -> Installation:
        """`install` with a new staging directory."""
        self.count += 1
        staging = self.directory / f"staging-{self.count}"
        staging.mkdir(parents=True)
        arguments: dict[str, Any] = {
            "prefix": "/app/.pixi/envs/prod",
            "python": PYTHON,
            "platform": Platform.parse("linux/amd64"),
            "root": self.directory,
            "workdir": "/app",
            "cache": self.cache,
            "staging": staging,
            "notify": self.events.append,
        }
        return install(rows, **(arguments | changes))

    def one(self, row: Locked, **changes: Any) -> Package:
        """The package of a single row."""
        (package,) = self.install(row, **changes).packages
        return package


def tar(packages: Iterable[Package]) -> bytes:
    """The packages as one uncompressed layer."""
    sink = io.BytesIO()
    write_layer([Segment(package.name, package.entries) for package in packages], sink, Codec.parse("none"))
    return sink.getvalue()


def extract(installation: Installation, root: Path) -> Path:
    """Unpack all packages below `root`, with Python's tarfile; the winners of overrides come last."""
    for local in (False, True):
        with tarfile.open(fileobj=io.BytesIO(tar(p for p in installation.packages if p.local is local))) as archive:
            archive.extractall(root, filter="tar")
    return root


def digest(path: Path) -> Digest:
    """What a lock says of the file."""
    return Digest.of(path.read_bytes())
