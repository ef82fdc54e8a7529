"""Which wheels a declared platform and the locked python can use, told by tags: nothing is asked of this machine."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from packaging.tags import compatible_tags, cpython_tags, mac_platforms
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from packaging.tags import Tag

    from ociforge.workspace.platforms import WorkspacePlatform

__all__ = ["fits", "is_free_threaded", "supported_tags"]

_LINUX: Final = {
    "linux-32": "i686", "linux-64": "x86_64", "linux-aarch64": "aarch64", "linux-armv7l": "armv7l",
    "linux-ppc64le": "ppc64le", "linux-ppc64": "ppc64", "linux-s390x": "s390x", "linux-riscv64": "riscv64",
}  # fmt: skip
_MAC: Final = {"osx-64": "x86_64", "osx-arm64": "arm64"}
_WINDOWS: Final = {"win-32": "win32", "win-64": "win_amd64", "win-arm64": "win_arm64"}
# The lowest glibc 2.x of a manylinux tag: PEP 513 for the x86 family, PEP 599 for those it added, later ones since
# the architecture came to be (as in uv's platform tags).
_LOWEST_GLIBC: Final = {"x86_64": 5, "i686": 5, "riscv64": 31}
_LEGACY: Final = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  # by glibc 2.x
_FREE_THREADED: Final = re.compile(r"cp\d{3}t")


def is_free_threaded(depends: Iterable[str]) -> bool:
    """Whether a python record is a build without the GIL: it depends on a `python_abi` such as `*_cp313t`."""
    return any(text.partition(" ")[0] == "python_abi" and _FREE_THREADED.search(text) for text in depends)


def supported_tags(platform: WorkspacePlatform, python: str, *, free_threaded: bool = False) -> frozenset[Tag] | None:
    """The tags of wheels that fit, or None when that cannot be told: a foreign subdir, libc or version."""
    versions = {package.name: package.version for package in platform.virtual_packages}
    libc = next((f"{name} {versions[name]}" for name in ("__musl", "__eglibc", "__glibc") if name in versions), "")
    return _supported(platform.subdir, libc, versions.get("__osx", ""), python, free_threaded)


def fits(file_name: str, tags: frozenset[Tag] | None) -> bool:
    """Whether a wheel has one of the tags; files that are no wheels, and unknown tags, fit anything."""
    if tags is None or not file_name.endswith(".whl"):
        return True
    try:
        return not parse_wheel_filename(file_name)[3].isdisjoint(tags)
    except InvalidWheelFilename:
        return True


@lru_cache(maxsize=64)
def _supported(subdir: str, libc: str, osx: str, python: str, free_threaded: bool) -> frozenset[Tag] | None:
    version = _major_minor(python)
    platforms = list(_platforms(subdir, libc, osx))
    if version is None or not platforms:
        return None
    interpreter = f"cp{version[0]}{version[1]}"
    abi = interpreter + ("t" if free_threaded else "") + ("m" if version < (3, 8) else "")
    own = cpython_tags(version, [abi], platforms)
    return frozenset(own) | frozenset(compatible_tags(version, interpreter, platforms))


def _major_minor(text: str) -> tuple[int, int] | None:
    try:
        version = Version(text)
    except InvalidVersion:
        return None
    return version.major, version.minor


def _platforms(subdir: str, libc: str, osx: str) -> Iterator[str]:
    if subdir in _WINDOWS:
        yield _WINDOWS[subdir]
    elif subdir in _MAC and (version := _major_minor(osx)) is not None:
        yield from mac_platforms(version, _MAC[subdir])
    elif subdir in _LINUX:
        family, _, text = libc.partition(" ")
        version = _major_minor(text)
        if version is not None:
            yield from _linux_platforms(_LINUX[subdir], family, version)


def _linux_platforms(machine: str, family: str, libc: tuple[int, int]) -> Iterator[str]:
    kind, lowest = ("musllinux", 0) if family == "__musl" else ("manylinux", _LOWEST_GLIBC.get(machine, 17))
    for minor in range(libc[1], lowest - 1, -1):
        yield f"{kind}_{libc[0]}_{minor}_{machine}"
        if kind == "manylinux" and libc[0] == 2 and minor in _LEGACY:
            yield f"{_LEGACY[minor]}_{machine}"
    yield f"linux_{machine}"
