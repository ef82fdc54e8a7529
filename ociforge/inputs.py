"""What an image follows from: one digest over all of it, known before anything is fetched, linked or packed.

It names the image as a layer key names a layer. A build looks for it in the store and in images that were pushed
before: where it is found, nothing is left to be made.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from layers.digest import Digest
from layers.entry import Directory, File, Hardlink, Symlink
from ociforge.conda.meta import identity
from ociforge.oci.descriptor import canonical_json
from ociforge.plan import FORMAT
from ociforge.runtime import description
from ociforge.workspace.settings import DEFAULT_BASE, FileRules
from ociforge.workspace.task import resolve_command

if TYPE_CHECKING:
    from collections.abc import Iterable

    from layers.entry import Entry
    from ociforge.request import Request
    from ociforge.workspace.lockfile import PypiRow

__all__ = ["content_key", "image_key", "is_settled"]


def image_key(request: Request, files: Iterable[Entry]) -> Digest | None:
    """The digest of the inputs of the image that `request` asks for; `files` are the workspace's, which are read.

    None when the image follows from more than that: what PyPI packages that are locked as sources become is up to their
    build backends.
    """
    if not all(is_settled(row) for row in request.selection.pypi):
        return None
    # The name of the image, the file patterns, the base's and the codec's name mean what other facts tell.
    settings = replace(request.settings, name=None, base=DEFAULT_BASE, compression="", files=FileRules(), cmd=None)
    manifest = request.workspace.manifest
    environment = request.environment
    facts = {
        "format": FORMAT,
        "platform": str(request.platform),
        "base": str(request.base.identity),
        "codec": request.codec.identity,
        "epoch": request.epoch,
        "clamp": request.clamp,
        "settings": _plain(settings),
        "cmd": _plain(resolve_command(request.settings, environment, shell="/bin/sh")),
        "description": description(manifest),
        "manifest": manifest.path.name,
        "environment": {
            "name": environment.name,
            "title": environment.display_name,
            "workspace": [environment.workspace_name, environment.workspace_version],
            "platform": _plain(environment.platform),
            "scripts": list(environment.activation_scripts),
            "variables": [list(pair) for pair in environment.activation_env.items()],
        },
        "conda": sorted([str(record.name.normalized), str(identity(record))] for record in request.selection.records),
        "pypi": sorted(_row(request, row) for row in request.selection.pypi),
        "files": [_file(entry) for entry in files],
    }
    return Digest.of(canonical_json(facts))


def content_key(entries: Iterable[Entry], codec: str) -> Digest:
    """The key of a layer that holds `entries`, which are read, and is compressed by the codec with this identity."""
    return Digest.of(canonical_json({"format": FORMAT, "codec": codec, "entries": [_entry(e) for e in entries]}))


def is_settled(row: PypiRow) -> bool:
    """Whether the row's digest settles what is installed: it is a wheel, and not something to build one from."""
    return row.sha256 is not None and re.split(r"[?#]", row.location)[0].endswith(".whl")


def _row(request: Request, row: PypiRow) -> list[str]:
    editable = any(spec.editable for spec in request.environment.pypi_dependencies.get(row.name, ()))
    # Where a wheel of an index comes from, no file of the image tells; of others `direct_url.json` does.
    indexed = "://" in row.location and not row.location.startswith("direct+")
    location = posixpath.basename(re.split(r"[?#]", row.location)[0]) if indexed else row.location
    return [row.name, row.version or "", location, row.sha256 or "", str(editable)]


def _file(entry: Entry) -> list[object]:
    match entry:
        case File():
            with entry.content.open() as stream:
                return [entry.path, entry.mode, str(Digest.of_stream(stream))]
        case Symlink():
            return [entry.path, "link", entry.target]
        case _:
            return [entry.path]


def _entry(entry: Entry) -> list[object]:
    """All of it that a tar holds."""
    match entry:
        case Hardlink():
            return ["hardlink", entry.path, entry.target]
        case Symlink():
            return ["symlink", entry.path, entry.target, entry.uid, entry.gid, entry.mtime]
        case Directory():
            return ["directory", entry.path, entry.mode, entry.uid, entry.gid, entry.mtime]
        case File():
            with entry.content.open() as stream:
                digest = str(Digest.of_stream(stream))
            metadata = [entry.mode, entry.uid, entry.gid, entry.mtime, [[k, v.hex()] for k, v in entry.xattrs]]
            return ["file", entry.path, digest, *metadata]


def _plain(value: Any) -> Any:
    """Frozen values as JSON has them."""
    if isinstance(value, Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return [[key, _plain(item)] for key, item in value.items()]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{value!r} has no plain form")
