"""How to reach what PyPI packages are fetched from. Apart from what does it, which takes long to import."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.errors import PackageError
from ociforge.network import ONLINE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    from ociforge.network import Mirrors, Network

__all__ = ["AbsentError", "Access"]


class Access(Struct, frozen=True, kw_only=True):
    """How to reach servers. `netrc` is the file with credentials for hosts whose URLs hold none; `attempts` bounds how
    often one file is tried; `sleep` takes seconds. `offline`: no server is spoken to; `mirrors` are asked before the
    places that they stand for. Proxies and CA bundles are those of requests' environment.
    """

    netrc: Path | None = None
    attempts: int = 4
    sleep: Callable[[float], object] = time.sleep
    offline: bool = False
    mirrors: Mirrors = ONLINE.pypi

    @classmethod
    def of(cls, network: Network) -> Self:
        """What `network` allows."""
        return cls(netrc=network.netrc, offline=network.offline, mirrors=network.pypi)


class AbsentError(PackageError):
    """A place that does not have the file."""
