"""Packages: conda records turned into entries at the prefix, with the facts that other stages need of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from layers.digest import Digest
    from layers.entry import Entry

__all__ = ["Activation", "Conflict", "Installation", "Package"]


class Activation(Struct, frozen=True, kw_only=True):
    """What packages ask to happen when the environment is activated. Paths are relative to the prefix.

    `scripts`: `etc/conda/activate.d/*.sh`, sorted. `variables`: (path, JSON text) of each file of
    `etc/conda/env_vars.d`, sorted. `state`: the JSON text of `conda-meta/state`.
    """

    scripts: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    state: str | None = None

    @classmethod
    def merge(cls, parts: Iterable[Activation]) -> Self:
        """What all `parts` ask for together, whatever their order."""
        parts = tuple(parts)
        return cls(
            scripts=tuple(sorted(script for part in parts for script in part.scripts)),
            variables=tuple(sorted(pair for part in parts for pair in part.variables)),
            state=min((part.state for part in parts if part.state is not None), default=None),
        )


class Package(Struct, frozen=True, kw_only=True):
    """A conda package at the prefix: everything that its layer holds.

    `sha256` and `size` (bytes) are those of the archive. `entries` are in writing order: every directory from the
    prefix down that the package needs, its files in the archive's order, entry points, its `conda-meta` record; paths
    lost to another package are left out.
    """

    name: str
    version: str
    build: str
    subdir: str
    sha256: Digest
    size: int
    noarch_python: bool
    entries: tuple[Entry, ...]
    activation: Activation = Activation()


class Conflict(Struct, frozen=True, kw_only=True, order=True):
    """Several packages provide `path` (relative to the prefix): `winner`'s is used.

    `differs` says whether a loser's content is another one than the winner's.
    """

    path: str
    winner: str
    losers: tuple[str, ...]
    differs: bool


class Installation(Struct, frozen=True, kw_only=True):
    """An environment laid out in a staging directory.

    `packages` are sorted by name, `conflicts` by path. `python` is what noarch packages depend on: `major.minor` of the
    environment's interpreter and its site-packages directory, below the prefix; None without one. File contents are
    read from the staging directory, which must stay until the last layer is written.
    """

    packages: tuple[Package, ...]
    conflicts: tuple[Conflict, ...]
    python: str | None

    @property
    def activation(self) -> Activation:
        """What all packages together ask of activation."""
        return Activation.merge(package.activation for package in self.packages)
