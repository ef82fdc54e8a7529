"""Another base under an image that is there already: its own layers are neither moved nor made again."""

from ociforge.rebase.image import rebase

__all__ = ["rebase"]
