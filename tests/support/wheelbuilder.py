"""Wheels written from a dict, well-formed or not."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import stat
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Executable", "Wheel", "record_row"]

Row = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Executable:
    """A file that anybody may run."""

    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """What a wheel is made of.

    In the names of `files`, `{data}` and `{info}` stand for its special directories. `record` has rows of RECORD that
    differ from what would be right, by path; None leaves a row out. `extra` members are written as they are, at the
    end, whether or not they make sense, and are not in RECORD. `filename` replaces the one that tells the truth.
    """

    name: str = "demo"
    version: str = "1.0"
    tag: str = "py3-none-any"
    files: Mapping[str, bytes | Executable] = field(default_factory=dict)
    entry_points: str | None = None
    requires: tuple[str, ...] = ()
    metadata: str | None = None
    wheel: str | None = None
    record: Mapping[str, Row | None] = field(default_factory=dict)
    extra: tuple[tuple[str | zipfile.ZipInfo, bytes], ...] = ()
    filename: str | None = None
    date: tuple[int, int, int, int, int, int] = (2024, 2, 3, 4, 5, 6)

    @property
    def stem(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}"

    def write(self, directory: Path) -> Path:
        """The wheel as a file in `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / (self.filename or f"{self.stem}-{self.tag}.whl")
        members = self._members()
        info = f"{self.stem}.dist-info"
        rows = {name: record_row(name, content) for name, (content, _) in members.items()}
        rows[f"{info}/RECORD"] = (f"{info}/RECORD", "", "")
        rows |= {name: row for name, row in self.record.items() if row is not None}
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            row for name, row in rows.items() if self.record.get(name, row) is not None
        )
        members[f"{info}/RECORD"] = (text.getvalue().encode(), 0o644)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, (content, mode) in members.items():
                member = zipfile.ZipInfo(name, self.date)
                member.external_attr = (stat.S_IFREG | mode) << 16
                member.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(member, content)
            for odd, content in self.extra:
                archive.writestr(zipfile.ZipInfo(odd, self.date) if isinstance(odd, str) else odd, content)
        return path

    def _members(self) -> dict[str, tuple[bytes, int]]:
        info = f"{self.stem}.dist-info"
        requires = "".join(f"Requires-Dist: {requirement}\n" for requirement in self.requires)
        texts = {
            "METADATA": self.metadata
            or f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n{requires}",
            "WHEEL": self.wheel or _wheel_text(self.tag),
        }
        if self.entry_points is not None:
            texts["entry_points.txt"] = self.entry_points
        members: dict[str, tuple[bytes, int]] = {}
        for name, content in self.files.items():
            path = name.replace("{data}", f"{self.stem}.data").replace("{info}", info)
            members[path] = (content.content, 0o755) if isinstance(content, Executable) else (content, 0o644)
        return members | {f"{info}/{name}": (text.encode(), 0o644) for name, text in texts.items()}


def record_row(path: str, content: bytes, algorithm: str = "sha256") -> Row:
    """RECORD's row for a file."""
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest()).decode().rstrip("=")
    return path, f"{algorithm}={digest}", str(len(content))


def _wheel_text(tag: str) -> str:
    python, abi, platform = tag.split("-")
    tags = "".join(
        f"Tag: {p}-{a}-{m}\n" for p in python.split(".") for a in abi.split(".") for m in platform.split(".")
    )
    pure = "true" if platform == "any" else "false"
    return f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: {pure}\n{tags}"
