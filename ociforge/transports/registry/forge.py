"""One repository of one registry (distribution-spec 1.1), on oras-py's client.

`ForgeRegistry` is oras-py's `Registry` with everything replaced that moves bytes or credentials; what it inherits and
does not replace either reaches the network through `do_request` only, or raises.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import oras.container
import oras.provider

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.errors import AuthError, NotFoundError, RegistryError
from ociforge.events import ignore
from ociforge.oci.descriptor import INDEX_TYPES, Descriptor
from ociforge.oci.index import ImageIndex
from ociforge.oci.reference import Reference
from ociforge.transports.auth import CredentialStore
from ociforge.transports.client import RegistryClient, api_host
from ociforge.transports.document import ACCEPT, DOCUMENT_TYPES, Document, content_type
from ociforge.transports.http import TRANSIENT, Origin, body_of, redact, refusal, resolve
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry import referrers
from ociforge.transports.upload import Upload, check_digest
from ociforge.transports.watched import started

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from ociforge.events import Notify
    from ociforge.transports.base import Blob, Outcome
    from ociforge.transports.http import Wire
    from ociforge.transports.tokens import Scopes

__all__ = ["ForgeRegistry", "Ref", "UnknownBlobError"]

_MAX_PAGES = 100  # of a list of referrers


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

    @property
    def wire(self) -> Wire:
        """What requests go over: how often things are tried, and how long to wait in between."""
        return self._client.wire

    def close(self) -> None:
        """Close the idle connections."""
        self.wire.close()

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        json: Any = None,
        stream: bool = False,
    ) -> requests.Response:
        """What oras-py's own functions call; the scope of the token follows from the request.

        The link to a next page may not lead them to another host.
        """
        if json is not None:
            raise NotImplementedError("ForgeRegistry.do_request: documents are sent as bytes")
        self._check_own(url)
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

    def fetch_manifest(self, identifier: str, *, push: bool = False) -> Document:
        """A manifest or index by tag or digest, its bytes checked against the digest.

        Raises NotFoundError and RegistryError.
        """
        response = self._get_manifest(identifier, push=push)
        if response.status_code == 404:
            raise NotFoundError(
                f"`{self.place}` has no `{identifier}`: {refusal(response).message}", "check the name of the image"
            )
        return self._read_manifest(identifier, response)

    def find_manifest(self, identifier: str, *, push: bool = False) -> Document | None:
        """As `fetch_manifest`; None when there is none."""
        response = self._get_manifest(identifier, push=push)
        return None if response.status_code == 404 else self._read_manifest(identifier, response)

    def _get_manifest(self, identifier: str, *, push: bool) -> requests.Response:
        scopes = self._scope("pull,push" if push else "pull")
        return self._client.request("GET", self._url("manifests", identifier), headers=ACCEPT, scopes=scopes)

    def _read_manifest(self, identifier: str, response: requests.Response) -> Document:
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
        """Store a manifest under its digest or a tag; safe to repeat. UnknownBlobError: children are missing.

        One with a `subject` is among the subject's `referrers` afterwards. A registry that does not see to that has a
        list under a tag, which is read and written anew: of two clients that do so at once, one may lose its entry.
        """
        subject = referrers.subject_of(document)
        response = self._put_manifest(identifier, document)
        if subject is not None and "OCI-Subject" not in response.headers:
            self._add_referrer(subject.digest, referrers.referrer_of(document))

    def _put_manifest(self, identifier: str, document: Document) -> requests.Response:
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
            return response
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

    # -- referrers

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """What refers to the manifest `digest`, of one type if that is given; empty when nothing does.

        Asks the registry's API, else reads the list under the tag that stands in for it. Raises RegistryError.
        """
        found = self._listed_referrers(digest, artifact_type)
        if found is not None:
            return found
        index = self.find_manifest(referrers.fallback_tag(digest))
        if index is None or index.descriptor.media_type not in INDEX_TYPES:
            return []
        entries = ImageIndex.parse(index.data, index.descriptor.media_type).manifests
        return referrers.of_type(list(entries), artifact_type)

    def _listed_referrers(self, digest: Digest, artifact_type: str | None) -> list[Descriptor] | None:
        """All pages of the API's answer; None when the registry has no API."""
        url: str | None = self._url("referrers", str(digest))
        if artifact_type is not None:
            url = f"{url}?artifactType={quote(artifact_type, safe='')}"
        found: list[Descriptor] = []
        for page in range(_MAX_PAGES):
            if url is None:
                break
            response = self._ask_referrers(url)
            entries = None if response is None else referrers.listed(response)
            if response is None or entries is None:
                if page == 0:
                    return None
                raise RegistryError(f"`{redact(url)}` is not the next page of the referrers of `{digest}`")
            filtered = "artifactType" in response.headers.get("OCI-Filters-Applied", "")
            found += referrers.of_type(list(entries), None if filtered else artifact_type)
            url = self._next_page(response)
        return found

    def _ask_referrers(self, url: str) -> requests.Response | None:
        """An answer from the API, if any: registries without it say so with any status, and some by leading to a page
        for people (GHCR).
        """
        try:
            response = self._client.request("GET", url, scopes=self._scope("pull"), follow=False)
        except AuthError:
            return None  # who may not ask for this may still read the tag, or else is told there
        if response.status_code in TRANSIENT:
            raise refusal(response)
        return response

    def _next_page(self, response: requests.Response) -> str | None:
        link = response.links.get("next", {}).get("url")
        if link is None:
            return None
        url = resolve(response.url, link, self._client.origin)
        self._check_own(url)
        return url

    def _add_referrer(self, subject: Digest, entry: Descriptor) -> None:
        tag = referrers.fallback_tag(subject)
        what = f"manifest `{tag}` of `{self.place}`"
        updated = referrers.with_referrer(self.find_manifest(tag, push=True), entry, what)
        if updated is not None:
            self._put_manifest(tag, updated)

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

    def request_blob(self, descriptor: Descriptor, offset: int) -> requests.Response:
        """The blob from byte `offset` on, or all of it (200), or why not (416); the caller reads and closes it. Raises
        NotFoundError, or RegistryError for any other answer.
        """
        url = self._url("blobs", str(descriptor.digest))
        headers = {"Range": f"bytes={offset}-"} if offset else None
        response = self._client.request("GET", url, headers=headers, scopes=self._scope("pull"), stream=True)
        if response.status_code == 404:
            raise NotFoundError(refusal(response).message)
        if response.status_code not in (200, 206, 416):
            raise refusal(response)
        return response

    def push_blob(self, blob: Blob, is_there: Callable[[], bool] = lambda: False) -> Outcome:
        """Mount the blob from `blob.origin` if that is on this registry; else upload it, unless it `is_there`. That is
        asked only then: a mount is one request, whether the blob is there or not.
        """
        scopes = self._scope("pull,push")
        digest = str(blob.descriptor.digest)
        session = None
        if blob.origin is not None and blob.origin.registry == self.name and blob.origin.repository != self.repository:
            mounted, session = self._mount(digest, blob.origin.repository)
            if mounted:
                return "mounted"
        if is_there():
            return "exists"
        self._notify(started(blob, self.place))
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

    def _check_own(self, url: str) -> None:
        if Origin.of(url) != self._client.origin:
            raise RegistryError(f"the registry `{self.name}` leads elsewhere: `{redact(url)}`")

    def _check_200_response(self, response: requests.Response) -> None:
        if response.status_code not in (200, 201, 202):
            raise refusal(response)

    def _unsafe(self, *args: object, **kwargs: object) -> NoReturn:
        """Stands for what oras-py does without checking digests, or with credentials in the wrong hands."""
        raise NotImplementedError("ForgeRegistry: use RegistrySource and RegistryDestination")

    login = logout = push = pull = _unsafe
    upload_blob = put_upload = chunked_upload = blob_exists = upload_manifest = _unsafe
    download_blob = get_manifest = _unsafe
