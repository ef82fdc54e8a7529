"""`ociforge bundle`: from a workspace to a file, through registries, into a store, to an image without a network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from oras.client import OrasClient

from ociforge.bundle import open_bundle
from tests.bundle.making import named, rewrite
from tests.cli.moments import End, Job, running_jobs
from tests.cli.program import Forge, ociforge
from tests.pypi.projects import git, project, sdist
from tests.support.bases import tar_of
from tests.support.channel import serve
from tests.support.lock import LockedPypi
from tests.support.registry import running_registry
from tests.support.tiny import SETTINGS, Tiny, tiny_base, tiny_packages, tiny_workspace
from tests.support.tools import missing, need
from tests.support.wheelbuilder import Wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.support.registry import Registry

_STRIDE = {"create": 3, "import": 4}  # one of how many moments is tried


def alone() -> tuple[str, ...]:
    """A command's prefix that leaves it without any network, the loopback included."""
    program = need("unshare")
    if os.geteuid():
        missing("only root can make a network namespace")
    return program, "--net"


_PIP = {"PYTHONWARNINGS": "default"}  # pip's own warnings, which depend on its version, are none of ours


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("bundles") / "registry") as running:
        yield running


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A workspace of two packages whose base image is pinned; not to be changed."""
    root = tmp_path_factory.mktemp("pinned")
    tiny_base(root / "base")
    settings = f'{SETTINGS}base = "oci:../base"\n'
    tiny = tiny_workspace(root / "workspace", packages=tiny_packages()[:2], settings=settings)
    done = ociforge("lock", tiny.root, "--only", "bases", home=root)
    assert done.code == 0, done.err
    return tiny


@pytest.fixture(scope="module")
def file(pinned: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of it; not to be changed."""
    home = tmp_path_factory.mktemp("file")
    done = ociforge("bundle", "create", pinned.root, "-o", "a.bundle", home=home)
    assert done.code == 0, done.err
    return home / "a.bundle"


def digest_of(path: Path) -> str:
    """Of the bundle's manifest, as `index.json` has it."""
    done = subprocess.run([need("tar"), "-xOf", path, "index.json"], capture_output=True, check=True)
    return str(json.loads(done.stdout)["manifests"][0]["digest"])


# -- the verbs


def test_create(forge: Forge, pinned: Tiny, file: Path, tmp_path: Path) -> None:
    done = forge("bundle", "create", pinned.root, "-o", tmp_path / "b.bundle")
    assert (done.code, done.out) == (0, f"{tmp_path}/b.bundle@{digest_of(file)}\n"), done.err
    assert (tmp_path / "b.bundle").read_bytes() == file.read_bytes()


def test_create_says_what_is_in_it(forge: Forge, pinned: Tiny, file: Path, tmp_path: Path) -> None:
    done = forge("bundle", "create", pinned.root, "-o", tmp_path / "b.bundle", "--since", file, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["file"], said["digest"], said["since"]) == (f"{tmp_path}/b.bundle", digest_of(file), digest_of(file))
    assert said["images"] == [
        {"environment": "default", "platform": "linux/amd64", "locked": "linux-64", "base": "oci:../base"}
    ]
    assert {row["name"]: row["digest"] for row in said["files"]} == {n: str(d) for n, d in named(file).items()}
    written = [row for row in said["files"] if row["written"]]
    assert {row["role"] for row in written} == {"manifest", "lock", "pins", "base-document"}
    assert (said["count"], said["size"]) == (len(written), sum(row["size"] for row in written))


