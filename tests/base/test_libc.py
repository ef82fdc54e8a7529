"""The C library of a base image, and whether an environment's programs find what they need."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from ociforge.base.image import Base, scratch
from ociforge.base.libc import Libc, architectures, check_base, libc
from ociforge.base.listing import decode, encode, read_layer
from ociforge.base.overlay import merge
from ociforge.base.tree import Tree
from ociforge.errors import BaseImageError
from ociforge.platform import Platform
from tests.base.test_overlay import member
from tests.support.bases import tar_of

BANNER = "GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36."

BULLSEYE = (
    "usr/ usr/lib/ usr/lib/x86_64-linux-gnu/ usr/lib64/ lib>usr/lib lib64>usr/lib64 "
    "usr/lib64/ld-linux-x86-64.so.2>/lib/x86_64-linux-gnu/ld-2.31.so usr/lib/x86_64-linux-gnu/ld-2.31.so "
    "usr/lib/x86_64-linux-gnu/libc.so.6>libc-2.31.so usr/lib/x86_64-linux-gnu/libc-2.31.so"
)
BOOKWORM = (
    "usr/ usr/lib/ usr/lib/x86_64-linux-gnu/ usr/lib64/ lib>usr/lib lib64>usr/lib64 "
    "usr/lib64/ld-linux-x86-64.so.2>/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 "
    "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 usr/lib/x86_64-linux-gnu/libc.so.6"
)
UBI8 = (
    "usr/ usr/lib64/ lib64>usr/lib64 usr/lib64/ld-linux-x86-64.so.2>ld-2.28.so usr/lib64/ld-2.28.so "
    "usr/lib64/libc.so.6>libc-2.28.so usr/lib64/libc-2.28.so"
)
# The loader is in another directory than the library.
FEDORA_ARM = "usr/ usr/lib/ usr/lib64/ lib>usr/lib lib64>usr/lib64 usr/lib/ld-linux-aarch64.so.1 usr/lib64/libc.so.6"
JAMMY_ARM = (
    "usr/ usr/lib/ usr/lib/aarch64-linux-gnu/ lib>usr/lib usr/lib/ld-linux-aarch64.so.1>"
    "aarch64-linux-gnu/ld-linux-aarch64.so.1 usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1 "
    "usr/lib/aarch64-linux-gnu/libc.so.6"
)
ALPINE = "lib/ lib/ld-musl-x86_64.so.1 lib/libc.musl-x86_64.so.1>ld-musl-x86_64.so.1"
# Another libc on top of Alpine: the loader leads away from /lib.
ALPINE_GLIBC = (
    f"{ALPINE} lib64/ lib64/ld-linux-x86-64.so.2>/usr/glibc-compat/lib/ld-linux-x86-64.so.2 usr/ usr/glibc-compat/ "
    "usr/glibc-compat/lib/ usr/glibc-compat/lib/ld-linux-x86-64.so.2 usr/glibc-compat/lib/libc.so.6"
)
GLIBC_236, UNKNOWN, MUSL = (
    Libc(family="glibc", version=(2, 36)),
    Libc(family="glibc"),
    Libc(family="musl"),
)


def tree(members: str, banner: str | None = None) -> Tree:
    """The tree of such members; glibc's library holds `banner`."""
    made = [member(spelling) for spelling in members.split()]
    return merge([[replace(m, text=banner) if m.path.endswith("libc.so.6") and not m.target else m for m in made]])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(tree(BULLSEYE), Libc(family="glibc", version=(2, 31)), id="the file's name"),
        pytest.param(tree(UBI8), Libc(family="glibc", version=(2, 28)), id="lib64"),
        pytest.param(tree(BOOKWORM, BANNER), GLIBC_236, id="the banner"),
        pytest.param(tree(BOOKWORM), UNKNOWN, id="no banner"),
        pytest.param(tree(BOOKWORM, "GNU C Library (odd) release"), UNKNOWN, id="an odd banner"),
        pytest.param(tree(FEDORA_ARM, BANNER), GLIBC_236, id="a loader elsewhere"),
        pytest.param(tree(JAMMY_ARM, BANNER), GLIBC_236, id="arm64"),
        pytest.param(
            tree(BOOKWORM, "GNU C Library (GNU libc) development release version 2.41.9000."),
            Libc(family="glibc", version=(2, 41, 9000)),
            id="development",
        ),
        pytest.param(tree(ALPINE), MUSL, id="musl"),
        pytest.param(tree(f"{ALPINE} lib/ld-linux-x86-64.so.2"), MUSL, id="a loader for compatibility"),
        pytest.param(tree(f"{ALPINE} lib/libc.so.6"), MUSL, id="a library for compatibility"),
        pytest.param(tree(f"{ALPINE} lib/libc.so.6>libc.musl-x86_64.so.1"), MUSL, id="a link for compatibility"),
        pytest.param(tree(ALPINE_GLIBC, BANNER), GLIBC_236, id="glibc on musl"),
        pytest.param(tree(f"{BULLSEYE} lib/ld-musl-x86_64.so.1"), Libc(family="glibc", version=(2, 31)), id="both"),
        pytest.param(tree("usr/ usr/bin/ usr/bin/sh etc/os-release"), None, id="none"),
        pytest.param(tree("lib64/ lib64/libc.so.6>gone"), None, id="a dangling link"),
        pytest.param(Tree(), None, id="nothing"),
    ],
)
def test_the_c_library_of_a_tree(found: Tree, expected: Libc | None) -> None:
    assert libc(found) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (tree(BOOKWORM), {"amd64"}),
        (tree(JAMMY_ARM), {"arm64"}),
        (tree(FEDORA_ARM), {"arm64"}),
        (tree(ALPINE), {"amd64"}),
        (tree("lib/ lib/ld-musl-aarch64.so.1 lib64/ lib64/ld-linux-x86-64.so.2"), {"amd64", "arm64"}),
        (tree("lib64/ lib64/ld64.so.2"), {"ppc64le"}),
        (tree("lib/ lib/ld64.so.1"), {"s390x"}),
        (tree("lib/ lib/ld-linux-riscv64-lp64d.so.1"), {"riscv64"}),
        (tree("lib/ lib/ld-musl-riscv64.so.1"), {"riscv64"}),
        (tree("etc/ etc/passwd"), set()),
    ],
)
def test_the_machines_of_a_tree(found: Tree, expected: set[str]) -> None:
    assert architectures(found) == expected


