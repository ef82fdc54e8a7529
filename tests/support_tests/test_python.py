from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.channel import write_channel
from tests.support.python import SHORT, SUBDIR, python_archive
from tests.support.rattling import install, solve

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "/app/.pixi/envs/prod"

# Every extension module that needs a library besides glibc.
_PROGRAM = """
import bz2, ctypes, hashlib, json, lzma, sqlite3, ssl, sys, sysconfig, zlib
libraries = [line.split()[-1] for line in open("/proc/self/maps") if ".so" in line]
print(json.dumps({"prefix": sys.prefix, "sysconfig": sysconfig.get_config_var("prefix"), "libraries": libraries}))
"""


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("python")
    channel = write_channel(root / "channel", [python_archive()])
    return install(
        solve(channel.url, "python", subdir=SUBDIR), root / "env", cache=root / "cache", prefix=PREFIX, subdir=SUBDIR
    )


def run(prefix: Path, *arguments: str) -> str:
    done = subprocess.run(
        [prefix / "bin/python", *arguments],
        env={},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def test_the_interpreter_runs_from_another_prefix(prefix: Path) -> None:
    facts = json.loads(run(prefix, "-c", _PROGRAM))

    assert facts["prefix"] == str(prefix)
    assert facts["sysconfig"] in (str(prefix), PREFIX)
    named = [name for name in facts["libraries"] if "/libssl" in name or "/libsqlite3" in name or "/libpython" in name]
    assert named
    assert all(name.startswith(str(prefix)) for name in named)


def test_shipped_bytecode_is_used(prefix: Path) -> None:
    messages = run(prefix, "-v", "-c", "import json.decoder")

    assert f"code object from '{prefix}/lib/python{SHORT}/json/decoder.py'" not in messages
    assert "matches" in messages
    assert "wrote" not in messages


def test_text_files_name_the_target_prefix(prefix: Path) -> None:
    [data] = prefix.glob(f"lib/python{SHORT}/_sysconfigdata*.py")

    assert f"{PREFIX}/lib" in data.read_text()
    assert sys.base_prefix not in data.read_text()
    assert (prefix / f"bin/pydoc{SHORT}").read_text().startswith(f"#!{PREFIX}/bin/python{SHORT}\n")
