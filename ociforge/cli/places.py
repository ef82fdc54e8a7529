"""Where images are read from and written to, with what this process knows: its environment and its user's files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ociforge import transports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ociforge.events import Notify
    from ociforge.oci.reference import Reference
    from ociforge.transports.auth import CredentialStore
    from ociforge.transports.base import Destination, NamedSource
    from ociforge.transports.naming import Name
    from ociforge.transports.options import RegistryOptions

__all__ = ["Places"]


@dataclass(frozen=True)
class Places:
    """Opens sources and destinations: `registry` says how to speak to registries, `notify` hears of transfers."""

    registry: RegistryOptions
    notify: Notify

    @cached_property
    def _credentials(self) -> CredentialStore:
        from ociforge.transports.auth import CredentialStore

        return CredentialStore.from_environment(os.environ, _home())

    def source(self, location: transports.Location) -> NamedSource:
        return transports.source(location, registry=self.registry, credentials=self._credentials, notify=self.notify)

    def destination(self, location: transports.Location, names: Sequence[Reference | Name] = ()) -> Destination:
        return transports.destination(
            location, names=names, registry=self.registry, credentials=self._credentials, notify=self.notify
        )


def _home() -> Path:
    """The user's home directory; the root for a user that has none, as container runtimes have it."""
    try:
        return Path.home()
    except RuntimeError:  # HOME is not set, and the user is not in /etc/passwd
        return Path("/")
