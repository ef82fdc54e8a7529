"""What is moved between a layout and a registry, and the programs that move it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import tarfile
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from benchmarks.latency import running_latency
from benchmarks.measure import environment, run
from tests.support.images import HandmadeImage
from tests.support.registry import running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from benchmarks.measure import Usage

__all__ = ["DIRECTIONS", "TOOLS", "Direction", "Shape", "Tool", "copies", "layout_of"]

Direction = Literal["push", "push again", "pull"]
DIRECTIONS: tuple[Direction, ...] = ("push", "push again", "pull")
Tool = Literal["ociforge", "skopeo"]
TOOLS: tuple[Tool, ...] = ("ociforge", "skopeo")

_BLOCK = 1 << 20
_TAG = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """An image of `count` layers of `size` bytes each, and how late the registry's answers are, in seconds."""

    count: int
    size: int
    delay: float = 0

    def __str__(self) -> str:
        size = f"{self.size >> 10} KiB" if self.size % 1000 else f"{self.size / 1e6:g} MB"
        return f"{self.count} x {size}" + (f", {self.delay * 1e3:.0f} ms" if self.delay else "")


def layout_of(shape: Shape, directory: Path) -> Path:
    """An OCI layout with such an image, the same at every call. No codec makes the layers smaller."""
    layout = directory / f"{shape.count}-{shape.size}"
    blobs = layout / "blobs/sha256"
    if layout.exists():
        return layout
    blobs.mkdir(parents=True)
    made = [_layer(layout, shape.size, seed) for seed in range(shape.count)]
    image = HandmadeImage(layers=())
    config = image.config_document() | {
        "rootfs": {"type": "layers", "diff_ids": [diff_id for diff_id, _ in made]},
        "history": [{"created_by": "random"} for _ in made],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _put(layout, config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor for _, descriptor in made],
    }
    top = _put(layout, manifest, manifest["mediaType"])
    named = top | {"annotations": {"org.opencontainers.image.ref.name": _TAG}}
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    return layout


def _layer(layout: Path, size: int, seed: int) -> tuple[str, dict[str, Any]]:
    """The diff_id and the descriptor of a gzip layer that holds one file of random bytes, stored.

    skopeo would compress anything else on its way.
    """
    path = layout / "layer"
    packer, diff_id, digest = zlib.compressobj(0, wbits=31), hashlib.sha256(), hashlib.sha256()
    with path.open("wb") as file:
        for chunk in _tar(size, seed):
            diff_id.update(chunk)
            digest.update(packed := packer.compress(chunk))
            file.write(packed)
        digest.update(packed := packer.flush())
        file.write(packed)
    written = path.stat().st_size
    path.rename(layout / "blobs/sha256" / digest.hexdigest())
    media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    return f"sha256:{diff_id.hexdigest()}", _descriptor(media_type, digest.hexdigest(), written)


def _tar(size: int, seed: int) -> Iterator[bytes]:
    member = tarfile.TarInfo("random")
    member.size = size
    yield member.tobuf()
    source = random.Random(seed)
    for start in range(0, size, _BLOCK):
        yield source.randbytes(min(_BLOCK, size - start))
    yield bytes(-size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def _put(layout: Path, document: Any, media_type: Any) -> dict[str, Any]:
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return _descriptor(media_type, digest, len(data))


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def copies(
    tool: Tool, shape: Shape, layout: Path, scratch: Path, directions: tuple[Direction, ...] = DIRECTIONS
) -> Iterator[tuple[Direction, Usage]]:
    """Move the image to a registry that is empty at first, and back, by one program; everything is removed after.

    Raises CommandError when the program fails, AssertionError when what comes back is another image.
    """
    back = scratch / "back"
    copy = _command(tool)
    with _registry(scratch / "registry", shape.delay) as host:
        reference = f"docker://{host}/benchmark/image:{_TAG}"
        ways = {"push": (f"oci:{layout}:{_TAG}", reference), "pull": (reference, f"oci:{back}:{_TAG}")}
        for direction in directions:
            yield direction, _measured([*copy, *ways[direction.partition(" ")[0]]], scratch)
    if "pull" in directions:
        assert _digests(back) == _digests(layout), f"`{tool}` has changed the image"
        shutil.rmtree(back)


def _command(tool: Tool) -> list[str]:
    if tool == "ociforge":
        return [sys.executable, "-m", "ociforge", "push", "--quiet"]
    flags = ("--quiet", "--src-tls-verify=false", "--dest-tls-verify=false")
    return ["skopeo", "--insecure-policy", "copy", *flags]


def _measured(command: list[str], scratch: Path) -> Usage:
    """Nothing of earlier commands is left to be written to the disk meanwhile."""
    home = scratch / "home"
    home.mkdir(exist_ok=True)
    os.sync()
    return run(command, variables=environment(home), log=scratch / "log")


@contextmanager
def _registry(directory: Path, delay: float) -> Iterator[str]:
    """Where an empty registry listens."""
    with ExitStack() as stack:
        host = stack.enter_context(running_registry(directory)).host
        yield stack.enter_context(running_latency(host, delay)) if delay else host
    shutil.rmtree(directory)


def _digests(layout: Path) -> list[str]:
    return [entry["digest"] for entry in json.loads((layout / "index.json").read_bytes())["manifests"]]
