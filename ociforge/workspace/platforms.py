"""The platforms of a workspace: a conda subdir and the virtual packages that are promised there.

A *subdir platform* is named like its subdir and promises the defaults; a *rich platform* (pixi 0.71) has a
name of its own and promises more, such as a CUDA driver.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ociforge.workspace.reading import Table, describe, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

__all__ = [
    "SUBDIRS",
    "SystemRequirements",
    "VirtualPackage",
    "WorkspacePlatform",
    "compose",
    "merge_virtual_packages",
    "read_platform",
    "read_system_requirements",
    "synthesise",
    "version_key",
]

SUBDIRS: Final = (
    "linux-32", "linux-64", "linux-aarch64", "linux-armv6l", "linux-armv7l", "linux-ppc64le", "linux-ppc64",
    "linux-s390x", "linux-riscv32", "linux-riscv64", "osx-64", "osx-arm64", "win-32", "win-64", "win-arm64",
    "emscripten-wasm32", "wasi-wasm32", "zos-z",
)  # fmt: skip
_FAMILIES: Final = ("linux", "unix", "win", "osx", "macos")
_NAME_LENGTH: Final = 64  # bytes
_NAME: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+!-]*")
_LIBCS: Final = ("__glibc", "__musl", "__eglibc")

# The friendly keys of a platform entry, in the order in which they enter a synthesised name.
_FRIENDLY: Final = {
    "cuda": "__cuda",
    "archspec": "__archspec",
    "glibc": "__glibc",
    "linux": "__linux",
    "macos": "__osx",
    "windows": "__win",
}
_MICROARCHITECTURES: Final = {
    "linux-64": "x86_64", "linux-32": "x86", "linux-aarch64": "aarch64", "linux-ppc64le": "ppc64le",
    "linux-ppc64": "ppc64", "linux-s390x": "s390x", "linux-riscv32": "riscv32", "linux-riscv64": "riscv64",
    "linux-armv6l": "armv6l", "linux-armv7l": "armv7l",
    "osx-64": "x86_64", "osx-arm64": "m1", "win-64": "x86_64", "win-32": "x86", "win-arm64": "aarch64",
}  # fmt: skip


def version_key(version: str) -> tuple[int | str, ...]:
    """A key under which virtual package versions are equal when conda says so: `12` and `12.0`."""
    parts: list[int | str] = [int(p) if p.isdecimal() and len(p) < 20 else p for p in re.split(r"[._-]", version)]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _at_least(left: str, right: str) -> bool:
    """Whether version `left` is not lower than `right`; numbers sort above words."""

    def order(version: str) -> list[tuple[int, int, str]]:
        return [(1, p, "") if isinstance(p, int) else (0, 0, p) for p in version_key(version)]

    return order(left) >= order(right)


class VirtualPackage(Struct, frozen=True, kw_only=True):
    """A fact about a machine: `name` starts with `__`; `build` is empty or a build string."""

    name: str
    version: str
    build: str = ""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read `__name=version[=build]`, the way `pixi.lock` writes it; None when it is none."""
        name, _, rest = text.partition("=")
        version, _, build = rest.partition("=")
        if not name.startswith("__") or not version:
            return None
        return cls(name=name.lower(), version=version, build=build)

    @property
    def identity(self) -> tuple[str, tuple[int | str, ...], str]:
        """What makes two of them the same; an absent build string is `0`."""
        return self.name, version_key(self.version), self.build or "0"

    def __str__(self) -> str:
        return f"{self.name}={self.version}" + (f"={self.build}" if self.build not in ("", "0") else "")


def _defaults(subdir: str) -> tuple[VirtualPackage, ...]:
    """What pixi assumes about any machine of a subdir (crate pixi_default_versions)."""
    system = subdir.partition("-")[0]
    found = []
    if system in ("linux", "osx", "emscripten"):
        found.append(VirtualPackage(name="__unix", version="0", build="0"))
    if system == "linux":
        found.append(VirtualPackage(name="__linux", version="4.18"))
        found.append(VirtualPackage(name="__glibc", version="2.28"))
    if system == "win":
        found.append(VirtualPackage(name="__win", version="10.0"))
    if system == "osx":
        found.append(VirtualPackage(name="__osx", version="13.0"))
    if subdir in _MICROARCHITECTURES:
        found.append(VirtualPackage(name="__archspec", version="0", build=_MICROARCHITECTURES[subdir]))
    return tuple(found)


def merge_virtual_packages(subdir: str, declared: Iterable[VirtualPackage]) -> tuple[VirtualPackage, ...]:
    """The declared ones over the subdir's defaults; another libc replaces `__glibc`."""
    given = tuple(declared)
    names = {package.name for package in given}
    if names & set(_LIBCS):
        names |= set(_LIBCS)
    return given + tuple(default for default in _defaults(subdir) if default.name not in names)


