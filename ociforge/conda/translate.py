"""py-rattler's exceptions in one place: it has about forty types without a common base."""

from __future__ import annotations

import re

from rattler import exceptions

__all__ = ["RATTLER_ERRORS", "reason"]

# What fetching, reading and installing archives may raise; RuntimeError is an HTTP failure, OSError without errno a
# transfer that broke off.
RATTLER_ERRORS = (
    exceptions.CacheDirError,
    exceptions.ConversionError,
    exceptions.ExtractError,
    exceptions.InstallerError,
    exceptions.InvalidUrlError,
    exceptions.IoError,
    exceptions.LinkError,
    exceptions.TransactionError,
    OSError,
    RuntimeError,
    ValueError,
)

_STATUS = re.compile(r"\((\d{3} [^)]*)\)")
_URL = re.compile(r" for url \(.*\)")


def reason(error: BaseException) -> str:
    """Why, in one line: causes are joined by colons, and the URL, which may hold a credential, is left out."""
    text = str(error)
    if status := _STATUS.search(text):
        return status[1]
    return ": ".join(line.removeprefix("Caused by: ").strip() for line in _URL.sub("", text).splitlines())
