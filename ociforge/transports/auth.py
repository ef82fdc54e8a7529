"""Credentials for registries: the files of docker and podman, and credential helpers.

Formats: docker's `config.json` and podman's containers-auth.json(5); helpers speak the docker-credential-helpers
protocol. Only read, never written: logging in is left to `docker login` and `podman login`.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ociforge.errors import AuthError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

__all__ = ["Credential", "CredentialStore"]

_HUB = "docker.io"
_HUB_SERVER = "https://index.docker.io/v1/"  # what `docker login` calls Docker Hub
_HUB_HOSTS = frozenset({_HUB, "index.docker.io", "registry-1.docker.io"})
_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_HELPER_TIMEOUT = 10.0  # seconds; a helper may ask a keyring, but must not wait for a person for ever
_MAX_FILE_SIZE = 4 << 20  # 4 MiB
_NOT_FOUND = ("credentials not found in native keychain", "no credentials server url", "no credentials username")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What proves who we are; exactly one of the three kinds is set. Secrets never show in `repr`.

    `username` and `password`; `identity_token`, an OAuth2 refresh token; `registry_token`, a bearer token to be used as
    it is. `source` says where it comes from, for messages.
    """

    source: str
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialStore:
    """Looks credentials up in `files`, the first that knows the registry wins; a file that does not exist is empty.

    `environ` is the environment that helpers run in; its PATH says where they are. Nothing is read before `lookup`.
    """

    files: Sequence[Path] = ()
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    helper_timeout: float = _HELPER_TIMEOUT

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
        for file in self.files:
            config = _read(file)
            if config is not None and (found := self._find(file, config, registry, repository)):
                return found
        return None

    def _find(self, file: Path, config: dict[str, Any], registry: str, repository: str) -> Credential | None:
        helpers = _table(config, "credHelpers", file)
        for name in _names(registry, ""):
            if helpers.get(name):
                return self._ask_helper(file, str(helpers[name]), registry)
        if found := _entry(file, _table(config, "auths", file), registry, repository):
            return found
        if default := config.get("credsStore"):
            return self._ask_helper(file, str(default), registry)
        return None

    def _ask_helper(self, file: Path, name: str, registry: str) -> Credential | None:
        """Run `docker-credential-NAME get`: the server on stdin, JSON on stdout (stderr is never shown)."""
        if not _HELPER_NAME.fullmatch(name):
            raise AuthError(f"reading credentials: `{file}`: {name[:100]!r} is not the name of a credential helper")
        program = f"docker-credential-{name}"
        path = shutil.which(program, path=self.environ.get("PATH", os.defpath))
        if path is None:
            raise AuthError(
                f"reading credentials: `{file}` names `{program}`: not found on PATH",
                "install the helper, or remove it from the file and log in again",
            )
        server = _HUB_SERVER if registry in _HUB_HOSTS else registry
        try:
            result = subprocess.run(
                [path, "get"],
                input=server.encode(),
                capture_output=True,
                timeout=self.helper_timeout,
                env=dict(self.environ),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise AuthError(
                f"asking `{program}` for the credential of `{registry}`: no answer within {self.helper_timeout:g} s",
                "unlock the keyring behind it, or log in to a file with `podman login --authfile`",
            ) from None
        except OSError as error:
            raise AuthError(f"running `{program}`: {error.strerror}") from error
        return _helper_answer(program, registry, result)


def _helper_answer(program: str, registry: str, result: subprocess.CompletedProcess[bytes]) -> Credential | None:
    what = f"asking `{program}` for the credential of `{registry}`"
    if result.returncode != 0:
        if any(text in result.stdout.lower().decode("utf-8", "replace") for text in _NOT_FOUND):
            return None
        raise AuthError(f"{what}: it ended with status {result.returncode}", f"try `{program} get` by hand")
    try:
        answer = json.loads(result.stdout)
        username, secret = answer["Username"], answer["Secret"]
        if not isinstance(username, str) or not isinstance(secret, str):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise AuthError(f"{what}: its answer is not the JSON expected", f"try `{program} get` by hand") from None
    if not secret:
        return None
    if username == "<token>":
        return Credential(source=program, identity_token=secret)
    return Credential(source=program, username=username, password=secret)


def _read(file: Path) -> dict[str, Any] | None:
    """The file's JSON object; None when there is no such file."""
    try:
        with file.open("rb") as stream:
            data = stream.read(_MAX_FILE_SIZE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise AuthError(f"reading credentials: `{file}`: {error.strerror}", "make the file readable") from error
    try:
        config = json.loads(data) if len(data) <= _MAX_FILE_SIZE else None
    except (ValueError, RecursionError):
        config = None  # the decoder's own message could quote a secret
    if not isinstance(config, dict):
        raise AuthError(f"reading credentials: `{file}`: not a JSON object", "log in again to write it anew")
    return config


def _table(config: dict[str, Any], key: str, file: Path) -> dict[str, Any]:
    table = config.get(key) or {}
    if not isinstance(table, dict):
        raise AuthError(f"reading credentials: `{file}`: `{key}` is not a JSON object")
    return table


def _entry(file: Path, auths: dict[str, Any], registry: str, repository: str) -> Credential | None:
    """The entry with the longest matching name; empty ones, which stand beside a `credsStore`, are passed over."""
    by_name: dict[str, Any] = {}
    for key, entry in auths.items():
        by_name.setdefault(_bare(key), entry)
    for name in _names(registry, repository):
        entry = auths.get(name) or by_name.get(name)
        if entry and (credential := _decode(file, name, entry)):
            return credential
    return None


def _names(registry: str, repository: str) -> Iterator[str]:
    """The names that a credential may go by: namespaces first, the longest first, then the registry."""
    hosts = [_HUB, "index.docker.io", "registry-1.docker.io"] if registry in _HUB_HOSTS else [registry]
    parts = repository.split("/") if repository else []
    for length in range(len(parts), -1, -1):
        for host in hosts:
            yield "/".join([host, *parts[:length]])


def _bare(key: str) -> str:
    """`https://host/v1/` as older logins write it -> `host`; anything else is a name already."""
    match = re.fullmatch(r"(?:https?://)?(.+?)(?:/v[12])?/*", key)
    return match[1] if match else key


def _decode(file: Path, name: str, entry: object) -> Credential | None:
    """The credential of one entry of `auths`: a token, `username` and `password`, or both in `auth`."""
    what = f"reading credentials: `{file}`: the entry for `{name}`"
    if not isinstance(entry, dict) or not all(isinstance(v, str) for k, v in entry.items() if k in _FIELDS):
        raise AuthError(f"{what} is malformed", "log in again to write it anew")
    if entry.get("identitytoken"):
        return Credential(source=str(file), identity_token=entry["identitytoken"])
    if entry.get("registrytoken"):
        return Credential(source=str(file), registry_token=entry["registrytoken"])
    if entry.get("auth"):
        try:
            pair = base64.b64decode(entry["auth"], validate=True).decode()
        except (binascii.Error, ValueError):
            raise AuthError(f"{what}: `auth` is not base64 text", "log in again to write it anew") from None
        username, colon, password = pair.partition(":")
        if not colon:
            raise AuthError(f"{what}: `auth` holds no `username:password`", "log in again to write it anew")
        return Credential(source=str(file), username=username, password=password.rstrip("\0"))
    if entry.get("username") and entry.get("password"):
        return Credential(source=str(file), username=entry["username"], password=entry["password"])
    return None


_FIELDS = frozenset({"auth", "username", "password", "identitytoken", "registrytoken"})
