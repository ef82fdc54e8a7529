"""Locations: one string names one place where an image lives.

    docker://REFERENCE                 a registry
    oci:DIRECTORY[:TAG]                an OCI image layout
    oci-archive:FILE[:REFERENCE]       a tar of such a layout
    docker-archive:FILE[:REFERENCE]    what `docker save` writes; only to read

Each may end in `@sha256:…`, which a source must then have. The first colon behind the transport ends a path.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from msgspec import Struct

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.errors import ReferenceFormatError
from ociforge.oci.document import shown
from ociforge.oci.reference import Reference

if TYPE_CHECKING:
    from typing import NoReturn

__all__ = [
    "ArchiveKind",
    "ArchiveLocation",
    "LayoutLocation",
    "Location",
    "RegistryLocation",
    "parse",
    "parse_registry",
]

ArchiveKind = Literal["oci-archive", "docker-archive"]

_TRANSPORTS = ("docker", "oci", *get_args(ArchiveKind))
_FILE = re.compile(rf"(?:oci|{'|'.join(get_args(ArchiveKind))}):(?!\d+/)")  # a registry may be called `oci:5000`
_ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst")


class RegistryLocation(Struct, frozen=True, kw_only=True):
    reference: Reference

    def __str__(self) -> str:
        return f"docker://{self.reference}"


class LayoutLocation(Struct, frozen=True, kw_only=True):
    """A directory; `ref` is the tag, or the full image name, of one of the images in it."""

    path: Path
    ref: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        return f"oci:{_place(self.path, self.ref, self.digest)}"


class ArchiveLocation(Struct, frozen=True, kw_only=True):
    """A tar file; `ref` is the name of one of the images in it."""

    path: Path
    ref: str | None = None
    digest: Digest | None = None
    kind: ArchiveKind = "oci-archive"

    def __str__(self) -> str:
        return f"{self.kind}:{_place(self.path, self.ref, self.digest)}"


Location = RegistryLocation | LayoutLocation | ArchiveLocation


def parse(text: str) -> Location:
    """Read a location; `str` is the inverse. Looks at no file.

    Raises ReferenceFormatError, with a suggestion, for anything that is none.
    """
    transport, colon, rest = text.partition(":")
    if not colon or transport not in _TRANSPORTS:
        _refuse(text, transport if colon else None)
    if transport == "docker":
        if not rest.startswith("//"):
            raise ReferenceFormatError(f"malformed location: `{text}`", f"write `docker://{rest.lstrip('/')}`")
        return RegistryLocation(reference=Reference.parse(rest[2:]))
    if rest.startswith("//"):
        # Only a registry has slashes there; `oci://name` would else be a path from the root.
        raise ReferenceFormatError(f"malformed location: `{text}`", f"write `{transport}:{rest[2:]}`")
    path, ref, digest = _split_place(text, rest)
    if transport == "oci":
        return LayoutLocation(path=path, ref=ref, digest=digest)
    return ArchiveLocation(
        path=path, ref=ref, digest=digest, kind="oci-archive" if transport == "oci-archive" else "docker-archive"
    )


def parse_registry(text: str) -> RegistryLocation:
    """Read what can only be an image in a registry, with or without `docker://`.

    Raises ReferenceFormatError, also for what says that it is a layout or an archive.
    """
    if _FILE.match(text):
        hint = f"`--output {text}` writes it there"
        if _is_reference(text):
            hint += f"; for an image in a registry that is called so write `docker://{text}`"
        raise ReferenceFormatError(f"`{text}` is a layout or an archive, and no image in a registry", hint)
    return RegistryLocation(reference=Reference.parse(text.removeprefix("docker://")))


def _split_place(text: str, rest: str) -> tuple[Path, str | None, Digest | None]:
    """Path, name and digest of `PATH[:REF][@sha256:…]`."""
    # The digest comes off first, because it has a colon of its own.
    place, at, digest_text = rest.rpartition("@sha256:")
    try:
        digest = Digest.parse(f"sha256:{digest_text}") if at else None
    except DigestError as error:
        raise ReferenceFormatError(f"malformed location: `{text}`: {error}") from error
    path, colon, ref = (place if at else rest).partition(":")
    if not path:
        raise ReferenceFormatError(f"malformed location: `{text}`: no path behind `{text.partition(':')[0]}:`")
    if "\0" in path:
        raise ReferenceFormatError(f"malformed location: {text!r}: a path has no NUL")
    if colon and not re.fullmatch(r"[!-~]+", ref):
        raise ReferenceFormatError(
            f"malformed location: `{text}`: `{ref}` is no image name",
            "leave out the last colon, or put a tag behind it",
        )
    return Path(path), ref or None, digest


def _place(path: Path, ref: str | None, digest: Digest | None) -> str:
    return f"{path}{'' if ref is None else f':{ref}'}{'' if digest is None else f'@{digest}'}"


def _refuse(text: str, transport: str | None) -> NoReturn:
    """Say what the text might have meant."""
    known = ", ".join(f"`{name}{'://' if name == 'docker' else ':'}`" for name in _TRANSPORTS)
    if text.endswith(_ARCHIVE_SUFFIXES):
        hint = f"for an archive write `oci-archive:{text}`"
    elif text.startswith(("/", "./", "../")):
        hint = f"for a directory write `oci:{text}`"
    elif transport is not None and (close := difflib.get_close_matches(transport, _TRANSPORTS, n=1, cutoff=0.7)):
        hint = f"did you mean `{close[0]}{'://' if close[0] == 'docker' else ':'}`?"
    elif _is_reference(text):
        hint = f"for an image in a registry write `docker://{text}`"
    else:
        hint = f"a location begins with {known}"
    raise ReferenceFormatError(f"no transport in the location {shown(text)}: expected {known}", hint)


def _is_reference(text: str) -> bool:
    try:
        Reference.parse(text)
    except ReferenceFormatError:
        return False
    return True
