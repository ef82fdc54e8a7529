"""Which wheels fit an interpreter on a platform (PyPA specification "Platform compatibility tags").

Computed from the environment that is built, never from the machine that builds.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from ociforge.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from packaging.tags import Tag
    from packaging.version import Version

    from ociforge.platform import Platform
    from ociforge.pypi.package import Interpreter

__all__ = ["Filename", "Target"]

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}
# The names that came before PEP 600, by minor version of glibc.
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_OLDEST = {"x86_64": 5}  # minor version of glibc; 17 for all other machines


class Filename(Struct, frozen=True, kw_only=True):
    """A wheel's file name, taken apart; `name` is normalised. `parse` and `str` are inverse."""

    text: str
    name: str
    version: Version
    tags: frozenset[Tag]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises PackageError when `text` is no wheel's name."""
        try:
            name, version, _, tags = parse_wheel_filename(text)
        except InvalidWheelFilename as error:
            raise PackageError(
                f"`{text}` is no name of a wheel: expected `name-version-python-abi-platform.whl`"
            ) from error
        return cls(text=text, name=name, version=version, tags=tags)

    def __str__(self) -> str:
        return self.text

    @property
    def pure(self) -> bool:
        """Whether the wheel is for any platform."""
        return all(tag.platform == "any" for tag in self.tags)


class Target(Struct, frozen=True, kw_only=True):
    """What wheels must fit; `str` describes it."""

    python: Interpreter
    platform: Platform
    glibc: str
    tags: frozenset[Tag]

    @classmethod
    def of(cls, python: Interpreter, platform: Platform, glibc: str) -> Self:
        """`glibc` is the version that the environment declares, such as `2.28`; PackageError for any other text."""
        match = re.fullmatch(r"2\.([0-9]{1,3})(?:\.[0-9]+)*", glibc, re.ASCII)
        if match is None:
            raise PackageError(f"`{glibc}` is no version of glibc: expected one such as `2.28`")
        version = tuple(int(part) for part in python.version.split("."))
        platforms = list(_platforms(_MACHINES[platform.architecture], int(match[1])))
        own = cpython_tags(version, abis=[python.abi], platforms=platforms)
        generic = compatible_tags(version, interpreter=f"cp{python.version.replace('.', '')}", platforms=platforms)
        return cls(python=python, platform=platform, glibc=glibc, tags=frozenset((*own, *generic)))

    def __str__(self) -> str:
        threads = "free-threaded " if self.python.free_threaded else ""
        return f"{threads}Python {self.python.version} on `{self.platform}` with glibc {self.glibc}"

    def fits(self, filename: Filename) -> bool:
        """Whether a wheel of that name can be installed."""
        return not self.tags.isdisjoint(filename.tags)

    def check(self, filename: Filename) -> None:
        """Raises PackageError when it cannot."""
        if not self.fits(filename):
            listed = ", ".join(f"`{tag}`" for tag in sorted(map(str, filename.tags)))
            raise PackageError(
                f"`{filename}` does not fit {self}: it is for {listed}",
                "lock the environment again for this platform, Python and glibc",
            )


def _platforms(machine: str, glibc: int) -> Iterator[str]:
    """Platform tags (PEP 600), best first."""
    for minor in range(glibc, _OLDEST.get(machine, 17) - 1, -1):
        yield f"manylinux_2_{minor}_{machine}"
        if minor in _LEGACY:
            yield f"{_LEGACY[minor]}_{machine}"
    yield f"linux_{machine}"
