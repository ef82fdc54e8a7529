"""Writing an image to a registry."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from ociforge.errors import RegistryError
from ociforge.events import BlobDone, ignore
from ociforge.oci.blob import read_document
from ociforge.transports.base import Blob
from ociforge.transports.document import DOCUMENT_TYPES, Document
from ociforge.transports.registry.doing import doing
from ociforge.transports.registry.forge import ForgeRegistry, UnknownBlobError
from ociforge.transports.registry.held import Held
from ociforge.transports.registry.referrers import subject_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self

    from layers.digest import Digest
    from ociforge.events import Notify
    from ociforge.oci.descriptor import Descriptor
    from ociforge.oci.reference import Reference
    from ociforge.transports.auth import CredentialStore
    from ociforge.transports.base import Outcome
    from ociforge.transports.options import RegistryOptions

__all__ = ["RegistryDestination"]


class RegistryDestination:
    """The repository of `reference`, and its tag. Nothing has a name there before `tag`; uploads that are broken off
    are left to the registry to forget.

    Entering it asks for the tag with the right to push, so that a registry that is down or refuses us is known before
    anything is made for it. It may be entered again within, at no cost: a caller can hold it open around `publish`.
    What the image behind the tag holds is taken for held, unless `options` say otherwise; what was put once is not put
    again. Errors of the registry say what was being pushed.
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
        self._reference = reference
        self._trusts = options is None or options.trust_manifests
        self._registry = ForgeRegistry(reference, options, credentials, notify, sleep=sleep)
        self._notify = notify
        self._lock = threading.Lock()
        self._entered = 0
        self._behind: Descriptor | None = None  # the name, when this was entered
        self._held = Held(self._registry, None)
        self._in_flight: dict[Digest, threading.Lock] = {}
        self._absent: set[Digest] = set()  # the registry said so, and we have put nothing there since
        self._outcomes: dict[Digest, Outcome] = {}
        self._blobs: dict[Digest, Blob] = {}
        self._documents: dict[Digest, Document] = {}

    def __str__(self) -> str:
        return f"docker://{self._reference}"

    def has(self, descriptor: Descriptor) -> bool:
        with self._doing():
            return self._has(descriptor)

    def put(self, blob: Blob) -> Outcome:
        """As `Destination.put`. What has been put is not put again, however many threads do; the outcome stays."""
        digest = blob.descriptor.digest
        with self._lock:
            turn = self._in_flight.setdefault(digest, threading.Lock())
        with turn, self._doing():
            if digest not in self._outcomes:
                document = blob.descriptor.media_type in DOCUMENT_TYPES
                self._outcomes[digest] = self._put_document(blob) if document else self._put_blob(blob)
                self._absent.discard(digest)
            return self._outcomes[digest]

    def tag(self, root: Descriptor) -> str:
        """Move the reference's tag to `root`, if it has one; some registries refuse even to repeat a tag."""
        reference = self._reference
        if reference.digest is not None and reference.digest != root.digest:
            raise RegistryError(
                f"pushing to `{reference}`: the image has the digest `{root.digest}`",
                "leave out the digest, or push the image that has it",
            )
        if reference.tag is not None:
            with self._doing():
                self._move(reference.tag, root)
        return f"{reference.name}@{root.digest}"

    def __enter__(self) -> Self:
        if self._entered == 0:
            try:
                with self._doing():
                    present = self._registry.head_manifest(self._reference.identifier, push=True)
            except BaseException:
                self._registry.close()
                raise
            self._behind = present
            self._held = Held(self._registry, present if self._trusts else None)
        self._entered += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered -= 1
        if self._entered == 0:
            self._registry.close()

    def _doing(self) -> AbstractContextManager[None]:
        return doing(f"pushing `{self._reference}`")

    def _has(self, descriptor: Descriptor) -> bool:
        digest = descriptor.digest
        if digest in self._absent:
            return False
        there = digest in self._outcomes or digest in self._held or self._registry.has(descriptor)
        if not there:
            self._absent.add(digest)
        return there

    def _put_blob(self, blob: Blob) -> Outcome:
        digest = blob.descriptor.digest
        self._blobs[digest] = blob
        # What an image of this repository names is here, as a registry takes no manifest without its blobs.
        here = blob.origin is not None and blob.origin.name == self._reference.name
        if here or digest in self._held:
            outcome: Outcome = "exists"
        else:
            outcome = self._registry.push_blob(blob, partial(self._has, blob.descriptor))
        self._notify(BlobDone(digest, blob.descriptor.size, outcome))
        return outcome

    def _put_document(self, blob: Blob) -> Outcome:
        data = read_document(blob.open(), blob.descriptor)
        document = Document.of(data, blob.descriptor.media_type, f"manifest `{blob.descriptor.digest}`")
        self._documents[blob.descriptor.digest] = document
        # Whether the list of referrers has a manifest with a subject, only the answer to its PUT tells.
        if subject_of(document) is None and not self._is_new(data) and self._has(blob.descriptor):
            return "exists"
        self._send_document(document)
        return "uploaded"

    def _is_new(self, document: bytes) -> bool:
        """Whether a manifest names something that was not there: then it was not there itself, without asking."""
        return any(
            outcome != "exists" and str(digest).encode() in document for digest, outcome in list(self._outcomes.items())
        )

    def _send_document(self, document: Document) -> None:
        """PUT by digest. A registry that does not know a blob which it has just confirmed gets time, then the blob once
        more (GHCR, Docker Hub).
        """
        identifier = str(document.descriptor.digest)
        try:
            self._registry.put_manifest(identifier, document)
        except UnknownBlobError:
            self._registry.wire.pause(1)
            try:
                self._registry.put_manifest(identifier, document)
            except UnknownBlobError as unknown:
                if not self._push_again(document, unknown.named):
                    raise
                self._registry.put_manifest(identifier, document)

    def _push_again(self, document: Document, named: frozenset[str]) -> bool:
        """Upload the blobs that the registry named, or all that the manifest names; whether there were any."""
        text = document.data.decode("utf-8", "replace")
        known = [blob for digest, blob in self._blobs.items() if str(digest) in text]
        for blob in (again := [b for b in known if str(b.descriptor.digest) in named] or known):
            self._registry.push_blob(Blob(descriptor=blob.descriptor, open=blob.open))
        return bool(again)

    def _move(self, tag: str, root: Descriptor) -> None:
        current = self._behind
        if self._reference.digest is not None or (current is not None and current.digest == root.digest):
            current = self._registry.head_manifest(tag, push=True)  # not known yet, or another may have moved it
        if current is None or current.digest != root.digest:
            document = self._documents.get(root.digest) or self._registry.fetch_manifest(str(root.digest))
            self._registry.put_manifest(tag, document)
        self._behind = root
