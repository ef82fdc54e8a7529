"""What messages may show of the addresses in manifests and locks."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["public"]

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s`]+", re.ASCII | re.IGNORECASE)
_USER: Final = re.compile(r"(?<=://)[^/?#]*@")
_TOKEN: Final = re.compile(r"(?<![:/])/t/[^/?#]+(?=/)")  # as conda's channels have it, behind the host
_QUERY: Final = re.compile(r"\?[^#]*")


def public(text: str) -> str:
    """A text with URLs in it, or a URL itself, without the secrets that these may hold: user and password, the token of
    a channel, and the query but for git's, which names a branch or tag.
    """
    return _URL.sub(lambda match: _shown(match[0]), text)


def _shown(url: str) -> str:
    if url.startswith(("file:", "direct+file:")):
        return url
    shown = _TOKEN.sub("", _USER.sub("", url, count=1), count=1)
    return shown if url.startswith("git+") else _QUERY.sub("", shown, count=1)
