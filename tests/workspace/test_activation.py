"""The generated entrypoint, run by real shells, and the variables of the image's config."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from ociforge.errors import PackageError, WorkspaceError
from ociforge.workspace.activation import (
    DEFAULT_PATH,
    Activation,
    PackageFacts,
    activate,
    package_facts,
    workspace_scripts,
)
from tests.support.tools import need
from tests.workspace.making import environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SHELLS = list(itertools.product(("sh", "dash", "bash"), ((), ("-eu",))))
BASE_PATH = "/usr/local/bin:/usr/bin:/bin"


def make(
    root: Path,
    text: str = "",
    facts: PackageFacts | None = None,
    *,
    name: str = "default",
    scripts: Iterable[str] = (),
    base_path: str | None = BASE_PATH,
    fixed: Iterable[str] = (),
    manifest_name: str | None = None,
) -> Activation:
    return activate(
        environment(root, text, name),
        facts or PackageFacts(),
        prefix=f"{root}/env",
        workdir=str(root),
        base_path=base_path,
        scripts=scripts,
        fixed=fixed,
        manifest_name=manifest_name,
    )


def run(
    root: Path, made: Activation, shell: str, flags: Iterable[str] = (), extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment that a command of the image sees, without what shells set by themselves."""
    script = root / "entrypoint.sh"
    script.write_text(made.entrypoint, encoding="utf-8")
    given = {**made.config_env, **(extra or {})}
    command = [need(shell), *flags, str(script), shutil.which("env") or "env", "-0"]
    done = subprocess.run(command, env=given, capture_output=True, check=True, timeout=30)
    assert done.stderr == b""
    found = dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)
    return {key: value for key, value in found.items() if key not in ("_", "PWD", "OLDPWD", "SHLVL")}


TEXT = """\
version = "0.1.0"
[activation]
scripts = ["setup.sh"]
[activation.env]
PLAIN = "a"
SPACES = "a b  c"
QUOTES = "it's \\"quoted\\""
LINES = "one\\ntwo"
EMPTY = ""
SYMBOLS = "~ * ? ; & | < > ( ) # ! % = , ^ ` \\\\"
DATA = "$PIXI_PROJECT_ROOT/data"
BRACES = "${CONDA_PREFIX}/x \\"y\\" \\\\"
COMMAND = "$(echo a; echo b)"
FROM_PACKAGE = "$PACKAGE/$FROM_SCRIPT"
LATE = "workspace"
UNICODE = "grüße"
[environments]
prod = []
"""


@pytest.fixture
def packages(tmp_path: Path) -> PackageFacts:
    folder = tmp_path / "env" / "etc" / "conda" / "activate.d"
    folder.mkdir(parents=True)
    (folder / "b.sh").write_text("export ORDER=${ORDER:-}b\nexport LATE=package\n")
    (folder / "a b.sh").write_text("export ORDER=${ORDER:-}a\n")
    (tmp_path / "setup.sh").write_text("export ORDER=${ORDER}w\nexport FROM_SCRIPT=script\n")
    return package_facts(
        ["etc/conda/activate.d/b.sh", "etc/conda/activate.d/a b.sh"],
        {
            "etc/conda/env_vars.d/b.json": b'{"PACKAGE": "p1", "later": "x$HOME"}',
            "etc/conda/env_vars.d/a.json": b'{"PACKAGE": "p0"}',
        },
        b'{"env_vars": {"state": "s"}}',
    )


@pytest.mark.parametrize(("shell", "flags"), SHELLS)
def test_every_shell_sees_the_same(tmp_path: Path, packages: PackageFacts, shell: str, flags: tuple[str, ...]) -> None:
    made = make(tmp_path, TEXT, packages, name="prod", scripts=["setup.sh"])
    found = run(tmp_path, made, shell, flags, {"HOME": "/root"})
    assert found == {
        "HOME": "/root",
        "PATH": f"{tmp_path}/env/bin:{BASE_PATH}",
        "CONDA_SHLVL": "1",
        "CONDA_PREFIX": f"{tmp_path}/env",
        "PACKAGE": "p1",
        "later": "x/root",
        "STATE": "s",
        "PIXI_PROJECT_ROOT": str(tmp_path),
        "PIXI_PROJECT_NAME": "demo",
        "PIXI_PROJECT_VERSION": "0.1.0",
        "CONDA_DEFAULT_ENV": "demo:prod",
        "PIXI_ENVIRONMENT_NAME": "prod",
        "PIXI_ENVIRONMENT_PLATFORMS": "linux-64",
        "ORDER": "abw",
        "FROM_SCRIPT": "script",
        "PLAIN": "a",
        "SPACES": "a b  c",
        "QUOTES": 'it\'s "quoted"',
        "LINES": "one\ntwo",
        "EMPTY": "",
        "SYMBOLS": "~ * ? ; & | < > ( ) # ! % = , ^ ` \\",
        "DATA": f"{tmp_path}/data",
        "BRACES": f'{tmp_path}/env/x "y" \\',
        "COMMAND": "a\nb",
        "FROM_PACKAGE": "p1/script",
        "LATE": "workspace",
        "UNICODE": "grüße",
    }


