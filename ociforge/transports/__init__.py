"""Where images live: one string names a place to read an image from or to write one to.

`source` and `destination` give the two seams of `transports.base` for any place; `parse` only looks at the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ociforge.errors import OfflineError, ReferenceFormatError
from ociforge.events import ignore
from ociforge.transports.location import ArchiveLocation, LayoutLocation, Location, RegistryLocation, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ociforge.events import Notify
    from ociforge.oci.reference import Reference
    from ociforge.platform import Platform
    from ociforge.transports.auth import CredentialStore
    from ociforge.transports.base import Destination, NamedSource
    from ociforge.transports.naming import Name
    from ociforge.transports.options import RegistryOptions

__all__ = ["ArchiveLocation", "LayoutLocation", "Location", "RegistryLocation", "destination", "parse", "source"]


def source(
    location: Location | str,
    *,
    registry: RegistryOptions | None = None,
    credentials: CredentialStore | None = None,
    notify: Notify = ignore,
) -> NamedSource:
    """What there is to read at a location; `registry` and `credentials` say how to speak to a registry.

    Raises ReferenceFormatError for a malformed location and TransportError for an archive that cannot be read; of a
    layout or a registry nothing is read yet. A registry that must not be spoken to (`registry.offline`) is a source
    that raises OfflineError when it is read.
    """
    where = parse(location) if isinstance(location, str) else location
    match where:
        case RegistryLocation() if registry is not None and registry.offline:
            from ociforge.transports.unreachable import UnreachableSource

            return UnreachableSource(where.reference)
        case RegistryLocation():
            # The client is the slowest import of all, and only registries need it.
            from ociforge.transports.registry import RegistrySource

            return RegistrySource(where.reference, registry, credentials, notify)
        case LayoutLocation():
            from ociforge.transports.layout import LayoutSource

            return LayoutSource(where.path, ref=where.ref, digest=where.digest)
        case ArchiveLocation(kind="oci-archive"):
            from ociforge.transports.archive import ArchiveSource

            return ArchiveSource(where.path, ref=where.ref, digest=where.digest)
        case ArchiveLocation():
            from ociforge.transports.docker_archive import DockerArchiveSource

            return DockerArchiveSource(where.path, ref=where.ref, digest=where.digest)


def destination(
    location: Location | str,
    *,
    names: Sequence[Reference | Name] = (),
    platform: Platform | None = None,
    registry: RegistryOptions | None = None,
    credentials: CredentialStore | None = None,
    notify: Notify = ignore,
) -> Destination:
    """The place to write an image to. Nothing is touched before it is entered as a context manager.

    `names` are what a layout or an archive calls the image besides the name in the location; a registry has the one in
    its reference. `platform` is the one whose image an archive shows to `docker load` when it holds several. Raises
    ReferenceFormatError for a malformed location, or one that can only be read, and OfflineError for a registry that
    must not be spoken to.
    """
    where = parse(location) if isinstance(location, str) else location
    match where:
        case RegistryLocation() if registry is not None and registry.offline:
            raise OfflineError(
                f"cannot write `{where}`: it is in a registry, and there is no network",
                "write an `oci:` layout or `oci-archive:`, and copy that with `ociforge push` where there is one",
            )
        case RegistryLocation():
            from ociforge.transports.registry import RegistryDestination

            return RegistryDestination(where.reference, registry, credentials, notify)
        case LayoutLocation(digest=None):
            from ociforge.transports.layout import LayoutDestination

            return LayoutDestination(where.path, ref=where.ref, names=names, notify=notify)
        case ArchiveLocation(kind="oci-archive", digest=None):
            from ociforge.transports.archive import ArchiveDestination

            return ArchiveDestination(where.path, ref=where.ref, names=names, platform=platform, notify=notify)
        case ArchiveLocation(kind="docker-archive"):
            raise ReferenceFormatError(
                f"cannot write `{where}`: `docker-archive:` is only read",
                f"write `oci-archive:{where.path}`: docker loads it",
            )
        case _:
            raise ReferenceFormatError(
                f"cannot write `{where}`: what is written has no digest yet", "leave out the digest"
            )
