from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
import rattler
import yaml
from msgspec.structs import replace

from ociforge.errors import LockError
from ociforge.workspace.lockfile import PypiRow, read, select
from ociforge.workspace.lockwriter import CondaRow, Contents, SolvedEnvironment, lock_text, write_lock
from ociforge.workspace.platforms import VirtualPackage, WorkspacePlatform, merge_virtual_packages
from tests.support.channel import Channel, serve, write_channel
from tests.support.conda import CondaPackage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rattler import RepoDataRecord

LINUX = WorkspacePlatform.of_subdir("linux-64")
ARM = WorkspacePlatform.of_subdir("linux-aarch64")
CUDA = WorkspacePlatform(
    name="gpu",
    subdir="linux-64",
    virtual_packages=merge_virtual_packages("linux-64", [VirtualPackage(name="__cuda", version="12.4")]),
)
PACKAGES = [
    CondaPackage(name="libc", version="1.0", run_exports={"weak": ("libc",)}),
    CondaPackage(name="python", version="3.12.1", build="h1_0_cpython", depends=("libc >=1",), constrains=("old <3",)),
    CondaPackage(name="pure", version="2.0", build="pyhd_3", build_number=3, noarch="python", depends=("python >=3",)),
    CondaPackage(
        name="rich",
        version="1!1.0_5",
        build="abc",
        build_number=7,
        noarch="generic",
        purls=("pkg:pypi/rich",),
        index_extra={
            "track_features": "one two",
            "extra_depends": {"fast": ["libc"]},
            "flags": ["cuda"],
            "license_family": "BSD",
            "features": "mkl",
        },
    ),
    CondaPackage(name="plain", version="1.10", license=None, timestamp=None),
]
WHEEL = PypiRow(
    name="wheel",
    version="1.10",
    location="https://files.pythonhosted.org/packages/wheel-1.10-py3-none-any.whl",
    sha256="ab" * 32,
    requires_dist=("lib>=1", 'fast; extra == "speed"'),
    requires_python=">=3.8,<4",
)
OTHER = PypiRow(
    name="other",
    version="1.0",
    location="https://example.com/o-1.0.whl",
    sha256="cd" * 32,
    index="https://example.com/s",
)
TREE = PypiRow(name="tree", version=None, location="./")


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return write_channel(tmp_path / "channel", PACKAGES)


@pytest.fixture
def served(channel: Channel) -> Iterator[Channel]:
    with serve(channel.path) as server:
        yield channel.at(server.url)


def records(channel: Channel) -> list[RepoDataRecord]:
    gateway = rattler.Gateway(cache_dir=channel.path / "cache")
    found = asyncio.run(
        gateway.query(
            [rattler.Channel(channel.url)], ["linux-64", "noarch"], [p.name for p in PACKAGES], recursive=False
        )
    )
    return [record for group in found for record in group]


def environment(
    *rows: Any, name: str = "default", platform: WorkspacePlatform = LINUX, **more: Any
) -> SolvedEnvironment:
    conda = tuple(row for row in rows if isinstance(row, CondaRow))
    pypi = tuple(row for row in rows if isinstance(row, PypiRow))
    return SolvedEnvironment(
        name=name, channels=("https://example.com/c/",), packages={platform: Contents(conda=conda, pypi=pypi)}, **more
    )


def test_conda_locks_are_those_of_rattler(served: Channel, tmp_path: Path) -> None:
    found = records(served)
    platform = rattler.LockPlatform("linux-64")
    theirs = rattler.LockFile([platform])
    theirs.set_channels("default", [rattler.LockChannel("https://example.com/c/")])
    for record in found:
        theirs.add_conda_package("default", platform, record)
    theirs.to_path(tmp_path / "theirs.lock")
    ours = lock_text([environment(*(CondaRow(record=record) for record in found))])
    assert ours == (tmp_path / "theirs.lock").read_text()


def test_what_is_written_is_read_back(served: Channel, tmp_path: Path) -> None:
    found = {record.name.normalized: record for record in records(served)}
    rows = [CondaRow(record=record, purls=("pkg:pypi/x",) if name == "pure" else ()) for name, record in found.items()]
    write_lock(
        tmp_path / "pixi.lock",
        lock_text(
            [environment(*rows, WHEEL, OTHER, TREE, indexes=("https://pypi.org/simple", "https://example.com/s"))]
        ),
    )
    selection = select(read(tmp_path / "pixi.lock"), "default", LINUX)
    for back in selection.records:
        sent = found[back.name.normalized]
        for key in ("version", "build", "build_number", "subdir", "sha256", "md5", "size", "url", "file_name"):
            assert getattr(back, key) == getattr(sent, key), key
        for key in ("depends", "constrains", "extra_depends", "track_features", "features", "flags", "license"):
            assert getattr(back, key) == getattr(sent, key), key
        assert back.noarch == sent.noarch and back.timestamp == sent.timestamp
    spelled = replace(WHEEL, requires_dist=("lib>=1", "fast ; extra == 'speed'"), requires_python=">=3.8, <4")
    assert {row.name: row for row in selection.pypi} == {"wheel": spelled, "other": OTHER, "tree": TREE}


def test_purls_stand_where_rattler_has_them(served: Channel) -> None:
    purls = {"pure": ("pkg:pypi/two", "pkg:pypi/one"), "rich": (), "plain": ()}
    rows = [CondaRow(record=r, purls=purls.get(r.name.normalized)) for r in records(served)]
    document = yaml.safe_load(lock_text([environment(*rows)]))
    written = {row["conda"].rpartition("/")[2].partition("-")[0]: row for row in document["packages"]}
    assert written["pure"]["purls"] == ["pkg:pypi/one", "pkg:pypi/two"]
    assert written["rich"]["purls"] == [] and written["plain"]["purls"] == []
    assert "purls" not in written["libc"]
    assert list(written["pure"])[-3:] == ["purls", "size", "timestamp"]


