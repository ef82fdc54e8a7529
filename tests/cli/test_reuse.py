"""Work proportional to change: what exists, here or in a registry, is not fetched, made or sent again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import pytest

from layers.digest import Digest
from ociforge.oci.descriptor import canonical_json
from tests.support.fake_registry import running_fake
from tests.support.reading import archive_images, layout_images
from tests.support.registry import Registry, push_layout, running_registry
from tests.support.tiny import Tiny, tiny_packages, tiny_workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.program import Done, Forge

    Change = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@dataclass
class Runner:
    """Builds of one workspace to one reference, from a store that can be emptied."""

    forge: Forge
    tiny: Tiny
    base: str
    registry: Registry
    reference: str

    def __call__(self, verb: str = "build", *arguments: str, code: int = 0) -> Any:
        """The verb's JSON; the message of its error, if it is to end with `code`."""
        done = self.run(verb, *arguments)
        assert done.code == code, done.err
        return done.message if code else json.loads(done.out)

    def run(self, verb: str, *arguments: str) -> Done:
        target = () if any(a in arguments for a in ("--push", "-o")) else ("--push", self.reference)
        return self.forge(verb, self.tiny.root, "--base", self.base, "--json", *target, *arguments)

    def forget(self) -> None:
        """Be an empty runner."""
        shutil.rmtree(self.forge.cache, ignore_errors=True)

    def archives(self) -> set[str]:
        """The packages that were downloaded, but for the one whose variables activation must read."""
        names = {archive.record["sha256"]: archive.record["name"] for archive in self.tiny.channel.archives}
        found = {path.name.partition(".")[0] for path in (self.forge.cache / "archives").rglob("*.*")}
        return {names[digest] for digest in found} - {"tool"}


@pytest.fixture
def runner(forge: Forge, tiny: Tiny, base: str, registry: Registry, request: pytest.FixtureRequest) -> Runner:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip("-")
    return Runner(forge, tiny, base, registry, f"{registry.host}/{name}:1")


NONE = {"count": 0, "size": 0}


def places(document: dict[str, Any]) -> dict[str, str]:
    """Where the layers of a plan come from."""
    (image,) = document["images"]
    return {layer["title"]: layer["place"] for layer in image["layers"]}


def test_an_empty_runner_takes_an_unchanged_image_as_it_is(runner: Runner) -> None:
    """A handful of small requests, no package, not even the channel; neither is the base listed."""
    first, channel = runner(), runner.tiny.channel.path
    runner.forget()
    channel.rename(channel.with_name("gone"))
    try:
        before = len(runner.registry.requests())
        plan = runner("plan")
        assert plan["images"][0]["digest"] == first["digest"]
        assert set(places(plan).values()) == {"image"}
        assert (plan["images"][0]["download"], plan["images"][0]["upload"]) == (0, 0)
        between = len(runner.registry.requests())
        again = runner()
        requests = runner.registry.requests()
    finally:
        channel.with_name("gone").rename(channel)
    assert again["digest"] == first["digest"]
    assert again["destinations"][0]["sent"] == 0
    assert between - before < 10 and len(requests) - between < 10
    assert all(line.startswith(("GET", "HEAD")) for line in requests[before:])
    assert runner.archives() == set()
    assert sum(path.stat().st_size for path in runner.forge.cache.rglob("*") if path.is_file()) < 20_000


def test_what_a_run_does_not_need_is_not_imported(runner: Runner) -> None:
    """Starting is most of a run that has little to do."""
    runner()
    options = ("build", str(runner.tiny.root), "--base", runner.base, "--push", runner.reference, "--quiet")
    program = (
        "import sys\nfrom ociforge.cli import run\n"
        f"assert run({[*options]!r}) == 0\nsys.stdout.flush()\nprint(*sys.modules, file=sys.stderr)"
    )
    loaded = []
    for text in (None, "print('changed')\n"):
        if text is not None:
            (runner.tiny.root / "main.py").write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"OCIFORGE_CACHE": str(runner.forge.cache)},
            capture_output=True,
            text=True,
            check=True,
        )
        loaded.append(set(done.stderr.split()))
    same, changed = loaded
    never = {"asyncio", "attr", "jsonschema.validators", "packaging.version", "rich"}
    assert not never & (same | changed)
    assert not {"ociforge.packages", "ociforge.workspace.satisfy"} & same
    assert "ociforge.packages" in changed
    assert not {"ociforge.conda.link", "ociforge.workspace.satisfy", "zstandard"} & changed


