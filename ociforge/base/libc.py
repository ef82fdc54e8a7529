"""Which C library a base image has, and whether programs that were locked for one run there.

conda's packages bring everything but the C library, which is the base's. Its kernel is the machine's, so there is
nothing to hold `__linux` against.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from ociforge.errors import BaseImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ociforge.base.image import Base
    from ociforge.base.tree import Tree

__all__ = ["Libc", "architectures", "check_base", "libc"]

# Where programs for glibc look for their loader, as their ELF header says; with Debian's name for the machine.
_LOADERS: Final = {
    "lib64/ld-linux-x86-64.so.2": "x86_64-linux-gnu",
    "lib/ld-linux-aarch64.so.1": "aarch64-linux-gnu",
    "lib64/ld64.so.2": "powerpc64le-linux-gnu",
    "lib/ld64.so.1": "s390x-linux-gnu",
    "lib/ld-linux-riscv64-lp64d.so.1": "riscv64-linux-gnu",
}
_MUSL: Final = tuple(f"lib/ld-musl-{name}.so.1" for name in ("x86_64", "aarch64", "powerpc64le", "s390x", "riscv64"))
_ARCHITECTURES: Final = ("amd64", "arm64", "ppc64le", "s390x", "riscv64")  # OCI's names, in the order of both

_FILE: Final = re.compile(r"libc-([0-9]+\.[0-9]+)\.so")  # before 2.34 `libc.so.6` is a link to it
_BANNER: Final = re.compile(r" release version ([0-9]+(?:\.[0-9]+)+)")


class Libc(Struct, frozen=True, kw_only=True):
    """A C library; `version` is (2, 36) for glibc 2.36, None when it is not known."""

    family: Literal["glibc", "musl"]
    version: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return self.family if self.version is None else f"{self.family} {'.'.join(map(str, self.version))}"


def libc(tree: Tree) -> Libc | None:
    """The C library of `tree`; None without one, or when it is another.

    glibc's version is in its library: before 2.34 in the file's name, always in the line that the listing keeps. What a
    distribution calls itself tells less: distroless images say `Debian` with a C library and without.
    Raises BaseImageError for a loop of links on the way.
    """
    found = next(_glibcs(tree), None)
    if found is not None and found.version is not None:
        return found
    # A layer of compatibility on musl may have a `libc.so.6`, too.
    return Libc(family="musl") if any(_is_file(tree, path) for path in _MUSL) else found


def architectures(tree: Tree) -> frozenset[str]:
    """The machines that programs of `tree` can be for, by OCI's names, as its loaders tell; none when it has none."""
    rows = zip(_ARCHITECTURES, _LOADERS, _MUSL, strict=True)
    return frozenset(name for name, *loaders in rows if any(_is_file(tree, loader) for loader in loaders))


def check_base(base: Base, *, glibc: str | None, native: bool) -> None:
    """Raise BaseImageError when an environment cannot run on `base`.

    `glibc` is the version of `__glibc` that the environment's platform promises, None when it promises none; `native`
    says whether there are packages for a machine at all (not `noarch`). A base whose C library is not known, or that
    has none, is left alone: programs may be static.
    """
    wanted, found = _version(glibc or ""), libc(base.tree)
    if not native or wanted is None or found is None:
        return
    what = "base image" if base.name is None else f"base image `{base.name}`"
    if found.family == "musl":
        raise BaseImageError(
            f"{what}: it has musl as its C library: the lock's packages are for glibc",
            "choose a base image with glibc, such as Debian, Ubuntu or their slim and distroless images",
        )
    if found.version is not None and found.version < wanted:
        has = ".".join(map(str, found.version))
        raise BaseImageError(
            f"{what}: glibc {has}: the lock asks for `__glibc` {glibc}",
            f'choose a newer base image, or let the platform in `workspace.platforms` have `glibc = "{has}"` '
            "and run `ociforge lock`",
        )


def _glibcs(tree: Tree) -> Iterator[Libc]:
    """Every glibc where programs look for it, the one beside the loader first."""
    loaders = [tree.resolve(loader, follow=True) for loader in _LOADERS if _is_file(tree, loader)]
    usual = ["lib64", *(f"lib/{triplet}" for triplet in _LOADERS.values()), "lib"]
    for directory in (*map(posixpath.dirname, loaders), *usual):
        path = f"{directory}/libc.so.6"
        if _is_file(tree, path):
            name = posixpath.basename(tree.resolve(path, follow=True))
            match = _FILE.fullmatch(name) or _BANNER.search(tree.text(path) or "")
            yield Libc(family="glibc", version=None if match is None else _version(match[1]))


def _is_file(tree: Tree, path: str) -> bool:
    node = tree.lookup(path)
    return node is not None and node.kind == "file"


def _version(text: str) -> tuple[int, ...] | None:
    """The numbers of a version without zeros at the end, as `2.28` and `2.28.0` are one; None when it is no such."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})*", text):
        return None
    numbers = [int(part) for part in text.split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
