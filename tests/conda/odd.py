"""Archives that no tool writes: a package's payload, member by member."""

from __future__ import annotations

import bz2
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zstandard

from tests.support.conda import CondaPackage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.conda import Form

__all__ = ["OddPackage", "directory", "file", "hard", "listing", "other", "soft"]

Part = tuple[tarfile.TarInfo, bytes]

BUILT = 1_704_164_645  # the mtime of archives made by tests.support


@dataclass(frozen=True, slots=True, kw_only=True)
class OddPackage(CondaPackage):
    """A package whose payload is `members`, in this order, whatever it says of them; an empty document is left out."""

    members: tuple[Part, ...] = ()

    def archive(self, form: Form = ".conda") -> bytes:
        info = [file(name, data) for name, data in self.info().items() if data]
        if form == ".tar.bz2":
            return bz2.compress(_tar([*info, *self.members]))
        buffer = io.BytesIO()
        stem = f"{self.name}-{self.version}-{self.build}"
        with zipfile.ZipFile(buffer, "w") as conda:
            conda.writestr(zipfile.ZipInfo("metadata.json"), b'{"conda_pkg_format_version": 2}')
            for kind, members in (("pkg", self.members), ("info", info)):
                data = zstandard.ZstdCompressor(write_content_size=True).compress(_tar(members))
                conda.writestr(zipfile.ZipInfo(f"{kind}-{stem}.tar.zst"), data)
        return buffer.getvalue()


def listing(*paths: dict[str, object]) -> dict[str, bytes]:
    """`info_extra` of a package that lists `paths`: each has a `_path`, and is a file unless it says otherwise."""
    document = {"paths": [{"path_type": "hardlink"} | path for path in paths], "paths_version": 1}
    return {"info/paths.json": json.dumps(document).encode()}


def file(name: str, data: bytes = b"x", *, mtime: int = BUILT) -> Part:
    member = _member(name, tarfile.REGTYPE, mtime=mtime)
    member.size = len(data)
    return member, data


def soft(name: str, target: str) -> Part:
    return _member(name, tarfile.SYMTYPE, target), b""


def hard(name: str, target: str) -> Part:
    return _member(name, tarfile.LNKTYPE, target), b""


def directory(name: str) -> Part:
    return _member(name, tarfile.DIRTYPE), b""


def other(name: str, kind: bytes) -> Part:
    return _member(name, kind), b""


def _member(name: str, kind: bytes, target: str = "", *, mtime: int = BUILT) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mtime = kind, target, mtime
    return member


def _tar(members: Iterable[Part]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
