"""What a package says about itself: the documents of its `info` directory, checked, and where its files go.

Pure: bytes in, frozen values out. `paths.json` lists what is linked into an environment; archives older than it have
`info/files`, `info/has_prefix` and `info/no_link` instead.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from ociforge.errors import PackageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Self

__all__ = [
    "HINT",
    "INFO_FILES",
    "EntryPoint",
    "PackageInfo",
    "PathInfo",
    "Python",
    "is_enough",
    "is_plain",
    "parse_info",
]

_DOTTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")

FileMode = Literal["text", "binary"]
Noarch = Literal["python", "generic"]

_PATHS, _INDEX, _LINK = "info/paths.json", "info/index.json", "info/link.json"
_FILES, _HAS_PREFIX, _NO_LINK, _NO_SOFTLINK = "info/files", "info/has_prefix", "info/no_link", "info/no_softlink"

# All that `parse_info` looks at; no package has all of them.
INFO_FILES = (_INDEX, _PATHS, _LINK, _FILES, _HAS_PREFIX, _NO_LINK, _NO_SOFTLINK)

# What a line of `has_prefix` without placeholder means. In two parts, so that no package of this file holds it.
_OLDEST_PLACEHOLDER = "/opt/" + "anaconda1anaconda2anaconda3"
HINT = "report it to the package's maintainers, or lock another build of it"


class PathInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One path of a package, as the package names it.

    `kind` is None where the package does not tell: it is that of the archive's member. `sha256` (hexadecimal) and
    `size` (bytes) are those before `placeholder` is replaced; `placeholder` and `file_mode` are there both or not at
    all.
    """

    path: str = msgspec.field(name="_path")
    kind: Literal["hardlink", "softlink", "directory"] | None = msgspec.field(name="path_type")
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}$")] | None = None
    size: Annotated[int, msgspec.Meta(ge=0)] | None = msgspec.field(name="size_in_bytes", default=None)
    placeholder: str | None = msgspec.field(name="prefix_placeholder", default=None)
    file_mode: FileMode | None = None
    no_link: bool = False


class EntryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A script to make: `command` calls `function` of `module`. Legal where rattler takes it for legal."""

    command: str
    module: str
    function: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `command = module:function`; raises ValueError for anything else."""
        command, equals, target = text.partition("=")
        module, colon, function = target.partition(":")
        if not (equals and colon):
            raise ValueError(f"`{text}` is no entry point: expected `command = module:function`")
        made = cls(command=command.strip(), module=module.strip(), function=function.strip())
        for name in (made.module, made.function):
            if not _DOTTED.fullmatch(name):
                raise ValueError(f"`{text}` is no entry point: `{name}` is no dotted name of Python")
        return made

    @property
    def path(self) -> str:
        """Where the script goes, below the prefix."""
        return f"bin/{self.command}"


class Python(msgspec.Struct, frozen=True, kw_only=True):
    """The environment's interpreter: `version` is `major.minor`, `site_packages` is below the prefix."""

    version: str
    site_packages: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `3.12 lib/python3.12/site-packages`; `str` is the inverse."""
        version, _, site_packages = text.partition(" ")
        return cls(version=version, site_packages=site_packages)

    def __str__(self) -> str:
        return f"{self.version} {self.site_packages}"

    @property
    def executable(self) -> str:
        """Below the prefix; the name that scripts call."""
        return f"bin/python{self.version}"

    def place(self, path: str) -> str:
        """Where `path` of a noarch Python package goes, below the prefix."""
        first, slash, rest = path.partition("/")
        if slash and first == "site-packages":
            return f"{self.site_packages}/{rest}"
        return f"bin/{rest}" if slash and first == "python-scripts" else path


class PackageInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the archive `filename` holds: `paths` in the package's own order, and what it wants made of them.

    `entry_points` are there for noarch Python packages only.
    """

    filename: str
    paths: tuple[PathInfo, ...]
    noarch: Noarch | None
    entry_points: tuple[EntryPoint, ...] = ()

    def places(self, python: Python | None) -> Iterator[tuple[str, PathInfo | EntryPoint]]:
        """Every path below the prefix with what goes there: files first, then entry points.

        Raises PackageError for a noarch Python package where `python` is None.
        """
        if self.noarch != "python":
            yield from ((path.path, path) for path in self.paths)
            return
        if python is None:
            raise PackageError(
                f"cannot install noarch python package `{self.filename}`: there is no python version specified",
                "noarch Python packages need `python` in the environment",
            )
        yield from ((python.place(path.path), path) for path in self.paths)
        yield from ((entry_point.path, entry_point) for entry_point in self.entry_points)


def parse_info(files: Mapping[str, bytes], filename: str) -> PackageInfo:
    """Read those of INFO_FILES that the archive `filename` has; other keys are ignored.

    Raises PackageError for documents that cannot be read, for paths that lead out of the prefix (rattler would follow
    them, or abort the process) and for what rattler cannot link; all of them in one.
    """
    try:
        paths = _paths(files, filename)
        index = msgspec.json.decode(files.get(_INDEX, b"{}"), type=_Index)
        entry_points = _entry_points(files) if index.noarch == "python" else ()
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise PackageError(f"reading `{filename}`: {error}", HINT) from error
    _check(filename, paths, entry_points)
    return PackageInfo(filename=filename, paths=paths, noarch=index.kind, entry_points=entry_points)


def is_enough(files: Mapping[str, bytes]) -> bool:
    """Whether `parse_info` would make nothing else of more files: so that an archive need not be read to its end."""
    if not {_PATHS, _INDEX} <= files.keys():
        return False
    try:
        index = msgspec.json.decode(files[_INDEX], type=_Index)
    except msgspec.MsgspecError:
        return True  # what is wrong with it is told by `parse_info`
    return index.noarch != "python" or _LINK in files


