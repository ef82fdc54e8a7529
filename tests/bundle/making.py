"""A tiny workspace, and bundles of it."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layers.digest import Digest
from ociforge import base, transports
from ociforge.bundle import Bundle, collect, open_bundle, write
from ociforge.needs import needs, wanted
from ociforge.network import ONLINE
from ociforge.pins import FILE_NAME, Pins, Use
from ociforge.platform import Platform
from ociforge.store import Store
from ociforge.supplies import Means
from ociforge.workspace import load
from ociforge.workspace.lockfile import read
from tests.support.tiny import SETTINGS, Tiny, tiny_base, tiny_workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from ociforge.bundle import Written
    from tests.support.conda import CondaPackage

__all__ = ["AMD64", "Bench", "named", "rewrite"]

AMD64 = Platform.parse("linux/amd64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A workspace whose base image is a layout beside it, pinned; and a store."""

    root: Path
    tiny: Tiny
    store: Store
    events: list[object] = field(default_factory=list)

    @classmethod
    def make(cls, root: Path, packages: Iterable[CondaPackage] | None = None) -> Bench:
        root.mkdir(parents=True, exist_ok=True)
        settings = f'{SETTINGS}base = "oci:../base"\n'
        tiny = tiny_workspace(root / "workspace", settings=settings, packages=packages)
        layout = tiny_base(root / "base")
        digest = transports.source(f"oci:{layout}").root().digest
        Pins(digests={Use.of("oci:../base", AMD64): digest}).write(tiny.root / FILE_NAME)
        return cls(root=root, tiny=tiny, store=Store(root / "store"))

    def bundle(self) -> Bundle:
        """Everything that the image of the workspace needs."""
        workspace = load(self.tiny.root)
        images = wanted(workspace, read(workspace.lock_path))
        needed = needs(images, root=workspace.root)
        layout = base.load(transports.source(f"oci:{self.root / 'base'}"), platform=AMD64, store=self.store)
        means = Means(store=self.store, staging=self.root / "staging", network=ONLINE)
        return collect(workspace, images, needed, bases={("oci:../base", AMD64): layout}, means=means)

    def write(self, path: Path, *, since: Path | None = None) -> Written:
        """Write a bundle to `path`."""
        old = None if since is None else open_bundle(since)
        had = frozenset[Digest]() if old is None else frozenset(item.digest for item in old.manifest.items)
        return write(path, self.bundle(), since=None if old is None else old.root.digest, had=had)


def named(bundle: Bundle | Path) -> dict[str, Digest]:
    """The digest of each file by its name."""
    manifest = bundle.manifest if isinstance(bundle, Bundle) else open_bundle(bundle).manifest
    return {item.name: item.digest for item in manifest.items}


def rewrite(path: Path, target: Path, change: Callable[[dict[str, bytes]], Mapping[str, bytes]]) -> Path:
    """Write what `change` makes of the members of a tar, by name, as another one."""
    with tarfile.open(path, "r:") as tar:
        files = {member.name: _content(tar, member) for member in tar if member.isfile()}
    with tarfile.open(target, "w:") as tar:
        for name, data in change(files).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return target


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None
    return stream.read()
