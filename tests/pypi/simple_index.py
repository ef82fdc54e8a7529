"""Distributions that hold little more than metadata, and indexes (PEP 503) of them, as files to be served."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Dist", "write_index"]


@dataclass(frozen=True, kw_only=True)
class Dist:
    """A wheel, or with `sdist` a source distribution. `metadata` offers METADATA beside the wheel (PEP 658)."""

    name: str
    version: str = "1.0"
    tag: str = "py3-none-any"
    requires: tuple[str, ...] = ()
    requires_python: str | None = None
    extras: tuple[str, ...] = ()
    sdist: bool = False
    metadata: bool = False
    pyproject: str | None = None
    hashed: bool = field(default=True)

    @property
    def stem(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}"

    @property
    def filename(self) -> str:
        return f"{self.stem}.tar.gz" if self.sdist else f"{self.stem}-{self.tag}.whl"

    def describe(self) -> bytes:
        lines = ["Metadata-Version: 2.2", f"Name: {self.name}", f"Version: {self.version}"]
        lines += [f"Requires-Dist: {text}" for text in self.requires]
        lines += [f"Provides-Extra: {extra}" for extra in self.extras]
        lines += [f"Requires-Python: {self.requires_python}"] if self.requires_python else []
        return ("\n".join(lines) + "\n").encode()

    def content(self) -> bytes:
        return self._sdist() if self.sdist else self._wheel()

    def write(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / self.filename
        path.write_bytes(self.content())
        return path

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content()).hexdigest()

    def _wheel(self) -> bytes:
        buffer = io.BytesIO()
        info = f"{self.stem}.dist-info"
        members = {
            f"{self.name.replace('-', '_')}/__init__.py": b"",
            f"{info}/METADATA": self.describe(),
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {self.tag}\n".encode(),
            f"{info}/RECORD": b"",
        }
        with zipfile.ZipFile(buffer, "w") as wheel:
            for name, content in members.items():
                wheel.writestr(zipfile.ZipInfo(name), content)
        return buffer.getvalue()

    def _sdist(self) -> bytes:
        buffer = io.BytesIO()
        members = {"PKG-INFO": self.describe()}
        members |= {} if self.pyproject is None else {"pyproject.toml": self.pyproject.encode()}
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
            for name, content in members.items():
                member = tarfile.TarInfo(f"{self.stem}/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        # gzip writes the time into its header; nothing else depends on it
        return buffer.getvalue()[:4] + b"\0\0\0\0" + buffer.getvalue()[8:]


def write_index(root: Path, dists: Iterable[Dist]) -> None:
    """`root`/simple/NAME/index.html with links to `root`/files."""
    pages: dict[str, list[str]] = {}
    for dist in dists:
        dist.write(root / "files")
        offered = ' data-core-metadata="true"' if dist.metadata else ""
        if dist.metadata:
            (root / "files" / f"{dist.filename}.metadata").write_bytes(dist.describe())
        fragment = f"#sha256={dist.sha256}" if dist.hashed else ""
        link = f'<a href="../../files/{dist.filename}{fragment}"{offered}>{dist.filename}</a>'
        pages.setdefault(dist.name.lower().replace("_", "-"), []).append(link)
    for name, links in pages.items():
        page = root / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("<!DOCTYPE html><html><body>\n" + "<br>\n".join(links) + "\n</body></html>\n")
