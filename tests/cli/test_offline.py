"""`ociforge fetch`, `--offline` and mirrors: what builds need, ahead of time, from elsewhere, or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from ociforge.pins import FILE_NAME, Pins, Use
from ociforge.platform import Platform
from tests.cli.program import Forge, environment
from tests.pypi.projects import project, sdist
from tests.support.bases import tiny_image
from tests.support.channel import Served, serve
from tests.support.images import write_layout
from tests.support.lock import LockedEnvironment, LockedPypi, conda_rows, write_lock
from tests.support.registry import Registry, push_layout, running_registry
from tests.support.tiny import SETTINGS, Tiny, tiny_packages, tiny_workspace
from tests.support.tools import need
from tests.support.wheelbuilder import Wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.lock import Locked

_AMD, _ARM = (Platform.parse(f"linux/{name}") for name in ("amd64", "arm64"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Far:
    """The tiny workspace and a wheel, all of it behind servers: `site` has `conda/` and `wheels/`."""

    tiny: Tiny
    site: Path
    server: Served
    registry: Registry
    base: str
    digest: str

    def copy(self, root: Path, *, pinned: bool = True) -> Path:
        """The workspace in another directory; its base image is pinned for both platforms."""
        self.tiny.copy(root)
        if pinned:
            digest = Digest.parse(self.digest)
            Pins(digests={Use.of(self.base, p): digest for p in (_AMD, _ARM)}).write(root / "ociforge.lock")
        return root

    def asked(self) -> list[str]:
        """The files that were asked for, apart from the pages of indexes."""
        return self.server.requests + [f"registry {line}" for line in self.registry.requests()]


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    directory = tmp_path_factory.mktemp("far")
    site = directory / "site"
    wheel = Wheel(name="demo", files={"demo/__init__.py": b"x = 1\n"}).write(site / "wheels")
    write_layout(tiny_image(), directory / "base")
    with serve(site) as server, running_registry(directory / "registry") as registry:
        digest = push_layout(directory / "base", registry, "base/tiny", "1")
        base = f"docker://{registry.host}/base/tiny:1"
        row = LockedPypi(
            name="demo",
            version="1.0",
            location=f"{server.url}wheels/{wheel.name}",
            sha256=Digest.of(wheel.read_bytes()).hex,
        )
        tiny = tiny_workspace(
            directory / "workspace",
            channel=site / "conda",
            packages=[*tiny_packages(), *tiny_packages("linux-aarch64")[:4]],
            settings=f'{SETTINGS}base = "{base}"\n',
            platforms=("linux-64", "linux-aarch64"),
        )
        channel = tiny.channel.at(f"{server.url}conda/")
        text = tiny.manifest.read_text("utf-8").replace(tiny.channel.url, channel.url)
        tiny.manifest.write_text(text.replace("[tool", '[pypi-dependencies]\ndemo = "*"\n\n[tool'), "utf-8")
        rows: dict[str, tuple[Locked, ...]]
        rows = {name: (*conda_rows(channel, platform=name), row) for name in ("linux-64", "linux-aarch64")}
        locked = LockedEnvironment(channels=(channel.url,), packages=rows, indexes=("https://pypi.org/simple",))
        write_lock(tiny.lock, {"default": locked})
        yield Far(tiny=tiny, site=site, server=server, registry=registry, base=base, digest=digest)


@pytest.fixture
def root(far: Far, tmp_path: Path) -> Path:
    return far.copy(tmp_path / "workspace")


@pytest.fixture(scope="module")
def direct(far: Far, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the image that a connected build makes."""
    home = tmp_path_factory.mktemp("direct")
    return _run("build", far.copy(home / "workspace"), home=home)


def two_platforms(root: Path) -> Path:
    """Put a layout for two platforms beside the workspace, as its pinned base."""
    base = root.with_name("two")
    digest = Digest.parse(write_layout([tiny_image(), tiny_image(architecture="arm64")], base))
    manifest = root / "pixi.toml"
    manifest.write_text(re.sub(r"(?m)^base = .*", 'base = "oci:../two"', manifest.read_text("utf-8")), "utf-8")
    platforms = (Platform(architecture="amd64"), Platform(architecture="arm64"))
    Pins(digests={Use.of("oci:../two", platform): digest for platform in platforms}).write(root / FILE_NAME)
    return base


