"""A far registry, here: `python -m benchmarks.latency HOST:PORT SECONDS` relays to it and delays each answer.

Prints the port that it listens on, and runs until it is terminated. What comes back is held once for each request, so
that a long answer is late, but not slow.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.measure import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["main", "running_latency"]

_BLOCK = 256 << 10


@dataclass(slots=True, kw_only=True)
class _Relay:
    """One connection of a client; HTTP/1.1 without pipelining: whoever speaks has heard the other out."""

    delay: float
    asked: bool = field(default=False)

    async def forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_BLOCK):
            self.asked = True
            writer.write(data)
            await writer.drain()
        writer.close()

    async def back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_BLOCK):
            if self.asked:
                self.asked = False
                await asyncio.sleep(self.delay)
            writer.write(data)
            await writer.drain()
        writer.close()


async def _serve(host: str, port: int, delay: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = _Relay(delay=delay)
        there, back = await asyncio.open_connection(host, port)
        ways = (relay.forth(reader, back), relay.back(there, writer))
        await asyncio.gather(*ways, return_exceptions=True)  # a client that goes away is no failure

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


@contextmanager
def running_latency(host: str, delay: float) -> Iterator[str]:
    """The `127.0.0.1:PORT` of a relay to `host` until the block ends; `delay` in seconds."""
    command = [sys.executable, "-m", "benchmarks.latency", host, str(delay)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        assert port, "the relay did not start"
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


def main(arguments: Sequence[str]) -> None:
    """Relay until terminated."""
    address, delay = arguments
    host, _, port = address.rpartition(":")
    asyncio.run(_serve(host, int(port), float(delay)))


if __name__ == "__main__":
    main(sys.argv[1:])