def test_verify(forge: Forge, file: Path, tmp_path: Path) -> None:
    done = forge("bundle", "verify", file, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["digest"] == digest_of(file)
    data = bytearray(file.read_bytes())
    position = data.rindex(b"BZh")  # a conda archive
    data[position + 50] ^= 1
    (tmp_path / "spoilt").write_bytes(data)
    done = forge("bundle", "verify", tmp_path / "spoilt")
    assert done.message.startswith(f"`{tmp_path}/spoilt`: the conda archive `conda/linux-64/")
    assert "is damaged: blob `sha256:" in done.message
    assert done.hint == "copy the bundle again, or make a new one with `ociforge bundle create`"


def test_verify_tells_only_of_what_it_read(forge: Forge, pinned: Tiny, file: Path, tmp_path: Path) -> None:
    done = forge("bundle", "create", pinned.root, "-o", tmp_path / "b.bundle", "--since", file)
    assert done.code == 0, done.err
    plain = forge("bundle", "verify", tmp_path / "b.bundle")
    said = json.loads(forge("bundle", "verify", tmp_path / "b.bundle", "--json").out)
    whole = json.loads(forge("bundle", "verify", file, "--json").out)
    assert whole["elsewhere"] == {"count": 0, "size": 0}
    left = said["elsewhere"]
    assert (said["count"] + left["count"], said["size"] + left["size"]) == (whole["count"], whole["size"])
    assert left["count"] > 0 < said["count"]
    first, second = plain.err.splitlines()
    assert first.startswith(f"{said['count']} files (")
    assert second.startswith(f"{left['count']} more were not looked at: they are in the bundle `{digest_of(file)}`")


def test_import(forge: Forge, file: Path) -> None:
    first = json.loads(forge("bundle", "import", file, "--json").out)
    again = json.loads(forge("bundle", "import", file, "--json").out)
    assert first["digest"] == again["digest"] == digest_of(file)
    assert (first["known"]["count"], again["imported"]["count"]) == (0, 0)
    assert first["imported"] == again["known"]


# -- to the image


def test_the_image_is_that_of_the_connected_build(pinned: Tiny, file: Path, tmp_path: Path) -> None:
    """From the bundle alone: neither channel nor base image are where the lock and the settings say."""
    connected = ociforge("build", pinned.root, "--locked", home=tmp_path)
    assert connected.code == 0, connected.err
    there = tmp_path / "there"
    pinned.copy(there / "workspace")
    hidden = (pinned.root.with_name("base"), pinned.channel.path)
    for path in hidden:
        path.rename(path.with_name(f"{path.name}-hidden"))
    try:
        done = ociforge(
            "build", "workspace", "--locked", "--bundle", file, "-o", "oci-archive:a.tar", home=there, prefix=alone()
        )
    finally:
        for path in hidden:
            path.with_name(f"{path.name}-hidden").rename(path)
    assert done.code == 0, done.err
    assert done.out == f"oci-archive:a.tar@{connected.out}"


@pytest.mark.parametrize("what", ["conda", "base-document", "base-layer"])
def test_what_the_store_has_damaged_comes_from_the_bundle(
    forge: Forge, pinned: Tiny, file: Path, tmp_path: Path, what: str
) -> None:
    """Of its size, so that only reading it tells."""
    connected = forge("build", pinned.root)
    there = Forge(cache=tmp_path / "there", capture=forge.capture, monkeypatch=forge.monkeypatch)
    assert there("bundle", "import", file).code == 0
    for item in open_bundle(file).manifest.with_role(what):
        [path] = there.cache.rglob(f"{item.digest.hex}*")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    hidden = (pinned.root.with_name("base"), pinned.channel.path)
    for path in hidden:
        path.rename(path.with_name(f"{path.name}-hidden"))
    try:
        done = there("build", pinned.root, "--locked", "--bundle", file)
    finally:
        for path in hidden:
            path.with_name(f"{path.name}-hidden").rename(path)
    assert (done.code, done.out) == (0, connected.out), done.err


def test_a_root_file_system_comes_from_the_bundle(forge: Forge, tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs.tar"
    rootfs.write_bytes(tar_of({"bin": 0o755, "bin/sh": b"not a program\n"}))
    settings = f'{SETTINGS}base = "rootfs:../rootfs.tar"\n'
    tiny = tiny_workspace(tmp_path / "workspace", packages=tiny_packages()[:2], settings=settings)
    assert forge("lock", tiny.root, "--only", "bases").code == 0
    connected = forge("build", tiny.root, "--locked")
    assert forge("bundle", "create", tiny.root, "-o", tmp_path / "a.bundle").code == 0
    rootfs.unlink()
    there = Forge(cache=tmp_path / "there", capture=forge.capture, monkeypatch=forge.monkeypatch)
    done = there("build", tiny.root, "--locked", "--bundle", tmp_path / "a.bundle")
    assert (done.code, done.out) == (0, connected.out), done.err


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """A workspace with everything that a lock can have of PyPI, and the digest of its image."""

    root: Path
    bundle: Path
    digest: str


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    """A wheel and a source distribution behind http, a commit, and a tree whose build requires a wheel.

    Server and repository are gone afterwards.
    """
    home = tmp_path_factory.mktemp("mixed")
    files, helpers = home / "files", home / "helpers"
    Wheel(name="helper", files={"helper.py": b"X = 7\n"}).write(helpers)
    wheel = Wheel(name="ready", files={"ready.py": b""}).write(files)
    source = sdist(files, project(home / "packed", "packed", files={"packed.py": "p = 1\n"}), stem="packed-1.0")
    repository = project(home / "repository", "committed", files={"committed.py": "c = 1\n"})
    git(repository, "init", "--quiet")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "all")
    commit = git(repository, "rev-parse", "HEAD").strip()
    with serve(files) as server:

        def row(path: Path, name: str) -> LockedPypi:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            return LockedPypi(name=name, version="1.0", location=f"{server.url}{path.name}", sha256=sha256)

        rows = (
            row(wheel, "ready"),
            row(source, "packed"),
            LockedPypi(name="committed", version="1.0", location=f"git+file://{repository}#{commit}"),
            LockedPypi(name="local", version="1.0", location="./local"),
        )
        settings = f'{SETTINGS}base = "scratch"\n'
        packages = [package for package in tiny_packages() if package.name != "hook"]  # which needs a shell
        tiny = tiny_workspace(home / "workspace", packages=packages, settings=settings, extra=rows)
        extra = "import helper\nreturn {'seen.py': f'x = {helper.X}'}"
        project(tiny.root / "local", "local", requires=("helper",), extra=extra, files={"local.py": ""})
        places = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(helpers), **_PIP}
        built = ociforge("build", tiny.root, "--frozen", home=home, variables=places)
        assert built.code == 0, built.err
        made = ociforge("bundle", "create", tiny.root, "--frozen", "-o", "mixed.bundle", home=home, variables=places)
        assert made.code == 0, made.err
    shutil.rmtree(repository)
    return Mixed(root=tiny.root, bundle=home / "mixed.bundle", digest=built.out.strip())


