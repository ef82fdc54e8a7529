"""Whether two markers mean the same: locks spell them in another way than people do.

pixi's lock says `python_full_version < '3.10'` where a project says `python_version < "3.10"`, orders terms anew and
drops parentheses. So both are decided for every combination of values that could make them differ.
"""

from __future__ import annotations

import itertools
import re
from typing import Final

from packaging.version import InvalidVersion, Version

from ociforge.workspace.satisfy.markers import Markers, marker_environment

__all__ = ["equivalent"]

_VARIABLE: Final = (
    "python_full_version|python_version|implementation_version|implementation_name|os_name|platform_machine"
    "|platform_python_implementation|platform_release|platform_system|platform_version|sys_platform|extra"
)
_VALUE: Final = r"(?:\"([^\"]*)\"|'([^']*)')"
_OPERATOR: Final = r"\s*(?:[<>=!~]+|not\s+in|in)\s*"
_COMPARED: Final = re.compile(rf"\b({_VARIABLE}){_OPERATOR}{_VALUE}|{_VALUE}{_OPERATOR}\b({_VARIABLE})\b")
_VERSIONS: Final = ("python_full_version", "implementation_version")
_OTHER: Final = "another"  # a value that no marker names
_LIMIT: Final = 20_000  # combinations; the markers of real projects need a few dozen


def equivalent(left: str | None, right: str | None) -> bool:
    """Whether two markers (None is no condition) hold in the same environments."""
    if left == right:
        return True
    values = _values(f"{left or ''}\n{right or ''}")
    count = 1
    for options in values.values():
        count *= len(options)
    if count > _LIMIT:
        return False
    base = marker_environment("linux-64", "3.12.0")
    return all(_agree(left, right, base | dict(zip(values, row, strict=True))) for row in _rows(values))


def _rows(values: dict[str, list[str]]) -> itertools.product[tuple[str, ...]]:
    return itertools.product(*values.values())


def _agree(left: str | None, right: str | None, environment: dict[str, str]) -> bool:
    full = Version(environment["python_full_version"])
    markers = Markers(environment | {"python_version": f"{full.major}.{full.minor}"})
    extras = (environment.get("extra", ""),)
    return markers.hold(left, extras) == markers.hold(right, extras)


def _values(text: str) -> dict[str, list[str]]:
    """The variables that markers look at, each with the values that it is compared with and some between."""
    found: dict[str, dict[str, None]] = {}
    for match in _COMPARED.finditer(text):
        before, double, single, other_double, other_single, after = match.groups()
        name = before or after
        value = next(part for part in (double, single, other_double, other_single) if part is not None)
        name = "python_full_version" if name == "python_version" else name
        options = _around(value) if name in _VERSIONS else value.replace(",", " ").split() or [value]
        found.setdefault(name, {"3.12.0" if name in _VERSIONS else _OTHER: None}).update(dict.fromkeys(options))
    return {name: list(options) for name, options in found.items()}


def _around(text: str) -> list[str]:
    """Versions at which a comparison with `text` may turn: itself, those right beside it, and its neighbours' ends."""
    found = []
    for part in text.replace(",", " ").split():
        try:
            version = Version(part.removesuffix(".*"))
        except InvalidVersion:
            continue
        major, minor, micro = version.major, version.minor, version.micro
        found += [f"{major}.{minor}.{m}" for m in (0, max(micro - 1, 0), micro, micro + 1, 99)]
        found += [f"{major}.{minor + 1}.0", f"{major}.{max(minor - 1, 0)}.99", str(version)]
    return found
