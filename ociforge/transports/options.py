"""How to talk to registries: what the user may choose, apart from credentials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RegistryOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryOptions:
    """Choices for all registries of one run; reading no environment, opening no file.

    `insecure` accepts any certificate, and plain http from a registry that does not speak TLS. Without it, loopback
    hosts are spoken to by plain http, and all others by https. `ca_file` is a PEM bundle that replaces the system's;
    `client_cert` is the PEM certificate with its key, or a pair of both; either rules plain http out. Timeouts in
    seconds: to connect, and between two pieces of an answer. `attempts` bounds how often one thing is tried.
    `token_hosts` are hosts outside a registry's own domain that may be given its credentials in exchange for a token.
    `workers` is how many threads may share one registry.
    """

    insecure: bool = False
    ca_file: Path | None = None
    client_cert: Path | tuple[Path, Path] | None = None
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    attempts: int = 5
    token_hosts: frozenset[str] = frozenset()
    workers: int = 4
