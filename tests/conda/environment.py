"""Records and environments for the tests of `ociforge.conda`."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import zstandard
from rattler import PackageRecord, RepoDataRecord

from layers.entry import Directory, File, Hardlink, Symlink
from tests.support.conda import Archive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from layers.entry import Entry
    from ociforge.conda.package import Installation
    from tests.support.channel import Channel

__all__ = ["content", "entries", "facts", "records", "without_paths_json"]


def records(channel: Channel, *names: str, url: str | None = None) -> list[RepoDataRecord]:
    """What a lock has of the channel's packages called `names` (all, when none is given), served from `url`."""
    served = channel if url is None else channel.at(url)
    made = []
    for archive in channel.named(*names):
        index = channel.path / f"{archive.filename}.index.json"
        index.write_text(json.dumps(dict(archive.record)))
        record = PackageRecord.from_index_json(index)
        record.sha256 = bytes.fromhex(archive.record["sha256"])
        record.md5 = bytes.fromhex(archive.record["md5"])
        record.size = archive.record["size"]
        made.append(RepoDataRecord(record, archive.filename, served.url_of(archive), served.url))
    return made


def without_paths_json(channel: Channel) -> Channel:
    """The channel's packages as conda-build wrote them before 2017: `.tar.bz2`, listed in `info/files`."""
    return replace(channel, archives=tuple(_without_paths_json(archive) for archive in channel.archives))


def _without_paths_json(archive: Archive) -> Archive:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(archive.path) as conda,
        tarfile.open(fileobj=buffer, mode="w:bz2") as old,
    ):
        for name in sorted(conda.namelist()):
            if name.endswith(".tar.zst"):
                data = zstandard.ZstdDecompressor().decompress(conda.read(name))
                with tarfile.open(fileobj=io.BytesIO(data)) as part:
                    for member in part:
                        if member.name != "info/paths.json":
                            old.addfile(member, part.extractfile(member) if member.isreg() else None)
    path = archive.path.with_name(archive.path.name.removesuffix(".conda") + ".tar.bz2")
    path.write_bytes(buffer.getvalue())
    digests = {name: hashlib.new(name, buffer.getvalue()).hexdigest() for name in ("md5", "sha256")}
    return Archive(
        path=path, subdir=archive.subdir, record={**archive.record, **digests, "size": len(buffer.getvalue())}
    )


def entries(installation: Installation) -> dict[str, Entry]:
    """All entries by path; directories that several packages have must be the same."""
    found: dict[str, Entry] = {}
    for package in installation.packages:
        for entry in package.entries:
            other = found.setdefault(entry.path, entry)
            assert other is entry or (isinstance(entry, Directory) and other == entry), entry.path
    return found


def content(entry: Entry) -> bytes:
    """The bytes of a file entry."""
    assert isinstance(entry, File)
    with entry.content.open() as stream:
        data = stream.read()
    assert len(data) == entry.size
    return data


def facts(all_entries: Iterable[Entry]) -> list[tuple[object, ...]]:
    """Everything of the entries that reaches a layer, contents included; where they are read from left out."""
    made: list[tuple[object, ...]] = []
    for entry in all_entries:
        match entry:
            case File():
                made.append((entry.path, entry.mode, entry.uid, entry.gid, entry.mtime, entry.xattrs, content(entry)))
            case Directory():
                made.append((entry.path, entry.mode, entry.uid, entry.gid, entry.mtime))
            case Symlink():
                made.append((entry.path, entry.target, entry.uid, entry.gid, entry.mtime))
            case Hardlink():
                made.append((entry.path, entry.target))
    return made
