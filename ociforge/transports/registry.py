"""Images in registries (distribution-spec 1.1).

`ForgeRegistry` is oras-py's `Registry` with everything replaced that moves bytes or credentials; what it inherits and
does not replace either reaches the network through `do_request` only, or raises.
"""

from __future__ import annotations

import io
import re
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

import oras.container
import oras.provider

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.errors import RegistryError
from ociforge.events import BlobDone, BlobStarted, ignore
from ociforge.oci.blob import VerifiedReader, read_document
from ociforge.oci.descriptor import Descriptor
from ociforge.oci.reference import Reference
from ociforge.transports.auth import CredentialStore
from ociforge.transports.base import Blob
from ociforge.transports.client import RegistryClient, api_host
from ociforge.transports.document import ACCEPT, DOCUMENT_TYPES, Document, content_type
from ociforge.transports.download import BlobStream
from ociforge.transports.http import body_of, refusal, resolve
from ociforge.transports.naming import Name
from ociforge.transports.options import RegistryOptions
from ociforge.transports.upload import Upload, check_digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    import requests

    from ociforge.events import Notify
    from ociforge.transports.base import Outcome
    from ociforge.transports.tokens import Scopes

__all__ = [
    "ForgeRegistry",
    "Ref",
    "RegistryDestination",
    "RegistryOptions",
    "RegistrySource",
    "UnknownBlobError",
]


class Ref(oras.container.Container):  # type: ignore[misc]  # oras has no types
    """oras-py's parsed name, by the grammar of `Reference`; `registry` is the host of the API."""

    def parse(self, name: str) -> None:
        """Raises ReferenceFormatError."""
        reference = Reference.parse(name)
        self.registry = api_host(reference.registry)
        self.namespace, _, self.repository = reference.repository.rpartition("/")
        self.tag = reference.tag
        self.digest = None if reference.digest is None else str(reference.digest)


class UnknownBlobError(RegistryError):
    """The registry refuses a manifest because it does not know blobs that it names; `named` are digests, if it says."""

    def __init__(self, message: str, hint: str | None, named: frozenset[str]) -> None:
        super().__init__(message, hint)
        self.named = named


