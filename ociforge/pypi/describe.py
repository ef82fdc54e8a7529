"""What a distribution says of itself (PyPA "Core metadata"): version, requirements, Python.

Of a wheel in an index only the metadata is fetched where the index offers it (PEP 658). Source code is asked without
running it where its metadata is static, and by way of a wheel built from it where not.
"""

from __future__ import annotations

import email
import lzma
import os
import re
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace
from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ociforge.errors import PackageError
from ociforge.pypi.location import Local, Remote, Repository, Tree
from ociforge.pypi.sources import check_out, copy_tree, subdirectory, unpack
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from email.message import Message
    from typing import Self

    from ociforge.pypi.fetch import Access, Fetcher
    from ociforge.pypi.location import Source

__all__ = ["Describer", "Description"]

_LARGEST: Final = 64 << 20  # 64 MiB for METADATA or PKG-INFO, as when it is installed
_STATIC: Final = Version("2.2")  # since this version PKG-INFO says what of it a build may change (PEP 643)
_ASKED: Final = frozenset({"version", "requires-dist", "requires-python", "provides-extra"})
_ZIP_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    KeyError,
)
# `>=3.6.*` is no valid specifier, but old packages have it; installers take it for `>=3.6`.
_STAR: Final = re.compile(r"((?:>=|<=|<|>)\s*[0-9][0-9.]*?)\.\*")


class Description(Struct, frozen=True, kw_only=True):
    """`version` is None where only a build knows it; `requires_dist` are PEP 508 texts in the package's order."""

    version: str | None
    requires_dist: tuple[str, ...] = ()
    requires_python: str | None = None

    @classmethod
    def of(cls, what: str, *, version: str | None, requires_dist: Iterable[str], requires_python: str | None) -> Self:
        """Raises PackageError for requirements that are none; a requirement on Python that is none is dropped."""
        try:
            requirements = tuple(str(Requirement(_STAR.sub(r"\1", text))) for text in requires_dist)
            parsed = None if version is None else str(Version(version))
        except (InvalidRequirement, InvalidVersion) as error:
            raise PackageError(f"the metadata of {what} is damaged: {str(error).partition(chr(10))[0]}") from error
        return cls(version=parsed, requires_dist=requirements, requires_python=_python(requires_python))

    @classmethod
    def of_metadata(cls, content: bytes, what: str, name: str) -> Self:
        """Read METADATA or PKG-INFO of the distribution `name`; `what` names it in messages."""
        raw, _ = parse_email(content)
        if canonicalize_name(raw.get("name", "")) != name or "version" not in raw:
            raise PackageError(f"the metadata of {what} is not that of `{name}`")
        return cls.of(
            what,
            version=raw["version"],
            requires_dist=raw.get("requires_dist", ()),
            requires_python=raw.get("requires_python"),
        )


def _python(text: str | None) -> str | None:
    fixed = _STAR.sub(r"\1", text or "")
    try:
        SpecifierSet(fixed)
    except InvalidSpecifier:
        return None
    return ",".join(part.strip() for part in fixed.split(",")) or None


class Describer(Struct, frozen=True, kw_only=True):
    """Asks distributions wherever they are; may be used by several threads.

    `static` reads a source tree without running anything and gives None where only a build knows; `build` makes a
    wheel of a tree in a directory. `environ` is git's environment.
    """

    fetcher: Fetcher
    access: Access
    static: Callable[[Path], Description | None]
    build: Callable[[Path, Path], None]
    environ: Mapping[str, str]

    def describe(self, name: str, source: Source) -> Description:
        """Raises PackageError when the distribution cannot be had, or says nothing that can be understood."""
        match source:
            case Remote() | Local():
                return self._of_file(name, source)
            case Tree():
                return self._of_tree(name, source.path)
            case Repository():
                return self._of_repository(name, source)

    def _of_file(self, name: str, source: Remote | Local) -> Description:
        if not source.filename.endswith(".whl"):
            return self._of_sdist(name, source)
        offered = self.fetcher.beside(source, ".metadata", _LARGEST) if isinstance(source, Remote) else None
        if offered is not None:
            try:
                return Description.of_metadata(offered, f"`{source.filename}`", name)
            except PackageError:
                pass  # a server that answers anything at all: the wheel itself tells
        path = source.path if isinstance(source, Local) else self.fetcher.fetch(source).path
        return Description.of_metadata(_metadata(path, source.filename), f"`{source.filename}`", name)

    def _of_sdist(self, name: str, source: Remote | Local) -> Description:
        what = f"`{source.filename}`"
        path = source.path if isinstance(source, Local) else self.fetcher.fetch(source).path
        with tempfile.TemporaryDirectory(prefix="ociforge-") as place:
            tree = subdirectory(unpack(path, source.filename, Path(place, "tree")), source.subdirectory, what)
            info = tree / "PKG-INFO"
            content = info.read_bytes() if info.is_file() else b""
            if _is_static(email.message_from_bytes(content)):
                return Description.of_metadata(content, what, name)
            return self._ask(name, tree, what, Path(place, "wheel"))

    def _of_repository(self, name: str, source: Repository) -> Description:
        what = f"`{redacted(source.url)}`"
        with tempfile.TemporaryDirectory(prefix="ociforge-") as place:
            check_out(source, Path(place, "tree"), self.environ, offline=self.access.offline)
            tree = subdirectory(Path(place, "tree"), source.subdirectory, what)
            return self._ask(name, tree, what, Path(place, "wheel"))

    def _of_tree(self, name: str, tree: Path) -> Description:
        found = self.static(tree)
        if found is not None:
            return found
        with tempfile.TemporaryDirectory(prefix="ociforge-") as place:
            copy_tree(tree, Path(place, "tree"))
            built = self._ask(name, Path(place, "tree"), f"`{tree}`", Path(place, "wheel"))
        # As for pixi, what only a build tells may change with the tree: the lock has no version then.
        return replace(built, version=None)

    def _ask(self, name: str, tree: Path, what: str, place: Path) -> Description:
        """Of source code that may be built where it is; `place` is a directory for the wheel, to be made."""
        found = self.static(tree)
        if found is not None:
            return found
        self.build(tree, place)
        (wheel,) = place.glob("*.whl")
        return Description.of_metadata(_metadata(wheel, wheel.name), what, name)


def _metadata(path: Path, filename: str) -> bytes:
    """METADATA of the wheel at `path`, whose name elsewhere is `filename`."""
    try:
        with zipfile.ZipFile(path) as archive:
            (member,) = (
                info for info in archive.infolist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", info.filename)
            )
            if member.file_size > _LARGEST:
                raise PackageError(f"`{filename}`: its metadata is larger than {_LARGEST >> 20} MiB")
            return archive.read(member)
    except OSError as error:
        raise PackageError(f"cannot read `{os.fspath(path)}`: {error.strerror or error}") from error
    except _ZIP_ERRORS as error:
        raise PackageError(f"`{filename}` is no wheel that can be read: {type(error).__name__}") from error


def _is_static(message: Message) -> bool:
    """Whether a source distribution's metadata holds for every wheel that is built from it (PEP 643)."""
    try:
        version = Version(message.get("Metadata-Version", "0"))
    except InvalidVersion:
        return False
    dynamic = {value.strip().lower() for value in message.get_all("Dynamic", [])}
    return version >= _STATIC and not dynamic & _ASKED
