"""The program as such: help, version, exit status, and what it loads for them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ociforge import __version__
from tests.cli.program import environment, nobody, ociforge
from tests.support.tiny import tiny_packages, tiny_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.program import Forge
    from tests.support.tiny import Tiny

# What takes long to import, and what only some verbs need.
_HEAVY = {"asyncio", "deflate", "oras", "pathspec", "rattler", "requests", "rich", "tomli", "yaml"}
_HEAVY |= {"zlib_ng", "zstandard"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["build", "--help"], ["push", "-h"], ["inspect", "-h"], ["bogus"]]
)
def test_help_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    program = f"""
import os, sys
from ociforge.__main__ import main
leave = os._exit
def report(code):
    sys.stdout.write("\\nloaded:" + ",".join(sys.modules))
    sys.stdout.flush()
    leave(code)
os._exit = report
sys.argv = ["ociforge", *{arguments!r}]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    loaded = done.stdout.rpartition("loaded:")[2].split(",")
    assert {"click", "ociforge.cli"} <= set(loaded), done.stderr
    assert not _HEAVY & {name.partition(".")[0] for name in loaded}


def test_help_names_the_verbs_and_exit_codes(forge: Forge) -> None:
    done = forge("--help")
    assert (done.code, done.err) == (0, "")
    for word in ("build", "demo", "push", "130 interrupted"):
        assert word in done.out
    assert forge("-h").out == done.out


def test_help_of_a_verb_ends_well(forge: Forge) -> None:
    for verb in ("build", "demo", "inspect", "push"):
        done = forge(verb, "--help")
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"Usage: ociforge {verb} ")


def test_version(tmp_path: Path) -> None:
    done = ociforge("--version", home=tmp_path)
    assert (done.code, done.out, done.err) == (0, f"ociforge {__version__}\n", "")


def test_without_arguments_it_helps(forge: Forge) -> None:
    done = forge()
    assert done.code == 2
    assert done.out.startswith("Usage: ociforge ")


def test_wrong_usage(tmp_path: Path) -> None:
    """Through the whole program: exit status, streams, and no colours for a pipe."""
    done = ociforge("build", "--bogus", home=tmp_path)
    assert (done.code, done.message) == (2, "no such option `--bogus`")
    assert "\x1b" not in done.err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["inspct"], "no such command `inspct`", "did you mean `inspect`?"),
        (["cache", "inf"], "no such command `inf`", "did you mean `info`?"),
        (["zzz"], "no such command `zzz`", "see `ociforge --help`"),
        (["plan", "--output"], "option `--output` requires an argument", "see `ociforge plan --help`"),
        (["cache", "prune", "--max-size"], "option `--max-size` requires", "see `ociforge cache prune --help`"),
    ],
)
def test_what_was_meant(forge: Forge, arguments: list[str], message: str, hint: str) -> None:
    done = forge(*arguments)
    assert (done.code, done.hint) == (2, hint)
    assert done.message.startswith(message) and "Did you" not in done.message


def test_an_error_of_the_users(tmp_path: Path) -> None:
    done = ociforge("build", tmp_path / "nothing", home=tmp_path)
    assert (done.code, done.message) == (1, f"no such directory: `{tmp_path}/nothing`")
    assert done.hint == "pass the directory of a pixi workspace"


def test_a_bug(forge: Forge, made: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is told shortly, and at length when that is asked for."""

    def broken(*arguments: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("ociforge.workspace.load", broken)
    done = forge("build", made.root)
    assert (done.code, done.out) == (70, "")
    assert done.err == (
        f"error: this is a bug in ociforge {__version__}: RuntimeError: unforeseen\n"
        "\nhint: please report it with the command and this message; `--verbose` shows where it happened\n"
    )
    done = forge("build", made.root, "--verbose")
    assert done.code == 70
    assert done.err.count("Traceback (most recent call last):") == 1
    assert "in broken\n" in done.err


def test_a_user_without_a_home(reachable: Path) -> None:
    """As containers run with a user of their own choice."""
    tiny = tiny_workspace(reachable / "workspace", packages=tiny_packages()[:2])
    prefix = (*nobody(12345), "env", "-u", "HOME")
    command = ("build", tiny.root, "--base", "scratch")
    done = ociforge(*command, home=reachable, prefix=prefix)
    assert done.code == 0, done.err
    done = ociforge(*command, home=reachable, prefix=(*prefix, "-u", "OCIFORGE_CACHE"))
    assert done.code == 2
    assert (done.message, done.hint) == (
        "there is no home directory for the cache",
        "let `OCIFORGE_CACHE` name a directory",
    )
    assert not (reachable / "~").exists()


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_without_a_stream(tmp_path: Path, made: Tiny, base: str, closed: str) -> None:
    done = ociforge("build", made.root, "--base", base, home=tmp_path, prefix=("sh", "-c", f'exec "$@" {closed}', "sh"))
    assert done.code == 0
    assert "Traceback" not in done.err
    assert done.out.startswith("" if closed == ">&-" else "sha256:")


def test_a_reader_that_goes_away(tmp_path: Path, made: Tiny, base: str) -> None:
    """`ociforge … | true`: not a bug, and no traceback."""
    command = [sys.executable, "-m", "ociforge", "build", str(made.root), "--base", base, "--json"]
    running = subprocess.Popen(
        command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    with running.stderr as stream:
        said = stream.read()
    assert running.wait() == 1
    assert "Traceback" not in said
    assert "bug" not in said


def test_a_full_disk_behind_stdout(tmp_path: Path, made: Tiny, base: str) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "ociforge", "build", made.root, "--base", base],
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize(("variable", "coloured"), [("", True), ("1", False)])
def test_no_color(variable: str, coloured: bool, tmp_path: Path) -> None:
    """On a terminal; elsewhere there are no colours anyway."""
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "ociforge", "build", str(tmp_path / "nowhere")]
        variables = {**os.environ, "NO_COLOR": variable, "TERM": "xterm"}
        assert subprocess.run(command, env=variables, stdout=theirs, stderr=theirs, check=False).returncode == 1
        shown = os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"error: " in shown and (b"\x1b[" in shown) is coloured
