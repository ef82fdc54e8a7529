"""What a destination knows, and therefore does not ask or send again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from ociforge import transports
from ociforge.errors import AuthError, RegistryError
from ociforge.events import BlobDone, Event
from ociforge.oci.descriptor import INDEX, MANIFEST, Descriptor, canonical_json
from ociforge.oci.reference import Reference
from ociforge.publish import publish
from ociforge.transports.registry import RegistryDestination, RegistrySource
from tests.support.fake_registry import FakeRegistry, answer, hang_up, running_fake
from tests.support.fault_proxy import running_proxy
from tests.support.memory import MemorySource, index_of, sample_image
from tests.support.registry import running_registry
from tests.transports.registry_tools import blob_of, no_sleep, octets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fault_proxy import Passage

IMAGE = sample_image()
DATA = b"data"


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        yield registry


def place(fake: FakeRegistry, tag: str | None = "v1", digest: Digest | None = None) -> Reference:
    return Reference(registry=fake.host, repository="team/app", tag=tag, digest=digest)


def destination(fake: FakeRegistry, notify: list[Event] | None = None) -> RegistryDestination:
    return RegistryDestination(place(fake), notify=(notify if notify is not None else []).append, sleep=no_sleep)


def steps(fake: FakeRegistry) -> list[str]:
    return [f"{c.method} {c.path.split('/')[4]}" for c in fake.calls]


def fill(fake: FakeRegistry, image: MemorySource, tag: str = "v1") -> None:
    """As if the image had been pushed, tag and all."""
    publish(image, RegistryDestination(place(fake, tag)))
    fake.calls.clear()


# -- entering


@pytest.mark.parametrize(
    ("reply", "kind", "why"),
    [
        (answer(401), AuthError, "401 Unauthorized"),
        (answer(403), AuthError, "403 Forbidden"),
        (answer(503), RegistryError, "503 Service Unavailable"),
        (hang_up(), RegistryError, "connection reset by peer"),
    ],
)
def test_a_registry_that_refuses_is_known_upon_entering(
    fake: FakeRegistry, reply: object, kind: type[RegistryError], why: str
) -> None:
    fake.on("HEAD", "", reply, times=9)  # type: ignore[arg-type]  # parametrized
    with pytest.raises(kind) as caught, destination(fake):
        pytest.fail("entered")
    what = f"pushing `{fake.host}/team/app:v1`: HEAD `http://{fake.host}/v2/team/app/manifests/v1`"
    assert caught.value.message == f"{what}: {why}"


def test_entering_asks_for_the_right_to_push(fake: FakeRegistry) -> None:
    fake.auth = "bearer"
    with destination(fake):
        pass
    assert fake.seen("GET", "/token")[0].query["scope"] == ["repository:team/app:pull,push"]
    assert fake.issued == 1


def test_entering_again_within_costs_nothing(fake: FakeRegistry) -> None:
    with destination(fake) as outer:
        outer.put(octets(DATA))
        with outer as inner:
            assert inner is outer
        assert steps(fake) == ["HEAD manifests", "HEAD blobs", "POST blobs", "PUT blobs"]
        publish(IMAGE, outer)
    assert ("team/app", "v1") in fake.manifests


# -- knowing


def test_nothing_is_sent_when_nothing_changed(fake: FakeRegistry) -> None:
    """Registries with immutable tags (ECR) refuse even the same manifest."""
    fill(fake, index_of(IMAGE, sample_image(platform="linux/arm64")))
    publish(index_of(IMAGE, sample_image(platform="linux/arm64")), destination(fake))
    assert [c.method for c in fake.calls] == ["HEAD", "GET", "GET", "GET", "HEAD"]


def test_a_blob_that_the_first_image_of_an_index_has_costs_two_requests(fake: FakeRegistry) -> None:
    fill(fake, index_of(IMAGE, sample_image([{"etc/arm": b"64"}], platform="linux/arm64")))
    with destination(fake) as reached:
        assert all(reached.has(blob) for blob in IMAGE.blobs())
    assert steps(fake) == ["HEAD manifests", "GET manifests", "GET manifests"]


def test_many_threads_read_the_manifest_once(fake: FakeRegistry) -> None:
    fill(fake, IMAGE)
    with destination(fake) as reached, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(reached.has, IMAGE.blobs() * 8))
    assert steps(fake) == ["HEAD manifests", "GET manifests"]


def test_an_index_of_many_images_is_not_read_through(fake: FakeRegistry) -> None:
    fill(fake, index_of(*(sample_image([{"etc/n": b"%d" % n}]) for n in range(12))))
    with destination(fake) as reached:
        for _ in range(2):
            assert not reached.has(octets(DATA).descriptor)
    assert len(fake.seen("GET", "/manifests/")) == 8
    assert len(fake.seen("HEAD", "/blobs/")) == 1


@pytest.mark.parametrize(
    "reply",
    [answer(500), answer(404), answer(403), answer(200, b"{}", Content_Type=MANIFEST), answer(200, b"[", C="x")],
)
def test_a_manifest_that_cannot_be_read_tells_nothing(fake: FakeRegistry, reply: object) -> None:
    fill(fake, IMAGE)
    fake.on("GET", "/manifests/", reply, times=9)  # type: ignore[arg-type]  # parametrized
    publish(IMAGE, destination(fake))
    assert len(fake.seen("HEAD", "/blobs/")) == len(IMAGE.blobs())
    assert fake.seen("POST") == fake.seen("PUT") == []


def test_layers_that_a_manifest_only_refers_to_are_not_taken_for_held(fake: FakeRegistry) -> None:
    foreign = Descriptor(
        media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", digest=Digest.of(b"far"), size=3
    )
    config = octets(b"{}").descriptor
    manifest = {"schemaVersion": 2, "config": config.to_json(), "layers": [foreign.to_json()]}
    fake.add_manifest("team/app", "v1", MANIFEST, canonical_json(manifest))
    with destination(fake) as reached:
        assert not reached.has(foreign)
        assert reached.has(config)


def test_images_that_an_index_only_lists_are_not_taken_for_held(fake: FakeRegistry) -> None:
    """An index may be stored without all of its images."""
    missing = sample_image().top
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [missing.to_json()]}
    fake.add_manifest("team/app", "v1", INDEX, canonical_json(index))
    with destination(fake) as reached:
        assert not reached.has(missing)


def test_a_blob_believed_to_be_there_is_sent_when_the_registry_misses_it(fake: FakeRegistry) -> None:
    fill(fake, IMAGE)
    layer = IMAGE.blobs()[1]
    body = b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "detail": {"digest": "%s"}}]}' % str(layer.digest).encode()
    fake.on("PUT", "/manifests/", answer(404, body), times=2)
    files = ({"etc/first": b"1\n"}, {"etc/second": b"22\n"}, {"etc/third": b"333\n"})
    publish(sample_image(files), destination(fake))
    assert layer.digest in {Digest.of(c.body) for c in fake.seen("PUT", "/uploads/")}
    assert len(fake.seen("PUT", "/uploads/")) == 3  # the new layer, the new configuration, and the one that was missed


def test_a_reference_by_digest_knows_its_own_image(fake: FakeRegistry) -> None:
    fill(fake, IMAGE)
    published = publish(IMAGE, RegistryDestination(place(fake, None, IMAGE.top.digest)))
    assert published.name == f"{fake.host}/team/app@{IMAGE.top.digest}"
    assert [c.method for c in fake.calls] == ["HEAD", "GET"]


# -- putting once


def test_what_was_put_is_not_put_again(fake: FakeRegistry) -> None:
    events: list[Event] = []
    fake.add_blob("team/app", b"there")
    with destination(fake, events) as reached:
        assert [reached.put(octets(DATA)) for _ in range(3)] == ["uploaded"] * 3
        assert [reached.put(octets(b"there")) for _ in range(3)] == ["exists"] * 3
        root = blob_of(b'{"schemaVersion": 2}', MANIFEST)
        assert [reached.put(root) for _ in range(3)] == ["uploaded"] * 3
    assert len(fake.calls) == 1 + 3 + 1 + 2
    assert [e.outcome for e in events if isinstance(e, BlobDone)] == ["uploaded", "exists"]


def test_a_blob_that_failed_can_be_put_again(fake: FakeRegistry) -> None:
    with destination(fake) as reached:
        fake.on("POST", "", answer(400), times=1)
        with pytest.raises(RegistryError, match="400"):
            reached.put(octets(DATA))
        assert reached.put(octets(DATA)) == "uploaded"


def test_an_error_says_which_side_it_is_of(fake: FakeRegistry) -> None:
    with running_fake() as other:
        fill(other, IMAGE)
        missing = str(IMAGE.blobs()[1].digest)
        del other.blobs["team/app", missing]
        source = RegistrySource(place(other), sleep=no_sleep)
        with pytest.raises(RegistryError) as caught:
            publish(source, destination(fake))
        source.close()
    url = f"http://{other.host}/v2/team/app/blobs/{missing}"
    what = f"pushing `{fake.host}/team/app:v1`: pulling `{other.host}/team/app:v1`"
    assert caught.value.message == f"{what}: GET `{url}`: 404 BLOB_UNKNOWN: so says the fake"
    assert ("team/app", "v1") not in fake.manifests


# -- after a death


def noise(seed: int, size: int = 200_000) -> bytes:
    """Bytes that no codec makes smaller."""
    return b"".join(bytes.fromhex(Digest.of(b"%d %d" % (seed, n)).hex) for n in range(size // 32))


def test_a_push_that_was_killed_sends_only_what_is_missing(tmp_path: Path) -> None:
    image = sample_image([{f"etc/{n}": noise(n)} for n in range(4)])
    location = f"oci:{tmp_path}/layout:1"
    publish(image, transports.destination(location))
    reached = threading.Event()

    def pass_on(passage: Passage) -> None:
        passage.forward()
        passage.give_back()

    def hold(passage: Passage) -> None:
        passage.forward(100_000)
        reached.set()
        passage.rfile.read()  # until the other side is no more

    with running_registry(tmp_path / "r") as registry, running_proxy(registry.host) as proxy:
        proxy.on("PUT", "/blobs/uploads/", pass_on, times=2)
        proxy.on("PUT", "/blobs/uploads/", hold)
        command = [sys.executable, "-m", "ociforge", "push", location, f"docker://{proxy.host}/team/app:v1"]
        process = subprocess.Popen([*command, "--workers", "1", "--quiet"], env=dict(os.environ))
        assert reached.wait(20)
        process.send_signal(signal.SIGKILL)
        process.wait()
        place = Reference(registry=registry.host, repository="team/app", tag="v1")
        with pytest.raises(RegistryError, match="has no `v1`"):
            RegistrySource(place).root()
        before = len(registry.requests())
        published = publish(image, RegistryDestination(place))
        assert (published.blobs["exists"].count, published.blobs["uploaded"].count) == (2, 3)
        uploads = [line for line in registry.requests()[before:] if line.startswith("PUT") and "/uploads/" in line]
        assert sum(line.endswith(" 201") for line in uploads) == 3  # two layers and the configuration
        source = RegistrySource(place)
        assert source.root().digest == image.top.digest
        source.close()
