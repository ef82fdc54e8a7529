"""`ociforge build`: what it says, what the settings make of the image, and what the store spares."""

from __future__ import annotations

import json
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.program import ROOT, ociforge
from tests.support.bases import PATH, tiny_image
from tests.support.images import write_layout
from tests.support.reading import Image, archive_images, layout_images, whole_images
from tests.support.registry import push_layout, running_registry
from tests.support.tiny import SETTINGS, Tiny, tiny_packages, tiny_workspace

if TYPE_CHECKING:
    from tests.cli.program import Done, Forge

_TITLE = "dev.ociforge.layer.title"
_PREFIX = "app/.pixi/envs/default"


def image_of(forge: Forge, tiny: Tiny, directory: Path, *arguments: str, **variables: str) -> Image:
    """The image that a build makes, read from an archive."""
    archive = directory / "image.tar"
    done = forge("build", tiny.root, *arguments, "-o", f"oci-archive:{archive}", variables=variables)
    assert done.code == 0, done.err
    [(image,)] = archive_images(archive).values()
    return image


def ran(image: Image) -> dict[str, Any]:
    """What engines read of the image's configuration."""
    config: dict[str, Any] = image.config["config"]
    return config


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    stream = tar.extractfile(name)
    assert stream is not None
    return stream.read()


def layout_digest(base: str) -> str:
    """What a layout's one name leads to."""
    index = json.loads(Path(base.removeprefix("oci:"), "index.json").read_text())
    return str(index["manifests"][0]["digest"])


