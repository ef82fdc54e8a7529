"""What proves who we are, and the names that it goes by in the files of docker and podman."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.errors import ReferenceFormatError
from ociforge.oci.document import shown
from ociforge.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["Account", "Credential", "bare", "names"]

_HUB = "docker.io"
_HUB_SERVER = "https://index.docker.io/v1/"  # what `docker login` calls Docker Hub
_HUB_HOSTS = (_HUB, "index.docker.io", "registry-1.docker.io")


class Credential(Struct, frozen=True, kw_only=True):
    """What proves who we are; exactly one of the three kinds is set. Secrets never show in `repr`.

    `username` and `password`; `identity_token`, an OAuth2 refresh token; `registry_token`, a bearer token to be used as
    it is. `source` says where it comes from, for messages: a file, with the key in it unless that is the registry's
    own name, or the program that was asked.
    """

    source: str
    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credential(source={self.source!r}, username={self.username!r})"


class Account(Struct, frozen=True, kw_only=True):
    """What one logs in to: a registry (`host[:port]`, `docker.io` for Docker Hub), or only a namespace of it.

    `parse` and `str` are inverse.
    """

    registry: str
    namespace: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read HOST[:PORT][/NAMESPACE]; `https://HOST/`, as older tools write it, is understood.

        Raises ReferenceFormatError.
        """
        account = cls.of(text.removeprefix("docker://"))
        try:
            Reference(registry=account.registry, repository="library/any", tag="latest")
        except ReferenceFormatError as error:
            raise ReferenceFormatError(f"malformed registry: {shown(text)}: {error.message}", error.hint) from None
        try:
            account.reference()
        except ReferenceFormatError:
            raise ReferenceFormatError(
                f"malformed registry: {shown(text)}: {shown(account.namespace)}: not a namespace",
                "name the registry, and the first parts of its repositories at most: no tag, no digest",
            ) from None
        return account

    @classmethod
    def of(cls, key: str) -> Self:
        """Whose the entry of a file is, by its key, which is not checked."""
        host, _, namespace = bare(key).partition("/")
        return cls(registry=_HUB if host.lower() in _HUB_HOSTS else host.lower(), namespace=namespace)

    def reference(self) -> Reference:
        """Some image that the credential is for."""
        return Reference(registry=self.registry, repository=f"{self.namespace or 'library'}/any", tag="latest")

    @property
    def server(self) -> str:
        """What credential helpers know the registry by."""
        return _HUB_SERVER if self.registry == _HUB else self.registry

    @property
    def key(self) -> str:
        """The name of its entry in a file; docker knows no namespaces."""
        return str(self) if self.namespace else self.server

    def __str__(self) -> str:
        return "/".join(filter(None, (self.registry, self.namespace)))


def names(registry: str, repository: str) -> Iterator[str]:
    """The names that a credential may go by: namespaces first, the longest first, then the registry."""
    hosts = _HUB_HOSTS if registry in _HUB_HOSTS else (registry,)
    parts = repository.split("/") if repository else []
    for length in range(len(parts), -1, -1):
        for host in hosts:
            yield "/".join([host, *parts[:length]])


def bare(key: str) -> str:
    """`https://host/v1/` as older logins write it -> `host`; anything else is a name already."""
    match = re.fullmatch(r"(?:https?://)?(.+?)(?:/v[12])?/*", key)
    return match[1] if match else key
