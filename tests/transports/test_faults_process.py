"""What is left of a process: its memory while it moves much, its files when it is interrupted."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cli.program import environment
from tests.support.bases import tiny_image
from tests.support.fake_registry import Exchange, FakeRegistry, running_fake
from tests.support.images import write_layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = 1 << 20
_SMALL, _LARGE = 16 << 20, 300 << 20


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        yield registry


def _swallow(registry: FakeRegistry, exchange: Exchange) -> None:
    """Take a body without keeping it."""
    left = int(exchange.headers["Content-Length"])
    while left and (piece := exchange.rfile.read(min(left, _BLOCK))):
        left -= len(piece)
    exchange.send(201)


_swallow.unread = True  # type: ignore[attr-defined]


def _zeros(registry: FakeRegistry, exchange: Exchange) -> None:
    """Give as many zeros as the repository's name says."""
    size = int(exchange.call.path.split("/")[3])
    exchange.send_response(200)
    exchange.send_header("Content-Length", str(size))
    exchange.end_headers()
    for _ in range(size // _BLOCK):
        exchange.wfile.write(bytes(_BLOCK))


def _digest_of_zeros(size: int) -> str:
    digest = hashlib.sha256()
    for _ in range(size // _BLOCK):
        digest.update(bytes(_BLOCK))
    return f"sha256:{digest.hexdigest()}"


def test_memory_stays_flat_for_a_blob_of_300_mb(fake: FakeRegistry, tmp_path: Path) -> None:
    """Pushed and pulled in a process of its own; a small blob before shows what the program needs."""
    fake.on("PUT", "uploads", _swallow, times=2)
    fake.on("GET", "/blobs/", _zeros, times=2)
    code = f"""
        import io, json
        from pathlib import Path
        from layers.digest import Digest
        from ociforge.oci.descriptor import Descriptor
        from ociforge.oci.reference import Reference
        from ociforge.transports.base import Blob
        from ociforge.transports.registry import RegistryDestination, RegistrySource

        class Zeros(io.RawIOBase):
            def __init__(self, size):
                self.left = size
            def readable(self):
                return True
            def read(self, size=-1):
                count = min(self.left, size if size >= 0 else self.left)
                self.left -= count
                return bytes(count)

        peaks = []
        for text, size in {json.dumps([[_digest_of_zeros(size), size] for size in (_SMALL, _LARGE)])}:
            blob = Descriptor(media_type="x/y", digest=Digest.parse(text), size=size)
            reference = Reference(registry="{fake.host}", repository=f"large/{{size}}", tag="v1")
            with RegistryDestination(reference) as destination:
                destination.put(Blob(descriptor=blob, open=lambda: Zeros(size)))
            source = RegistrySource(reference)
            with source.open(blob) as stream:
                while stream.read(1 << 20):
                    pass
            source.close()
            status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory, too
            peaks.append(int(status.partition("VmHWM:")[2].split()[0]))
        print(json.dumps(peaks))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        check=False,
        text=True,
        env=environment(tmp_path),
    )
    assert done.stderr == ""
    small, large = json.loads(done.stdout)  # in KiB
    assert large - small < 4 << 10
    assert large < 64 << 10


def test_sigint_in_mid_upload_leaves_no_temp_file_and_no_name(fake: FakeRegistry, tmp_path: Path) -> None:
    reached, done = threading.Event(), threading.Event()

    def hold(registry: FakeRegistry, exchange: Exchange) -> None:
        exchange.rfile.read(1)
        reached.set()
        done.wait(20)

    hold.unread = True  # type: ignore[attr-defined]
    fake.on("PUT", "uploads", hold, times=9)
    write_layout([tiny_image()], tmp_path / "layout")
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "tmp").mkdir()
    command = [
        sys.executable,
        "-m",
        "ociforge",
        "push",
        "--workers",
        "1",
        f"oci:{tmp_path / 'layout'}",
        f"docker://{fake.host}/team/app:v1",
    ]
    process = subprocess.Popen(
        command,
        env=environment(tmp_path / "home", TMPDIR=str(tmp_path / "tmp")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path / "tmp",
        text=True,
    )
    assert reached.wait(20)
    process.send_signal(signal.SIGINT)
    try:
        out, errors = process.communicate(timeout=20)
    finally:
        done.set()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in errors
    assert list((tmp_path / "tmp").iterdir()) == []
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path not in before]
    assert [path for path in left if path.name != "lock"] == []
    assert fake.manifests == {} and fake.blobs == {}
