"""Reading from registries that lie, cut and stall."""

from __future__ import annotations

import io
import socket
from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from ociforge.errors import AnswerError, ImageError, RegistryError
from ociforge.events import Event, Warned
from ociforge.oci.descriptor import DOCKER_MANIFEST, INDEX, MANIFEST, Descriptor
from ociforge.oci.reference import Reference
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry import RegistrySource
from tests.support.fake_registry import Exchange, FakeRegistry, answer, cut, hang_up, running_fake
from tests.support.tools import missing
from tests.transports.registry_tools import no_sleep, octets

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = bytes(range(256)) * 8192  # 2 MiB
BLOB = octets(DATA).descriptor


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        registry.add_blob("team/app", DATA)
        yield registry


@pytest.fixture
def source(fake: FakeRegistry) -> Iterator[RegistrySource]:
    source = RegistrySource(reference(fake), RegistryOptions(read_timeout=0.4), sleep=no_sleep)
    yield source
    source.close()


def reference(fake: FakeRegistry, tag: str = "v1") -> Reference:
    return Reference(registry=fake.host, repository="team/app", tag=tag)


def read(source: RegistrySource, descriptor: Descriptor = BLOB, size: int = 100_000) -> bytes:
    pieces = []
    with source.open(descriptor) as stream:
        while piece := stream.read(size):
            pieces.append(piece)
    return b"".join(pieces)


def ranges(fake: FakeRegistry) -> list[str | None]:
    return [c.headers.get("Range") for c in fake.seen("GET", "/blobs/")]


# -- manifests


def test_a_root_costs_one_head_and_one_get(fake: FakeRegistry, source: RegistrySource) -> None:
    digest = fake.add_manifest("team/app", "v1", DOCKER_MANIFEST, b'{"config": {}}')
    root = source.root()
    assert root == source.root() == Descriptor(media_type=DOCKER_MANIFEST, digest=digest, size=14)
    for _ in range(2):
        with source.open(root) as stream:
            assert stream.read() == b'{"config": {}}'
    assert [str(c) for c in fake.calls] == ["HEAD /v2/team/app/manifests/v1", f"GET /v2/team/app/manifests/{digest}"]
    assert all(c.headers["Accept"].count("application/vnd.") == 4 for c in fake.calls)
    assert source.origin(root) == Reference(registry=fake.host, repository="team/app", digest=digest)


@pytest.mark.parametrize("status", [404, 405, 200])
def test_a_head_that_tells_nothing_is_made_up_for(fake: FakeRegistry, source: RegistrySource, status: int) -> None:
    digest = fake.add_manifest("team/app", "v1", INDEX, b"{}")
    fake.on("HEAD", "", answer(status, Content_Type=INDEX))
    root = source.root()
    assert root.digest == digest
    with source.open(root) as stream:
        assert stream.read() == b"{}"
    assert [c.method for c in fake.calls] == ["HEAD", "GET"]


def test_a_missing_image_is_named(fake: FakeRegistry, source: RegistrySource) -> None:
    with pytest.raises(RegistryError) as caught:
        source.root()
    place = f"{fake.host}/team/app"
    assert caught.value.message == (
        f"pulling `{place}:v1`: `{place}` has no `v1`: GET `http://{fake.host}/v2/team/app/manifests/v1`: "
        "404 MANIFEST_UNKNOWN: so says the fake"
    )
    assert caught.value.hint == "check the name of the image"


@pytest.mark.parametrize(
    ("body", "headers", "why"),
    [
        (b"{}", {"Content-Type": "text/html"}, "'text/html' is not the type of an image or index"),
        (b'{"mediaType": "x/y"}', {"Content-Type": MANIFEST}, f"its type is `{MANIFEST}`, but it says 'x/y'"),
        (b"{", {"Content-Type": MANIFEST}, "is not valid JSON"),
        (b"{}" + b" " * (4 << 20), {"Content-Type": MANIFEST}, "more than 4194304 bytes"),
        (
            b"{}",
            {"Content-Type": MANIFEST, "Docker-Content-Digest": f"sha256:{'0' * 64}"},
            f"the registry announced `sha256:{'0' * 64}`, and sent `{Digest.of(b'{}')}`",
        ),
        (b"{}", {"Content-Type": MANIFEST, "Docker-Content-Digest": "sha256:../../x"}, "is not a digest"),
    ],
)
def test_manifests_that_are_refused(
    fake: FakeRegistry, source: RegistrySource, body: bytes, headers: dict[str, str], why: str
) -> None:
    fake.on("GET", "", lambda _, exchange: exchange.send(200, body, headers))
    with pytest.raises((RegistryError, ImageError)) as caught:
        source.root()
    assert why in caught.value.message
    assert isinstance(caught.value, AnswerError) == (why.startswith(("'text/html'", "its type", "more than")))


