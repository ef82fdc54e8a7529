"""Pulling by way of mirrors."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from layers.digest import Digest
from ociforge.errors import ImageError, ReferenceFormatError, RegistryError
from ociforge.events import CredentialUsed, Event, Warned
from ociforge.oci.descriptor import MANIFEST
from ociforge.oci.reference import Reference
from ociforge.publish import publish
from ociforge.transports.auth import CredentialStore
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry import RegistryDestination, RegistrySource
from tests.support.fake_registry import PASSWORD, USER, FakeRegistry, answer, cut, hang_up, running_fake
from tests.support.memory import MemoryDestination, sample_image
from tests.transports.registry_tools import no_sleep, octets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE = sample_image()
DATA = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def upstream() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        yield registry


@pytest.fixture
def mirror() -> Iterator[FakeRegistry]:
    with running_fake("127.0.0.2") as registry:
        yield registry


def fill(registry: FakeRegistry, repository: str) -> None:
    for blob in IMAGE.blobs():
        registry.add_blob(repository, IMAGE.contents[blob.digest])
    registry.add_blob(repository, DATA)
    registry.add_manifest(repository, "v1", MANIFEST, IMAGE.contents[IMAGE.top.digest])


def place(upstream: FakeRegistry) -> Reference:
    return Reference(registry=upstream.host, repository="team/app", tag="v1")


def source(upstream: FakeRegistry, *mirrors: str, **more: Any) -> RegistrySource:
    options = RegistryOptions(mirrors={upstream.host: mirrors}, read_timeout=0.5)
    return RegistrySource(place(upstream), options, more.pop("credentials", None), sleep=no_sleep, **more)


def pull(source: RegistrySource) -> None:
    copy = MemoryDestination()
    publish(source, copy)
    source.close()
    assert copy.contents == IMAGE.contents


def test_all_comes_from_the_mirror(upstream: FakeRegistry, mirror: FakeRegistry) -> None:
    fill(mirror, "hub/cache/team/app")
    reached = source(upstream, f"{mirror.host}/hub/cache")
    pull(reached)
    assert upstream.calls == []
    assert {c.path.split("/")[2:6][-1] for c in mirror.calls} == {"app"}
    assert reached.origin(IMAGE.top) == Reference(
        registry=upstream.host, repository="team/app", digest=IMAGE.top.digest
    )  # what is pushed to the registry is mounted there, wherever it was read
    assert str(reached) == f"docker://{upstream.host}/team/app:v1"


def test_mirrors_are_tried_in_order(upstream: FakeRegistry, mirror: FakeRegistry) -> None:
    fill(upstream, "team/app")
    fill(mirror, "team/app")
    events: list[Event] = []
    pull(source(upstream, "127.0.0.3:1", f"{mirror.host}/empty", mirror.host, notify=events.append))
    assert upstream.calls == []
    warnings = [e.message for e in events if isinstance(e, Warned)]
    head = "HEAD `http://127.0.0.3:1/v2/team/app/manifests/v1`: connection refused"
    assert warnings[0] == f"the mirror `127.0.0.3:1/team/app` is passed over: {head}"
    assert warnings[1].startswith(f"the mirror `{mirror.host}/empty/team/app` is passed over: ")
    assert "404 MANIFEST_UNKNOWN" in warnings[1]
    assert len(warnings) == 2
    assert len(mirror.seen("HEAD", "/empty/")) == 1  # what it lacks once it is not asked for again


@pytest.mark.parametrize(
    "reply",
    [
        answer(404),
        answer(401),
        answer(403),
        answer(429),
        answer(500),
        hang_up(),
        answer(200, b"{}", Content_Type=MANIFEST, Docker_Content_Digest="sha256:x"),
    ],
)
def test_a_mirror_that_refuses_is_passed_over(upstream: FakeRegistry, mirror: FakeRegistry, reply: Any) -> None:
    fill(upstream, "team/app")
    mirror.on("HEAD", "", reply, times=9)
    mirror.on("GET", "", reply, times=9)
    events: list[Event] = []
    pull(source(upstream, mirror.host, notify=events.append))
    assert len([e for e in events if isinstance(e, Warned)]) == 1
    assert len(mirror.calls) <= 3


def test_a_mirror_is_not_waited_for_long(upstream: FakeRegistry, mirror: FakeRegistry) -> None:
    fill(upstream, "team/app")
    mirror.on("HEAD", "", answer(429, Retry_After="100"), times=9)
    mirror.on("GET", "", answer(429, Retry_After="100"), times=9)
    slept: list[float] = []
    reached = RegistrySource(
        place(upstream), RegistryOptions(mirrors={upstream.host: (mirror.host,)}), sleep=slept.append
    )
    pull(reached)
    assert slept == [1]


def test_a_mirror_that_lies_about_a_manifest_is_passed_over(upstream: FakeRegistry, mirror: FakeRegistry) -> None:
    fill(upstream, "team/app")
    fill(mirror, "team/app")
    mirror.on("GET", "/manifests/", answer(200, b'{"other": 1}', Content_Type=MANIFEST))
    pull(source(upstream, mirror.host))
    assert len(upstream.seen("GET", "/manifests/")) == 1


def test_a_mirror_that_loses_a_blob_is_passed_over(upstream: FakeRegistry, mirror: FakeRegistry) -> None:
    fill(upstream, "team/app")
    fill(mirror, "team/app")
    mirror.on("GET", "/blobs/", FakeRegistry.serve)
    mirror.on("GET", "/blobs/", answer(404), times=9)
    pull(source(upstream, mirror.host))
    assert len(upstream.seen("GET", "/blobs/")) == 2
    assert upstream.seen("HEAD") == upstream.seen("GET", "/manifests/") == []


def test_a_mirror_whose_connections_break_is_left_in_the_middle(upstream: FakeRegistry, mirror: FakeRegistry) -> None:
    fill(upstream, "team/app")
    fill(mirror, "team/app")
    mirror.on("GET", "/blobs/", cut(200_000))
    mirror.on("GET", "/blobs/", cut(100_000), times=9)
    events: list[Event] = []
    with source(upstream, mirror.host, notify=events.append).open(octets(DATA).descriptor) as stream:
        assert stream.read() == DATA
    assert [c.headers.get("Range") for c in mirror.seen("GET")] == [None, "bytes=200000-"]
    assert [c.headers.get("Range") for c in upstream.seen("GET")] == ["bytes=300000-"]
    assert events == [Warned(f"the mirror `{mirror.host}/team/app` is passed over: its connections break")]


def test_other_bytes_of_a_mirror_are_noticed(upstream: FakeRegistry, mirror: FakeRegistry) -> None:
    mirror.on("GET", "/blobs/", answer(200, b"\1" + DATA[1:]))
    with (
        source(upstream, mirror.host).open(octets(DATA).descriptor) as stream,
        pytest.raises(ImageError, match="got bytes with the digest"),
    ):
        stream.read()


def test_what_the_registry_says_is_final(upstream: FakeRegistry, mirror: FakeRegistry) -> None:
    reached = source(upstream, mirror.host)
    with pytest.raises(
        RegistryError, match=f"pulling `{upstream.host}/team/app:v1`: `{upstream.host}/team/app` has no"
    ):
        reached.root()
    reached.close()


def test_each_has_its_own_credential(upstream: FakeRegistry, mirror: FakeRegistry, tmp_path: Path) -> None:
    """The mirror asks for a token, is given none of the registry's secrets, and is passed over; then with its own."""
    fill(upstream, "team/app")
    fill(mirror, "team/app")
    upstream.auth, mirror.auth = "basic", "bearer"
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    auths = {upstream.host: {"auth": pair}}
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": auths}))
    mirror.on("GET", "/token", answer(401))
    pull(source(upstream, mirror.host, credentials=CredentialStore(files=(file,))))
    assert mirror.secrets() == []
    assert upstream.secrets()
    upstream.calls.clear()
    events: list[Event] = []
    file.write_text(json.dumps({"auths": auths | {mirror.host: {"auth": pair}}}))
    pull(source(upstream, mirror.host, credentials=CredentialStore(files=(file,)), notify=events.append))
    assert upstream.calls == []
    assert [e.registry for e in events if isinstance(e, CredentialUsed)] == [mirror.host]


