"""`ociforge push`: an image from one place to others, unchanged."""

from __future__ import annotations

import json
import subprocess
import tarfile
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.bases import tiny_image
from tests.support.images import HandmadeImage, write_docker_archive, write_layout, write_oci_archive
from tests.support.reading import archive_images, layout_images, whole_images
from tests.support.registry import push_layout, running_registry
from tests.support.tools import need
from tests.test_readme import table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.program import Forge
    from tests.support.registry import Registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("push") / "registry") as running:
        yield running


@pytest.fixture
def layout(tmp_path: Path) -> tuple[Path, str]:
    """A layout with one image, called `latest`, and its digest."""
    return tmp_path / "from", write_layout(tiny_image(), tmp_path / "from")


def manifest(registry: Registry, name: str) -> dict[str, Any]:
    """What `name` (repository:tag) is in the registry."""
    repository, _, tag = name.rpartition(":")
    request = urllib.request.Request(
        f"{registry.url}/v2/{repository}/manifests/{tag}",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json,application/vnd.oci.image.index.v1+json"},
    )
    with urllib.request.urlopen(request) as response:
        document: dict[str, Any] = json.load(response)
        return document | {"digest": response.headers["Docker-Content-Digest"]}


def test_through_every_place(forge: Forge, layout: tuple[Path, str], registry: Registry, tmp_path: Path) -> None:
    """Layout -> registry -> archive -> registry -> layout: the digest stays, and stdout has a line for each copy."""
    start, digest = layout
    steps = [
        (f"oci:{start}", f"docker://{registry.host}/every:1", f"{registry.host}/every"),
        (f"docker://{registry.host}/every:1", f"oci-archive:{tmp_path}/a.tar", f"oci-archive:{tmp_path}/a.tar"),
        (f"oci-archive:{tmp_path}/a.tar", f"docker://{registry.host}/other", f"{registry.host}/other"),
        (f"docker://{registry.host}/other@{digest}", f"oci:{tmp_path}/to:x", f"oci:{tmp_path}/to:x"),
    ]
    for source, target, name in steps:
        done = forge("push", source, target)
        assert (done.code, done.out) == (0, f"{name}@{digest}\n"), done.err
    assert manifest(registry, "every:1")["digest"] == manifest(registry, "other:latest")["digest"] == digest
    [(archived,)] = archive_images(tmp_path / "a.tar").values()
    assert archived.digest == digest
    assert whole_images(tmp_path / "to") == {"x": digest}


def test_several_destinations(forge: Forge, layout: tuple[Path, str], registry: Registry, tmp_path: Path) -> None:
    start, digest = layout
    targets = [f"oci:{tmp_path}/to:1", f"oci-archive:{tmp_path}/a.tar:name", f"docker://{registry.host}/several:1"]
    done = forge("push", f"oci:{start}", *targets, "--json")
    document = json.loads(done.out)
    assert [copy["digest"] for copy in document["destinations"]] == [digest] * 3
    assert [copy["name"] for copy in document["destinations"]] == [
        f"oci:{tmp_path}/to:1@{digest}",
        f"oci-archive:{tmp_path}/a.tar:name@{digest}",
        f"{registry.host}/several@{digest}",
    ]
    assert all(copy["blobs"]["uploaded"]["count"] == 3 for copy in document["destinations"])


SOURCES = ("docker", "oci", "oci-archive", "docker-archive")


def held_in(kind: str, images: HandmadeImage | list[HandmadeImage], directory: Path, registry: Registry) -> str:
    """A place of the `kind` that holds the images, written by somebody else."""
    match kind:
        case "docker":
            repository = write_layout(images, directory / "pushed").replace(":", "/")
            push_layout(directory / "pushed", registry, repository, "1")
            return f"docker://{registry.host}/{repository}:1"
        case "oci":
            write_layout(images, directory / "layout")
            return f"oci:{directory}/layout"
        case "oci-archive":
            write_oci_archive(images, directory / "image.tar")
            return f"oci-archive:{directory}/image.tar"
        case _:
            assert isinstance(images, HandmadeImage), "docker's archives hold no index"
            write_docker_archive(images, directory / "saved.tar", tags=())
            return f"docker-archive:{directory}/saved.tar"


