"""`pixi.lock` texts (format 7) out of a few words, for the tests of the check."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FORGE", "Conda", "Pypi", "lock"]

FORGE = "https://conda.anaconda.org/conda-forge/"


@dataclass(frozen=True, kw_only=True)
class Conda:
    """A binary conda row; `more` are further YAML keys with JSON values."""

    name: str
    version: str = "1.0"
    build: str = "0"
    subdir: str = "linux-64"
    depends: tuple[str, ...] = ()
    channel: str = FORGE
    more: Mapping[str, object] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"conda: {self.channel}{self.subdir}/{self.name}-{self.version}-{self.build}.conda"

    def row(self) -> list[str]:
        digest = hashlib.sha256(self.key.encode()).hexdigest()
        more = [f"  {key}: {json.dumps(value)}" for key, value in self.more.items()]
        return [f"- {self.key}", f"  sha256: {digest}", f"  depends: {json.dumps(self.depends)}", *more]


@dataclass(frozen=True, kw_only=True)
class Pypi:
    """A PyPI row."""

    name: str
    version: str | None = "1.0"
    location: str | None = None
    requires: tuple[str, ...] = ()
    more: Mapping[str, object] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"pypi: {self.location or f'https://files.pythonhosted.org/{self.name}-{self.version}-py3-none-any.whl'}"

    def row(self) -> list[str]:
        found = [f"- {self.key}", f"  name: {self.name}"]
        found += [] if self.version is None else [f"  version: {json.dumps(self.version)}"]
        found += [f"  requires_dist: {json.dumps(self.requires)}"] if self.requires else []
        return found + [f"  {key}: {json.dumps(value)}" for key, value in self.more.items()]


def lock(
    environments: Mapping[str, Mapping[str, tuple[Conda | Pypi, ...]]],
    *,
    platforms: Mapping[str, Mapping[str, object]] | None = None,
    channels: tuple[str, ...] = (FORGE,),
    blocks: str = "",
) -> str:
    """The text; `blocks` are further lines of every environment, `platforms` those that are not mere subdirs."""
    rich = dict(platforms or {})
    names = dict.fromkeys([*(name for packages in environments.values() for name in packages), *rich])
    lines = ["version: 7", "platforms:" if names else "platforms: []"]
    for name in names:
        lines.append(f"- name: {name}")
        lines += [f"  {key}: {json.dumps(value)}" for key, value in rich.get(name, {}).items()]
    lines.append("environments:" if environments else "environments: {}")
    rows: dict[str, list[str]] = {}
    for environment, by_platform in environments.items():
        lines += [f"  {environment}:", f"    channels: {json.dumps([{'url': url} for url in channels])}"]
        lines += [f"    {line}" for line in blocks.splitlines()]
        lines.append("    packages:" if by_platform else "    packages: {}")
        for platform, packages in by_platform.items():
            lines.append(f"      {platform}:" if packages else f"      {platform}: []")
            lines += [f"      - {package.key}" for package in packages]
            rows |= {package.key: package.row() for package in packages}
    lines.append("packages:" if rows else "packages: []")
    return "\n".join([*lines, *(line for key in rows for line in rows[key])]) + "\n"
