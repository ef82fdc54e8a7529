"""Writing to registries that refuse, forget and hang up."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from ociforge.errors import ImageError, RegistryError, TransportError
from ociforge.events import BlobDone, BlobProgress, BlobStarted, Event
from ociforge.oci.blob import VerifiedReader
from ociforge.oci.descriptor import MANIFEST, Descriptor, canonical_json
from ociforge.oci.reference import Reference
from ociforge.publish import publish
from ociforge.transports.base import Blob
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry import RegistryDestination, RegistrySource
from tests.support.fake_registry import Exchange, FakeRegistry, Reply, answer, early, hang_up, lose, running_fake
from tests.support.memory import sample_image
from tests.transports.registry_tools import blob_of, no_sleep, octets

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = bytes(range(256)) * 4096  # 1 MiB
DIGEST = str(Digest.of(DATA))


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        yield registry


@pytest.fixture
def destination(fake: FakeRegistry) -> Iterator[RegistryDestination]:
    options = RegistryOptions(read_timeout=0.5)
    with RegistryDestination(reference(fake), options, sleep=no_sleep) as destination:
        yield destination


def reference(fake: FakeRegistry, tag: str | None = "v1", digest: Digest | None = None) -> Reference:
    return Reference(registry=fake.host, repository="team/app", tag=tag, digest=digest)


def steps(fake: FakeRegistry) -> list[str]:
    """What was asked for, in short, but for the tag upon entering."""
    names = {"uploads": "session", "blobs": "blob", "manifests": "manifest"}
    assert str(fake.calls[0]) == "HEAD /v2/team/app/manifests/v1"
    return [f"{c.method} {names[c.path.split('/')[-2 - (c.path.split('/')[-2] not in names)]]}" for c in fake.calls[1:]]


def stored(fake: FakeRegistry) -> bytes | None:
    return fake.blobs.get(("team/app", DIGEST))


# -- the good way


def test_head_post_put(fake: FakeRegistry) -> None:
    events: list[Event] = []
    with RegistryDestination(reference(fake), notify=events.append) as destination:
        assert destination.put(octets(DATA)) == "uploaded"
    with RegistryDestination(reference(fake), notify=events.append) as destination:
        assert destination.put(octets(DATA)) == "exists"
    assert steps(fake) == ["HEAD blob", "POST session", "PUT session", "HEAD manifest", "HEAD blob"]
    post, put = fake.seen("POST")[0], fake.seen("PUT")[0]
    assert (post.headers["Content-Length"], put.headers["Content-Length"]) == ("0", str(len(DATA)))
    assert put.headers["Content-Type"] == "application/octet-stream"
    assert put.target.endswith(f"?_state=a%2Fb~&x=&x=1&digest={DIGEST.replace(':', '%3A')}")
    assert "Transfer-Encoding" not in put.headers
    assert stored(fake) == DATA
    done = [e for e in events if isinstance(e, BlobDone)]
    assert [e.outcome for e in done] == ["uploaded", "exists"]
    assert events[0] == BlobStarted(Digest.of(DATA), len(DATA), f"{fake.host}/team/app")
    assert sum(e.count for e in events if isinstance(e, BlobProgress)) == len(DATA)


def test_what_has_said_is_not_asked_again(fake: FakeRegistry, destination: RegistryDestination) -> None:
    blob = octets(DATA)
    assert not destination.has(blob.descriptor)
    assert destination.put(blob) == "uploaded"
    assert destination.has(blob.descriptor)
    assert destination.put(blob) == "uploaded"
    assert steps(fake) == ["HEAD blob", "POST session", "PUT session"]


def test_an_empty_blob(fake: FakeRegistry, destination: RegistryDestination) -> None:
    assert destination.put(octets(b"")) == "uploaded"
    assert fake.seen("PUT")[0].headers["Content-Length"] == "0"


@pytest.mark.parametrize(
    "location",
    ["{path}", "../uploads/{session}", "//{host}{path}?", "http://{host}{path}?a=1&a=1&b="],
)
def test_locations(fake: FakeRegistry, destination: RegistryDestination, location: str) -> None:
    fake.location = location
    destination.put(octets(DATA))
    assert stored(fake) == DATA


@pytest.mark.parametrize("location", ["", "ftp://x/y", "http://user:hunter2@127.0.0.1/"])
def test_no_location(fake: FakeRegistry, destination: RegistryDestination, location: str) -> None:
    fake.location = location
    with pytest.raises(RegistryError) as caught:
        destination.put(octets(DATA))
    assert "hunter2" not in str(caught.value)


def test_one_blob_in_many_threads_is_uploaded_once(fake: FakeRegistry, destination: RegistryDestination) -> None:
    outcomes: list[str] = []
    threads = [threading.Thread(target=lambda: outcomes.append(destination.put(octets(DATA)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["uploaded"] * 6
    assert len(fake.seen("PUT")) == 1


# -- mounts


def origin(fake: FakeRegistry, repository: str = "base/ubuntu") -> Reference:
    return Reference(registry=fake.host, repository=repository, digest=Digest.of(DATA))


def test_a_mount_moves_no_bytes(fake: FakeRegistry, destination: RegistryDestination) -> None:
    fake.add_blob("base/ubuntu", DATA)
    assert destination.put(octets(DATA, origin(fake))) == "mounted"
    assert steps(fake) == ["POST session"]
    assert fake.seen("POST")[0].query == {"mount": [DIGEST], "from": ["base/ubuntu"]}
    assert stored(fake) == DATA


def test_a_declined_mount_is_an_upload_begun(fake: FakeRegistry, destination: RegistryDestination) -> None:
    assert destination.put(octets(DATA, origin(fake))) == "uploaded"
    assert steps(fake) == ["POST session", "HEAD blob", "PUT session"]


def test_a_declined_mount_of_what_is_there_uploads_nothing(
    fake: FakeRegistry, destination: RegistryDestination
) -> None:
    fake.add_blob("team/app", DATA)
    fake.mounts = False
    assert destination.put(octets(DATA, origin(fake))) == "exists"
    assert steps(fake) == ["POST session", "HEAD blob"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 500])
def test_a_refused_mount_is_forgotten(fake: FakeRegistry, destination: RegistryDestination, status: int) -> None:
    fake.on("POST", "", answer(status))
    assert destination.put(octets(DATA, origin(fake))) == "uploaded"
    assert steps(fake) == ["POST session", "HEAD blob", "POST session", "PUT session"]


def test_no_mount_from_elsewhere(fake: FakeRegistry, destination: RegistryDestination) -> None:
    assert destination.put(octets(DATA, Reference.parse("other.example.com/base:1"))) == "uploaded"
    assert fake.seen("POST")[0].query == {}


def test_what_an_image_of_the_repository_itself_names_is_there(
    fake: FakeRegistry, destination: RegistryDestination
) -> None:
    before = len(fake.calls)
    assert destination.put(octets(DATA, origin(fake, "team/app"))) == "exists"
    assert len(fake.calls) == before


# -- faults (see test_faults_upload.py for each of them at each request)


def test_a_lost_answer_costs_no_second_upload(fake: FakeRegistry, destination: RegistryDestination) -> None:
    fake.on("PUT", "uploads", lose)
    assert destination.put(octets(DATA)) == "uploaded"
    assert steps(fake) == ["HEAD blob", "POST session", "PUT session", "HEAD blob"]


def test_a_broken_upload_goes_on_where_the_registry_can(fake: FakeRegistry, destination: RegistryDestination) -> None:
    def half(registry: FakeRegistry, exchange: Exchange) -> None:
        registry.sessions["s0"] = exchange.rfile.read(700_000)
        exchange.reset()

    half.unread = True  # type: ignore[attr-defined]
    fake.on("PUT", "uploads", half)
    assert destination.put(octets(DATA)) == "uploaded"
    assert steps(fake) == [
        *("HEAD blob", "POST session", "PUT session"),
        *("HEAD blob", "GET session", "PATCH session", "PUT session"),
    ]
    (patch,) = fake.seen("PATCH")
    assert patch.headers["Content-Range"] == f"700000-{len(DATA) - 1}"
    assert len(patch.body) == len(DATA) - 700_000
    assert stored(fake) == DATA


def test_progress_counts_each_byte_once(fake: FakeRegistry) -> None:
    fake.on("PUT", "uploads", hang_up(400_000))
    events: list[Event] = []
    with RegistryDestination(reference(fake), None, None, events.append, sleep=no_sleep) as destination:
        destination.put(octets(DATA))
    assert sum(e.count for e in events if isinstance(e, BlobProgress)) == len(DATA)


def test_put_is_refused_so_patch(fake: FakeRegistry, destination: RegistryDestination) -> None:
    fake.on("PUT", "uploads", early(405))
    destination.put(octets(DATA))
    destination.put(octets(b"another"))
    assert steps(fake)[-4:] == ["HEAD blob", "POST session", "PATCH session", "PUT session"]  # it has learned
    assert "Content-Range" not in fake.seen("PATCH")[0].headers
    assert [c.headers["Content-Length"] for c in fake.seen("PUT")[1:]] == ["0", "0"]


def test_put_is_unknown_twice_so_patch(fake: FakeRegistry, destination: RegistryDestination) -> None:
    fake.on("PUT", "uploads", answer(404), times=2)
    destination.put(octets(DATA))
    assert len(fake.seen("PATCH")) == 1
    assert stored(fake) == DATA


def test_too_large_so_chunks(fake: FakeRegistry, destination: RegistryDestination) -> None:
    data = DATA * 9
    fake.on("PUT", "uploads", early(413))
    fake.on("PATCH", "uploads", early(413))
    destination.put(octets(data))
    limit = 4 << 20
    patches = fake.seen("PATCH")[1:]
    assert fake.blobs["team/app", str(Digest.of(data))] == data
    assert all(len(c.body) < limit for c in patches)
    assert [c.headers["Content-Range"] for c in patches] == ["0-4128767", "4128768-8257535", "8257536-9437183"]


def test_a_registry_that_drops_chunks_gets_one_request_again(
    fake: FakeRegistry, destination: RegistryDestination
) -> None:
    def drop(registry: FakeRegistry, exchange: Exchange) -> None:
        exchange.send(201, headers={"Location": exchange.call.target, "Range": "0-0"})

    fake.on("PUT", "uploads", early(413))
    fake.on("PATCH", "uploads", drop, times=9)
    destination.put(octets(DATA))
    assert stored(fake) == DATA
    assert len(fake.seen("PUT")[-1].body) == len(DATA)


def test_a_digest_that_the_registry_refuses_is_final(fake: FakeRegistry, destination: RegistryDestination) -> None:
    fake.on("PUT", "uploads", answer(400, b'{"errors": [{"code": "DIGEST_INVALID"}]}'))
    with pytest.raises(RegistryError) as caught:
        destination.put(octets(DATA))
    assert caught.value.message.endswith(": 400 DIGEST_INVALID")
    assert "digest=" not in caught.value.message and "_state" not in caught.value.message
    assert len(fake.seen("PUT")) == 1


def test_a_digest_that_the_registry_changes(fake: FakeRegistry, destination: RegistryDestination) -> None:
    fake.on("PUT", "uploads", answer(201, Docker_Content_Digest=f"sha256:{'0' * 64}"))
    with pytest.raises(RegistryError, match="as another digest"):
        destination.put(octets(DATA))


@pytest.mark.parametrize("body", [DATA[:-1], b"\1" + DATA[1:], DATA + b"x"])
def test_bytes_that_are_not_announced_do_not_arrive(
    fake: FakeRegistry, destination: RegistryDestination, body: bytes
) -> None:
    descriptor = octets(DATA).descriptor
    blob = Blob(descriptor=descriptor, open=lambda: VerifiedReader(io.BytesIO(body), descriptor))
    with pytest.raises(ImageError):
        destination.put(blob)
    assert stored(fake) is None


def test_a_source_that_fails_is_no_broken_connection(fake: FakeRegistry, destination: RegistryDestination) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    blob = Blob(descriptor=octets(DATA).descriptor, open=Failing)
    with pytest.raises(TransportError) as caught:
        destination.put(blob)
    assert caught.value.message == f"reading blob `{DIGEST}` to upload it: Input/output error"
    assert len(fake.seen("PUT")) <= 1 and len(fake.seen("POST")) == 1


def test_a_registry_that_always_breaks_is_given_up(fake: FakeRegistry) -> None:
    fake.on("PUT", "uploads", hang_up(1000), times=99)
    slept: list[float] = []
    with (
        RegistryDestination(reference(fake), sleep=slept.append) as destination,
        pytest.raises(RegistryError) as caught,
    ):
        destination.put(octets(DATA))
    assert len(fake.seen("PUT")) == 5
    assert len(slept) == 4
    url = f"http://{fake.host}/v2/team/app/blobs/uploads/"
    assert caught.value.message.startswith(f"pushing `{fake.host}/team/app:v1`: PUT `{url}")
    assert "?" not in caught.value.message


def test_a_stream_of_a_registry_goes_straight_into_another(fake: FakeRegistry) -> None:
    with running_fake() as other:
        image = sample_image()
        for blob in image.blobs():
            other.add_blob("from", image.contents[blob.digest])
        other.add_manifest("from", "v1", MANIFEST, image.contents[image.top.digest])
        source = RegistrySource(Reference(registry=other.host, repository="from", tag="v1"))
        published = publish(source, RegistryDestination(reference(fake)))
        source.close()
    assert published.name == f"{fake.host}/team/app@{image.top.digest}"
    assert fake.manifests["team/app", "v1"] == (MANIFEST, image.contents[image.top.digest])


# -- manifests and tags


def manifest(*blobs: Blob) -> Blob:
    layers = [b.descriptor.to_json() for b in blobs]
    return blob_of(canonical_json({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers}), MANIFEST)


def test_the_tag_comes_last_and_once(fake: FakeRegistry, destination: RegistryDestination) -> None:
    blob = octets(DATA)
    root = manifest(blob)
    destination.put(blob)
    assert destination.put(root) == "uploaded"
    assert ("team/app", "v1") not in fake.manifests
    name = f"{fake.host}/team/app@{root.descriptor.digest}"
    assert destination.tag(root.descriptor) == name
    assert [c.path.rpartition("/")[2] for c in fake.seen("PUT", "manifests")] == [str(root.descriptor.digest), "v1"]
    assert {c.headers["Content-Type"] for c in fake.seen("PUT", "manifests")} == {MANIFEST}
    assert destination.tag(root.descriptor) == name
    with RegistryDestination(reference(fake)) as again:
        assert again.put(root) == "exists"
    assert len(fake.seen("PUT", "manifests")) == 2  # registries with immutable tags refuse even the same again


def test_a_root_that_was_there_before_is_fetched_to_be_tagged(
    fake: FakeRegistry, destination: RegistryDestination
) -> None:
    digest = fake.add_manifest("team/app", "old", MANIFEST, b"{}")
    destination.tag(Descriptor(media_type=MANIFEST, digest=digest, size=2))
    assert fake.manifests["team/app", "v1"] == (MANIFEST, b"{}")


def test_a_reference_by_digest_takes_only_that_image(fake: FakeRegistry) -> None:
    root = manifest()
    with RegistryDestination(reference(fake, None, root.descriptor.digest)) as destination:
        destination.put(root)
        destination.tag(root.descriptor)
        assert [n for _, n in fake.manifests] == [str(root.descriptor.digest)]
    with (
        RegistryDestination(reference(fake, "v1", Digest.of(b""))) as destination,
        pytest.raises(RegistryError, match="the image has the digest"),
    ):
        destination.tag(root.descriptor)


@pytest.mark.parametrize("fault", [answer(503), answer(429), lose, hang_up()])
def test_a_manifest_is_put_again(fake: FakeRegistry, destination: RegistryDestination, fault: Reply) -> None:
    fake.on("PUT", "manifests", fault)
    root = manifest()
    destination.put(root)
    assert ("team/app", str(root.descriptor.digest)) in fake.manifests


UNKNOWN = b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown", "detail": {"digest": "%s"}}]}'


def test_a_registry_that_is_late_gets_time(fake: FakeRegistry, destination: RegistryDestination) -> None:
    blob = octets(DATA)
    destination.put(blob)
    fake.on("PUT", "manifests", answer(404, UNKNOWN % DIGEST.encode()))
    assert destination.put(manifest(blob)) == "uploaded"
    assert len(fake.seen("PUT", "uploads")) == 1


@pytest.mark.parametrize("named", [DIGEST.encode(), b""])
def test_a_registry_that_forgot_a_blob_gets_it_again(
    fake: FakeRegistry, destination: RegistryDestination, named: bytes
) -> None:
    blob, other = octets(DATA), octets(b"other")
    fake.add_blob("team/app", DATA)
    assert destination.put(blob) == "exists"
    destination.put(other)
    fake.on("PUT", "manifests", answer(400, UNKNOWN % named), times=2)
    assert destination.put(manifest(blob, other)) == "uploaded"
    assert len(fake.seen("PUT", "uploads")) == (2 if named else 3)


def test_a_blob_that_stays_unknown_is_an_error(fake: FakeRegistry, destination: RegistryDestination) -> None:
    fake.on("PUT", "manifests", answer(400, UNKNOWN % DIGEST.encode()), times=9)
    with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN: blob unknown"):
        destination.put(manifest())
    assert len(fake.seen("PUT", "manifests")) == 2


def test_an_image_under_a_wrong_type_is_refused(fake: FakeRegistry, destination: RegistryDestination) -> None:
    inner = canonical_json({"mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []})
    with pytest.raises(RegistryError, match="but it says"):
        destination.put(blob_of(inner, MANIFEST))
    assert len(fake.calls) == 1  # upon entering
