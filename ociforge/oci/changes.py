"""What an image's configuration sets on top of its base (image-spec, config.md, "config")."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from ociforge.errors import ImageError
from ociforge.oci.document import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["MAX_ID", "ConfigChanges"]

MAX_ID = (1 << 31) - 1  # beyond it engines once ran as root (CVE-2024-40635)

_PORT = re.compile(r"([1-9][0-9]{0,4})(?:/(tcp|udp))?", re.ASCII)
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_SIGNAL = re.compile(r"SIG[A-Z][A-Z0-9]*(?:[+-][0-9]{1,2})?|[1-9]|[1-5][0-9]|6[0-4]", re.ASCII)
_HEALTH_DURATIONS = ("Interval", "Timeout", "StartPeriod", "StartInterval")  # nanoseconds
_HEALTH_TESTS = ("NONE", "CMD", "CMD-SHELL")


class ConfigChanges(Struct, frozen=True, kw_only=True):
    """What to set. None and empty collections keep what the base says, but for an empty `entrypoint` or `cmd` (`()`),
    which removes the base's.

    `expose` holds `8000` or `8000/udp`; `healthcheck` is the object of the specification, durations in nanoseconds.
    Making one raises ImageError with a line for each value that no image may have.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    workdir: str | None = None
    user: str | None = None
    expose: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str | None = None
    healthcheck: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        problems = [
            *_env_problems(self.env),
            *_command_problems("entrypoint", self.entrypoint),
            *_command_problems("cmd", self.cmd),
            *_path_problems("workdir", () if self.workdir is None else (self.workdir,)),
            *_user_problems(self.user),
            *_port_problems(self.expose),
            *_path_problems("volumes", self.volumes),
            *_label_problems(self.labels),
            *_signal_problems(self.stop_signal),
            *_health_problems(self.healthcheck),
        ]
        if problems:
            raise ImageError.collect(problems)

    @property
    def ports(self) -> tuple[str, ...]:
        """The exposed ports with their protocol, as docker writes them: `8000/tcp`."""
        return tuple(port if "/" in port else f"{port}/tcp" for port in self.expose)


def _text_problem(value: object) -> str | None:
    """Why no configuration can hold this as a string."""
    if not isinstance(value, str):
        return f"expected a string, got {type(value).__name__}"
    if "\0" in value:
        return "contains a NUL character"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return None


def _env_problems(env: Mapping[str, str]) -> Iterator[str]:
    for name, value in env.items():
        if reason := _text_problem(name) or _text_problem(value):
            yield f"env: {shown(name)}: {reason}"
        elif not name or "=" in name:
            yield f"env: {shown(name)}: not a variable name"


def _command_problems(what: str, command: object) -> Iterator[str]:
    if command is None:
        return
    if not isinstance(command, tuple):
        yield f"{what}: expected a tuple of strings, got {type(command).__name__}"
        return
    for index, word in enumerate(command):
        if reason := _text_problem(word):
            yield f"{what}[{index}]: {reason}"
    if command and not command[0]:
        yield f"{what}[0]: the program's name is empty"


def _path_problems(what: str, paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        if reason := _text_problem(path):
            yield f"{what}: {shown(path)}: {reason}"
        elif not path.startswith("/"):
            yield f"{what}: {shown(path)}: not an absolute path"
        elif ".." in path.split("/"):
            yield f"{what}: {shown(path)}: has `..` in it"


def _user_problems(user: str | None) -> Iterator[str]:
    if user is None:
        return
    name, colon, group = user.partition(":")
    for part in (name, group) if colon else (name,):
        if _NUMBER.fullmatch(part):
            if len(part) > 10 or int(part) > MAX_ID:
                yield f"user: {shown(user)}: {shown(part)} is beyond {MAX_ID}, the largest id"
        elif not _ACCOUNT.fullmatch(part):
            yield f"user: {shown(user)}: expected `user`, `uid`, `user:group` or `uid:gid`"


def _port_problems(ports: Iterable[str]) -> Iterator[str]:
    for port in ports:
        match = _PORT.fullmatch(port)
        if match is None or int(match[1]) > 65535:
            yield f"expose: {shown(port)}: expected a port such as `8000` or `8000/udp`"


def _label_problems(labels: Mapping[str, str]) -> Iterator[str]:
    for name, value in labels.items():
        if reason := _text_problem(name) or _text_problem(value):
            yield f"labels: {shown(name)}: {reason}"
        elif not name:
            yield "labels: a name is empty"


def _signal_problems(signal: str | None) -> Iterator[str]:
    if signal is not None and not _SIGNAL.fullmatch(signal):
        yield f"stop signal: {shown(signal)}: expected a name such as `SIGTERM` or `SIGRTMIN+3`, or a number up to 64"


def _health_problems(healthcheck: Mapping[str, Any] | None) -> Iterator[str]:
    if healthcheck is None:
        return
    for key in healthcheck:
        if key not in ("Test", "Retries", *_HEALTH_DURATIONS):
            yield f"healthcheck: {shown(key)}: unknown member"
    for key in ("Retries", *_HEALTH_DURATIONS):
        value = healthcheck.get(key, 0)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            yield f"healthcheck: {shown(key)}: expected a whole number, not negative, got {shown(value)}"
    yield from _health_test_problems(healthcheck.get("Test", []))


def _health_test_problems(test: object) -> Iterator[str]:
    if not isinstance(test, list | tuple):
        yield f"healthcheck: `Test`: expected a list of strings, got {type(test).__name__}"
        return
    for reason in filter(None, map(_text_problem, test)):
        yield f"healthcheck: `Test`: {reason}"
    if test and test[0] not in _HEALTH_TESTS:
        yield f"healthcheck: `Test`: starts with one of `NONE`, `CMD` and `CMD-SHELL`, got {shown(test[0])}"