def test_a_c_library_in_words() -> None:
    assert [str(found) for found in (GLIBC_236, UNKNOWN, MUSL)] == ["glibc 2.36", "glibc", "musl"]


def test_this_machines_own_library_is_known() -> None:
    """Listed from a tar, kept, merged, and compared with what the library says of itself."""
    own = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    paths = [*Path("/lib64").glob("libc.so.6"), *Path("/lib").glob("*-linux-gnu/libc.so.6")]
    if own is None or not paths:
        pytest.skip("this machine has no glibc where distributions put it")
    layer = tar_of({"lib64": 0o755, "lib64/libc.so.6": paths[0].resolve().read_bytes(), "etc": 0o755})
    listing = decode(encode(read_layer(io.BytesIO(layer), "the layer")))
    assert str(libc(merge([listing.members]))) == own
    hard = [*listing.members, member("lib/"), member("lib/libc.so.6=lib64/libc.so.6"), member("lib64/libc.so.6>gone")]
    assert str(libc(merge([hard]))) == own


def test_a_library_without_a_banner_keeps_no_text() -> None:
    files = {
        "lib/libc.so.6": b"\x7fELF",
        "lib/libc-2.31.so": b"\x7fELFGNU C Library (",
        "lib/libc-2.31.so.1": BANNER.encode(),
        "opt/libc.so.6": b"\x7fELF\0" + BANNER.encode() + b"\nCopyright\0",
        "usr/libc.so.6": b"GNU C Library (" + b"x" * 1000,
        "var/libc.so.6": "GNU C Library (ü".encode(),
    }
    found = read_layer(io.BytesIO(tar_of(files)), "the layer").members
    assert [member.text for member in found] == [
        None,
        "GNU C Library (",
        None,
        BANNER,
        "GNU C Library (" + "x" * 241,
        "GNU C Library (\ufffd\ufffd",
    ]


def base(found: Tree, name: str | None = "docker.io/library/debian:12") -> Base:
    return replace(scratch(Platform.parse("linux/amd64")), list_paths=lambda: found, name=name)


@pytest.mark.parametrize(
    ("found", "glibc", "native"),
    [
        (tree(BULLSEYE), "2.28", True),
        (tree(BULLSEYE), "2.31", True),
        (tree(BULLSEYE), "2.31.0", True),
        (tree(BULLSEYE), None, True),
        (tree(BULLSEYE), "2.34", False),
        (tree(BULLSEYE), "strange", True),
        (tree(BOOKWORM), "2.99", True),
        (tree(ALPINE), "2.28", False),
        (tree(ALPINE), None, True),
        (Tree(), "2.28", True),
    ],
)
def test_bases_that_will_do(found: Tree, glibc: str | None, native: bool) -> None:
    check_base(base(found), glibc=glibc, native=native)


NEWER = (
    "choose a newer base image, or let the platform in `workspace.platforms` have "
    '`glibc = "{}"` and run `ociforge lock`'
)


@pytest.mark.parametrize(
    ("found", "name", "glibc", "message", "hint"),
    [
        (
            tree(BULLSEYE),
            "docker.io/library/debian:11",
            "2.34",
            "base image `docker.io/library/debian:11`: glibc 2.31: the lock asks for `__glibc` 2.34",
            NEWER.format("2.31"),
        ),
        (
            tree(UBI8),
            None,
            "3",
            "base image: glibc 2.28: the lock asks for `__glibc` 3",
            NEWER.format("2.28"),
        ),
        (
            tree(ALPINE),
            "docker.io/library/alpine:3",
            "2.17",
            "base image `docker.io/library/alpine:3`: it has musl as its C library: the lock's packages are for glibc",
            "choose a base image with glibc, such as Debian, Ubuntu or their slim and distroless images",
        ),
    ],
)
def test_bases_that_will_not_do(found: Tree, name: str | None, glibc: str, message: str, hint: str) -> None:
    with pytest.raises(BaseImageError) as caught:
        check_base(base(found, name), glibc=glibc, native=True)
    assert (caught.value.message, caught.value.hint) == (message, hint)
