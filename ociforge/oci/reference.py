"""Image references: `registry/repository[:tag][@digest]` (distribution-spec, "Pulling manifests")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

    from layers.digest import Digest

__all__ = ["Reference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """`registry` is host[:port] as credentials name it (`docker.io` for Docker Hub); `repository` is complete
    (`library/ubuntu`); at least one of `tag` and `digest` is set after `parse`.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        raise NotImplementedError
