"""Several platforms at once: which are meant, what they share, and what cannot be built for one of them."""

from __future__ import annotations

import json
import platform
import re
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.bases import tar_of, tiny_image
from tests.support.channel import serve
from tests.support.conda import CondaPackage
from tests.support.images import write_layout
from tests.support.lock import LockedPypi
from tests.support.reading import Image, archive_images, layout_images
from tests.support.tiny import Tiny, tiny_packages, tiny_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.program import Done, Forge

SUBDIRS = ("linux-64", "linux-aarch64")
BOTH = "linux/amd64,linux/arm64"
HOST = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
OTHER = {"amd64": "arm64", "arm64": "amd64"}[HOST]
NOARCH = {"pure 1.0", "words 1.0"}
_TITLE = "dev.ociforge.layer.title"


def packages() -> list[CondaPackage]:
    """Those of the tiny workspace, for both architectures; the programs differ in what they are called."""
    native = [package for subdir in SUBDIRS for package in tiny_packages(subdir) if not package.noarch]
    return [*native, *(package for package in tiny_packages() if package.noarch)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny workspace for two platforms; not to be changed."""
    root = tmp_path_factory.mktemp("tiny") / "workspace"
    return tiny_workspace(root, packages=packages(), platforms=SUBDIRS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny base image for both."""
    layout = tmp_path_factory.mktemp("base") / "layout"
    write_layout([tiny_image(), tiny_image(architecture="arm64")], layout, compression="none")
    return f"oci:{layout}"


@pytest.fixture(scope="module")
def amd64(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny base image for one of them."""
    layout = tmp_path_factory.mktemp("amd64") / "layout"
    write_layout(tiny_image(), layout, compression="none")
    return f"oci:{layout}"


@pytest.fixture
def tiny(made: Tiny, tmp_path: Path) -> Tiny:
    """A copy of the workspace for this test to spoil."""
    return made.copy(tmp_path / "workspace")


def titled(image: Image) -> dict[str, str]:
    """The digests of our layers by their titles."""
    layers = [layer for layer in image.manifest["layers"] if "annotations" in layer]
    return {layer["annotations"][_TITLE]: layer["digest"] for layer in layers}


def states(done: Done) -> list[tuple[str, str]]:
    """What `--verbose` says of each layer, in its order: title, and made or reused."""
    lines = [line for line in done.err.splitlines() if line.startswith("  layer ")]
    return [(title, head.split()[-1]) for head, _, title in (line.partition(": ") for line in lines)]


def architectures(images: tuple[Image, ...]) -> list[str]:
    return [image.config["architecture"] for image in images]


class TestWhichPlatforms:
    def test_every_way_to_say_it_gives_one_digest(self, forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
        ways: list[tuple[str, ...]] = [
            ("--platform", BOTH),
            ("--platform", "linux/arm64,linux/amd64"),
            ("--platform", "linux/arm64", "--platform", "linux/amd64, linux/arm64/v8"),
            ("--platform", "all"),
        ]
        digests = set()
        for number, way in enumerate(ways):
            cold = {"OCIFORGE_CACHE": str(tmp_path / f"cache{number}")}
            target = f"oci:{tmp_path}/layout:{number}"
            done = forge("build", made.root, "--base", base, *way, "-o", target, variables=cold)
            assert done.code == 0, done.err
            digests.add(done.out.rpartition("@")[2])
        assert len(digests) == 1
        found = layout_images(tmp_path / "layout")
        assert {name: architectures(images) for name, images in found.items()} == {
            str(number): ["amd64", "arm64"] for number in range(len(ways))
        }

    def test_all_leaves_out_what_the_base_has_not(self, forge: Forge, made: Tiny, amd64: str) -> None:
        done = forge("build", made.root, "--base", amd64, "--platform", "all")
        assert done.code == 0
        left_out = f"base image `{amd64}`: it is for `linux/amd64`, not for `linux/arm64`"
        assert f"warning: `linux/arm64` is left out: {left_out.replace(f' `{amd64}`', '')}\n" in done.err
        assert done.out == forge("build", made.root, "--base", amd64).out
        for verb in ("build", "plan"):
            document = json.loads(forge(verb, made.root, "--base", amd64, "--platform", "all", "--json").out)
            (there,) = document["leftOutPlatforms"]
            assert there == {"platform": "linux/arm64", "reason": left_out.replace(f" `{amd64}`", "")}
            assert [image["platform"] for image in document["images"]] == ["linux/amd64"]
            assert document["digest"] == done.out.strip()

    def test_all_leaves_out_what_an_index_has_not(self, forge: Forge, made: Tiny, tmp_path: Path) -> None:
        write_layout([tiny_image()], tmp_path / "base")
        done = forge("build", made.root, "--base", f"oci:{tmp_path}/base", "--platform", "all")
        why = "base image: image index: no image for `linux/arm64`: found `linux/amd64`"
        assert f"`linux/arm64` is left out: {why}\n" in done.err
        assert done.out.count("\n") == 1

    def test_all_leaves_out_what_a_root_file_system_is_not_for(self, forge: Forge, made: Tiny, tmp_path: Path) -> None:
        """Nothing in it names its platform; the loader of its programs does."""
        path = tmp_path / "rootfs.tar"
        path.write_bytes(tar_of({"bin": 0o755, "bin/sh": b"#!", "lib": 0o755, "lib/ld-linux-aarch64.so.1": b"\x7fELF"}))
        options = ("--base", f"rootfs:{path}", "--platform", "all", "-o", f"oci:{tmp_path}/layout:1")
        done = forge("build", made.root, *options)
        assert (
            f"`linux/amd64` is left out: rootfs `{path}`: it is for `linux/arm64`, not for `linux/amd64`\n" in done.err
        )
        assert architectures(layout_images(tmp_path / "layout")["1"]) == ["arm64"]

    def test_all_does_without_no_base(self, forge: Forge, made: Tiny, tmp_path: Path) -> None:
        """A base that cannot be read is an error, and no reason to leave a platform out."""
        done = forge("build", made.root, "--base", f"oci:{tmp_path}/nowhere", "--platform", "all")
        assert (done.code, done.out) == (1, "")
        assert "left out" not in done.err

    def test_all_leaves_out_other_systems(self, forge: Forge, tmp_path: Path) -> None:
        words = [package for package in tiny_packages() if package.name == "words"]
        tiny = tiny_workspace(tmp_path / "ws", packages=words, platforms=("linux-64", "osx-arm64", "linux-s390x"))
        done = forge("build", tiny.root, "--base", "scratch", "--platform", "all", "-o", f"oci:{tmp_path}/layout:1")
        assert done.code == 0, done.err
        assert "`osx-arm64` is left out: no image can be built for `osx-arm64`\n" in done.err
        assert architectures(layout_images(tmp_path / "layout")["1"]) == ["amd64", "s390x"]

    def test_help_promises_an_index_where_one_is_made(self, forge: Forge) -> None:
        verbs = {("build",): True, ("plan",): False, ("fetch",): False, ("bundle", "create"): False}
        said = {verb: " ".join(forge(*verb, "--help").out.split()) for verb in verbs}
        assert {
            verb: "make an image index" in text or "makes an image index" in text for verb, text in said.items()
        } == verbs
        assert "are downloaded as a whole" in said["plan",]
        assert "archives are not downloaded" not in said["plan",]

    def test_all_and_nothing_left(self, forge: Forge, amd64: str, tmp_path: Path) -> None:
        tiny = tiny_workspace(tmp_path / "ws", packages=packages(), platforms=SUBDIRS[1:])
        done = forge("build", tiny.root, "--base", amd64, "--platform", "all")
        assert done.message == "`--platform all`: the base image is there for no platform of the lock: `linux/arm64`"
        tiny = tiny_workspace(tmp_path / "other", packages=[], platforms=["osx-arm64"])
        done = forge("build", tiny.root, "--base", amd64, "--platform", "all")
        assert done.message == "`pixi.lock` locks `default` for no platform that an image can be built for"

    def test_the_archive_shows_this_machines_image(self, forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
        """`docker load` of old reads `manifest.json`, which can name one image; the index keeps all."""
        options = ("--base", base, "-o", f"oci-archive:{tmp_path}/a.tar", "-t", "tiny:1")
        assert forge("build", made.root, "--platform", "all", *options).code == 0
        (both,) = archive_images(tmp_path / "a.tar").values()
        assert architectures(both) == ["amd64", "arm64"]
        with tarfile.open(tmp_path / "a.tar") as tar:
            stream = tar.extractfile("manifest.json")
            assert stream is not None
            (docker,) = json.load(stream)
            config = tar.extractfile(docker["Config"])
            assert config is not None
            assert json.load(config)["architecture"] == HOST

    @pytest.mark.parametrize(
        ("way", "message"),
        [
            (("all,linux/amd64",), "--platform: `all` and single platforms exclude each other"),
            (("all", "linux/amd64"), "--platform: `all` and single platforms exclude each other"),
            (("linux/amd64,",), "unknown platform: ``"),
            (("linux/amd64,linux-aarch64",), "unknown platform: `linux-aarch64`"),
        ],
    )
    def test_wrong_usage(self, forge: Forge, made: Tiny, way: tuple[str, ...], message: str) -> None:
        done = forge("build", made.root, *(word for text in way for word in ("--platform", text)))
        assert (done.code, done.message) == (2, message)


class TestSharing:
    def test_what_has_no_architecture_is_made_once(self, forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
        options = ("--base", base, "--platform", BOTH)
        done = forge("build", made.root, *options, "-v", "-o", f"oci:{tmp_path}/layout:1")
        assert done.code == 0, done.err
        told = states(done)
        reused = {title for title, state in told if state == "reused"}
        assert reused == {*NOARCH, "application"}
        assert len(told) == 2 * 8
        first, second = map(titled, layout_images(tmp_path / "layout")["1"])
        assert {title for title in first if first[title] == second[title]} == reused
        assert first.keys() == second.keys()
        assert "linux/amd64: 8 layers: 0 reused, 8 made" in done.err
        assert "linux/arm64: 8 layers: 3 reused, 5 made" in done.err
        assert "linux/arm64: packing 5 of 8 layers\n" in done.err

    def test_a_second_platform_costs_its_own_packages(self, forge: Forge, made: Tiny, base: str) -> None:
        assert forge("build", made.root, "--base", base).code == 0
        done = forge("build", made.root, "--base", base, "--platform", BOTH, "-v")
        made_now = sorted(title for title, state in states(done) if state == "made")
        # The environment's own layer names its platform, as pixi does.
        assert made_now == ["environment", "hook 1.0", "liba 1.0", "python 3.11.9", "tool 2.1"]

    def test_a_plan_is_what_is_built(self, forge: Forge, made: Tiny, base: str) -> None:
        options = ("--base", base, "--platform", "all")
        built = forge("build", made.root, *options)
        document = json.loads(forge("plan", made.root, *options, "--json").out)
        assert [image["platform"] for image in document["images"]] == BOTH.split(",")
        assert document["digest"] == built.out.strip()
        alone = [forge("build", made.root, "--base", base, "--platform", one).out.strip() for one in BOTH.split(",")]
        assert [image["digest"] for image in document["images"]] == alone

    def test_a_plan_ends_in_the_digest_of_the_index(self, forge: Forge, tiny: Tiny, base: str) -> None:
        tiny.settings('annotations = { note = "common" }\n')
        options = ("--base", base, "--platform", BOTH)
        alone = [forge("build", tiny.root, "--base", base, "--platform", one).out for one in BOTH.split(",")[:1]]
        # Of two images one is known, so nobody knows what the index is.
        assert forge("plan", tiny.root, *options).out.splitlines()[-1].startswith("  8 layers: ")
        assert json.loads(forge("plan", tiny.root, *options, "--json").out)["digest"] is None
        built = forge("build", tiny.root, *options)
        lines = forge("plan", tiny.root, *options).out.splitlines()
        assert lines[-1] == built.out.strip()
        assert [f"{line.strip()}\n" for line in lines if line.startswith("  sha256:")][:1] == alone

    def test_what_is_built_for_each(self, forge: Forge, made: Tiny, base: str) -> None:
        document = json.loads(forge("build", made.root, "--base", base, "--platform", BOTH, "--json").out)
        assert document["mediaType"] == "application/vnd.oci.image.index.v1+json"
        for image in document["images"]:
            options = ("--base", base, "--platform", image["platform"])
            assert forge("build", made.root, *options).out == f"{image['digest']}\n"
            assert {package["name"] for package in image["packages"]} >= {"liba", "words"}
        titles = [(layer["platform"], layer["title"]) for layer in document["layers"]]
        assert len(set(titles)) == len(titles) == 2 * 8

    def test_a_stage_says_of_which_it_is(self, forge: Forge, made: Tiny, base: str) -> None:
        done = forge("build", made.root, "--base", base, "--platform", BOTH)
        for one in BOTH.split(","):
            assert f"reading the base image {base} for {one}\n" in done.err

    @pytest.mark.parametrize("chosen", ["linux/amd64", BOTH])
    def test_warnings_while_layers_are_made(self, forge: Forge, base: str, tmp_path: Path, chosen: str) -> None:
        """What planning wants to know is known by then; a mirror lacks what is packed."""
        tiny = tiny_workspace(tmp_path / "workspace", packages=packages(), platforms=SUBDIRS)
        options = (tiny.root, "--base", base, "--platform", chosen)
        assert forge("plan", *options).code == 0
        moved = tiny.channel.path.rename(tmp_path / "moved")
        with serve(moved) as server:
            mirrors = ",".join(f"{tiny.channel.url}={mirror}" for mirror in ("file:///nothing", server.url))
            done = forge("build", *options, variables={"OCIFORGE_CONDA_MIRRORS": mirrors})
        assert done.code == 0, done.err
        labels = [f"`{one}`: " for one in BOTH.split(",")] if chosen == BOTH else [""]
        for label in labels:
            assert f"warning: {label}the mirror `file:///nothing` does not have everything" in done.err

    def test_a_plan_counts_what_is_shared_once(self, forge: Forge, made: Tiny, base: str) -> None:
        options = ("--base", base, "--platform", BOTH)
        done = forge("plan", made.root, *options)
        first, second = done.out.split("linux/arm64:\n")
        assert "  8 layers: 8 to make, " in first
        assert "  8 layers: 5 to make, " in second
        assert len(re.findall(r"^  as above  .+  words 1\.0$", second, re.MULTILINE)) == 1
        document = json.loads(forge("plan", made.root, *options, "--json").out)
        there = {layer["title"]: layer for layer in document["images"][1]["layers"]}
        assert {title for title, layer in there.items() if layer["place"] == "shared"} == {*NOARCH, "application"}
        assert (there["words 1.0"]["download"], there["words 1.0"]["upload"]) == (0, 0)


class TestSettings:
    def test_on_one_platform(self, forge: Forge, tiny: Tiny, base: str, amd64: str, tmp_path: Path) -> None:
        tiny.settings(f"""\
base = "{amd64}"
env = {{ WHERE = "any", KEPT = "1" }}
annotations = {{ note = "common" }}
[tool.ociforge.platform."linux/arm64"]
base = "{base}"
env = {{ WHERE = "arm" }}
user = 1000
annotations = {{ note = "arm" }}
""")
        done = forge("build", tiny.root, "--platform", "all", "-o", f"oci:{tmp_path}/layout:1")
        assert done.code == 0, done.err
        images = layout_images(tmp_path / "layout")["1"]
        assert architectures(images) == ["amd64", "arm64"]
        variables = [dict(text.split("=", 1) for text in image.config["config"]["Env"]) for image in images]
        assert [(found["WHERE"], found["KEPT"]) for found in variables] == [("any", "1"), ("arm", "1")]
        assert [image.config["config"].get("User") for image in images] == [None, "1000"]
        assert [image.manifest["annotations"]["note"] for image in images] == ["common", "arm"]
        top = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"][0]
        index: dict[str, Any] = json.loads((tmp_path / f"layout/blobs/{top['digest'].replace(':', '/')}").read_bytes())
        assert index["annotations"] == {"note": "common"}

    def test_each_base_is_pinned_for_its_platform(self, forge: Forge, tiny: Tiny, base: str, amd64: str) -> None:
        tiny.settings(f'base = "{amd64}"\n[tool.ociforge.platform."linux/arm64"]\nbase = "{base}"\n')
        assert forge("lock", tiny.root, "--only", "bases").code == 0
        pins = json.loads((tiny.root / "ociforge.lock").read_bytes())["bases"]
        assert {name: list(found) for name, found in pins.items()} == {amd64: ["linux/amd64"], base: ["linux/arm64"]}
        done = forge("build", tiny.root, "--platform", "all", "--locked")
        assert (done.code, "warning" in done.err) == (0, False)

    def test_options_beat_them(self, forge: Forge, tiny: Tiny, base: str) -> None:
        expected = forge("build", tiny.root, "--base", base, "--platform", BOTH)
        tiny.settings('[tool.ociforge.platform."linux/arm64"]\nbase = "oci:/nowhere"\n')
        assert forge("build", tiny.root, "--base", base, "--platform", BOTH).out == expected.out


class TestRefusals:
    """All of them at once, by name, and before anything is fetched or written."""

    @staticmethod
    def refused(forge: Forge, tmp_path: Path, *arguments: str | Path) -> Done:
        target = tmp_path / "out.tar"
        done = forge("build", *arguments, "-o", f"oci-archive:{target}")
        assert done.code == 1, done.err
        assert not target.exists()
        assert not list(forge.cache.glob("archives/archives/*"))
        assert not list(forge.cache.glob("archives/pypi/files/*"))
        assert not list(forge.cache.glob("catalog/*"))
        return done

    def test_of_all_platforms(self, forge: Forge, tiny: Tiny, amd64: str, tmp_path: Path) -> None:
        tiny.settings('bytecode = "unchecked-hash"\n')
        options = ("--base", amd64, "--platform", f"linux/{HOST},linux/{OTHER},linux/s390x")
        done = self.refused(forge, tmp_path, tiny.root, *options)
        cannot = "cannot be compiled here: that takes the image's own `python`"
        has = "it has `linux-64`, `linux-aarch64`"
        assert done.message.splitlines() == sorted(
            [
                "`linux/arm64`: base image: it is for `linux/amd64`, not for `linux/arm64`",
                f"`linux/{OTHER}`: bytecode for `linux/{OTHER}` {cannot}",
                "`linux/s390x`: base image: it is for `linux/amd64`, not for `linux/s390x`",
                f"`linux/s390x`: bytecode for `linux/s390x` {cannot}",
                f"`linux/s390x`: the environment `default` does not support the platform `linux-s390x`: {has}",
            ],
            key=lambda line: [f"`linux/{name}`" for name in (HOST, OTHER, "s390x")].index(line.split(":")[0]),
        )

    def test_of_one_platform_it_is_the_plain_error(self, forge: Forge, made: Tiny, amd64: str, tmp_path: Path) -> None:
        done = self.refused(forge, tmp_path, made.root, "--base", amd64, "--platform", "linux/arm64")
        assert done.message == "base image: it is for `linux/amd64`, not for `linux/arm64`"

    def test_what_is_wrong_everywhere_is_said_once(self, forge: Forge, tiny: Tiny, base: str, tmp_path: Path) -> None:
        tiny.settings('prefix = "/usr/lib"\n')
        done = self.refused(forge, tmp_path, tiny.root, "--base", base, "--platform", BOTH)
        assert done.message.startswith("prefix `/usr/lib`: the base image has a directory there")
        assert "\n" not in done.message

    def test_packages_that_need_a_compiler(self, forge: Forge, base: str, tmp_path: Path) -> None:
        rows = [LockedPypi(name=name, location=f"./{name}", version="1.0") for name in ("fast", "plain", "quick")]
        tiny = tiny_workspace(tmp_path / "ws", packages=packages(), platforms=SUBDIRS, extra=rows)
        for name, backend in (
            ("fast", "maturin"),
            ("plain", "flit_core.buildapi"),
            ("quick", "scikit_build_core.build"),
        ):
            (tiny.root / name).mkdir()
            (tiny.root / name / "pyproject.toml").write_text(f'[build-system]\nbuild-backend = "{backend}"\n')
        done = self.refused(forge, tmp_path, tiny.root, "--frozen", "--base", base, "--platform", BOTH)
        assert done.message.splitlines() == [
            f"`linux/{OTHER}`: `fast` has compiled parts for `linux/{OTHER}`: `maturin` builds it",
            f"`linux/{OTHER}`: `quick` has compiled parts for `linux/{OTHER}`: `scikit-build-core` builds it",
        ]
        assert done.hint == (
            f"lock a wheel of it or take it from a conda channel, or build on a machine of `linux/{OTHER}`"
        )

    def test_wheels_that_do_not_fit(self, forge: Forge, base: str, tmp_path: Path) -> None:
        name = f"fast-1.0-cp311-cp311-manylinux_2_17_{platform.machine()}.whl"
        row = LockedPypi(name="fast", location=f"https://localhost:1/{name}", version="1.0", sha256="0" * 64)
        tiny = tiny_workspace(tmp_path / "ws", packages=packages(), platforms=SUBDIRS, extra=[row])
        done = self.refused(forge, tmp_path, tiny.root, "--frozen", "--base", base, "--platform", BOTH)
        assert done.message.startswith(f"`linux/{OTHER}`: `{name}` does not fit Python 3.11 on `linux/{OTHER}`")


def test_link_scripts_are_told_of_by_platform(forge: Forge, base: str, tmp_path: Path) -> None:
    """Before anything is made, of every platform; what is so on all of them is said once."""

    some = [CondaPackage(name="some", subdir="linux-64"), CondaPackage(name="some", subdir=SUBDIRS[1], post_link="x\n")]
    every = [CondaPackage(name="every", subdir=subdir, post_link="x\n") for subdir in SUBDIRS]
    tiny = tiny_workspace(tmp_path / "ws", packages=[*some, *every], platforms=SUBDIRS, settings="files = []\n")
    done = forge("build", tiny.root, "--base", base, "--platform", "all")
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert warnings == [
        "warning: `every-1.0-0.tar.bz2` has a link script, which is not run: `bin/.every-post-link.sh`",
        "warning: `linux/arm64`: `some-1.0-0.tar.bz2` has a link script, which is not run: `bin/.some-post-link.sh`",
    ]
    assert lines.index(warnings[-1]) < min(n for n, line in enumerate(lines) if line.startswith("  layer "))
