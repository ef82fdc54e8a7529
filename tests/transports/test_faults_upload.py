"""Uploads that break at every request, in every way, against a fake and against a real registry.

{POST, PATCH, PUT} x {what breaks} x {put, patch, chunk}: three ways to carry a blob, each by the requests it makes.
"""

from __future__ import annotations

import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from ociforge.errors import RegistryError
from ociforge.oci.reference import Reference
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry import RegistryDestination
from tests.support.fake_registry import (
    Exchange,
    FakeRegistry,
    answer,
    break_off,
    early,
    error_body,
    hang_up,
    lose,
    running_fake,
)
from tests.support.fault_proxy import (
    FaultProxy,
    canned,
    lost_answer,
    pass_on,
    relocated,
    reset_after,
    reset_before,
    running_proxy,
)
from tests.transports.registry_tools import no_sleep, octets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    from tests.support.registry import Registry

    Mode = Literal["put", "patch", "chunk"]

# Chunks are a little less than 4 MiB each, and there are two of them.
DATA = {"put": bytes(range(256)) * 1024, "chunk": bytes(range(256)) * 17_000}
DATA["patch"] = DATA["put"]
HALF = 130_000
_NUMBERS = count()

# How many requests of the method the registry has answered before the one that is to break: `patch` follows a PUT that
# was refused, `chunk` a PUT and a PATCH; the second chunk is the one that breaks.
SERVED = {
    ("put", "POST"): 0,
    ("patch", "POST"): 1,
    ("chunk", "POST"): 2,
    ("put", "PUT"): 0,
    ("patch", "PUT"): 1,
    ("chunk", "PUT"): 1,
    ("patch", "PATCH"): 0,
    ("chunk", "PATCH"): 2,
}

FAULTS = {
    "RST before": hang_up(),
    "RST after half reached it and is lost": break_off(HALF, keep=False),
    "RST after half reached it and is kept": break_off(HALF, keep=True),
    "answer lost": lose,
    "early 503": early(503),
    **{str(status): answer(status) for status in (404, 408, 416, 429, 500, 502, 503, 504)},
}
FINAL = {"404", "416"}  # to a POST they say that there is no such repository


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        yield registry


@pytest.fixture
def fake(shared: FakeRegistry) -> FakeRegistry:
    shared.reset()
    return shared


def destination(host: str, repository: str = "team/app") -> RegistryDestination:
    reference = Reference(registry=host, repository=repository, tag="v1")
    return RegistryDestination(reference, RegistryOptions(read_timeout=5), sleep=no_sleep)


def stored(fake: FakeRegistry, mode: str) -> bool:
    return fake.blobs.get(("team/app", str(Digest.of(DATA[mode])))) == DATA[mode]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("mode", "method"), SERVED, ids=[f"{mode}-{method}" for mode, method in SERVED])
def test_an_upload_survives(fake: FakeRegistry, mode: Mode, method: str, fault: str) -> None:
    fake.takes = mode
    if SERVED[mode, method]:
        fake.on(method, "uploads", FakeRegistry.serve, times=SERVED[mode, method])
    fake.on(method, "uploads", FAULTS[fault])
    with destination(fake.host) as there:
        if method == "POST" and fault in FINAL:
            with pytest.raises(RegistryError, match=fault):
                there.put(octets(DATA[mode]))
            assert not stored(fake, mode)
            return
        assert there.put(octets(DATA[mode])) == "uploaded"
    assert stored(fake, mode)
    assert all(rule.left == 0 for rule in fake.rules)  # it did break
    assert len(fake.seen("POST")) <= SERVED[mode, "POST"] + 2


@pytest.mark.parametrize("mode", ["put", "patch", "chunk"])
def test_a_lost_answer_to_the_closing_request_costs_a_head(fake: FakeRegistry, mode: Mode) -> None:
    fake.takes = mode
    if SERVED[mode, "PUT"]:
        fake.on("PUT", "uploads", FakeRegistry.serve)
    fake.on("PUT", "uploads", lose)
    with destination(fake.host) as there:
        there.put(octets(DATA[mode]))
    assert [str(c)[:4] for c in fake.calls][-2:] == ["PUT ", "HEAD"]


