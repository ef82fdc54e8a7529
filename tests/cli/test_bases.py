"""Base images by their names: what a name stands for is found out once, whatever happens meanwhile."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from layers.compress import Codec
from ociforge.cli.bases import Bases
from ociforge.cli.places import Places
from ociforge.events import StageStarted
from ociforge.platform import Platform
from ociforge.store import Store
from ociforge.transports.options import RegistryOptions
from tests.support.bases import tiny_image
from tests.support.images import write_layout
from tests.support.registry import push_layout, running_registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from layers.digest import Digest
    from ociforge.events import Event

PLATFORMS = (Platform(architecture="amd64"), Platform(architecture="arm64"))


def opened(base: str, directory: Path, move: Callable[[], object]) -> list[Digest | None]:
    """The digests of a base for each platform, when `move` puts another image under its name after the first."""
    seen: list[Event] = []

    def notify(event: Event) -> None:
        if isinstance(event, StageStarted):
            seen.append(event)
            if len(seen) == len(PLATFORMS):
                move()

    bases = Bases(directory, Places(RegistryOptions(), notify), strict=False)
    store, codec = Store(directory / "store"), Codec.parse("gzip")
    return [bases.open(base, platform, store=store, codec=codec).digest for platform in PLATFORMS]


@pytest.mark.parametrize("kind", ["registry", "layout"])
def test_a_name_that_moves_between_two_platforms(tmp_path: Path, kind: str) -> None:
    image = tiny_image()
    digests = []
    for name, user in {"old": "1", "new": "2"}.items():
        one = replace(image, config={**image.config, "User": user})
        digests.append(write_layout([one, replace(one, architecture="arm64")], tmp_path / name))
    if kind == "layout":
        shutil.copytree(tmp_path / "old", tmp_path / "base")
        found = opened(
            "oci:base", tmp_path, lambda: shutil.copytree(tmp_path / "new", tmp_path / "base", dirs_exist_ok=True)
        )
    else:
        with running_registry(tmp_path / "registry") as registry:
            push_layout(tmp_path / "old", registry, "base", "1")
            base = f"docker://{registry.host}/base:1"
            found = opened(base, tmp_path, lambda: push_layout(tmp_path / "new", registry, "base", "1"))
    assert [str(digest) for digest in found] == [digests[0], digests[0]]
