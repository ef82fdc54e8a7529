"""`ociforge rebase`: from every place to every place, and what it costs a registry."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ociforge.oci.annotations import BASE_DIGEST
from tests.support.bases import PATH, tar_of, tiny_image
from tests.support.images import HandmadeImage, write_docker_archive, write_layout, write_oci_archive
from tests.support.reading import layout_images
from tests.support.registry import Registry, push_layout, running_registry
from tests.support.tiny import SETTINGS, tiny_packages, tiny_workspace
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.program import Done, Forge
    from tests.support.tiny import Tiny


def layer(name: str) -> bytes:
    """All that a base needs to have."""
    return tar_of({"usr": 0o755, "usr/bin": 0o755, "usr/bin/sh": name.encode(), "bin": "usr/bin", "tmp": 0o1777})


# Of one layer each, as the images of Debian and Ubuntu are.
OLD = replace(tiny_image(), layers=(layer("old"),), history=None)
NEW = replace(
    OLD,
    layers=(layer("new"),),
    config={"Env": [f"PATH={PATH}", "NEWER=1"], "User": "1000"},
)
BASES = {"old": OLD, "new": NEW}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """With the bases `bases:old` and `bases:new`, for two platforms."""
    directory = tmp_path_factory.mktemp("registry")
    with running_registry(directory / "registry") as running:
        for tag, image in BASES.items():
            write_layout([image, replace(image, architecture="arm64", variant="v8")], directory / tag)
            push_layout(directory / tag, running, "bases", tag)
        yield running


def base(registry: Registry, tag: str) -> str:
    return f"docker://{registry.host}/bases:{tag}"


def report(done: Done) -> list[dict[str, Any]]:
    assert done.code == 0, done.err
    copies: list[dict[str, Any]] = json.loads(done.out)["destinations"]
    return copies


def inspected(forge: Forge, place: str) -> dict[str, Any]:
    """The one image there."""
    (image,) = json.loads(forge("inspect", "--json", place).out)["images"]
    assert isinstance(image, dict)
    return image


@pytest.mark.parametrize(
    ("name", "pinned", "outcome", "most"),
    [
        ("app:2", False, "exists", 19),
        ("app:1", True, "exists", 19),
        ("other/app:1", False, "mounted", 19 + 8),  # each of the eight layers is mounted
    ],
)
def test_it_is_the_image_that_a_build_makes(
    forge: Forge, tiny: Tiny, registry: Registry, tmp_path: Path, name: str, pinned: bool, outcome: str, most: int
) -> None:
    """Configuration and layers; and no layer of the image crosses, in few requests of a machine that knows nothing."""
    space = f"{registry.host}/{name.replace(':', '-')}"
    place, target, anew = f"docker://{space}/app:1", f"{space}/{name}", f"oci:{tmp_path}/built:1"
    for tag, destination in {"old": place, "new": anew}.items():
        assert forge("build", tiny.root, "--base", base(registry, tag), "-o", destination).code == 0
    before, wanted = (inspected(forge, where) for where in (place, anew))
    new = base(registry, "new") + (f"@{wanted['annotations'][BASE_DIGEST]}" if pinned else "")
    requests, started = len(registry.requests()), time.monotonic()
    (copy,) = report(
        replace(forge, cache=tmp_path / "cold")("rebase", "--json", place, "--base", new, "--push", target)
    )
    assert time.monotonic() - started < 1
    assert len(registry.requests()) - requests <= most
    own = {layer["digest"] for layer in before["layers"][1:]}
    assert len(own) == 8
    assert {t["digest"]: t["outcome"] for t in copy["transfers"] if t["digest"] in own} == dict.fromkeys(own, outcome)
    assert sorted(t["kind"] for t in copy["transfers"] if t["sent"]) == ["config", "manifest"]
    found = inspected(forge, f"docker://{target}")
    assert found["config"] == wanted["config"]
    assert [layer["digest"] for layer in found["layers"]] == [layer["digest"] for layer in wanted["layers"]]


def test_what_the_workspace_sets_stays_though_the_old_base_had_it(forge: Forge, tmp_path: Path) -> None:
    own = 'user = "7"\nenv = { LANG = "C.UTF-8" }\nlabels = { maintainer = "tiny" }\n'
    tiny = tiny_workspace(tmp_path / "workspace", packages=tiny_packages()[:2], settings=SETTINGS + own)
    same = {"Env": [f"PATH={PATH}", "LANG=C.UTF-8"], "User": "7", "Labels": {"maintainer": "tiny"}}
    write_layout(replace(OLD, config=same), tmp_path / "old")
    write_layout(NEW, tmp_path / "new")
    for base, output in (("old", "app"), ("new", "wanted")):
        done = forge("build", tiny.root, "--base", f"oci:{tmp_path}/{base}", "-o", f"oci:{tmp_path}/{output}")
        assert done.code == 0, done.err
    arguments = (f"oci:{tmp_path}/app", "--old-base", f"oci:{tmp_path}/old", "--base", f"oci:{tmp_path}/new")
    assert forge("rebase", *arguments, "-o", f"oci:{tmp_path}/to").code == 0
    configs = []
    for name in ("to", "wanted"):
        ((image,),) = layout_images(tmp_path / name).values()
        configs.append(image.config["config"])
    found, wanted = configs
    assert {**found, "Env": sorted(found["Env"])} == {**wanted, "Env": sorted(wanted["Env"])}
    assert (found["User"], found["Labels"]["maintainer"]) == ("7", "tiny")
    assert "LANG=C.UTF-8" in found["Env"]


def own_image(name: str, below: HandmadeImage = OLD) -> HandmadeImage:
    """An image that somebody else built on a base."""
    layers = (*below.layers, tar_of({"opt": 0o755, "opt/own": name.encode()}))
    return replace(below, layers=layers, config={**below.config, "Cmd": ["/opt/own"]})


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_from_files_to_files(forge: Forge, tmp_path: Path, kind: str) -> None:
    """Without a registry; the image keeps its name, and skopeo reads what comes out."""
    image = own_image(kind)
    for tag, each in BASES.items():
        write_layout(each, tmp_path / tag)
    source = f"{kind}:{tmp_path}/image"
    if kind == "oci":
        write_layout(image, tmp_path / "image", tag="1.4")
    elif kind == "oci-archive":
        write_oci_archive(image, tmp_path / "image", tag="1.4")
    else:
        write_docker_archive(image, tmp_path / "image", tags=("h.io/app:1.4",))
    arguments = [source, "--base", f"oci:{tmp_path}/new", "--old-base", f"oci:{tmp_path}/old"]
    done = forge("rebase", *arguments, "-o", f"oci:{tmp_path}/to", "-o", f"oci-archive:{tmp_path}/a.tar:h.io/x:1")
    assert done.code == 0, done.err
    ((name, (found,)),) = layout_images(tmp_path / "to").items()
    assert name is not None
    assert name.endswith("1.4")
    assert done.out == f"oci:{tmp_path}/to@{found.digest}\noci-archive:{tmp_path}/a.tar:h.io/x:1@{found.digest}\n"
    assert found.layers == (*NEW.layers, image.layers[1])
    assert (found.config["config"]["User"], found.config["config"]["Cmd"]) == ("1000", ["/opt/own"])
    shown = subprocess.run(
        [need("skopeo"), "inspect", f"oci-archive:{tmp_path}/a.tar"], capture_output=True, text=True, check=True
    )
    assert json.loads(shown.stdout)["Digest"] == found.digest


def test_an_index_and_one_image_of_it(forge: Forge, registry: Registry, tmp_path: Path) -> None:
    image = own_image("index")
    write_layout([image, replace(image, architecture="arm64", variant="v8")], tmp_path / "from", tag="1")
    arguments = [f"oci:{tmp_path}/from", "--base", base(registry, "new"), "--old-base", base(registry, "old")]
    assert forge("rebase", *arguments, "-o", f"oci:{tmp_path}/both", "-t", "named:2").code == 0
    assert forge("rebase", *arguments, "-o", f"oci:{tmp_path}/one", "--platform", "linux/arm64").code == 0
    ((name, both),) = layout_images(tmp_path / "both").items()
    (one,) = layout_images(tmp_path / "one").values()
    assert name is not None
    assert "2" in name
    assert [each.config["architecture"] for each in both] == ["amd64", "arm64"]
    assert [each.digest for each in one] == [both[1].digest]
    assert all(each.layers[0] == NEW.layers[0] for each in both)


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["--base", "scratch"], 2, "there is nowhere to put the image", "`--push REF`"),
        (["--base", "scratch", "--push", "h.io/a", "-t", "b"], 2, "--tag: names an image in a layout", "`--output`"),
        (["--base", "scratch", "--push", "oci:~/to"], 2, "`oci:~/to` is a layout", "`--output oci:"),
        (
            ["--base", "docker://h.io/b:1", "--old-base", "oci:~/old", "-o", "oci:~/to", "--offline"],
            1,
            "the base image `docker://h.io/b:1` for `linux/amd64` is not pinned",
            "by `ociforge push docker://… oci:DIRECTORY`, and name that",
        ),
        (["--base", "scratch", "-o", "oci:~/to"], 1, "it does not say what it stands on", "`--old-base LOCATION`"),
        (["--base", "oci:~/none", "--old-base", "oci:~/old", "-o", "oci:~/to"], 1, "reading `oci:~/none`", ""),
        (["--base", "nothing", "--old-base", "oci:~/old", "-o", "oci:~/to"], 2, "no transport in", "`docker://"),
        (
            ["--base", "oci:~/old", "--old-base", "oci:~/new", "-o", "oci:~/to"],
            1,
            "it does not stand on `oci:~/new`, whose layers are not its lowest",
            "by its digest",
        ),
        (["--base", "oci:~/clash", "--old-base", "oci:~/old", "-o", "oci:~/to"], 1, "`/opt`: a directory", "anew"),
    ],
)
def test_refusals(forge: Forge, tmp_path: Path, arguments: list[str], code: int, message: str, hint: str) -> None:
    clash = replace(OLD, layers=(*OLD.layers, tar_of({"opt": "usr"})), history=None)
    for tag, each in {**BASES, "clash": clash, "from": own_image("refused")}.items():
        write_layout(each, tmp_path / tag)
    done = forge("rebase", f"oci:{tmp_path}/from", *(each.replace("~", str(tmp_path)) for each in arguments))
    assert done.code == code
    assert message.replace("~", str(tmp_path)) in done.message
    assert hint in (done.hint or "")
    assert not (tmp_path / "to").exists()