@pytest.mark.parametrize("head", [200, 404])
def test_a_digest_must_be_the_one_asked_for(fake: FakeRegistry, head: int) -> None:
    wanted = Digest.of(b"wanted")
    fake.add_manifest("team/app", str(wanted), MANIFEST, b"{}")
    if head == 404:
        fake.on("HEAD", "", answer(404))
    asked = Reference(registry=fake.host, repository="team/app", tag="v1", digest=wanted)
    with pytest.raises(RegistryError, match=f"the registry has `{Digest.of(b'{}')}` instead"):
        RegistrySource(asked, sleep=no_sleep).root()
    assert all("v1" not in c.path for c in fake.calls)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_busy_registries_are_asked_again(fake: FakeRegistry, status: int) -> None:
    digest = fake.add_manifest("team/app", "v1", MANIFEST, b"{}")
    fake.on("HEAD", "", answer(status, Retry_After="7"), times=2)
    slept: list[float] = []
    source = RegistrySource(reference(fake), sleep=slept.append)
    assert source.root().digest == digest
    source.close()
    assert slept == [7, 7]


def test_patience_has_an_end(fake: FakeRegistry) -> None:
    fake.on("HEAD", "", answer(503), times=99)
    slept: list[float] = []
    with pytest.raises(RegistryError) as caught:
        RegistrySource(reference(fake), sleep=slept.append).root()
    assert caught.value.message.endswith(": 503 Service Unavailable")
    assert len(fake.calls) == 5
    assert [0.7 * s < t < 1.3 * s for s, t in zip((0.5, 1, 2, 4), slept, strict=True)] == [True] * 4


@pytest.mark.parametrize("wait", ["3600", "99999999999999999999"])
def test_a_wait_of_an_hour_is_not_worth_it(fake: FakeRegistry, wait: str) -> None:
    fake.on("HEAD", "", answer(429, Retry_After=wait))
    with pytest.raises(RegistryError) as caught:
        RegistrySource(reference(fake)).root()
    assert (len(fake.calls), caught.value.hint) == (
        1,
        "the registry limits requests: wait, or log in for a higher limit",
    )


