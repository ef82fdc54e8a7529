"""HTTP as registries need it: one session, no netrc, no cookies, no redirects behind our back, bounded everything.

`Wire` sends single requests and repeats them; it knows nothing of registries. Authorization is the caller's, who
compares `Origin`s before giving any away.
"""

from __future__ import annotations

import io
import ipaddress
import json
import logging
import random
import re
import socket
import time
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from msgspec import Struct
from urllib3.exceptions import InvalidHeader, NewConnectionError

from ociforge.errors import AnswerError, AuthError, RegistryError
from ociforge.transports.credential import Account
from ociforge.transports.session import new_session
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from ociforge.transports.options import RegistryOptions

__all__ = [
    "TRANSIENT",
    "Body",
    "BrokenConnectionError",
    "Origin",
    "Pace",
    "Wire",
    "body_of",
    "login_hint",
    "printable",
    "redact",
    "refusal",
    "resolve",
    "retry_after",
    "worth_waiting",
]

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})

_MAX_BODY = 32 << 20  # 32 MiB: tag lists are the longest answers that are not streamed
_MAX_ERROR_BODY = 1 << 20  # 1 MiB
_MAX_MESSAGE = 300  # characters of a registry's own words
_MAX_RETRY_AFTER = 120.0  # seconds; who asks for more is not worth waiting for
_BACKOFF, _MAX_BACKOFF = 0.5, 30.0  # seconds
_CONNECT_ATTEMPTS = 3  # less than 2 s: a name that is wrong or a registry that is down does not get right soon
_MIN_PACE = 1 << 10  # bytes a second: what trickles in more slowly is a stall, however regularly a byte comes
_READ_BLOCK = 64 << 10
_PORTS = {"http": 80, "https": 443}


class Body(Protocol):
    """A request's body that can be sent again: `rewind` goes back to its first byte. Never empty."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def read(self, size: int = -1, /) -> bytes: ...
    def rewind(self) -> None: ...


class BrokenConnectionError(RegistryError):
    """No whole answer came back. `sent` is false when the registry cannot have seen the request."""

    def __init__(self, message: str, hint: str | None = None, *, sent: bool) -> None:
        super().__init__(message, hint)
        self.sent = sent


class Origin(Struct, frozen=True):
    """Scheme, host and port of a URL (RFC 6454): what a credential belongs to. Default ports are written out."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """The origin of an http or https URL; raises RegistryError for any other, and for one with a user in it."""
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS[parts.scheme]
        except (KeyError, ValueError):
            raise RegistryError(f"`{redact(url)}` is no http or https URL") from None
        if not parts.hostname or "@" in parts.netloc:
            raise RegistryError(f"`{redact(url)}` is not a URL that a registry may use")
        return cls(parts.scheme, parts.hostname, port)

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an IP address, when it is one."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine: `localhost`, 127.0.0.0/8 or ::1."""
        return self.host == "localhost" or (self.address is not None and self.address.is_loopback)

    @property
    def is_public(self) -> bool:
        """Whether the host is none of `localhost` and the private, link-local and loopback addresses."""
        address = self.address
        return address.is_global if address is not None else not f".{self.host}".endswith(".localhost")


def redact(url: str) -> str:
    """A URL to show: without query, fragment and user, which may be secrets."""
    return printable(redacted(url))


def resolve(base: str, location: str | None, registry: Origin) -> str:
    """The URL that a `Location` header of an answer from `base` means, its query kept byte for byte.

    http on a host that we talk to by https (a registry behind a TLS proxy) is upgraded; any other step down to http
    raises RegistryError, as does a missing or malformed header.
    """
    if not location or not re.fullmatch(r"[!-~]+", location):
        raise RegistryError(f"`{redact(base)}` answered without a usable Location")
    url = urljoin(base, location).partition("#")[0]
    target, here = Origin.of(url), Origin.of(base)
    if here.scheme == "https" and target.scheme == "http":
        if target.host not in (here.host, registry.host):
            raise RegistryError(f"`{redact(base)}` leads from https to plain http: `{redact(url)}`")
        url = f"https{url[len('http') :]}"
    return url


def body_of(response: requests.Response) -> bytes:
    """The body of an answer that was not streamed, however often it is asked for."""
    raw = response.raw
    return raw.getvalue() if isinstance(raw, _Loaded) else b""


def refusal(response: requests.Response) -> RegistryError:
    """An answer that is not the one wanted, as an error with the registry's own words; closes it.

    AuthError for 401 and 403.
    """
    status = response.status_code
    request = response.request
    errors = _errors(body_of(response))
    detail = errors or response.reason or ""
    response.close()
    message = f"{request.method} `{redact(str(request.url))}`: {status} {printable(detail)}".rstrip()
    if status == 401:
        return AuthError(message, _login_there(request))
    if status == 403:
        return AuthError(message, f"the account may lack the right to do this; {_login_there(request)}")
    if status == 429:
        return RegistryError(message, "the registry limits requests: wait, or log in for a higher limit")
    if status == 400 and not errors and str(request.url).startswith("http:"):
        return RegistryError(message, _SPEAKS_TLS)
    return RegistryError(message, "try again later" if status in TRANSIENT else None)


