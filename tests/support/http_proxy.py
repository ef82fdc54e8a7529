"""An HTTP proxy on loopback: tunnels by CONNECT, and plain requests with absolute URLs (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import base64
import http.client
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HTTPProxy", "running_http_proxy"]


@dataclass
class HTTPProxy:
    """`seen` are the requests, `METHOD TARGET`; every host is taken for 127.0.0.1. `url` has the credentials in it."""

    url: str
    authorization: str
    seen: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 20
    proxy: HTTPProxy

    def parse_request(self) -> bool:
        ok = super().parse_request()
        if ok and self.command != "CONNECT":
            setattr(self, f"do_{self.command}", self._pass_on)
        return ok

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        if not self._may_pass():
            return
        there = socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2])))
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with there:
            back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
            back.start()
            _pump(self.connection, there)
            back.join()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._may_pass():
            return
        url = urlsplit(self.path)
        there = http.client.HTTPConnection("127.0.0.1", url.port or 80)
        kept = {name: value for name, value in self.headers.items() if name.lower() != "proxy-authorization"}
        there.request(self.command, f"{url.path}?{url.query}" if url.query else url.path, body or None, kept)
        answer = there.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        there.close()

    def _may_pass(self) -> bool:
        self.proxy.seen.append(f"{self.command} {self.path}")
        if self.headers.get("Proxy-Authorization") == self.proxy.authorization:
            return True
        self.send_response(407)
        self.send_header("Proxy-Authenticate", "Basic")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: clients that hang up are part of the tests."""


@contextmanager
def running_http_proxy(user: str, password: str) -> Iterator[HTTPProxy]:
    """A proxy on a free port that wants these credentials."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    url = f"http://{user}:{password}@127.0.0.1:{server.server_port}"
    proxy = HTTPProxy(url=url, authorization=f"Basic {pair}")
    handler.proxy = proxy  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