class WorkspacePlatform(Struct, frozen=True, kw_only=True):
    """A platform that the workspace declares, or that an environment composes.

    `virtual_packages` are all that a solve may count on: the declared ones over the subdir's defaults.
    """

    name: str
    subdir: str
    virtual_packages: tuple[VirtualPackage, ...]

    @classmethod
    def of_subdir(cls, subdir: str) -> Self:
        """The platform that promises nothing but the subdir's defaults."""
        return cls(name=subdir, subdir=subdir, virtual_packages=_defaults(subdir))

    @property
    def rich(self) -> bool:
        """Whether it is more than its subdir."""
        return self.name != self.subdir

    @property
    def customised(self) -> tuple[VirtualPackage, ...]:
        """The virtual packages that differ from the subdir's defaults: the platform's identity in a lock."""
        defaults = {default.identity for default in _defaults(self.subdir)}
        return tuple(package for package in self.virtual_packages if package.identity not in defaults)

    def version(self, name: str) -> str | None:
        """The version of a virtual package such as `__glibc`, None without it."""
        return next((package.version for package in self.virtual_packages if package.name == name), None)

    def selected_by(self, selector: str) -> bool:
        """Whether `[target.SELECTOR]` applies: a family, a subdir, a platform's name, or a glob over names."""
        system = self.subdir.partition("-")[0]
        if selector == "unix":
            return system in ("linux", "osx", "emscripten")
        if selector in _FAMILIES:
            return system == ("osx" if selector == "macos" else selector)
        if selector in SUBDIRS:
            return self.subdir == selector
        return fnmatchcase(self.name, selector) if "*" in selector else self.name == selector

    def named_by(self, name: str) -> bool:
        """Whether a feature's `platforms` item means this platform: by name or by subdir."""
        return name in (self.name, self.subdir)


def synthesise(subdir: str, packages: Iterable[VirtualPackage]) -> str:
    """The name of an unnamed platform: subdir, then `-key-value` for every virtual package of its own."""
    own = {p.name: p for p in WorkspacePlatform(name="", subdir=subdir, virtual_packages=tuple(packages)).customised}
    parts = [subdir]
    for key, name in _FRIENDLY.items():
        package = own.get(name)
        if package is not None and _fits(key, package):
            del own[name]
            parts.append(f"{key}-{_segment(package.build if key == 'archspec' else package.version)}")
    for name in sorted(own):
        package = own[name]
        value = package.version if package.build in ("", "0") else f"{package.version}={package.build}"
        parts.append(f"{_segment(name)}-{_segment(value)}")
    return "-".join(parts)


def _fits(key: str, package: VirtualPackage) -> bool:
    if key == "archspec":
        return package.version == "0" and package.build not in ("", "0")
    return package.build in ("", "0")