def test_everything_of_pypi_comes_from_the_bundle(mixed: Mixed, tmp_path: Path) -> None:
    done = ociforge(
        "build", mixed.root, "--frozen", "--bundle", mixed.bundle, home=tmp_path, prefix=alone(), variables=_PIP
    )
    assert (done.code, done.out.strip()) == (0, mixed.digest), done.err


def test_a_bundle_is_made_again_without_a_network(mixed: Mixed, tmp_path: Path) -> None:
    """Of what another one brought, the requirements of builds included."""
    assert ociforge("bundle", "import", mixed.bundle, home=tmp_path).code == 0
    done = ociforge(
        *("bundle", "create", mixed.root, "--frozen", "--offline", "-o", "again.bundle"),
        home=tmp_path,
        prefix=alone(),
        variables=_PIP,
    )
    assert done.code == 0, done.err
    assert (tmp_path / "again.bundle").read_bytes() == mixed.bundle.read_bytes()


def test_wheels_say_where_they_come_from(mixed: Mixed, forge: Forge) -> None:
    items = {item.name: item for item in open_bundle(mixed.bundle).manifest.items}
    wheels = {name: item for name, item in items.items() if name.endswith(".whl")}
    assert {name: item.role for name, item in wheels.items()} == {
        "wheels/ready-1.0-py3-none-any.whl": "wheel",
        "built/packed-1.0-py3-none-any.whl": "built",
        "built/committed-1.0-py3-none-any.whl": "built",
        "requirements/helper-1.0-py3-none-any.whl": "requirement",
    }
    packed, committed = (wheels[f"built/{name}-1.0-py3-none-any.whl"] for name in ("packed", "committed"))
    sha256 = hashlib.sha256((mixed.root.parent / "files" / "packed-1.0.tar.gz").read_bytes()).hexdigest()
    assert packed.origin.identity == f"sha256:{sha256}"
    assert packed.notes["dev.ociforge.bundle.source"].endswith("/packed-1.0.tar.gz")
    assert committed.origin.identity.startswith("file://")
    assert packed.notes["dev.ociforge.bundle.built-by"].startswith("CPython 3.")
    assert forge("bundle", "verify", mixed.bundle).code == 0


def test_another_lock_than_the_bundles_is_noticed(forge: Forge, pinned: Tiny, file: Path, tmp_path: Path) -> None:
    shutil.copytree(pinned.root, tmp_path / "workspace")
    shutil.copytree(pinned.root.with_name("base"), tmp_path / "base")
    lock = tmp_path / "workspace" / "pixi.lock"
    lock.write_text(f"{lock.read_text()}\n# changed\n")
    done = forge("build", tmp_path / "workspace", "--bundle", file)
    assert done.code == 0, done.err
    assert f"warning: `pixi.lock` is another one than that of the bundle `{file}`" in done.err


# -- through registries


