"""Archives, what they hold, and channel indexes: from mirrors, or where there is no network."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from ociforge.conda.facts import gather_facts
from ociforge.conda.fetch import fetch
from ociforge.conda.solve import SolveRequest, solve
from ociforge.errors import OfflineError, PackageError, SolveError
from ociforge.events import Event, Warned
from ociforge.network import Mirrors, Network
from ociforge.store import Documents
from tests.conda.environment import records
from tests.conda.ranged import serve_ranges
from tests.support.channel import Channel, Served, serve, write_channel
from tests.support.conda import CondaPackage, Regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rattler import RepoDataRecord

    from ociforge.conda.fetch import Archive

NOISE = bytes(range(256)) * 300
FAR = "http://127.0.0.1:1/channel/"  # where nobody listens


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    packages = [CondaPackage(name=name, files={f"share/{name}": Regular(content=NOISE)}) for name in ("a", "b")]
    return write_channel(tmp_path / "channel", packages)


@pytest.fixture
def mirror(channel: Channel) -> Iterator[Served]:
    with serve(channel.path) as served:
        yield served


def through(*mirrors: str, prefix: str = FAR, offline: bool = False) -> Network:
    return Network(conda=Mirrors(prefixes={prefix: mirrors}), offline=offline)


def get(
    rows: list[RepoDataRecord], tmp_path: Path, network: Network, events: list[Event] | None = None
) -> tuple[Archive, ...]:
    heard: list[Event] = [] if events is None else events
    return fetch(rows, cache=tmp_path / "cache", retries=0, network=network, notify=heard.append)


def warnings(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


def test_a_mirror_serves_in_the_channels_place(channel: Channel, mirror: Served, tmp_path: Path) -> None:
    archives = get(records(channel, url=FAR), tmp_path, through(mirror.url))
    assert [a.path.read_bytes() for a in archives] == [a.path.read_bytes() for a in channel.archives]
    assert [a.record.url for a in archives] == [f"{FAR}linux-64/{name}-1.0-0.conda" for name in "ab"]


def test_a_directory_can_be_a_mirror(channel: Channel, tmp_path: Path) -> None:
    assert len(get(records(channel, url=FAR), tmp_path, through(channel.url, offline=True))) == 2


def test_what_a_mirror_lacks_comes_from_the_next_place(channel: Channel, mirror: Served, tmp_path: Path) -> None:
    events: list[Event] = []
    (tmp_path / "empty").mkdir()
    with serve(tmp_path / "empty") as empty:
        get(records(channel, url=FAR), tmp_path, through(empty.url, mirror.url), events)
        assert sorted(empty.requests) == sorted(mirror.requests)
    said = f"the mirror `{empty.url}` does not have everything: the rest comes from elsewhere"
    assert warnings(events) == [said]


@pytest.mark.parametrize("fault", ["corrupt", "truncated"])
def test_a_mirror_that_serves_something_else_is_passed_over(
    channel: Channel, mirror: Served, tmp_path: Path, fault: str
) -> None:
    mirror.faults["/linux-64/a-1.0-0.conda"] = fault  # type: ignore[assignment]
    events: list[Event] = []
    with serve(channel.path) as far:
        rows = records(channel, "a", url=far.url)
        (archive,) = get(rows, tmp_path, through(mirror.url, prefix=far.url), events)
        assert archive.path.read_bytes() == channel.archives[0].path.read_bytes()
        assert far.requests == ["GET /linux-64/a-1.0-0.conda"]
    (said,) = warnings(events)
    assert said.startswith(f"the mirror `{mirror.url}` is passed over: ")


def test_a_mirror_that_is_not_there_is_asked_once(channel: Channel, tmp_path: Path) -> None:
    events: list[Event] = []
    with serve(channel.path) as far:
        for name in "ab":
            network = through("http://u:s3cret@127.0.0.1:1/x", prefix=far.url)
            get(records(channel, name, url=far.url), tmp_path, network, events)
        assert len(far.requests) == 2
    assert "s3cret" not in repr(events)


def test_all_places_fail_and_the_channels_own_answer_is_told(channel: Channel, mirror: Served, tmp_path: Path) -> None:
    mirror.faults["/linux-64/a-1.0-0.conda"] = "missing"
    with pytest.raises(
        PackageError, match=r"^fetching `a-1\.0-0\.conda` from `http://127\.0\.0\.1:1/channel/linux-64/"
    ):
        get(records(channel, "a", url=FAR), tmp_path, through(mirror.url))


def test_no_credential_goes_to_another_host(channel: Channel, mirror: Served, tmp_path: Path) -> None:
    """Not the channel's to the mirror, by header or in the path."""
    secret = "http://user:s3cret@127.0.0.1:1/t/tk-s3cret/channel/"
    get(records(channel, url=secret), tmp_path, through(mirror.url))
    assert sorted(mirror.requests) == ["GET /linux-64/a-1.0-0.conda", "GET /linux-64/b-1.0-0.conda"]


