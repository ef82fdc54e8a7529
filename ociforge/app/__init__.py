"""The application's own files: which of the workspace go into the image, and as what (DESIGN.md, D4)."""

from ociforge.app.files import collect

__all__ = ["collect"]