def test_a_changed_application_replaces_its_layer(runner: Runner) -> None:
    first = runner()
    runner.forget()
    (runner.tiny.root / "main.py").write_text("print('changed')\n")
    assert [title for title, place in places(runner("plan")).items() if place == "make"] == ["application"]
    again = runner()
    assert {layer["title"] for layer in again["layers"] if not layer["reused"]} == {"application"}
    assert runner.archives() == set()
    transfers = again["destinations"][0]["transfers"]
    assert [t["kind"] for t in transfers if t["outcome"] == "uploaded"] == ["config", "layer", "manifest"]
    assert again["digest"] != first["digest"]
    runner.forget()
    assert runner("build", "--no-reuse")["digest"] == again["digest"]


def test_a_changed_package_is_the_only_one_that_is_read(
    runner: Runner, tmp_path: Path, base: str, forge: Forge
) -> None:
    packages = list(tiny_packages())
    runner.tiny = tiny_workspace(tmp_path / "first", packages=packages)
    runner()
    runner.forget()
    packages[-1] = replace(packages[-1], version="2.0")
    runner.tiny = tiny_workspace(tmp_path / "second", packages=packages)
    gone = [archive.path for archive in runner.tiny.channel.archives if archive.record["name"] not in ("words", "tool")]
    assert [title for title, place in places(runner("plan")).items() if place == "make"] == ["words 2.0"]
    for path in gone:
        path.unlink()
    built = runner()
    assert {layer["title"] for layer in built["layers"] if not layer["reused"]} == {"words 2.0"}


def test_a_plan_tells_the_digest_that_the_build_has(runner: Runner) -> None:
    assert runner("plan")["images"][0]["digest"] is None
    assert runner.archives() == set()
    built = runner()
    assert runner("plan")["images"][0]["digest"] == built["digest"]
    assert runner("plan", "--no-reuse")["images"][0]["digest"] == built["digest"]
    (runner.tiny.root / "main.py").write_text("print('x')\n")
    assert runner("plan")["images"][0]["digest"] is None
    changed = runner()
    assert runner("plan")["images"][0]["digest"] == changed["digest"] != built["digest"]


def test_the_installer_is_no_input(runner: Runner) -> None:
    first = runner("build", "--no-reuse")
    runner.forget()
    assert runner("build", "--no-reuse", "--installer", "rattler")["digest"] == first["digest"]


def test_no_reuse_makes_everything(runner: Runner) -> None:
    first = runner()
    runner.forget()
    again = runner("build", "--no-reuse")
    assert not any(layer["reused"] for layer in again["layers"])
    assert again["digest"] == first["digest"]
    assert again["destinations"][0]["sent"] == 0  # the registry has it all, whoever made it


def test_another_image_of_the_registry_is_mounted_from(runner: Runner) -> None:
    first = runner()
    runner.forget()
    other = f"{runner.registry.host}/elsewhere:2"
    again = runner("build", "--reuse", runner.reference, "--push", other)
    assert again["digest"] == first["digest"]
    outcomes = {t["outcome"] for t in again["destinations"][0]["transfers"] if t["kind"] == "layer"}
    assert outcomes <= {"mounted", "uploaded"} and "mounted" in outcomes
    assert runner.archives() == set()


