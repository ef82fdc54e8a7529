"""Authorization for one registry: challenges, tokens, and who may be asked for them.

Rules: RFC 9110, section 11 (challenges); distribution's "Token Authentication Specification" and its OAuth2 variant;
oras-go's policy for realms. A token is asked for once per set of scopes, however many threads want it.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from msgspec import Struct, field

from ociforge.errors import AuthError, RegistryError
from ociforge.transports.http import BrokenConnectionError, Origin, body_of, login_hint, redact, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import requests

    from ociforge.transports.auth import Credential
    from ociforge.transports.http import Wire

__all__ = ["Challenge", "Scopes", "Tokens", "check_realm", "parse_challenges", "same_domain"]

Scopes = frozenset[str]  # such as `repository:library/ubuntu:pull`

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NEXT = re.compile(rf"[\s,]*({_TOKEN})", re.ASCII)
_VALUE = re.compile(rf'[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))', re.ASCII)
_MAX_TOKEN_ANSWER = 1 << 20  # 1 MiB
_DEFAULT_LIFE = 60.0  # seconds, when the service does not say (token specification)
_MAX_MARGIN = 30.0  # seconds


class Challenge(Struct, frozen=True):
    """One challenge of a WWW-Authenticate header; scheme and names of parameters in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """All challenges of a header, or of several joined by commas; what cannot be read is passed over."""
    challenges: list[Challenge] = []
    position = 0
    while match := _NEXT.search(header, position):
        position = match.end()
        value = _VALUE.match(header, position)
        if value is None:
            challenges.append(Challenge(match[1].lower(), {}))
            continue
        position = value.end()
        if challenges:
            text = value[2] if value[1] is None else re.sub(r"\\(.)", r"\1", value[1])
            challenges[-1].parameters.setdefault(match[1].lower(), text)
    return challenges


def check_realm(realm: str, registry: Origin) -> Origin:
    """The origin of the token service that `registry` names, if it may be one; raises AuthError else.

    Never http for an https registry, and no address of a private network but the registry's own host: else a registry
    could make us send requests, and credentials, to where it cannot reach itself.
    """
    what = f"the token service of `{registry.host}`: `{redact(realm)}`"
    try:
        origin = Origin.of(realm)
    except RegistryError:
        raise AuthError(f"{what}: not an http or https URL") from None
    if registry.scheme == "https" and origin.scheme != "https":
        raise AuthError(f"{what}: plain http, though the registry speaks https")
    if origin.host != registry.host and not origin.is_public:
        raise AuthError(f"{what}: a private address that is not the registry's own")
    return origin


def same_domain(service: str, registry: str) -> bool:
    """Whether `service` is the registry's host, below it, or beside it in a domain of two labels or more."""
    if service == registry or Origin("https", registry, 443).address is not None:
        return service == registry
    parent = registry.partition(".")[2]
    return f".{service}".endswith(f".{registry}") or ("." in parent and f".{service}".endswith(f".{parent}"))


def _merge(scopes: Iterable[str]) -> tuple[str, ...]:
    """One scope for each resource with all its actions; the one to push to last, as some services keep only that."""
    actions: dict[str, set[str]] = {}
    for scope in scopes:
        resource, _, wanted = scope.rpartition(":")
        if resource:
            actions.setdefault(resource, set()).update(wanted.split(","))
    ordered = sorted(actions.items(), key=lambda item: ("push" in item[1], item[0]))
    return tuple(f"{resource}:{','.join(sorted(names))}" for resource, names in ordered)


