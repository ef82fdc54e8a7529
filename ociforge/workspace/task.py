"""A pixi task as an image's default command: `cmd = { task = "start" }`.

An image holds one command, so what surrounds a task in pixi is refused by name: other tasks, arguments, templates,
kept results. The command itself becomes an array where no shell is needed, which is right for every image. What needs a
shell (`&&`, `$PORT`, …) is run by the image's, as far as pixi's shell and `sh` read it alike (`workspace.shell`).
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from ociforge.errors import WorkspaceError
from ociforge.workspace.reading import suggestion
from ociforge.workspace.settings import TaskCommand
from ociforge.workspace.shell import join, parse, unquote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ociforge.workspace.environment import Environment
    from ociforge.workspace.feature import Task
    from ociforge.workspace.settings import ImageSettings

__all__ = ["Command", "resolve_command"]

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEMPLATE: Final = re.compile(r"\{[{%#]")  # minijinja's
_SHOWN: Final = 60  # characters of a command in an error
_HINT: Final = "write the image's `cmd` as an array, or give it a task of its own"
_REASONS: Final = {
    "args": "nobody gives a container's command the arguments of a task",
    "inputs": "a container does not keep the results of tasks",
    "outputs": "a container does not keep the results of tasks",
    "clean-env": "a container has its own environment anyway",
    "default-environment": "the image's `environment` says which one it is",
}


class Command(Struct, frozen=True, kw_only=True):
    """What a container runs by default, where, and with which variables besides the settings' and activation's.

    `argv` is None when there is no default command. `workdir` is absolute. `env` has no name that the settings have, as
    these are nearer to the image.
    """

    argv: tuple[str, ...] | None
    workdir: str
    env: Mapping[str, str] = field(default_factory=dict)


def resolve_command(settings: ImageSettings, environment: Environment, *, shell: str | None) -> Command:
    """The image's default command: that of the settings, or of the task of `environment` that they name.

    `shell` is the path of a POSIX shell in the image, None without one. Variables of a task that refer to others are
    set by the command itself, after activation, as in pixi. Raises one WorkspaceError for a task that does not exist,
    or with everything about it that an image cannot have.
    """
    if not isinstance(settings.cmd, TaskCommand):
        return Command(argv=settings.cmd, workdir=settings.workdir)
    task = _find(settings.cmd.task, environment)
    problems = list(_problems(task))
    if problems:
        raise _refusal(task, problems)
    variables = {name: value for name, value in task.env.items() if name not in settings.env}
    literal = {name: unquote(_escaped(value)) for name, value in variables.items()}
    env = {name: value for name, value in literal.items() if value is not None}
    # pixi sets variables in order, and one may refer to those before it: one that does takes all into the script.
    exports = [] if len(env) == len(literal) else [f'export "{n}={_escaped(value)}"' for n, value in variables.items()]
    return Command(
        argv=_argv(task, exports, shell),
        workdir=posixpath.normpath(posixpath.join(settings.workdir, task.cwd or ".")),
        env={} if exports else env,
    )


def _find(name: str, environment: Environment) -> Task:
    task = environment.tasks.get(name)
    if task is None:
        listed = ", ".join(f"`{known}`" for known in environment.tasks) or "none"
        raise WorkspaceError(
            f"the image's `cmd`: environment `{environment.name}` has no task `{name}`"
            f"{suggestion(name, environment.tasks)}",
            f"its tasks are: {listed}",
        )
    return task


def _refusal(task: Task, problems: list[str]) -> WorkspaceError:
    return WorkspaceError.collect([f"`{task.where}` cannot be the image's `cmd`: {why}" for why in problems], _HINT)


def _problems(task: Task) -> Iterator[str]:
    """What an image cannot have of a task, by key."""
    if task.depends_on:
        yield "`depends-on`: a container runs one command"
    for key in task.other_keys:
        yield f"`{key}`: {_REASONS.get(key, 'it has no meaning in a container')}"
    if task.cwd is not None and (why := _wrong_directory(task.cwd)):
        yield f"`cwd`: {why}"
    for name, value in task.env.items():
        if why := _wrong_variable(name, value):
            yield f"`env.{name}`: {why}"
    if task.cmd is None:
        if not task.depends_on:
            yield "it has no command"
    elif why := _wrong_command(_text(task)):
        yield f"`cmd`: {why}"


def _wrong_directory(path: str) -> str | None:
    if _TEMPLATE.search(path):
        return "a template, which only pixi fills in"
    if path.startswith("/") or ".." in posixpath.normpath(path).split("/"):
        return f"expected a directory of the workspace, got `{path}`"
    return None


def _wrong_variable(name: str, value: str) -> str | None:
    if not _VARIABLE.fullmatch(name):
        return "no name for a variable"
    if _TEMPLATE.search(value):
        return "a template, which only pixi fills in"
    try:
        unquote(_escaped(value))
    except ValueError as error:
        return str(error)
    return None


def _wrong_command(text: str) -> str | None:
    if _TEMPLATE.search(text):
        return "a template, which only pixi fills in"
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return None


def _text(task: Task) -> str:
    return task.cmd if isinstance(task.cmd, str) else join(task.cmd or ())


def _escaped(value: str) -> str:
    """A variable's value as pixi puts it into double quotes."""
    return value.replace('"', '\\"')


def _argv(task: Task, exports: Sequence[str], shell: str | None) -> tuple[str, ...]:
    text = _text(task)
    script = parse(text)
    if script.words is not None and not exports:
        return script.words
    if shell is None:
        shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
        raise WorkspaceError(
            f"`{task.where}` cannot be the image's `cmd`: neither the base image nor the environment has a shell, but "
            + (f"`{shown}` needs one" if script.words is None else "variables that refer to others need one"),
            "choose a base image with `/bin/sh`, add `bash` to the environment's dependencies, or write the image's "
            "`cmd` as an array",
        )
    return (shell, "-c", "\n".join((*exports, script.text)))
