"""`conda-meta`: what an environment says about its packages, for conda, rattler and the scanners (trivy, syft).

Written here and not copied from rattler, whose records hold host paths. A record is a function of (archive, lock
row, prefix, python minor): nothing in it depends on neighbours, so it can live in its package's layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from layers.digest import Digest
from layers.entry import Bytes, File
from ociforge.conda.url import shipped_channel, shipped_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rattler import RepoDataRecord

__all__ = ["PathRecord", "history_entry", "identity", "record_entry", "record_name"]

# Facts taken over from the record. A list, so that what a newer rattler adds cannot change recorded bytes unnoticed.
_FACTS = (
    "arch",
    "build",
    "build_number",
    "constrains",
    "depends",
    "extra_depends",
    "features",
    "flags",
    "legacy_bz2_md5",
    "legacy_bz2_size",
    "license",
    "license_family",
    "md5",
    "name",
    "noarch",
    "platform",
    "purls",
    "python_site_packages_path",
    "run_exports",
    "sha256",
    "size",
    "subdir",
    "timestamp",
    "track_features",
    "version",
)

# pixi's text: `conda run -p` and `conda list` take a directory for an environment when this file is in it.
_HISTORY = b"// not relevant for pixi but for `conda run -p`"


class PathRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One path of a package as `paths_data` has it (conda's and rattler's names)."""

    path: str = msgspec.field(name="_path")
    path_type: str
    original_path: str | None = None
    no_link: bool = False
    sha256: str | None = None
    sha256_in_prefix: str | None = None
    size_in_bytes: int | None = None
    file_mode: str | None = None
    prefix_placeholder: str | None = None


def record_entry(record: RepoDataRecord, paths: Sequence[PathRecord], *, path: str, mtime: int) -> File:
    """The file `path` (an image path below `<prefix>/conda-meta`) that describes `record` and its `paths`.

    `paths` bear their own names, also those that another package provides in the end: conda lists them the same way.
    """
    ordered = sorted(paths, key=lambda entry: entry.path)
    document = _facts(record) | {
        "files": [entry.path for entry in ordered],
        "link": {"source": "", "type": 1},
        "paths_data": {"paths": ordered, "paths_version": 1},
        "requested_specs": [],
    }
    data = _canonical(document)
    return File(path=path, size=len(data), content=Bytes(data), mtime=mtime)


def record_name(record: RepoDataRecord) -> str:
    """The name of the package's file in `conda-meta`, as conda and rattler have it."""
    return f"{record.name.normalized}-{record.version}-{record.build}.json"


def identity(record: RepoDataRecord) -> Digest:
    """The digest of all that the `conda-meta` file takes from the lock's row.

    Two locks can tell different things (dependencies, purls, channel) of one archive: what a layer holds is settled
    by the archive's digest and this one together.
    """
    return Digest.of(_canonical(_facts(record)))


def history_entry(prefix: str, mtime: int) -> File:
    """`conda-meta/history` of the environment at `prefix`, which no package owns."""
    path = f"{prefix.strip('/')}/conda-meta/history"
    return File(path=path, size=len(_HISTORY), content=Bytes(_HISTORY), mtime=mtime)


def _facts(record: RepoDataRecord) -> dict[str, Any]:
    document = msgspec.json.decode(record.to_json(), type=dict[str, Any])
    facts = {name: document[name] for name in _FACTS if document.get(name) is not None}
    url = shipped_url(record.url, subdir=record.subdir, filename=record.file_name)
    channel = document.get("channel")
    return (
        {"constrains": [], "depends": []}
        | facts
        | {"fn": record.file_name, "url": url}
        | ({"channel": shipped_channel(channel)} if channel else {})
    )


def _canonical(document: object) -> bytes:
    """Sorted keys, no blanks, UTF-8 unescaped."""
    return msgspec.json.encode(document, order="sorted")
