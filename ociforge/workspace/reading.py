"""Reading tables strictly: every key is asked for by name, and what nobody asked for is an error.

Findings are collected, so that one run of the program names everything that is wrong with a document.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final, TypeAlias

import tomli

from ociforge.errors import WorkspaceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["Crumb", "Findings", "Table", "describe", "read_toml", "show", "suggestion"]

Crumb: TypeAlias = tuple[str | int, ...]

_LIMIT: Final = 16 << 20  # 16 MiB: the largest manifests in the wild are below 100 kB
_SHOWN: Final = 20  # lines of one error
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def read_toml(path: Path) -> dict[str, object]:
    """The tables of a TOML 1.1 file; raises WorkspaceError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(_LIMIT + 1)
    except OSError as error:
        raise WorkspaceError(f"cannot read `{path}`: {error.strerror or error}") from error
    if len(raw) > _LIMIT:
        raise WorkspaceError(f"cannot read `{path}`: it is larger than {_LIMIT >> 20} MiB")
    try:
        return tomli.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise WorkspaceError(f"`{path.name}` is not UTF-8: byte {error.start} of `{path}`") from error
    except (ValueError, RecursionError) as error:
        why = str(error) or "nested too deeply"
        raise WorkspaceError(f"`{path.name}` is not valid TOML: {why[:1].lower()}{why[1:]}") from error


def show(crumb: Crumb) -> str:
    """A path into a document as its reader writes it: `feature.prod.channels[2]`."""
    text = ""
    for part in crumb:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if _BARE_KEY.fullmatch(part) else '"' + _printable(part) + '"'
            text += f".{key}" if text else key
    return text


def describe(value: object) -> str:
    """What a value is, for "expected …, got …"."""
    match value:
        case bool():
            return f"`{str(value).lower()}`"
        case str():
            return f"string `{_printable(value)}`"
        case int():
            # Not str(): Python refuses to print integers of more than 4300 digits.
            return f"integer `{value}`" if value.bit_length() < 128 else "a huge integer"
        case float():
            return f"number `{value}`"
        case dict():
            return "a table"
        case list():
            return "an array"
        case _:
            return f"{type(value).__name__} `{_printable(str(value))}`"


def suggestion(word: str, known: Iterable[str]) -> str:
    """`: did you mean …?` when one of the known words is near, else nothing."""
    near = difflib.get_close_matches(word[:200], list(known), n=1)
    return f": did you mean `{near[0]}`?" if near else ""


def _printable(text: str) -> str:
    cut = text if len(text) <= 80 else text[:77] + "…"
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in cut)


class Findings:
    """What is wrong with one document, in the order found."""

    def __init__(self, place: str) -> None:
        """`place` is where the findings are, as messages show it: `pixi.toml` in backticks."""
        self.place = place
        self.messages: list[str] = []

    def add(self, crumb: Crumb, why: str) -> None:
        """Note that the value at `crumb` is wrong."""
        self.messages.append(f"`{show(crumb)}` in {self.place}: {why}")

    def settle(self, hint: str | None = None) -> None:
        """Raise one WorkspaceError for all findings, if there are any."""
        if not self.messages:
            return
        shown = self.messages[:_SHOWN]
        if len(self.messages) > _SHOWN:
            shown.append(f"… and {len(self.messages) - _SHOWN} more")
        raise WorkspaceError.collect(shown, hint)


class Table:
    """A cursor over one table of a document.

    Each getter returns None when the key is absent or its value is of the wrong type (which is noted), so a
    caller can go on and find more. `finish` notes the keys that nobody asked for.
    """

    def __init__(self, values: Mapping[str, object], crumb: Crumb, findings: Findings) -> None:
        self.values = values
        self.crumb = crumb
        self.findings = findings
        self.asked: dict[str, None] = {}

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def at(self, *parts: str | int) -> Crumb:
        """The path of something in this table."""
        return (*self.crumb, *parts)

    def wrong(self, key: str, why: str) -> None:
        """Note that the value of `key` is wrong."""
        self.findings.add(self.at(key), why)

    def take(self, key: str) -> object | None:
        """The raw value, or None; the key counts as known from now on."""
        self.asked[key] = None
        return self.values.get(key)

    def ignore(self, *keys: str) -> None:
        """Let these keys be, whatever they hold."""
        self.asked.update(dict.fromkeys(keys))

    def text(self, key: str, *, empty: bool = False) -> str | None:
        """A string; an empty one is wrong unless `empty`."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self.wrong(key, f"expected a string, got {describe(value)}")
            return None
        if not value and not empty:
            self.wrong(key, "expected a string that is not empty")
            return None
        if "\0" in value:  # no path, variable or argument can hold one
            self.wrong(key, "expected a string without NUL characters")
            return None
        return value

    def flag(self, key: str) -> bool | None:
        """A boolean."""
        value = self.take(key)
        if value is None or isinstance(value, bool):
            return value
        self.wrong(key, f"expected `true` or `false`, got {describe(value)}")
        return None

    def integer(self, key: str, *, low: int, high: int) -> int | None:
        """An integer within bounds, both included."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.wrong(key, f"expected an integer from {low} to {high}, got {describe(value)}")
            return None
        return value

    def choice(self, key: str, options: Iterable[str]) -> str | None:
        """One of a few words."""
        value = self.text(key)
        known = tuple(options)
        if value is None or value in known:
            return value
        listed = ", ".join(f"`{o}`" for o in known)
        self.wrong(key, f"expected one of {listed}, got `{_printable(value)}`{suggestion(value, known)}")
        return None

    def array(self, key: str) -> list[object] | None:
        """An array of anything."""
        value = self.take(key)
        if value is None or isinstance(value, list):
            return value
        self.wrong(key, f"expected an array, got {describe(value)}")
        return None

    def texts(self, key: str) -> tuple[str, ...] | None:
        """An array of strings."""
        items = self.array(key)
        if items is None:
            return None
        good: list[str] = []
        for index, item in enumerate(items):
            if isinstance(item, str) and item and "\0" not in item:
                good.append(item)
            else:
                got = "an empty one" if item == "" else describe(item)
                self.findings.add(self.at(key, index), f"expected a string, got {got}")
        return tuple(good)

    def table(self, key: str) -> Table | None:
        """A table."""
        value = self.take(key)
        return None if value is None else self.enter(value, key)

    def tables(self, key: str) -> Iterator[tuple[str, Table]]:
        """The tables of a table, by name, in the order of the document."""
        outer = self.table(key)
        for name in outer.values if outer else ():
            assert outer is not None
            if (inner := outer.table(name)) is not None:
                yield name, inner

    def pairs(self, key: str, *, empty: bool = True) -> dict[str, str] | None:
        """A table of strings, in the order of the document."""
        inner = self.table(key)
        if inner is None:
            return None
        found = {name: inner.text(name, empty=empty) for name in inner.values}
        return {name: value for name, value in found.items() if value is not None}

    def enter(self, value: object, *parts: str | int) -> Table | None:
        """A cursor over a value of this table that must be a table."""
        if isinstance(value, dict):
            return Table(value, self.at(*parts), self.findings)
        self.findings.add(self.at(*parts), f"expected a table, got {describe(value)}")
        return None

    def finish(self) -> None:
        """Note the keys that nobody asked for."""
        for key in self.values:
            if key not in self.asked:
                self.wrong(key, f"unknown key{suggestion(key, self.asked)}")
