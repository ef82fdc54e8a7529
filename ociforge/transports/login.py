"""Asking a registry whether it takes a credential, before that is kept."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING

from msgspec import field

from ociforge.errors import AuthError
from ociforge.transports.auth import CredentialStore
from ociforge.transports.client import RegistryClient, api_host
from ociforge.transports.http import refusal
from ociforge.transports.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from ociforge.events import Notify
    from ociforge.transports.credential import Account, Credential
    from ociforge.transports.options import RegistryOptions

__all__ = ["verify"]

_NO_SCOPES: frozenset[str] = frozenset()
_REFUSED = "check the user name and the password; some registries want an access token in place of the password"


class _Given(CredentialStore, frozen=True, kw_only=True):
    """Has the one credential, and notes whether a registry asked for it."""

    credential: Credential
    asked: list[str] = field(default_factory=list)

    def lookup(self, registry: str, repository: str) -> Credential:
        self.asked.append(registry)
        return self.credential


def verify(
    account: Account,
    credential: Credential,
    options: RegistryOptions,
    notify: Notify,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Show a user name and password to the account's registry, the way it asks for them (GET /v2/, then Basic, or a
    token). False if it asks for none, and does not mind them either: then nobody knows whether they are right.

    Raises AuthError when they are refused, RegistryError when the registry cannot be asked.
    """
    given = _Given(credential=credential)
    client = RegistryClient(account.reference(), options, given, notify, sleep=sleep)
    try:
        url = f"{client.origin.scheme}://{api_host(account.registry)}/v2/"
        response = client.request("GET", url, scopes=_NO_SCOPES)
        if response.status_code != 200:
            raise refusal(response)
        return bool(given.asked) or _offer(client, url, account, credential, options)
    except AuthError as error:
        known = error.hint is not None and "--token-host" in error.hint
        raise AuthError(error.message, error.hint if known else _REFUSED) from error
    finally:
        client.wire.close()


def _offer(
    client: RegistryClient, url: str, account: Account, credential: Credential, options: RegistryOptions
) -> bool:
    """Show the credential to a registry that lets everybody in; whether it looked at it."""

    def send(authorization: str) -> requests.Response:
        headers = {"Authorization": authorization}
        return client.wire.repeat(lambda: client.wire.send("GET", url, headers), retry=True)

    pair = f"{credential.username}:{credential.password}".encode()
    used = f"Basic {base64.b64encode(pair).decode()}"
    response = send(used)
    asked = response.status_code == 401
    if asked:
        tokens = Tokens(
            client.wire,
            lambda: client.origin,
            account.registry,
            lambda: credential,
            token_hosts=options.token_hosts,
        )
        used = tokens.answer(response, _NO_SCOPES, used)
        response = send(used)
        if response.status_code == 401:
            raise tokens.refuse(response, used)
    if response.status_code >= 400:
        raise refusal(response)
    return asked