def skopeo(home: Path, *arguments: str) -> None:
    command = [need("skopeo"), "--insecure-policy", *arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)}
    subprocess.run(command, env=environment, check=True, capture_output=True)


def test_by_skopeo(forge: Forge, file: Path, registry: Registry, tmp_path: Path) -> None:
    """Into a registry and out of it again: the digest stays, and both can be imported."""
    place = f"docker://{registry.host}/skopeo:1"
    skopeo(tmp_path, "copy", "--dest-tls-verify=false", f"oci-archive:{file}:bundle", place)
    skopeo(tmp_path, "copy", "--src-tls-verify=false", place, f"oci-archive:{tmp_path}/back:any")
    for source in (place, f"{tmp_path}/back"):
        done = forge("bundle", "verify", source)
        assert (done.code, done.out) == (0, f"{source}@{digest_of(file)}\n"), done.err
    assert json.loads(forge("bundle", "import", place, "--json").out)["known"]["count"] == 0
    assert json.loads(forge("bundle", "import", tmp_path / "back", "--json").out)["imported"]["count"] == 0


def test_by_ociforge(forge: Forge, file: Path, registry: Registry, tmp_path: Path) -> None:
    place = f"docker://{registry.host}/ours:1"
    for source, target in (
        (f"oci-archive:{file}:bundle", place),
        (place, f"oci-archive:{tmp_path}/back"),
        (place, f"oci:{tmp_path}/layout:1"),
    ):
        done = forge("push", source, target)
        assert (done.code, done.out.rpartition("@")[2].strip()) == (0, digest_of(file)), done.err
    for source in (place, f"{tmp_path}/back", f"oci:{tmp_path}/layout:1"):
        assert forge("bundle", "verify", source).code == 0
    listing = subprocess.run([need("tar"), "-tf", tmp_path / "back"], capture_output=True, text=True, check=True)
    assert "manifest.json" not in listing.stdout.splitlines()  # `docker load` would take it for an image


def test_what_a_registry_has_is_left_out(
    forge: Forge, pinned: Tiny, file: Path, registry: Registry, tmp_path: Path
) -> None:
    place = f"docker://{registry.host}/since:1"
    assert forge("push", f"oci-archive:{file}:bundle", place).code == 0
    done = forge("bundle", "create", pinned.root, "-o", tmp_path / "b.bundle", "--since", place)
    assert done.code == 0, done.err
    assert forge("bundle", "create", pinned.root, "-o", tmp_path / "c.bundle", "--since", file).code == 0
    assert (tmp_path / "b.bundle").read_bytes() == (tmp_path / "c.bundle").read_bytes()


def test_an_increment_is_pushed_behind_what_it_builds_upon(
    forge: Forge, pinned: Tiny, file: Path, registry: Registry, tmp_path: Path
) -> None:
    assert forge("bundle", "create", pinned.root, "-o", tmp_path / "b.bundle", "--since", file).code == 0
    push = ("push", f"oci-archive:{tmp_path}/b.bundle:bundle", f"docker://{registry.host}/behind:1")
    done = forge(*push)
    assert done.message.endswith(f": this is a bundle that builds upon `{digest_of(file)}`")
    assert done.hint == "push that one to the same repository first, or make a whole one, without `--since`"
    assert forge("push", f"oci-archive:{file}:bundle", f"docker://{registry.host}/behind:0").code == 0
    assert forge(*push).code == 0


@pytest.mark.parametrize("way", ["layout", "import"])
def test_an_image_of_a_bundle_gets_into_a_registry(
    forge: Forge, pinned: Tiny, file: Path, registry: Registry, tmp_path: Path, way: str
) -> None:
    """Both ways that the hint tells; the channel is not where the lock says."""
    place = f"docker://{registry.host}/{way}:1"
    done = forge("build", pinned.root, "--bundle", file, "--push", place)
    assert done.message == f"--bundle: `{place}` is in a registry, and with a bundle nothing is connected to"
    assert done.hint == (
        f"write `-o oci:DIRECTORY`, and copy that: `ociforge push oci:DIRECTORY {place}`; or run"
        f" `ociforge bundle import {file}`, then the same command without `--bundle`, but with `--locked`"
    )
    layout = f"oci:{tmp_path}/layout"
    ways = {
        "layout": (("build", pinned.root, "--bundle", file, "-o", layout), ("push", layout, place)),
        "import": (("bundle", "import", file), ("build", pinned.root, "--locked", "--push", place)),
    }
    channel = pinned.channel.path
    channel.rename(channel.with_name("hidden"))
    try:
        first, second = (forge(*command) for command in ways[way])
    finally:
        channel.with_name("hidden").rename(channel)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert second.out.startswith((f"{registry.host}/{way}@sha256:", f"{place}@sha256:"))


