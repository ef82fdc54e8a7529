"""Conda packages converted from wheels of PyPI, as a recipe that runs `pip install` makes them."""

from __future__ import annotations

import configparser
import email
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import conda, python
from tests.support.cache import cached, fingerprint
from tests.support.conda import PLACEHOLDER, Archive, CondaPackage, Regular
from tests.support.python import SHORT, SITE_PACKAGES, SUBDIR, load_archive, store_archive, with_bytecode
from tests.support.tools import missing

if TYPE_CHECKING:
    from email.message import Message

    from tests.support.conda import FileLike

__all__ = ["NUMPY", "WEB", "Wheel", "wheel_archives"]

# What the test environments ask for; pip finds the rest.
WEB = ("uvicorn>=0.34", "fastapi>=0.115")
NUMPY = ("numpy>=2",)

_MTIME = 1_704_164_645


def wheel_archives(requirements: tuple[str, ...]) -> tuple[Archive, ...]:
    """Conda packages of `requirements` and all they need, cached between runs; skips where PyPI is not reached."""
    key = fingerprint(Path(__file__), Path(conda.__file__), Path(python.__file__), sys.version, *requirements)
    root = cached(f"wheels-{key}", lambda directory: _make(directory, requirements))
    return tuple(load_archive(directory) for directory in sorted(root.iterdir()))


def _make(directory: Path, requirements: tuple[str, ...]) -> None:
    downloads = directory / "downloads"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(downloads)]
    done = subprocess.run([*command, "--retries=1", *requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"`pip download {' '.join(requirements)}` failed: {done.stderr.strip().splitlines()[-1:]}")
    for path in sorted(downloads.iterdir()):
        package = Wheel.read(path).package()
        store_archive(package, directory / package.name)
        path.unlink()
    downloads.rmdir()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel's content: path -> bytes in site-packages and in `bin`, and what its metadata says."""

    metadata: Message
    pure: bool
    entry_points: tuple[str, ...]
    site_packages: dict[str, bytes]
    scripts: dict[str, bytes]

    @classmethod
    def read(cls, path: Path) -> Wheel:
        """Read the wheel at `path`."""
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
        info = next(name.partition("/")[0] for name in members if name.endswith(".dist-info/WHEEL"))
        members[f"{info}/INSTALLER"] = b"conda\n"
        data = f"{info.removesuffix('.dist-info')}.data/"
        site_packages = {
            re.sub(rf"^{re.escape(data)}(purelib|platlib)/", "", name): content
            for name, content in members.items()
            if not name.startswith((f"{data}scripts", f"{data}data", f"{data}headers"))
        }
        return cls(
            metadata=email.message_from_bytes(members[f"{info}/METADATA"]),
            pure=b"Root-Is-Purelib: true" in members[f"{info}/WHEEL"],
            entry_points=_entry_points(members.get(f"{info}/entry_points.txt", b"").decode()),
            site_packages=site_packages,
            scripts={name.rpartition("/")[2]: data_ for name, data_ in members.items() if f"{data}scripts/" in name},
        )

    def package(self) -> CondaPackage:
        """The conda package: noarch for pure Python, else one for this interpreter, with bytecode."""
        name = canonicalize_name(self.metadata["Name"])
        depends = tuple(sorted(_depends(self.metadata)))
        return CondaPackage(
            name=name,
            version=self.metadata["Version"],
            build="pyhd8ed1ab_0" if self.pure else f"py{SHORT.replace('.', '')}h0123456_0",
            subdir=SUBDIR,
            noarch="python" if self.pure else None,
            depends=depends if self.pure else tuple(sorted({*depends, f"python {SHORT}.*"} - {"python"})),
            files=self._noarch_files() if self.pure else self._arch_files(),
            entry_points=self.entry_points if self.pure else (),
            license=self.metadata["License-Expression"],
            purls=(f"pkg:pypi/{name}",),
            mtime=_MTIME,
        )

    def _noarch_files(self) -> dict[str, FileLike]:
        files: dict[str, FileLike] = {f"site-packages/{name}": content for name, content in self.site_packages.items()}
        return files | {f"python-scripts/{name}": _script(content) for name, content in self.scripts.items()}

    def _arch_files(self) -> dict[str, FileLike]:
        files: dict[str, FileLike] = {
            f"{SITE_PACKAGES}/{name}": Regular(content=content, executable=".so" in name.rpartition("/")[2])
            for name, content in self.site_packages.items()
        }
        scripts = {name: _script(content) for name, content in self.scripts.items()}
        for entry_point in self.entry_points:
            name, module, function = re.split(r"\s*[=:]\s*", entry_point)
            scripts[name] = _script(_ENTRY_POINT.format(module=module, function=function).encode())
        return with_bytecode(files | {f"bin/{name}": script for name, script in scripts.items()}, _MTIME)


_ENTRY_POINT = "#!python\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"


def _script(content: bytes) -> Regular:
    """A script whose `#!python` becomes the interpreter of the build prefix."""
    shebang = f"#!{PLACEHOLDER}/bin/python{SHORT}".encode()
    return Regular(content=re.sub(rb"^#!python\S*", shebang, content), executable=True, placeholder="text")


def _entry_points(text: str) -> tuple[str, ...]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    parser.read_string(text)
    return tuple(f"{name} = {target}" for name, target in _section(parser) if "[" not in target)


def _section(parser: configparser.ConfigParser) -> list[tuple[str, str]]:
    return parser.items("console_scripts") if parser.has_section("console_scripts") else []


def _depends(metadata: Message) -> set[str]:
    """The wheel's requirements on this interpreter, without extras, as conda match specs."""
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist") or []]
    needed = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    specs = {f"{canonicalize_name(r.name)} {r.specifier}".strip() for r in needed}
    return specs | {f"python {metadata['Requires-Python'] or ''}".strip()}