def test_a_local_output_gets_its_layers_from_the_image(runner: Runner, tmp_path: Path) -> None:
    first = runner()
    runner.forget()
    archive = tmp_path / "a.tar"
    again = runner("build", "--reuse", runner.reference, "-o", f"oci-archive:{archive}")
    [(image,)] = archive_images(archive).values()
    assert image.digest == again["digest"] == first["digest"]
    assert runner.archives() == set()


def test_archives_that_are_here_are_packed_rather_than_pulled(runner: Runner, tmp_path: Path) -> None:
    runner()
    for part in ("blobs", "catalog", "images"):
        shutil.rmtree(runner.forge.cache / part)
    (runner.tiny.root / "main.py").write_text("print('changed')\n")
    plan = runner("plan", "--reuse", runner.reference, "-o", f"oci:{tmp_path}/layout")
    assert places(plan)["liba 1.0"] == "make"
    assert places(runner("plan"))["liba 1.0"] == "image"


def test_what_reuse_names_need_not_be_there_yet(runner: Runner, tmp_path: Path) -> None:
    """As in the first run of a pipeline that always names the image of the run before."""
    out = f"oci:{tmp_path}/layout:1"
    for place in (f"docker://{runner.registry.host}/nowhere:1", f"oci:{tmp_path}/nowhere", f"{out[:-2]}:other"):
        done = runner.run("build", "--reuse", place, "-o", out)
        assert done.code == 0
        assert f"warning: no layer of `{place}` is reused: " in done.err
    assert runner("build", "--reuse", "x", "--no-reuse", code=2).startswith("--reuse and --no-reuse exclude")


def test_a_poisoned_image_is_found_out(runner: Runner, tmp_path: Path) -> None:
    """Somebody who can push puts other diff_ids into the configuration, under the same keys."""
    layout = tmp_path / "layout"
    runner("build", "-o", f"oci:{layout}:1")
    poison(layout)
    push_layout(layout, runner.registry, "poisoned", "1")
    reference = f"{runner.registry.host}/poisoned:1"
    assert "unpacks to" in runner.forge("verify", f"docker://{reference}").message
    (runner.tiny.root / "main.py").write_text("print('changed')\n")
    # A build that has made the layer tells.
    done = runner.run("build", "--reuse", reference, "-o", f"oci:{tmp_path}/other:1")
    assert done.code == 0
    assert f"`docker://{reference}` has `sha256:" in done.err
    assert "somebody has changed that image" in done.err


def test_what_an_image_claims_is_not_kept(runner: Runner, tmp_path: Path) -> None:
    layout, manifest = tmp_path / "layout", runner.tiny.manifest.read_text()
    good = runner("build", "-o", f"oci:{layout}:1")["digest"]
    poison(layout)
    push_layout(layout, runner.registry, "claims", "1")
    runner.forget()
    assert runner("build", "--reuse", f"{runner.registry.host}/claims:1")["digest"] != good
    runner.tiny.settings('labels = { other = "image" }\n')
    runner("build", "--no-reuse")  # now the store has all layers
    runner.tiny.manifest.write_text(manifest)
    assert runner("build", "--no-reuse")["digest"] == good


def test_a_wrong_diff_id_is_refused_each_time(runner: Runner, tmp_path: Path) -> None:
    """By the second run, the store has the layer."""

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"][-1] = f"sha256:{'1' * 64}"

    layout = tmp_path / "layout"
    runner("build", "-o", f"oci:{layout}:1")
    edit(layout, change)
    runner.forget()
    command = ("build", "--reuse", f"oci:{layout}:1", "-o", f"oci-archive:{tmp_path}/out.tar")
    for _ in range(2):
        assert "unpacks to" in runner(*command, code=1)