@pytest.mark.parametrize(("shell", "flags"), SHELLS)
def test_a_second_time_changes_nothing(tmp_path: Path, shell: str, flags: tuple[str, ...]) -> None:
    made = make(tmp_path, "[activation.env]\nDATA = '$PIXI_PROJECT_ROOT/data'\n")
    once = run(tmp_path, made, shell, flags)
    assert run(tmp_path, made, shell, flags, once) == once


def test_path_without_config_env(tmp_path: Path) -> None:
    """An engine that drops the image's Env: the base's PATH comes from the script."""
    made = make(tmp_path, base_path='/odd "$}`\\/bin')
    bare = Activation(
        config_env={},
        entrypoint=made.entrypoint.replace('exec "$@"', f'PATH=$PATH:{os.defpath}; exec "$@"'),
        needs_shell=(),
    )
    for shell in ("dash", "bash"):
        # bash has a PATH of its own when it is given none, so an empty one is handed in.
        found = run(tmp_path, bare, shell, ("-eu",), {"PATH": ""})
        assert found["PATH"] == f'{tmp_path}/env/bin:/odd "$}}`\\/bin:{os.defpath}'


def test_a_path_of_the_users_own_gets_the_prefix(tmp_path: Path) -> None:
    made = make(tmp_path)
    found = run(tmp_path, made, "dash", ("-eu",), {"PATH": "/usr/bin:/bin"})
    assert found["PATH"] == f"{tmp_path}/env/bin:/usr/bin:/bin"


def test_config_env_is_what_is_static(tmp_path: Path, packages: PackageFacts) -> None:
    made = make(tmp_path, TEXT, packages, name="prod", scripts=["setup.sh"])
    assert list(made.config_env) == [
        "PATH", "CONDA_PREFIX", "PACKAGE", "STATE", "PIXI_PROJECT_ROOT", "PIXI_PROJECT_NAME", "PIXI_PROJECT_VERSION",
        "CONDA_DEFAULT_ENV", "PIXI_ENVIRONMENT_NAME", "PIXI_ENVIRONMENT_PLATFORMS", "PLAIN", "SPACES", "QUOTES",
        "LINES", "EMPTY", "SYMBOLS", "LATE", "UNICODE",
    ]  # fmt: skip
    assert made.config_env["LATE"] == "workspace"
    prefix = f"{tmp_path}/env"
    assert made.needs_shell == (
        f"{prefix}/etc/conda/activate.d/a b.sh", f"{prefix}/etc/conda/activate.d/b.sh", f"{tmp_path}/setup.sh",
        "$later", "$DATA", "$BRACES", "$COMMAND", "$FROM_PACKAGE",
    )  # fmt: skip


def test_without_scripts_no_shell_is_needed(tmp_path: Path) -> None:
    assert make(tmp_path, "[activation.env]\nA = 'x'\n").needs_shell == ()


def test_an_expanding_value_hides_a_static_one(tmp_path: Path) -> None:
    facts = PackageFacts(variables={"A": "static", "B": "$x"})
    made = make(tmp_path, "[activation.env]\nA = '$HOME'\nB = 'static'\n", facts)
    assert "A" not in made.config_env
    assert made.config_env["B"] == "static"


def test_text(tmp_path: Path) -> None:
    found = environment(tmp_path, "version = '1.0'\n[activation.env]\nX = 'a,b'\n")
    facts = PackageFacts(scripts=("etc/conda/activate.d/gdal.sh",))
    made = activate(found, facts, prefix="/app/.pixi/envs/default", workdir="/app", base_path=None, scripts=["s.sh"])
    assert (
        made.entrypoint
        == """\
#!/bin/sh
# Written by ociforge: activates the environment, then becomes the command.
case ":${PATH:-}:" in
*:/app/.pixi/envs/default/bin:*) ;;
*) PATH=/app/.pixi/envs/default/bin:"${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}" ;;
esac
export PATH
export CONDA_SHLVL=1
export CONDA_PREFIX=/app/.pixi/envs/default
export PIXI_PROJECT_ROOT=/app
export PIXI_PROJECT_NAME=demo
export PIXI_PROJECT_VERSION=1.0
export CONDA_DEFAULT_ENV=demo
export PIXI_ENVIRONMENT_NAME=default
export PIXI_ENVIRONMENT_PLATFORMS=linux-64
. /app/.pixi/envs/default/etc/conda/activate.d/gdal.sh
. /app/s.sh
export X='a,b'
[ "$#" -gt 0 ] || set -- /bin/sh
exec "$@"
"""
    )
    assert made.config_env["PATH"] == f"/app/.pixi/envs/default/bin:{DEFAULT_PATH}"


