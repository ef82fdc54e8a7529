"""A token service for docker-registry: signed tokens for whatever scope is asked for.

Distribution's "Token Authentication Implementation": JWTs, signed with ES256 by openssl.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.support.tls import new_authority
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["TokenServer", "running_token_server"]

USER, PASSWORD = "user", "secret"
_LEEWAY = 60  # seconds that the registry goes on accepting an expired token


@dataclass(kw_only=True)
class TokenServer:
    """Issues tokens to USER with PASSWORD, which live for `life` whole seconds and say so, unless a life is `promised`.

    `certificate` is what the registry has to trust; `asked` has the scopes of each request in order.
    """

    certificate: Path
    key: Path
    realm: str = ""
    service: str = "tests"
    issuer: str = "tests"
    life: int = 300
    promised: int | None = None
    asked: list[tuple[str, ...]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def token(self, scopes: tuple[str, ...]) -> str:
        """A token for `scopes` as a registry reads it."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": USER,
            "aud": self.service,
            "nbf": now - 10,
            "exp": now + self.life - _LEEWAY,
            "access": [_access(scope) for scope in scopes],
        }
        certificate = "".join(self.certificate.read_text().splitlines()[1:-1])
        header = {"typ": "JWT", "alg": "ES256", "x5c": [certificate]}
        signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        command = [need("openssl"), "dgst", "-sha256", "-sign", str(self.key)]
        signature = subprocess.run(command, input=signed.encode(), capture_output=True, check=True).stdout
        return f"{signed}.{_encoded(_raw(signature))}"


def _access(scope: str) -> dict[str, Any]:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _raw(signature: bytes) -> bytes:
    """An ECDSA signature in DER, as the two numbers of 32 bytes that JWS (RFC 7518) has instead."""
    first = signature[3]
    numbers = signature[4 : 4 + first], signature[6 + first :]
    return b"".join(number.lstrip(b"\0").rjust(32, b"\0") for number in numbers)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of_tokens: TokenServer

    def do_GET(self) -> None:
        server = self.server_of_tokens
        scopes = tuple(parse_qs(urlsplit(self.path).query).get("scope", ()))
        with server.lock:
            server.asked.append(scopes)
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {pair}":
            self._send(401, {"details": "incorrect username or password"})
        else:
            self._send(200, {"token": server.token(scopes), "expires_in": server.promised or server.life})

    def _send(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def running_token_server(directory: Path) -> Iterator[TokenServer]:
    """Run a token service on a free loopback port, with its key in `directory`, until the block ends."""
    signer = new_authority(directory, "signer")
    tokens = TokenServer(certificate=signer.certificate, key=signer.key)
    handler = type("Handler", (_Handler,), {"server_of_tokens": tokens})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    tokens.realm = f"http://127.0.0.1:{server.server_port}/token"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield tokens
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
