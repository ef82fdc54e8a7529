"""The image when it runs: in docker, and with umoci and crun where there is no daemon."""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.external.clients import ask, free_port
from tests.support.containers import Options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.external.clients import Built
    from tests.external.conftest import Loaded
    from tests.support.containers import Container
    from tests.support.docker import Docker

PREFIX = "/app/.pixi/envs/prod"
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What the image's configuration sets, so that a program started beside the entrypoint has it too.
STATIC = {
    "ACTIVATED_BY_FILE": "1",
    "CONDA_DEFAULT_ENV": "my_project:prod",
    "CONDA_PREFIX": PREFIX,
    "MY_PROJECT_MODE": "production",
    "PATH": f"{PREFIX}/bin:{BASE_PATH}",
    "PIXI_ENVIRONMENT_NAME": "prod",
    "PIXI_PROJECT_MANIFEST": "/app/pixi.toml",
    "PIXI_PROJECT_NAME": "my_project",
    "PIXI_PROJECT_ROOT": "/app",
    "PIXI_PROJECT_VERSION": "0.1.0",
}

# What only a shell can find out.
DYNAMIC = {
    "ACTIVATED_BY_SCRIPT": f"{PREFIX}/share/activated",
    "CONDA_SHLVL": "1",
    "MY_PROJECT_DATA": "/app/data",
}

_NOT_OURS = frozenset({"HOME", "HOSTNAME", "OLDPWD", "PIXI_ENVIRONMENT_PLATFORMS", "PWD", "SHLVL", "TERM", "_"})
_PATIENCE = 30  # seconds until a container must answer

NOBODY = Options(user="12345:12345", read_only=True)


def parsed(text: str) -> dict[str, str]:
    """The output of `env -0`, without what shells and engines add."""
    pairs = dict(line.split("=", 1) for line in text.split("\0") if line)
    return {name: value for name, value in pairs.items() if name not in _NOT_OURS}


@contextmanager
def serving(loaded: Loaded, options: Options) -> Iterator[tuple[Container, dict[str, Any]]]:
    """The application on a port of its own, and its first answer."""
    port = free_port()
    command = ("uvicorn", "my_project:app", "--host", "127.0.0.1", "--port", str(port))
    with loaded.runtime.start(loaded.image, *command, options=options) as container:
        yield container, json.loads(ask(port, container))


def test_the_application_answers(loaded: Loaded) -> None:
    with serving(loaded, Options()) as (container, said):
        assert said["prefix"] == PREFIX
        assert said["executable"].startswith(f"{PREFIX}/bin/python")
        assert said["module"] == "/app/my_project/__init__.py"
        assert (said["uid"], said["gid"]) == (0, 0)
        assert (STATIC | DYNAMIC).items() <= said["environment"].items()

        # uvicorn ends itself in good order; one second later it would be killed, with status 137.
        assert container.stop(1) == 0, container.logs()


def test_anyone_runs_it_on_a_root_that_cannot_be_written(loaded: Loaded) -> None:
    with serving(loaded, NOBODY) as (container, said):
        assert (said["uid"], said["gid"]) == (12345, 12345)
        assert container.exec("touch", f"{PREFIX}/x").returncode != 0
        assert container.stop(1) == 0, container.logs()


def wait_until_ready(container: Container) -> None:
    """Wait until it has said `ready`: a container that was just started may not be there yet."""
    deadline = time.monotonic() + _PATIENCE
    while "ready" not in container.logs():
        assert time.monotonic() < deadline, container.logs()
        time.sleep(0.02)


def test_its_own_exit_status_after_a_signal(loaded: Loaded) -> None:
    program = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("ready", flush=True)