def test_no_version_and_a_manifest(tmp_path: Path) -> None:
    made = make(tmp_path, manifest_name="pixi.toml")
    assert made.config_env["PIXI_PROJECT_VERSION"] == "NO_VERSION_SPECIFIED"
    assert made.config_env["PIXI_PROJECT_MANIFEST"] == f"{tmp_path}/pixi.toml"


def test_what_the_settings_fix_is_left_alone(tmp_path: Path) -> None:
    made = make(tmp_path, "[activation.env]\nMODE = 'dev'\n", fixed=["MODE", "PIXI_PROJECT_ROOT"])
    assert "MODE" not in made.config_env
    assert "MODE" not in made.entrypoint
    assert run(tmp_path, made, "sh", extra={"MODE": "prod"})["MODE"] == "prod"


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_command_keeps_its_words_and_its_status(tmp_path: Path, shell: str) -> None:
    script = tmp_path / "entrypoint.sh"
    script.write_text(make(tmp_path).entrypoint)
    words = ["a b", "", "*", "$HOME", "it's"]
    command = [need(shell), str(script), "/bin/sh", "-c", 'printf "<%s>" "$@"; exit 7', "sh", *words]
    done = subprocess.run(command, env={"PATH": BASE_PATH}, capture_output=True, check=False, timeout=30)
    assert done.stdout.decode() == "".join(f"<{word}>" for word in words)
    assert done.returncode == 7


def test_without_a_command_there_is_a_shell(tmp_path: Path) -> None:
    script = tmp_path / "entrypoint.sh"
    script.write_text(make(tmp_path).entrypoint)
    done = subprocess.run(
        [need("dash"), "-eu", str(script)],
        input=b"echo $CONDA_DEFAULT_ENV; exit 3",
        env={"PATH": BASE_PATH},
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert (done.stdout, done.returncode) == (b"demo\n", 3)


@pytest.mark.parametrize("interpreter", ["sh", "/bin/" + "x" * 200])
def test_the_interpreter_must_work_in_a_shebang(tmp_path: Path, interpreter: str) -> None:
    with pytest.raises(WorkspaceError, match=r"^the entrypoint cannot be run by"):
        activate(
            environment(tmp_path, ""),
            PackageFacts(),
            prefix="/a/b",
            workdir="/a",
            base_path=None,
            interpreter=interpreter,
        )


class TestPackageFacts:
    def test_only_shell_scripts_of_the_folder(self) -> None:
        found = package_facts(
            ["bin/x.sh", "etc/conda/activate.d/z.sh", "etc/conda/activate.d/y.fish", "etc/conda/activate.d/a.sh"], {}
        )
        assert found.scripts == ("etc/conda/activate.d/a.sh", "etc/conda/activate.d/z.sh")

    def test_what_is_no_string_is_skipped(self) -> None:
        found = package_facts([], {"etc/conda/env_vars.d/x": b'{"A": 1, "B": "b", "PATH": "/x"}'})
        assert found.variables == {"B": "b"}
        assert found.warnings == (
            "`etc/conda/env_vars.d/x`: the variable `A` is skipped: its value is no string",
            "`etc/conda/env_vars.d/x`: the variable `PATH` is skipped: activation sets it itself",
        )

    @pytest.mark.parametrize(
        ("raw", "message"),
        [
            (b"{", "`e.json`: no JSON: "),
            (b"\xff", "`e.json`: no JSON: "),
            (b"[" * 100_000, "`e.json`: no JSON: "),
            (b"[]", "`e.json`: expected a JSON object"),
            (b'{"A B": "x"}', "`e.json`: `A B` cannot be set as a variable"),
            (b'{"A": "\\u0000"}', "`e.json`: `A` cannot be set as a variable"),
        ],
    )
    def test_message(self, raw: bytes, message: str) -> None:
        with pytest.raises(PackageError) as caught:
            package_facts([], {"e.json": raw})
        assert caught.value.message.startswith(message)

    def test_a_state_needs_its_variables(self) -> None:
        with pytest.raises(PackageError, match=r"^`conda-meta/state`: expected an object `env_vars`$"):
            package_facts([], {}, b"{}")


class TestWorkspaceScripts:
    def test_those_that_are_there(self, tmp_path: Path) -> None:
        text = "[activation]\nscripts = ['./a.sh', 'gone.sh', 'b.bash', 'x.bat']\n"
        found, warnings = workspace_scripts(environment(tmp_path, text), {"a.sh", "b.bash"}.__contains__)
        assert found == ("a.sh", "b.bash")
        assert warnings == (
            "the activation script `gone.sh` is skipped: there is no such file",
            "the activation script `x.bat` is skipped: neither `.sh` nor `.bash`",
        )

    @pytest.mark.parametrize("script", ["../a.sh", "/etc/a.sh", "x/../../a.sh"])
    def test_none_from_outside(self, tmp_path: Path, script: str) -> None:
        found = environment(tmp_path, f"[activation]\nscripts = ['{script}']\n")
        with pytest.raises(WorkspaceError, match="lies outside the workspace"):
            workspace_scripts(found, lambda _: True)