def _run(*arguments: str | Path, home: Path, prefix: tuple[str, ...] = (), **variables: str) -> str:
    """stdout of ociforge in a process of its own."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "ociforge", *map(str, arguments)],
        env=environment(home, **variables),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class TestFetch:
    def test_what_builds_need_is_brought_once(self, forge: Forge, far: Far, root: Path) -> None:
        first = forge("fetch", root)
        assert first.code == 0, first.err
        lines = first.out.splitlines()
        assert [re.sub(r" \(.*?\)", "", line) for line in lines] == [
            "6 conda archives: 6 fetched",
            "1 wheel: 1 fetched",
            "1 base image: 1 fetched",
        ]
        before = far.asked()
        again = json.loads(forge("fetch", root, "--json").out)
        assert again["fetched"] == {"count": 0, "size": 0}
        assert sorted({supply["kind"] for supply in again["supplies"]}) == ["base", "conda", "wheel"]
        assert {s["name"] for s in again["supplies"] if s["kind"] == "base"} == {far.base}
        assert far.asked() == before

    def test_the_build_needs_no_server_then(
        self, forge: Forge, far: Far, root: Path, direct: str, tmp_path: Path
    ) -> None:
        assert forge("fetch", root).code == 0
        before = far.asked()
        done = forge("build", root, "--offline", "-o", f"oci:{tmp_path}/layout")
        assert done.out.strip().endswith(f"@{direct}"), done.err
        planned = forge("plan", root, "--offline", "--json")
        assert json.loads(planned.out)["images"][0]["digest"] == direct
        assert far.asked() == before

    def test_chosen_platforms_and_bases(self, forge: Forge, far: Far, root: Path) -> None:
        """A base image is there for one platform: of `all`, the other one is left out."""
        done = forge("fetch", root, "--platform", "all", "--base", far.base)
        assert done.code == 0, done.err
        assert "warning: `linux/arm64` is left out: " in done.err
        assert "6 conda archives" in done.out
        assert (
            "is for `linux/amd64`, not for `linux/arm64`" in forge("fetch", root, "--platform", "linux/arm64").message
        )

    def test_it_needs_a_network(self, forge: Forge, root: Path) -> None:
        done = forge("fetch", root, variables={"OCIFORGE_OFFLINE": "1"})
        assert (done.code, done.message) == (2, "OCIFORGE_OFFLINE: this needs a network")


class TestOffline:
    def missing(self, far: Far, *subdirs: str) -> list[str]:
        """A line for each package that is locked for these."""
        names = {a.filename for a in far.tiny.channel.archives if a.subdir in ("noarch", *subdirs)}
        wheel = "`demo-1.0-py3-none-any.whl` is not in the store"
        return sorted([*(f"the conda archive `{name}` is not in the store" for name in names), wheel])

    def test_everything_that_is_missing_is_told(self, forge: Forge, far: Far, root: Path) -> None:
        before = far.asked()
        done = forge("build", root, "--offline")
        head, *lines = done.message.splitlines()
        assert head == f"the base image `{far.base}` for `linux/amd64` is not in the store"
        assert sorted(lines) == self.missing(far, "linux-64")
        assert done.hint == f"fetch it where there is a network: `ociforge fetch {root}`"
        assert far.asked() == before

    def test_it_is_told_of_all_platforms_at_once(self, forge: Forge, far: Far, root: Path) -> None:
        done = forge("plan", root, "--offline", "--platform", "all")
        bases = [f"the base image `{far.base}` for `linux/{name}` is not in the store" for name in ("amd64", "arm64")]
        lines = done.message.splitlines()
        assert lines[:2] == bases
        assert sorted(set(lines[2:])) == self.missing(far, "linux-64", "linux-aarch64")
        assert done.hint == f"fetch it where there is a network: `ociforge fetch {root} --platform all`"

    def test_only_what_is_missing_is_told(self, forge: Forge, far: Far, root: Path, tmp_path: Path) -> None:
        assert forge("fetch", root).code == 0
        shutil.rmtree(forge.cache / "archives" / "pypi")
        done = forge("build", root, "--offline")
        assert done.message == "`demo-1.0-py3-none-any.whl` is not in the store"
        assert forge("fetch", root).code == 0
        blobs = forge.cache / "blobs" / "sha256"
        for layer in json.loads((blobs / Digest.parse(far.digest).hex).read_bytes())["layers"]:
            (blobs / Digest.parse(layer["digest"]).hex).unlink()  # what their paths are is known
        assert forge("build", root, "--offline").code == 0
        done = forge("build", root, "--offline", "-o", f"oci:{tmp_path}/layout")
        assert done.message == f"the base image `{far.base}` for `linux/amd64` is not in the store"

    def test_a_base_image_must_be_pinned(self, forge: Forge, far: Far, tmp_path: Path) -> None:
        root = far.copy(tmp_path / "unpinned", pinned=False)
        assert forge("fetch", root).code == 0
        done = forge("build", root, "--offline")
        what = f"the base image `{far.base}` for `linux/amd64` is not pinned"
        assert done.message == f"{what}: without a network nobody can tell which one is meant"
        assert done.hint is not None and done.hint.startswith("run `ociforge lock --only bases`, then fetch it")

    def test_an_option_can_only_pin_by_digest(self, forge: Forge, far: Far, root: Path) -> None:
        assert forge("fetch", root).code == 0
        other = f"docker://{far.registry.host}/base/tiny:other"
        done = forge("build", root, "--offline", "--base", other)
        assert done.hint == (
            "name the base image by its digest, here and there: fetch it where there is a network:"
            f" `ociforge fetch {root} --base {other}@sha256:…`"
        )

    def test_what_a_bundle_lacks_is_in_a_new_one(self, forge: Forge, far: Far, root: Path, tmp_path: Path) -> None:
        """Of a lock before the wheel was added; `--quiet`, which leaves out the warning."""
        channel = far.tiny.channel.at(f"{far.server.url}conda/")
        older = LockedEnvironment(
            channels=(channel.url,), packages={"linux-64": conda_rows(channel, platform="linux-64")}
        )
        now = (root / "pixi.lock").read_bytes()
        write_lock(root / "pixi.lock", {"default": older})
        assert forge("bundle", "create", root, "--frozen", "-o", tmp_path / "a.bundle").code == 0
        (root / "pixi.lock").write_bytes(now)
        done = replace(forge, cache=tmp_path / "there")("build", root, "--bundle", tmp_path / "a.bundle", "-q")
        assert done.message == "`demo-1.0-py3-none-any.whl` is not in the store"
        assert done.hint == (
            "the bundle was made for another `pixi.lock`: make one where there is a network:"
            f" `ociforge bundle create {root} --since a.bundle -o new-a.bundle`"
        )

    def test_a_bundle_has_what_the_settings_name(self, forge: Forge, far: Far, root: Path, tmp_path: Path) -> None:
        assert forge("bundle", "create", root, "-o", tmp_path / "a.bundle").code == 0
        options = ("--platform", "linux/arm64", "--base", "scratch", "--bundle", tmp_path / "a.bundle")
        done = replace(forge, cache=tmp_path / "there")("build", root, *options)
        assert "the conda archive `tool-2.1-h1_3.tar.bz2` is not in the store" in done.message.splitlines()
        assert done.hint == (
            "the bundle is for `linux/amd64` alone: make one where there is a network:"
            f" `ociforge bundle create {root} --platform linux/arm64 --since a.bundle -o new-a.bundle`;"
            " it has the base images that the settings name, and no others"
        )

    def test_what_platforms_a_bundle_has_is_told(self, forge: Forge, far: Far, root: Path, tmp_path: Path) -> None:
        """And everything else that is missing, where the base image is a layout that is not there."""
        base = two_platforms(root)
        assert forge("bundle", "create", root, "-o", tmp_path / "a.bundle").code == 0
        base.rename(tmp_path / "hidden")
        options = ("--platform", "all", "--bundle", tmp_path / "a.bundle")
        done = replace(forge, cache=tmp_path / "there")("build", root, *options)
        what = (
            "the base image `oci:../two` for `linux/arm64` is not where its name says, and the store has not all of it"
        )
        assert what in done.message.splitlines()
        assert "the conda archive `tool-2.1-h1_3.tar.bz2` is not in the store" in done.message.splitlines()
        assert done.hint == (
            "the bundle is for `linux/amd64` alone: make one where there is a network:"
            f" `ociforge bundle create {root} --platform all --since a.bundle -o new-a.bundle`"
        )

    def test_a_layout_that_is_gone_is_not_fetched(self, forge: Forge, root: Path, tmp_path: Path) -> None:
        base = two_platforms(root)
        assert forge("fetch", root).code == 0
        base.rename(tmp_path / "hidden")
        done = forge("build", root, "--offline", "-o", f"oci:{tmp_path}/layout")
        assert done.message == (
            "the base image `oci:../two` for `linux/amd64` is not where its name says, and the store has not all of it"
        )
        assert done.hint == (
            "put it back there, or bring it by a bundle: `ociforge bundle create` where it is,"
            " and `ociforge bundle import` here"
        )

    def test_a_bundle_of_what_is_in_the_store(self, forge: Forge, far: Far, root: Path, tmp_path: Path) -> None:
        done = forge("bundle", "create", root, "-o", tmp_path / "a.bundle", "--offline")
        assert done.message == f"the base image `{far.base}` for `linux/amd64` is not in the store"
        assert forge("fetch", root).code == 0
        before = far.asked()
        for name, options in {"a": ("--offline",), "b": ()}.items():
            variables = {} if options else {"OCIFORGE_OFFLINE": "1"}
            done = forge("bundle", "create", root, "-o", tmp_path / name, *options, variables=variables)
            assert done.code == 0, done.err
        assert far.asked() == before
        assert forge("bundle", "create", root, "-o", tmp_path / "c").code == 0
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
        shutil.rmtree(forge.cache / "archives")
        done = forge("bundle", "create", root, "-o", tmp_path / "d", "--offline")
        assert "the conda archive `tool-2.1-h1_3.tar.bz2` is not in the store" in done.message.splitlines()

    def test_known_layers_need_no_archives(self, forge: Forge, far: Far, root: Path, direct: str) -> None:
        assert forge("build", root).code == 0
        shutil.rmtree(forge.cache / "archives")
        (root / "main.py").write_text("changed\n", encoding="utf-8")
        done = forge("build", root, "--offline")
        assert done.code == 0, done.err
        assert done.out.strip() != direct

    def test_a_damaged_archive_is_missing(self, forge: Forge, far: Far, root: Path) -> None:
        assert forge("fetch", root).code == 0
        digests = {a.record["sha256"] for a in far.tiny.channel.named("tool")}
        kept = {path.name.partition(".")[0]: path for path in (forge.cache / "archives" / "archives").iterdir()}
        (damaged,) = digests & kept.keys()
        kept[damaged].write_bytes(b"damaged")
        done = forge("build", root, "--offline")
        assert done.message == "the conda archive `tool-2.1-h1_3.tar.bz2` is not in the store"

    def test_registries_are_not_spoken_to(self, forge: Forge, far: Far, root: Path, tmp_path: Path) -> None:
        assert forge("fetch", root).code == 0
        before = far.asked()
        there = f"docker://{far.registry.host}/base/tiny:1"
        pushed = forge("build", root, "--offline", "--push", f"{far.registry.host}/x:1")
        assert (
            pushed.message
            == f"cannot write `docker://{far.registry.host}/x:1`: it is in a registry, and there is no network"
        )
        for verb in (("inspect", there), ("verify", there), ("push", there, f"oci:{tmp_path}/copy")):
            done = forge(*verb, "--offline")
            assert done.message == f"`{there}` is in a registry, and there is no network", verb
        assert forge("build", root, "--offline", "--reuse", there).code == 1
        assert far.asked() == before

    @pytest.mark.parametrize(("text", "code"), [("1", 1), ("yes", 1), ("0", 0), ("", 0), ("perhaps", 2)])
    def test_the_variable(self, forge: Forge, far: Far, text: str, code: int) -> None:
        done = forge("inspect", f"docker://{far.registry.host}/base/tiny:1", variables={"OCIFORGE_OFFLINE": text})
        assert done.code == code

    def test_locks_are_made_of_what_is_here(self, forge: Forge, tiny: Tiny, far: Far, tmp_path: Path) -> None:
        """A local channel is no network; the index of another one must be in the cache."""
        assert forge("lock", tiny.root, "--offline", "--only", "packages", "--upgrade").code == 0
        root = far.copy(tmp_path / "far")
        (root / "pixi.lock").unlink()
        before = far.asked()
        done = forge("build", root, "--offline")
        assert done.code == 1
        assert done.hint == "run `ociforge lock` where there is a network"
        assert forge("check", tiny.root, "--offline").code == 0
        assert far.asked() == before


class TestSources:
    """What has to be built is built by `fetch`; of the workspace's own packages it gets what their builds require."""

    @pytest.fixture
    def mixed(self, tmp_path: Path) -> Iterator[Tiny]:
        """A source distribution behind http, a commit that nobody can reach, and a tree whose build needs a wheel."""
        files = tmp_path / "files"
        Wheel(name="helper", files={"helper.py": b"X = 7\n"}).write(tmp_path / "helpers")
        packed = sdist(files, project(tmp_path / "packed", "packed", files={"packed.py": ""}), stem="packed-1.0")
        with serve(files) as server:
            sha256 = Digest.of(packed.read_bytes()).hex
            rows = (
                LockedPypi(name="packed", version="1.0", location=f"{server.url}{packed.name}", sha256=sha256),
                LockedPypi(name="local", version="1.0", location="./local"),
            )
            packages = [package for package in tiny_packages() if package.name in ("python", "words")]
            settings = f'{SETTINGS.replace("tool", "python")}base = "scratch"\n'
            tiny = tiny_workspace(tmp_path / "mixed", packages=packages, settings=settings, extra=rows)
            extra = "import helper\nreturn {'seen.py': f'x = {helper.X}'}"
            project(tiny.root / "local", "local", requires=("helper",), extra=extra, files={"local.py": ""})
            yield tiny

    def test_builds_need_no_index_then(self, forge: Forge, mixed: Tiny, tmp_path: Path) -> None:
        places = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "helpers"), "PIP_CONFIG_FILE": os.devnull}
        nowhere = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
        missing = forge("build", mixed.root, "--frozen", "--offline", variables=nowhere)
        assert missing.message == "`packed-1.0.tar.gz` is not in the store"
        first, second = (
            json.loads(forge("fetch", mixed.root, "--frozen", "--json", variables=places).out) for _ in range(2)
        )
        kinds = [(supply["kind"], supply["fetched"]) for supply in first["supplies"]]
        assert kinds == [("conda", False), ("conda", False), ("built", True), ("requirement", True)]
        assert second["fetched"]["count"] == 0
        offline = forge("build", mixed.root, "--frozen", "--offline", variables=nowhere)
        assert offline.code == 0, offline.err
        shutil.rmtree(forge.cache / "archives" / "pypi" / "requires")
        (mixed.root / "local" / "src" / "local.py").write_text("changed = 1\n")
        done = forge("build", mixed.root, "--frozen", "--offline", variables=places)
        first_line = done.message.splitlines()[0]
        assert first_line == f"building `local` in `{mixed.root}/local`: what its build requires is not in the store"

    def test_commits_are_told(self, forge: Forge, mixed: Tiny) -> None:
        text = mixed.lock.read_text("utf-8")
        commit = "0123456789" * 4
        mixed.lock.write_text(text.replace("./local", f"git+https://git.invalid/local#{commit}"), "utf-8")
        done = forge("build", mixed.root, "--frozen", "--offline")
        assert sorted(done.message.splitlines()) == [
            "`packed-1.0.tar.gz` is not in the store",
            f"the commit `{commit}` of `https://git.invalid/local` is not in the store",
        ]