def test_oras_pulls_the_files_by_their_names(forge: Forge, file: Path, registry: Registry, tmp_path: Path) -> None:
    assert forge("push", f"oci-archive:{file}:bundle", f"docker://{registry.host}/pulled:1").code == 0
    client = OrasClient(hostname=registry.host, insecure=True)
    client.pull(target=f"{registry.host}/pulled:1", outdir=str(tmp_path / "pulled"))
    found = {path.relative_to(tmp_path / "pulled").as_posix(): path for path in (tmp_path / "pulled").rglob("*.*")}
    for name, digest in named(file).items():
        if not name.startswith("base/"):
            assert hashlib.sha256(found[name].read_bytes()).hexdigest() == digest.hex


# -- errors


def test_a_base_image_without_a_pin(forge: Forge, pinned: Tiny, tmp_path: Path) -> None:
    shutil.copytree(pinned.root, tmp_path / "workspace")
    shutil.copytree(pinned.root.with_name("base"), tmp_path / "base")
    (tmp_path / "workspace" / "ociforge.lock").unlink()
    done = forge("bundle", "create", tmp_path / "workspace", "-o", tmp_path / "a.bundle")
    assert done.message == (
        "the base image `oci:../base` for `linux/amd64` is not pinned: without a network nobody could tell which one is"
        " meant"
    )
    assert done.hint == "run `ociforge lock`"
    assert not (tmp_path / "a.bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("-e", "none"), "expected one of `default`, got `none`"),
        (("--image", "none"), "there is no image `none`"),
        (("--platform", "linux/arm64"), "linux-aarch64"),
        (("--platform", "mips"), "unknown platform: `mips`"),
        (("--since", "none"), "No such file or directory"),
    ],
)
def test_what_there_is_not(forge: Forge, pinned: Tiny, tmp_path: Path, arguments: Sequence[str], why: str) -> None:
    done = forge("bundle", "create", pinned.root, "-o", tmp_path / "a.bundle", *arguments)
    assert why in done.message


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (
            ("bundle", "create", "-o", "docker://h.io/b:1"),
            "--output: `docker://h.io/b:1` is no file of this machine",
            "write a file, and move that by `ociforge push oci-archive:FILE:bundle docker://h.io/b:1`",
        ),
        (("bundle", "create", "-o", ""), "--output: the name of the file is empty", "name a file"),
        (
            ("build", "--bundle", "docker://h.io/b:1"),
            "--bundle: `docker://h.io/b:1` is no file of this machine",
            "run `ociforge bundle import docker://h.io/b:1`, then the same command without `--bundle`",
        ),
    ],
)
def test_a_place_that_is_no_file(forge: Forge, arguments: Sequence[str], message: str, hint: str) -> None:
    done = forge(*arguments)
    assert (done.code, done.message, done.hint) == (2, message, hint)


def test_where_there_is_no_directory_nothing_is_fetched(forge: Forge, pinned: Tiny, tmp_path: Path) -> None:
    done = forge("bundle", "create", pinned.root, "-o", tmp_path / "none" / "a.bundle")
    assert done.message == f"writing `{tmp_path}/none/a.bundle`: there is no directory `{tmp_path}/none`"
    assert not forge.cache.exists()


