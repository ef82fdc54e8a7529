"""Where images are read from and written to, with what this process knows: its environment and its user's files."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge import transports
from ociforge.cli.platforms import host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ociforge.events import Notify
    from ociforge.oci.reference import Reference
    from ociforge.transports.auth import CredentialStore
    from ociforge.transports.auth_file import AuthFile
    from ociforge.transports.base import Destination, NamedSource
    from ociforge.transports.naming import Name
    from ociforge.transports.options import RegistryOptions

__all__ = ["Places", "credential_store", "own_auth_file"]


class Places(Struct, frozen=True, dict=True):
    """Opens sources and destinations: `registry` says how to speak to registries, `notify` hears of transfers."""

    registry: RegistryOptions
    notify: Notify

    @cached_property
    def _credentials(self) -> CredentialStore:
        return credential_store()

    def source(self, location: transports.Location) -> NamedSource:
        return transports.source(location, registry=self.registry, credentials=self._credentials, notify=self.notify)

    def destination(self, location: transports.Location, names: Sequence[Reference | Name] = ()) -> Destination:
        """The place; an archive shows the image for this machine to `docker load`, if it gets several."""
        return transports.destination(
            location,
            names=names,
            platform=host(),
            registry=self.registry,
            credentials=self._credentials,
            notify=self.notify,
        )


def credential_store() -> CredentialStore:
    """Where this user's credentials are looked for."""
    from ociforge.transports.auth import CredentialStore

    return CredentialStore.from_environment(os.environ, _home())


def own_auth_file(named: Path | None) -> AuthFile:
    """The file to log in to and out of, unless one is `named`."""
    from ociforge.transports.auth import login_file
    from ociforge.transports.auth_file import AuthFile

    return AuthFile(path=named or login_file(os.environ, _home()), environ=os.environ)


def _home() -> Path:
    """The user's home directory; the root for a user that has none, as container runtimes have it."""
    try:
        return Path.home()
    except RuntimeError:  # HOME is not set, and the user is not in /etc/passwd
        return Path("/")
