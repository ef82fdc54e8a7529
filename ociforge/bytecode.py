"""Bytecode for Python sources that ship none: `bytecode = "unchecked-hash"` of the settings.

A `.pyc` by PEP 552 that names its source by hash and is never checked against it: valid whatever the source's time, and
on a read-only root. The environment's own interpreter compiles, in a process of its own for each file: marshal's output
depends on which objects happen to be shared in a process, and on the seed of hashes.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import struct
import subprocess
import threading
from typing import TYPE_CHECKING

from msgspec.structs import replace

from layers.entry import Bytes, Directory, File
from ociforge.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    from layers.entry import Entry
    from ociforge.platform import Platform

    Compile = Callable[[str, bytes], tuple[str, bytes] | None]

__all__ = ["Compiler", "cache_directories", "elsewhere", "with_bytecode"]

_OLDEST = (3, 11)  # before, the order of sets in bytecode depended on addresses (bpo-37596)
_LARGEST = 16 << 20  # 16 MiB; what is bigger stays without bytecode, as memory is bounded
_FRAME = struct.Struct("<II")

# Runs in the environment's interpreter. Reads (path, source) and answers with a .pyc, or with nothing for what is no
# Python, such as templates.
_WORKER = r"""
import importlib.util, marshal, os, struct, sys
frame = struct.Struct("<II")
tag = sys.implementation.cache_tag.encode()
out, inp = sys.stdout.buffer, sys.stdin.buffer
out.write(frame.pack(len(tag), 0) + tag)
out.flush()
def answer(path, source):
    code = compile(source, path, "exec", dont_inherit=True)
    digest = importlib.util.source_hash(source)
    return importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + digest + marshal.dumps(code)
while header := inp.read(frame.size):
    sizes = frame.unpack(header)
    path, source = (inp.read(size) for size in sizes)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            data = answer(path.decode(), source)
            with open(writer, "wb") as pipe:
                pipe.write(data)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9:  # for want of memory: that tells nothing of the source
        sys.exit(9)
    if status:
        data = b""
    out.write(frame.pack(len(data), 0) + data)
    out.flush()
"""


class Compiler:
    """Compiles sources with the interpreter `python`, in a process of its own for each thread that asks.

    A context manager. `version` is the interpreter's `major.minor`.
    """

    def __init__(self, python: Path, version: str) -> None:
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
            raise BuildError(
                f"bytecode of Python {version} is not reproducible: expected 3.11 or newer",
                'set `bytecode = "none"`, or update `python`',
            )
        self._python = python
        self._local = threading.local()
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()

    def compile(self, path: str, source: bytes) -> tuple[str, bytes] | None:
        """The image path and the bytes of what `path`, an image path of a source, compiles to; None if it does not.

        Raises BuildError when the interpreter does not run.
        """
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = _Worker(self._python)
            self._local.worker = worker
            with self._lock:
                self._workers.append(worker)
        data = worker.ask(f"/{path}", source)
        directory, name = posixpath.split(path)
        place = f"{directory}/__pycache__/{name.removesuffix('.py')}.{worker.tag}.pyc"
        return (place, data) if data else None


def elsewhere(platform: Platform, image: str | None = None) -> BuildError:
    """What to raise where the interpreter of `platform` does not run; `image` is the name that the settings have."""
    table = "tool.ociforge" if image is None else f"tool.ociforge.images.{image}"
    return BuildError(
        f"bytecode for `{platform}` cannot be compiled here: that takes the image's own `python`",
        f'set `bytecode = "none"` under `[{table}.platform."{platform}"]`, or build on a machine of `{platform}`',
    )


class _Worker:
    """One process of the interpreter; for one thread."""

    def __init__(self, python: Path) -> None:
        self._python = python
        try:
            # Not -I: it would ignore the seed. -P, -s and -S keep everything but the standard library out.
            self._process = subprocess.Popen(
                [python, "-P", "-s", "-S", "-B", "-W", "ignore", "-c", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
                cwd="/",
            )
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from error
        try:
            self.tag = self._tag()
        except BuildError:
            self.stop()
            raise

    def ask(self, path: str, source: bytes) -> bytes:
        name = path.encode()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_FRAME.pack(len(name), len(source)) + name + source)
            self._process.stdin.flush()
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from error
        return self._receive()

    def stop(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        self._process.kill()
        self._process.wait()

    def _tag(self) -> str:
        """What the interpreter calls its bytecode: part of names in the image."""
        tag = self._receive().decode(errors="replace")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", tag):
            raise self._failed(f"its cache tag is `{tag}`")
        return tag

    def _receive(self) -> bytes:
        assert self._process.stdout is not None
        header = self._process.stdout.read(_FRAME.size)
        data = b""
        if len(header) == _FRAME.size:
            size, _ = _FRAME.unpack(header)
            data = self._process.stdout.read(size)
            if len(data) == size:
                return data
        raise self._failed(f"it ended with status {self._process.wait()}")

    def _failed(self, why: str) -> BuildError:
        return BuildError(
            f"compiling bytecode: the environment's `python` does not run here: {why}", 'set `bytecode = "none"`'
        )


def with_bytecode(entries: Iterable[Entry], compile_: Compile, *, paths: Iterable[str], mtime: int) -> Iterator[Entry]:
    """`entries`, each source that ships none followed by its bytecode, whose time is `mtime`.

    `paths` are those of all `entries`. The directories for it are not among the entries: see `cache_directories`.
    """
    paths = tuple(paths)
    covered, blocked = {_source(path) for path in paths}, _blocked(paths)
    for entry in entries:
        if not isinstance(entry, File) or not _is_source(entry.path) or entry.size > _LARGEST:
            yield entry
            continue
        with entry.content.open() as stream:
            source = stream.read()
        yield replace(entry, content=Bytes(source))
        skipped = entry.path in covered or posixpath.dirname(entry.path) in blocked
        compiled = None if skipped else compile_(entry.path, source)
        if compiled is not None:
            path, data = compiled
            yield File(path=path, size=len(data), content=Bytes(data), mtime=mtime)


def cache_directories(paths: Iterable[str], mtime: int) -> tuple[Directory, ...]:
    """The directories that bytecode of the sources among `paths` may go to."""
    paths = tuple(paths)
    parents = {posixpath.dirname(path) for path in paths if _is_source(path)} - _blocked(paths)
    return tuple(Directory(path=f"{parent}/__pycache__", mtime=mtime) for parent in sorted(parents))


def _blocked(paths: Sequence[str]) -> set[str]:
    """The directories whose `__pycache__` is a file or a link: nothing is below it, as there is of a directory."""
    caches = {path for path in paths if path.endswith("/__pycache__")}
    if caches:
        caches -= {posixpath.dirname(path) for path in paths}
    return {posixpath.dirname(path) for path in caches}


def _is_source(path: str) -> bool:
    """Whether Python looks for bytecode of it: modules, but no scripts."""
    return path.endswith(".py") and "/lib/python" in path


def _source(path: str) -> str | None:
    """The source that a `.pyc` belongs to."""
    match = re.fullmatch(r"(.+/)__pycache__/([^/]+?)\.[^/.]+\.pyc", path)
    return None if match is None else f"{match[1]}{match[2]}.py"
