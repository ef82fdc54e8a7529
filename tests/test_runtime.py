"""How the image runs: what becomes of settings, activation and tasks in its configuration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ociforge.build import build
from ociforge.errors import BaseImageError, BuildError, WorkspaceError
from ociforge.events import Warned
from ociforge.oci.image import ImageManifest
from ociforge.store import Store
from tests.support.bases import tiny_image
from tests.support.images import write_layout
from tests.support.tiny import Tiny, tiny_base, tiny_workspace
from tests.test_build import request_for

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.built import Built
    from ociforge.events import Event
    from ociforge.request import Request

ENTRYPOINT = "/app/entrypoint.sh"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"oci:{tiny_base(tmp_path_factory.mktemp('base') / 'layout')}"


def made(request: Request, store: Store) -> tuple[dict[str, object], list[Warned]]:
    """The configuration's `config` of an image, and the warnings of its build."""
    events: list[Event] = []
    built: Built = build(request, store=store, notify=events.append)
    manifest = ImageManifest.parse(built.documents[built.descriptor.digest])
    config = json.loads(built.documents[manifest.config.digest])
    return config["config"], [event for event in events if isinstance(event, Warned)]


def test_a_command_that_is_nowhere_is_told(tmp_path: Path, store: Store, layout: str) -> None:
    tiny = tiny_workspace(tmp_path / "ws")
    _, warnings = made(request_for(tiny, store, layout, cmd=["gunicorn", "x"]), store)
    told = "the command `gunicorn` is neither in the environment `default` nor in the base image"
    assert told in [warning.message for warning in warnings]


@pytest.mark.parametrize("command", ["tool", "bin/sh", "./run.sh", "/app/run.sh", "/app/.pixi/envs/default/bin/tool"])
def test_a_command_that_is_there_is_not(tmp_path: Path, store: Store, layout: str, command: str) -> None:
    tiny = tiny_workspace(tmp_path / "ws")
    command = f"/{command}" if command == "bin/sh" else command
    _, warnings = made(request_for(tiny, store, layout, cmd=[command]), store)
    assert not [warning.message for warning in warnings if warning.message.startswith("the command")]


def test_an_entrypoint_may_call_the_generated_one(tmp_path: Path, store: Store, layout: str) -> None:
    tiny = tiny_workspace(tmp_path / "ws")
    config, warnings = made(request_for(tiny, store, layout, entrypoint=["tini", "--", ENTRYPOINT]), store)
    assert config["Entrypoint"] == ["tini", "--", ENTRYPOINT]
    assert not [warning for warning in warnings if "entrypoint" in warning.message]


def test_an_entrypoint_that_leaves_activation_out_is_told(tmp_path: Path, store: Store, layout: str) -> None:
    tiny = tiny_workspace(tmp_path / "ws")
    config, warnings = made(request_for(tiny, store, layout, entrypoint=["tool"]), store)
    assert config["Entrypoint"] == ["tool"]
    (warning,) = [w for w in warnings if "entrypoint" in w.message]
    assert warning.message.startswith(
        "the image's own `entrypoint` leaves out what activation needs a shell for: `/app/"
    )
    assert warning.hint == f"let it run `{ENTRYPOINT}` followed by its command"


def test_activation_that_needs_a_shell_needs_one(tmp_path: Path, store: Store) -> None:
    tiny = tiny_workspace(tmp_path / "ws")
    with pytest.raises(BuildError, match="neither the base image nor the environment has a shell") as caught:
        build(request_for(tiny, store, None), store=store)
    assert caught.value.hint is not None and "`bash`" in caught.value.hint


def test_dollars_are_told(tmp_path: Path, store: Store, layout: str) -> None:
    tiny = tiny_workspace(tmp_path / "ws")
    config, warnings = made(request_for(tiny, store, layout, env={"PATH": "/x:$PATH"}), store)
    assert "PATH=/x:$PATH" in str(config["Env"])
    assert any(warning.message.startswith("`env.PATH`") for warning in warnings)


def workspace_with(tmp_path: Path, text: str, **changes: str) -> Tiny:
    tiny = tiny_workspace(tmp_path / "ws")
    manifest = tiny.manifest.read_text()
    for before, after in changes.items():
        assert before in manifest
        manifest = manifest.replace(before, after)
    tiny.manifest.write_text(manifest + text)
    return tiny


def test_a_task_is_the_command(tmp_path: Path, store: Store, layout: str) -> None:
    tasks = '\n[tasks]\nstart = { cmd = "tool --port 8000", cwd = "pkg", env = { MODE = "fast" } }\n'
    tiny = workspace_with(tmp_path, tasks)
    config, _ = made(request_for(tiny, store, layout, cmd={"task": "start"}), store)
    assert config["Cmd"] == ["tool", "--port", "8000"]
    assert config["WorkingDir"] == "/app/pkg"
    assert "MODE=fast" in str(config["Env"])


def test_an_unknown_task_is_refused(tmp_path: Path, store: Store, layout: str) -> None:
    tiny = workspace_with(tmp_path, '\n[tasks]\nstart = "tool"\n')
    with pytest.raises(WorkspaceError, match="strat"):
        build(request_for(tiny, store, layout, cmd={"task": "strat"}), store=store)


def test_cuda_gets_what_nvidias_runtime_looks_for(tmp_path: Path, store: Store, layout: str) -> None:
    tiny = workspace_with(tmp_path, "")
    text = tiny.manifest.read_text()
    tiny.manifest.write_text(text + '\n[system-requirements]\ncuda = "12.4"\n')
    config, _ = made(request_for(tiny, store, layout), store)
    found = {entry for entry in config["Env"] if entry.startswith("NVIDIA_")}  # type: ignore[attr-defined]
    assert found == {
        "NVIDIA_VISIBLE_DEVICES=all",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        "NVIDIA_REQUIRE_CUDA=cuda>=12.4",
    }


def test_a_base_with_an_older_libc_is_refused(tmp_path: Path, store: Store) -> None:
    old = tmp_path / "old"
    write_layout(tiny_image(extra={"usr/lib/ld-musl-x86_64.so.1": b"\x7fELF"}), old)
    tiny = tiny_workspace(tmp_path / "ws")
    with pytest.raises(BaseImageError, match="musl"):
        build(request_for(tiny, store, f"oci:{old}"), store=store)
