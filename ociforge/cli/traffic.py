"""What a build is going to send to registries, and what it has to fetch from images for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from layers.digest import Digest
    from ociforge.base import Base
    from ociforge.oci.reference import Reference
    from ociforge.planned import PlannedLayer
    from ociforge.reuse import Previous
    from ociforge.store import Store

__all__ = ["Piece", "Repository", "Traffic"]


class Piece(Struct, frozen=True, kw_only=True):
    """A layer on its way: `digest` is None before it is made, `key` where nothing but bytes names it.

    `size` in bytes, of its archives while there is no layer; `origin` is the repository that it can be mounted or has
    to be pulled from, None for what is on this machine or is going to be made here.
    """

    digest: Digest | None
    key: Digest | None
    size: int
    origin: Reference | None

    @classmethod
    def of_layer(cls, layer: PlannedLayer) -> Self:
        made, found = layer.layer, layer.found
        return cls(
            digest=None if made is None else made.digest,
            key=layer.key,
            size=layer.size if made is None else made.size,  # the best guess for what is not made yet
            origin=None if found is None else found.image.source.origin(found.descriptor),
        )

    @classmethod
    def of_base(cls, base: Base) -> list[Self]:
        """The layers of a base image, as they are sent: those from a registry are mounted where that can be."""
        return [
            cls(digest=layer.digest, key=None, size=layer.size, origin=base.blob(layer).origin) for layer in base.layers
        ]


class Repository(Struct, frozen=True, kw_only=True):
    """A repository that the image is pushed to, by its registry and whole name, and which layers are known to be in it:
    those of the images behind its tags.
    """

    registry: str
    name: str
    digests: frozenset[Digest]
    keys: frozenset[Digest]

    def lacks(self, piece: Piece) -> bool:
        """Whether the layer has to be sent: it is not there, nor elsewhere in the registry for all that is known."""
        if piece.digest in self.digests or piece.key in self.keys:
            return False
        return piece.origin is None or piece.origin.registry != self.registry


class Traffic(Struct, frozen=True, kw_only=True):
    """What goes over the network for layers; `local` says whether some place on this machine gets all bytes."""

    repositories: Sequence[Repository]
    local: bool
    store: Store

    @classmethod
    def plan(cls, pushed: Iterable[Reference], known: Iterable[Previous], *, local: bool, store: Store) -> Self:
        """`pushed` are the names that the image gets in registries, `known` all images that were looked at."""
        images: dict[str, list[Previous]] = {}
        for image in known:
            if (origin := image.source.origin(image.image.descriptor)) is not None:
                images.setdefault(origin.name, []).append(image)
        repositories = {
            reference.name: Repository(
                registry=reference.registry,
                name=reference.name,
                digests=frozenset(d.digest for image in images.get(reference.name, ()) for d in image.image.layers),
                keys=frozenset(key for image in images.get(reference.name, ()) for key in image.layers),
            )
            for reference in pushed
        }
        return cls(repositories=tuple(repositories.values()), local=local, store=store)

    def upload(self, piece: Piece) -> int:
        """Bytes to send to registries."""
        return piece.size * sum(repository.lacks(piece) for repository in self.repositories)

    def pull(self, piece: Piece) -> int:
        """Bytes to fetch from the registry that has the layer, because they are wanted somewhere else."""
        if piece.origin is None or (piece.digest is not None and self.store.has(piece.digest, piece.size)):
            return 0
        return piece.size if self.local or self.upload(piece) else 0