class _Grant(Struct):
    """What is known for one set of scopes; its lock is held while a token is fetched."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    header: str | None = None
    expires: float = 0.0
    asked: frozenset[str] = frozenset()  # scopes that the registry's challenges added
    failure: AuthError | None = None


class Tokens:
    """The Authorization headers for one registry; for any number of threads.

    `registry` is the origin of its API and `name` what the user calls it; `lookup` finds the credential, which may be
    in the files `searched`, and is called at most once, when the registry asks; `token_hosts` may have the credential
    though they are of another domain; `clock` counts seconds.
    """

    def __init__(
        self,
        wire: Wire,
        registry: Callable[[], Origin],
        name: str,
        lookup: Callable[[], Credential | None],
        *,
        searched: Sequence[Path] = (),
        token_hosts: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wire = wire
        self._registry = registry
        self._name = name
        self._lookup = lookup
        self._searched = searched
        self._token_hosts = token_hosts
        self._clock = clock
        self._lock = threading.Lock()
        self._credential_lock = threading.Lock()
        self._found: list[Credential | None] = []
        self._bearer: Challenge | None = None
        self._basic: str | None = None
        self._basic_proven = False
        self._token_given = False
        self._refused: AuthError | None = None
        self._grants: dict[Scopes, _Grant] = {}

    def header(self, scopes: Scopes) -> str | None:
        """What to send along, as far as is known before the registry asks; so bodies need not cross twice."""
        self._check_refused()
        if self._basic is not None:
            return self._basic
        bearer = self._bearer
        return None if bearer is None else self._token(bearer, scopes, None)

    def answer(self, response: requests.Response, scopes: Scopes, used: str | None) -> str:
        """The header to try after a 401 to a request that was sent with `used`; raises AuthError when there is none."""
        challenges = parse_challenges(response.headers.get("WWW-Authenticate", ""))
        bearer = next((c for c in challenges if c.scheme == "bearer" and c.parameters.get("realm")), None)
        if bearer is not None:
            grant = self._grant(scopes)
            grant.asked |= frozenset(bearer.parameters.get("scope", "").split())
            self._bearer = bearer
            return self._token(bearer, scopes, used)
        if any(c.scheme == "basic" for c in challenges):
            return self._answer_basic(response, used)
        raise refusal(response)

    def accepted(self, used: str | None) -> None:
        """The registry let a request with this header pass, so a later 401 does not mean a wrong password."""
        if used is not None and used == self._basic:
            self._basic_proven = True

    def refuse(self, response: requests.Response, used: str | None) -> AuthError:
        """The error for a 401 to a request with the best header there is. A password that never was accepted is not
        tried again: registries lock accounts.
        """
        error = self._explained(refusal(response), used)
        if used is not None and used == self._basic and not self._basic_proven:
            self._refused = error
        return error

    def _explained(self, error: RegistryError, used: str | None) -> AuthError:
        """A refusal that says whose credential it was meant for, or where none was found."""
        credential = self._credential()
        if credential is None:
            return AuthError(error.message, self._nothing_found())
        if used in (self._basic, f"Bearer {credential.registry_token}"):
            return _refused(error, credential, self._name)
        return _lacking(error, credential, self._name)

    def _nothing_found(self) -> str:
        if not self._searched:
            return login_hint(self._name)
        files = ", ".join(f"`{file}`" for file in self._searched)
        return f"no credential for `{self._name}` in {files}: {login_hint(self._name)}"

    def _answer_basic(self, response: requests.Response, used: str | None) -> str:
        with self._lock:
            self._check_refused()
            credential = self._credential()
            if credential is None:
                raise AuthError(refusal(response).message, self._nothing_found())
            if not credential.username:
                what = f"the registry asks for a password, but the credential from `{credential.source}` is a token"
                raise AuthError(f"{refusal(response).message}: {what}", _login_again(self._name))
            header = _basic(credential)
            if used == header:
                raise self.refuse(response, used)
            self._basic = header
            return header

    def _check_refused(self) -> None:
        if self._refused is not None:
            raise AuthError(self._refused.message, self._refused.hint)

    def _credential(self) -> Credential | None:
        with self._credential_lock:
            if not self._found:
                self._found.append(self._lookup())
            return self._found[0]

    def _grant(self, scopes: Scopes) -> _Grant:
        with self._lock:
            return self._grants.setdefault(scopes, _Grant())

    def _token(self, bearer: Challenge, scopes: Scopes, refused: str | None) -> str:
        """The token for `scopes`, fetched unless there is one that lives and is not the `refused` one."""
        credential = self._credential()
        if credential is not None and credential.registry_token:
            return f"Bearer {credential.registry_token}"
        grant = self._grant(scopes)
        with grant.lock:
            self._check_refused()
            if grant.failure is not None:
                raise AuthError(grant.failure.message, grant.failure.hint)
            if grant.header is None or grant.header == refused or self._clock() >= grant.expires:
                try:
                    token, life = self._fetch(bearer, _merge(scopes | grant.asked), credential)
                except AuthError as error:
                    grant.failure = error
                    raise
                self._token_given = True
                grant.header = f"Bearer {token}"
                grant.expires = self._clock() + life - min(_MAX_MARGIN, life / 10)
            return grant.header

    def _fetch(self, bearer: Challenge, scopes: tuple[str, ...], credential: Credential | None) -> tuple[str, float]:
        """A token and its life in seconds, from the service that the challenge names."""
        realm = bearer.parameters["realm"]
        service = check_realm(realm, self._registry())
        if credential is not None:
            self._check_trusted(service.host)
        common = [("service", bearer.parameters["service"])] if "service" in bearer.parameters else []
        if credential is not None and credential.identity_token:
            form = [("grant_type", "refresh_token"), *common, ("client_id", "ociforge"), ("scope", " ".join(scopes))]
            body = urlencode([*form, ("refresh_token", credential.identity_token)]).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return _read_token(self._ask("POST", realm, headers, body))
        query = urlencode([*common, *(("scope", scope) for scope in scopes)])
        headers = {} if credential is None else {"Authorization": _basic(credential)}
        joiner = "&" if urlsplit(realm).query else "?"
        return _read_token(self._ask("GET", f"{realm}{joiner}{query}", headers, None))

    def _check_trusted(self, host: str) -> None:
        if host not in self._token_hosts and not same_domain(host, self._registry().host):
            raise AuthError(
                f"the registry `{self._name}` wants its credential sent to `{host}`, which is outside its domain",
                f"if that is right, allow it with `--token-host {host}`",
            )

    def _ask(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> requests.Response:
        """The token service's answer; redirects are none. A service that is down is not asked 25 times."""
        try:
            response = self._wire.repeat(lambda: self._wire.send(method, url, headers, body), retry=True)
        except BrokenConnectionError as broken:
            raise RegistryError(broken.message, broken.hint) from broken
        if response.status_code == 200:
            return response
        if response.status_code not in (400, 401, 403):
            raise refusal(response)
        error = self._no_token(response)
        if response.status_code == 401 and not self._token_given:
            self._refused = error  # else these scopes are too many, as for a mount, and the password is right
        raise error

    def _no_token(self, response: requests.Response) -> AuthError:
        error = AuthError(f"no token for `{self._name}`: {refusal(response).message}")
        credential = self._credential()
        if credential is None:
            return AuthError(error.message, self._nothing_found())
        lacking = response.status_code == 403 or self._token_given
        return (_lacking if lacking else _refused)(error, credential, self._name)


def _login_again(registry: str) -> str:
    return f"log in again with `ociforge login {registry}`, or set REGISTRY_AUTH_FILE"


def _refused(error: RegistryError, credential: Credential, registry: str) -> AuthError:
    return AuthError(f"{error.message}: the credential from `{credential.source}` was refused", _login_again(registry))


def _lacking(error: RegistryError, credential: Credential, registry: str) -> AuthError:
    return AuthError(
        error.message,
        f"the account of the credential from `{credential.source}` may lack the right to do this;"
        f" {_login_again(registry)}",
    )


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _read_token(response: requests.Response) -> tuple[str, float]:
    """The token and its life in seconds."""
    data = body_of(response)
    try:
        if len(data) > _MAX_TOKEN_ANSWER:
            raise ValueError(data[:10])
        answer: dict[str, Any] = json.loads(data)
        token = answer.get("token") or answer.get("access_token")
        life = float(answer.get("expires_in") or _DEFAULT_LIFE)
    except (ValueError, TypeError, AttributeError, RecursionError):
        token, life = None, 0.0
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
        raise RegistryError(f"the token service `{redact(response.url)}` gave no token")
    return token, life
