"""Wheels of PyPI: fetched once, offered again by an index of our own, and locked as pixi locks them."""

from __future__ import annotations

import email
import hashlib
import shutil
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from tests.support.cache import cached, fingerprint
from tests.support.channel import serve
from tests.support.lock import LockedPypi
from tests.support.tools import missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from email.message import Message
    from pathlib import Path

__all__ = ["Index", "downloaded", "serve_index"]


def downloaded(*requirements: str) -> Path:
    """A directory of the wheels of `requirements` and of all they need here; skips where PyPI is not reached."""

    def download(directory: Path) -> None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--retries=1"]
        done = subprocess.run(
            [*command, "--dest", str(directory), *requirements], capture_output=True, text=True, check=False
        )
        if done.returncode:
            missing(f"`pip download {' '.join(requirements)}` failed: {done.stderr.strip().splitlines()[-1:]}")

    return cached(f"downloads-{fingerprint(sys.version, *requirements)}", download)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A running index (PEP 503) of wheels, of which there is one for each name."""

    base: str
    wheels: Mapping[str, Path]

    @property
    def url(self) -> str:
        """What `index-url` is set to."""
        return f"{self.base}simple"

    def rows(self, *requirements: str) -> tuple[LockedPypi, ...]:
        """Rows of a lock for `requirements` on this interpreter, by name."""
        found: dict[str, LockedPypi] = {}
        seen: set[tuple[str, frozenset[str]]] = set()
        queue = [Requirement(text) for text in requirements]
        while queue:
            wanted = queue.pop()
            name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
            if (name, extras) not in seen:
                seen.add((name, extras))
                found[name] = row = self._row(name)
                queue += [r for r in map(Requirement, row.requires_dist) if _holds(r, extras)]
        return tuple(found[name] for name in sorted(found))

    def _row(self, name: str) -> LockedPypi:
        path = self.wheels[name]
        metadata = _metadata(path)
        return LockedPypi(
            name=name,
            version=metadata["Version"],
            location=f"{self.base}files/{path.name}",
            sha256=_sha256(path),
            index=self.url,
            requires_dist=tuple(metadata.get_all("Requires-Dist") or ()),
            requires_python=metadata["Requires-Python"],
        )


@contextmanager
def serve_index(root: Path, wheels: Path) -> Iterator[Index]:
    """An index of the wheels in the directory `wheels`, with its files in `root`, until the block ends."""
    shutil.copytree(wheels, root / "files")
    by_name = {str(parse_wheel_filename(path.name)[0]): path for path in sorted((root / "files").iterdir())}
    for name, path in by_name.items():
        page = root / "simple" / name / "index.html"
        page.parent.mkdir(parents=True)
        link = f'<a href="../../files/{path.name}#sha256={_sha256(path)}">{path.name}</a>'
        page.write_text(f"<!DOCTYPE html><html><body>{link}</body></html>\n")
    with serve(root) as served:
        yield Index(base=served.url, wheels=by_name)


def _holds(requirement: Requirement, extras: frozenset[str]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras or {""})


def _metadata(path: Path) -> Message:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
