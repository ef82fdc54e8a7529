"""`ociforge inspect`: what is in an image, and the bytes that say so."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ociforge.plan import FORMAT
from tests.cli.program import environment
from tests.support.bases import tiny_image
from tests.support.images import HandmadeImage, digest_of, write_docker_archive, write_layout, write_oci_archive
from tests.support.registry import push_layout, running_registry
from tests.support.tools import need
from tests.test_readme import README, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.program import Forge
    from tests.support.registry import Registry
    from tests.support.tiny import Tiny

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("inspect") / "registry") as running:
        yield running


@pytest.fixture
def index(tmp_path: Path) -> tuple[Path, str]:
    """A layout with an index of two platforms, called `latest`, and its digest."""
    return tmp_path / "from", write_layout([tiny_image(), tiny_image(architecture="arm64")], tmp_path / "from")


def document(forge: Forge, *arguments: str) -> Any:
    done = forge("inspect", "--json", *arguments)
    assert done.code == 0, done.err
    return json.loads(done.out)


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def test_raw_is_what_skopeo_says_too(forge: Forge, registry: Registry, index: tuple[Path, str]) -> None:
    layout, digest = index
    push_layout(layout, registry, "raw", "1")
    for place in (f"oci:{layout}", f"docker://{registry.host}/raw:1"):
        command = [need("skopeo"), "inspect", "--raw", "--tls-verify=false", place]
        theirs = subprocess.run(command, check=True, capture_output=True).stdout
        ours = forge("inspect", "--raw", place)
        assert (ours.code, ours.out.encode(), ours.err) == (0, theirs, "")
        assert digest_of(theirs) == digest


def test_raw_of_every_place(forge: Forge, registry: Registry, tmp_path: Path) -> None:
    """Not a byte more, not one less: no line break at the end."""
    image = tiny_image()
    layout, archive, saved = tmp_path / "l", tmp_path / "a.tar", tmp_path / "d.tar"
    digest = write_layout(image, layout)
    assert write_oci_archive(image, archive) == push_layout(layout, registry, "every", "1") == digest
    write_docker_archive(image, saved)
    places = [f"oci:{layout}", f"oci-archive:{archive}", f"docker://{registry.host}/every@{digest}"]
    for place in places:
        assert digest_of(forge("inspect", "--raw", place).out.encode()) == digest
    made = document(forge, f"docker-archive:{saved}")
    assert digest_of(forge("inspect", "--raw", f"docker-archive:{saved}").out.encode()) == made["digest"]


def test_bytes_stay_bytes(tmp_path: Path) -> None:
    """Through the whole program: line breaks of all kinds, and no newline of ours."""
    layout = tmp_path / "odd"
    write_layout(tiny_image(), layout)
    top = json.loads((layout / "index.json").read_bytes())
    (entry,) = top["manifests"]
    data = blob(layout, entry["digest"]).replace(b"{", b'{\r\n "x":"\xc3\xa9",\r', 1) + b"\n\n"
    digest = digest_of(data)
    (layout / "blobs" / digest.replace(":", "/")).write_bytes(data)
    entry |= {"digest": digest, "size": len(data)}
    (layout / "index.json").write_text(json.dumps(top))
    program = [sys.executable, "-m", "ociforge", "inspect", "--raw", f"oci:{layout}"]
    variables = environment(tmp_path, PYTHONIOENCODING="ascii")
    assert subprocess.run(program, capture_output=True, check=True, env=variables).stdout == data


def test_a_platform_of_an_index(forge: Forge, index: tuple[Path, str]) -> None:
    layout, digest = index
    entries = json.loads(blob(layout, digest))["manifests"]
    for entry in entries:
        platform = f"linux/{entry['platform']['architecture']}"
        choice = (f"oci:{layout}", "--platform", platform)
        manifest = forge("inspect", "--raw", *choice).out.encode()
        assert digest_of(manifest) == entry["digest"]
        config = forge("inspect", "--config", *choice).out.encode()
        assert digest_of(config) == json.loads(manifest)["config"]["digest"]
        assert [image["platform"] for image in document(forge, *choice)["images"]] == [platform]


def test_the_json_is_what_the_readme_says(forge: Forge, index: tuple[Path, str]) -> None:
    layout, digest = index
    found = document(forge, f"oci:{layout}")
    documented = [name.strip("` ") for row in table("What is in an image") for name in row[0].split(",")]
    assert sorted(found) == sorted(documented)
    section = README.split("\n### What is in an image\n", 1)[1].split("\n### ", 1)[0]
    for image in found["images"]:
        for part in (image, image["config"], *image["layers"]):
            assert all(f"`{key}`" in section for key in part)
    assert (found["digest"], found["mediaType"], found["size"]) == (digest, INDEX, len(blob(layout, digest)))
    image = found["images"][1]
    manifest = json.loads(blob(layout, image["digest"]))
    config = json.loads(blob(layout, manifest["config"]["digest"]))
    assert image["platform"] == "linux/arm64"
    assert image["created"] == config["created"]
    assert [layer["digest"] for layer in image["layers"]] == [layer["digest"] for layer in manifest["layers"]]
    assert [layer["diffId"] for layer in image["layers"]] == config["rootfs"]["diff_ids"]
    assert image["layersSize"] == sum(layer["size"] for layer in manifest["layers"])
    assert image["config"]["cmd"] == config["config"]["Cmd"]
    assert image["config"]["env"] == dict(text.split("=", 1) for text in config["config"]["Env"])
    assert image["config"]["labels"] == config["config"]["Labels"]


def test_an_image_of_ours(forge: Forge, made: Tiny, base: str, tmp_path: Path) -> None:
    """With titles, keys and the format number."""
    built = forge("build", made.root, "--base", base, "-o", f"oci:{tmp_path}/out:1", "--json")
    assert built.code == 0, built.err
    layers = json.loads(built.out)["layers"]
    (image,) = document(forge, f"oci:{tmp_path}/out:1")["images"]
    assert [(layer["title"], layer["key"]) for layer in image["layers"][-len(layers) :]] == [
        (layer["title"], layer["key"]) for layer in layers
    ]
    assert image["format"] == str(FORMAT)
    shown = forge("inspect", f"oci:{tmp_path}/out:1").out
    assert f"\n  format       {FORMAT}\n" in shown
    assert '\n  entrypoint   ["/app/entrypoint.sh"]\n' in shown
    for layer in layers:
        line = next(line for line in shown.splitlines() if line.endswith(f"  {layer['title']}"))
        assert layer["digest"][:19] in line


def test_for_people(forge: Forge, index: tuple[Path, str]) -> None:
    layout, digest = index
    done = forge("inspect", f"oci:{layout}")
    assert (done.code, done.err) == (0, "")
    amd64, arm64 = json.loads(blob(layout, digest))["manifests"]
    lines = done.out.splitlines()
    assert lines[:4] == [
        f"oci:{layout}",
        f"  digest       {digest}",
        f"  media type   {INDEX}",
        "  platforms    linux/amd64, linux/arm64",
    ]
    assert f"linux/amd64  {amd64['digest']}" in lines
    assert f"linux/arm64  {arm64['digest']}" in lines
    assert lines.count('  cmd          ["/bin/sh"]') == 2
    assert lines.count("  layers       2, 940 B") == 2
    assert not [line for line in lines if line != line.rstrip()]


def test_what_comes_from_outside_is_escaped(forge: Forge, tmp_path: Path) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\u202e\r"
    config = {"Labels": {"a": evil}, "Env": [f"E={evil}"], "Cmd": [evil], "User": evil, "ExposedPorts": {evil: {}}}
    image = HandmadeImage(layers=(), config=config, annotations={evil: evil, "dev.ociforge.format": evil}, created=evil)
    write_layout(image, tmp_path / "evil")
    done = forge("inspect", f"oci:{tmp_path}/evil")
    assert done.code == 0, done.err
    assert all(line.isprintable() for line in done.out.splitlines())
    assert done.out.count("\\x1b[2J") == 8
    assert done.out.count("\\u001b[2J") == 1  # in the command, which is JSON
    found = json.loads(forge("inspect", "--json", f"oci:{tmp_path}/evil").out)
    assert found["images"][0]["config"]["labels"] == {"a": evil}


def test_a_value_without_end_is_cut(forge: Forge, tmp_path: Path) -> None:
    write_layout(HandmadeImage(layers=(), config={"Labels": {"long": "x" * 100_000}}), tmp_path / "long")
    shown = forge("inspect", f"oci:{tmp_path}/long").out
    assert max(map(len, shown.splitlines())) < 400
    assert f"{'x' * 295}…\n" in shown


def test_attestations_are_no_images(forge: Forge, tmp_path: Path) -> None:
    unknown = HandmadeImage(layers=(), architecture="unknown")
    write_layout([tiny_image(), unknown], tmp_path / "from")
    found = document(forge, f"oci:{tmp_path}/from")
    assert [image["platform"] for image in found["images"]] == ["linux/amd64"]
    (attachment,) = found["attachments"]
    assert attachment["mediaType"] == MANIFEST
    assert f"  attached     {attachment['digest'][:19]}  {MANIFEST}" in forge("inspect", f"oci:{tmp_path}/from").out


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (["ubuntu:24.04"], 2, "no transport in the location `ubuntu:24.04`: expected", "write `docker://ubuntu:24.04`"),
        (["--raw", "--json", "oci:~/from"], 2, "--raw, --config and --json exclude each other", "leave out all but"),
        (["--config", "oci:~/from"], 2, "--config: this is an index", "`linux/amd64`, `linux/arm64`"),
        (["--platform", "arm64", "oci:~/from"], 2, "`arm64`: expected OS/ARCH or OS/ARCH/VARIANT", "inspect --help"),
        (["--platform", "windows/amd64", "oci:~/from"], 1, "image index: no image for `windows/amd64`", "choose"),
        (
            ["--platform", "linux/s390x", "oci:~/one"],
            1,
            "expected one for `linux/s390x`, got one for `linux/amd64`",
            "leave out `--platform`",
        ),
        (["oci:~/none"], 1, "reading `oci:~/none`: `~/none/oci-layout`: No such file or directory", ""),
    ],
)
def test_refused(
    forge: Forge, index: tuple[Path, str], tmp_path: Path, arguments: list[str], code: int, message: str, hint: str
) -> None:
    write_layout(tiny_image(), tmp_path / "one")
    done = forge("inspect", *(argument.replace("~", str(tmp_path)) for argument in arguments))
    assert done.code == code
    assert message in done.message.replace(str(tmp_path), "~")
    assert hint in (done.hint or "")


def test_a_document_that_is_not_what_it_is_called(forge: Forge, index: tuple[Path, str]) -> None:
    layout, digest = index
    path = layout / "blobs" / digest.replace(":", "/")
    path.write_bytes(path.read_bytes().replace(b"arm64", b"amd65"))
    for option in ("--raw", "--json"):
        done = forge("inspect", option, f"oci:{layout}")
        assert done.code == 1
        assert done.message.startswith(f"blob `{digest}`: got bytes with the digest `sha256:")


def test_only_documents_are_fetched(forge: Forge, registry: Registry, tmp_path: Path) -> None:
    digest = write_layout(tiny_image(), tmp_path / "from")
    push_layout(tmp_path / "from", registry, "few", "1")
    before = len(registry.requests())
    assert forge("inspect", f"docker://{registry.host}/few:1").code == 0
    config = json.loads(blob(tmp_path / "from", digest))["config"]["digest"]
    asked = registry.requests()[before:]
    assert {request.split()[1] for request in asked if "/blobs/" in request} == {f"/v2/few/blobs/{config}"}
    assert len(asked) <= 4
