"""PEP 508 markers, decided for a target platform and the locked python, never for this machine."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from packaging.markers import Marker, UndefinedComparison
from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Markers", "marker_environment", "parse_marker"]

# sys_platform, platform_system, os_name by the system of a subdir
_SYSTEMS: Final = {
    "linux": ("linux", "Linux", "posix"),
    "osx": ("darwin", "Darwin", "posix"),
    "win": ("win32", "Windows", "nt"),
}
_MACHINES: Final = {
    "linux-32": "i386", "linux-64": "x86_64", "linux-aarch64": "aarch64", "linux-armv6l": "armv6l",
    "linux-armv7l": "armv7l", "linux-ppc64le": "ppc64le", "linux-ppc64": "ppc64", "linux-s390x": "s390x",
    "linux-riscv32": "riscv32", "linux-riscv64": "riscv64", "osx-64": "x86_64", "osx-arm64": "arm64",
    "win-32": "x86", "win-64": "AMD64", "win-arm64": "ARM64",
}  # fmt: skip


def marker_environment(subdir: str, python: str) -> dict[str, str]:
    """The variables of PEP 508 for a subdir and a CPython version, as pixi sets them (crate pypi_modifiers).

    Raises ValueError when no Python of that kind can be told apart by markers.
    """
    if subdir not in _MACHINES:
        raise ValueError(f"PyPI packages know no platform `{subdir}`")
    try:
        version = Version(python)
    except InvalidVersion as error:
        raise ValueError(f"`{python}` is no version of Python") from error
    sys_platform, system, os_name = _SYSTEMS[subdir.partition("-")[0]]
    return {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": os_name,
        "platform_machine": _MACHINES[subdir],
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": system,
        "platform_version": "",
        "python_full_version": python,
        "python_version": f"{version.major}.{version.minor}",
        "sys_platform": sys_platform,
    }


@lru_cache(maxsize=65_536)
def parse_marker(text: str) -> Marker:
    """A marker; raises `packaging.markers.InvalidMarker`."""
    return Marker(text)


class Markers:
    """Markers in one environment; each is decided once per set of extras."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self._known: dict[tuple[str, str], bool] = {}

    def hold(self, text: str | None, extras: Iterable[str] = ()) -> bool:
        """Whether a marker (None is no condition) holds when any of `extras` is asked for."""
        return text is None or any(self._holds(text, extra) for extra in tuple(extras) or ("",))

    def _holds(self, text: str, extra: str) -> bool:
        known = self._known.get((text, extra))
        if known is None:
            known = self._known[text, extra] = _evaluate(parse_marker(text), {**self.environment, "extra": extra})
        return known


def _evaluate(marker: Marker, environment: dict[str, str]) -> bool:
    """A comparison without meaning (`platform_release >= "5"`, whose value nobody knows) is false, as for uv."""
    try:
        return marker.evaluate(environment)
    except (InvalidVersion, UndefinedComparison):
        return False
