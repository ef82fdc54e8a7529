"""Whatever a manifest or a lock holds, the outcome is a value or a WorkspaceError, never another exception."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import tomli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ociforge.errors import WorkspaceError
from ociforge.workspace import lockfile
from ociforge.workspace.activation import PackageFacts, activate
from ociforge.workspace.environment import environment_platforms, resolve
from ociforge.workspace.manifest import read_manifest
from ociforge.workspace.satisfy import check
from ociforge.workspace.settings import read_settings
from tests.workspace.locks import Conda, Pypi, lock
from tests.workspace.making import HEAD

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 6, 1, tzinfo=UTC)
FULL = (
    HEAD
    + """
exclude-newer = "7d"
[dependencies]
python = ">=3.11"
x = { version = "*", channel = "c", when = { all = ["a", { any = ["b"] }] } }
[pypi-dependencies]
flask = { version = ">=2", extras = ["async"] }
app = { path = ".", editable = true }
[activation]
scripts = ["a.sh"]
env = { A = "$B", C = "d" }
[target.linux.dependencies]
y = "1.*"
[feature.f]
channels = ["x", { channel = "y", priority = 1 }]
platforms = ["linux-64"]
system-requirements = { cuda = "12" }
[environments]
e = { features = ["f"], solve-group = "g" }
[tool.ociforge]
prefix = "/opt/env"
expose = [80]
healthcheck = { cmd = ["true"], interval = "5s" }
[tool.ociforge.images.web]
environment = "e"
"""
)
LOCK = lock(
    {
        "default": {
            "linux-64": (
                Conda(name="python", version="3.12", depends=("__glibc >=2.17", 'z *[when="a and (b or c)"]')),
                Pypi(name="flask", version="2.0", requires=("click>=8; python_version>'3'",)),
            )
        },
        "e": {"linux-64": (Conda(name="python", version="3.12"),)},
    },
    blocks="indexes:\n- https://pypi.org/simple\noptions:\n  strategy: highest",
)

words = st.sampled_from(
    [
        "",
        "*",
        ">=1",
        "linux-64",
        "../x",
        "/",
        "$",
        "'",
        '"',
        "\x00",
        "é",
        "a" * 300,
        "7d",
        "9999999d",
        "1-1",
        "{",
        "[x]",
    ]
)
scalars: st.SearchStrategy[object] = st.one_of(
    words, st.integers(-(2**70), 2**70), st.booleans(), st.floats(allow_nan=False), st.just([])
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)


def survives(root: Path) -> None:
    with contextlib.suppress(WorkspaceError):
        go_through(root)


def go_through(root: Path) -> None:
    """Do everything that is done with a workspace."""
    manifest = read_manifest(root / "pixi.toml")
    image = read_settings(manifest).image()
    for declaration in manifest.environments.values():
        for platform in environment_platforms(manifest, declaration):
            found = resolve(manifest, declaration.name, platform.name)
            activate(found, PackageFacts(), prefix=image.prefix, workdir=image.workdir, base_path=None)
    check(manifest, lockfile.read(root / "pixi.lock"), now=NOW)


def paths(value: object, above: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [above] if above else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [path for key, inner in items for path in paths(inner, (*above, key))]


def toml(value: object) -> str:
    """A value as an inline TOML value."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08X}" for c in value) + '"'
        case dict():
            return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            return str(value)


def put(tree: object, path: tuple[str | int, ...], value: object) -> None:
    for part in path[:-1]:
        tree = tree[part]  # type: ignore[index]
    tree[path[-1]] = value  # type: ignore[index]


def test_the_seed_is_sound(tmp_path: Path) -> None:
    (tmp_path / "pixi.toml").write_text(FULL)
    (tmp_path / "pixi.lock").write_text(LOCK)
    go_through(tmp_path)


quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(path=st.sampled_from(paths(tomli.loads(FULL))), value=values)
@quick
def test_a_manifest_with_one_value_changed(tmp_path: Path, path: tuple[str | int, ...], value: object) -> None:
    tree = tomli.loads(FULL)
    put(tree, path, value)
    text = "".join(f"{toml(key)} = {toml(inner)}\n" for key, inner in tree.items())
    (tmp_path / "pixi.toml").write_text(text)
    (tmp_path / "pixi.lock").write_text(LOCK)
    survives(tmp_path)


@given(at=st.integers(0, len(LOCK) - 1), length=st.integers(0, 30), text=st.one_of(words, st.text(max_size=5)))
@quick
def test_a_lock_with_some_text_replaced(tmp_path: Path, at: int, length: int, text: str) -> None:
    (tmp_path / "pixi.toml").write_text(FULL)
    (tmp_path / "pixi.lock").write_bytes((LOCK[:at] + text + LOCK[at + length :]).encode("utf-8", "surrogatepass"))
    survives(tmp_path)


@given(raw=st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda b: b"version: 7\n" + b)))
@quick
def test_bytes(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "pixi.toml").write_bytes(raw)
    (tmp_path / "pixi.lock").write_bytes(raw)
    survives(tmp_path)
    with contextlib.suppress(WorkspaceError):
        lockfile.read(tmp_path / "pixi.lock")


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a." * 50_000 + "b = 1",
        "a = {" * 5_000,
        "a = " + "9" * 10_000,
        "a = 1" * 2,
        "a = 1979-13-45",
        "[workspace]\nname = " + "9" * 4_299,
    ],
)
def test_hostile_toml(tmp_path: Path, text: str) -> None:
    (tmp_path / "pixi.toml").write_text(text)
    with pytest.raises(WorkspaceError):
        read_manifest(tmp_path / "pixi.toml")


def test_a_condition_nested_too_deeply(tmp_path: Path) -> None:
    when = "{ all = [" * 100 + "'x'" + "] }" * 100
    (tmp_path / "pixi.toml").write_text(HEAD + f"[dependencies]\nx = {{ version = '*', when = {when} }}\n")
    with pytest.raises(WorkspaceError, match="nested too deeply"):
        read_manifest(tmp_path / "pixi.toml")