class TestSockets:
    """Traced: what rattler's threads, uv, git and pip do shows, too."""

    @pytest.fixture
    def trace(self, tmp_path: Path) -> Path:
        return tmp_path / "trace"

    def run(self, trace: Path, home: Path, *arguments: str | Path) -> list[str]:
        """The calls of a run that have to do with a network."""
        strace = (need("strace"), "-f", "-qq", "-e", "trace=network", "-o", str(trace))
        _run(*arguments, home=home, prefix=strace)
        return [line for line in trace.read_text().splitlines() if re.search(r"AF_INET|AF_PACKET|AF_NETLINK", line)]

    def test_offline_none_is_opened(self, far: Far, root: Path, direct: str, trace: Path, tmp_path: Path) -> None:
        assert any("connect(" in line for line in self.run(trace, tmp_path, "fetch", root))
        output = f"oci:{tmp_path}/layout"
        assert self.run(trace, tmp_path, "build", root, "--offline", "-o", output, "--installer", "rattler") == []
        index = json.loads((tmp_path / "layout" / "index.json").read_text())
        assert index["manifests"][0]["digest"] == direct


class TestMirrors:
    def test_the_image_does_not_tell_where_bytes_came_from(
        self, forge: Forge, far: Far, root: Path, direct: str
    ) -> None:
        before = list(far.server.requests)
        with serve(far.site) as mirror:
            variables = {
                "OCIFORGE_CONDA_MIRRORS": f"{far.server.url}conda=file:///nothing,{far.server.url}conda={mirror.url}conda",
                "OCIFORGE_PYPI_MIRRORS": f"{far.server.url}wheels/={(far.site / 'wheels').as_uri()}",
            }
            done = forge("build", root, variables=variables)
            assert (done.code, done.out.strip()) == (0, direct), done.err
            assert "warning: the mirror `file:///nothing` does not have everything" in done.err
            assert any(line.startswith("GET /conda/") for line in mirror.requests)
        assert far.server.requests == before

    def test_they_can_be_settings(self, forge: Forge, far: Far, root: Path, direct: str) -> None:
        manifest = root / "pixi.toml"
        mirrors = f'\n[tool.ociforge.mirrors]\n"{far.server.url}" = ["{far.site.as_uri()}"]\n'
        manifest.write_text(manifest.read_text("utf-8") + mirrors, "utf-8")
        before = list(far.server.requests)
        done = forge("build", root)
        assert (done.code, done.out.strip()) == (0, direct), done.err
        assert far.server.requests == before

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("https://a.example", "expected a URL that begins with"),
            ("https://u:s3cret@a.example=https://b", "credentials belong into the mirror's URL"),
            ("ftp://a=https://b", "expected a URL that begins with"),
        ],
    )
    def test_wrong_ones_are_refused(self, forge: Forge, root: Path, text: str, why: str) -> None:
        done = forge("build", root, variables={"OCIFORGE_CONDA_MIRRORS": text})
        assert done.code == 2
        assert why in done.message
        assert "s3cret" not in done.err

    def test_wrong_settings_are_refused_together(self, forge: Forge, root: Path) -> None:
        manifest = root / "pixi.toml"
        text = '\n[tool.ociforge.mirrors]\n"conda" = ["https://b"]\n"https://a" = ["b", 1]\n'
        manifest.write_text(manifest.read_text("utf-8") + text, "utf-8")
        lines = forge("build", root).message.splitlines()
        assert len(lines) == 3
        assert all(line.startswith("`tool.ociforge.mirrors.") for line in lines)
