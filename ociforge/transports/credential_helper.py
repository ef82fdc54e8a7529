"""Credential helpers: programs called `docker-credential-NAME` that keep credentials for docker and podman.

The protocol is that of docker-credential-helpers: a verb as the argument, the server's name or JSON on stdin, JSON or
an error's text on stdout. Secrets cross by pipes only; what a helper writes to stderr is never shown.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.errors import AuthError
from ociforge.transports.credential import Credential

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["HELPER_TIMEOUT", "CredentialHelper"]

HELPER_TIMEOUT = 10.0  # seconds; a helper may ask a keyring, but must not wait for a person for ever
_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_NOT_FOUND = ("credentials not found in native keychain", "no credentials server url", "no credentials username")


class CredentialHelper(Struct, frozen=True, kw_only=True):
    """The helper `name` that `file` names. It runs in `environ`, whose PATH says where it is, for `timeout` seconds at
    most. Raises AuthError whenever it cannot be run, fails, or answers what is not in the protocol.
    """

    name: str
    file: Path
    environ: Mapping[str, str]
    timeout: float = HELPER_TIMEOUT

    def __repr__(self) -> str:  # environments hold secrets
        return f"CredentialHelper(name={self.name!r}, file={self.file!r})"

    @property
    def program(self) -> str:
        return f"docker-credential-{self.name}"

    def get(self, server: str) -> Credential | None:
        """The credential for the server, None if the helper has none."""
        what = f"asking `{self.program}` for the credential of `{server}`"
        result = self._run("get", server.encode(), what)
        if result is None:
            return None
        try:
            answer = json.loads(result)
            username, secret = answer["Username"], answer["Secret"]
            if not isinstance(username, str) or not isinstance(secret, str):
                raise TypeError
        except (ValueError, TypeError, KeyError, RecursionError):
            raise AuthError(f"{what}: its answer is not the JSON expected", self._by_hand("get")) from None
        if not secret:
            return None
        if username == "<token>":
            return Credential(source=self.program, identity_token=secret)
        return Credential(source=self.program, username=username, password=secret)

    def store(self, server: str, username: str, secret: str) -> None:
        """Let the helper keep a secret, in place of the one that it has for the server."""
        document = {"ServerURL": server, "Username": username, "Secret": secret}
        what = f"storing the credential of `{server}` by `{self.program}`"
        if self._run("store", json.dumps(document).encode(), what) is None:
            raise AuthError(f"{what}: it does not accept it", self._by_hand("store"))

    def erase(self, server: str) -> bool:
        """Let the helper forget what it has for the server; False if it has nothing."""
        what = f"erasing the credential of `{server}` by `{self.program}`"
        return self._run("erase", server.encode(), what) is not None

    def _run(self, verb: str, message: bytes, what: str) -> bytes | None:
        """What the helper answers; None when it knows no such credential."""
        path = self._path()
        try:
            result = subprocess.run(
                [path, verb],
                input=message,
                capture_output=True,
                timeout=self.timeout,
                env=dict(self.environ),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise AuthError(
                f"{what}: no answer within {self.timeout:g} s",
                "unlock the keyring behind it, or log in to a file with `ociforge login --authfile FILE`",
            ) from None
        except OSError as error:
            raise AuthError(f"running `{self.program}`: {error.strerror}") from error
        if result.returncode == 0:
            return result.stdout
        if any(text in result.stdout.lower().decode("utf-8", "replace") for text in _NOT_FOUND):
            return None
        raise AuthError(f"{what}: it ended with status {result.returncode}", self._by_hand(verb))

    def _path(self) -> str:
        if not _NAME.fullmatch(self.name):
            raise AuthError(
                f"reading credentials: `{self.file}`: {self.name[:100]!r} is not the name of a credential helper"
            )
        path = shutil.which(self.program, path=self.environ.get("PATH", os.defpath))
        if path is None:
            raise AuthError(
                f"reading credentials: `{self.file}` names `{self.program}`: not found on PATH",
                "install the helper, or remove it from the file and log in again",
            )
        return path

    def _by_hand(self, verb: str) -> str:
        return f"try `{self.program} {verb}` by hand"
