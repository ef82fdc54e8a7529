"""Conda archives out of a registry: `oci://` as rattler speaks it, as a mirror of a channel.

rattler asks at port 443 whatever the URL says, so the test needs that port, and an authority that it trusts.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.support.channel import write_channel
from tests.support.conda import CondaPackage
from tests.support.tls import new_authority
from tests.support.tools import missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_SCRIPT = """\
import os
import sys
from pathlib import Path

from ociforge.conda.fetch import fetch
from ociforge.network import Mirrors, Network
from tests.conda.environment import records
from tests.support.channel import write_channel
from tests.support.conda import CondaPackage

root = Path(sys.argv[1])
channel = write_channel(root / "same", [CondaPackage(name="a", files={"share/a": "a"})])
mirrors = Mirrors(prefixes={"https://far.invalid/conda": ("oci://127.0.0.1/mirror/conda",)})
rows = records(channel, url="https://far.invalid/conda/forge/")
(archive,) = fetch(rows, cache=root / "cache", retries=0, network=Network(conda=mirrors))
print(archive.digest, flush=True)
os._exit(0)  # rattler may crash when the interpreter ends
"""


def test_a_registry_can_be_a_mirror(tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "channel", [CondaPackage(name="a", files={"share/a": "a"})])
    archive = channel.archives[0].path.read_bytes()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": _digest(b"{}"), "size": 2},
            "layers": [
                {
                    "mediaType": "application/vnd.conda.package.v2",
                    "digest": _digest(archive),
                    "size": len(archive),
                }
            ],
        }
    ).encode()
    name = "/v2/mirror/conda/forge/linux-64/a"
    served = {f"{name}/manifests/1.0-0": manifest, f"{name}/blobs/{_digest(archive)}": archive}
    authority = new_authority(tmp_path / "ca")
    with _serving(served, authority.issue("registry")) as asked:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(tmp_path)],
            env={**os.environ, "SSL_CERT_FILE": str(authority.certificate), "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stdout, done.returncode) == (f"{_digest(archive)}\n", 0), done.stderr
    assert [path for path in asked if path in served] == list(served)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@contextmanager
def _serving(files: Mapping[str, bytes], certificate: tuple[Path, Path]) -> Iterator[list[str]]:
    """Serve `files` over TLS where rattler looks for registries; yields the paths that are asked for."""
    asked: list[str] = []
    try:
        server = ThreadingHTTPServer(("127.0.0.1", 443), partial(_Handler, files=files, asked=asked))
    except OSError as error:
        missing(f"nobody may listen at port 443 here: {error.strerror}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02))
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, *args: Any, files: Mapping[str, bytes], asked: list[str]) -> None:
        self._files = files
        self._asked = asked
        super().__init__(*args)

    def do_GET(self) -> None:
        self._asked.append(self.path)
        body = self._files.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Type", _MANIFEST if "/manifests/" in self.path else "application/octet-stream")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: Any) -> None:
        """What is asked for is kept; nothing is printed."""
