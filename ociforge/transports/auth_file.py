"""The files in which docker and podman keep credentials, and changes to them.

Formats: docker's `config.json` and podman's containers-auth.json(5). What is not a credential stays as it is: docker's
file holds its other settings, too.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from ociforge.errors import AuthError
from ociforge.replacing import replacing
from ociforge.transports.credential import Account
from ociforge.transports.credential_helper import HELPER_TIMEOUT, CredentialHelper
from ociforge.transports.files import sync_directory, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ociforge.transports.credential import Credential

__all__ = ["AuthFile"]

_MAX_SIZE = 4 << 20  # 4 MiB
_AUTHS, _HELPERS, _STORE = "auths", "credHelpers", "credsStore"
_NO_LOCKS = frozenset({errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})  # NFS, Lustre


class AuthFile(Struct, frozen=True, kw_only=True):
    """One such file, which need not exist. Helpers that it names run in `environ` for `helper_timeout` seconds at most.

    Changes are whole or not at all, and those of several processes at one time follow each other, where the file system
    can lock. The file is then its owner's alone (0600), and a link to it remains one. Raises AuthError for a file that
    is damaged or a helper that fails, TransportError for a file that cannot be written; no message holds a secret.
    """

    path: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    helper_timeout: float = HELPER_TIMEOUT

    def __repr__(self) -> str:  # environments hold secrets
        return f"AuthFile(path={self.path!r})"

    def read(self) -> dict[str, Any] | None:
        """The file's JSON object; None when there is no such file. An empty file, such as mktemp makes, has nothing."""
        what = f"reading credentials: `{self.path}`"
        try:
            with self.path.open("rb") as stream:
                data = stream.read(_MAX_SIZE + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise AuthError(f"{what}: {error.strerror}", "make the file readable") from error
        if not data.strip():
            return {}
        try:
            config = json.loads(data) if len(data) <= _MAX_SIZE else None
        except (ValueError, RecursionError):
            config = None  # the decoder's own message could quote a secret
        if not isinstance(config, dict):
            raise AuthError(f"{what}: not a JSON object", "repair or remove the file")
        return config

    def auths(self, config: dict[str, Any]) -> dict[str, Any]:
        """The entries by their keys; those of credentials that a helper keeps are empty."""
        return self._table(config, _AUTHS)

    def registry_helper(self, config: dict[str, Any], account: Account) -> CredentialHelper | None:
        """The helper that is named for this registry."""
        found = (name for key, name in self._table(config, _HELPERS).items() if name and Account.of(key) == account)
        return self._helper(next(found, None))

    def default_helper(self, config: dict[str, Any]) -> CredentialHelper | None:
        """The helper for all registries that have no other."""
        return self._helper(config.get(_STORE) or None)

    def store(self, account: Account, credential: Credential) -> str:
        """Keep a user name and password, by the helper that the file names for the registry or else in the file itself,
        in place of any other credential of the account. Returns which: the helper's program or the file's name.
        """
        config = self.read() or {}
        registry = Account(registry=account.registry)
        helper = self.registry_helper(config, registry) or self.default_helper(config)
        if helper is None:
            pair = f"{credential.username}:{credential.password}".encode()
            self._change(lambda auths: _put(auths, account, {"auth": base64.b64encode(pair).decode()}))
            return str(self.path)
        if account.namespace:
            raise AuthError(
                f"logging in to `{account}`: `{self.path}` leaves credentials to `{helper.program}`, "
                "which keeps one for each registry and none for a namespace",
                f"log in to `{account.registry}`, or to another file with `--authfile FILE`",
            )
        helper.store(account.server, credential.username, credential.password)
        self._change(lambda auths: _put(auths, account, {}))  # as docker does, to know where it is logged in
        return helper.program

    def erase(self, account: Account) -> bool:
        """Forget the credential of just this account; False if there is none."""
        config = self.read()
        if config is None:
            return False
        helper = None if account.namespace else self.registry_helper(config, account) or self.default_helper(config)
        known = helper is not None and helper.get(account.server) is not None
        if known and helper is not None:
            helper.erase(account.server)
        entries = [key for key in self.auths(config) if Account.of(key) == account]
        if entries:
            self._change(lambda auths: _drop(auths, entries))
        return known or any(self.auths(config)[key] for key in entries)

    def erase_all(self) -> list[str]:
        """Forget all that was stored here, also what the file says that helpers keep; the keys of the entries."""
        config = self.read() or {}
        entries = list(self.auths(config))
        for key in entries:
            registry = Account.of(key)
            helper = self.registry_helper(config, registry) or self.default_helper(config)
            if helper is not None and not self.auths(config)[key]:
                helper.erase(key)
        if entries:
            self._change(lambda auths: _drop(auths, entries))
        return entries

    def _table(self, config: dict[str, Any], key: str) -> dict[str, Any]:
        table = config.get(key) or {}
        if not isinstance(table, dict):
            raise AuthError(
                f"reading credentials: `{self.path}`: `{key}` is not a JSON object", "repair or remove the file"
            )
        return table

    def _helper(self, name: object) -> CredentialHelper | None:
        if name is None:
            return None
        return CredentialHelper(name=str(name), file=self.path, environ=self.environ, timeout=self.helper_timeout)

    def _change(self, edit: Callable[[dict[str, Any]], None]) -> None:
        """Rewrite the file with other `auths`; all else, and its order, is what the file has at that moment."""
        with translated(f"writing credentials: `{self.path}`"):
            path = self.path.resolve()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(path.parent):
                config = self.read() or {}
                config[_AUTHS] = self.auths(config)
                edit(config[_AUTHS])
                with replacing(path, mode=0o600) as file:
                    _keep_owner(file.fileno(), path)
                    file.write(json.dumps(config, indent="\t").encode() + b"\n")
                sync_directory(path.parent)


def _put(auths: dict[str, Any], account: Account, entry: dict[str, str]) -> None:
    """Make `entry` the only one of the account; other tools find the first that fits."""
    _drop(auths, [key for key in auths if Account.of(key) == account and key != account.key])
    auths[account.key] = entry


def _drop(auths: dict[str, Any], keys: list[str]) -> None:
    for key in keys:
        auths.pop(key, None)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep other processes that change files of the directory waiting; the lock ends with the process at the latest.

    The directory, as the file itself is replaced, and no other should be left behind.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


def _keep_owner(descriptor: int, path: Path) -> None:
    """root may log in for a user, who then has to be able to read the file."""
    with suppress(FileNotFoundError, PermissionError):
        before = path.stat()
        os.fchown(descriptor, before.st_uid, before.st_gid)