def login_hint(registry: str) -> str:
    """What to do where `registry`, as the user calls it, wants a credential."""
    return f"log in with `ociforge login {registry}`, or set REGISTRY_AUTH_FILE"


def _login_there(request: requests.PreparedRequest) -> str:
    return login_hint(Account.of(urlsplit(str(request.url)).netloc).registry)


def _errors(data: bytes) -> str:
    """`CODE: message; …` of an error document (distribution-spec, "Error codes"), or nothing."""
    try:
        errors = json.loads(data)["errors"]
        pairs = [(str(error.get("code") or ""), str(error.get("message") or "")) for error in errors]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""
    return "; ".join(": ".join(filter(None, pair)) for pair in pairs)


def printable(text: str) -> str:
    """Text from outside, on one line and not too long."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}…"


def retry_after(response: requests.Response) -> float | None:
    """Seconds that the answer asks to wait, or None."""
    value = response.headers.get("Retry-After")
    try:
        return None if value is None else float(urllib3.Retry(0).parse_retry_after(value))
    except (InvalidHeader, OverflowError):
        return None


def worth_waiting(wanted: float | None) -> bool:
    """Whether a wait of `wanted` seconds, if any is asked for, is short enough to be kept."""
    return wanted is None or wanted <= _MAX_RETRY_AFTER


class Pace:
    """Tells a body that comes in from one that trickles: a server that gives a byte now and then never runs into the
    timeout between two pieces. `window` is in seconds.
    """

    def __init__(self, clock: Callable[[], float], window: float) -> None:
        self._clock = clock
        self._window = window
        self._waited, self._count = 0.0, 0  # only the time spent here: a slow reader is not the server's fault

    def read(self, raw: urllib3.BaseHTTPResponse, size: int) -> bytes:
        """Some bytes of `raw`, at most `size`; `b""` at its end. TimeoutError: those of a whole window were too few."""
        begun = self._clock()
        data = raw.read1(size, decode_content=False)
        self._waited += self._clock() - begun
        self._count += len(data)
        if self._waited >= self._window:
            if data and self._count < _MIN_PACE * self._window:
                raise TimeoutError
            self._waited, self._count = 0.0, 0
        return data


class Wire:
    """A session shared by threads, with timeouts and bounded repetition. `sleep` and `clock` are in seconds."""

    def __init__(
        self,
        options: RegistryOptions,
        *,
        trust_env: bool,
        sleep: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = (options.connect_timeout, options.read_timeout)
        self._sleep = sleep
        self._clock = clock
        self.attempts = options.attempts
        logging.getLogger("urllib3.connectionpool").addFilter(_without_queries)
        self.session = new_session(options, trust_env)

    def close(self) -> None:
        self.session.close()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Body | None = None,
        *,
        stream: bool = False,
    ) -> requests.Response:
        """One request, one answer, whatever its status; redirects are answers too.

        With `stream`, a successful answer's body is left in `raw` for the caller, who closes it; any other body is
        read first, up to a bound. Raises BrokenConnectionError when no whole answer comes back, RegistryError when none
        ever can.
        """
        try:
            return self._send(method, url, headers, body, stream=stream)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise self.translate(error, method, url) from _root(error)

    def pace(self) -> Pace:
        """What watches over one body that begins to come in now."""
        return Pace(self._clock, self._timeout[1])

    def repeat(self, send: Callable[[], requests.Response], *, retry: bool) -> requests.Response:
        """`send` until it gets through: again after a transient status or a broken connection if `retry`, and after a
        connection that never was in any case; at last the answer or the error as it is.
        """
        for attempt in range(1, self.attempts):
            try:
                response = send()
            except BrokenConnectionError as broken:
                if (broken.sent and not retry) or (not broken.sent and attempt >= _CONNECT_ATTEMPTS):
                    raise
                wanted = None
            else:
                wanted = retry_after(response)
                if not retry or response.status_code not in TRANSIENT or not worth_waiting(wanted):
                    return response
                response.close()
            self.pause(attempt, wanted)
        return send()

    def pause(self, attempt: int, wanted: float | None = None) -> None:
        """Wait after failure number `attempt`: as long as `wanted`, else ever longer, with jitter."""
        if wanted is None:
            wanted = min(_BACKOFF * 2 ** (attempt - 1), _MAX_BACKOFF) * random.uniform(0.75, 1.25)
        self._sleep(min(wanted, _MAX_RETRY_AFTER))

    def translate(self, error: Exception, method: str, url: str) -> RegistryError:
        """What a failed request or read means to the user. Takes no text from `error` that could hold a URL."""
        what = f"{method} `{redact(url)}`"
        if isinstance(error, requests.exceptions.SSLError):
            return RegistryError(f"{what}: no TLS connection: {_reason(error)}", _tls_hint(error))
        if isinstance(error, requests.ReadTimeout | urllib3.exceptions.ReadTimeoutError | TimeoutError):
            return BrokenConnectionError(
                f"{what}: no answer, or not enough of it, in {self._timeout[1]:g} s", sent=True
            )
        if isinstance(error, requests.ConnectTimeout):
            return BrokenConnectionError(f"{what}: no connection within {self._timeout[0]:g} s", _DOWN_HINT, sent=False)
        if isinstance(error, requests.exceptions.ProxyError):
            hint = "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY, and that the proxy is running"
            return BrokenConnectionError(f"{what}: the proxy does not help: {_reason(error)}", hint, sent=False)
        if _never_sent(error):
            return BrokenConnectionError(f"{what}: {_reason(error)}", _DOWN_HINT, sent=False)
        if isinstance(error, requests.ConnectionError | urllib3.exceptions.HTTPError | OSError) and not isinstance(
            error, _HOPELESS
        ):
            return BrokenConnectionError(f"{what}: {_reason(error)}", "the connection broke: try again", sent=True)
        return RegistryError(f"{what}: the request cannot be made ({type(error).__name__})")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Body | None, *, stream: bool
    ) -> requests.Response:
        if body is not None and not isinstance(body, bytes):
            body.rewind()
        session = self.session
        request = session.prepare_request(requests.Request(method, url, headers=dict(headers), data=body))
        request.url = url  # as it came: requests would unquote and quote a signed query anew
        settings = session.merge_environment_settings(url, {}, True, session.verify, None)
        response = session.send(request, timeout=self._timeout, allow_redirects=False, **settings)
        if not stream or response.status_code not in (200, 206):
            _load(response, _MAX_BODY if response.ok else _MAX_ERROR_BODY, self.pace())
        return response


def _without_queries(record: logging.LogRecord) -> bool:
    """For urllib3's log, which names whole URLs: their queries may be signatures. Who turns it on sees the rest."""
    if isinstance(record.args, tuple):
        record.args = tuple(a.partition("?")[0] if isinstance(a, str) else a for a in record.args)
    return True


