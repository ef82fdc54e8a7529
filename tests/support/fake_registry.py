"""A registry in this process whose manners a test can spoil: it counts requests, lies, stalls and hangs up.

It keeps the distribution-spec as far as the client needs it. `on` puts a reply before that, for a method and a pattern
of paths; `tokens` issues and checks them as Docker Hub does.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs, parse_qsl, urlsplit

from layers.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Call", "Exchange", "FakeRegistry", "Reply", "answer", "cut", "early", "hang_up", "lose", "running_fake"]

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
    timeout = 20
    registry: FakeRegistry
    call: Call

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
        self.call = Call(method=self.command, target=self.path, headers=dict(self.headers.items()), body=body)
        with self.registry.lock:
            self.registry.calls.append(self.call)
        (reply or FakeRegistry.serve)(self.registry, self)

    def send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """A whole answer; a Content-Length among `headers` is kept as it is."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

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
        if after:
            exchange.rfile.read(after)
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
    """State and manners; everything may be set while it runs."""

    host: str
    auth: Literal["none", "basic", "bearer"] = "none"
    realm: str = ""
    ranges: bool = True
    mounts: bool = True
    location: str = "http://{host}{path}?_state=a%2fb~&x=&x=1"
    token_life: float | None = None
    calls: list[Call] = field(default_factory=list)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    sessions: dict[str, bytes] = field(default_factory=dict)
    tokens: dict[str, frozenset[str]] = field(default_factory=dict)
    rules: list[_Rule] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    issued: int = 0

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
            exchange.send(401, _error("UNAUTHORIZED"), {"WWW-Authenticate": needed})
        else:
            match = re.fullmatch(r"/v2/(.+?)/(blobs/uploads|blobs|manifests|tags)/(.*)", call.path)
            if match is None:
                exchange.send(404)
                return
            kind = match[2].replace("/", "_")
            getattr(self, f"_{kind}")(exchange, match[1], match[3])

    def blob_answer(self, call: Call) -> tuple[int, bytes, dict[str, str]]:
        repository, digest = re.fullmatch(r"/v2/(.+)/blobs/(.+)", call.path).groups()  # type: ignore[union-attr]
        data = self.blobs.get((repository, digest))
        if data is None:
            return 404, _error("BLOB_UNKNOWN"), {}
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
        repository = re.search(r"/v2/(.+?)/(?:blobs|manifests|tags)/", call.path)
        action = "pull" if call.method in ("GET", "HEAD") else "push"
        scope = f"repository:{repository[1] if repository else ''}:{action}"
        granted = self.tokens.get(given.removeprefix("Bearer "), frozenset())
        if any(g.rpartition(":")[0] == scope.rpartition(":")[0] and action in g for g in granted):
            return None
        realm = self.realm or f"http://{self.host}/token"
        return f'Bearer realm="{realm}",service="fake, really",scope="{scope}",error="invalid_token"'

    def _token(self, exchange: Exchange) -> None:
        call = exchange.call
        given = call.headers.get("Authorization")
        form = dict(parse_qsl(call.body.decode()))
        scopes = call.query.get("scope", form.get("scope", "").split())
        if given not in (None, _basic()) or form.get("refresh_token") not in (None, IDENTITY):
            exchange.send(401, _error("UNAUTHORIZED"))
            return
        with self.lock:
            self.issued += 1
            token = f"token-{self.issued}"
            self.tokens[token] = frozenset(scopes)
        answer: dict[str, Any] = {"access_token" if form else "token": token}
        if self.token_life is not None:
            answer["expires_in"] = self.token_life
        exchange.send(200, json.dumps(answer).encode())

    # -- the API

    def _blobs(self, exchange: Exchange, repository: str, digest: str) -> None:
        status, data, headers = self.blob_answer(exchange.call)
        exchange.send(status, data, headers)

    def _blobs_uploads(self, exchange: Exchange, repository: str, session: str) -> None:
        call = exchange.call
        source = call.query.get("from", [""])[0]
        mounted = call.query.get("mount", [""])[0]
        if call.method == "POST" and self.mounts and (source, mounted) in self.blobs:
            self.blobs[repository, mounted] = self.blobs[source, mounted]
            exchange.send(201, headers={"Docker-Content-Digest": mounted})
            return
        if call.method == "POST":
            session = f"s{len(self.sessions)}"
            self.sessions[session] = b""
        elif session not in self.sessions:
            exchange.send(404, _error("BLOB_UPLOAD_UNKNOWN"))
            return
        self.sessions[session] += call.body
        if call.method == "PUT":
            self._finish(exchange, repository, session)
            return
        path = f"/v2/{repository}/blobs/uploads/{session}"
        headers = {"Location": self.location.format(host=self.host, path=path, session=session)}
        if arrived := len(self.sessions[session]):
            headers["Range"] = f"0-{arrived - 1}"
        exchange.send(204 if call.method == "GET" else 202, headers=headers)

    def _finish(self, exchange: Exchange, repository: str, session: str) -> None:
        data = self.sessions.pop(session)
        wanted = exchange.call.query["digest"][0]
        if str(Digest.of(data)) != wanted:
            exchange.send(400, _error("DIGEST_INVALID"))
            return
        self.blobs[repository, wanted] = data
        exchange.send(201, headers={"Docker-Content-Digest": wanted})

    def _manifests(self, exchange: Exchange, repository: str, name: str) -> None:
        call = exchange.call
        if call.method == "PUT":
            digest = self.add_manifest(repository, name, call.headers["Content-Type"], call.body)
            exchange.send(201, headers={"Docker-Content-Digest": str(digest)})
            return
        media_type, data = self.manifests.get((repository, name), ("", b""))
        if not media_type:
            exchange.send(404, _error("MANIFEST_UNKNOWN"))
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


def _basic() -> str:
    return f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


def _error(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": "so says the fake"}]}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: clients that hang up are part of the tests."""


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextmanager
def running_fake(address: str = "127.0.0.1") -> Iterator[FakeRegistry]:
    """A fake on a free port of a loopback address; another address counts as another host."""
    handler = type("Handler", (Exchange,), {})
    server = (_Server6 if ":" in address else _Server)((address, 0), handler)
    registry = FakeRegistry(host=f"{f'[{address}]' if ':' in address else address}:{server.server_port}")
    handler.registry = registry  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
