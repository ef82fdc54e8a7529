"""A registry in this process whose manners a test can spoil: it counts requests, lies, stalls and hangs up.

It keeps the distribution-spec as far as the client needs it. `on` puts a reply before that, for a method and a pattern
of paths; `tokens` issues and checks them as Docker Hub does.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar
from urllib.parse import parse_qs, parse_qsl, urlsplit

from layers.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = [
    "IDENTITY",
    "PASSWORD",
    "USER",
    "Call",
    "Exchange",
    "FakeRegistry",
    "Reply",
    "answer",
    "break_off",
    "cut",
    "early",
    "error_body",
    "hang_up",
    "lose",
    "running",
    "running_fake",
]

USER, PASSWORD, IDENTITY = "alice", "opensesame", "refresh-me"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as it came in; `target` is path and query, byte for byte."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Exchange(BaseHTTPRequestHandler):
    """One connection; a reply answers through `send`, or misuses the connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else an answer with a body takes 40 ms
    timeout = 20
    registry: FakeRegistry
    call: Call
    extra: dict[str, str]  # headers that the next answer gets besides its own

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the client may hang up, too
            self.close_connection = True

    def parse_request(self) -> bool:
        ok = super().parse_request()
        if ok:
            setattr(self, f"do_{self.command}", self._serve)
        return ok

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self) -> None:
        reply = self.registry.scripted(self.command, urlsplit(self.path).path)
        unread = reply is not None and getattr(reply, "unread", False)
        announced = 0 if unread else int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(announced)
        if len(body) < announced:  # the client has gone
            self.close_connection = True
            return
        self.extra = {}
        self.call = Call(method=self.command, target=self.path, headers=dict(self.headers.items()), body=body)
        with self.registry.lock:
            self.registry.calls.append(self.call)
        (reply or FakeRegistry.serve)(self.registry, self)

    def send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """A whole answer; a Content-Length among `headers` is kept as it is."""
        self.send_response(status)
        for name, value in (self.extra | dict(headers or {})).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def first(self, count: int) -> bytes:
        """The first `count` bytes of a body that has not been read, or all of it if it is shorter."""
        return self.rfile.read(min(count, int(self.headers.get("Content-Length", 0))))

    def reset(self) -> None:
        """Close with RST, so that the other side sees an error at once."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


Reply = Callable[["FakeRegistry", Exchange], None]


def answer(status: int, body: bytes = b"", **headers: str) -> Reply:
    """A fixed answer; `Retry_After="1"` is the header `Retry-After`."""
    fixed = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda registry, exchange: exchange.send(status, body, fixed)


def early(status: int, **headers: str) -> Reply:
    """An answer before the body is read, after which the connection ends."""

    def reply(registry: FakeRegistry, exchange: Exchange) -> None:
        answer(status, b"", Connection="close", **headers)(registry, exchange)
        exchange.close_connection = True
        # Read what is on its way, so that the answer is not lost to a reset.
        exchange.connection.shutdown(socket.SHUT_WR)
        while exchange.connection.recv(1 << 20):
            pass

    reply.unread = True  # type: ignore[attr-defined]
    return reply


def hang_up(after: int = 0) -> Reply:
    """Read `after` bytes of the body, do nothing, and close the connection."""

    def reply(registry: FakeRegistry, exchange: Exchange) -> None:
        exchange.first(after)
        exchange.reset()

    reply.unread = True  # type: ignore[attr-defined]
    return reply


def break_off(after: int, *, keep: bool) -> Reply:
    """Take `after` bytes of an upload's body, and close the connection. With `keep` the session goes on from there;
    else it is gone, as in most registries.
    """

    def reply(registry: FakeRegistry, exchange: Exchange) -> None:
        data = exchange.first(after)
        session = urlsplit(exchange.path).path.rpartition("/")[2]
        if keep and session in registry.sessions:
            registry.sessions[session] += data
        else:
            registry.sessions.pop(session, None)
        exchange.reset()

    reply.unread = True  # type: ignore[attr-defined]
    return reply


def lose(registry: FakeRegistry, exchange: Exchange) -> None:
    """Do what was asked, and close the connection instead of answering."""
    kept, exchange.wfile = exchange.wfile, Nowhere()  # type: ignore[assignment]
    try:
        FakeRegistry.serve(registry, exchange)
    finally:
        exchange.wfile = kept
        exchange.reset()


class Nowhere:
    """A file that forgets."""

    def write(self, data: bytes) -> int:
        return len(data)

    def flush(self) -> None:
        pass


def cut(after: int, *, announce: bool = True) -> Reply:
    """A blob of which only `after` bytes come; without `announce` there is no Content-Length to notice it by."""

    def reply(registry: FakeRegistry, exchange: Exchange) -> None:
        status, data, headers = registry.blob_answer(exchange.call)
        exchange.send_response(status)
        for name, value in (headers | ({"Content-Length": str(len(data))} if announce else {})).items():
            exchange.send_header(name, value)
        exchange.send_header("Connection", "close")
        exchange.end_headers()
        exchange.wfile.write(data[:after])
        exchange.wfile.flush()
        exchange.close_connection = True

    return reply


@dataclass(slots=True)
class _Rule:
    method: str
    pattern: re.Pattern[str]
    reply: Reply
    left: int


@dataclass
class FakeRegistry:
    """State and manners; everything may be set while it runs. Subclasses are registries with manners of their own.

    `location` is the Location of sessions, with `{scheme}`, `{host}`, `{path}`, `{session}` and `{arrived}` bytes.
    `takes` says which uploads pass: any; only those whose bytes come by PATCH; or only bodies of at most `limit` bytes.
    `referrers` says whether there is an API for them (distribution-spec 1.1); `mounts` whether blobs can be mounted.
    """

    host: str
    scheme: str = "http"
    auth: Literal["none", "basic", "bearer"] = "none"
    realm: str = ""
    ranges: bool = True
    mounts: bool = True
    referrers: bool = False
    takes: Literal["put", "patch", "chunk"] = "put"
    limit: int = 4 << 20
    location: str = "{scheme}://{host}{path}?_state=a%2fb~&x=&x=1"
    token_life: float | None = None
    calls: list[Call] = field(default_factory=list)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    sessions: dict[str, bytes] = field(default_factory=dict)
    tokens: dict[str, frozenset[str]] = field(default_factory=dict)
    rules: list[_Rule] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    issued: int = 0
    opened: int = 0

    def reset(self) -> None:
        """Forget everything but what it is: for the next test."""
        fresh = type(self)(host=self.host, scheme=self.scheme)
        with self.lock:
            for name in self.__dataclass_fields__:
                setattr(self, name, getattr(fresh, name))

    def on(self, method: str, pattern: str, reply: Reply, times: int = 1) -> None:
        """Answer the next `times` requests of this kind with `reply`; earlier rules come first."""
        self.rules.append(_Rule(method, re.compile(pattern), reply, times))

    def scripted(self, method: str, path: str) -> Reply | None:
        with self.lock:
            for rule in self.rules:
                if rule.left and rule.method == method and rule.pattern.search(path):
                    rule.left -= 1
                    return rule.reply
        return None

    def seen(self, method: str, pattern: str = "") -> list[Call]:
        """The calls of this kind so far."""
        with self.lock:
            return [c for c in self.calls if c.method == method and re.search(pattern, c.path)]

    def secrets(self) -> list[str]:
        """Every Authorization header that came in."""
        with self.lock:
            return [c.headers["Authorization"] for c in self.calls if "Authorization" in c.headers]

    def add_blob(self, repository: str, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.blobs[repository, str(digest)] = data
        return digest

    def add_manifest(self, repository: str, name: str, media_type: str, data: bytes) -> Digest:
        digest = Digest.of(data)
        for key in (name, str(digest)):
            self.manifests[repository, key] = (media_type, data)
        return digest

    def serve(self, exchange: Exchange) -> None:
        """What a well-behaved registry does."""
        call = exchange.call
        if call.path == "/token":
            self._token(exchange)
        elif (needed := self._refused(call)) is not None:
            exchange.send(401, error_body("UNAUTHORIZED"), {"WWW-Authenticate": needed})
        else:
            match = re.fullmatch(r"/v2/(.+?)/(blobs/uploads|blobs|manifests|tags|referrers)/(.*)", call.path)
            if match is None:
                exchange.send(200 if call.path == "/v2/" else 404)
                return
            kind = match[2].replace("/", "_")
            getattr(self, f"_{kind}")(exchange, match[1], match[3])

    def blob_answer(self, call: Call) -> tuple[int, bytes, dict[str, str]]:
        repository, digest = re.fullmatch(r"/v2/(.+)/blobs/(.+)", call.path).groups()  # type: ignore[union-attr]
        data = self.blobs.get((repository, digest))
        if data is None:
            return 404, error_body("BLOB_UNKNOWN"), {}
        wanted = re.fullmatch(r"bytes=(\d+)-", call.headers.get("Range", ""))
        if wanted is None or not self.ranges:
            return 200, data, {"Docker-Content-Digest": digest}
        start = int(wanted[1])
        return 206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}

    # -- authorisation

    def _refused(self, call: Call) -> str | None:
        """The challenge, if the request may not pass."""
        given = call.headers.get("Authorization", "")
        if self.auth == "basic":
            return None if given == _basic() else 'Basic realm="not a url"'
        if self.auth == "none":
            return None
        repository = re.search(r"/v2/(.+?)/(?:blobs|manifests|tags|referrers)/", call.path)
        action = "pull" if call.method in ("GET", "HEAD") else "push"
        scope = f"repository:{repository[1] if repository else ''}:{action}"
        granted = self.tokens.get(given.removeprefix("Bearer "), frozenset())
        if any(g.rpartition(":")[0] == scope.rpartition(":")[0] and action in g for g in granted):
            return None
        return self.challenge(scope)

    def challenge(self, scope: str) -> str:
        """The WWW-Authenticate of a refused request that needs `scope`."""
        realm = self.realm or f"{self.scheme}://{self.host}/token"
        return f'Bearer realm="{realm}",service="fake, really",scope="{scope}",error="invalid_token"'

    def _token(self, exchange: Exchange) -> None:
        call = exchange.call
        given = call.headers.get("Authorization")
        form = dict(parse_qsl(call.body.decode()))
        if given not in (None, _basic()) or form.get("refresh_token") not in (None, IDENTITY):
            exchange.send(401, error_body("UNAUTHORIZED"))
            return
        scopes = self.grant(call.query.get("scope", form.get("scope", "").split()))
        if scopes is None:
            exchange.send(self.no_grant, error_body("DENIED"))
            return
        with self.lock:
            self.issued += 1
            token = f"token-{self.issued}"
            self.tokens[token] = frozenset(scopes)
        answer: dict[str, Any] = {"access_token" if form else "token": token}
        if self.token_life is not None:
            answer["expires_in"] = self.token_life
        exchange.send(200, json.dumps(answer).encode())

    no_grant: ClassVar[int] = 403

    def grant(self, scopes: list[str]) -> list[str] | None:
        """Which of the scopes asked for a token gets; None when the request is refused with `no_grant`."""
        return scopes

    # -- the API

    def _blobs(self, exchange: Exchange, repository: str, digest: str) -> None:
        status, data, headers = self.blob_answer(exchange.call)
        exchange.send(status, data, headers)

    def _blobs_uploads(self, exchange: Exchange, repository: str, session: str) -> None:
        call = exchange.call
        if call.method == "POST":
            self.start(exchange, repository)
        elif session not in self.sessions:
            exchange.send(404, error_body("BLOB_UPLOAD_UNKNOWN"))
        elif call.body and (status := self.too_much(call)):
            exchange.send(status, error_body("SIZE_INVALID" if status == 413 else "UNSUPPORTED"))
        elif call.method == "PATCH":
            self.patch(exchange, repository, session)
        elif call.method == "PUT":
            self.sessions[session] += call.body
            self.finish(exchange, repository, session)
        else:
            self.tell(exchange, 204, repository, session)

    def too_much(self, call: Call) -> int | None:
        """The status that refuses a request of an upload with a body, if it is refused."""
        if self.takes == "patch" and call.method == "PUT":
            return 405
        return 413 if self.takes == "chunk" and len(call.body) > self.limit else None

    def start(self, exchange: Exchange, repository: str) -> None:
        """POST: mount the blob that is named, or open a session."""
        call = exchange.call
        source = call.query.get("from", [""])[0]
        mounted = call.query.get("mount", [""])[0]
        if self.mounts and (source, mounted) in self.blobs:
            self.blobs[repository, mounted] = self.blobs[source, mounted]
            exchange.send(201, headers={"Docker-Content-Digest": mounted})
            return
        self.open_session(exchange, repository)

    def open_session(self, exchange: Exchange, repository: str) -> None:
        """Answer with a new session."""
        with self.lock:
            self.opened += 1
            session = f"s{self.opened - 1}"
        self.sessions[session] = b""
        self.tell(exchange, 202, repository, session)

    def patch(self, exchange: Exchange, repository: str, session: str) -> None:
        """PATCH: append the body, if it belongs at the end (distribution-spec, "Pushing a blob in chunks")."""
        wanted = exchange.call.headers.get("Content-Range", "0-").partition("-")[0]
        if wanted != str(len(self.sessions[session])):
            self.tell(exchange, 416, repository, session)
            return
        self.sessions[session] += exchange.call.body
        self.tell(exchange, 202, repository, session)

    def tell(self, exchange: Exchange, status: int, repository: str, session: str) -> None:
        """Answer with the state of a session."""
        path = f"/v2/{repository}/blobs/uploads/{session}"
        arrived = len(self.sessions[session])
        location = self.location.format(scheme=self.scheme, host=self.host, path=path, session=session, arrived=arrived)
        # Of no byte, registries say what they say of one.
        exchange.send(status, headers={"Location": location, "Range": f"0-{max(arrived - 1, 0)}"})

    def finish(self, exchange: Exchange, repository: str, session: str) -> None:
        """PUT: give the session's bytes their name."""
        data = self.sessions.pop(session)
        wanted = exchange.call.query["digest"][0]
        if str(Digest.of(data)) != wanted:
            exchange.send(400, error_body("DIGEST_INVALID"))
            return
        self.blobs[repository, wanted] = data
        exchange.send(201, headers={"Docker-Content-Digest": wanted})

    def _manifests(self, exchange: Exchange, repository: str, name: str) -> None:
        if exchange.call.method == "PUT":
            self.put_manifest(exchange, repository, name)
        else:
            self.get_manifest(exchange, repository, name)

    def put_manifest(self, exchange: Exchange, repository: str, name: str) -> None:
        """Store a manifest under a tag or digest."""
        call = exchange.call
        digest = self.add_manifest(repository, name, call.headers["Content-Type"], call.body)
        headers = {"Docker-Content-Digest": str(digest)}
        if self.referrers and (subject := json.loads(call.body).get("subject")):
            headers["OCI-Subject"] = subject["digest"]
        exchange.send(201, headers=headers)

    def get_manifest(self, exchange: Exchange, repository: str, name: str) -> None:
        """GET or HEAD of a manifest."""
        media_type, data = self.manifests.get((repository, name), ("", b""))
        if not media_type:
            exchange.send(404, error_body("MANIFEST_UNKNOWN"))
            return
        headers = {
            "Content-Type": f"{media_type}; charset=utf-8",
            "Docker-Content-Digest": str(Digest.of(data)),
            "Content-Length": str(len(data)),
        }
        exchange.send(200, data, headers)

    def _tags(self, exchange: Exchange, repository: str, name: str) -> None:
        tags = sorted(n for r, n in self.manifests if r == repository and ":" not in n)
        exchange.send(200, json.dumps({"name": repository, "tags": tags}).encode())

    def _referrers(self, exchange: Exchange, repository: str, digest: str) -> None:
        if not self.referrers:
            exchange.send(404, error_body("UNSUPPORTED"))
            return
        found = []
        for (place, name), (media_type, data) in sorted(self.manifests.items()):
            document = json.loads(data)
            if place == repository and ":" in name and document.get("subject", {}).get("digest") == digest:
                kind = document.get("artifactType") or document["config"]["mediaType"]
                found.append({"mediaType": media_type, "digest": name, "size": len(data), "artifactType": kind})
        wanted = exchange.call.query.get("artifactType")
        filtered = [one for one in found if wanted is None or one["artifactType"] in wanted]
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": filtered}
        headers = {"Content-Type": _INDEX} | ({} if wanted is None else {"OCI-Filters-Applied": "artifactType"})
        exchange.send(200, json.dumps(index).encode(), headers)