@pytest.mark.parametrize(
    ("kind", "several"), [*((kind, False) for kind in SOURCES), *((kind, True) for kind in SOURCES[:3])]
)
def test_from_every_place_to_every_place(
    forge: Forge, registry: Registry, tmp_path: Path, kind: str, several: bool
) -> None:
    """In one run; read back without ociforge."""
    one = tiny_image()
    images = [one, tiny_image(architecture="arm64")] if several else one
    source = held_in(kind, images, tmp_path, registry)
    name = f"{registry.host}/every/{kind}-{several}".lower()
    done = forge(
        "push", "--json", source, f"docker://{name}:1", f"oci:{tmp_path}/to:1", f"oci-archive:{tmp_path}/a.tar"
    )
    assert done.code == 0, done.err
    copies = json.loads(done.out)["destinations"]
    (digest,) = {copy["digest"] for copy in copies}
    if kind != "docker-archive":  # which has no manifest
        assert digest == write_layout(images, tmp_path / "expected")
    assert whole_images(tmp_path / "to") == {"1": digest}
    (archived,) = archive_images(tmp_path / "a.tar").values()
    (laid,) = layout_images(tmp_path / "to").values()
    assert [image.layers for image in archived] == [image.layers for image in laid] == [one.layers] * (1 + several)
    pulled = manifest(registry, f"{name.partition('/')[2]}:1")
    assert pulled["digest"] == digest
    assert forge("push", f"docker://{name}:1", f"oci:{tmp_path}/back:1").code == 0
    assert whole_images(tmp_path / "back") == {"1": digest}


@pytest.mark.parametrize("target", ["docker", "oci", "oci-archive"])
def test_one_platform_of_an_index(forge: Forge, registry: Registry, tmp_path: Path, target: str) -> None:
    images = [tiny_image(), tiny_image(architecture="arm64")]
    source = held_in("oci", images, tmp_path, registry)
    places = {
        "docker": f"docker://{registry.host}/one-of:{target}",
        "oci": f"oci:{tmp_path}/to:1",
        "oci-archive": f"oci-archive:{tmp_path}/a.tar",
    }
    done = forge("push", source, places[target], "--platform", "linux/arm64", "--json")
    assert done.code == 0, done.err
    (copy,) = json.loads(done.out)["destinations"]
    assert copy["digest"] == write_layout(images[1], tmp_path / "expected")
    assert forge("push", places[target], f"oci:{tmp_path}/back:1", "--platform", "linux/arm64/v8").code == 0
    assert whole_images(tmp_path / "back") == {"1": copy["digest"]}
    again = forge("push", places[target], f"oci:{tmp_path}/never:1", "--platform", "linux/amd64")
    assert again.message.endswith("expected one for `linux/amd64`, got one for `linux/arm64`")
    assert not (tmp_path / "never").exists()


def test_the_report_is_what_the_readme_says(forge: Forge, tmp_path: Path, registry: Registry) -> None:
    digest = write_layout(
        [tiny_image(extra={"report": b"unique"}), tiny_image(architecture="arm64")], tmp_path / "from"
    )
    done = forge("push", f"oci:{tmp_path}/from", f"docker://{registry.host}/report:1", "--json")
    assert done.code == 0, done.err
    (copy,) = json.loads(done.out)["destinations"]
    rows = table("Destinations in JSON")
    assert sorted(copy) == sorted(name.strip("` ") for row in rows for name in row[0].split(","))
    (told,) = [row[1] for row in rows if row[0] == "`transfers`"]
    blobs = tmp_path / "from/blobs/sha256"
    index = json.loads((blobs / digest.removeprefix("sha256:")).read_bytes())
    sizes = {f"sha256:{path.name}": path.stat().st_size for path in blobs.iterdir()}
    assert {transfer["digest"]: transfer["size"] for transfer in copy["transfers"]} == sizes
    assert len(copy["transfers"]) == len(sizes)
    for transfer in copy["transfers"]:
        assert all(f"`{word}`" in told for word in (*transfer, transfer["kind"], transfer["outcome"]))
        assert transfer["sent"] == (transfer["size"] if transfer["outcome"] == "uploaded" else 0)
    kinds = {transfer["digest"]: transfer["kind"] for transfer in copy["transfers"]}
    assert kinds[digest] == "index"
    assert {each for each, kind in kinds.items() if kind == "manifest"} == {
        entry["digest"] for entry in index["manifests"]
    }
    assert sorted(kinds.values()).count("config") == 2
    assert copy["sent"] == sum(transfer["sent"] for transfer in copy["transfers"])
    assert sum(tally["count"] for tally in copy["blobs"].values()) == len(sizes) - 3


