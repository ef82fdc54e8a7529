"""Addresses of channels and archives as they may be shown and shipped: without credentials and without host paths."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

__all__ = ["shipped_channel", "shipped_url", "without_credentials"]


def without_credentials(url: str) -> str:
    """`url` without user, password, query, fragment and conda's `/t/<token>` segment: for messages.

    A local address and text that is no URL (a channel's name) come back as they are.
    """
    parts = _split(url)
    if parts is None or parts.scheme == "file":
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{_without_token(parts.path)}"


def shipped_url(url: str, *, subdir: str, filename: str) -> str:
    """The address of an archive as `conda-meta` may tell it.

    That of a local channel would carry the build host's directories into the image, so it becomes
    `file:///<subdir>/<filename>`: the same archive gives the same record wherever its channel lay.
    """
    if url.startswith("file:"):
        return f"file:///{subdir}/{filename}"
    return without_credentials(url)


def shipped_channel(channel: str) -> str:
    """The address of a channel as `conda-meta` may tell it; a local one becomes `file:///`."""
    return "file:///" if channel.startswith("file:") else without_credentials(channel)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
    except ValueError:  # a malformed IPv6 address
        return None
    return parts if parts.scheme and "://" in url else None


def _without_token(path: str) -> str:
    """Drop the first `/t/<token>`, where conda itself looks for one, whatever the token's alphabet."""
    segments = path.split("/")
    for index, segment in enumerate(segments[:-1]):
        if segment == "t" and segments[index + 1]:
            return "/".join(segments[:index] + segments[index + 2 :]) or "/"
    return path
