"""Credentials in URLs: told by their kind, as they must reach neither images nor bundles, and left out of messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["public", "redacted", "url_secrets"]

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"`]+", re.ASCII | re.IGNORECASE)
_USER: Final = re.compile(r"://([^/?#@:]*)(?::([^/?#]*))?@")
_TOKEN: Final = re.compile(r"(?<![:/])/t/([^/?#]+)(?=/)")  # as conda's channels have it, behind the host
_QUERY: Final = re.compile(
    r"[?&;](?:sig|[\w-]*(?:token|signature|secret|password|api[_-]?key))=([^&;#']+)", re.IGNORECASE
)
_USER_IS_TOKEN: Final = re.compile(r"gh[a-z]_.+|github_pat_.+|glpat-.+|[\w-]{32,}", re.ASCII)
_STANDS_FOR_ONE: Final = re.compile(r"\$\w+|\$\{\w+\}|<[^<>]*>|\{\{?[^{}]*\}?\}")  # as in `https://user:${TOKEN}@host/`
_SUSPECT: Final = re.compile(r"@|/t/|[?&;]")  # what most URLs have nothing of
_SUSPECTS: Final = re.compile(rf"://[^\s\"`]*?(?:{_SUSPECT.pattern})")  # and most texts; faster than all URLs

_SHOWN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s`]+", re.ASCII | re.IGNORECASE)
_LOGIN: Final = re.compile(r"(?<=://)[^/?#]*@")
_ALL_QUERY: Final = re.compile(r"\?[^#]*")


def url_secrets(text: str) -> Iterator[tuple[str, str]]:
    """Each URL of `text` that has a credential in it, once for each kind of it, which comes first."""
    if _SUSPECTS.search(text) is None:
        return
    for url in dict.fromkeys(_URL.findall(text)):
        if _SUSPECT.search(url):
            for kind in _kinds(url):
                yield kind, url


def _kinds(url: str) -> Iterator[str]:
    user = _USER.search(url)
    if user is not None and _is_one(user[2]):
        yield "a password in"
    elif user is not None and user[2] is None and _USER_IS_TOKEN.fullmatch(user[1]):
        yield "a token in the place of a user in"
    if (token := _TOKEN.search(url)) is not None and _is_one(token[1]):
        yield "a channel's token in"
    if any(_is_one(match[1]) for match in _QUERY.finditer(url)):
        yield "a token in the query of"


def _is_one(text: str | None) -> bool:
    return bool(text) and _STANDS_FOR_ONE.fullmatch(text or "") is None


def public(text: str) -> str:
    """A text with URLs in it, or a URL itself, without the secrets that these may hold: user and password, the token of
    a channel, and the query but for git's, which names a branch or tag.
    """
    return _SHOWN.sub(lambda match: _without(match[0]), text)


def redacted(url: str) -> str:
    """`url` without user, password, query and fragment: for messages."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return re.split(r"[?#]", url)[0].rpartition("@")[2]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _without(url: str) -> str:
    if url.startswith(("file:", "direct+file:")):
        return url
    shown = _TOKEN.sub("", _LOGIN.sub("", url, count=1), count=1)
    return shown if url.startswith("git+") else _ALL_QUERY.sub("", shown, count=1)
