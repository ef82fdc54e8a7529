"""What the lock says about a PyPI package, and what becomes of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.errors import PackageError

if TYPE_CHECKING:
    from typing import Self

    from layers.digest import Digest
    from layers.entry import Entry

__all__ = ["Conflict", "Installation", "Interpreter", "Locked", "Package"]


class Locked(Struct, frozen=True, kw_only=True):
    """A row of the lock.

    `location` is a URL (`https://…`, `direct+https://…`, `git+https://…?…#commit`, `file:///…`) or a path relative to
    the workspace, of a wheel, a source distribution or a source tree. `version` is None for a source tree whose version
    is dynamic. `editable` is what the manifest asks for: the lock does not tell.
    """

    name: str
    location: str
    version: str | None = None
    sha256: Digest | None = None
    editable: bool = False


class Interpreter(Struct, frozen=True, kw_only=True):
    """The environment's CPython: `version` is `major.minor`, `site_packages` relative to the prefix."""

    version: str
    site_packages: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `3.12 lib/python3.12/site-packages`, as the conda side of the environment states it."""
        match = re.fullmatch(r"(3\.[0-9]{1,3}) (\S+)", text, re.ASCII)
        if match is None:
            raise PackageError(f"`{text}` is no interpreter: expected one such as `3.12 lib/python3.12/site-packages`")
        return cls(version=match[1], site_packages=match[2])

    @property
    def free_threaded(self) -> bool:
        """Whether it is built without the GIL, which the directory tells (CEP 17)."""
        return f"python{self.version}t" in self.site_packages.split("/")

    @property
    def abi(self) -> str:
        """The ABI tag of wheels for it alone, such as `cp312`."""
        return f"cp{self.version.replace('.', '')}{'t' if self.free_threaded else ''}"

    @property
    def executable(self) -> str:
        """Below the prefix; the name that noarch conda packages put into their scripts too."""
        return f"bin/python{self.version}"

    @property
    def include(self) -> str:
        """Where C headers go, below the prefix."""
        return f"include/python{self.version}{'t' if self.free_threaded else ''}"


class Package(Struct, frozen=True, kw_only=True):
    """A wheel at the prefix: everything that its layer holds.

    `name` is normalised. `sha256` and `size` (bytes) are those of the wheel, which may have been built here. `record`
    is the digest of what its metadata takes from the lock's row: together with `sha256`, prefix, interpreter and mtime
    it settles the entries. `pure`: the wheel is for any platform. `local`: built from a source tree of this machine, so
    that it changes with the workspace. `entries` are sorted by path component and hold every directory from the prefix
    down that the package needs; paths lost to another package are left out.
    """

    name: str
    version: str
    filename: str
    sha256: Digest
    size: int
    record: Digest
    pure: bool
    local: bool
    entries: tuple[Entry, ...]


class Conflict(Struct, frozen=True, kw_only=True, order=True):
    """Several packages provide `path` (relative to the prefix): `winner`'s is used.

    `differs` says whether a loser's content is another one than the winner's.
    """

    path: str
    winner: str
    losers: tuple[str, ...]
    differs: bool


class Installation(Struct, frozen=True, kw_only=True):
    """All wheels of an environment, by name; `conflicts` and `overrides` are sorted by path.

    `conflicts` are among packages of one standing (locked ones, or those built from the workspace): the losers'
    entries leave out the path, so winner and losers must share a layer. `overrides` hide a path of what lies below,
    whose own entries stay as they are: a wheel hides a conda package's file, one built from the workspace also that of
    a locked wheel. So layers of wheels come above those of conda packages, and local ones above all.
    """

    packages: tuple[Package, ...]
    conflicts: tuple[Conflict, ...]
    overrides: tuple[Conflict, ...]
