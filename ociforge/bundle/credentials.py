"""Credentials in the documents of a workspace, which a bundle has byte for byte: they are its identity.

They are in URLs: of channels, indexes, their mirrors, archives and repositories. A lock cannot be redacted, as builds
compare it, so what has any of these does not go into a bundle. Addresses of other services, such as databases, are
nothing that builds use: a warning tells of theirs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ociforge.errors import WorkspaceError
from ociforge.events import Warned
from ociforge.url_secrets import public, url_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ociforge.events import Notify

__all__ = ["refuse_credentials"]

_HINT: Final = (
    "keep them where they stay on this machine: of indexes and repositories in `~/.netrc`, of channels by"
    " `rattler auth login`, of mirrors in `OCIFORGE_CONDA_MIRRORS` and `OCIFORGE_PYPI_MIRRORS`; then run"
    " `ociforge lock`"
)
_SPREADS: Final = "the bundle has it as it is: whoever gets the bundle can read that"

_FETCHED: Final = re.compile(r"(?:direct\+)?(?:git\+)?(?:https?|ssh|git|ftps?|oci|s3|gcs?)://", re.IGNORECASE)


def refuse_credentials(documents: Mapping[str, bytes], notify: Notify) -> None:
    """Raise WorkspaceError when one of `documents`, by name, has a credential in the URL of something that is fetched.

    What kind of credential it is and where it is for is told, and never the credential.
    """
    refused: list[str] = []
    for name, data in documents.items():
        fetched, others = _found(data.decode("utf-8", "replace"))
        refused += _told(name, fetched)
        for line in _told(name, others):
            notify(Warned(line, _SPREADS))
    if refused:
        raise WorkspaceError.collect([f"{line}: the bundle would have it" for line in refused], _HINT)


_Places = dict[str, dict[str, None]]  # kind -> the URLs, as messages may show them


def _found(text: str) -> tuple[_Places, _Places]:
    """The credentials of what is fetched, and all others."""
    fetched: _Places = {}
    others: _Places = {}
    for kind, url in url_secrets(text):
        (fetched if _FETCHED.match(url) else others).setdefault(kind, {})[public(url.rstrip("',;)]}"))] = None
    return fetched, others


def _told(name: str, places: _Places) -> Iterable[str]:
    for kind, urls in places.items():
        first, *more = urls
        yield f"`{name}` has {kind} the URL `{first}`{f', and in {len(more)} more' if more else ''}"
