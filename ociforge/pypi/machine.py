"""The machine that PyPI packages are resolved for: its Python, its platform, its wheel tags. Never the one we run on.

Locks are made for every platform of a workspace, so macOS and Windows are here too, though no image is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from packaging.tags import compatible_tags, cpython_tags, mac_platforms
from packaging.version import InvalidVersion, Version

from ociforge.errors import SolveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self

    from packaging.tags import Tag

__all__ = ["Machine"]

_MACHINES: Final = {
    "linux-64": "x86_64",
    "linux-aarch64": "aarch64",
    "linux-ppc64le": "ppc64le",
    "linux-riscv64": "riscv64",
    "linux-s390x": "s390x",
    "osx-64": "x86_64",
    "osx-arm64": "arm64",
    "win-64": "AMD64",
    "win-arm64": "ARM64",
}
_MANYLINUX: Final = (17, 28, *range(31, 41))  # minor versions of glibc that `uv pip compile --python-platform` knows
_LEGACY: Final = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  # the names before PEP 600
_TRIPLES: Final = {
    "osx-64": "x86_64-apple-darwin",
    "osx-arm64": "aarch64-apple-darwin",
    "win-64": "x86_64-pc-windows-msvc",
    "win-arm64": "aarch64-pc-windows-msvc",
    "linux-riscv64": "riscv64-unknown-linux",
}


class Machine(Struct, frozen=True, kw_only=True):
    """A Python on a platform.

    `version` is PEP 440, such as `3.12.4`; `system` the version of macOS or of the C library, which is glibc or `musl`.
    """

    subdir: str
    version: str
    system: str
    musl: bool = False

    @classmethod
    def of(cls, *, subdir: str, virtual_packages: Mapping[str, str], python: tuple[str, str], abi: str | None) -> Self:
        """What an environment declares and holds.

        `virtual_packages`: name -> version. `python`: version and build of the conda package, `abi` the build of
        `python_abi` when there is one. Raises SolveError for what uv cannot resolve for.
        """
        version, build = python
        kind = abi if abi is not None else build
        if "pypy" in kind or "graalpy" in kind or re.search(r"cp3\d+t(?:_|$)", kind):
            raise SolveError(
                f"PyPI packages cannot be resolved for the Python `{version} {kind}`: only for CPython with the GIL",
                "lock this environment with pixi",
            )
        if subdir not in _MACHINES:
            raise SolveError(f"PyPI packages cannot be resolved for `{subdir}`", "lock this environment with pixi")
        try:
            parsed = Version(version)
        except InvalidVersion as error:
            raise SolveError(f"`{version}` is no version of Python that PyPI packages can be resolved for") from error
        musl = "__musl" in virtual_packages
        names = ("__osx",) if subdir.startswith("osx-") else ("__musl", "__eglibc", "__glibc")
        system = next((virtual_packages[name] for name in names if name in virtual_packages), "")
        return cls(subdir=subdir, version=str(parsed), system=system, musl=musl)

    @property
    def architecture(self) -> str:
        """What `platform.machine()` says there."""
        return _MACHINES[self.subdir]

    @property
    def uv_platform(self) -> str:
        """The value for `--python-platform`: the newest that promises no more than the machine has."""
        if self.subdir in _TRIPLES:
            return _TRIPLES[self.subdir]
        if self.musl and self.architecture in ("x86_64", "aarch64"):
            return f"{self.architecture}-unknown-linux-musl"
        minor = self._libc_minor()
        known = [candidate for candidate in _MANYLINUX if candidate <= minor]
        if self.architecture not in ("x86_64", "aarch64") or not known:
            raise SolveError(
                f"PyPI packages cannot be resolved for `{self.subdir}` with {self.libc}: uv has none such",
                "lock this environment with pixi",
            )
        return f"{self.architecture}-manylinux_2_{known[-1]}"

    def tags(self) -> tuple[Tag, ...]:
        """The tags of wheels that fit, best first."""
        release = Version(self.version).release
        version = (release[0], release[1] if len(release) > 1 else 0)
        short = f"cp{version[0]}{version[1]}"
        platforms = list(self._platforms())
        return (
            *cpython_tags(version, abis=[short], platforms=platforms),
            *compatible_tags(version, interpreter=short, platforms=platforms),
        )

    def _platforms(self) -> Iterable[str]:
        if self.subdir.startswith("osx-"):
            release = (*Version(self.system).release, 0)
            return mac_platforms((release[0], release[1]), self.architecture)
        if self.subdir.startswith("win-"):
            return [f"win_{self.architecture.lower()}"]
        minor = self._libc_minor()
        return _musllinux(self.architecture, minor) if self.musl else _manylinux(self.architecture, minor)

    @property
    def libc(self) -> str:
        """The C library as messages name it."""
        return f"{'musl' if self.musl else 'glibc'} {self.system}"

    def _libc_minor(self) -> int:
        match = re.fullmatch(rf"{1 if self.musl else 2}\.([0-9]{{1,3}})(?:\.[0-9]+)*", self.system, re.ASCII)
        if match is None:
            raise SolveError(f"PyPI packages cannot be resolved for `{self.subdir}` with {self.libc}: no such version")
        return int(match[1])


def _manylinux(machine: str, minor: int) -> Iterator[str]:
    """Platform tags for a glibc, best first."""
    for version in range(minor, 4 if machine == "x86_64" else 16, -1):
        yield f"manylinux_2_{version}_{machine}"
        if version in _LEGACY:
            yield f"{_LEGACY[version]}_{machine}"
    yield f"linux_{machine}"


def _musllinux(machine: str, minor: int) -> Iterator[str]:
    yield from (f"musllinux_1_{version}_{machine}" for version in range(minor, -1, -1))
    yield f"linux_{machine}"