def test_pushes_never_go_to_mirrors(upstream: FakeRegistry, mirror: FakeRegistry) -> None:
    fill(mirror, "team/app")
    options = RegistryOptions(mirrors={upstream.host: (mirror.host,)})
    publish(IMAGE, RegistryDestination(place(upstream), options))
    assert mirror.calls == []
    assert upstream.manifests["team/app", "v1"][1] == IMAGE.contents[IMAGE.top.digest]


def test_mirrors_of_other_registries_are_not_asked(upstream: FakeRegistry, mirror: FakeRegistry) -> None:
    fill(upstream, "team/app")
    options = RegistryOptions(mirrors={"docker.io": (mirror.host,)})
    pull(RegistrySource(place(upstream), options))
    assert mirror.calls == []


def test_docker_hub_by_its_complete_names(mirror: FakeRegistry) -> None:
    digest = mirror.add_manifest("hub/library/alpine", "3", MANIFEST, b"{}")
    options = RegistryOptions(mirrors={"docker.io": (f"{mirror.host}/hub",)})
    reached = RegistrySource(Reference.parse("alpine:3"), options)
    assert reached.root().digest == digest == Digest.of(b"{}")
    reached.close()


@pytest.mark.parametrize("mirror", ["http://m.io", "m", "m.io/", "m.io/UPPER", "m.io/a//b", "user@m.io", ""])
def test_what_is_no_mirror(mirror: str) -> None:
    options = RegistryOptions(mirrors={"docker.io": (mirror,)})
    with pytest.raises(ReferenceFormatError) as caught:
        RegistrySource(Reference.parse("alpine"), options)
    assert caught.value.message.startswith(f"mirror `{mirror}` of `docker.io`: ")
    assert caught.value.hint == "a mirror is `host[:port][/prefix]`"


def test_options_with_mirrors_are_values() -> None:
    one, other = (RegistryOptions(mirrors={"docker.io": ("m.io",)}) for _ in range(2))
    assert one == other
    assert one != RegistryOptions()