_SPEAKS_TLS = (
    "if the registry speaks TLS, name the file of the authority that signed its certificate with `--ca-file`; "
    "`--insecure` accepts any certificate"
)
_DOWN_HINT = "check the name, and that the registry is running and can be reached from here"
_HOPELESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidProxyURL,
)


def _load(response: requests.Response, limit: int, pace: Pace) -> None:
    """Read the body into memory, so that the connection is free again; no more than `limit` bytes of it."""
    data = io.BytesIO()
    while data.tell() < limit and (chunk := pace.read(response.raw, _READ_BLOCK)):
        data.write(chunk)
    if data.tell() >= limit:
        response.close()
        if response.ok:
            raise AnswerError(f"`{redact(response.url)}`: an answer of more than {limit} bytes")
    response.raw = _Loaded(data.getvalue())


class _Loaded(io.BytesIO):
    """A body in memory that is read as urllib3's are; closing it changes nothing."""

    def close(self) -> None:
        pass

    def read(self, size: int | None = -1, /, *, decode_content: bool = False) -> bytes:
        return super().read(size)


def _never_sent(error: Exception) -> bool:
    """Whether the connection was not even made."""
    return any(isinstance(cause, NewConnectionError) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what is behind it, outermost first: urllib3 and requests hide it in three places."""
    while error is not None:
        yield error
        inner = [a for a in (*error.args, getattr(error, "reason", None)) if isinstance(a, BaseException)]
        error = inner[0] if inner else error.__cause__


def _root(error: BaseException) -> BaseException:
    """The innermost cause: unlike what requests and urllib3 wrap around it, it quotes no URL."""
    return list(_causes(error))[-1]


def _reason(error: Exception) -> str:
    for cause in reversed(list(_causes(error))):
        if isinstance(cause, socket.gaierror):
            return "no such host"
        if isinstance(cause, OSError) and cause.strerror:
            text = re.sub(r"^\[SSL[^]]*\] | \(_ssl\.c:\d+\)$", "", cause.strerror)
            return printable(text if text[1:2].isupper() else text[:1].lower() + text[1:])
        if "Tunnel connection failed" in str(cause) and isinstance(cause, OSError):
            return printable(str(cause).partition(": ")[2])
    return "the connection was closed before the answer was complete"


def _tls_hint(error: Exception) -> str:
    why = str(_root(error))
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return (
            "if an authority of your own signed the certificate, name its file with `--ca-file`; "
            "`--insecure` accepts any certificate"
        )
    if any(word in why for word in ("_CERTIFICATE", "_UNKNOWN_CA", "EOF")):  # alerts, or not even that
        return "the registry may ask for a client certificate: name one that it accepts with `--client-cert`"
    return "if the registry speaks plain http, allow it with `--insecure`"