class _Paths(msgspec.Struct, frozen=True):
    paths: tuple[PathInfo, ...]


class _Index(msgspec.Struct, frozen=True):
    noarch: Noarch | bool | None = None

    @property
    def kind(self) -> Noarch | None:
        """Before there was a name for each kind, `true` meant what is `generic` now."""
        if isinstance(self.noarch, bool):
            return "generic" if self.noarch else None
        return self.noarch


class _Noarch(msgspec.Struct, frozen=True):
    type: Literal["python"]
    entry_points: tuple[str, ...] = ()


class _Link(msgspec.Struct, frozen=True):
    noarch: _Noarch


def _paths(files: Mapping[str, bytes], filename: str) -> tuple[PathInfo, ...]:
    if _PATHS in files:
        listed = msgspec.json.decode(files[_PATHS], type=_Paths).paths
        if any(path.kind is None for path in listed):
            raise ValueError("`info/paths.json` has a `path_type` of null")
        return tuple(map(_whole, listed)) if any(map(_half, listed)) else listed
    if _FILES not in files:
        raise PackageError(f"`{filename}` is no conda package: it lists no files")
    placeholders = {path: (placeholder, mode) for path, placeholder, mode in _has_prefix(files)}
    copied = {*_lines(files, _NO_LINK), *_lines(files, _NO_SOFTLINK)}
    return tuple(
        PathInfo(
            path=path,
            kind=None,
            placeholder=placeholders.get(path, (None, None))[0],
            file_mode=placeholders.get(path, (None, None))[1],
            no_link=path in copied,
        )
        for path in _lines(files, _FILES)
    )


def _half(path: PathInfo) -> bool:
    return (path.placeholder is None) != (path.file_mode is None)


def _whole(path: PathInfo) -> PathInfo:
    """A placeholder whose mode is not told is none, and the other way round."""
    return msgspec.structs.replace(path, placeholder=None, file_mode=None) if _half(path) else path


def _lines(files: Mapping[str, bytes], name: str) -> Iterator[str]:
    """Blanks belong to names; only LF and CR LF end a line."""
    return (line for line in re.split(r"\r?\n", files.get(name, b"").decode()) if line)


_WORD = r'(?:"((?:[^"\\]|\\.)*)"|(\S+))'
_HAS_PREFIX_LINE = re.compile(rf"(?:{_WORD}\s+(text|binary)\s+)?{_WORD}", re.IGNORECASE)


def _has_prefix(files: Mapping[str, bytes]) -> Iterator[tuple[str, str, FileMode]]:
    """(path, placeholder, mode) of each line: `placeholder mode path`, words with blanks in quotes, or the path."""
    for line in _lines(files, _HAS_PREFIX):
        match = _HAS_PREFIX_LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"`info/has_prefix` has a line that cannot be read: `{line}`")
        quoted, plain, mode, quoted_path, plain_path = match.groups()
        path = plain_path or _unquoted(quoted_path)
        if mode is None:
            yield path, _OLDEST_PLACEHOLDER, "text"
        else:
            yield path, plain or _unquoted(quoted), "text" if mode.lower() == "text" else "binary"


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _entry_points(files: Mapping[str, bytes]) -> tuple[EntryPoint, ...]:
    if _LINK not in files:
        return ()
    link = msgspec.json.decode(files[_LINK], type=_Link)
    return tuple(dict.fromkeys(map(EntryPoint.parse, link.noarch.entry_points)))


def _check(filename: str, paths: Sequence[PathInfo], entry_points: Sequence[EntryPoint]) -> None:
    problems = []
    for entry in paths:
        if not is_plain(entry.path):
            problems.append(f"`{filename}` ships `{entry.path}`, which is no plain path inside the prefix")
        elif entry.kind == "directory":
            problems.append(f"`{filename}` ships the directory `{entry.path}` as such, which rattler cannot install")
        elif "\0" in (entry.placeholder or ""):
            problems.append(f"`{filename}` has a placeholder with a NUL in `{entry.path}`")
        elif entry.path.startswith(_META) and _is_record(filename, entry.path):
            problems.append(f"`{filename}` ships `{entry.path}`, where the records of installed packages are")
    problems += [f"`{filename}` lists `{path}` twice" for path in _repeated(entry.path for entry in paths)]
    problems += [
        f"`{filename}` has the entry point `{entry_point.command}`, which is no name for a script"
        for entry_point in entry_points
        if not _COMMAND.fullmatch(entry_point.command)
    ]
    problems += [
        f"`{filename}` has different entry points `{command}`"  # rattler leaves to chance which one is there
        for command in _repeated(entry_point.command for entry_point in entry_points)
    ]
    if problems:
        raise PackageError.collect(problems, HINT)


_META = "conda-meta"
_COMMAND = re.compile(r"[^./\\\0][^/\\\0]*")  # rattler takes no hidden names


def _is_record(filename: str, path: str) -> bool:
    """Whether conda and rattler would take `path` for what tells of another package; the archive's own gives way."""
    directory, _, name = path.rpartition("/")
    own = filename.removesuffix(".conda").removesuffix(".tar.bz2")
    return path == _META or (directory == _META and name.endswith(".json") and name != f"{own}.json")


def _repeated(names: Iterable[str]) -> list[str]:
    """Those of `names` that are there several times."""
    found = list(names)
    return [] if len(set(found)) == len(found) else [name for name, count in Counter(found).items() if count > 1]


_ODD = frozenset({"", ".", ".."})


def is_plain(path: str) -> bool:
    """Whether `path` has no component that is empty, `.` or `..`, and no NUL: so it stays where it is put."""
    return _ODD.isdisjoint(path.split("/")) and "\0" not in path