def test_what_is_there_is_not_sent_again(forge: Forge, tmp_path: Path, registry: Registry) -> None:
    image = tiny_image(extra={"unique": b"to this test"})
    digest = write_layout(image, tmp_path / "from")
    place = f"docker://{registry.host}/again"

    def outcomes(source: str, target: str) -> dict[str, int]:
        (copy,) = json.loads(forge("push", source, target, "--json").out)["destinations"]
        assert copy["digest"] == digest
        return {outcome: tally["count"] for outcome, tally in copy["blobs"].items() if tally["count"]}

    assert sum(outcomes(f"oci:{tmp_path}/from", f"{place}:1").values()) == 3
    assert outcomes(f"oci:{tmp_path}/from", f"{place}:2") == {"exists": 3}
    assert outcomes(f"{place}:1", f"docker://{registry.host}/again/mounted:1") == {"mounted": 3}
    assert outcomes(f"{place}:1", f"oci:{tmp_path}/to:1") == {"uploaded": 3}
    assert outcomes(f"{place}:1", f"oci:{tmp_path}/to:2") == {"exists": 3}
    assert whole_images(tmp_path / "to") == {"1": digest, "2": digest}


def test_an_index(forge: Forge, tmp_path: Path, registry: Registry) -> None:
    digest = write_layout([tiny_image(), tiny_image(architecture="arm64")], tmp_path / "from")
    done = forge("push", f"oci:{tmp_path}/from", f"docker://{registry.host}/index:1", f"oci-archive:{tmp_path}/a.tar")
    assert done.code == 0, done.err
    found = manifest(registry, "index:1")
    assert found["digest"] == digest
    assert [entry["platform"]["architecture"] for entry in found["manifests"]] == ["amd64", "arm64"]
    (images,) = archive_images(tmp_path / "a.tar").values()
    assert [image.config["architecture"] for image in images] == ["amd64", "arm64"]


def test_out_of_docker_save(forge: Forge, tmp_path: Path) -> None:
    write_docker_archive(tiny_image(), tmp_path / "saved.tar")
    done = forge("push", f"docker-archive:{tmp_path}/saved.tar", f"oci:{tmp_path}/to:1")
    assert done.code == 0, done.err
    [(image,)] = layout_images(tmp_path / "to").values()
    assert image.layers == tiny_image().layers


def test_pushed_by_somebody_else(forge: Forge, layout: tuple[Path, str], registry: Registry, tmp_path: Path) -> None:
    start, digest = layout
    assert push_layout(start, registry, "foreign", "1") == digest
    assert forge("push", f"docker://{registry.host}/foreign:1", f"oci:{tmp_path}/to:1").code == 0
    assert whole_images(tmp_path / "to") == {"1": digest}


def test_a_copy_keeps_its_name(forge: Forge, registry: Registry, tmp_path: Path) -> None:
    """In a layout or archive that gives it none of its own."""
    digest = write_layout(tiny_image(), tmp_path / "from", tag="1.4")
    steps = [
        (f"oci:{tmp_path}/from", f"oci:{tmp_path}/tag", None),
        (f"oci:{tmp_path}/tag", f"oci-archive:{tmp_path}/tag.tar", None),
        (f"oci-archive:{tmp_path}/tag.tar", f"oci-archive:{tmp_path}/whole.tar:h.io/app:2", ["h.io/app:2"]),
        (f"oci-archive:{tmp_path}/whole.tar", f"oci-archive:{tmp_path}/copy.tar", ["h.io/app:2"]),
        (f"docker-archive:{tmp_path}/copy.tar", f"oci-archive:{tmp_path}/saved.tar", ["h.io/app:2"]),
        (f"oci-archive:{tmp_path}/saved.tar", f"docker://{registry.host}/kept:3", None),
        (f"docker://{registry.host}/kept:3", f"oci-archive:{tmp_path}/pulled.tar", [f"{registry.host}/kept:3"]),
    ]
    for source, target, tags in steps:
        done = forge("push", source, target)
        assert done.code == 0, done.err
        if tags is not None:
            with tarfile.open(target.removeprefix("oci-archive:").partition(":")[0]) as tar:
                documents = {name: json.load(tar.extractfile(name)) for name in ("index.json", "manifest.json")}  # type: ignore[arg-type]  # all are files
            assert documents["manifest.json"][0]["RepoTags"] == tags
            assert documents["index.json"]["manifests"][0]["annotations"]["io.containerd.image.name"] == tags[0]
    assert whole_images(tmp_path / "tag") == {"1.4": digest}
    assert forge("push", f"oci-archive:{tmp_path}/tag.tar", f"oci:{tmp_path}/to").code == 0
    assert whole_images(tmp_path / "to") == {"1.4": digest}


