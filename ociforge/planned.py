"""What a build is going to give: its layers by name, which of them exist already and where, and what is to be done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

from ociforge.oci.annotations import LAYER_KEY, LAYER_TITLE
from ociforge.oci.image import assemble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from layers.digest import Digest
    from layers.layer import Layer
    from layers.tree import Segment
    from ociforge.built import Built, BuiltLayer
    from ociforge.oci.changes import ConfigChanges
    from ociforge.oci.descriptor import Descriptor
    from ociforge.oci.image import Image
    from ociforge.request import Request
    from ociforge.reuse import Found

__all__ = ["Place", "PlannedImage", "PlannedLayer"]

Place = Literal["store", "image", "make"]


class PlannedLayer(Struct, frozen=True, kw_only=True):
    """A layer of ours, by its `key`. `packages` are shown as `name version build`.

    `layer` is what the key names, when that is known: it is in the store, or in an earlier image, which `found` tells.
    `size` in bytes is that of the packages' archives, or of the files of a layer without packages; `download` that of
    the archives which are not here. `segments` gives what the layer is made of, once; `claim` keeps what that is
    read from from being pruned until then.
    """

    title: str
    key: Digest
    packages: tuple[str, ...] = ()
    layer: Layer | None = None
    found: Found | None = None
    size: int = 0
    download: int = 0
    segments: Callable[[], Iterable[Segment]]
    claim: Callable[[], object] = tuple

    @property
    def place(self) -> Place:
        """Where the layer comes from."""
        return "make" if self.layer is None else "store" if self.found is None else "image"


class PlannedImage(Struct, frozen=True, kw_only=True):
    """The image of `request`, named by `key` if its inputs are all known; `layers` are our own, lowest first.

    `known` is the image itself, when it was built before: then there is nothing to do. `left_out` tells how many files
    each policy of `strip` leaves out, and their bytes.
    """

    request: Request
    key: Digest | None
    layers: tuple[PlannedLayer, ...]
    changes: ConfigChanges | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    known: Built | None = None
    left_out: Callable[[], Mapping[str, tuple[int, int]]] = dict

    @property
    def descriptor(self) -> Descriptor | None:
        """The image that the build will make, when every layer is known."""
        if self.known is not None:
            return self.known.descriptor
        layers = [(layer.layer, layer) for layer in self.layers]
        if any(layer is None for layer, _ in layers):
            return None
        return self._assemble([(layer, planned) for layer, planned in layers if layer is not None]).descriptor

    def image(self, made: Sequence[BuiltLayer]) -> Image:
        """The image of the layers that `made` has in the place of each planned one. Raises ImageError."""
        return self._assemble([(one.layer, planned) for one, planned in zip(made, self.layers, strict=True)])

    def _assemble(self, layers: Sequence[tuple[Layer, PlannedLayer]]) -> Image:
        assert self.changes is not None
        base = self.request.base
        described = [
            (layer, f"ociforge: {one.title}", {LAYER_TITLE: one.title, LAYER_KEY: str(one.key)})
            for layer, one in layers
        ]
        return assemble(base.config, base.layers, described, self.changes, self.annotations, self.request.epoch)
