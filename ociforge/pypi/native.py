"""Which projects are sure to be compiled, as their own files tell without any of their code being run.

Most do not tell: then only a build shows it. What is said here is certain, so that it can be acted upon.
"""

from __future__ import annotations

import ast
import re
import tarfile
import tomllib
from typing import TYPE_CHECKING, Any

from ociforge.pypi.location import Local, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ociforge.pypi.location import Source

    Read = Callable[[str], bytes | None]

__all__ = ["compiled"]

_LARGEST = 1 << 20  # 1 MiB: of a file that says how a project is built
_KEYWORDS = ("ext_modules", "rust_extensions", "cffi_modules")  # of `setup()`


def compiled(source: Source) -> str | None:
    """How it is known that wheels of `source` have compiled parts; None where it is not, or not on this machine."""
    match source:
        case Tree(path=path):
            return _verdict(lambda name: _file(path / name))
        case Local(path=path, filename=filename) if ".tar." in filename:
            members = _members(path, source.subdirectory)
            return _verdict(members.get)
        case _:
            return None


def _verdict(read: Read) -> str | None:
    document = _toml(read("pyproject.toml"))
    backend = _at(document, "build-system", "build-backend")
    if _at(document, "build-system", "backend-path") is not None:
        return None
    match backend:
        case "maturin":
            return "`maturin` builds it"
        case "scikit_build_core.build":
            settings = _at(document, "tool", "scikit-build")
            return None if settings and {"wheel", "overrides"} & set(settings) else "`scikit-build-core` builds it"
        case None | "setuptools.build_meta" | "setuptools.build_meta:__legacy__":
            return _by_setuptools(document, read("setup.py"))
        case _:
            return None


def _by_setuptools(document: object, script: bytes | None) -> str | None:
    for table in ("setuptools", "setuptools-rust"):
        if _at(document, "tool", table, "ext-modules"):
            return f"`pyproject.toml` has `tool.{table}.ext-modules`"
    keyword = None if script is None else _extensions(script)
    return None if keyword is None else f"`setup.py` has `{keyword}`"


def _extensions(script: bytes) -> str | None:
    """The argument by which `setup.py` has extensions, in every case: its one call of `setup` is under no condition."""
    try:
        module = ast.parse(script)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call) and _called(node) == "setup"]
    always = [statement.value for statement in module.body if isinstance(statement, ast.Expr)]
    if len(calls) != 1 or calls[0] not in always:
        return None
    found = {keyword.arg: keyword.value for keyword in calls[0].keywords}
    return next((name for name in _KEYWORDS if _is_filled(found.get(name))), None)


def _called(call: ast.Call) -> str | None:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return None


def _is_filled(value: ast.expr | None) -> bool:
    """A list with something in it, as it stands there, perhaps given to `cythonize`."""
    if isinstance(value, ast.Call) and _called(value) == "cythonize" and value.args:
        return _is_filled(value.args[0]) or isinstance(value.args[0], ast.Constant)
    return isinstance(value, ast.List | ast.Tuple) and any(not isinstance(e, ast.Starred) for e in value.elts)


def _toml(data: bytes | None) -> Mapping[str, Any]:
    try:
        return {} if data is None else tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        return {}


def _at(document: object, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _file(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError:
        return None
    return data if len(data) <= _LARGEST else None


def _members(archive: Path, subdirectory: str) -> Mapping[str, bytes]:
    """The files that say how the project in a source distribution is built."""
    place = re.escape(f"{subdirectory.strip('/')}/".lstrip("/"))
    wanted = re.compile(rf"[^/]+/{place}(pyproject\.toml|setup\.py)")
    found = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                match = wanted.fullmatch(member.name.removeprefix("./"))
                if match is None or not member.isfile() or member.size > _LARGEST:
                    continue
                stream = tar.extractfile(member)
                assert stream is not None
                found[match[1]] = stream.read()
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return {}  # the build will tell what is wrong with it
    return found