def test_a_registry_with_a_certificate_of_its_own(forge: Forge, layout: tuple[Path, str], tmp_path: Path) -> None:
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=tests", "-days", "2", "-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run(command, check=True, capture_output=True)
    start, digest = layout
    with running_registry(tmp_path / "tls", certificate=paths) as running:
        target = f"docker://{running.host}/app:1"
        assert forge("push", f"oci:{start}", target).hint is not None
        done = forge("push", "-q", "--insecure", f"oci:{start}", target)
    assert (done.code, done.out, done.err) == (0, f"{running.host}/app@{digest}\n", "")


def test_quiet(forge: Forge, layout: tuple[Path, str], tmp_path: Path) -> None:
    done = forge("push", "-q", f"oci:{layout[0]}", f"oci:{tmp_path}/to:1")
    assert (done.out, done.err) == (f"oci:{tmp_path}/to:1@{layout[1]}\n", "")


def test_no_place_is_written_where_another_cannot_be(forge: Forge, tmp_path: Path) -> None:
    write_layout(tiny_image(), tmp_path / "from")
    done = forge("push", f"oci:{tmp_path}/from", f"oci:{tmp_path}/to", f"oci-archive:{tmp_path}/none/a.tar")
    assert done.message == f"writing `oci-archive:{tmp_path}/none/a.tar`: there is no directory `{tmp_path}/none`"
    assert [path.name for path in tmp_path.iterdir()] == ["from"]


@pytest.mark.parametrize(
    ("source", "target", "code", "message"),
    [
        ("oci:~/nothing", "oci:~/to", 1, "reading `oci:~/nothing`: `~/nothing/oci-layout`: No such file or directory"),
        ("oci:~/from:nope", "oci:~/to", 1, "`oci:~/from`: no image `nope`: found `latest`"),
        (
            "from",
            "oci:~/to",
            2,
            "no transport in the location `from`: expected `docker://`, `oci:`, `oci-archive:`, `docker-archive:`",
        ),
        (
            "oci:~/from",
            "docker-archive:~/to.tar",
            2,
            "cannot write `docker-archive:~/to.tar`: `docker-archive:` is only read",
        ),
        (
            "oci:~/from",
            "oci-archive:~/none/a.tar",
            1,
            "writing `oci-archive:~/none/a.tar`: there is no directory `~/none`",
        ),
        ("oci:~/from", "oci:~/none/to", 1, "writing `oci:~/none/to`: there is no directory `~/none`"),
        ("oci:~/from", "oci:~/from/index.json", 1, "writing `oci:~/from/index.json`: `~/from/index.json` is a file"),
        ("oci-archive:~/from", "oci:~/to", 1, "reading `~/from`: it is a directory"),
        ("oci-archive:~/none.tar", "oci:~/to", 1, "reading `~/none.tar`: `~/none.tar`: No such file or directory"),
        ("oci:~/from", "docker://UPPER", 2, "malformed image reference: `UPPER`: `UPPER`: upper-case letters"),
    ],
)
def test_bad_places(
    forge: Forge, layout: tuple[Path, str], tmp_path: Path, source: str, target: str, code: int, message: str
) -> None:
    done = forge("push", *(place.replace("~", str(tmp_path)) for place in (source, target)))
    assert (done.code, done.message.replace(str(tmp_path), "~")) == (code, message)
    assert done.hint
    assert not (tmp_path / "to").exists()


def test_a_damaged_source_names_nothing(
    forge: Forge, layout: tuple[Path, str], registry: Registry, tmp_path: Path
) -> None:
    """Not in a layout, not in an archive, not in a registry."""
    start, _ = layout
    blob = max((start / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for target in (f"oci:{tmp_path}/to", f"oci-archive:{tmp_path}/a.tar", f"docker://{registry.host}/damaged:1"):
        done = forge("push", f"oci:{start}", target)
        assert done.code == 1
        assert f"sha256:{blob.name}" in done.message
        assert done.hint == "the image is damaged where it is read from: fetch or make it again"
    assert whole_images(tmp_path / "to") == {}
    assert not (tmp_path / "a.tar").exists()
    assert not list(tmp_path.rglob(".ociforge-*"))
    with pytest.raises(urllib.error.HTTPError):
        manifest(registry, "damaged:1")
