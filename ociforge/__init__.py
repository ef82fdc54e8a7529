"""ociforge: a daemonless OCI image assembler for pixi workspaces."""

__version__ = "0.1.0"