class ForgeRegistry(oras.provider.Registry):  # type: ignore[misc]  # oras has no types
    """One repository of one registry, for any number of threads.

    `sleep` and `clock` are in seconds.
    """

    def __init__(
        self,
        reference: Reference,
        options: RegistryOptions | None = None,
        credentials: CredentialStore | None = None,
        notify: Notify = ignore,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = RegistryClient(
            reference,
            options or RegistryOptions(),
            credentials or CredentialStore(),
            notify,
            sleep=sleep,
            clock=clock,
        )
        super().__init__(hostname=api_host(reference.registry), auth_backend="token")
        self.session = self._client.wire.session  # in place of one that reads netrc and has no timeouts
        self.name = reference.registry
        self.repository = reference.repository
        self.place = reference.name
        self._notify = notify

    @property
    def prefix(self) -> str:
        """The scheme of the API's URLs; the first use may ask the registry."""
        return self._client.origin.scheme

    @prefix.setter
    def prefix(self, value: str) -> None:
        """What oras-py would choose is not kept."""

    def close(self) -> None:
        """Close the idle connections."""
        self._client.wire.close()

    def pause(self, failure: int) -> None:
        """Wait before trying again after failure number `failure`."""
        self._client.wire.pause(failure)

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        json: Any = None,
        stream: bool = False,
    ) -> requests.Response:
        """What oras-py's own functions call; the scope of the token follows from the request."""
        if json is not None:
            raise NotImplementedError("ForgeRegistry.do_request: documents are sent as bytes")
        return self._client.request(method, url, headers=headers, body=data, stream=stream)

    def _scope(self, actions: str) -> Scopes:
        return frozenset({f"repository:{self.repository}:{actions}"})

    def _url(self, *parts: str) -> str:
        return "/".join([f"{self.prefix}://{self.hostname}/v2/{self.repository}", *parts])

    # -- manifests

    def head_manifest(self, identifier: str, *, push: bool = False) -> Descriptor | None:
        """The descriptor of a manifest by tag or digest, when the registry gives it without the body; else None."""
        scopes = self._scope("pull,push" if push else "pull")
        response = self._client.request("HEAD", self._url("manifests", identifier), headers=ACCEPT, scopes=scopes)
        if response.status_code in (404, 405):
            return None
        if response.status_code != 200:
            raise refusal(response)
        digest = response.headers.get("Docker-Content-Digest", "")
        length = response.headers.get("Content-Length", "")
        media_type = content_type(response)
        if media_type not in DOCUMENT_TYPES or not length.isdecimal() or not digest.startswith("sha256:"):
            return None
        return Descriptor(media_type=media_type, digest=self._expect(digest, identifier), size=int(length))

    def fetch_manifest(self, identifier: str) -> Document:
        """A manifest or index by tag or digest, its bytes checked against the digest. Raises RegistryError."""
        url = self._url("manifests", identifier)
        response = self._client.request("GET", url, headers=ACCEPT, scopes=self._scope("pull"))
        if response.status_code == 404:
            raise RegistryError(
                f"`{self.place}` has no `{identifier}`: {refusal(response).message}", "check the name of the image"
            )
        if response.status_code != 200:
            raise refusal(response)
        what = f"manifest `{identifier}` of `{self.place}`"
        data = body_of(response)
        self._expect(str(Digest.of(data)), identifier)
        announced = response.headers.get("Docker-Content-Digest", "")
        if announced.startswith("sha256:") and self._expect(announced, identifier) != Digest.of(data):
            raise RegistryError(f"{what}: the registry announced `{announced}`, and sent `{Digest.of(data)}`")
        return Document.of(data, content_type(response), what)

    def put_manifest(self, identifier: str, document: Document) -> None:
        """Store a manifest under its digest or a tag; safe to repeat. UnknownBlobError: children are missing."""
        response = self._client.request(
            "PUT",
            self._url("manifests", identifier),
            headers={"Content-Type": document.descriptor.media_type},
            body=document.data,
            scopes=self._scope("pull,push"),
            retry=True,
        )
        if response.status_code in (200, 201, 202, 204):
            check_digest(response, document.descriptor.digest)
            return
        error = refusal(response)
        if response.status_code in (400, 404) and "BLOB_UNKNOWN" in error.message:
            named = frozenset(re.findall(r"sha256:[0-9a-f]{64}", body_of(response).decode("utf-8", "replace")))
            raise UnknownBlobError(error.message, error.hint, named)
        raise error

    def _expect(self, digest: str, identifier: str) -> Digest:
        """`digest` parsed; it must be `identifier`, when that is a digest."""
        try:
            parsed = Digest.parse(digest)
        except DigestError as error:
            raise RegistryError(f"manifest `{identifier}` of `{self.place}`: {error}") from error
        if ":" in identifier and str(parsed) != identifier:
            raise RegistryError(f"manifest `{identifier}` of `{self.place}`: the registry has `{parsed}` instead")
        return parsed

    # -- blobs

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the repository has the blob or manifest; asked with the right to push, as a push follows."""
        kind = "manifests" if descriptor.media_type in DOCUMENT_TYPES else "blobs"
        headers = ACCEPT if kind == "manifests" else None
        url = self._url(kind, str(descriptor.digest))
        response = self._client.request("HEAD", url, headers=headers, scopes=self._scope("pull,push"))
        if response.status_code not in (200, 404):
            raise refusal(response)
        return response.status_code == 200

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """The blob as a verified stream that survives broken connections; the caller closes it."""
        url = self._url("blobs", str(descriptor.digest))

        def get(offset: int) -> requests.Response:
            headers = {"Range": f"bytes={offset}-"} if offset else None
            return self._client.request("GET", url, headers=headers, scopes=self._scope("pull"), stream=True)

        stream = BlobStream(get, descriptor, self._client.wire)
        return VerifiedReader(cast("BinaryIO", stream), descriptor)

    def push_blob(self, blob: Blob) -> Outcome:
        """Mount the blob from `blob.origin` if that is on this registry, else upload it; not asking whether it is there
        already.
        """
        scopes = self._scope("pull,push")
        digest = str(blob.descriptor.digest)
        session = None
        if blob.origin is not None and blob.origin.registry == self.name and blob.origin.repository != self.repository:
            mounted, session = self._mount(digest, blob.origin.repository)
            if mounted:
                return "mounted"
        self._notify(BlobStarted(blob.descriptor.digest, blob.descriptor.size, self.place))
        start, target = self._url("blobs", "uploads", ""), self._url("blobs", digest)
        Upload(self._client, start, target, blob, scopes, self._notify).run(session)
        return "uploaded"

    def _mount(self, digest: str, source: str) -> tuple[bool, str | None]:
        """Whether the blob was mounted; if not, the upload session that the registry may have begun instead.

        Registries refuse mounts in many ways (a scope of two repositories, an unknown project): none is a failure.
        """
        try:
            response = self._client.request(
                "POST",
                f"{self._url('blobs', 'uploads', '')}?mount={digest}&from={source}",
                scopes=self._scope("pull,push") | {f"repository:{source}:pull"},
            )
            if response.status_code == 202:
                return False, resolve(response.url, response.headers.get("Location"), self._client.origin)
            return response.status_code == 201, None
        except RegistryError:
            return False, None

    # -- oras-py

    def get_container(self, name: str | oras.container.Container) -> Ref:
        """The parsed name, which must be of this registry: its credentials are for no other."""
        ref = name if isinstance(name, Ref) else Ref(str(name))
        if ref.registry != self.hostname:
            raise RegistryError(f"`{ref}` is not in the registry `{self.name}`")
        return ref

    def _check_200_response(self, response: requests.Response) -> None:
        if response.status_code not in (200, 201, 202):
            raise refusal(response)

    def _unsafe(self, *args: object, **kwargs: object) -> NoReturn:
        """Stands for what oras-py does without checking digests, or with credentials in the wrong hands."""
        raise NotImplementedError("ForgeRegistry: use RegistrySource and RegistryDestination")

    login = logout = push = pull = _unsafe
    upload_blob = put_upload = chunked_upload = blob_exists = upload_manifest = _unsafe
    download_blob = get_manifest = _unsafe


class RegistrySource:
    """The image or index that `reference` names, by its digest if it has one.

    `notify` hears of credentials and of the registry's warnings; of transfers it hears from who stores them.
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
        self._registry = ForgeRegistry(reference, options, credentials, notify, sleep=sleep)
        self._lock = threading.Lock()
        self._root: Descriptor | None = None
        self._documents: dict[Digest, bytes] = {}

    def __str__(self) -> str:
        return f"docker://{self._reference}"

    def root(self) -> Descriptor:
        """Asks once: HEAD, which Docker Hub does not count, and GET only when that does not tell all."""
        with self._lock:
            if self._root is None:
                self._root = self._registry.head_manifest(self._reference.identifier)
            if self._root is None:
                document = self._registry.fetch_manifest(self._reference.identifier)
                self._root = document.descriptor
                self._documents[document.descriptor.digest] = document.data
            return self._root

    def open(self, descriptor: Descriptor) -> BinaryIO:
        if descriptor.media_type not in DOCUMENT_TYPES:
            return self._registry.open_blob(descriptor)
        data = self._documents.get(descriptor.digest)
        if data is None:
            data = self._registry.fetch_manifest(str(descriptor.digest)).data
            self._documents[descriptor.digest] = data
        return VerifiedReader(io.BytesIO(data), descriptor)

    def origin(self, descriptor: Descriptor) -> Reference | None:
        return Reference(
            registry=self._reference.registry, repository=self._reference.repository, digest=descriptor.digest
        )

    def names(self) -> tuple[Name, ...]:
        return () if self._reference.tag is None else (Name.of(replace(self._reference, digest=None)),)

    def close(self) -> None:
        """Close the idle connections; streams that are open go on."""
        self._registry.close()