@pytest.mark.parametrize("wait", ["junk", "-5", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_senseless_wait_is_none(fake: FakeRegistry, source: RegistrySource, wait: str) -> None:
    fake.add_manifest("team/app", "v1", MANIFEST, b"{}")
    fake.on("HEAD", "", answer(429, Retry_After=wait))
    source.root()


def test_a_registry_that_is_down() -> None:
    slept: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(RegistryError) as caught:
        RegistrySource(Reference.parse(f"{host}/a/b:c"), sleep=slept.append).root()
    url = f"http://{host}/v2/a/b/manifests/c"
    assert caught.value.message == f"pulling `{host}/a/b:c`: HEAD `{url}`: connection refused"
    assert caught.value.hint == "check the name, and that the registry is running and can be reached from here"
    assert len(slept) == 2 and sum(slept) < 2


def test_a_host_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    slept: list[float] = []
    with pytest.raises(RegistryError) as caught:
        RegistrySource(Reference.parse("registry.invalid/a/b:c"), sleep=slept.append).root()
    url = "https://registry.invalid/v2/a/b/manifests/c"
    assert caught.value.message == f"pulling `registry.invalid/a/b:c`: HEAD `{url}`: no such host"
    assert len(slept) == 2 and sum(slept) < 2


def test_an_ipv6_registry() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        missing("IPv6 is not available")
    with running_fake("::1") as fake:
        digest = fake.add_manifest("team/app", "v1", MANIFEST, b"{}")
        source = RegistrySource(reference(fake))
        assert source.root().digest == digest
        source.close()


def test_warnings_are_shown_once(fake: FakeRegistry) -> None:
    fake.add_manifest("team/app", "v1", MANIFEST, b"{}")
    headers = {"Warning": '299 - "end of life\t"', "Content-Type": MANIFEST}
    for method in ("HEAD", "GET"):
        fake.on(method, "", lambda _, exchange: exchange.send(200, b"{}", headers))
    events: list[Event] = []
    source = RegistrySource(reference(fake), notify=events.append)
    with source.open(source.root()):
        pass
    source.close()
    assert events == [Warned(f"the registry `{fake.host}` says: end of life ")]


# -- blobs


def test_a_blob(fake: FakeRegistry) -> None:
    events: list[Event] = []
    source = RegistrySource(reference(fake), notify=events.append)
    assert read(source) == DATA
    source.close()
    assert ranges(fake) == [None]
    assert events == []  # who stores the blob tells of it


@pytest.mark.parametrize("announce", [True, False])
def test_a_cut_download_goes_on_where_it_was(fake: FakeRegistry, source: RegistrySource, announce: bool) -> None:
    fake.on("GET", "/blobs/", cut(150_000, announce=announce))
    fake.on("GET", "/blobs/", cut(50_000, announce=announce))
    assert read(source) == DATA
    assert ranges(fake) == [None, "bytes=150000-", "bytes=200000-"]


def test_a_registry_without_ranges_starts_over(fake: FakeRegistry, source: RegistrySource) -> None:
    fake.ranges = False
    fake.on("GET", "/blobs/", cut(150_000))
    fake.on("GET", "/blobs/", cut(170_000))
    assert read(source) == DATA
    assert ranges(fake) == [None, "bytes=150000-", "bytes=170000-"]


@pytest.mark.parametrize("reply", [answer(416), answer(206, DATA[5:], Content_Range="bytes 5-9/10")])
def test_a_range_that_is_not_the_one_asked_for(fake: FakeRegistry, source: RegistrySource, reply: object) -> None:
    fake.on("GET", "/blobs/", cut(150_000))
    fake.on("GET", "/blobs/", reply)  # type: ignore[arg-type]  # parametrized
    assert read(source) == DATA
    assert ranges(fake) == [None, "bytes=150000-", None]


def test_a_stall_is_a_cut(fake: FakeRegistry, source: RegistrySource) -> None:
    def stall(registry: FakeRegistry, exchange: Exchange) -> None:
        exchange.send(200, DATA[:70_000], {"Content-Length": str(len(DATA))})

    fake.on("GET", "/blobs/", stall)
    assert read(source, size=10_000) == DATA
    assert len(ranges(fake)) == 2


def test_a_connection_that_only_breaks_is_given_up(fake: FakeRegistry, source: RegistrySource) -> None:
    fake.on("GET", "/blobs/", cut(10), times=99)
    with pytest.raises(RegistryError) as caught:
        read(source)
    assert len(ranges(fake)) == 5
    assert f"GET `http://{fake.host}/v2/team/app/blobs/{BLOB.digest}`" in caught.value.message


def test_progress_buys_more_patience(fake: FakeRegistry) -> None:
    data = bytes(9 << 20)
    fake.add_blob("team/app", data)
    fake.on("GET", "/blobs/", cut(1 << 20), times=8)
    source = RegistrySource(reference(fake), sleep=no_sleep)
    assert read(source, octets(data).descriptor, 1 << 20) == data
    source.close()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\1" + DATA[1:], "got bytes with the digest"),
        (DATA[:-1], "the registry has 2097151"),
        (DATA + b"x", "the registry has 2097153"),
    ],
)
def test_other_bytes_are_noticed(fake: FakeRegistry, source: RegistrySource, body: bytes, why: str) -> None:
    fake.on("GET", "/blobs/", answer(200, body))
    with pytest.raises(ImageError, match=why):
        read(source)
    assert len(ranges(fake)) == 1


def test_more_bytes_than_announced_are_noticed(fake: FakeRegistry, source: RegistrySource) -> None:
    fake.blobs["team/app", str(BLOB.digest)] = DATA + b"x"
    fake.on("GET", "/blobs/", cut(len(DATA) + 1, announce=False))
    with pytest.raises(ImageError, match="got more"):
        read(source)


def test_a_content_coding_is_not_undone(fake: FakeRegistry, source: RegistrySource) -> None:
    fake.on("GET", "/blobs/", answer(200, DATA, Content_Encoding="gzip"))
    assert read(source) == DATA
    assert all(c.headers["Accept-Encoding"] == "identity" for c in fake.calls)


def test_a_missing_blob(fake: FakeRegistry, source: RegistrySource) -> None:
    with pytest.raises(RegistryError, match="404 BLOB_UNKNOWN: so says the fake"):
        source.open(octets(b"missing").descriptor)


def test_a_broken_answer_to_a_get_is_asked_again(fake: FakeRegistry, source: RegistrySource) -> None:
    fake.on("GET", "/blobs/", hang_up(), times=2)
    assert read(source) == DATA
    assert len(ranges(fake)) == 3


def test_an_empty_blob(fake: FakeRegistry, source: RegistrySource) -> None:
    fake.add_blob("team/app", b"")
    assert read(source, octets(b"").descriptor) == b""


def test_a_stream_that_is_left_early_closes(fake: FakeRegistry, source: RegistrySource) -> None:
    stream = source.open(BLOB)
    assert stream.read(10) == DATA[:10]
    stream.close()
    assert isinstance(stream, io.IOBase) and stream.closed
