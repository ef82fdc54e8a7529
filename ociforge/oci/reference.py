"""Image references: `registry/repository[:tag][@digest]` (distribution-spec, "Pulling manifests").

The grammar is strict and anchored: what it does not know it refuses, so that no part of a text is ever dropped on the
way to a URL or to a file name. Short names mean Docker Hub, as everywhere.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from msgspec import Struct

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.errors import ReferenceFormatError
from ociforge.oci.document import shown

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Reference"]

_HUB = "docker.io"
_HUB_ALIASES = frozenset({"index.docker.io"})
_MAX_NAME = 255  # registry and repository together; many registries take no more

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://", re.ASCII)
# What URLs have before the host; an `@` before the first slash is a digest's else.
_USER_INFO = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://)?[^/@]*@(?!sha\d+:)")
_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Reference(Struct, frozen=True, kw_only=True):
    """One image in one repository of one registry.

    `registry` is host[:port], lower case, as credentials name it (`docker.io` for Docker Hub); `repository` is complete
    (`library/ubuntu`); at least one of `tag` and `digest` is set. `parse` and `str` are inverse. Making one with parts
    that could not be read back raises ReferenceFormatError.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        _check_registry(self.registry)
        _check_repository(self.repository)
        if self.registry == _HUB and "/" not in self.repository:
            raise _malformed(self.repository, "a repository of `docker.io` needs a namespace, such as `library/`")
        if len(self.name) > _MAX_NAME:
            raise _malformed(f"{self.name[:40]}…", f"longer than {_MAX_NAME} characters")
        if self.tag is not None and not _TAG.fullmatch(self.tag):
            raise _malformed(self.tag, "not a tag", "a tag has at most 128 letters, digits, `_`, `.` and `-`")
        if self.tag is None and self.digest is None:
            raise _malformed(self.name, "neither tag nor digest")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a reference; `ubuntu` means `docker.io/library/ubuntu:latest`. Raises ReferenceFormatError."""
        if (found := _USER_INFO.match(text)) is not None:
            raise ReferenceFormatError(
                f"malformed image reference: `…@{text[found.end() :]}`: a reference holds no user and password",
                "leave them out, and log in with `ociforge login`",
            )
        try:
            return cls._parse(text)
        except ReferenceFormatError as error:
            raise ReferenceFormatError(
                f"malformed image reference: {shown(text)}: {error.message}", error.hint
            ) from None

    @classmethod
    def _parse(cls, text: str) -> Self:
        if scheme := _SCHEME.match(text):
            raise ReferenceFormatError("a reference has no scheme", f"leave out `{scheme[0]}`")
        rest, at, digest_text = text.partition("@")
        digest = _digest(digest_text) if at else None
        # A colon behind the last slash starts the tag, one before it a port.
        head, slash, last = rest.rpartition("/")
        last, colon, tag = last.partition(":")
        registry, repository = _split(f"{head}{slash}{last}")
        return cls(
            registry=registry,
            repository=repository,
            tag=tag if colon else None if digest is not None else "latest",
            digest=digest,
        )

    @property
    def name(self) -> str:
        """`registry/repository`, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def identifier(self) -> str:
        """What to ask the registry for: the digest if there is one, else the tag."""
        return str(self.digest) if self.digest is not None else str(self.tag)

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{self.name}{tag}{digest}"


def _split(name: str) -> tuple[str, str]:
    """Registry and complete repository of a name without tag and digest."""
    first, slash, rest = name.partition("/")
    if not slash or not _is_registry(first.lower()):
        registry, repository = _HUB, name
        if _HEX_DIGEST.fullmatch(name):
            raise ReferenceFormatError("64 hexadecimal digits are no name", "write a digest as `name@sha256:…`")
    else:
        registry, repository = first.lower(), rest
    if registry in _HUB_ALIASES:
        registry = _HUB
    if registry == _HUB and "/" not in repository:
        _check_repository(repository)  # as it was written
        repository = f"library/{repository}"
    return registry, repository


def _is_registry(first: str) -> bool:
    return first == "localhost" or "." in first or ":" in first


def _check_registry(registry: str) -> None:
    if registry in _HUB_ALIASES or not _is_registry(registry):
        raise _malformed(registry, "not a registry: expected a host with a dot, a port, or `localhost`")
    host, port = _host_and_port(registry)
    if port is not None and (not _PORT.fullmatch(port) or int(port) > 65535):
        raise _malformed(registry, "what follows the colon is no port")
    if host.startswith("["):
        _check_ipv6(host)
    elif not _HOST.fullmatch(host):
        raise _malformed(registry, "not a host name")


def _host_and_port(registry: str) -> tuple[str, str | None]:
    bracketed = registry.rfind("]") + 1  # colons within the brackets are the address's own
    host, colon, port = registry[bracketed:].partition(":")
    return registry[:bracketed] + host, port if colon else None


def _check_ipv6(host: str) -> None:
    try:
        if not host.endswith("]") or "%" in host:  # a zone means nothing outside of one machine
            raise ValueError(host)
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        raise _malformed(host, "not an IPv6 address in brackets") from None


def _check_repository(repository: str) -> None:
    if all(_COMPONENT.fullmatch(component) for component in repository.split("/")):
        return
    if repository.lower() != repository:
        raise _malformed(repository, "upper-case letters", "repository must be lowercase")
    raise _malformed(
        repository,
        "not a repository name",
        "its parts are lower-case letters and digits, with single `.`, `_`, `__` or dashes between them",
    )


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except DigestError as error:
        hint = "a digest is `sha256:` and 64 lower-case hexadecimal digits"
        raise _malformed(text, "not a digest", hint) from error


def _malformed(part: str, why: str, hint: str | None = None) -> ReferenceFormatError:
    return ReferenceFormatError(f"{shown(part)}: {why}", hint)
