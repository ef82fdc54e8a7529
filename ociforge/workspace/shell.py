"""The language of pixi's task commands, as far as `sh` says the same.

pixi runs tasks with deno_task_shell, a small POSIX-like shell; an image has `sh`, or no shell at all. What both read
alike can go into an image: words, quotes, `$NAME`, `${NAME}`, `$?`, `$(…)`, `NAME=value command`, patterns, `&&`, `||`,
`;`, line breaks, `|`, `!`, `( … )` and redirections. What either does not know, or reads differently, is refused by
name: a command that means something else in the container would be worse than none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NoReturn

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Script", "join", "parse", "unquote"]

_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_REFERENCE: Final = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]*|\{[A-Za-z_][A-Za-z0-9_]*\}|\?)")
_REDIRECTION: Final = re.compile(r"[0-9]*(?:[<>]&[0-9]+|>>|>\||>|<)")
_SEPARATORS: Final = " \t\n;&|()<>"  # what ends a word that is not quoted
_ESCAPED: Final = "$`\"\\()'\n"  # what a backslash in double quotes changes, in one shell at least
_DEPTH: Final = 20  # of nested lists; more is no command that somebody has written

# Words that begin something else than a command, in pixi's shell, in `sh` or in bash.
_RESERVED: Final = frozenset(
    {
        "if", "then", "else", "elif", "fi", "do", "done", "case", "esac", "while", "until", "for", "in", "[[",
        "function", "select", "shopt",
    }
)  # fmt: skip
# Commands that are the shell's own, or that images may lack as programs: not for `exec`.
_BUILTINS: Final = frozenset(
    {
        ":", ".", "[", "alias", "cd", "command", "echo", "eval", "exec", "exit", "export", "false", "kill", "printf",
        "pwd", "read", "set", "shift", "test", "trap", "true", "ulimit", "umask", "unset", "wait",
    }
)  # fmt: skip


class Script(Struct, frozen=True, kw_only=True):
    """A command as pixi and `sh` read it alike.

    `words` are the program and its arguments when no shell is needed to run it, else None. `text` is for `sh -c`: its
    last command takes the shell's place where it can, so that it gets the signals that a container is stopped with.
    """

    text: str
    words: tuple[str, ...] | None


def parse(text: str) -> Script:
    """Read a task's command; raises ValueError that names what is not the same in `sh`."""
    text = text.strip(" \t\r\n")
    reader = _Reader(text)
    last = reader.sequence()
    if reader.at < len(text):
        reader.unexpected()
    if last is None:
        return Script(text=text, words=None)
    alone = reader.commands == 1 and last.plain
    return Script(text=f"{text[: last.start]}exec {text[last.start :]}", words=tuple(last.words) if alone else None)


def join(words: Iterable[str]) -> str:
    """The text of a command that is given as an array. As in pixi, only blanks and brackets are protected."""
    return " ".join(_protected(word) for word in words)


def unquote(text: str) -> str | None:
    """What `text` stands for inside double quotes, None when only a shell can tell; raises ValueError as `parse`."""
    reader = _Reader(f'"{text}"')
    word = reader.word()
    if reader.at < len(reader.text):
        raise ValueError("a quotation mark in the middle")
    return word


def _protected(word: str) -> str:
    if word and not set(word) & set("\t\r\n []"):
        return word
    return '"' + re.sub(r'(["\\])', r"\\\1", word) + '"'


class _Command(Struct):
    """A simple command: where its first word begins, and whether a shell would do no more than split it."""

    start: int
    words: list[str]
    plain: bool


