"""Tiny workspaces for the tests of the packages that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ociforge.workspace import Workspace, load

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.workspace import Environment

__all__ = ["HEAD", "environment", "workspace"]

HEAD = """\
[workspace]
name = "demo"
channels = ["conda-forge"]
platforms = ["linux-64", "linux-aarch64", "osx-arm64"]
"""


def workspace(root: Path, text: str, *, head: str = HEAD, name: str = "pixi.toml") -> Workspace:
    """A workspace in `root` whose manifest is `head` and then `text`."""
    (root / name).write_text(head + text, encoding="utf-8")
    return load(root)


def environment(root: Path, text: str, name: str = "default", platform: str = "linux-64") -> Environment:
    """One environment of such a workspace."""
    return workspace(root, text).environment(name, platform)
