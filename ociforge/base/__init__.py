"""Base images: where they come from, what they configure, and which paths they have (DESIGN.md, D6)."""

from ociforge.base.image import Base, load, rootfs, scratch
from ociforge.base.tree import Node, Tree

__all__ = ["Base", "Node", "Tree", "load", "rootfs", "scratch"]
