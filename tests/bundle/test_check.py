"""What is wrong with a bundle is found, and told by role and name."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from layers.digest import Digest
from ociforge.bundle import open_bundle, verify
from ociforge.errors import TransportError
from tests.bundle.making import named, rewrite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bundle.conftest import Made

LIBA = "conda/linux-64/liba-1.0-0.tar.bz2"
FOREIGN = "is foreign: the lock does not have it for the bundle's images"


def blob(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def changed(files: dict[str, bytes], change: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
    """The members with another manifest, under its right digest."""
    index = json.loads(files["index.json"])
    entry = index["manifests"][0]
    document = json.loads(files.pop(f"blobs/{entry['digest'].replace(':', '/')}"))
    change(document)
    data = json.dumps(document).encode()
    entry |= {"digest": str(Digest.of(data)), "size": len(data)}
    return files | {"index.json": json.dumps(index).encode(), blob(Digest.of(data)): data}


def swapped(files: dict[str, bytes], name: str, data: bytes) -> dict[str, bytes]:
    """The members with other bytes for the file `name`, which the manifest knows."""

    def change(document: dict[str, Any]) -> None:
        (layer,) = [x for x in document["layers"] if x["annotations"]["org.opencontainers.image.title"] == name]
        layer |= {"digest": str(Digest.of(data)), "size": len(data)}

    old = blob(_digest(files, name))
    kept = {member: content for member, content in changed(files, change).items() if member != old}
    return kept | {blob(Digest.of(data)): data}


def _digest(files: dict[str, bytes], title: str) -> Digest:
    """What the manifest says of the file with that title."""
    entry = json.loads(files["index.json"])["manifests"][0]
    document = json.loads(files[f"blobs/{entry['digest'].replace(':', '/')}"])
    titles = {x["annotations"]["org.opencontainers.image.title"]: x["digest"] for x in document["layers"]}
    return Digest.parse(titles[title])


def findings(made: Made, tmp_path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> tuple[str, ...]:
    return verify(open_bundle(rewrite(made.path, tmp_path / "spoilt", change)))


def test_a_good_one(made: Made, tmp_path: Path) -> None:
    assert verify(open_bundle(made.path)) == ()
    assert findings(made, tmp_path, lambda files: dict(reversed(files.items()))) == ()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (LIBA, f"conda archive `{LIBA}`"),
        ("pixi.lock", "lock `pixi.lock`"),
        ("pixi.toml", "manifest `pixi.toml`"),
        ("ociforge.lock", "pins of base images `ociforge.lock`"),
    ],
)
def test_a_flipped_byte(made: Made, tmp_path: Path, name: str, shown: str) -> None:
    place = blob(named(made.path)[name])
    [finding] = findings(made, tmp_path, lambda files: files | {place: flipped(files[place])})
    assert finding.startswith(f"the {shown} is damaged: blob `{named(made.path)[name]}`: got bytes with the digest")


def test_a_flipped_byte_in_each_part_of_the_base(made: Made, tmp_path: Path) -> None:
    for name, digest in named(made.path).items():
        if name.startswith("base/"):
            role = "document" if name.endswith(".json") else "layer"
            place = blob(digest)
            lines = findings(made, tmp_path, lambda files, place=place: files | {place: flipped(files[place])})  # type: ignore[misc]
            assert lines[0].startswith(f"the base image's {role} `{name}` is damaged: "), lines
            assert len(lines) == 1


def test_a_flipped_byte_of_the_manifest(made: Made, tmp_path: Path) -> None:
    place = blob(open_bundle(made.path).root.digest)
    spoilt = rewrite(made.path, tmp_path / "spoilt", lambda files: files | {place: flipped(files[place])})
    with pytest.raises(TransportError, match="the bundle's manifest is damaged"):
        open_bundle(spoilt)


def test_a_missing_blob(made: Made, tmp_path: Path) -> None:
    place = blob(named(made.path)[LIBA])
    lines = findings(made, tmp_path, lambda files: {name: data for name, data in files.items() if name != place})
    assert lines == (f"the conda archive `{LIBA}` is missing",)


def test_a_blob_that_nothing_names(made: Made, tmp_path: Path) -> None:
    place = blob(Digest.of(b"more"))
    lines = findings(made, tmp_path, lambda files: files | {place: b"more", "other": b""})
    assert lines == tuple(f"`{name}` is foreign: the bundle's manifest does not name it" for name in (place, "other"))


@pytest.mark.parametrize("whole", [0, 5, 9])
def test_a_file_that_was_cut_off(made: Made, tmp_path: Path, whole: int) -> None:
    """In the middle of one of its files: that one and all behind it are named."""
    items = {blob(item.digest): str(item) for item in open_bundle(made.path).manifest.items}
    with tarfile.open(made.path, "r:") as tar:
        members = [member for member in tar if member.name in items]
    cut = members[whole]
    spoilt = tmp_path / "spoilt"
    spoilt.write_bytes(made.path.read_bytes()[: cut.offset_data + cut.size // 2])
    with pytest.raises(TransportError) as caught:
        open_bundle(spoilt)
    assert {*caught.value.message.splitlines()} == {
        f"`{spoilt}` was cut off: it lacks the {items[member.name]}" for member in members[whole:]
    }


def test_a_file_that_was_cut_off_between_two(made: Made, tmp_path: Path) -> None:
    with tarfile.open(made.path, "r:") as tar:
        last = [*tar][-1]
    (tmp_path / "spoilt").write_bytes(made.path.read_bytes()[: last.offset])
    (item,) = [item for item in open_bundle(made.path).manifest.items if blob(item.digest) == last.name]
    assert verify(open_bundle(tmp_path / "spoilt")) == (
        "it was cut off: its end is missing",
        f"the {item} is missing",
    )


def test_a_file_that_lost_its_beginning(made: Made, tmp_path: Path) -> None:
    (tmp_path / "spoilt").write_bytes(made.path.read_bytes()[:700])
    with pytest.raises(TransportError):
        open_bundle(tmp_path / "spoilt")


def test_another_lock(made: Made, tmp_path: Path) -> None:
    """`liba` is another archive there."""
    lock = (made.bench.tiny.lock).read_text()
    old = named(made.path)[LIBA].hex
    new = Digest.of(b"another").hex
    assert old in lock
    lines = findings(made, tmp_path, lambda files: swapped(files, "pixi.lock", lock.replace(old, new).encode()))
    assert lines == (
        "the conda archive `liba-1.0-0.tar.bz2`, which the lock has for `default` on `linux/amd64`, is missing",
        f"the conda archive `{LIBA}` {FOREIGN}",
    )


def test_a_lock_without_the_environment(made: Made, tmp_path: Path) -> None:
    text = made.bench.tiny.lock.read_text().replace("linux-64:", "linux-aarch64:").replace("linux-64", "linux-aarch64")
    lines = findings(made, tmp_path, lambda files: swapped(files, "pixi.lock", text.encode()))
    assert any(
        "does not agree with the bundle: the lock has nothing for `default` on `linux/amd64`" in x for x in lines
    )


def test_a_lock_that_is_none(made: Made, tmp_path: Path) -> None:
    lines = findings(made, tmp_path, lambda files: swapped(files, "pixi.lock", b"version: 99\n"))
    assert any("the lock does not agree with the bundle: `pixi.lock` has format 99" in line for line in lines)


def test_another_pin(made: Made, tmp_path: Path) -> None:
    pins = (made.bench.tiny.root / "ociforge.lock").read_text()
    old = json.loads(pins)["bases"]["oci:../base"]["linux/amd64"]
    new = str(Digest.of(b"another"))
    lines = findings(made, tmp_path, lambda files: swapped(files, "ociforge.lock", pins.replace(old, new).encode()))
    assert f"the base image `oci:../base` for `linux/amd64` is missing: its pin is `{new}`" in lines
    assert sum("belongs to no base image that is pinned" in line for line in lines) == 4


def test_no_pin(made: Made, tmp_path: Path) -> None:
    pins = b'{"bases": {}, "version": 1}'
    lines = findings(made, tmp_path, lambda files: swapped(files, "ociforge.lock", pins))
    assert "the base image `oci:../base` for `linux/amd64` is not pinned" in lines


def test_a_base_image_without_one_of_its_layers(made: Made, tmp_path: Path) -> None:
    layer = next(
        digest for name, digest in named(made.path).items() if name.startswith("base/") and ".json" not in name
    )

    def without(document: dict[str, Any]) -> None:
        document["layers"] = [part for part in document["layers"] if part["digest"] != str(layer)]

    lines = findings(made, tmp_path, lambda files: changed(files, without))
    assert f"the base image `oci:../base` for `linux/amd64`: the blob `{layer}` is missing" in lines


def test_the_title_of_the_lock_is_no_path(made: Made, tmp_path: Path) -> None:
    """As long as no file system bears it."""

    def retitled(document: dict[str, Any]) -> None:
        (lock,) = [x for x in document["layers"] if x["annotations"]["dev.ociforge.bundle.role"] == "lock"]
        lock["annotations"]["org.opencontainers.image.title"] = "x" * 300

    assert findings(made, tmp_path, lambda files: changed(files, retitled)) == ()


def test_a_conda_archive_by_another_suffix(made: Made, tmp_path: Path) -> None:
    """Builds look for it by the lock's."""
    name = LIBA.replace(".tar.bz2", ".conda")

    def renamed(document: dict[str, Any]) -> None:
        for layer in document["layers"]:
            if layer["annotations"]["org.opencontainers.image.title"] == LIBA:
                layer["annotations"]["org.opencontainers.image.title"] = name

    assert findings(made, tmp_path, lambda files: changed(files, renamed)) == (
        "the conda archive `liba-1.0-0.tar.bz2`, which the lock has for `default` on `linux/amd64`, is missing",
        f"the conda archive `{name}` {FOREIGN}",
    )


