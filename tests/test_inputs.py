"""An image's key follows from all that the image follows from, and from nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from layers.compress import Codec
from layers.entry import Bytes, Directory, Entry, File, Hardlink, Symlink
from ociforge import base
from ociforge.inputs import content_key, image_key, is_settled
from ociforge.platform import Platform
from ociforge.request import Request
from ociforge.workspace import load
from ociforge.workspace.lockfile import PypiRow, read, select
from ociforge.workspace.settings import FileRules, TaskCommand
from tests.support.tiny import Tiny, tiny_packages, tiny_workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from layers.digest import Digest

AMD64 = Platform.parse("linux/amd64")
MAIN = File(path="app/main.py", size=1, content=Bytes(b"1"))
FILES: tuple[Entry, ...] = (MAIN, Symlink(path="app/link", target="main.py"))


def request_of(tiny: Tiny) -> Request:
    workspace = load(tiny.root)
    settings = workspace.settings.image(None)
    environment = workspace.environment(settings.environment, AMD64.subdir)
    return Request(
        workspace=workspace,
        settings=settings,
        environment=environment,
        selection=select(read(workspace.lock_path), settings.environment, environment.platform),
        platform=AMD64,
        base=base.scratch(AMD64),
        codec=Codec.parse("gzip"),
    )


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> Request:
    return request_of(tiny_workspace(tmp_path_factory.mktemp("tiny") / "workspace"))


def with_settings(**changes: Any) -> Callable[[Request], Request]:
    return lambda request: replace(request, settings=replace(request.settings, **changes))


def with_environment(**changes: Any) -> Callable[[Request], Request]:
    return lambda request: replace(request, environment=replace(request.environment, **changes))


def with_rows(*rows: PypiRow) -> Callable[[Request], Request]:
    return lambda request: replace(request, selection=replace(request.selection, pypi=rows))


def without_a_package(request: Request) -> Request:
    return replace(request, selection=replace(request.selection, records=request.selection.records[1:]))


WHEEL = PypiRow(name="w", version="1", location="https://files/w-1-py3-none-any.whl", sha256="0" * 64)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(with_settings(prefix="/opt/env"), id="prefix"),
        pytest.param(with_settings(workdir="/srv"), id="workdir"),
        pytest.param(with_settings(entrypoint=("x",)), id="entrypoint"),
        pytest.param(with_settings(cmd=("x",)), id="cmd"),
        pytest.param(with_settings(env={"A": "1"}), id="env"),
        pytest.param(with_settings(expose=("80/tcp",)), id="expose"),
        pytest.param(with_settings(user="1"), id="user"),
        pytest.param(with_settings(volumes=("/data",)), id="volumes"),
        pytest.param(with_settings(labels={"a": "b"}), id="labels"),
        pytest.param(with_settings(annotations={"a": "b"}), id="annotations"),
        pytest.param(with_settings(stop_signal="SIGINT"), id="stop-signal"),
        pytest.param(with_settings(layers=2), id="layers"),
        pytest.param(with_settings(strip=("docs",)), id="strip"),
        pytest.param(with_settings(bytecode="unchecked-hash"), id="bytecode"),
        pytest.param(with_settings(editable=True), id="editable"),
        pytest.param(with_environment(name="other"), id="name of the environment"),
        pytest.param(with_environment(workspace_name="other"), id="name of the workspace"),
        pytest.param(with_environment(workspace_version="9"), id="version of the workspace"),
        pytest.param(with_environment(activation_scripts=("a.sh",)), id="scripts"),
        pytest.param(with_environment(activation_env={"A": "1"}), id="variables"),
        pytest.param(without_a_package, id="packages"),
        pytest.param(with_rows(WHEEL), id="wheels"),
        pytest.param(lambda r: replace(r, codec=Codec.parse("gzip:9")), id="level"),
        pytest.param(lambda r: replace(r, epoch=0), id="epoch"),
        pytest.param(lambda r: replace(r, epoch=1, clamp=True), id="clamp"),
        pytest.param(lambda r: replace(r, platform=Platform.parse("linux/arm64")), id="platform"),
        pytest.param(lambda r: replace(r, base=replace(r.base, name="docker.io/x")), id="name of the base"),
        pytest.param(lambda r: replace(r, base=base.scratch(Platform.parse("linux/arm64"))), id="base"),
    ],
)
def test_what_decides_the_image_decides_the_key(request_: Request, change: Callable[[Request], Request]) -> None:
    before, after = image_key(request_, FILES), image_key(change(request_), FILES)
    assert before is not None and after is not None
    assert before != after


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(with_settings(name="image"), id="name"),
        pytest.param(with_settings(base="docker://other"), id="name of the base"),
        pytest.param(with_settings(compression="gzip:4"), id="name of the codec"),
        pytest.param(with_settings(files=FileRules(exclude=("x",))), id="file patterns"),
        pytest.param(with_environment(dependencies={}, channels=()), id="what was asked of the solver"),
        pytest.param(with_environment(tasks={}), id="tasks that are not run"),
        pytest.param(lambda r: replace(r, environ={"A": "1"}), id="this machine's variables"),
    ],
)
def test_what_does_not_decide_it_does_not(request_: Request, change: Callable[[Request], Request]) -> None:
    assert image_key(change(request_), FILES) == image_key(request_, FILES)


def test_the_workspace_may_lie_anywhere(request_: Request, tmp_path: Path) -> None:
    other = request_of(tiny_workspace(tmp_path / "elsewhere", channel=tmp_path / "mirror"))
    assert image_key(other, FILES) == image_key(request_, FILES)


def test_every_file_counts(request_: Request) -> None:
    changed: list[tuple[Entry, ...]] = [
        (replace(MAIN, content=Bytes(b"2")), FILES[1]),
        (replace(MAIN, mode=0o755), FILES[1]),
        (MAIN, Symlink(path="app/link", target="other")),
        (MAIN,),
    ]
    keys = {image_key(request_, files) for files in (FILES, *changed)}
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("row", "settled"),
    [
        (WHEEL, True),
        (PypiRow(name="w", version="1", location="direct+https://x/w-1-py3-none-any.whl#frag", sha256="0" * 64), True),
        (PypiRow(name="w", version="1", location="./w-1-py3-none-any.whl"), False),
        (PypiRow(name="w", version="1", location="https://files/w-1.tar.gz", sha256="0" * 64), False),
        (PypiRow(name="w", version=None, location="."), False),
        (PypiRow(name="w", version="1", location="git+https://x/y.whl#0123"), False),
    ],
)
def test_what_is_built_here_has_no_key(request_: Request, row: PypiRow, settled: bool) -> None:
    """What becomes of a source is up to its build backend."""
    assert is_settled(row) is settled
    assert (image_key(with_rows(row)(request_), FILES) is not None) is settled


def test_a_wheel_of_an_index_may_come_from_anywhere(request_: Request) -> None:
    """But one that is locked by its own URL: the image has that."""
    places = ["https://files/w-1-py3-none-any.whl", "file:///srv/links/w-1-py3-none-any.whl"]
    keys = [image_key(with_rows(replace(WHEEL, location=place))(request_), FILES) for place in places]
    direct = [image_key(with_rows(replace(WHEEL, location=f"direct+{place}"))(request_), FILES) for place in places]
    assert len({*keys}) == 1
    assert len({*keys, *direct}) == 3


def test_a_task_that_is_the_command_counts(tmp_path: Path) -> None:
    tiny = tiny_workspace(tmp_path / "workspace", packages=tiny_packages()[:1])
    keys: list[Digest | None] = []
    for command in ("tool a", "tool b"):
        other = tiny.copy(tmp_path / command.replace(" ", "-"))
        text = other.manifest.read_text().replace("[dependencies]", f'[tasks]\ngo = "{command}"\n\n[dependencies]')
        other.manifest.write_text(text)
        request = request_of(other)
        keys.append(image_key(with_settings(cmd=TaskCommand(task="go"))(request), FILES))
    assert keys[0] != keys[1]


def test_a_content_key_is_of_everything_a_layer_holds() -> None:
    file = File(path="a", size=1, content=Bytes(b"1"), mode=0o644, uid=0, gid=0, mtime=0)
    layers: list[list[Entry]] = [
        [file],
        [replace(file, path="b")],
        [replace(file, content=Bytes(b"2"))],
        [replace(file, mode=0o755)],
        [replace(file, uid=1)],
        [replace(file, gid=1)],
        [replace(file, mtime=1)],
        [replace(file, xattrs=(("security.capability", b"x"),))],
        [file, Hardlink(path="h", target="a")],
        [file, Symlink(path="h", target="a")],
        [file, Directory(path="h")],
        [file, Directory(path="h", mode=0o700)],
        [file, Directory(path="h", mtime=1)],
        [Directory(path="h"), file],
    ]
    keys = {content_key(entries, codec) for entries in layers for codec in ("gzip", "zstd")}
    assert len(keys) == 2 * len(layers)
    assert content_key(layers[0], "gzip") == content_key(list(layers[0]), "gzip")