def test_a_layer_that_is_made_tells_of_another_diff_id(runner: Runner, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    runner("build", "-o", f"oci:{layout}:1")
    poison(layout)
    (runner.tiny.root / "main.py").write_text("print('changed')\n")
    done = runner.run("build", "--reuse", f"oci:{layout}:1", "-o", f"oci:{tmp_path}/other:1")
    assert done.code == 0
    told = re.findall(r"has `(\S+)` with the diff_id `(\S+)` as .* is `(\S+)` with the diff_id `(\S+)` when", done.err)
    assert told
    assert all(theirs[0] == ours[0] and theirs[1] != ours[1] for *theirs, a, b in told for ours in [(a, b)])


def test_a_registry_that_has_lost_a_layer(runner: Runner, tmp_path: Path) -> None:
    layers = [t for t in runner()["destinations"][0]["transfers"] if t["kind"] == "layer"]
    lost = layers[-1]["digest"].removeprefix("sha256:")
    for path in sorted(runner.registry.storage.rglob(f"*{lost}")):
        shutil.rmtree(path)
    location = f"docker://{runner.reference}"
    assert runner.forge("verify", location).code == 1
    runner.forget()
    done = runner.run("build", "--reuse", runner.reference, "-o", f"oci-archive:{tmp_path}/a.tar")
    assert done.code == 1
    assert done.hint is not None and "build with `--no-reuse`, which makes and pushes them again" in done.hint
    again = runner("build", "--no-reuse")["destinations"][0]["transfers"]
    assert [t["digest"] for t in again if t["kind"] == "layer" and t["outcome"] == "uploaded"] == [f"sha256:{lost}"]
    assert runner.forge("verify", location).code == 0


def test_what_is_no_image_is_replaced(runner: Runner) -> None:
    with running_fake() as fake:
        fake.on("GET", "/manifests/1", lambda _, exchange: exchange.send(200, b"{}", {"Content-Type": "text/html"}))
        for options in ((), ("--no-reuse",)):
            done = runner.run("plan", "--push", f"{fake.host}/app:1", *options)
            assert done.code == 0, done.err
            assert ("which is there now, is reused: " in done.err) == (not options)


def test_damaged_layers_are_made_again_by_the_next_run(runner: Runner, tmp_path: Path) -> None:
    command = ("build", "--no-reuse", "-o", f"oci:{tmp_path}/layout:1")
    good = runner(*command)["digest"]
    for path in (runner.forge.cache / "blobs/sha256").iterdir():
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    shutil.rmtree(tmp_path / "layout")
    assert runner(*command, code=1).startswith("damaged blob")
    assert runner(*command)["digest"] == good


@pytest.mark.parametrize("key", [None, "x"])
def test_a_layer_that_somebody_has_added(runner: Runner, tmp_path: Path, key: str | None) -> None:
    """The image still has its key, but not all of its layers have theirs."""
    good = runner()["digest"]

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        del manifest["layers"][-1]["annotations"]["dev.ociforge.layer.key"]
        if key is not None:
            manifest["layers"][-1]["annotations"]["dev.ociforge.layer.key"] = key

    _push_changed(runner, tmp_path / "layout", change)
    assert runner()["digest"] == good


def test_a_broken_image_is_replaced(runner: Runner, tmp_path: Path) -> None:
    good = runner()["digest"]

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        config["history"] = 5

    _push_changed(runner, tmp_path / "layout", change)
    assert "history: expected an array" in runner("build", "--reuse", runner.reference, code=1)
    done = runner.run("build")
    assert json.loads(done.out)["digest"] == good
    assert f"no layer of `docker://{runner.reference}`, which is there now, is reused: " in done.err


def _push_changed(runner: Runner, layout: Path, change: Change) -> None:
    """Put a changed copy of the image in the place of what was pushed, and empty the store."""
    runner("build", "-o", f"oci:{layout}:1")
    edit(layout, change)
    repository = runner.reference.partition("/")[2].removesuffix(":1")
    push_layout(layout, runner.registry, repository, "1")
    runner.forget()


def poison(layout: Path) -> None:
    """Exchange the diff_ids of two layers."""

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        ids = config["rootfs"]["diff_ids"]
        ids[-2], ids[-3] = ids[-3], ids[-2]
        del manifest["annotations"]["dev.ociforge.key"]

    edit(layout, change)


def edit(layout: Path, change: Change) -> None:
    """Change manifest and configuration of the one image in a layout; all digests of documents stay right."""
    index = json.loads((layout / "index.json").read_text())

    def blob(digest: str) -> Path:
        return layout / "blobs/sha256" / digest.removeprefix("sha256:")

    def write(document: object) -> tuple[str, int]:
        data = canonical_json(document)
        blob(str(Digest.of(data))).write_bytes(data)
        return str(Digest.of(data)), len(data)

    manifest = json.loads(blob(index["manifests"][0]["digest"]).read_bytes())
    config = json.loads(blob(manifest["config"]["digest"]).read_bytes())
    change(manifest, config)
    manifest["config"]["digest"], manifest["config"]["size"] = write(config)
    index["manifests"][0]["digest"], index["manifests"][0]["size"] = write(manifest)
    (layout / "index.json").write_bytes(canonical_json(index))


def sums(runner: Runner, *arguments: str) -> tuple[int, int]:
    """What a plan says is to be downloaded and uploaded."""
    (image,) = runner("plan", *arguments)["images"]
    return image["download"], image["upload"]


def test_a_plan_counts_what_goes_over_the_network(runner: Runner, tmp_path: Path) -> None:
    built = runner()
    own = sum(layer["size"] for layer in built["layers"])
    ((image,),) = layout_images(Path(runner.base.removeprefix("oci:"))).values()
    base = sum(layer["size"] for layer in image.manifest["layers"])
    reuse = ("--reuse", runner.reference)
    beside, elsewhere = f"{runner.registry.host}/beside:1", "localhost" + runner.registry.host.removeprefix("127.0.0.1")
    outputs = ("-o", f"oci:{tmp_path}/layout:1")
    # Of what the store has all is sent, but for what an image behind the same name has.
    assert sums(runner) == (0, 0)
    assert sums(runner, *outputs) == (0, 0)
    assert sums(runner, "--push", runner.reference, "--push", beside) == (0, own + base)
    runner.forget()
    assert sums(runner) == (0, 0)
    assert sums(runner, *reuse, "--push", beside) == (0, base)  # the rest is mounted
    runner.forget()
    assert sums(runner, *reuse, *outputs) == (own, 0)  # the base image is in a layout here
    assert sums(runner, *reuse, "--push", f"{elsewhere}/app:1") == (own, own + base)
    plan = runner("plan", "--no-reuse")
    assert set(places(plan).values()) == {"make"}
    assert plan["images"][0]["upload"] == 0  # the registry has it all, whoever makes it


def test_a_base_image_in_a_registry_is_mounted_or_fetched(runner: Runner, tmp_path: Path) -> None:
    push_layout(Path(runner.base.removeprefix("oci:")), runner.registry, "base", "1")
    local, runner.base = runner.base, f"docker://{runner.registry.host}/base:1"
    built = runner()
    runner.forget()
    own = sum(layer["size"] for layer in built["layers"])
    ((image,),) = layout_images(Path(local.removeprefix("oci:"))).values()
    size = sum(layer["size"] for layer in image.manifest["layers"])
    assert sums(runner, "--reuse", runner.reference, "--push", f"{runner.registry.host}/third:1") == (0, 0)
    assert sums(runner, "--reuse", runner.reference, "-o", f"oci:{tmp_path}/layout:1") == (own + size, 0)


def test_records_that_are_left_out_are_counted(runner: Runner) -> None:
    runner.tiny.settings('strip = ["conda-meta"]\n')
    (image,) = runner("plan")["images"]
    packages = image["packages"]
    assert image["leftOut"] == {"conda-meta": {"count": len(packages), "size": 0}}
    done = runner.forge("plan", runner.tiny.root, "--base", runner.base)
    assert f"  without {len(packages)} files of `conda-meta`\n" in done.out


def test_a_plan_counts_the_application(runner: Runner) -> None:
    """Its files are known before the layer is made."""
    (runner.tiny.root / "data.bin").write_bytes(bytes(3_000_000))
    (image,) = runner("plan")["images"]
    there = {layer["title"]: layer for layer in image["layers"]}
    files = sum(len(text.encode()) for text in ("print('tiny')\n", "grüße\n", "#!/bin/sh\n")) + 3_000_000
    assert (there["application"]["size"], there["application"]["estimate"]) == (None, files)
    assert there["application"]["upload"] == files <= image["upload"]
    assert 0 < there["environment"]["estimate"] < 100_000
    done = runner.forge("plan", runner.tiny.root, "--base", runner.base)
    assert re.search(r"^  to make +~3\.0 MB  \w+  application$", done.out, re.MULTILINE)
    runner()
    (image,) = runner("plan")["images"]
    there = {layer["title"]: layer for layer in image["layers"]}
    assert there["application"]["estimate"] is None
    assert 0 < there["application"]["size"] < files


def test_a_plan_says_the_same_of_a_known_image(runner: Runner) -> None:
    runner()
    (known,) = runner("plan")["images"]
    shutil.rmtree(runner.forge.cache / "images")  # now each layer is looked up
    (planned,) = runner("plan", "--no-reuse")["images"]
    assert (known.pop("leftOut"), planned.pop("leftOut")) == (None, {"static-libraries": NONE, "js-maps": NONE})
    packages = [[layer.pop("packages") for layer in image["layers"]] for image in (known, planned)]
    assert packages == [[None] * 8, [[]] + [[ANY]] * 6 + [[]]]
    assert known == planned
    assert len(known["packages"]) == 6


def test_a_plan_makes_no_lock(runner: Runner) -> None:
    runner.tiny.lock.unlink()
    done = runner.forge("plan", runner.tiny.root, "--base", runner.base)
    assert done.message == f"there is no `pixi.lock` beside the manifest: `{runner.tiny.lock}`"
    assert done.hint == "run `ociforge lock`"
    assert not runner.tiny.lock.exists()


def test_a_registry_that_refuses_to_tell(runner: Runner, tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry", auth=True) as closed:
        place = f"{closed.host}/app:1"
        done = runner.run("plan", "--push", place)
        assert done.code == 0
        assert f"warning: no layer of `docker://{place}` is reused: pulling `{place}`: " in done.err
        assert f"`ociforge login {closed.host}`" in done.err
        done = runner.run("build", "--reuse", place, "-o", f"oci:{tmp_path}/layout")
        assert done.code == 0
        assert f"warning: no layer of `docker://{place}` is reused: " in done.err


def test_the_text_of_a_plan(runner: Runner) -> None:
    done = runner.forge("plan", runner.tiny.root, "--base", runner.base)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "linux/amd64:"
    assert [line.split()[0:2] for line in lines[1:9]] == [["to", "make"]] * 8
    assert lines[-1].startswith("  8 layers: 8 to make, ")
    runner.forge("build", runner.tiny.root, "--base", runner.base)
    done = runner.forge("plan", runner.tiny.root, "--base", runner.base)
    assert done.out.splitlines()[-1].startswith("sha256:")


def test_stripping_and_bytecode_are_told_and_keyed(runner: Runner, tmp_path: Path) -> None:
    plain = runner("build", "-o", f"oci:{tmp_path}/layout:plain")
    runner.tiny.settings('strip = ["docs", "conda-meta"]\n')
    bare = runner("build", "-o", f"oci:{tmp_path}/layout:bare")
    keys = [{layer["key"] for layer in built["layers"][1:-1]} for built in (plain, bare)]
    assert keys[0].isdisjoint(keys[1])
    (image,) = layout_images(tmp_path / "layout")["bare"]
    assert not any("conda-meta/liba" in path for path in image.tree())
    (image,) = layout_images(tmp_path / "layout")["plain"]
    assert any("conda-meta/liba" in path for path in image.tree())
