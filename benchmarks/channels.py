"""Channels of real packages: wheels of PyPI and the interpreter that runs this, converted, and kept between runs.

Nothing of the packages is ever run, so what matters is that sizes, numbers of files and kinds of content are those of a
real environment. `pins.txt` names every wheel, so that the environments are the same whenever they are made.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from tests.support import channel, conda, python, wheels
from tests.support.cache import cached, fingerprint
from tests.support.channel import Channel, write_channel
from tests.support.conda import Archive, Regular, binary
from tests.support.python import python_archive
from tests.support.tools import missing
from tests.support.wheels import Wheel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.conda import CondaPackage, FileLike

__all__ = ["SCI", "SUBDIRS", "WEB", "Contents", "load_channel", "wheel_channel"]

SUBDIRS = ("linux-64", "linux-aarch64")

_PINS = Path(__file__).with_name("pins.txt")
_GLIBC = ("2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")  # manylinux tags that a current distribution can use
_MACHINES = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}
# PyPI's torch for x86-64 wants CUDA's libraries; that for aarch64 is what a CPU build is, in size and in files.
_CPU_ONLY = {"torch": "linux-aarch64"}
_LARGE = 200 << 10  # 200 KiB: extension modules from here on may hold the prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a channel is made of: `names` of pinned wheels (None: all); `changing` is there in two builds."""

    name: str
    names: frozenset[str] | None
    changing: str


SCI = Contents(name="sci", names=None, changing="scipy")
WEB = Contents(
    name="web",
    names=frozenset(
        {
            *("annotated-doc", "annotated-types", "anyio", "click", "fastapi", "h11", "idna", "numpy", "pydantic"),
            *("opentelemetry-api", "pydantic-core", "starlette", "typing-extensions", "typing-inspection", "uvicorn"),
        }
    ),
    changing="numpy",
)


def wheel_channel(contents: Contents) -> Channel:
    """The channel, made when it is not there yet: minutes. Skips where PyPI is not reached.

    It has the packages of both platforms, `python` for the other one being that of this one under another name. It lies
    below the cache directory of the tests and may be deleted at any time.
    """
    sources = (Path(module.__file__ or "") for module in (channel, conda, python, wheels))
    key = fingerprint(_PINS, Path(__file__), *sources, sys.version, contents.name)
    return load_channel(cached(f"channel-{contents.name}-{key}", lambda directory: _make(directory, contents)))


def load_channel(root: Path) -> Channel:
    """A channel that `write_channel` left on disk."""
    archives = [
        Archive(path=root / subdir / filename, subdir=subdir, record=record)
        for subdir in sorted(path.parent.name for path in root.glob("*/repodata.json"))
        for filename, record in json.loads((root / subdir / "repodata.json").read_text())["packages.conda"].items()
    ]
    return Channel(path=root, url=root.absolute().as_uri() + "/", archives=tuple(archives))


def _make(directory: Path, contents: Contents) -> None:
    pins = [pin for pin in _PINS.read_text().split() if contents.names is None or _name(pin) in contents.names]
    downloads = directory / "downloads"
    interpreter = python_archive()
    pythons = [replace(interpreter, subdir=s, record={**interpreter.record, "subdir": s}) for s in SUBDIRS]
    write_channel(directory, (*pythons, *_Converter(pins=pins, changing=contents.changing, downloads=downloads)))
    downloads.rmdir()


def _name(pin: str) -> str:
    return canonicalize_name(pin.partition("==")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Converter:
    """Conda packages of pinned wheels, one at a time: some fill a gigabyte of memory."""

    pins: Sequence[str]
    changing: str
    downloads: Path

    def __iter__(self) -> Iterator[CondaPackage]:
        pure: set[str] = set()
        for subdir in SUBDIRS:
            for path in self._wheels(subdir):
                if path.name not in pure:
                    yield from self._builds(path, subdir)
                if path.name.endswith("-none-any.whl"):
                    pure.add(path.name)
                path.unlink()

    def _wheels(self, subdir: str) -> list[Path]:
        """Downloads what `subdir` installs."""
        for source in SUBDIRS:
            pins = [pin for pin in self.pins if _CPU_ONLY.get(_name(pin), subdir) == source]
            if pins:
                _download(pins, source, self.downloads)
        return sorted(self.downloads.iterdir())

    def _builds(self, path: Path, subdir: str) -> Iterator[CondaPackage]:
        """The package, and another build of it if it is the one that changes."""
        package = self._package(path, subdir)
        yield package
        if package.name == self.changing:
            again = {f"share/{package.name}/build.txt": b"another build\n"}
            yield replace(package, build=f"{package.build[:-1]}1", build_number=1, files={**package.files, **again})

    def _package(self, path: Path, subdir: str) -> CondaPackage:
        package = Wheel.read(path).package()
        known = {_name(pin) for pin in self.pins} | {"python"}
        depends = {spec: spec.partition(" ")[0] in known for spec in package.depends}
        assert all(depends.values()) or package.name in _CPU_ONLY, (package.name, depends)
        files = {**package.files, **_data(path)}
        return replace(
            package,
            subdir=subdir,
            files=files if package.noarch else _with_prefix(files),
            depends=tuple(spec for spec, found in depends.items() if found),
        )


def _download(pins: Sequence[str], subdir: str, target: Path) -> None:
    platforms = [f"--platform=manylinux_{glibc}_{_MACHINES[subdir]}" for glibc in _GLIBC]
    platforms += [f"--platform=manylinux2014_{_MACHINES[subdir]}", f"--platform=linux_{_MACHINES[subdir]}"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *platforms]
    done = subprocess.run([*command, f"--dest={target}", *pins], capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"`pip download` of the pinned wheels failed: {done.stderr.strip().splitlines()[-1:]}")


def _data(path: Path) -> dict[str, FileLike]:
    """What a wheel puts into the prefix itself, such as `share` and `etc`."""
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if not name.endswith("/")]
        parted = {name: name.partition(".data/data/") for name in members}
        return {rest: archive.read(name) for name, (top, _, rest) in parted.items() if rest and "/" not in top}


def _with_prefix(files: dict[str, FileLike]) -> dict[str, FileLike]:
    """`files` with the build prefix in the first large extension module, as programs linked with OpenSSL have it."""
    for path, file in sorted(files.items()):
        if isinstance(file, Regular) and file.executable and len(file.content) >= _LARGE:
            return files | {path: replace(file, content=file.content + binary(), placeholder="binary")}
    return files