@pytest.mark.parametrize("fault", ["RST before", "answer lost", "503", "416"])
def test_chunks_that_arrived_are_not_sent_again_where_the_registry_can_go_on(fake: FakeRegistry, fault: str) -> None:
    fake.takes = "chunk"
    fake.on("PATCH", "uploads", FakeRegistry.serve, times=SERVED["chunk", "PATCH"])
    fake.on("PATCH", "uploads", FAULTS[fault])
    with destination(fake.host) as there:
        there.put(octets(DATA["chunk"]))
    assert len(fake.seen("POST")) == 3  # one for each way that was tried
    begins = [c.headers["Content-Range"].partition("-")[0] for c in fake.seen("PATCH") if "Content-Range" in c.headers]
    assert begins.count("0") == 1


def test_a_session_that_moves_with_each_chunk_is_asked_for_where_it_is_now(fake: FakeRegistry) -> None:
    """As docker-registry's: the state of the session is in its URL."""
    fake.takes = "chunk"
    fake.on("PATCH", "uploads", FakeRegistry.serve, times=2)
    fake.on("PATCH", "uploads", hang_up())
    fake.location = "http://{host}{path}?arrived={arrived}"
    with destination(fake.host) as there:
        there.put(octets(DATA["chunk"]))
    (asked,) = fake.seen("GET", "uploads")
    assert asked.query["arrived"] == [str((4 << 20) - (64 << 10))]


def test_more_breaks_than_attempts_are_survived_as_long_as_the_blob_grows(fake: FakeRegistry) -> None:
    data = DATA["put"] * 36
    fake.on("PUT", "uploads", break_off(1 << 20, keep=True))
    fake.on("PATCH", "uploads", break_off(1 << 20, keep=True), times=7)
    with destination(fake.host) as there:
        there.put(octets(data))
    assert len(fake.seen("PATCH")) == 8
    assert len(fake.seen("POST")) == 1
    assert fake.blobs["team/app", str(Digest.of(data))] == data


def test_breaks_that_bring_nothing_are_bounded(fake: FakeRegistry) -> None:
    for method in ("PUT", "PATCH"):
        fake.on(method, "uploads", break_off(1000, keep=True), times=99)
    with destination(fake.host) as there, pytest.raises(RegistryError):
        there.put(octets(DATA["put"]))
    assert len(fake.seen("PUT")) + len(fake.seen("PATCH")) == 5


@pytest.mark.parametrize("status", [400, 405, 413, 422, 507])
def test_what_refuses_the_rest_of_a_blob_may_take_the_whole(fake: FakeRegistry, status: int) -> None:
    fake.on("PUT", "uploads", break_off(HALF, keep=True))
    fake.on("PATCH", "uploads", answer(status), times=99)
    with destination(fake.host) as there:
        if status == 507:
            with pytest.raises(RegistryError, match="507"):
                there.put(octets(DATA["put"]))
            return
        there.put(octets(DATA["put"]))
    assert stored(fake, "put")


@pytest.mark.parametrize("mode", ["patch", "chunk"])
def test_threads_that_are_refused_together_find_the_other_way_together(fake: FakeRegistry, mode: Mode) -> None:
    fake.takes = mode
    met = threading.Barrier(3)

    def refuse(registry: FakeRegistry, exchange: Exchange) -> None:
        met.wait(10)
        registry.serve(exchange)

    fake.on("PUT", "uploads", refuse, times=3)
    blobs = [octets(DATA[mode][number:]) for number in range(3)]
    with destination(fake.host) as there, ThreadPoolExecutor(3) as pool:
        assert list(pool.map(there.put, blobs)) == ["uploaded"] * 3
    refused = [c for c in fake.seen("PUT") if c.body]
    assert len(refused) == 3  # and none again


@pytest.mark.parametrize("code", ["DIGEST_INVALID", "SIZE_INVALID"])
def test_a_wrong_digest_is_not_sent_again(fake: FakeRegistry, code: str) -> None:
    fake.on("PUT", "uploads", answer(400, error_body(code)))
    with destination(fake.host) as there, pytest.raises(RegistryError, match=code):
        there.put(octets(DATA["put"]))
    assert len(fake.seen("PUT")) == 1


# -- a real registry, which forgets a session whose body was cut


REAL_FAULTS = {
    "RST before": reset_before,
    "RST after half reached it": reset_after(HALF),
    "answer lost": lost_answer,
    "503": canned(503),
}


@pytest.fixture(scope="module")
def proxy(open_registry: Registry) -> Iterator[FaultProxy]:
    with running_proxy(open_registry.host) as proxy:
        yield proxy


