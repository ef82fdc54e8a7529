"""What may be reached, and where else what lies there may be had. Where bytes come from is no input of an image.

A mirror is a prefix of URLs that stands for another one. All that is fetched is held against a digest of the lock, so
mirrors are believed no more than the places that they stand for.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from msgspec import Struct, field

from ociforge.events import Warned, ignore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ociforge.events import Notify

__all__ = ["ONLINE", "Mirrors", "Network", "Place", "Route", "prefix_problem"]

_SCHEMES = ("https", "http", "file", "oci", "s3", "gcs")


class Place(Struct, frozen=True, kw_only=True):
    """Where to look for something; `mirror` is the prefix that stands for another one, None where that is not so."""

    url: str
    mirror: str | None = None

    @property
    def local(self) -> bool:
        """Whether no network is needed."""
        return self.url.startswith("file:")


class Mirrors(Struct, frozen=True, kw_only=True):
    """Prefixes of URLs, and those to try in their place, in order; the URL itself is tried last.

    Of several prefixes that fit, the longest counts. None of them has a credential in it; a mirror may.
    """

    prefixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def over(self, others: Mirrors) -> Mirrors:
        """These, and for other prefixes those of `others`."""
        own = {prefix.rstrip("/") for prefix in self.prefixes}
        rest = {prefix: mirrors for prefix, mirrors in others.prefixes.items() if prefix.rstrip("/") not in own}
        return Mirrors(prefixes={**rest, **self.prefixes})

    def original(self, url: str) -> str:
        """What a URL, without credentials, stands for: itself, unless it is below a mirror."""
        found = [(_public(mirror), prefix) for prefix, mirrors in self.prefixes.items() for mirror in mirrors]
        mirror, prefix = max((pair for pair in found if _begins(url, pair[0])), key=_length, default=("", ""))
        return f"{prefix.rstrip('/')}{url[len(mirror.rstrip('/')) :]}"

    def host_of(self, url: str) -> str | None:
        """The mirror on whose host a URL is, None where it is on no mirror's, or where originals are there, too."""
        host = urlsplit(url).netloc.rpartition("@")[2]
        if not host or any(_host(prefix) == host for prefix in self.prefixes):
            return None
        known = (_public(mirror) for mirrors in self.prefixes.values() for mirror in mirrors)
        return next((mirror for mirror in known if _host(mirror) == host), None)

    def places(self, url: str, public: str) -> tuple[Place, ...]:
        """Where to look for what is at `url`; `public` is the same without credentials, which no mirror is given."""
        prefix = max((text for text in self.prefixes if _begins(public, text)), key=len, default=None)
        own = Place(url=url)
        if prefix is None:
            return (own,)
        rest = public[len(prefix.rstrip("/")) :].lstrip("/")
        return (*(Place(url=_joined(text, rest), mirror=text) for text in self.prefixes[prefix]), own)


class Network(Struct, frozen=True, kw_only=True):
    """What a build may reach for packages. `offline`: nothing but this machine's files. `netrc` is the file with
    credentials for the hosts of PyPI files, None for none.
    """

    offline: bool = False
    netrc: Path | None = None
    conda: Mirrors = field(default_factory=Mirrors)
    pypi: Mirrors = field(default_factory=Mirrors)


ONLINE: Final = Network()


class Route:
    """Where to look for one thing after another; for any number of threads. A mirror that fails is left out from then
    on, with a warning; one that only lacks something is asked for the rest.
    """

    def __init__(self, mirrors: Mirrors, *, offline: bool = False, notify: Notify = ignore) -> None:
        self._mirrors = mirrors
        self._offline = offline
        self._notify = notify
        self._lock = threading.Lock()
        self._failed: set[str] = set()
        self._partial: set[str] = set()

    def places(self, url: str, public: str) -> tuple[Place, ...]:
        """Where to look for what is at `url`, in order; nowhere, when there is no network and it is not on this
        machine. `public` is the URL without credentials.
        """
        found = self._mirrors.places(url, public)
        return tuple(p for p in found if p.mirror not in self._failed and (p.local or not self._offline))

    def leave(self, mirror: str, why: str, *, lacks: bool) -> None:
        """Take note that `mirror` failed to give something; `lacks`: it said that it has no such thing."""
        with self._lock:
            known = self._partial if lacks else self._failed
            if mirror in known:
                return
            known.add(mirror)
        if lacks:
            self._notify(
                Warned(f"the mirror `{_public(mirror)}` does not have everything: the rest comes from elsewhere")
            )
        else:
            self._notify(Warned(f"the mirror `{_public(mirror)}` is passed over: {why}"))


def prefix_problem(text: str, *, mirror: bool) -> str | None:
    """Why `text` is no prefix of URLs, None if it is one; only a `mirror` may have a credential in it."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return "no URL"
    if parts.scheme not in _SCHEMES or "://" not in text:
        return f"expected a URL that begins with {', '.join(f'`{scheme}://`' for scheme in _SCHEMES)}"
    if parts.scheme != "file" and not parts.hostname:
        return "a URL without a host"
    if parts.query or parts.fragment:
        return "a prefix of URLs has no `?` and no `#`"
    if not mirror and "@" in parts.netloc:
        return "credentials belong into the mirror's URL, or where they are kept for its host"
    return None


def _joined(mirror: str, rest: str) -> str:
    return f"{mirror.rstrip('/')}/{rest}" if rest else mirror


def _length(pair: tuple[str, str]) -> int:
    return len(pair[0])


def _begins(url: str, prefix: str) -> bool:
    bare = prefix.rstrip("/")
    return url == bare or url.startswith(f"{bare}/")


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _public(mirror: str) -> str:
    """The mirror as messages name it: no user, no password, and no conda token."""
    parts = urlsplit(mirror)
    path = parts.path.split("/")
    if "t" in path[:-1]:
        where = path.index("t")
        path = path[:where] + path[where + 2 :]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{'/'.join(path)}"
