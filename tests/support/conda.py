"""Conda packages made from a description: real `.conda` (v2) and `.tar.bz2` archives, the same bytes each time."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import zstandard

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "PLACEHOLDER",
    "Archive",
    "CondaPackage",
    "FileLike",
    "Folder",
    "Form",
    "Link",
    "Regular",
    "SameFile",
    "binary",
]

Form = Literal[".conda", ".tar.bz2"]

# conda-build builds in a prefix padded to 255 bytes, so that any shorter prefix fits into a binary.
PLACEHOLDER = ("/opt/build/world/_h_env" + "_placehold" * 24)[:255]

# A fixed instant for archives whose package states none: 2024-01-02T03:04:05Z.
_MTIME = 1_704_164_645


@dataclass(frozen=True, slots=True, kw_only=True)
class Regular:
    """A regular file of a package; `placeholder` says how the build prefix inside `content` is to be replaced."""

    content: bytes
    executable: bool = False
    placeholder: Literal["text", "binary"] | None = None
    prefix: str = PLACEHOLDER
    mtime: int | None = None  # seconds; None: the package's own
    no_link: bool = False
    sha256: str | None = None  # None: the true one; a wrong one makes a package that lies


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class SameFile:
    """A second name (hard link) of the package's file at `path`."""

    path: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory that conda records because nothing is in it. rattler 0.28 cannot install a package with one."""


FileLike = Regular | Link | SameFile | Folder | bytes | str


def binary(text: str = "{prefix}", *, prefix: str = PLACEHOLDER) -> bytes:
    """Bytes like a compiled program's data: NUL-terminated strings, one holding the build prefix."""
    return b"\x7fDATA\x00" + text.format(prefix=prefix).encode() + b"\x00tail\x00\xff\xfe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A package file on disk and the record that a channel has of it."""

    path: Path
    subdir: str
    record: Mapping[str, Any]

    @property
    def filename(self) -> str:
        """The file's name, as channels have it."""
        return self.path.name


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaPackage:
    """What a conda package holds and says. Paths are relative to the prefix (noarch python: `site-packages/…`)."""

    name: str
    version: str = "1.0"
    build: str = "0"
    build_number: int = 0
    subdir: str = "linux-64"
    noarch: Literal["python", "generic"] | None = None
    depends: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    files: Mapping[str, FileLike] = field(default_factory=dict)
    entry_points: tuple[str, ...] = ()
    activate: str | None = None
    env_vars: Mapping[str, str] = field(default_factory=dict)
    post_link: str | None = None
    license: str | None = "BSD-3-Clause"
    timestamp: int | None = _MTIME * 1000  # milliseconds
    mtime: int = _MTIME
    purls: tuple[str, ...] | None = None
    run_exports: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    python_site_packages_path: str | None = None
    index_extra: Mapping[str, Any] = field(default_factory=dict)
    info_extra: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def home(self) -> str:
        """The channel directory the archive belongs in."""
        return "noarch" if self.noarch else self.subdir

    def filename(self, form: Form = ".conda") -> str:
        """The archive's name in a channel."""
        return f"{self.name}-{self.version}-{self.build}{form}"

    def paths(self) -> dict[str, Regular | Link | SameFile | Folder]:
        """Every path, sorted, activation and link scripts included."""
        made: dict[str, FileLike] = dict(self.files)
        if self.activate is not None:
            made[f"etc/conda/activate.d/{self.name}.sh"] = self.activate
        if self.env_vars:
            made[f"etc/conda/env_vars.d/{self.name}.json"] = json.dumps(dict(self.env_vars))
        if self.post_link is not None:
            made[f"bin/.{self.name}-post-link.sh"] = Regular(content=self.post_link.encode(), executable=True)
        return {path: _as_file(made[path]) for path in sorted(made)}

    def index(self) -> dict[str, Any]:
        """`info/index.json`."""
        arch, platform = _arch_platform(self.home)
        facts = {
            "arch": arch,
            "build": self.build,
            "build_number": self.build_number,
            "constrains": list(self.constrains) or None,
            "depends": list(self.depends),
            "license": self.license,
            "name": self.name,
            "noarch": self.noarch,
            "platform": platform,
            "python_site_packages_path": self.python_site_packages_path,
            "subdir": self.home,
            "timestamp": self.timestamp,
            "version": self.version,
        }
        return {key: value for key, value in facts.items() if value is not None} | dict(self.index_extra)

    def info(self) -> dict[str, bytes]:
        """The `info/` directory: name -> bytes."""
        documents: dict[str, Any] = {
            "info/about.json": {"license": self.license, "summary": f"{self.name} for tests"},
            "info/index.json": self.index(),
            "info/paths.json": {"paths": _paths_json(self.paths()), "paths_version": 1},
        }
        if self.noarch == "python":
            link = {
                "noarch": {"entry_points": list(self.entry_points), "type": "python"},
                "package_metadata_version": 1,
            }
            documents["info/link.json"] = link
        if self.run_exports:
            documents["info/run_exports.json"] = {kind: list(specs) for kind, specs in self.run_exports.items()}
        texts = {
            name: (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
            for name, document in documents.items()
        }
        texts["info/files"] = "".join(f"{path}\n" for path in self.paths()).encode()
        return dict(sorted((texts | dict(self.info_extra)).items()))

    def archive(self, form: Form = ".conda") -> bytes:
        """The bytes of the package file."""
        info = {name: Regular(content=content) for name, content in self.info().items()}
        if form == ".tar.bz2":
            return bz2.compress(_tar({**info, **self.paths()}, self.mtime))
        stem = f"{self.name}-{self.version}-{self.build}"
        members = {
            "metadata.json": b'{"conda_pkg_format_version": 2}',
            f"pkg-{stem}.tar.zst": _zstd(_tar(self.paths(), self.mtime)),
            f"info-{stem}.tar.zst": _zstd(_tar(info, self.mtime)),
        }
        return _zip(members)

    def write(self, directory: Path, form: Form = ".conda") -> Archive:
        """Write the package file below `directory`/<subdir>."""
        data = self.archive(form)
        path = directory / self.home / self.filename(form)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return Archive(path=path, subdir=self.home, record=self.record(data))

    def record(self, data: bytes) -> dict[str, Any]:
        """The `repodata.json` record of the package whose file is `data`."""
        return (
            self.index()
            | ({} if self.purls is None else {"purls": list(self.purls)})
            | {
                "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
            }
        )


def _as_file(value: FileLike) -> Regular | Link | SameFile | Folder:
    if isinstance(value, str):
        value = value.encode()
    return Regular(content=value) if isinstance(value, bytes) else value


def _arch_platform(subdir: str) -> tuple[str | None, str | None]:
    if subdir == "noarch":
        return None, None
    platform, arch = subdir.split("-", 1)
    return {"64": "x86_64", "32": "x86"}.get(arch, arch), platform


def _paths_json(paths: Mapping[str, Regular | Link | SameFile | Folder]) -> list[dict[str, Any]]:
    return [{"_path": path, **_path_json(file, paths)} for path, file in paths.items()]


def _path_json(
    file: Regular | Link | SameFile | Folder, paths: Mapping[str, Regular | Link | SameFile | Folder]
) -> dict[str, Any]:
    if isinstance(file, SameFile):
        return _path_json(paths[file.path], paths)
    if isinstance(file, Folder):
        return {"path_type": "directory"}
    if isinstance(file, Link):
        # conda-build states the digest of what the link leads to; readers ignore it.
        return {"path_type": "softlink", "sha256": hashlib.sha256(b"").hexdigest(), "size_in_bytes": 0}
    entry: dict[str, Any] = {
        "path_type": "hardlink",
        "sha256": file.sha256 or hashlib.sha256(file.content).hexdigest(),
        "size_in_bytes": len(file.content),
    }
    if file.placeholder:
        entry |= {"file_mode": file.placeholder, "prefix_placeholder": file.prefix}
    return entry | ({"no_link": True} if file.no_link else {})


def _tar(files: Mapping[str, Regular | Link | SameFile | Folder], mtime: int) -> bytes:
    buffer = io.BytesIO()
    # Hard links must follow the file they name.
    ordered = sorted(files.items(), key=lambda item: isinstance(item[1], SameFile))
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, file in ordered:
            member, content = _member(path, file, mtime)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _member(path: str, file: Regular | Link | SameFile | Folder, mtime: int) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(path)
    member.mtime = mtime
    member.mode = 0o644
    if isinstance(file, Folder):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    elif isinstance(file, Link):
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, file.target, 0o777
    elif isinstance(file, SameFile):
        member.type, member.linkname = tarfile.LNKTYPE, file.path
    else:
        member.size = len(file.content)
        member.mode = 0o755 if file.executable else 0o644
        member.mtime = mtime if file.mtime is None else file.mtime
        return member, file.content
    return member, b""


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3, threads=0, write_content_size=True).compress(data)


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()