@pytest.mark.parametrize("fault", REAL_FAULTS)
@pytest.mark.parametrize(("mode", "method"), SERVED, ids=[f"{mode}-{method}" for mode, method in SERVED])
def test_an_upload_to_a_real_registry_survives(
    open_registry: Registry, proxy: FaultProxy, mode: Mode, method: str, fault: str
) -> None:
    repository = f"faults/n{next(_NUMBERS)}"
    uploads = f"/{repository}/blobs/uploads"
    refused = {"put": {}, "patch": {"PUT": 405}, "chunk": {"PUT": 413, "PATCH": 413}}[mode]
    for refused_method, status in refused.items():
        proxy.on(refused_method, uploads, canned(status))
    passed = SERVED[mode, method] - (method in refused)
    if passed:
        proxy.on(method, uploads, pass_on, times=passed)
    proxy.on(method, uploads, REAL_FAULTS[fault])
    blob = octets(DATA[mode])
    with destination(proxy.host, repository) as there:
        assert there.put(blob) == "uploaded"
    with urllib.request.urlopen(f"{open_registry.url}/v2/{repository}/blobs/{blob.descriptor.digest}") as response:
        assert response.read() == DATA[mode]


def test_a_real_registry_goes_on_after_a_chunk_that_never_reached_it(
    open_registry: Registry, proxy: FaultProxy
) -> None:
    repository = f"faults/n{next(_NUMBERS)}"
    for method, fault, times in (
        ("PUT", canned(413), 1),
        ("PATCH", canned(413), 1),
        ("PATCH", pass_on, 1),
        ("PATCH", canned(503), 1),
    ):
        proxy.on(method, repository, fault, times)
    before = len(open_registry.requests())
    with destination(proxy.host, repository) as there:
        assert there.put(octets(DATA["chunk"])) == "uploaded"
    methods = [line.split()[0] for line in open_registry.requests()[before:] if "/uploads/" in line]
    assert methods == ["POST", "POST", "POST", "PATCH", "GET", "PATCH", "PUT"]


LOCATIONS = {
    "absolute": lambda location: location,
    "relative": lambda location: "/" + location.split("/", 3)[3],
    "relative to the request": lambda location: location.rpartition("/uploads/")[2],
    "without a scheme": lambda location: location.partition(":")[2],
    "blank and duplicate query": lambda location: location.replace("?", "?x=&x=1&x=%2F&"),
}


@pytest.mark.parametrize("form", LOCATIONS)
@pytest.mark.parametrize("mode", ["put", "patch"])
def test_a_location_of_any_form_leads_to_the_session(
    open_registry: Registry, proxy: FaultProxy, mode: Mode, form: str
) -> None:
    repository = f"faults/n{next(_NUMBERS)}"
    if mode == "patch":
        proxy.on("PUT", repository, canned(405))
    for method in ("POST", "PATCH"):
        proxy.on(method, repository, relocated(LOCATIONS[form]), times=9)
    with destination(proxy.host, repository) as there:
        assert there.put(octets(DATA[mode])) == "uploaded"
    closing = [line for line, _ in proxy.requests if line.startswith(f"PUT /v2/{repository}/")][-1]
    assert ("x=&x=1&x=%2F&" in closing) == (form == "blank and duplicate query")


def test_an_empty_session_whose_range_is_0_0_has_no_byte(open_registry: Registry, proxy: FaultProxy) -> None:
    """As a real registry says of it."""
    repository = f"faults/n{next(_NUMBERS)}"
    proxy.on("PUT", repository, reset_before)
    before = len(open_registry.requests())
    with destination(proxy.host, repository) as there:
        assert there.put(octets(DATA["put"])) == "uploaded"
    lines = [line.split() for line in open_registry.requests()[before:] if "/uploads/" in line]
    assert [(method, status) for method, _, status in lines] == [
        *(("POST", "202"), ("GET", "204"), ("POST", "202")),
        ("PUT", "201"),
    ]


@pytest.mark.parametrize("mode", ["put", "patch", "chunk"])
def test_a_blob_of_one_byte(fake: FakeRegistry, mode: Mode) -> None:
    fake.takes = mode
    with destination(fake.host) as there:
        assert there.put(octets(b"x")) == "uploaded"


def test_chunks_are_no_smaller_than_the_registry_wants(fake: FakeRegistry) -> None:
    """OCI-Chunk-Min-Length, beyond the 16 MiB that chunks have."""

    def start(registry: FakeRegistry, exchange: Exchange) -> None:
        exchange.extra["OCI-Chunk-Min-Length"] = str(20 << 20)
        registry.serve(exchange)

    data = bytes(17 << 20)
    fake.on("PUT", "uploads", early(413))
    fake.on("POST", "uploads", start, times=9)
    with destination(fake.host) as there:
        there.put(octets(data))
    assert [len(c.body) for c in fake.seen("PATCH")] == [len(data)]