def test_the_empty_configuration(made: Made, tmp_path: Path) -> None:
    place = blob(Digest.of(b"{}"))
    for change in (b"{ ", None):
        (line,) = findings(
            made,
            tmp_path,
            lambda files, change=change: {  # type: ignore[misc]
                name: data if name != place else change for name, data in files.items() if name != place or change
            },
        )
        assert line.startswith("the empty configuration is damaged: ")


@pytest.mark.parametrize("key", ["digest", "size", "name"])
def test_a_base_image_that_index_json_has_wrongly(made: Made, tmp_path: Path, key: str) -> None:
    def wrong(files: dict[str, bytes]) -> dict[str, bytes]:
        index = json.loads(files["index.json"])
        entry = index["manifests"][1]
        if key == "name":
            entry["annotations"]["org.opencontainers.image.ref.name"] += "x"
        else:
            entry[key] = {"digest": str(Digest.of(b"another")), "size": entry["size"] + 1}[key]
        return files | {"index.json": json.dumps(index).encode()}

    (line,) = findings(made, tmp_path, wrong)
    assert line.startswith("`index.json` is damaged: no base image of the bundle is `sha256:")


def test_a_member_that_would_end_where_no_file_does(made: Made, tmp_path: Path) -> None:
    pax = tarfile.TarInfo("x")
    pax.size, pax.pax_headers = 99999999999999, {"size": "99999999999999"}
    whole = made.path.read_bytes().rstrip(b"\0")
    whole += b"\0" * (-len(whole) % 512)
    (tmp_path / "spoilt").write_bytes(whole + pax.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    with pytest.raises(TransportError, match=r"is not a whole bundle: it was cut off"):
        open_bundle(tmp_path / "spoilt")


@pytest.mark.parametrize("more", [b"x", b"\0" * 512 + b"x", "itself"])
def test_something_behind_the_end(made: Made, tmp_path: Path, more: bytes | str) -> None:
    data = made.path.read_bytes()
    (tmp_path / "spoilt").write_bytes(data + (data if isinstance(more, str) else more))
    assert verify(open_bundle(tmp_path / "spoilt")) == ("there is something else behind its end",)
    (tmp_path / "padded").write_bytes(data + b"\0" * 9 * 512)  # as tapes have it
    assert verify(open_bundle(tmp_path / "padded")) == ()


@pytest.mark.parametrize(
    ("member", "why"),
    [
        ({"name": "index.json"}, "there twice"),
        ({"name": "../../x"}, "not a path inside of the archive"),
        ({"name": "/etc/passwd"}, "not a path inside of the archive"),
        ({"name": "x", "type": tarfile.FIFOTYPE}, "not a whole regular file"),
        ({"name": "x", "type": tarfile.CHRTYPE}, "not a whole regular file"),
    ],
)
def test_a_tar_that_is_not_trusted_was_not_cut_off(
    made: Made, tmp_path: Path, member: dict[str, Any], why: str
) -> None:
    spoilt = tmp_path / "spoilt"
    spoilt.write_bytes(made.path.read_bytes())
    with tarfile.open(spoilt, "a:") as tar:
        added = tarfile.TarInfo()
        for key, value in member.items():
            setattr(added, key, value)
        tar.addfile(added)
    with pytest.raises(TransportError) as caught:
        open_bundle(spoilt)
    assert caught.value.message.endswith(f": {why}")
    assert caught.value.hint == "copy the bundle again, or make a new one with `ociforge bundle create`"


def test_a_header_that_announces_more_than_memory_holds(made: Made, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt"
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    spoilt.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + made.path.read_bytes())
    with pytest.raises(TransportError, match="not a whole tar archive: a header of"):
        open_bundle(spoilt)


def test_what_is_no_bundle(made: Made, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(TransportError):
        open_bundle(tmp_path / "text")
    with pytest.raises(TransportError, match="No such file"):
        open_bundle(tmp_path / "none")
    with pytest.raises(TransportError, match="it has no `oci-layout`"):
        open_bundle(rewrite(made.path, tmp_path / "tar", lambda files: {"a": b""}))
