"""Reading an image from a registry or its mirrors."""

from __future__ import annotations

import io
import itertools
import threading
import time
from typing import TYPE_CHECKING, BinaryIO, cast

from msgspec.structs import replace

from ociforge.events import ignore
from ociforge.oci.blob import VerifiedReader
from ociforge.transports.auth import CredentialStore
from ociforge.transports.document import DOCUMENT_TYPES
from ociforge.transports.download import BlobStream
from ociforge.transports.naming import Name
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry.doing import doing
from ociforge.transports.registry.forge import ForgeRegistry
from ociforge.transports.registry.mirrors import Route, mirrors_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from layers.digest import Digest
    from ociforge.events import Notify
    from ociforge.oci.descriptor import Descriptor
    from ociforge.oci.reference import Reference
    from ociforge.transports.http import Wire

__all__ = ["RegistrySource"]

# At a mirror: there is somebody else to ask.
_MIRROR_ATTEMPTS = 2
_MIRROR_CONNECT = 3.0  # seconds
_MIRROR_WAIT = 1.0  # seconds


class RegistrySource:
    """The image or index that `reference` names, by its digest if it has one.

    The mirrors that `options` has for the registry are asked first, each with its own credentials. `notify` hears of
    credentials, of mirrors that are passed over, and of the registry's warnings; of transfers it hears from who stores
    them. Errors of registries say what was being pulled.
    """

    def __init__(
        self,
        reference: Reference,
        options: RegistryOptions | None = None,
        credentials: CredentialStore | None = None,
        notify: Notify = ignore,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        options, credentials = options or RegistryOptions(), credentials or CredentialStore()
        hasty = _hasty(options)
        mirrors = [
            ForgeRegistry(mirror, hasty, credentials, notify, sleep=lambda seconds: sleep(min(seconds, _MIRROR_WAIT)))
            for mirror in mirrors_of(reference, options)
        ]
        self._reference = reference
        self._head_first = options.head_first
        self._registry = ForgeRegistry(reference, options, credentials, notify, sleep=sleep)
        self._route = Route(mirrors, self._registry, notify)
        self._lock = threading.Lock()
        self._root: Descriptor | None = None
        self._documents: dict[Digest, bytes] = {}

    def __str__(self) -> str:
        return f"docker://{self._reference}"

    def root(self) -> Descriptor:
        """Asks once: HEAD, which Docker Hub does not count, and GET only when that does not tell all."""
        with self._lock, doing(self._what):
            if self._root is None:
                self._root = self._route.first(self._resolve)
            return self._root

    def open(self, descriptor: Descriptor) -> BinaryIO:
        with doing(self._what):
            if descriptor.media_type in DOCUMENT_TYPES:
                return VerifiedReader(io.BytesIO(self._document(descriptor)), descriptor)
            return self._blob(descriptor)

    def origin(self, descriptor: Descriptor) -> Reference | None:
        return replace(self._reference, tag=None, digest=descriptor.digest)

    def names(self) -> tuple[Name, ...]:
        return () if self._reference.tag is None else (Name.of(replace(self._reference, digest=None)),)

    def close(self) -> None:
        """Close the idle connections; streams that are open go on."""
        self._route.close()

    @property
    def _what(self) -> str:
        return f"pulling `{self._reference}`"

    def _resolve(self, registry: ForgeRegistry) -> Descriptor:
        head = self._head_first and self._reference.digest is None  # which tells nothing that is not known
        found = registry.head_manifest(self._reference.identifier) if head else None
        if found is None:
            document = registry.fetch_manifest(self._reference.identifier)
            found = document.descriptor
            self._documents[found.digest] = document.data
        return found

    def _document(self, descriptor: Descriptor) -> bytes:
        data = self._documents.get(descriptor.digest)
        if data is None:
            data = self._route.first(lambda registry: registry.fetch_manifest(str(descriptor.digest)).data)
            self._documents[descriptor.digest] = data
        return data

    def _blob(self, descriptor: Descriptor) -> BinaryIO:
        """The blob as a verified stream that survives broken connections; the caller closes it."""
        calls = itertools.count(1)

        def get(offset: int) -> requests.Response:
            if next(calls) > _MIRROR_ATTEMPTS:
                self._route.leave_mirror("its connections break")
            return self._route.first(lambda registry: registry.request_blob(descriptor, offset))

        stream = _Download(get, descriptor, self._registry.wire, self._what)
        return VerifiedReader(cast("BinaryIO", stream), descriptor)


def _hasty(options: RegistryOptions) -> RegistryOptions:
    return replace(
        options,
        attempts=min(options.attempts, _MIRROR_ATTEMPTS),
        connect_timeout=min(options.connect_timeout, _MIRROR_CONNECT),
    )


class _Download(BlobStream):
    """A stream whose errors say `what` was being done."""

    def __init__(self, get: Callable[[int], requests.Response], descriptor: Descriptor, wire: Wire, what: str) -> None:
        super().__init__(get, descriptor, wire)
        self._what = what

    def read(self, size: int = -1, /) -> bytes:
        with doing(self._what):
            return super().read(size)
