"""Certificates by an authority of the tests' own, made with openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.tools import need

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Authority", "new_authority"]

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
_HOSTS = "subjectAltName=IP:127.0.0.1,IP:127.0.0.2,IP:::1,DNS:localhost,DNS:registry.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Signs certificates for the loopback addresses; `certificate` is what the other side has to trust."""

    certificate: Path
    key: Path

    def issue(self, name: str) -> tuple[Path, Path]:
        """A new certificate for servers and clients, and its key: PEM files beside the authority's own."""
        signed = ["-CA", str(self.certificate), "-CAkey", str(self.key), "-addext", _HOSTS]
        extensions = ["-addext", "basicConstraints=critical,CA:FALSE"]
        return _request(self.certificate.parent, name, *signed, *extensions)


def new_authority(directory: Path, name: str = "authority") -> Authority:
    """A self-signed authority whose files are in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    certificate, key = _request(directory, name)
    return Authority(certificate=certificate, key=key)


def _request(directory: Path, name: str, *options: str) -> tuple[Path, Path]:
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    command = [need("openssl"), "req", "-x509", *_KEY, "-subj", f"/CN={name}", *options]
    subprocess.run([*command, "-out", str(certificate), "-keyout", str(key)], check=True, capture_output=True)
    return certificate, key
