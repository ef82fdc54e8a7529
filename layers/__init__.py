"""Layers: entries in, deterministic layer blobs out.

    arrangement = arrange([Segment("hello", (File(path="hello", size=2, content=Bytes(b"hi")),))])
    with path.open("wb") as sink:
        layer = write_layer(arrangement, sink, Codec.parse("gzip"))

Knows nothing of packages, image documents or registries, and looks at no clock, locale, umask or environment.
"""

from __future__ import annotations

from layers.compress import Codec, OrderedMap, self_test
from layers.decompress import decompress
from layers.digest import Digest, DigestWriter, Writable
from layers.entry import Bytes, Content, Directory, Entry, File, FileContent, Hardlink, Metadata, Symlink
from layers.errors import CodecError, DigestError, EntriesError, EntryError, LayerError
from layers.layer import Layer, write_layer
from layers.tar import END, FORMAT, header, members
from layers.tree import Arrangement, Segment, arrange, parents

__all__ = [
    "END",
    "FORMAT",
    "Arrangement",
    "Bytes",
    "Codec",
    "CodecError",
    "Content",
    "Digest",
    "DigestError",
    "DigestWriter",
    "Directory",
    "EntriesError",
    "Entry",
    "EntryError",
    "File",
    "FileContent",
    "Hardlink",
    "Layer",
    "LayerError",
    "Metadata",
    "OrderedMap",
    "Segment",
    "Symlink",
    "Writable",
    "arrange",
    "decompress",
    "header",
    "members",
    "parents",
    "self_test",
    "write_layer",
]
