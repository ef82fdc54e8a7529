"""Images in registries (distribution-spec 1.1)."""

from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry.destination import RegistryDestination
from ociforge.transports.registry.forge import ForgeRegistry, Ref, UnknownBlobError
from ociforge.transports.registry.source import RegistrySource

__all__ = [
    "ForgeRegistry",
    "Ref",
    "RegistryDestination",
    "RegistryOptions",
    "RegistrySource",
    "UnknownBlobError",
]
