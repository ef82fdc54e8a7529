"""Requests to one registry: authorised, redirected and repeated by our rules (distribution-spec, "API")."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Literal

from ociforge.errors import RegistryError
from ociforge.events import CredentialUsed, Warned
from ociforge.transports.http import Origin, Wire, printable, redact, refusal, resolve
from ociforge.transports.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import requests

    from ociforge.events import Notify
    from ociforge.oci.reference import Reference
    from ociforge.transports.auth import Credential, CredentialStore
    from ociforge.transports.http import Body
    from ociforge.transports.options import RegistryOptions
    from ociforge.transports.tokens import Scopes

__all__ = ["RegistryClient", "UploadMode", "api_host"]

UploadMode = Literal["put", "patch", "chunk"]

_HUB, _HUB_HOST = "docker.io", "registry-1.docker.io"  # what credentials name, and where the API is
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REPOSITORY = re.compile(r"/v2/(.+)/(?:blobs|manifests|tags|referrers)/")
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
_MAX_WARNINGS = 10


def api_host(registry: str) -> str:
    """The host[:port] of a registry's API."""
    return _HUB_HOST if registry == _HUB else registry


class RegistryClient:
    """One registry, for any number of threads; `reference` says which, and whose credential is meant.

    Credentials go to the registry's own origin and to the token service that it names, nowhere else, and are looked up
    when it first asks. No request goes anywhere else either, but for redirects, and for where an upload is to go: a
    registry may keep its blobs on another host. Whether it is spoken to by https or by plain http, `options` says.
    `sleep` and `clock` are in seconds.
    """

    def __init__(
        self,
        reference: Reference,
        options: RegistryOptions,
        credentials: CredentialStore,
        notify: Notify,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reference = reference
        self._credentials = credentials
        self._notify = notify
        self._warned: set[str] = set()
        self.upload_mode: UploadMode = "put"  # what the registry has been found to take
        self._host = api_host(reference.registry)
        loopback = Origin.of(f"https://{self._host}").is_loopback
        tls = options.ca_file is not None or options.client_cert is not None
        self._scheme = "https" if tls else None if options.insecure else "http" if loopback else "https"
        self._settling = threading.Lock()
        # No proxy is ever right for this machine itself.
        self.wire = Wire(options, trust_env=not loopback, sleep=sleep, clock=clock)
        self._tokens = Tokens(
            self.wire,
            lambda: self.origin,
            reference.registry,
            self._lookup,
            searched=credentials.files,
            token_hosts=options.token_hosts,
            clock=clock,
        )

    @property
    def origin(self) -> Origin:
        """Where the API is. Who first asks for it finds out, if need be, whether the registry speaks TLS."""
        with self._settling:
            if self._scheme is None:
                self._scheme = "https" if self._speaks_tls() else "http"
            return Origin.of(f"{self._scheme}://{self._host}")

    def _speaks_tls(self) -> bool:
        """Whether there is an HTTP server behind TLS, of any certificate. If not, the next request will tell why."""
        try:
            self.wire.send("GET", f"https://{self._host}/v2/", {})
        except RegistryError:
            return False
        return True

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
        scopes: Scopes | None = None,
        retry: bool | None = None,
        stream: bool = False,
        follow: bool = True,
    ) -> requests.Response:
        """An answer with any status but 401, 403 and those of redirects, which are followed unless `follow` is false.

        `retry` says whether the request may be made twice (default: GET and HEAD). With `stream`, a successful body is
        left to the caller, who closes the answer. Raises AuthError, RegistryError, BrokenConnectionError.
        """
        kept = {name: value for name, value in (headers or {}).items() if name.lower() != "authorization"}
        wanted = self._scopes_of(method, url) if scopes is None else scopes
        response = self.wire.repeat(
            lambda: self._follow(method, url, kept, body, wanted, stream, follow),
            retry=method in ("GET", "HEAD") if retry is None else retry,
        )
        self._show_warnings(response)
        return response

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Body | None,
        scopes: Scopes,
        stream: bool,
        follow: bool,
    ) -> requests.Response:
        """Follow redirects, if wanted; other methods than GET and HEAD only where the method stays the same."""
        redirects = _REDIRECTS if method in ("GET", "HEAD") else frozenset({307, 308})
        start = url
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._authorized(method, url, headers, body, scopes, stream)
            if not follow or response.status_code not in redirects:
                return response
            url = resolve(url, response.headers.get("Location"), self.origin)
            response.close()
        raise RegistryError(f"{method} `{redact(start)}`: more than {_MAX_REDIRECTS} redirects")

    def _authorized(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Body | None, scopes: Scopes, stream: bool
    ) -> requests.Response:
        """One hop: with Authorization only to the registry's own origin, and at most once more after a 401."""
        if Origin.of(url) != self.origin:
            response = self.wire.send(method, url, headers, body, stream=stream)
            if response.status_code in (401, 403):
                raise RegistryError(refusal(response).message, "the registry sent us to a storage that refuses us")
            return response
        used = self._tokens.header(scopes)
        response = self.wire.send(method, url, _with(headers, used), body, stream=stream)
        if response.status_code == 401:
            used = self._tokens.answer(response, scopes, used)
            response = self.wire.send(method, url, _with(headers, used), body, stream=stream)
        if response.status_code == 401:
            raise self._tokens.refuse(response, used)
        if response.status_code == 403:
            raise refusal(response)
        self._tokens.accepted(used)
        return response

    def _scopes_of(self, method: str, url: str) -> Scopes:
        match = _REPOSITORY.search(url)
        repository = match[1] if match else self._reference.repository
        actions = {"GET": "pull", "HEAD": "pull", "DELETE": "delete,pull"}.get(method, "pull,push")
        return frozenset({f"repository:{repository}:{actions}"})

    def _lookup(self) -> Credential | None:
        credential = self._credentials.lookup(self._reference.registry, self._reference.repository)
        if credential is not None:
            self._notify(CredentialUsed(self._reference.registry, credential.source))
        return credential

    def _show_warnings(self, response: requests.Response) -> None:
        for text in _WARNING.findall(response.headers.get("Warning", "")):
            if text not in self._warned and len(self._warned) < _MAX_WARNINGS:
                self._warned.add(text)
                self._notify(Warned(f"the registry `{self._reference.registry}` says: {printable(text)}"))


def _with(headers: Mapping[str, str], authorization: str | None) -> dict[str, str]:
    return dict(headers) if authorization is None else {**headers, "Authorization": authorization}
