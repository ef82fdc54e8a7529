from __future__ import annotations

import socket
import threading
import urllib.request
from typing import TYPE_CHECKING

from benchmarks.proxy import counted
from tests.support.channel import serve

if TYPE_CHECKING:
    from pathlib import Path


def test_bytes_arrive_and_are_counted(tmp_path: Path) -> None:
    data = bytes(range(256)) * 20_000
    (tmp_path / "file").write_bytes(data)
    with serve(tmp_path) as served, counted(served.url.removeprefix("http://").rstrip("/")) as traffic:
        for number in (1, 2):
            with urllib.request.urlopen(f"http://{traffic.host}/file") as response:
                assert response.read() == data
            assert number * len(data) < traffic.received < number * (len(data) + 500)
        assert 0 < traffic.sent < 2000


def test_both_ways_at_once(tmp_path: Path) -> None:
    """A client that sends all before it reads does not block one that answers as it reads."""
    size = 5 << 20
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_echo, args=(server,))
        thread.start()
        with counted(f"127.0.0.1:{server.getsockname()[1]}") as traffic:
            host, _, port = traffic.host.partition(":")
            with socket.create_connection((host, int(port))) as client:
                reader = threading.Thread(target=client.sendall, args=(b"x" * size,))
                reader.start()
                got = 0
                while got < size:
                    got += len(client.recv(1 << 16))
                reader.join()
            thread.join()
            assert (traffic.sent, traffic.received) == (size, size)


def _echo(server: socket.socket) -> None:
    peer, _ = server.accept()
    with peer:
        while data := peer.recv(1 << 16):
            peer.sendall(data)