def _segment(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")


def read_platform(value: object, table: Table, *parts: str | int) -> WorkspacePlatform | None:
    """One item of `workspace.platforms`; what is wrong with it is noted in the table's findings."""
    if isinstance(value, str):
        if value in SUBDIRS:
            return WorkspacePlatform.of_subdir(value)
        table.findings.add(table.at(*parts), f"unknown platform `{value}`{suggestion(value, SUBDIRS)}")
        return None
    if not isinstance(value, dict):
        table.findings.add(table.at(*parts), f"expected a platform or a table, got {describe(value)}")
        return None
    entry = table.enter(value, *parts)
    return None if entry is None else _read_rich(entry)


def _read_rich(entry: Table) -> WorkspacePlatform | None:
    before = len(entry.findings.messages)
    name, subdir = entry.text("name"), entry.text("platform")
    declared = [p for key, virtual in _FRIENDLY.items() for p in _read_friendly(entry, key, virtual)]
    declared += [p for key in entry.values if key.startswith("__") for p in _read_raw(entry, key)]
    entry.finish()
    _check_declared(entry, declared)
    subdir = _read_subdir(entry, name, subdir)
    if subdir is None or len(entry.findings.messages) > before:
        return None
    if name is None:
        name = synthesise(subdir, declared)
    if (why := _bad_name(name)) is not None:
        entry.findings.add(entry.crumb, why)
        return None
    if name == subdir and declared:
        entry.findings.add(entry.crumb, f"`{name}` is a subdir and cannot promise virtual packages: give it a `name`")
        return None
    return WorkspacePlatform(name=name, subdir=subdir, virtual_packages=merge_virtual_packages(subdir, declared))


def _read_subdir(entry: Table, name: str | None, subdir: str | None) -> str | None:
    given = subdir if subdir is not None else name
    if given in SUBDIRS:
        return given
    if subdir is not None:
        entry.wrong("platform", f"unknown platform `{subdir}`{suggestion(subdir, SUBDIRS)}")
    elif name is not None:
        entry.wrong("name", f"`{name}` is no subdir: set `platform` too")
    elif "name" not in entry and "platform" not in entry:
        entry.findings.add(entry.crumb, "expected `platform` or `name`")
    return None


def _bad_name(name: str) -> str | None:
    if len(name.encode()) > _NAME_LENGTH:
        return f"the platform name `{name[:_NAME_LENGTH]}…` is longer than {_NAME_LENGTH} bytes"
    if not _NAME.fullmatch(name):
        return f"`{name}` is no platform name: letters, digits and `-`, beginning with a letter"
    return f"`{name}` is a reserved platform name" if name in _FAMILIES else None


def _read_friendly(entry: Table, key: str, name: str) -> list[VirtualPackage]:
    if key == "macos" and "osx" in entry:
        if "macos" in entry:
            entry.wrong("osx", "an alias of `macos`: set only one")
        entry.ignore("macos")
        key = "osx"
    if key == "cuda" and isinstance(entry.values.get("cuda"), dict):
        return _read_cuda(entry)
    value = entry.text(key)
    if value is None:
        return []
    if key == "archspec":
        return [VirtualPackage(name=name, version="0", build=value)]
    return [VirtualPackage(name=name, version=value)] if _is_version(entry, key, value) else []


def _read_cuda(entry: Table) -> list[VirtualPackage]:
    table = entry.table("cuda")
    assert table is not None
    found = []
    for key, name in (("driver", "__cuda"), ("arch", "__cuda_arch")):
        value = table.text(key)
        if value is not None and _is_version(table, key, value):
            found.append(VirtualPackage(name=name, version=value))
    table.finish()
    return found


def _read_raw(entry: Table, key: str) -> list[VirtualPackage]:
    value = entry.text(key)
    package = None if value is None else VirtualPackage.parse(f"{key}={value}")
    if value is None or (package is not None and _is_version(entry, key, package.version)):
        return [] if package is None else [package]
    if package is None:
        entry.wrong(key, "expected `version` or `version=build`")
    return []


def _is_version(entry: Table, key: str, value: str) -> bool:
    if _VERSION.fullmatch(value):
        return True
    entry.wrong(key, f"`{value}` is no version")
    return False


def _check_declared(entry: Table, declared: Iterable[VirtualPackage]) -> None:
    names = [package.name for package in declared]
    for name in sorted({name for name in names if names.count(name) > 1}):
        entry.findings.add(entry.crumb, f"`{name}` is set twice")
    if "__cuda_arch" in names and "__cuda" not in names:
        entry.findings.add(entry.crumb, "`__cuda_arch` needs `__cuda` too")


class SystemRequirements(Struct, frozen=True, kw_only=True):
    """The deprecated `[system-requirements]`; `archspec` was never used and is not kept."""

    linux: str | None = None
    cuda: str | None = None
    macos: str | None = None
    libc: VirtualPackage | None = None

    def on(self, subdir: str) -> tuple[VirtualPackage, ...]:
        """The virtual packages they mean on a subdir."""
        system = subdir.partition("-")[0]
        wanted: list[VirtualPackage] = []
        if self.linux is not None and system == "linux":
            wanted.append(VirtualPackage(name="__linux", version=self.linux))
        if self.libc is not None and system == "linux":
            wanted.append(self.libc)
        if self.macos is not None and system == "osx":
            wanted.append(VirtualPackage(name="__osx", version=self.macos))
        if self.cuda is not None and system != "osx":
            wanted.append(VirtualPackage(name="__cuda", version=self.cuda))
        return tuple(wanted)


def read_system_requirements(table: Table | None) -> SystemRequirements | None:
    """The table, or None when it is absent or asks for nothing."""
    if table is None:
        return None
    values = {key: _read_version(table, key) for key in ("linux", "cuda", "macos")}
    table.ignore("archspec")
    libc = _read_libc(table)
    table.finish()
    found = SystemRequirements(linux=values["linux"], cuda=values["cuda"], macos=values["macos"], libc=libc)
    return None if found == SystemRequirements() else found


def _read_version(table: Table, key: str) -> str | None:
    value = table.take(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value) if isinstance(value, float) or value.bit_length() < 64 else None
    text = table.text(key)
    return text if text is not None and _is_version(table, key, text) else None


def _read_libc(table: Table) -> VirtualPackage | None:
    if not isinstance(table.values.get("libc"), dict):
        version = _read_version(table, "libc")
        return None if version is None else VirtualPackage(name="__glibc", version=version)
    inner = table.table("libc")
    assert inner is not None
    family, version = inner.text("family") or "glibc", _read_version(inner, "version")
    if "version" not in inner:
        inner.findings.add(inner.crumb, "expected `version`")
    inner.finish()
    return None if version is None else VirtualPackage(name=f"__{family.lower()}", version=version)


def compose(subdir: str, requirements: Iterable[SystemRequirements]) -> WorkspacePlatform:
    """The platform of an environment whose features have system requirements: the highest of each.

    Values equal to the subdir's default do not count, so a low `libc` is not lifted by a silent feature.
    """
    highest: dict[str, VirtualPackage] = {}
    for package in (package for requirement in requirements for package in requirement.on(subdir)):
        plain = WorkspacePlatform(name="", subdir=subdir, virtual_packages=(package,))
        known = highest.get(package.name)
        if plain.customised and (known is None or not _at_least(known.version, package.version)):
            highest[package.name] = package
    if not highest:
        return WorkspacePlatform.of_subdir(subdir)
    own = [highest[name] for name in sorted(highest)]
    return WorkspacePlatform(
        name=synthesise(subdir, own), subdir=subdir, virtual_packages=merge_virtual_packages(subdir, own)
    )
