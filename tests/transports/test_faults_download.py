"""Downloads that break, from a real registry behind a proxy that spoils its answers."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from itertools import count
from typing import TYPE_CHECKING

import pytest

from ociforge.errors import ImageError, RegistryError
from ociforge.oci.reference import Reference
from ociforge.publish import publish
from ociforge.transports.download import BlobStream
from ociforge.transports.http import BrokenConnectionError, Wire
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry import RegistryDestination, RegistrySource
from tests.support.fake_registry import Exchange, FakeRegistry, answer, running_fake
from tests.support.fault_proxy import (
    Fault,
    FaultProxy,
    canned,
    corrupt,
    pass_on,
    reset_before,
    running_proxy,
    stalled,
    truncated,
)
from tests.support.memory import MemoryDestination, sample_image
from tests.transports.registry_tools import no_sleep, octets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import requests

    from tests.support.registry import Registry
    from tests.support.tls import Authority

DATA = bytes(range(256)) * 4096  # 1 MiB
BLOB = octets(DATA).descriptor
BLOBS = "/blobs/sha256"
_NUMBERS = count()


@pytest.fixture(scope="module")
def filled(open_registry: Registry) -> Registry:
    """The registry with DATA in it."""
    reference = Reference(registry=open_registry.host, repository="faults/down", tag="v1")
    with RegistryDestination(reference, sleep=no_sleep) as destination:
        destination.put(octets(DATA))
    return open_registry


@pytest.fixture
def proxy(filled: Registry) -> Iterator[FaultProxy]:
    with running_proxy(filled.host) as proxy:
        yield proxy


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def source(proxy: FaultProxy, slept: list[float]) -> Iterator[RegistrySource]:
    reference = Reference(registry=proxy.host, repository="faults/down", tag="v1")
    source = RegistrySource(reference, RegistryOptions(read_timeout=0.2), sleep=slept.append)
    yield source
    source.close()


def read(source: RegistrySource) -> bytes:
    with source.open(BLOB) as stream:
        return b"".join(iter(lambda: stream.read(50_000), b""))


def ranges(proxy: FaultProxy) -> list[str]:
    """The Range of each GET, in order."""
    return [headers.get("range", "") for line, headers in proxy.requests if line.startswith("GET")]


def test_a_flipped_bit_is_noticed_and_not_asked_for_again(source: RegistrySource, proxy: FaultProxy) -> None:
    proxy.on("GET", BLOBS, corrupt(700_000))
    with pytest.raises(ImageError, match="got bytes with the digest"):
        read(source)
    assert len(ranges(proxy)) == 1


def test_a_body_that_is_cut_twice_goes_on_by_range_where_it_was(source: RegistrySource, proxy: FaultProxy) -> None:
    proxy.on("GET", BLOBS, truncated(300_000))
    proxy.on("GET", BLOBS, truncated(1000))
    assert read(source) == DATA
    assert ranges(proxy) == ["", "bytes=300000-", "bytes=301000-"]


def test_a_body_that_stalls_is_a_cut(source: RegistrySource, proxy: FaultProxy, slept: list[float]) -> None:
    proxy.on("GET", BLOBS, stalled(300_000))
    assert read(source) == DATA
    assert ranges(proxy) == ["", "bytes=300000-"]
    assert len(slept) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_registry_is_waited_for_as_long_as_it_says(
    source: RegistrySource, proxy: FaultProxy, slept: list[float], status: int
) -> None:
    proxy.on("GET", BLOBS, canned(status, Retry_After="7"), times=2)
    assert read(source) == DATA
    assert slept == [7, 7]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_registry_that_is_busy_during_a_resume_is_waited_for(
    source: RegistrySource, proxy: FaultProxy, slept: list[float], status: int
) -> None:
    proxy.on("GET", BLOBS, truncated(300_000))
    proxy.on("GET", BLOBS, canned(status, Retry_After="7"))
    assert read(source) == DATA
    assert slept[1:] == [7]


def test_connections_that_are_reset_are_made_again_five_times(
    source: RegistrySource, proxy: FaultProxy, slept: list[float]
) -> None:
    proxy.on("GET", BLOBS, reset_before, times=4)
    assert read(source) == DATA
    assert len(slept) == 4
    proxy.on("GET", BLOBS, reset_before, times=99)
    with pytest.raises(RegistryError, match="connection reset by peer"):
        read(source)
    assert len(ranges(proxy)) == 10


@pytest.fixture
def trickling() -> Iterator[FakeRegistry]:
    """A registry that gives ten bytes at a time, the first time it is asked for the blob or a manifest."""

    def trickle(registry: FakeRegistry, exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Content-Length", str(len(DATA)))
        exchange.end_headers()
        for begin in range(0, 3000, 10):
            exchange.wfile.write(DATA[begin : begin + 10])
            time.sleep(0.001)  # else they would come in one piece

    with running_fake() as fake:
        fake.add_blob("faults/down", DATA)
        fake.on("GET", "", trickle)
        yield fake


def test_slow_loris_a_blob_that_trickles_is_cut_though_no_byte_is_late(trickling: FakeRegistry) -> None:
    wire = hasty_wire()

    def get(offset: int) -> requests.Response:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        url = f"http://{trickling.host}/v2/faults/down/blobs/{BLOB.digest}"
        return wire.send("GET", url, headers, stream=True)

    with BlobStream(get, BLOB, wire) as stream:
        assert stream.read() == DATA
    wire.close()
    (again,) = [c.headers["Range"] for c in trickling.seen("GET")[1:]]
    assert 0 < int(again.removeprefix("bytes=").removesuffix("-")) < 3000


def test_slow_loris_a_manifest_that_trickles_is_given_up(trickling: FakeRegistry) -> None:
    wire = hasty_wire()
    with pytest.raises(BrokenConnectionError, match="no answer, or not enough of it, in 5 s"):
        wire.send("GET", f"http://{trickling.host}/v2/faults/down/manifests/v1", {})
    wire.close()


def hasty_wire() -> Wire:
    """A wire whose clock goes on by half a second whenever somebody looks at it: a read takes that long."""
    seconds = count()
    return Wire(RegistryOptions(read_timeout=5), trust_env=False, sleep=no_sleep, clock=lambda: next(seconds) / 2)


def test_a_slow_reader_is_not_the_registrys_fault(source: RegistrySource, proxy: FaultProxy) -> None:
    with source.open(BLOB) as stream:
        head = stream.read(10)
        time.sleep(0.25)  # longer than the registry may be silent
        assert head + stream.read() == DATA
    assert len(ranges(proxy)) == 1


# -- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_any_kind_is_followed_to_the_blob(
    filled: Registry, source: RegistrySource, proxy: FaultProxy, status: int
) -> None:
    target = f"{filled.url}/v2/faults/down/blobs/{BLOB.digest}?signature=a%2Fb"
    proxy.on("GET", BLOBS, canned(status, Location=target))
    assert read(source) == DATA


def test_a_redirect_is_asked_for_anew_when_the_target_is_cut(
    filled: Registry, source: RegistrySource, proxy: FaultProxy
) -> None:
    """A signed URL may have run out by then."""
    with running_proxy(filled.host) as storage:
        target = f"http://{storage.host}/v2/faults/down/blobs/{BLOB.digest}"
        proxy.on("GET", BLOBS, canned(307, Location=target), times=2)
        storage.on("GET", BLOBS, truncated(400_000))
        assert read(source) == DATA
        assert ranges(storage) == ["", "bytes=400000-"]
    assert len(ranges(proxy)) == 2


@pytest.mark.parametrize(("hops", "works"), [(5, True), (6, False)])
def test_more_than_five_hops_are_a_loop(source: RegistrySource, proxy: FaultProxy, hops: int, works: bool) -> None:
    here = f"/v2/faults/down/blobs/{BLOB.digest}"
    proxy.on("GET", BLOBS, canned(307, Location=here), times=hops)
    if works:
        assert read(source) == DATA
    else:
        with pytest.raises(RegistryError, match="more than 5 redirects"):
            source.open(BLOB)
    assert len(ranges(proxy)) == 6


def test_a_redirect_from_https_to_http_is_refused(authority: Authority) -> None:
    with running_fake(certificate=authority.issue("redirecting")) as fake, running_fake("127.0.0.2") as other:
        fake.on("GET", BLOBS, answer(307, Location=f"http://{other.host}/v2/faults/down/blobs/{BLOB.digest}"))
        reference = Reference(registry=fake.host, repository="faults/down", tag="v1")
        source = RegistrySource(reference, RegistryOptions(ca_file=authority.certificate), sleep=no_sleep)
        with pytest.raises(RegistryError, match="leads from https to plain http"):
            source.open(BLOB)
        source.close()
        assert other.calls == []


# -- the whole way into the store


def test_a_full_disk_is_an_error_and_leaves_nothing(filled: Registry, tmp_path: Path) -> None:
    """In a process of its own that may write no file of more than half of the blob."""
    code = f"""
        import resource
        from pathlib import Path
        from layers.digest import Digest
        from ociforge.errors import StoreError
        from ociforge.oci.descriptor import Descriptor
        from ociforge.oci.reference import Reference
        from ociforge.store import Store
        from ociforge.transports.registry import RegistrySource

        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        source = RegistrySource(Reference(registry="{filled.host}", repository="faults/down", tag="v1"))
        blob = Descriptor(media_type="x/y", digest=Digest.parse("{BLOB.digest}"), size={BLOB.size})
        store = Store(Path({str(tmp_path / "store")!r}))
        try:
            with source.open(blob) as stream:
                store.put(blob, stream)
        except StoreError as error:
            print(error.message.rpartition(": ")[2])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=False, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("File too large\n", "", 0)
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_an_image_through_every_fault_at_once(open_registry: Registry, tmp_path: Path) -> None:
    """Each request of a push and of a pull breaks once, in one way or another."""
    image = sample_image([{"etc/big": DATA}])
    faults: list[Fault] = [reset_before, canned(503), canned(429, Retry_After="1")]
    with running_proxy(open_registry.host) as proxy:
        reference = Reference(registry=proxy.host, repository=f"faults/all{next(_NUMBERS)}", tag="v1")
        for method in ("HEAD", "POST", "PUT", "GET"):
            for fault in faults:
                proxy.on(method, "", fault)
                proxy.on(method, "", pass_on)
        assert publish(image, RegistryDestination(reference, sleep=no_sleep)).descriptor == image.top
        source = RegistrySource(reference, sleep=no_sleep)
        back = MemoryDestination()
        publish(source, back)
        source.close()
    assert back.contents == image.contents
