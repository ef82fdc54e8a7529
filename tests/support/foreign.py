"""Programs for another architecture: a minimal Debian for arm64, a conda package `python` made of its interpreter, and
qemu to run them.
"""

from __future__ import annotations

import platform
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import conda, python
from tests.support.cache import cached, fingerprint
from tests.support.conda import CondaPackage, Link, Regular
from tests.support.python import load_archive, store_archive
from tests.support.tools import missing, need

if TYPE_CHECKING:
    from tests.support.conda import Archive, FileLike

__all__ = ["arm64_python", "arm64_rootfs", "machines", "qemu"]

_LIBRARIES = "lib/aarch64-linux-gnu"
_BASE = re.compile(
    rf"bin|bin/(da)?sh|lib|lib/ld-.+|{_LIBRARIES}|{_LIBRARIES}/(ld-.+|lib(c|dl|m|pthread|rt|util)\.so\..+)"
)
_PROGRAM = re.compile(r"usr/bin/python(3\.\d+)")
_LEFT_OUT = re.compile(
    r".*/(__pycache__|ensurepip|idlelib|lib2to3|lib-dynload/(?!_json\.)[^/]+|pydoc_data|test|tkinter)(/.*)?"
)
# Debian keeps other packages in `dist-packages`.
_SITECUSTOMIZE = """\
import site, sys
site.addsitedir(f"{sys.prefix}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
"""
_FOREIGN = ("libexpat.so.1", "libz.so.1")  # of the interpreter, besides glibc


def qemu() -> str:
    """The program, which needs no library, that runs programs for arm64."""
    return need("qemu-aarch64-static")


def machines(root: Path) -> dict[str, str]:
    """What `readelf` says of the machine of every program and library below `root`, by path."""
    programs = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink() and _is_elf(path)]
    command = [need("readelf"), "--file-header", "--wide", *map(str, programs)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^\s+Machine:\s+(.+)$", text, re.MULTILINE)
    return {path.relative_to(root).as_posix(): machine for path, machine in zip(programs, found, strict=True)}


def arm64_rootfs() -> Path:
    """A tar with Debian's shell and C library for arm64."""
    return _debian() / "rootfs.tar"


def arm64_python() -> Archive:
    """The package, which needs nothing but glibc."""
    return load_archive(_debian())


def _is_elf(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"\x7fELF"


def _debian() -> Path:
    """Packages of the Debian that the tests run on, unpacked and cut to size, cached between runs."""
    program, release = need("mmdebstrap"), platform.freedesktop_os_release()
    if release.get("ID") != "debian":
        missing("packages for arm64 are those of the Debian that the tests run on, and this is none")
    codename = release.get("VERSION_CODENAME", "")

    def make(directory: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            tar = Path(scratch, "all.tar")
            # `extract` runs nothing of what it unpacks; apt's own user may be kept from the temporary directory.
            wanted = ("--variant=extract", "--architectures=arm64", "--include=dash,python3-minimal,libpython3-stdlib")
            command = [program, "--quiet", *wanted, '--aptopt=APT::Sandbox::User "root"', codename, str(tar)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                missing(f"`{' '.join(command)}` failed: {done.stderr.strip().splitlines()[-1:]}")
            _cut(tar, directory, Path(scratch))

    made = fingerprint(Path(__file__), Path(conda.__file__), Path(python.__file__))
    return cached(f"debian-{codename}-arm64-{made}", make)


def _cut(source: Path, directory: Path, scratch: Path) -> None:
    """`rootfs.tar` and the package of `python` in `directory`."""
    with tarfile.open(source) as tar, tarfile.open(directory / "rootfs.tar", "w") as rootfs:
        members = {member.name.removeprefix("./"): member for member in tar}
        for name, member in members.items():
            if _BASE.fullmatch(name):
                rootfs.addfile(member, tar.extractfile(member) if member.isreg() else None)
        store_archive(_package(tar, members, scratch), directory)


def _package(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], scratch: Path) -> CondaPackage:
    (short,) = {match[1] for name in members if (match := _PROGRAM.fullmatch(name))}
    files: dict[str, FileLike] = {"bin/python": Link(f"python{short}"), "bin/python3": Link(f"python{short}")}
    library = f"lib/python{short}"
    for name, member in members.items():
        inside = name.removeprefix("usr/")
        if inside.startswith(f"{library}/") and member.isreg() and not _LEFT_OUT.fullmatch(inside):
            files[inside] = Regular(content=_content(tar, member))
    originals = {f"bin/python{short}": f"usr/bin/python{short}", **{f"lib/{n}": f"{_LIBRARIES}/{n}" for n in _FOREIGN}}
    for target, name in originals.items():
        files[target] = Regular(content=_relocatable(_content(tar, members[name]), scratch), executable=True)
    files[f"{library}/site-packages/README.txt"] = b"third-party packages\n"
    files[f"{library}/sitecustomize.py"] = _SITECUSTOMIZE
    return CondaPackage(
        name="python",
        version=f"{short}.0",
        build="h0123456_0_cpython",
        subdir="linux-aarch64",
        license="Python-2.0",
        files=files,
        python_site_packages_path=f"{library}/site-packages",
        purls=(),
    )


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)  # what a link leads to, too
    assert stream is not None
    return stream.read()


def _relocatable(content: bytes, scratch: Path) -> bytes:
    """The program, which finds its libraries in the environment."""
    copy = scratch / "program"
    copy.write_bytes(content)
    subprocess.run([need("patchelf"), "--force-rpath", "--set-rpath", "$ORIGIN/../lib", copy], check=True)
    return copy.read_bytes()