_INDEX = "application/vnd.oci.image.index.v1+json"


def _basic() -> str:
    return f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


def error_body(code: str, message: str = "so says the fake") -> bytes:
    """An error document (distribution-spec, "Error codes")."""
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the thread of the connection, so that a client that says nothing keeps nobody waiting."""
        if self.context is None:
            super().finish_request(request, client_address)
        else:
            with self.context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: clients that hang up are part of the tests."""


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextmanager
def running_fake(address: str = "127.0.0.1", *, certificate: tuple[Path, Path] | None = None) -> Iterator[FakeRegistry]:
    """A well-behaved one; see `running`."""
    with running(FakeRegistry, address, certificate=certificate) as registry:
        yield registry


Kind = TypeVar("Kind", bound=FakeRegistry)


@contextmanager
def running(
    kind: type[Kind], address: str = "127.0.0.1", *, certificate: tuple[Path, Path] | None = None
) -> Iterator[Kind]:
    """A fake on a free port of a loopback address; another address counts as another host.

    `certificate` (certificate, key) makes it speak https.
    """
    handler = type("Handler", (Exchange,), {})
    server = (_Server6 if ":" in address else _Server)((address, 0), handler)
    if certificate is not None:
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(*certificate)
    host = f"{f'[{address}]' if ':' in address else address}:{server.server_port}"
    registry = kind(host=host, scheme="http" if certificate is None else "https")
    handler.registry = registry  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
