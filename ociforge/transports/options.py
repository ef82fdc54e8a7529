"""How to talk to registries: what the user may choose, apart from credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["RegistryOptions"]


class RegistryOptions(Struct, frozen=True, kw_only=True):
    """Choices for all registries of one run; reading no environment, opening no file.

    `insecure` accepts any certificate, and plain http from a registry that does not speak TLS. Without it, loopback
    hosts are spoken to by plain http, and all others by https. `ca_file` is a PEM bundle that replaces the system's;
    `client_cert` is the PEM certificate with its key, or a pair of both; either rules plain http out. Timeouts in
    seconds: to connect, and between two pieces of an answer. `attempts` bounds how often one thing is tried.
    `token_hosts` are hosts outside a registry's own domain that may be given its credentials in exchange for a token.
    `trust_manifests`: what the image that is going to be replaced names counts as held, without asking for it.
    `workers` is how many threads may share one registry. `head_first` asks for the digest behind a tag before the
    manifest: some registries do not count that, and who has the manifest already needs no more.

    `mirrors` names, for a registry (`docker.io`, `host[:port]`), others that have its repositories, as
    `host[:port][/prefix]`: what is pulled from `docker.io/library/alpine` is asked for at `host/prefix/library/alpine`.
    Pulls try them in order and then the registry itself; pushes never. The other choices hold for mirrors too;
    credentials do not: each has its own or none. `offline`: no registry is spoken to.
    """

    insecure: bool = False
    ca_file: Path | None = None
    client_cert: Path | tuple[Path, Path] | None = None
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    attempts: int = 5
    token_hosts: frozenset[str] = frozenset()
    trust_manifests: bool = True
    workers: int = 4
    head_first: bool = True
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    offline: bool = False
