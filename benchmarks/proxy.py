"""A proxy that counts the bytes between clients and a registry.

It copies them. Let the kernel move them by splice(2) and they arrive in single pages, which costs the registry half as
much again for each byte that it receives.
"""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Traffic", "counted"]

_BUFFER = 256 << 10  # 256 KiB


@dataclass(slots=True)
class Traffic:
    """`host` is `127.0.0.1:PORT`; `sent` and `received` are bytes so far, as clients see it, headers included."""

    host: str
    sent: int = 0
    received: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, direction: Literal["sent", "received"], count: int) -> None:
        """Count some more."""
        with self._lock:
            setattr(self, direction, getattr(self, direction) + count)


@contextmanager
def counted(target: str) -> Iterator[Traffic]:
    """Listen on a free loopback port, in front of `target` (HOST:PORT), until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        traffic = Traffic(f"127.0.0.1:{server.getsockname()[1]}")
        thread = threading.Thread(target=_accept, args=(server, target, traffic), daemon=True)
        thread.start()
        try:
            yield traffic
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _accept(server: socket.socket, target: str, traffic: Traffic) -> None:
    host, _, port = target.partition(":")
    while True:
        try:
            client, _address = server.accept()
        except OSError:
            return  # it was shut down
        registry = socket.create_connection((host, int(port)))
        for end in (client, registry):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_serve, args=(client, registry, traffic), daemon=True).start()


def _serve(client: socket.socket, registry: socket.socket, traffic: Traffic) -> None:
    """Move bytes both ways until both sides have closed."""
    with client, registry:
        back = threading.Thread(target=_move, args=(registry, client, traffic, "received"), daemon=True)
        back.start()
        _move(client, registry, traffic, "sent")
        back.join()


def _move(
    source: socket.socket, target: socket.socket, traffic: Traffic, direction: Literal["sent", "received"]
) -> None:
    buffer = memoryview(bytearray(_BUFFER))
    with suppress(OSError):
        while count := source.recv_into(buffer):
            traffic.add(direction, count)
            target.sendall(buffer[:count])
    with suppress(OSError):  # the other side may have gone
        target.shutdown(socket.SHUT_WR)
