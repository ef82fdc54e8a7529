"""A real registry on a free loopback port."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from tests.support.token_server import TokenServer

__all__ = ["PASSWORD", "USER", "Registry", "push_layout", "running_registry"]

USER = "user"
PASSWORD = "secret"

# bcrypt (the only scheme that the registry reads) of the password, cost 4 to be quick.
_HTPASSWD = "user:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"

_START = 20  # seconds until a registry must listen


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A running registry. `host` is `127.0.0.1:PORT`; `storage` is its root directory."""

    host: str
    storage: Path
    log: Path

    @property
    def url(self) -> str:
        """The registry's address over plain http."""
        return f"http://{self.host}"

    def requests(self) -> list[str]:
        """Every request served so far, in order: `METHOD PATH STATUS`."""
        found = re.findall(r'"([A-Z]+) (\S+) HTTP/[\d.]+" (\d+)', self.log.read_text(errors="replace"))
        return [" ".join(parts) for parts in found]


@contextmanager
def running_registry(
    directory: Path,
    *,
    auth: bool = False,
    tokens: TokenServer | None = None,
    certificate: tuple[Path, Path] | None = None,
    clients: Path | None = None,
) -> Iterator[Registry]:
    """Run `docker-registry` with its storage and logs in `directory` until the block ends.

    With `auth` it asks for USER and PASSWORD (Basic), with `tokens` for a token of that service; `certificate`
    (certificate, key) makes it serve https, and then `clients` is the authority that must have signed the certificates
    of clients.
    """
    program = need("docker-registry")
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "config.yml"
    document = _config(directory, auth=auth, tokens=tokens, certificate=certificate, clients=clients)
    config.write_text(json.dumps(document))  # JSON is YAML
    log, errors = directory / "access.log", directory / "registry.log"
    with log.open("wb") as stdout, errors.open("wb") as stderr:
        process = subprocess.Popen([program, "serve", str(config)], env={}, stdout=stdout, stderr=stderr)
    try:
        host = _listening(process, errors)
        yield Registry(host=host, storage=directory / "storage", log=log)
    finally:
        process.terminate()
        process.wait()


def _config(
    directory: Path,
    *,
    auth: bool,
    tokens: TokenServer | None,
    certificate: tuple[Path, Path] | None,
    clients: Path | None,
) -> dict[str, Any]:
    http: dict[str, Any] = {"addr": "127.0.0.1:0", "secret": "of the tests"}
    if certificate is not None:
        http["tls"] = {"certificate": str(certificate[0]), "key": str(certificate[1])}
        if clients is not None:
            http["tls"]["clientcas"] = [str(clients)]
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}, "delete": {"enabled": True}},
        "http": http,
    }
    if auth:
        htpasswd = directory / "htpasswd"
        htpasswd.write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(htpasswd)}}
    if tokens is not None:
        config["auth"] = {
            "token": {
                "realm": tokens.realm,
                "service": tokens.service,
                "issuer": tokens.issuer,
                "rootcertbundle": str(tokens.certificate),
            }
        }
    return config


def _listening(process: subprocess.Popen[bytes], errors: Path) -> str:
    """Wait until the registry says where it listens."""
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", errors.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"docker-registry did not start: {errors.read_text(errors='replace')[-2000:]}")


def push_layout(layout: Path, registry: Registry, repository: str, tag: str) -> str:
    """Upload the first image (or index) of an OCI layout by plain HTTP; returns its digest."""
    top = json.loads((layout / "index.json").read_text())["manifests"][0]
    _push_manifest(layout, f"{registry.url}/v2/{repository}", top, tag)
    return str(top["digest"])


def _push_manifest(layout: Path, base: str, descriptor: Mapping[str, Any], reference: str) -> None:
    data = _blob(layout, descriptor)
    document = json.loads(data)
    for child in document.get("manifests", []):
        _push_manifest(layout, base, child, child["digest"])
    for blob in [document["config"], *document["layers"]] if "layers" in document else []:
        with _send("POST", f"{base}/blobs/uploads/", b"") as response:
            location = response.headers["Location"]
        separator = "&" if "?" in location else "?"
        _send("PUT", f"{location}{separator}digest={blob['digest']}", _blob(layout, blob)).close()
    _send("PUT", f"{base}/manifests/{reference}", data, descriptor["mediaType"]).close()


def _blob(layout: Path, descriptor: Mapping[str, Any]) -> bytes:
    digest: str = descriptor["digest"]
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def _send(method: str, url: str, data: bytes, media_type: str = "application/octet-stream") -> Any:
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": media_type})
    return urllib.request.urlopen(request)
