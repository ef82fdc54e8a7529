"""`cmd = { task = "start" }`: what an image takes over of a pixi task."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from ociforge.errors import WorkspaceError
from ociforge.workspace.task import Command, resolve_command
from tests.support.tools import need
from tests.workspace.making import workspace

if TYPE_CHECKING:
    from pathlib import Path

HEADS = """\
[environments]
prod = ["prod"]
[feature.prod.tasks]
only = "prod"
[tool.ociforge]
cmd = { task = "start" }
env = { FIXED = "1" }
"""


def resolved(root: Path, tasks: str, *, environment: str = "default", shell: str | None = "/bin/sh") -> Command:
    found = workspace(root, f"{HEADS}\n[tasks]\n{tasks}\n")
    settings = found.settings.image(overrides={"environment": environment})
    return resolve_command(settings, found.environment(environment, "linux-64"), shell=shell)


def refused(root: Path, tasks: str, *, shell: str | None = "/bin/sh") -> WorkspaceError:
    with pytest.raises(WorkspaceError) as caught:
        resolved(root, tasks, shell=shell)
    return caught.value


@pytest.mark.parametrize(
    ("task", "argv"),
    [
        ("'serve --port 80'", ("serve", "--port", "80")),
        ("{ cmd = 'serve', description = 'it serves' }", ("serve",)),
        ("{ cmd = ['serve', 'a b', '--port=80'] }", ("serve", "a b", "--port=80")),
        ("{ cmd = ['serve', '--port', '$PORT'] }", ("/bin/sh", "-c", "exec serve --port $PORT")),
        ("'cd src && serve'", ("/bin/sh", "-c", "cd src && exec serve")),
        ("'''\nmigrate\nserve\n'''", ("/bin/sh", "-c", "migrate\nexec serve")),
    ],
)
def test_commands(tmp_path: Path, task: str, argv: tuple[str, ...]) -> None:
    assert resolved(tmp_path, f"start = {task}") == Command(argv=argv, workdir="/app")


@pytest.mark.parametrize(
    ("task", "argv", "env"),
    [
        ("env = { A = 'x y', B = '' }", ("serve",), {"A": "x y", "B": ""}),
        ("env = { A = 'a \"b\"' }", ("serve",), {"A": 'a "b"'}),
        ("env = { FIXED = '2', A = '1' }", ("serve",), {"A": "1"}),
        ("env = { FIXED = '$HOME', A = '1' }", ("serve",), {"A": "1"}),
        (
            "env = { A = '\"1\"', B = '$A/b' }",
            ("/bin/sh", "-c", 'export "A=\\"1\\""\nexport "B=$A/b"\nexec serve'),
            {},
        ),
    ],
)
def test_variables(tmp_path: Path, task: str, argv: tuple[str, ...], env: dict[str, str]) -> None:
    found = resolved(tmp_path, f"[tasks.start]\ncmd = 'serve'\n{task}")
    assert found == Command(argv=argv, workdir="/app", env=env)


@pytest.mark.parametrize(
    ("cwd", "workdir"),
    [("src", "/app/src"), ("./src/", "/app/src"), (".", "/app"), ("src/../web", "/app/web")],
)
def test_directories(tmp_path: Path, cwd: str, workdir: str) -> None:
    assert resolved(tmp_path, f"start = {{ cmd = 'serve', cwd = '{cwd}' }}").workdir == workdir


def test_a_task_of_the_images_environment(tmp_path: Path) -> None:
    tasks = "start = 'a'\n[feature.prod.tasks.start]\ncmd = 'b'\n"
    assert resolved(tmp_path, tasks).argv == ("a",)
    assert resolved(tmp_path, tasks, environment="prod").argv == ("b",)


@pytest.mark.parametrize(("given", "argv"), [("cmd = ['x', '$y']", ("x", "$y")), ("", None)])
def test_a_command_that_is_no_tasks(tmp_path: Path, given: str, argv: tuple[str, ...] | None) -> None:
    found = workspace(tmp_path, f"[tool.ociforge]\nworkdir = '/srv'\n{given}\n")
    command = resolve_command(found.settings.image(), found.environment("default", "linux-64"), shell=None)
    assert command == Command(argv=argv, workdir="/srv")


def test_a_task_that_there_is_not(tmp_path: Path) -> None:
    error = refused(tmp_path, "stat = 'x'\nother = 'y'")
    assert error.message == ("the image's `cmd`: environment `default` has no task `start`: did you mean `stat`?")
    assert error.hint == "its tasks are: `stat`, `other`"
    assert refused(tmp_path, "").hint == "its tasks are: none"


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("start = [{ task = 'x' }]", ["`depends-on`: a container runs one command"]),
        ("start = { cmd = 'x', depends-on = ['y'] }", ["`depends-on`: a container runs one command"]),
        ("start = { description = 'nothing' }", ["it has no command"]),
        ("start = { cmd = [] }", ["`cmd`: a command is missing at the end"]),
        (
            "start = { cmd = 'x', args = ['a'], inputs = ['b'], outputs = ['c'], clean-env = true }",
            [
                "`inputs`: a container does not keep the results of tasks",
                "`outputs`: a container does not keep the results of tasks",
                "`clean-env`: a container has its own environment anyway",
                "`args`: nobody gives a container's command the arguments of a task",
            ],
        ),
        (
            "start = { cmd = 'x', default-environment = 'prod' }",
            ["`default-environment`: the image's `environment` says which one it is"],
        ),
        ("start = 'x {{ pixi.platform }}'", ["`cmd`: a template, which only pixi fills in"]),
        ("start = { cmd = ['x', '{% if a %}'] }", ["`cmd`: a template, which only pixi fills in"]),
        ("start = { cmd = 'x', cwd = '{{ a }}' }", ["`cwd`: a template, which only pixi fills in"]),
        ("start = { cmd = 'x', env = { A = '{{ a }}' } }", ["`env.A`: a template, which only pixi fills in"]),
        ("start = { cmd = 'x', cwd = '/srv' }", ["`cwd`: expected a directory of the workspace, got `/srv`"]),
        ("start = { cmd = 'x', cwd = 'a/../../b' }", ["`cwd`: expected a directory of the workspace, got `a/../../b`"]),
        ("start = { cmd = 'x', env = { 'A-B' = '1' } }", ["`env.A-B`: no name for a variable"]),
        (
            "start = { cmd = 'x &', env = { A = '`y`' } }",
            [
                "`env.A`: backticks are not known to pixi's shell: write `$(…)`",
                "`cmd`: `&` puts a command into the background, where `sh` does not wait for it",
            ],
        ),
    ],
)
def test_what_an_image_cannot_have_is_refused_by_name(tmp_path: Path, task: str, why: list[str]) -> None:
    error = refused(tmp_path, task)
    assert error.message.splitlines() == [f"`tasks.start` cannot be the image's `cmd`: {line}" for line in why]
    assert error.hint == "write the image's `cmd` as an array, or give it a task of its own"


@pytest.mark.parametrize(
    ("task", "what"),
    [
        ("'a && b'", "`a && b` needs one"),
        (f"'a && {'b' * 80}'", f"`a && {'b' * 54}…` needs one"),
        ("{ cmd = 'a', env = { A = '$HOME' } }", "variables that refer to others need one"),
    ],
)
def test_a_shell_that_there_is_not(tmp_path: Path, task: str, what: str) -> None:
    assert resolved(tmp_path, "start = 'a b'", shell=None).argv == ("a", "b")
    assert refused(tmp_path, f"start = {task}", shell=None).message == (
        "`tasks.start` cannot be the image's `cmd`: neither the base image nor the environment has a shell, but " + what
    )


def test_what_the_shell_makes_of_it(tmp_path: Path) -> None:
    tasks = "start = { cmd = 'cd / && env', env = { A = 'a \"b\" \\c', B = '$A/$(echo d)' } }"
    found = resolved(tmp_path, tasks, shell=need("sh"))
    assert found.argv is not None
    done = subprocess.run(found.argv, capture_output=True, check=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert {'A=a "b" \\c', 'B=a "b" \\c/d', "PWD=/"} <= set(done.stdout.splitlines())
