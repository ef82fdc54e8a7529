"""Images in registries (distribution-spec 1.1)."""

# ruff: noqa: E402 a module is deferred before anything imports it

from ociforge.transports.deferred import defer

defer("jsonschema")  # for what of oras is not used here: half of the time that importing oras takes

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