class _Guarded(BaseHTTPRequestHandler):
    """Sends those who know the password on to another server; keeps what it was told."""

    told: ClassVar[list[str | None]] = []
    elsewhere: ClassVar[str] = ""

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization")
        self.told.append(authorization)
        self.send_response(302 if authorization == "Basic dTpzM2NyZXQ=" else 200)
        self.send_header("Location", f"{self.elsewhere}{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def guarded(elsewhere: str = "") -> Iterator[tuple[str, list[str | None]]]:
    """`host:port` of a server, and what it is told."""
    told: list[str | None] = []
    handler = type("Handler", (_Guarded,), {"told": told, "elsewhere": elsewhere})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_mirrors_credential_stays_with_it(channel: Channel, tmp_path: Path) -> None:
    """It is told to the mirror, and not to whom that one leads, or to the channel."""
    with guarded() as (other, heard), guarded(f"http://localhost:{other.rpartition(':')[2]}") as (host, told):
        network = through(f"http://u:s3cret@{host}/", prefix=f"http://{other}/")
        with pytest.raises(PackageError) as caught:
            get(records(channel, "a", url=f"http://{other}/"), tmp_path, network)
        assert told[0] == "Basic dTpzM2NyZXQ="
        assert heard and set(heard) == {None}
    assert "s3cret" not in caught.value.message


def test_offline_all_that_is_missing_is_told(channel: Channel, mirror: Served, tmp_path: Path) -> None:
    for network in (Network(offline=True), through(mirror.url, offline=True)):
        with pytest.raises(OfflineError) as caught:
            get(records(channel, url=FAR), tmp_path, network)
        lines = [f"the conda archive `{name}-1.0-0.conda` is not in the store" for name in "ab"]
        assert caught.value.message.splitlines() == lines
    assert mirror.requests == []


def test_offline_the_cache_does(channel: Channel, mirror: Served, tmp_path: Path) -> None:
    get(records(channel, url=mirror.url), tmp_path, Network())
    assert len(get(records(channel, url=FAR), tmp_path, Network(offline=True))) == 2


class TestFacts:
    BIG = CondaPackage(name="big", files={"share/big": bytes(i * i % 251 for i in range(300_000))})

    @pytest.fixture
    def big(self, tmp_path: Path) -> Channel:
        return write_channel(tmp_path / "facts", [self.BIG])

    def test_they_are_read_from_mirrors(self, big: Channel, tmp_path: Path) -> None:
        documents = Documents(tmp_path / "store", "facts")
        with serve_ranges(big.path) as ranged:
            network = through(f"{FAR}none", ranged.url)
            (facts,) = gather_facts(
                records(big, url=FAR), archives=tmp_path / "cache", documents=documents, retries=0, network=network
            )
        assert facts.info.filename == "big-1.0-0.conda"

    def test_offline_they_come_from_what_is_here(self, big: Channel, tmp_path: Path) -> None:
        documents, cache = Documents(tmp_path / "store", "facts"), tmp_path / "cache"
        with pytest.raises(OfflineError, match=r"^the conda archive `big-1\.0-0\.conda` is not in the store$"):
            gather_facts(records(big, url=FAR), archives=cache, documents=documents, network=Network(offline=True))
        with serve(big.path) as server:
            fetch(records(big, url=server.url), cache=cache)
        (facts,) = gather_facts(
            records(big, url=FAR), archives=cache, documents=documents, network=Network(offline=True)
        )
        assert facts.verified


class TestIndexes:
    def asked(self, url: str, *specs: str) -> SolveRequest:
        return SolveRequest(
            what="environment `default`", specs=specs, subdir="linux-64", channels=(url,), virtual_packages=()
        )

    def test_records_name_the_channel_and_not_its_mirror(
        self, channel: Channel, mirror: Served, tmp_path: Path
    ) -> None:
        events: list[Event] = []
        network = through("http://127.0.0.1:1/none", mirror.url)
        ((a, b),) = solve(
            [self.asked(FAR, "a", f"{FAR}::b")], cache=tmp_path / "c", retries=0, network=network, notify=events.append
        )
        assert [(r.url, r.channel) for r in (a, b)] == [(f"{FAR}linux-64/{n}-1.0-0.conda", FAR) for n in "ab"]
        ((direct, _),) = solve([self.asked(channel.url, "a", "b")], cache=tmp_path / "d")
        assert json.loads(direct.to_json())["sha256"] == json.loads(a.to_json())["sha256"]
        assert warnings(events)[0].startswith("the mirror `http://127.0.0.1:1/none` is passed over: ")

    def test_offline_the_cached_indexes_and_local_channels_do(
        self, channel: Channel, mirror: Served, tmp_path: Path
    ) -> None:
        offline = Network(offline=True)
        with pytest.raises(SolveError) as caught:
            solve([self.asked(mirror.url, "a")], cache=tmp_path / "cache", network=offline)
        assert caught.value.hint == "run `ociforge lock` where there is a network"
        assert mirror.requests == []
        solve([self.asked(mirror.url, "a")], cache=tmp_path / "cache")
        seen = len(mirror.requests)
        for url in (mirror.url, channel.url):
            ((record,),) = solve([self.asked(url, "a")], cache=tmp_path / "cache", network=offline)
            assert record.url.startswith(url)
        assert len(mirror.requests) == seen