def test_environments_options_and_platforms(tmp_path: Path) -> None:
    text = lock_text(
        [
            environment(name="second", platform=CUDA, strategy="lowest-direct", channel_priority="disabled"),
            environment(
                TREE,
                indexes=("https://user:pw@pypi.org/simple", "https://example.com/s"),
                find_links=(("path", "./wheels"), ("url", "https://u:p@example.com/links")),
                prerelease_mode="allow",
            ),
            SolvedEnvironment(name="third", channels=()),
        ]
    )
    assert text == (
        "version: 7\n"
        "platforms:\n"
        "- name: gpu\n"
        "  subdir: linux-64\n"
        "  virtual-packages:\n"
        "  - __cuda=12.4\n"
        "- name: linux-64\n"
        "environments:\n"
        "  default:\n"
        "    channels:\n"
        "    - url: https://example.com/c/\n"
        "    indexes:\n"
        "    - https://pypi.org/simple\n"
        "    - https://example.com/s\n"
        "    find-links:\n"
        "    - path: ./wheels\n"
        "    - url: https://example.com/links\n"
        "    options:\n"
        "      pypi-prerelease-mode: allow\n"
        "    packages:\n"
        "      linux-64:\n"
        "      - pypi: ./\n"
        "  second:\n"
        "    channels:\n"
        "    - url: https://example.com/c/\n"
        "    options:\n"
        "      strategy: lowest-version-direct\n"
        "      channel-priority: disabled\n"
        "    packages:\n"
        "      gpu: []\n"
        "  third:\n"
        "    channels: []\n"
        "    packages: {}\n"
        "packages:\n"
        "- pypi: ./\n"
        "  name: tree\n"
    )
    write_lock(tmp_path / "pixi.lock", text)
    back = read(tmp_path / "pixi.lock")
    assert list(back.environments) == ["default", "second", "third"]
    assert back.environment("default").find_links == ("./wheels", "https://example.com/links")
    found = back.environment("second")
    assert (found.strategy, found.channel_priority) == ("lowest-version-direct", "disabled")
    row = found.find(CUDA)
    assert row is not None and (row.name, row.subdir) == ("gpu", "linux-64")


def test_pypi_rows(served: Channel) -> None:
    text = lock_text([environment(WHEEL, OTHER, indexes=("https://pypi.org/simple",))])
    assert text.endswith(
        "packages:\n"
        "- pypi: https://example.com/o-1.0.whl\n"
        "  name: other\n"
        "  version: '1.0'\n"
        "  index: https://example.com/s\n"
        f"  sha256: {'cd' * 32}\n"
        "- pypi: https://files.pythonhosted.org/packages/wheel-1.10-py3-none-any.whl\n"
        "  name: wheel\n"
        "  version: '1.10'\n"
        f"  sha256: {'ab' * 32}\n"
        "  requires_dist:\n"
        "  - lib>=1\n"
        "  - fast ; extra == 'speed'\n"
        "  requires_python: '>=3.8, <4'\n"
    )


def test_the_order_of_what_is_given_does_not_matter(served: Channel) -> None:
    rows: list[Any] = [*(CondaRow(record=record) for record in records(served)), WHEEL, OTHER, TREE]
    environments = [environment(*rows, name="b"), environment(*rows[2:], name="a", platform=ARM)]
    texts = set()
    for seed, flipped in itertools.product(range(3), (False, True)):
        random.Random(seed).shuffle(rows)
        mixed = [
            environment(*rows, name="b"),
            environment(*environments[1].packages[ARM].conda, WHEEL, OTHER, TREE, name="a", platform=ARM),
        ]
        texts.add(lock_text(reversed(mixed) if flipped else mixed))
    assert len(texts) == 1


def test_places_named_relatively_stay_relative(channel: Channel, tmp_path: Path) -> None:
    found = records(channel)
    root = tmp_path / "workspace"
    root.mkdir()
    local = SolvedEnvironment(
        name="default",
        channels=(channel.url,),
        packages={LINUX: Contents(conda=tuple(CondaRow(record=record) for record in found))},
    )
    text = lock_text([local], places={channel.url: "../channel/"})
    assert str(tmp_path) not in text
    write_lock(root / "pixi.lock", text)
    selection = select(read(root / "pixi.lock"), "default", LINUX)
    assert selection.channels == ("../channel/",)
    assert sorted(unquote(r.url) for r in selection.records) == sorted(unquote(r.url) for r in found)
    archive = channel.url_of(channel.named("plain")[0])
    text = lock_text([local], places={archive: "./vendor/plain.conda"})
    assert "- conda: ./vendor/plain.conda\n" in text
    assert f"- conda: {channel.path}/linux-64/libc-1.0-0.conda\n" in text


def test_what_stands_for_two_things_is_refused() -> None:
    twin = WorkspacePlatform(name="gpu", subdir="linux-64", virtual_packages=())
    with pytest.raises(LockError, match="the platform `gpu` means two things in different environments"):
        lock_text([environment(platform=CUDA), environment(name="b", platform=twin)])
    changed = PypiRow(name="wheel", version="1.10", location=WHEEL.location)
    with pytest.raises(LockError, match="the PyPI package `wheel` was read twice, and differently"):
        lock_text([environment(WHEEL), environment(changed, name="b")])


def test_the_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "pixi.lock"
    path.write_text("old")
    before = path.stat().st_ino
    write_lock(path, "new\n")
    assert path.read_text() == "new\n" and path.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(LockError, match=r"cannot write .*: No such file or directory"):
        write_lock(tmp_path / "missing" / "pixi.lock", "")
