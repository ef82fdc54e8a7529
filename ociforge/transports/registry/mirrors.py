"""Mirrors: other registries that may be asked first for what one registry has."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from ociforge.errors import ImageError, ReferenceFormatError, RegistryError
from ociforge.events import Warned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ociforge.events import Notify
    from ociforge.oci.reference import Reference
    from ociforge.transports.options import RegistryOptions
    from ociforge.transports.registry.forge import ForgeRegistry

__all__ = ["Route", "mirrors_of"]

_Found = TypeVar("_Found")


def mirrors_of(reference: Reference, options: RegistryOptions) -> tuple[Reference, ...]:
    """What `reference` is called on each mirror of its registry, in the order to try them.

    Raises ReferenceFormatError for a mirror that is no `host[:port][/prefix]`.
    """
    return tuple(_on(mirror, reference) for mirror in options.mirrors.get(reference.registry, ()))


def _on(mirror: str, reference: Reference) -> Reference:
    host, slash, prefix = mirror.partition("/")
    try:
        return replace(reference, registry=host, repository=f"{prefix}{slash}{reference.repository}")
    except ReferenceFormatError as error:
        raise ReferenceFormatError(
            f"mirror `{mirror}` of `{reference.registry}`: {error.message}", "a mirror is `host[:port][/prefix]`"
        ) from error


class Route:
    """The way to one image: its mirrors in order, then its own registry; for any number of threads.

    A mirror that fails once, or lacks something, is passed over from then on, with a warning: whoever answered for the
    name is asked first for the rest. What the registry itself says is final.
    """

    def __init__(self, mirrors: Sequence[ForgeRegistry], registry: ForgeRegistry, notify: Notify) -> None:
        self._all = (*mirrors, registry)
        self._left = list(self._all)
        self._notify = notify
        self._lock = threading.Lock()

    def first(self, ask: Callable[[ForgeRegistry], _Found]) -> _Found:
        """The first answer there is. Raises what the registry itself raises: RegistryError, ImageError."""
        while True:
            registry = self._left[0]
            try:
                return ask(registry)
            except (RegistryError, ImageError) as error:
                if not self._pass_over(registry, error.message):
                    raise

    def leave_mirror(self, why: str) -> None:
        """Pass over the mirror in use, if it is one."""
        self._pass_over(self._left[0], why)

    def close(self) -> None:
        for registry in self._all:
            registry.close()

    def _pass_over(self, registry: ForgeRegistry, why: str) -> bool:
        """False when there is nobody else to ask."""
        if registry is self._all[-1]:
            return False
        with self._lock:
            if registry is not self._left[0]:
                return True  # another thread has seen it too
            self._left.pop(0)
        self._notify(Warned(f"the mirror `{registry.place}` is passed over: {why}"))
        return True
