"""The two seams of moving images: a Source to read from and a Destination to write to.

Everything is named by descriptor; indexes, manifests, configs and layers move alike. Each transport implements
one or both; tests have a twin in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import BinaryIO, Self

    from ociforge.oci.descriptor import Descriptor
    from ociforge.oci.reference import Reference
    from ociforge.transports.naming import Name

__all__ = ["Blob", "Destination", "NamedSource", "Outcome", "Source"]

Outcome = Literal["exists", "mounted", "uploaded"]


class Source(Protocol):
    """An image or index to read: `root` names it, `open` gives the bytes of anything reachable from it."""

    def root(self) -> Descriptor:
        """The descriptor of the manifest or index that the source's name stands for."""
        ...

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """A stream of exactly `descriptor.size` bytes; the caller closes it.

        The bytes are verified while they are read: reading on to the end raises ImageError or a TransportError when
        they are not the ones that the descriptor names. May be called from several threads at once.
        """
        ...

    def origin(self, descriptor: Descriptor) -> Reference | None:
        """The registry repository that holds the blob, so that another on that registry can mount it."""
        ...


class NamedSource(Source, Protocol):
    """A source in a place where images have names."""

    def names(self) -> tuple[Name, ...]:
        """What the place calls the image; only the name it was asked for by, if it was by one."""
        ...


class Blob(Struct, frozen=True, kw_only=True):
    """Bytes on their way to a Destination. `open` may be called again after a failure; the callee closes."""

    descriptor: Descriptor
    open: Callable[[], BinaryIO]
    origin: Reference | None = None


class Destination(Protocol):
    """A place to write one image or index to, as a context manager: leaving it by an exception leaves nothing
    under a final name. Its `str` is the location, for messages.
    """

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the destination holds these bytes already."""
        ...

    def put(self, blob: Blob) -> Outcome:
        """Store a blob or a manifest under its digest; verifies digest and size.

        May be called from several threads for blobs, at any time between entering and `tag`, also for a blob that is
        on its way already: what was put is not sent again, and the answer is the first outcome, or `exists`.
        (`publish.Publication` keeps the first.) A destination that is written in one piece may take note of a blob
        and open it as late as in `tag`. Children come before the manifests that name them.
        """
        ...

    def tag(self, root: Descriptor) -> str:
        """Give `root`, put before, the destination's name and make it visible; last of all.

        Returns the name to show the user, with the digest: `registry/repository@sha256:…` for a registry,
        otherwise transport, place and digest.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