class RegistryDestination:
    """The repository of `reference`, and its tag. Nothing has a name there before `tag`; uploads that are broken off
    are left to the registry to forget.
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
        self._registry = ForgeRegistry(reference, options, credentials, notify, sleep=sleep)
        self._notify = notify
        self._lock = threading.Lock()
        self._in_flight: dict[Digest, threading.Lock] = {}
        self._absent: set[Digest] = set()  # the registry said so, and we have put nothing there since
        self._blobs: dict[Digest, Blob] = {}
        self._documents: dict[Digest, Document] = {}

    def __str__(self) -> str:
        return f"docker://{self._reference}"

    def has(self, descriptor: Descriptor) -> bool:
        there = self._registry.has(descriptor)
        if not there:
            self._absent.add(descriptor.digest)
        return there

    def put(self, blob: Blob) -> Outcome:
        """As `Destination.put`. A blob is uploaded once, however many threads put it."""
        if blob.descriptor.media_type in DOCUMENT_TYPES:
            return self._put_document(blob)
        digest = blob.descriptor.digest
        with self._lock:
            turn = self._in_flight.setdefault(digest, threading.Lock())
        with turn:
            self._blobs[digest] = blob
            there = digest not in self._absent and self.has(blob.descriptor)
            outcome: Outcome = "exists" if there else self._registry.push_blob(blob)
            self._absent.discard(digest)
        self._notify(BlobDone(digest, blob.descriptor.size, outcome))
        return outcome

    def tag(self, root: Descriptor) -> str:
        """Move the reference's tag to `root`, if it has one; some registries refuse even to repeat a tag."""
        reference = self._reference
        if reference.digest is not None and reference.digest != root.digest:
            raise RegistryError(
                f"pushing to `{reference}`: the image has the digest `{root.digest}`",
                "leave out the digest, or push the image that has it",
            )
        if reference.tag is not None:
            current = self._registry.head_manifest(reference.tag, push=True)
            if current is None or current.digest != root.digest:
                document = self._documents.get(root.digest) or self._registry.fetch_manifest(str(root.digest))
                self._registry.put_manifest(reference.tag, document)
        return f"{reference.name}@{root.digest}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._registry.close()

    def _put_document(self, blob: Blob) -> Outcome:
        data = read_document(blob.open(), blob.descriptor)
        document = Document.of(data, blob.descriptor.media_type, f"manifest `{blob.descriptor.digest}`")
        self._documents[blob.descriptor.digest] = document
        if blob.descriptor.digest not in self._absent and self.has(blob.descriptor):
            return "exists"
        self._send_document(document)
        self._absent.discard(blob.descriptor.digest)
        return "uploaded"

    def _send_document(self, document: Document) -> None:
        """PUT by digest. A registry that does not know a blob which it has just confirmed gets time, then the blob once
        more (GHCR, Docker Hub).
        """
        identifier = str(document.descriptor.digest)
        try:
            self._registry.put_manifest(identifier, document)
        except UnknownBlobError:
            self._registry.pause(1)
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
