"""Credentials for registries: where docker, podman and `ociforge login` keep them."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from ociforge.errors import AuthError
from ociforge.transports.auth_file import AuthFile
from ociforge.transports.credential import Account, Credential, bare, names
from ociforge.transports.credential_helper import HELPER_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

__all__ = ["Credential", "CredentialStore", "login_file"]


class CredentialStore(Struct, frozen=True, kw_only=True):
    """Looks credentials up in `files`, the first that knows the registry wins; a file that does not exist is empty.

    `environ` is the environment that helpers run in; its PATH says where they are. Nothing is read before `lookup`.
    """

    files: Sequence[Path] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    helper_timeout: float = HELPER_TIMEOUT

    def __repr__(self) -> str:  # environments hold secrets
        return f"{type(self).__name__}(files={self.files!r})"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], home: Path) -> Self:
        """The files that docker and podman would read: REGISTRY_AUTH_FILE, docker's under DOCKER_CONFIG, podman's,
        docker's under `home`.
        """
        files = []
        if named := environ.get("REGISTRY_AUTH_FILE"):
            files.append(Path(named))
        if directory := environ.get("DOCKER_CONFIG"):
            files.append(Path(directory, "config.json"))
        runtime = environ.get("XDG_RUNTIME_DIR")
        files.append(
            Path(runtime or f"/run/containers/{os.getuid()}", *(["containers"] if runtime else []), "auth.json")
        )
        files.append(Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "containers", "auth.json"))
        files.append(home / ".docker" / "config.json")
        return cls(files=tuple(files), environ=environ)

    def lookup(self, registry: str, repository: str) -> Credential | None:
        """The credential for `registry` (`host[:port]`, `docker.io` for Docker Hub) and `repository`, or None.

        In each file: a helper for the registry, an entry for the longest matching namespace or the registry, the
        default helper. Raises AuthError when a file is damaged or a helper fails; the message holds no secret.
        """
        for path in self.files:
            file = AuthFile(path=path, environ=self.environ, helper_timeout=self.helper_timeout)
            config = file.read()
            if config is not None and (found := _find(file, config, registry, repository)):
                return found
        return None


def login_file(environ: Mapping[str, str], home: Path) -> Path:
    """Where a new credential is to be kept: in REGISTRY_AUTH_FILE, or docker's file under DOCKER_CONFIG or `home`."""
    if named := environ.get("REGISTRY_AUTH_FILE"):
        return Path(named)
    return Path(environ.get("DOCKER_CONFIG") or home / ".docker", "config.json")


def _find(file: AuthFile, config: dict[str, Any], registry: str, repository: str) -> Credential | None:
    account = Account.of(registry)
    if helper := file.registry_helper(config, account):
        return helper.get(account.server)
    if found := _entry(file, config, registry, repository):
        return found
    if helper := file.default_helper(config):
        return helper.get(account.server)
    return None


def _entry(file: AuthFile, config: dict[str, Any], registry: str, repository: str) -> Credential | None:
    """The entry with the longest matching name; empty ones, which stand beside a `credsStore`, are passed over."""
    auths = file.auths(config)
    by_name: dict[str, str] = {}
    for key in auths:
        by_name.setdefault(bare(key), key)
    for name in names(registry, repository):
        key = name if auths.get(name) else by_name.get(name, name)
        if auths.get(key) and (credential := _decode(file.path, key, auths[key], registry)):
            return credential
    return None


def _decode(file: Path, key: str, entry: object, registry: str) -> Credential | None:
    """The credential of one entry of `auths`: a token, `username` and `password`, or both in `auth`."""
    what = f"reading credentials: `{file}`: the entry for `{key}`"
    if not isinstance(entry, dict) or not all(isinstance(v, str) for k, v in entry.items() if k in _FIELDS):
        raise AuthError(f"{what} is malformed", "log in again to write it anew")
    source = str(file) if key == registry else f"{file}: {key}"
    if entry.get("identitytoken"):
        return Credential(source=source, identity_token=entry["identitytoken"])
    if entry.get("registrytoken"):
        return Credential(source=source, registry_token=entry["registrytoken"])
    if entry.get("auth"):
        try:
            pair = base64.b64decode(entry["auth"], validate=True).decode()
        except (binascii.Error, ValueError):
            raise AuthError(f"{what}: `auth` is not base64 text", "log in again to write it anew") from None
        username, colon, password = pair.partition(":")
        if not colon:
            raise AuthError(f"{what}: `auth` holds no `username:password`", "log in again to write it anew")
        return Credential(source=source, username=username, password=password.rstrip("\0"))
    if entry.get("username") and entry.get("password"):
        return Credential(source=source, username=entry["username"], password=entry["password"])
    return None


_FIELDS = frozenset({"auth", "username", "password", "identitytoken", "registrytoken"})
