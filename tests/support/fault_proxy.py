"""A way to a registry on which requests and answers break: cut, lost, damaged, held up, or answered by another.

It speaks HTTP/1.1, one request on each connection, and passes on what it is not told to spoil. `on` tells it, for a
method and a pattern of targets. With a certificate it ends TLS, as the proxy in front of many registries does.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPResponse
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "Fault",
    "FaultProxy",
    "Passage",
    "canned",
    "corrupt",
    "lost_answer",
    "pass_on",
    "relocated",
    "reset_after",
    "reset_before",
    "running_proxy",
    "stalled",
    "truncated",
]

_BLOCK = 64 << 10
_TIMEOUT = 20  # seconds; nothing in a test takes as long
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class Passage(StreamRequestHandler):
    """One request on its way; a fault does with it what it likes."""

    timeout = _TIMEOUT
    proxy: FaultProxy
    upstream: HTTPResponse

    def handle(self) -> None:
        line = self.rfile.readline(_BLOCK).decode("latin-1")
        if not line.strip():
            return
        self.method, self.target, _ = line.split(" ", 2)
        self.headers = list(self._read_headers())
        lengths = [int(value) for name, value in self.headers if name.lower() == "content-length"]
        self.length = sum(lengths)
        fault = self.proxy.next_fault(self.method, self.target, {n.lower(): v for n, v in self.headers})
        with suppress(OSError):  # either side may hang up
            (fault or pass_on)(self)

    def _read_headers(self) -> Iterator[tuple[str, str]]:
        while line := self.rfile.readline(_BLOCK).decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(":")
            yield name, value.strip()

    def body(self, limit: int | None = None) -> Iterator[bytes]:
        """The request's body as it comes in, but no more than `limit` bytes of it."""
        left = self.length if limit is None else min(limit, self.length)
        while left and (piece := self.rfile.read(min(left, _BLOCK))):
            left -= len(piece)
            yield piece

    def forward(self, limit: int | None = None) -> None:
        """Send the request on; of its body only the first `limit` bytes, and then hang up."""
        host, _, port = self.proxy.target.rpartition(":")
        kept = [(name, value) for name, value in self.headers if name.lower() != "connection"]
        head = [f"{self.method} {self.target} HTTP/1.1", *(f"{n}: {v}" for n, v in kept), "Connection: close", "", ""]
        there = socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT)
        with there:
            there.sendall("\r\n".join(head).encode("latin-1"))
            for piece in self.body(limit):
                there.sendall(piece)
            if limit is not None and limit < self.length:
                return
            self.upstream = HTTPResponse(there, method=self.method)
            self.upstream.begin()  # it keeps the connection open as long as it needs it

    def give_back(
        self,
        *,
        limit: int | None = None,
        change: Callable[[bytes, int], bytes] = lambda piece, _: piece,
        location: Callable[[str], str] = lambda location: location,
    ) -> None:
        """Pass the answer on: of its body only `limit` bytes, each piece changed by `change`, which is told where in
        the body it begins; and the Location by `location`.
        """
        answer = self.upstream
        with answer:
            lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
            for name, value in answer.getheaders():
                if name.lower() not in _HOP:
                    lines.append(f"{name}: {location(value) if name.lower() == 'location' else value}")
            if answer.headers.get("Content-Length") is not None:
                lines.append(f"Content-Length: {answer.headers['Content-Length']}")
            self.wfile.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
            position = 0
            while (limit is None or position < limit) and (
                piece := answer.read(_BLOCK if limit is None else min(_BLOCK, limit - position))
            ):
                self.wfile.write(change(piece, position))
                position += len(piece)

    def reset(self) -> None:
        """Hang up with RST, so that the client sees an error at once."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


Fault = Callable[[Passage], None]


def pass_on(passage: Passage) -> None:
    """No fault."""
    passage.forward()
    passage.give_back()


def reset_before(passage: Passage) -> None:
    """Nothing reaches the registry."""
    passage.reset()


def reset_after(count: int) -> Fault:
    """`count` bytes of the body reach the registry; then both sides are hung up."""

    def fault(passage: Passage) -> None:
        passage.forward(count)
        passage.reset()

    return fault


def lost_answer(passage: Passage) -> None:
    """The registry does what it was asked for, and its answer is lost."""
    passage.forward()
    passage.upstream.close()
    passage.reset()


def truncated(count: int) -> Fault:
    """The answer ends after `count` bytes of its body."""

    def fault(passage: Passage) -> None:
        passage.forward()
        passage.give_back(limit=count)

    return fault


def corrupt(position: int) -> Fault:
    """One bit of the answer's body is not the one that was sent."""

    def flip(piece: bytes, begin: int) -> bytes:
        if not begin <= position < begin + len(piece):
            return piece
        changed = bytearray(piece)
        changed[position - begin] ^= 1
        return bytes(changed)

    def fault(passage: Passage) -> None:
        passage.forward()
        passage.give_back(change=flip)

    return fault


def stalled(count: int) -> Fault:
    """After `count` bytes of the answer's body nothing comes any more, until the client hangs up."""

    def fault(passage: Passage) -> None:
        passage.forward()
        passage.give_back(limit=count)
        passage.rfile.read(1)

    return fault


def canned(status: int, **headers: str) -> Fault:
    """Nothing reaches the registry; the proxy takes the body and answers itself. `Retry_After` is `Retry-After`."""

    def fault(passage: Passage) -> None:
        for _ in passage.body():
            pass
        lines = [f"HTTP/1.1 {status} Canned", *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items())]
        lines += ["Content-Length: 0", "Connection: close", "", ""]
        passage.wfile.write("\r\n".join(lines).encode("latin-1"))

    return fault


def relocated(change: Callable[[str], str]) -> Fault:
    """The Location of the answer is another."""

    def fault(passage: Passage) -> None:
        passage.forward()
        passage.give_back(location=change)

    return fault


@dataclass(slots=True)
class _Rule:
    method: str
    pattern: re.Pattern[str]
    fault: Fault
    left: int


@dataclass
class FaultProxy:
    """`host` is where clients connect to, `target` the registry behind; `requests` has `METHOD TARGET` of each request
    and its headers, their names in lower case.
    """

    host: str
    target: str
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    rules: list[_Rule] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def on(self, method: str, pattern: str, fault: Fault, times: int = 1) -> None:
        """Spoil the next `times` requests of this kind; earlier rules come first."""
        self.rules.append(_Rule(method, re.compile(pattern), fault, times))

    def next_fault(self, method: str, target: str, headers: dict[str, str]) -> Fault | None:
        with self.lock:
            self.requests.append((f"{method} {target}", headers))
            for rule in self.rules:
                if rule.left and rule.method == method and rule.pattern.search(target):
                    rule.left -= 1
                    return rule.fault
        return None


class _Server(ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is None:
            super().finish_request(request, client_address)
        else:
            with self.context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: clients that hang up are part of the tests."""


@contextmanager
def running_proxy(target: str, certificate: tuple[Path, Path] | None = None) -> Iterator[FaultProxy]:
    """A proxy on a free port of 127.0.0.1 in front of the host:port `target`, which speaks plain http.

    With `certificate` (certificate, key) the proxy itself speaks https.
    """
    handler = type("Handler", (Passage,), {})
    server = _Server(("127.0.0.1", 0), handler)
    if certificate is not None:
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(*certificate)
    proxy = FaultProxy(host=f"127.0.0.1:{server.server_address[1]}", target=target)
    handler.proxy = proxy  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