class _Reader:
    """Reads a command from left to right; `at` is the next character. Every method raises ValueError."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.commands = 0
        self._depth = 0

    def sequence(self) -> _Command | None:
        """Pipelines up to the end or a closing parenthesis; the last one if `exec` may stand before it."""
        last = None
        needed = True
        while needed or not self._ended():
            self._skip(" \t\n")
            last = self._pipeline()
            self._skip(" \t")
            needed = self._take("&&") or self._take("||")
            if not needed and not self._ended() and not (self._take(";") or self._take("\n")):
                self.unexpected()
            if not needed:
                self._skip(" \t\n")
        return last

    def unexpected(self) -> NoReturn:
        """Name what stands where neither shell, or only one of them, would take it."""
        for sign, why in (
            ("|&", "is not known to `sh`: write `2>&1 |`"),
            ("&>", "is not known to `sh`: write `> FILE 2>&1`"),
            ("&", "puts a command into the background, where `sh` does not wait for it"),
            ("<<", "is not known to pixi's shell"),
        ):
            if self.text.startswith(sign, self.at) and not self.text.startswith("&&", self.at):
                raise ValueError(f"`{sign}` {why}")
        if self.at < len(self.text):
            raise ValueError(f"unexpected `{self.text[self.at : self.at + 10]}`")
        raise ValueError("a command is missing at the end")

    def word(self) -> str | None:
        """The word that begins here, quotes removed; None when a shell has to expand something in it."""
        begin, parts, plain = self.at, list[str](), True
        while self.at < len(self.text) and (char := self.text[self.at]) not in _SEPARATORS:
            if char == "'":
                part: str | None = self._single()
            elif char == '"':
                part = self._double()
            elif char == "\\":
                part = self._escaped(' $"`()')
            elif char == "$":
                part = self._dollar(quoted=False)
            else:
                part = self._bare(char, begin)
            parts.append(part or "")
            plain = plain and part is not None
        return "".join(parts) if plain else None

    def _ended(self) -> bool:
        return self.at >= len(self.text) or self.text[self.at] == ")"

    def _take(self, sign: str) -> bool:
        found = self.text.startswith(sign, self.at) and not (sign == ";" and self.text.startswith(";;", self.at))
        if found:
            self.at += len(sign)
        return found

    def _skip(self, blanks: str) -> None:
        while self.at < len(self.text) and self.text[self.at] in blanks:
            self.at += 1

    def _pipeline(self) -> _Command | None:
        negated = self.text.startswith(("! ", "!\t"), self.at)
        if negated:
            self.at += 1
        last = self._command()
        piped = False
        while not self.text.startswith(("||", "|&"), self.at) and self._take("|"):
            piped = True
            self._skip(" \t\n")
            self._command()
        return None if negated or piped else last

    def _command(self) -> _Command | None:
        self._skip(" \t")
        self.commands += 1
        if not self.text.startswith("(", self.at):
            return self._simple()
        if self.text.startswith("((", self.at):
            raise ValueError("`((` is not known to pixi's shell")
        self._nested()
        self._skip(" \t")
        while self._redirection():
            self._skip(" \t")
        return None

    def _nested(self) -> None:
        """`( … )`, the parenthesis being next."""
        self.at += 1
        self._depth += 1
        if self._depth > _DEPTH:
            raise ValueError(f"parentheses nested more than {_DEPTH} deep")
        self.sequence()
        if not self._take(")"):
            raise ValueError("a parenthesis without its end")
        self._depth -= 1

    def _simple(self) -> _Command | None:
        assigned = self._assignments()
        command = _Command(start=self.at, words=[], plain=not assigned)
        name = None
        while True:
            self._skip(" \t")
            if name is not None and self._redirection():
                command.plain = False
                continue
            if self._ended() or self.text[self.at] in _SEPARATORS:
                break
            start, word = self.at, self.word()
            name = name or self.text[start : self.at]
            command.words.append(word or "")
            command.plain = command.plain and word is not None
        if name is None and not assigned:
            self.unexpected()
        if name in _RESERVED:
            raise ValueError(f"`{name}` is no command in `sh`, or none that pixi's shell knows")
        return None if name is None or name in _BUILTINS else command

    def _assignments(self) -> bool:
        """Pass over the variables that are set before a command, or instead of one; whether there are any."""
        found = False
        while match := _ASSIGNMENT.match(self.text, self.at):
            found, self.at = True, match.end()
            self.word()
            self._skip(" \t")
        return found

    def _redirection(self) -> bool:
        match = _REDIRECTION.match(self.text, self.at)
        if match is None:
            return False
        if self.text.startswith("<<", self.at):
            self.unexpected()
        self.at = match.end()
        if not match[0][-1].isdigit():
            self._skip(" \t")
            if self._ended() or self.text[self.at] in _SEPARATORS:
                raise ValueError(f"`{match[0]}` without a file")
            self.word()
        return True

    def _single(self) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise ValueError("a single quotation mark without its end")
        found, self.at = self.text[self.at + 1 : end], end + 1
        return found

    def _double(self) -> str | None:
        self.at += 1
        parts, plain = list[str](), True
        while not self._take('"'):
            if self.at >= len(self.text):
                raise ValueError("a double quotation mark without its end")
            char = self.text[self.at]
            if char == "$":
                part = self._dollar(quoted=True)
            elif char == "`":
                raise ValueError("backticks are not known to pixi's shell: write `$(…)`")
            elif char == "\\" and self.text[self.at + 1 : self.at + 2] in _ESCAPED:
                part = self._escaped('$"`')
            else:
                part = char  # a backslash before anything else is one
                self.at += 1
            parts.append(part or "")
            plain = plain and part is not None
        return "".join(parts) if plain else None

    def _escaped(self, known: str) -> str:
        char = self.text[self.at + 1 : self.at + 2]
        if not char or char not in known:
            raise ValueError(
                f"a backslash before {f'`{char}`' if char.strip() else 'a line break'} is not the same in `sh`: "
                "write it in single quotes"
            )
        self.at += 2
        return char

    def _dollar(self, *, quoted: bool) -> str | None:
        """`$` and what it refers to; the character itself where both shells leave it alone."""
        if match := _REFERENCE.match(self.text, self.at):
            self.at = match.end()
            return None
        if self.text.startswith("$((", self.at):
            raise ValueError("`$((` is not known to pixi's shell")
        if self.text.startswith("$(", self.at):
            self.at += 1
            self._nested()
            return None
        after = self.text[self.at + 1 : self.at + 2]
        if after and after not in " \t\n/.:" and not (quoted and after == '"'):
            raise ValueError(f"`${after}` is not the same in `sh`: write it in single quotes, or as `\\$`")
        self.at += 1
        return "$"

    def _bare(self, char: str, begin: int) -> str | None:
        """A character that is neither quoted nor special in every place."""
        if char == "`":
            raise ValueError("backticks are not known to pixi's shell: write `$(…)`")
        if char in "{}" or (char == "#" and self.at == begin) or self.text.startswith("**", self.at):
            sign = "**" if char == "*" else char
            raise ValueError(f"`{sign}` is not the same in `sh`: write it in quotes")
        if not char.isprintable():
            raise ValueError(f"the character U+{ord(char):04X} is not the same in `sh`: write it in quotes")
        self.at += 1
        return None if char in "*?[" or (char == "~" and self.at == begin + 1) else char
