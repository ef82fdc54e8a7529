"""Locations: what each text names, and what the errors suggest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from layers.digest import Digest
from ociforge import transports
from ociforge.errors import ReferenceFormatError
from ociforge.oci.reference import Reference
from ociforge.transports import ArchiveLocation, LayoutLocation, RegistryLocation
from ociforge.transports.location import parse_registry

DIGEST = Digest.of(b"")


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("docker://ubuntu", RegistryLocation(reference=Reference.parse("docker.io/library/ubuntu:latest"))),
        ("docker://localhost:5000/a/b:1", RegistryLocation(reference=Reference.parse("localhost:5000/a/b:1"))),
        ("oci:out", LayoutLocation(path=Path("out"))),
        ("oci:/srv/out:1.4", LayoutLocation(path=Path("/srv/out"), ref="1.4")),
        ("oci:out:host:5000/a:1", LayoutLocation(path=Path("out"), ref="host:5000/a:1")),
        (f"oci:out@{DIGEST}", LayoutLocation(path=Path("out"), digest=DIGEST)),
        (f"oci:a@b:1@{DIGEST}", LayoutLocation(path=Path("a@b"), ref="1", digest=DIGEST)),
        ("oci-archive:a.tar", ArchiveLocation(path=Path("a.tar"))),
        ("oci-archive:a.tar:app", ArchiveLocation(path=Path("a.tar"), ref="app")),
        (
            "docker-archive:a.tar:localhost:5000/app:1",
            ArchiveLocation(path=Path("a.tar"), ref="localhost:5000/app:1", kind="docker-archive"),
        ),
    ],
)
def test_a_location_is_read(text: str, location: transports.Location) -> None:
    assert transports.parse(text) == location
    assert transports.parse(str(location)) == location


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("app.tar", "for an archive write `oci-archive:app.tar`"),
        ("/srv/app.tar.gz", "for an archive write `oci-archive:/srv/app.tar.gz`"),
        ("./out", "for a directory write `oci:./out`"),
        ("registry.example.com/app:1", "for an image in a registry write `docker://registry.example.com/app:1`"),
        ("localhost:5000/app", "for an image in a registry write `docker://localhost:5000/app`"),
        ("ubuntu", "for an image in a registry write `docker://ubuntu`"),
        ("dockr://ubuntu", "did you mean `docker://`?"),
        ("oci-archiv:x", "did you mean `oci-archive:`?"),
        ("containers-storage:[x]", "a location begins with `docker://`, `oci:`, `oci-archive:`, `docker-archive:`"),
        ("", "a location begins with `docker://`, `oci:`, `oci-archive:`, `docker-archive:`"),
    ],
)
def test_what_has_no_transport_gets_a_suggestion(text: str, hint: str) -> None:
    with pytest.raises(ReferenceFormatError) as caught:
        transports.parse(text)
    assert caught.value.message == (
        f"no transport in the location `{text}`: expected `docker://`, `oci:`, `oci-archive:`, `docker-archive:`"
    )
    assert caught.value.hint == hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oci:", "malformed location: `oci:`: no path behind `oci:`"),
        ("oci::tag", "malformed location: `oci::tag`: no path behind `oci:`"),
        ("oci:out:", "malformed location: `oci:out:`: `` is no image name"),
        ("oci:out:a b", "malformed location: `oci:out:a b`: `a b` is no image name"),
        ("oci:o\0t", r"malformed location: 'oci:o\x00t': a path has no NUL"),
        ("docker:ubuntu", "malformed location: `docker:ubuntu`"),
        ("oci://lay:1", "malformed location: `oci://lay:1`"),
        (
            "oci:out@sha256:00",
            (
                "malformed location: `oci:out@sha256:00`: `sha256:00` is not a digest: "
                "expected `sha256:` and 64 lower-case hex digits"
            ),
        ),
    ],
)
def test_a_malformed_location_is_refused(text: str, message: str) -> None:
    with pytest.raises(ReferenceFormatError) as caught:
        transports.parse(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("oci://lay:1", "write `oci:lay:1`"),
        ("oci:///srv/lay", "write `oci:/srv/lay`"),
        ("oci-archive://a.tar", "write `oci-archive:a.tar`"),
        ("docker-archive://a.tar:app", "write `docker-archive:a.tar:app`"),
        ("docker:host/x", "write `docker://host/x`"),
    ],
)
def test_slashes_belong_to_registries(text: str, hint: str) -> None:
    with pytest.raises(ReferenceFormatError) as caught:
        transports.parse(text)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("h.io/app:1", "h.io/app:1"),
        ("docker://h.io/app:1", "h.io/app:1"),
        ("oci:5000/app:1", "oci:5000/app:1"),
        ("docker://oci:layout", "docker.io/library/oci:layout"),
    ],
)
def test_what_can_only_be_in_a_registry(text: str, reference: str) -> None:
    assert parse_registry(text) == RegistryLocation(reference=Reference.parse(reference))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("oci:../x", "`--output oci:../x` writes it there"),
        ("oci-archive:/srv/a.tar:app", "`--output oci-archive:/srv/a.tar:app` writes it there"),
        (
            "oci:layout",
            (
                "`--output oci:layout` writes it there; for an image in a registry that is called so write"
                " `docker://oci:layout`"
            ),
        ),
    ],
)
def test_what_cannot_be_in_a_registry_is_refused(text: str, hint: str) -> None:
    with pytest.raises(ReferenceFormatError) as caught:
        parse_registry(text)
    assert caught.value.message == f"`{text}` is a layout or an archive, and no image in a registry"
    assert caught.value.hint == hint


def test_a_malformed_reference_is_refused() -> None:
    with pytest.raises(ReferenceFormatError, match="malformed image reference: `Upper/Case`"):
        transports.parse("docker://Upper/Case")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "docker-archive:a.tar:app",
            "cannot write `docker-archive:a.tar:app`: `docker-archive:` is only read",
            "write `oci-archive:a.tar`: docker loads it",
        ),
        (
            f"oci:a@{DIGEST}",
            f"cannot write `oci:a@{DIGEST}`: what is written has no digest yet",
            "leave out the digest",
        ),
    ],
)
def test_some_locations_are_only_read(text: str, message: str, hint: str) -> None:
    with pytest.raises(ReferenceFormatError) as caught:
        transports.destination(text)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_destination_touches_nothing_before_it_is_entered(tmp_path: Path) -> None:
    transports.destination(f"oci:{tmp_path}/layout")
    transports.destination(f"oci-archive:{tmp_path}/a.tar")
    assert list(tmp_path.iterdir()) == []


def test_only_registries_import_the_registry_client(tmp_path: Path) -> None:
    import subprocess

    program = (
        "import sys; from ociforge import transports; "
        f"transports.destination('oci:{tmp_path}/x'); transports.destination('oci-archive:{tmp_path}/x.tar'); "
        "assert not {'oras', 'requests'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