time.sleep(60)
"""
    with loaded.runtime.start(loaded.image, "python", "-c", program) as container:
        wait_until_ready(container)
        assert container.stop(1) == 7, container.logs()


def test_its_own_exit_status_at_the_end(loaded: Loaded) -> None:
    assert loaded.runtime.run(loaded.image, "python", "-c", "raise SystemExit(3)").returncode == 3


def test_a_program_entered_beside_the_entrypoint_finds_the_environment(loaded: Loaded) -> None:
    with loaded.runtime.start(loaded.image, "sh", "-c", "echo ready; exec sleep 60") as container:
        wait_until_ready(container)
        beside = container.exec("env", "-0")
        python = container.exec("python", "-c", "import sys; print(sys.prefix)")
        again = container.exec("/app/entrypoint.sh", "env", "-0")

    assert python.stdout == f"{PREFIX}\n", python.stderr
    found = parsed(beside.stdout)
    assert {name: found.get(name) for name in STATIC} == STATIC
    assert found.keys().isdisjoint(DYNAMIC.keys())
    # A second activation changes nothing: PATH has the prefix once.
    assert parsed(again.stdout) == STATIC | DYNAMIC


@pytest.mark.parametrize("shell", [("bash",), ("bash", "--posix", "-eu"), ("dash",), ("dash", "-eu")])
def test_the_entrypoint_does_the_same_in_every_shell(in_crun: Loaded, shell: tuple[str, ...]) -> None:
    by_entrypoint = in_crun.runtime.run(in_crun.image, "env", "-0")
    program, *flags = shell
    by_shell = in_crun.runtime.run(
        in_crun.image, *flags, "/app/entrypoint.sh", "env", "-0", options=Options(entrypoint=program)
    )

    assert by_shell.stderr == by_entrypoint.stderr == ""
    assert parsed(by_shell.stdout) == parsed(by_entrypoint.stdout) == STATIC | DYNAMIC


def test_metadata_is_there_for_everyone(loaded: Loaded) -> None:
    program = f"""
import json, pathlib
metadata = [json.loads(path.read_bytes()) for path in pathlib.Path("{PREFIX}/conda-meta").glob("*.json")]
print(*sorted(package["name"] for package in metadata))
"""
    done = loaded.runtime.run(loaded.image, "python", "-c", program, options=NOBODY)

    assert done.returncode == 0, done.stderr
    assert {"activated", "fastapi", "pydantic-core", "python", "uvicorn"} <= set(done.stdout.split())


@pytest.fixture(scope="module")
def shipped(built: Built) -> set[str]:
    """Every bytecode file of the image's packages that must be good as it is.

    A source that names the prefix has another size than its bytecode says, in every conda installation.
    """
    return {f"/{path}" for path in built.image.paths() if path.endswith(".pyc") and "/_sysconfigdata_" not in path}


def test_bytecode_that_packages_ship_is_used(loaded: Loaded, shipped: set[str]) -> None:
    """As root on a root that can be written: what is stale would be compiled again."""
    done = loaded.runtime.run(loaded.image, "python", "-v", "-c", "import json, asyncio, pydantic_core, sysconfig")
    used = set(re.findall(r"^# (\S+\.pyc) matches ", done.stderr, re.MULTILINE))
    compiled = set(re.findall(r"^# code object from (/\S+\.py)$", done.stderr, re.MULTILINE))

    assert done.returncode == 0, done.stderr
    assert {path.split("/")[-3] for path in used} >= {"json", "asyncio", "pydantic_core"}
    assert {cached(path) for path in compiled}.isdisjoint(shipped)


def cached(source: str) -> str:
    """Where the bytecode of a module of this Python is."""
    folder, _, name = source.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc"


def test_the_default_command(in_docker: Loaded, docker: Docker, shipped: set[str]) -> None:
    """Without the host's network, so that port 8000 is free for sure."""
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/').status)"
    name = docker("run", "--detach", "--network=none", in_docker.image).stdout.strip()
    try:
        deadline = time.monotonic() + _PATIENCE
        while (done := docker("exec", name, "python", "-c", ask, check=False)).returncode:
            assert time.monotonic() < deadline, docker("logs", name).stderr
        difference = docker("diff", name).stdout
    finally:
        docker("rm", "--force", name)

    assert done.stdout == "200\n"
    written = set(re.findall(r"^[AC] (\S+\.pyc)$", difference, re.MULTILINE))
    assert written and written.isdisjoint(shipped)  # noarch packages ship no bytecode