class TestOutput:
    """stdout carries the result and nothing else, stderr all the rest."""

    def test_one_line_for_each_destination(self, forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
        targets = [f"oci-archive:{tmp_path}/a.tar", f"oci:{tmp_path}/layout:1", f"oci:{tmp_path}/layout:2"]
        options = [option for target in targets for option in ("-o", target)]
        done = forge("build", made.root, "--base", base, *options)
        digest = done.out.splitlines()[0].rpartition("@")[2]
        assert (done.code, done.out) == (0, "".join(f"{target}@{digest}\n" for target in targets))
        assert {image.digest for (image,) in archive_images(tmp_path / "a.tar").values()} == {digest}
        found = layout_images(tmp_path / "layout")
        assert {name: image.digest for name, (image,) in found.items()} == {"1": digest, "2": digest}

    def test_without_a_destination_it_is_the_digest(self, forge: Forge, made: Tiny, base: str) -> None:
        done = forge("build", made.root, "--base", base)
        assert done.out.startswith("sha256:")
        assert done.out.count("\n") == 1
        stages = (
            f"reading the base image {base} for linux/amd64\nreading what is in 6 packages\npacking 8 of 8 layers\n"
        )
        said = re.sub(r"  (?:blob|layer) sha256:.+ (?:downloaded|made)(?:: .+)?\n", "", done.err)
        assert re.fullmatch(rf"{re.escape(stages)}8 layers: 0 reused, 8 made \([\d.]+ kB\)\n", said)

    def test_quiet(self, forge: Forge, tiny: Tiny, base: str, tmp_path: Path) -> None:
        """Not even warnings; errors are another matter."""
        (tiny.root / ".env").touch()
        done = forge("build", tiny.root, "--base", base, "-q", "-o", f"oci:{tmp_path}/layout")
        assert (done.code, done.err) == (0, "")
        assert forge("build", tiny.root, "--base", f"oci:{tmp_path}/nothing", "-q").err.startswith("error: ")

    def test_verbose_shows_layers_and_blobs(self, forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
        done = forge("build", made.root, "--base", base, "-v", "-o", f"oci:{tmp_path}/layout")
        lines = done.err.splitlines()
        layers = [line for line in lines if line.startswith("  layer sha256:")]
        assert len(layers) == 8
        assert {line.split(": ")[-1] for line in layers} >= {"environment", "tool 2.1", "application"}
        assert all(" made: " in line for line in layers)
        assert sum(line.startswith("  blob ") and " written" in line for line in lines) == 11

    def test_json(self, forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
        target = f"oci:{tmp_path}/layout:1"
        document = json.loads(forge("build", made.root, "--base", base, "--json", "-o", target).out)
        [(image,)] = layout_images(tmp_path / "layout").values()
        assert (document["digest"], document["size"]) == (image.digest, image.descriptor["size"])
        assert document["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
        (copy,) = document["destinations"]
        assert (copy["name"], copy["digest"]) == (f"{target}@{image.digest}", image.digest)
        assert {outcome: tally["count"] for outcome, tally in copy["blobs"].items()} == {
            "uploaded": 11,
            "mounted": 0,
            "exists": 0,
        }
        own = image.manifest["layers"][2:]
        assert [{key: layer[key] for key in ("digest", "size", "title", "key")} for layer in document["layers"]] == [
            {
                "digest": layer["digest"],
                "size": layer["size"],
                "title": layer["annotations"][_TITLE],
                "key": layer["annotations"].get("dev.ociforge.layer.key"),
            }
            for layer in own
        ]
        assert [layer["diffId"] for layer in document["layers"]] == image.diff_ids[2:]
        assert {layer["platform"] for layer in document["layers"]} == {"linux/amd64"}
        (alone,) = document["images"]
        assert {key: alone[key] for key in ("platform", "digest", "mediaType", "size")} == {
            "platform": "linux/amd64",
            **{key: document[key] for key in ("digest", "mediaType", "size")},
        }
        assert alone["packages"][1] == {"kind": "conda", "name": "liba", "version": "1.0", "build": "0"}
        assert [package["name"] for package in alone["packages"]] == ["hook", "liba", "pure", "python", "tool", "words"]
        assert document["leftOutPlatforms"] == []

    @pytest.mark.parametrize("verb", ["build", "plan"])
    def test_the_readme_has_every_key(self, forge: Forge, made: Tiny, base: str, verb: str) -> None:
        text = (ROOT / "README.md").read_text("utf-8")
        rows = [line for line in text.splitlines() if line.startswith((f"| `{verb}` | `", "| both | `"))]
        told = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
        document = json.loads(forge(verb, made.root, "--base", base, "--json").out)
        (image,) = document["images"]
        layers = image["layers"] if verb == "plan" else document["layers"]
        assert told >= {*document, *image, *layers[0], *image["packages"][0]}

    def test_json_is_the_same_for_the_same_image(self, forge: Forge, made: Tiny, base: str) -> None:
        """Whether its layers are made, or the image is known as a whole."""
        documents = [json.loads(forge("build", made.root, "--base", base, "--json").out) for _ in range(2)]
        told = [[layer.pop("reused") for layer in document["layers"]] for document in documents]
        assert told == [[False] * 8, [True] * 8]
        assert documents[0] == documents[1]

    def test_a_plan_has_the_packages_of_each_layer(self, forge: Forge, tiny: Tiny, base: str) -> None:
        tiny.settings("layers = 3\n")
        options = (tiny.root, "--base", base)
        (image,) = json.loads(forge("plan", *options, "--json").out)["images"]
        packages = [layer["packages"] for layer in image["layers"]]
        assert sorted(name for names in packages for name in names) == [
            " ".join((row["name"], row["version"], row["build"])) for row in image["packages"]
        ]
        several = next(names for names in packages if len(names) > 1)
        assert several[0] not in forge("plan", *options).out
        assert "".join(f"      {name}\n" for name in several) in forge("plan", "--verbose", *options).out
        assert forge("build", *options).code == 0
        (image,) = json.loads(forge("plan", *options, "--json").out)["images"]
        assert [layer["packages"] for layer in image["layers"]] == [None] * len(packages)

    def test_two_platforms_make_an_index(self, forge: Forge, tmp_path: Path) -> None:
        both = [*tiny_packages()[:2], *tiny_packages("linux-aarch64")[:2]]
        tiny = tiny_workspace(tmp_path / "ws", packages=both, platforms=("linux-64", "linux-aarch64"))
        images = [tiny_image(), tiny_image(architecture="arm64")]
        write_layout(images, tmp_path / "base")
        options = ("--platform", "linux/arm64", "--platform", "linux/amd64", "-o", f"oci:{tmp_path}/out:1")
        done = forge("build", tiny.root, "--base", f"oci:{tmp_path}/base", *options)
        assert done.code == 0, done.err
        found = layout_images(tmp_path / "out")["1"]
        assert [image.config["architecture"] for image in found] == ["amd64", "arm64"]
        index = json.loads((tmp_path / "out/index.json").read_bytes())["manifests"][0]
        assert done.out == f"oci:{tmp_path}/out:1@{index['digest']}\n"
        alone = image_of(forge, tiny, tmp_path, "--base", f"oci:{tmp_path}/base", "--platform", "linux/arm64")
        assert alone.digest == found[1].digest

    def test_one_platform_twice(self, forge: Forge, made: Tiny, base: str) -> None:
        options = ("--platform", "linux/amd64")
        done = forge("build", made.root, "--base", base, *options, *options)
        assert done.out == forge("build", made.root, "--base", base).out


class TestSettings:
    """What the settings, and options before them, make of the image."""

    def test_defaults(self, forge: Forge, tiny: Tiny, base: str, tmp_path: Path) -> None:
        image = image_of(forge, tiny, tmp_path, "--base", base, "-t", "tiny:1")
        assert ran(image) == {
            "Cmd": ["tool"],
            "Entrypoint": ["/app/entrypoint.sh"],
            "Env": [
                f"PATH=/{_PREFIX}/bin:{PATH}",
                "LANG=C.UTF-8",
                f"CONDA_PREFIX=/{_PREFIX}",
                "TOOL_HOME=/opt/tool",
                "PIXI_PROJECT_ROOT=/app",
                "PIXI_PROJECT_NAME=tiny",
                "PIXI_PROJECT_VERSION=0.1.0",
                "CONDA_DEFAULT_ENV=tiny",
                "PIXI_ENVIRONMENT_NAME=default",
                "PIXI_ENVIRONMENT_PLATFORMS=linux-64",
            ],
            "Labels": {
                "maintainer": "tiny",
                "org.opencontainers.image.title": "tiny",
                "org.opencontainers.image.version": "0.1.0",
            },
            "WorkingDir": "/app",
        }
        assert image.manifest["annotations"] == {
            "dev.ociforge.format": "2",
            "dev.ociforge.glibc": "2.28",
            "dev.ociforge.key": image.manifest["annotations"]["dev.ociforge.key"],
            "org.opencontainers.image.base.digest": layout_digest(base),
            "org.opencontainers.image.title": "tiny",
            "org.opencontainers.image.version": "0.1.0",
        }
        assert "created" not in image.config
        tree = image.tree()
        assert {path for path in tree if path.startswith("app/") and not path.startswith("app/.pixi")} == {
            *("app/entrypoint.sh", "app/link", "app/main.py", "app/run.sh"),
            *("app/pkg", "app/pkg/__init__.py", "app/pkg/grüße.txt"),
        }
        modes = {path: tree[path].mode for path in ("app/run.sh", "app/main.py", "app/pkg", "app/entrypoint.sh")}
        assert modes == {"app/run.sh": 0o755, "app/main.py": 0o644, "app/pkg": 0o755, "app/entrypoint.sh": 0o755}
        assert {(member.uid, member.gid, member.uname) for member in tree.values()} == {(0, 0, "")}
        assert not {path for path in tree if path.split("/")[0] in ("lib", "bin") and "/" in path}

    def test_what_the_packages_become(self, forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
        image = image_of(forge, made, tmp_path, "--base", base)
        assert image.text(f"{_PREFIX}/bin/tool") == f"#!/{_PREFIX}/bin/sh\necho tool\n"
        assert image.text(f"{_PREFIX}/bin/pure").startswith(f"#!/{_PREFIX}/bin/python3.11\n")
        assert image.text(f"{_PREFIX}/lib/python3.11/site-packages/pure/__init__.py")
        assert image.tree()[f"{_PREFIX}/lib/liba.so"].linkname == "liba.so.1"
        assert image.text(f"{_PREFIX}/share/words/grüße") == "grüße\n"
        record = json.loads(image.text(f"{_PREFIX}/conda-meta/tool-2.1-h1_3.json"))
        assert (record["name"], record["build_number"]) == ("tool", 3)
        for layer in image.layers[2:]:
            assert str(made.root.parent).encode() not in layer
            assert b"_placehold_placehold/" not in layer
        assert f". /{_PREFIX}/etc/conda/activate.d/hook.sh\n" in image.text("app/entrypoint.sh")

    def test_every_key(self, forge: Forge, tiny: Tiny, base: str, tmp_path: Path) -> None:
        tiny.manifest.write_text(tiny.manifest.read_text(encoding="utf-8").replace(SETTINGS, ""), encoding="utf-8")
        tiny.settings(f"""\
base = "{base}"
prefix = "/opt/env"
workdir = "/srv/app"
files = ["main.py", "pkg"]
entrypoint = ["/usr/bin/env"]
cmd = ["tool", "--flag"]
env = {{ LANG = "de_DE.UTF-8", NEW = "a b$" }}
expose = [8000, "53/udp"]
user = "1000:1000"
volumes = ["/data"]
labels = {{ maintainer = "me", "org.opencontainers.image.version" = "2" }}
annotations = {{ note = "x", "org.opencontainers.image.title" = "other" }}
stop-signal = "INT"
healthcheck = {{ cmd = ["tool", "ok"], interval = "1m30s", retries = 2 }}
layers = 3
compression = "zstd:3"
""")
        image = image_of(forge, tiny, tmp_path)
        assert ran(image) | {"Env": None} == {
            "Cmd": ["tool", "--flag"],
            "Entrypoint": ["/usr/bin/env"],
            "Env": None,
            "ExposedPorts": {"53/udp": {}, "8000/tcp": {}},
            "Healthcheck": {"Interval": 90_000_000_000, "Retries": 2, "Test": ["CMD", "tool", "ok"]},
            "Labels": {
                "maintainer": "me",
                "org.opencontainers.image.title": "tiny",
                "org.opencontainers.image.version": "2",
            },
            "StopSignal": "SIGINT",
            "User": "1000:1000",
            "Volumes": {"/data": {}},
            "WorkingDir": "/srv/app",
        }
        variables = dict(item.split("=", 1) for item in ran(image)["Env"])
        assert (variables["LANG"], variables["NEW"]) == ("de_DE.UTF-8", "a b$")
        assert variables["PATH"] == f"/opt/env/bin:{PATH}"
        assert image.manifest["annotations"] == {
            "dev.ociforge.format": "2",
            "dev.ociforge.glibc": "2.28",
            "dev.ociforge.key": image.manifest["annotations"]["dev.ociforge.key"],
            "org.opencontainers.image.base.digest": layout_digest(base),
            "note": "x",
            "org.opencontainers.image.title": "other",
            "org.opencontainers.image.version": "0.1.0",
        }
        own = image.manifest["layers"][2:]
        assert len(own) == 3 + 2
        assert {layer["mediaType"] for layer in own} == {"application/vnd.oci.image.layer.v1.tar+zstd"}
        assert image.text("opt/env/bin/tool").startswith("#!/opt/env/bin/sh\n")
        app = {path for path in image.members(-1) if path.startswith("srv/app/")}
        assert app == {"srv/app/main.py", "srv/app/pkg", "srv/app/pkg/__init__.py", "srv/app/pkg/grüße.txt"}
        assert "app/entrypoint.sh" not in image.tree()

    def test_images_of_one_workspace(self, forge: Forge, tiny: Tiny, base: str, tmp_path: Path) -> None:
        tiny.settings(f"""\
base = "{base}"
user = 1
env = {{ A = "common", B = "common" }}
[tool.ociforge.images.web]
expose = [80]
env = {{ B = "web" }}
[tool.ociforge.images.job]
user = 2
cmd = ["job"]
""")
        web, job = (ran(image_of(forge, tiny, tmp_path, "--image", name)) for name in ("web", "job"))
        assert (web["User"], web["Cmd"], web["ExposedPorts"]) == ("1", ["tool"], {"80/tcp": {}})
        assert (job["User"], job["Cmd"], "ExposedPorts" in job) == ("2", ["job"], False)
        assert [item for item in web["Env"] if item[:2] in ("A=", "B=")] == ["A=common", "B=web"]
        assert [item for item in job["Env"] if item[:2] in ("A=", "B=")] == ["A=common", "B=common"]
        refused = forge("build", tiny.root)
        assert refused.code == 2
        assert refused.message == "the workspace has several images: `web`, `job`"
        assert refused.hint == "choose one with `--image`"
        assert forge("build", tiny.root, "--image", "wep").message.startswith("there is no image `wep` in ")

    def test_environments_and_options_before_settings(
        self, forge: Forge, tiny: Tiny, base: str, tmp_path: Path
    ) -> None:
        head, _, tail = tiny.manifest.read_text(encoding="utf-8").partition("[tool.ociforge]")
        text = f"{head}[environments]\nother = []\n\n[tool.ociforge]{tail}"
        tiny.manifest.write_text(text + 'base = "oci:nowhere"\ncompression = "zstd"\n', encoding="utf-8")
        lock = tiny.lock.read_text(encoding="utf-8")
        above, _, below = lock.partition("  default:\n")
        block = below.partition("packages:\n- ")[0]
        tiny.lock.write_text(f"{above}  default:\n{block}  other:\n{block}{below.removeprefix(block)}", "utf-8")
        options = ("-e", "other", "--base", base, "--compression", "none")
        image = image_of(forge, tiny, tmp_path, *options)
        assert "CONDA_PREFIX=/app/.pixi/envs/other" in ran(image)["Env"]
        assert {layer["mediaType"] for layer in image.manifest["layers"][2:]} == {
            "application/vnd.oci.image.layer.v1.tar"
        }

    def test_relative_bases(
        self, forge: Forge, tiny: Tiny, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An option is relative to the working directory, a setting to the workspace."""
        (tmp_path / "here").symlink_to(base.removeprefix("oci:"))
        monkeypatch.chdir(tmp_path)
        assert forge("build", tiny.root, "--base", "oci:here").code == 0
        tiny.settings('base = "oci:../here"\n')
        assert forge("build", "workspace").code == 0

    def test_the_base_is_inherited(self, forge: Forge, tiny: Tiny, tmp_path: Path) -> None:
        inherited = {
            "Env": ["PATH=/bin", "BASE=1"],
            "User": "7",
            "StopSignal": "SIGQUIT",
            "ExposedPorts": {"1/tcp": {}},
            "Volumes": {"/v": {}},
            "Healthcheck": {"Test": ["NONE"]},
        }
        below = replace(tiny_image(), config=inherited)
        write_layout(below, tmp_path / "base", dialect="docker", compression="gzip")
        image = image_of(forge, tiny, tmp_path, "--base", f"oci:{tmp_path}/base")
        kept = {key: value for key, value in ran(image).items() if key in inherited and key != "Env"}
        assert kept == {key: value for key, value in inherited.items() if key != "Env"}
        assert ran(image)["Env"][:2] == [f"PATH=/{_PREFIX}/bin:/bin", "BASE=1"]
        assert image.layers[:2] == below.layers
        assert image.manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
        assert image.manifest["layers"][0]["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
        assert image.config["history"][:3] == [dict(entry) for entry in below.history or ()]

    def test_the_base_is_named(self, forge: Forge, tiny: Tiny, base: str, tmp_path: Path) -> None:
        """Of a base in a registry, so that the image can be found out to be behind it."""
        with running_registry(tmp_path / "registry") as registry:
            digest = push_layout(Path(base.removeprefix("oci:")), registry, "team/base", "1")
            image = image_of(forge, tiny, tmp_path, "--base", f"docker://{registry.host}/team/base:1")
            again = image_of(forge, tiny, tmp_path, "--base", f"docker://{registry.host}/team/base@{digest}")
        notes = image.manifest["annotations"]
        assert notes["org.opencontainers.image.base.name"] == f"{registry.host}/team/base:1"
        assert notes["org.opencontainers.image.base.digest"] == digest
        assert again.manifest["annotations"]["org.opencontainers.image.base.digest"] == digest
        assert again.diff_ids == image.diff_ids

    def test_scratch_has_no_entrypoint(self, forge: Forge, tmp_path: Path) -> None:
        """Without a shell the configuration alone activates."""
        tiny = tiny_workspace(tmp_path / "ws", packages=tiny_packages()[:2])
        image = image_of(forge, tiny, tmp_path, "--base", "scratch")
        assert "Entrypoint" not in ran(image)
        assert ran(image)["Env"][0] == f"PATH=/{_PREFIX}/bin:{PATH}"
        assert image.config["architecture"] == "amd64"
        assert not [path for path in image.tree() if path.endswith("entrypoint.sh")]

    def test_names_of_archives(self, forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
        options = ("-t", "team/app:1", "-t", "app:2", "-o", f"oci-archive:{tmp_path}/a.tar")
        assert forge("build", made.root, "--base", base, *options).code == 0
        with tarfile.open(tmp_path / "a.tar") as tar:
            index, docker = (json.loads(_member(tar, name)) for name in ("index.json", "manifest.json"))
        entries = [entry["annotations"] for entry in index["manifests"]]
        assert {entry["io.containerd.image.name"] for entry in entries} == {
            "docker.io/team/app:1",
            "docker.io/library/app:2",
        }
        assert {entry["org.opencontainers.image.ref.name"] for entry in entries} == {"1", "2"}
        assert sorted(docker[0]["RepoTags"]) == ["docker.io/library/app:2", "docker.io/team/app:1"]


class TestTime:
    """SOURCE_DATE_EPOCH is the only clock."""

    def test_epoch(self, forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
        image = image_of(forge, made, tmp_path, "--base", base, SOURCE_DATE_EPOCH="1650000000")
        assert image.config["created"] == "2022-04-15T05:20:00Z"
        assert image.manifest["annotations"]["org.opencontainers.image.created"] == "2022-04-15T05:20:00Z"
        assert {entry.get("created") for entry in image.config["history"][3:]} == {"2022-04-15T05:20:00Z"}
        tree = image.tree()
        ours = {tree[path].mtime for path in ("app/main.py", "app/entrypoint.sh", _PREFIX, f"{_PREFIX}/bin/tool")}
        assert ours == {1_650_000_000}
        assert tree[f"{_PREFIX}/share/a/data"].mtime == 1_704_164_645
        assert tree[f"{_PREFIX}/share/words/grüße"].mtime == 1_600_000_000

    def test_clamp(self, forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
        image = image_of(forge, made, tmp_path, "--base", base, "--clamp-mtime", SOURCE_DATE_EPOCH="1650000000")
        own = {member.mtime for layer in range(2, len(image.layers)) for member in image.members(layer).values()}
        assert own == {1_600_000_000, 1_650_000_000}

    def test_an_empty_variable_is_none(self, forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
        image = image_of(forge, made, tmp_path, "--base", base, SOURCE_DATE_EPOCH="")
        assert "created" not in image.config

    @pytest.mark.parametrize("value", ["abc", "-1", "1.5", "99999999999999999999", "٣"])
    def test_garbage(self, forge: Forge, made: Tiny, value: str) -> None:
        done = forge("build", made.root, variables={"SOURCE_DATE_EPOCH": value})
        assert done.code == 2
        assert done.message == f"SOURCE_DATE_EPOCH: `{value}`: expected seconds since 1970"

    def test_clamping_to_nothing(self, forge: Forge, made: Tiny) -> None:
        done = forge("build", made.root, "--clamp-mtime")
        assert (done.code, done.message) == (2, "--clamp-mtime: SOURCE_DATE_EPOCH is not set")


class TestStore:
    """What was made is not made again; what was damaged is."""

    @staticmethod
    def states(done: Done) -> dict[str, str]:
        """What `--verbose` says of each layer: made or reused."""
        lines = [line for line in done.err.splitlines() if line.startswith("  layer ")]
        return {title: head.split()[-1] for head, _, title in (line.partition(": ") for line in lines)}

    def test_packages_are_reused(self, forge: Forge, tiny: Tiny, base: str) -> None:
        first = self.states(forge("build", tiny.root, "--base", base, "-v"))
        assert set(first.values()) == {"made"}
        (tiny.root / "main.py").write_text("print('changed')\n")
        second = self.states(forge("build", tiny.root, "--base", base, "-v"))
        assert {title for title, state in second.items() if state == "made"} == {"application"}
        assert first.keys() == second.keys()

    def test_other_inputs_make_other_layers(self, forge: Forge, tiny: Tiny, base: str) -> None:
        """A layer key is of everything that its bytes depend on."""
        options: tuple[tuple[str, ...], ...] = ((), ("--compression", "zstd"), ("--compression", "gzip:2"))
        for arguments in options:
            assert set(self.states(forge("build", tiny.root, "--base", base, "-v", *arguments)).values()) == {"made"}
        later = {"SOURCE_DATE_EPOCH": "1"}
        done = forge("build", tiny.root, "--base", base, "-v", variables=later)
        assert set(self.states(done).values()) == {"made"}
        tiny.settings('prefix = "/opt/env"\n')
        moved = self.states(forge("build", tiny.root, "--base", base, "-v"))
        assert {title for title, state in moved.items() if state == "reused"} == {"application"}

    @pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
    def test_damage_heals(self, forge: Forge, base: str, tmp_path: Path, damage: str) -> None:
        """Whatever file of the store is damaged: the build succeeds, or says what to do, and then succeeds."""
        tiny = tiny_workspace(tmp_path / "ws", packages=tiny_packages()[:2])

        def attempt() -> Done:
            return forge("build", tiny.root, "--base", base, "-q", "-o", f"oci-archive:{tmp_path}/a.tar")

        expected = attempt().out
        for path in sorted(path for path in forge.cache.rglob("*") if path.is_file()):
            data = path.read_bytes()
            middle = len(data) // 2
            flipped = data[:middle] + bytes([data[middle] ^ 0x40]) + data[middle + 1 :] if data else b"x"
            path.write_bytes({"flip": flipped, "cut": data[:middle], "empty": b""}[damage])
            (tmp_path / "a.tar").unlink()
            done = attempt()
            if done.code:
                assert done.message.startswith("damaged blob `sha256:"), path
                assert done.hint == f"it was removed from `{forge.cache}/blobs/sha256`: run the command again"
                assert not (tmp_path / "a.tar").exists()
                done = attempt()
            assert done.out == expected, path

    def test_builds_side_by_side(self, made: Tiny, base: str, tmp_path: Path) -> None:
        """Processes that share a cache, a layout and an archive do not get in each other's way."""
        with ThreadPoolExecutor(3) as pool:
            outputs = [("-o", f"oci:{tmp_path}/layout:{n}", "-o", f"oci-archive:{tmp_path}/a.tar") for n in range(3)]
            ends = list(
                pool.map(lambda output: ociforge("build", made.root, "--base", base, *output, home=tmp_path), outputs)
            )
        assert [end.code for end in ends] == [0, 0, 0], [end.err for end in ends]
        (digest,) = {line.rpartition("@")[2] for end in ends for line in end.out.splitlines()}
        assert whole_images(tmp_path / "layout") == {"0": digest, "1": digest, "2": digest}
        [(image,)] = archive_images(tmp_path / "a.tar").values()
        assert image.digest == digest
        assert not list(tmp_path.rglob(".ociforge-*"))