def test_a_pipe_is_not_waited_for(forge: Forge, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = forge("bundle", "verify", tmp_path / "fifo")
    assert (done.code, done.message) == (1, f"reading `{tmp_path}/fifo`: it is not a regular file")


@pytest.mark.parametrize("name", ["pixi.toml", "pixi.lock", "ociforge.lock"])
def test_the_workspaces_own_documents_are_not_replaced(forge: Forge, pinned: Tiny, tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to(pinned.root / name)
    before = (pinned.root / name).read_bytes()
    for output in (pinned.root / name, tmp_path / "link", pinned.root / ".." / pinned.root.name / name):
        done = forge("bundle", "create", pinned.root, "-o", output)
        assert done.code == 2
        assert done.message.startswith(f"--output: `{output}` is ")
        assert "of the workspace" in done.message or "the workspace has" in done.message
        assert done.hint == "write another file"
    assert (pinned.root / name).read_bytes() == before


@pytest.mark.parametrize("since", ["{}", "oci-archive:{}:bundle"])
def test_the_older_bundle_is_not_replaced(forge: Forge, pinned: Tiny, file: Path, tmp_path: Path, since: str) -> None:
    older, same = tmp_path / "older", tmp_path / "same"
    shutil.copyfile(file, older)
    same.hardlink_to(older)
    done = forge("bundle", "create", pinned.root, "-o", same, "--since", since.format(older))
    assert (done.code, done.message, done.hint) == (
        2,
        f"--output: `{same}` is the older bundle, which the new one is to build upon",
        "write another file",
    )
    assert older.read_bytes() == file.read_bytes()


def test_a_root_file_system_is_not_replaced(forge: Forge, tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs.tar"
    rootfs.write_bytes(tar_of({"bin": 0o755, "bin/sh": b"not a program\n"}))
    settings = f'{SETTINGS}base = "rootfs:../rootfs.tar"\n'
    tiny = tiny_workspace(tmp_path / "workspace", packages=tiny_packages()[:1], settings=settings)
    done = forge("bundle", "create", tiny.root, "-o", rootfs)
    assert done.message == f"--output: `{rootfs}` is a base image"


def test_an_older_bundle_that_is_damaged(forge: Forge, pinned: Tiny, file: Path, tmp_path: Path) -> None:
    """Nobody could import it, so nothing may rely on it."""
    name, digest = next((name, digest) for name, digest in named(file).items() if name.startswith("conda/"))
    older = rewrite(
        file, tmp_path / "older", lambda files: {n: data for n, data in files.items() if not n.endswith(digest.hex)}
    )
    done = forge("bundle", "create", pinned.root, "-o", tmp_path / "new", "--since", older)
    assert done.message == f"--since: `{older}`: the conda archive `{name}` is missing"
    assert done.hint == "copy that bundle again, or make a whole one, without `--since`"
    assert not (tmp_path / "new").exists()


def test_credentials_do_not_get_into_a_bundle(forge: Forge, pinned: Tiny, tmp_path: Path) -> None:
    tiny = pinned.copy(tmp_path / "workspace")
    tiny_base(tmp_path / "base")
    tiny.settings('\n[tool.ociforge.mirrors]\n"https://h.io/" = ["https://me:hidden@m.io/"]\n')
    done = forge("bundle", "create", tiny.root, "-o", tmp_path / "a.bundle", "--frozen")
    assert done.message == "`pixi.toml` has a password in the URL `https://m.io/`: the bundle would have it"
    assert "hidden" not in done.err
    assert not (tmp_path / "a.bundle").exists()


def test_an_image_is_no_bundle(forge: Forge, base: str) -> None:
    done = forge("bundle", "import", base)
    assert done.message == f"`{base}` is no bundle: its `artifactType` is `None`"


# -- killed


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Sequence[Job]], list[End]]]:
    with running_jobs() as run:
        yield run


def kills(run: Callable[[Sequence[Job]], list[End]], arguments: Sequence[str], directory: Path) -> Iterator[Path]:
    """The directories of runs that were killed, each at another moment."""
    (whole,) = run([Job(arguments=tuple(arguments), directory=str(directory / "whole"))])
    assert whole.code == 0, whole.err
    for moment in range(0, len(whole.events), _STRIDE[arguments[1]]):
        place = directory / str(moment)
        (end,) = run([Job(arguments=tuple(arguments), directory=str(place), signal=signal.SIGKILL, moment=moment)])
        assert end.code in (-signal.SIGKILL, 0)
        yield place


def test_create_may_be_killed(
    run: Callable[[Sequence[Job]], list[End]], pinned: Tiny, file: Path, tmp_path: Path
) -> None:
    arguments = ("bundle", "create", str(pinned.root), "-o", "a.bundle", "--workers", "1")
    for place in kills(run, arguments, tmp_path):
        found = place / "a.bundle"
        assert not found.exists() or found.read_bytes() == file.read_bytes()


def test_import_may_be_killed(run: Callable[[Sequence[Job]], list[End]], file: Path, tmp_path: Path) -> None:
    for place in kills(run, ("bundle", "import", str(file), "--workers", "1"), tmp_path):
        for path in (place / "cache").rglob("*"):
            if path.is_file() and path.parent.name in ("archives", "sha256") and not path.name.startswith("."):
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name.partition(".")[0]


def test_help_tells_of_all_three(forge: Forge) -> None:
    said: Any = forge("bundle", "--help").out
    assert all(verb in said for verb in ("create", "import", "verify"))
    assert "docker.io/library/ubuntu:24.04-linux-arm64" in said
