"""Typed access to the members of a parsed JSON document; `null` means absent, as in Go.

`what` is the breadcrumb of the object, such as `image config: config`; every failure is an ImageError that ends it with
the member.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ociforge.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["exact_keys", "kind", "objects", "optional_object", "optional_text", "shown", "string_map", "texts"]

_MAX_SHOWN = 300  # characters; names of 255 are legal
_KINDS = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}


def kind(value: object) -> str:
    """What JSON calls the type of `value`, with its article."""
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)


# What stands before a host in a URL; an `@` before a digest does not.
_USER_INFO = re.compile(r"[^/@\s=`]*:[^/@\s`]*@(?!sha\d+:)")


def shown(value: object) -> str:
    """A value from outside for a message: between backticks, on one line, not too long, and without passwords."""
    text = value if isinstance(value, str) and value.isprintable() else ascii(value)
    short = _USER_INFO.sub("…@", text[:_MAX_SHOWN])
    return f"`{short}`" if len(text) <= _MAX_SHOWN else f"`{short}…`"


def exact_keys(document: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """Refuse a known member in other letter case: engines written in Go would read it, we would not."""
    names = {name.casefold(): name for name in known}
    for key in document:
        if (name := names.get(key.casefold(), key)) != key:
            raise ImageError(f"{what}: {shown(key)}: the specification spells it `{name}`")


def optional_text(document: Mapping[str, Any], key: str, what: str) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise ImageError(f"{what}.{key}: expected a string, got {kind(value)}")
    return value


def optional_object(document: Mapping[str, Any], key: str, what: str) -> dict[str, Any] | None:
    value = document.get(key)
    if value is not None and not isinstance(value, dict):
        raise ImageError(f"{what}.{key}: expected an object, got {kind(value)}")
    return value


def objects(document: Mapping[str, Any], key: str, what: str) -> tuple[dict[str, Any], ...]:
    """The objects of an array; none when it is absent."""
    return tuple(_items(document, key, what, dict, "an object"))


def texts(document: Mapping[str, Any], key: str, what: str) -> tuple[str, ...] | None:
    """The strings of an array; None when it is absent."""
    return None if document.get(key) is None else tuple(_items(document, key, what, str, "a string"))


def string_map(document: Mapping[str, Any], key: str, what: str) -> dict[str, str]:
    """Strings by name; none when it is absent."""
    values = optional_object(document, key, what) or {}
    for name, value in values.items():
        if not isinstance(value, str):
            raise ImageError(f"{what}.{key}[{shown(name)}]: expected a string, got {kind(value)}")
    return values


def _items(document: Mapping[str, Any], key: str, what: str, wanted: type, name: str) -> list[Any]:
    values = document.get(key)
    if values is None:
        return []
    if not isinstance(values, list):
        raise ImageError(f"{what}.{key}: expected an array, got {kind(values)}")
    for index, value in enumerate(values):
        if not isinstance(value, wanted):
            raise ImageError(f"{what}.{key}[{index}]: expected {name}, got {kind(value)}")
    return values
