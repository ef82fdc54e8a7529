from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from layers.digest import Digest
from ociforge.errors import OfflineError, PackageError
from ociforge.events import BlobDone, BlobProgress, BlobStarted, Event, Warned
from ociforge.network import Mirrors
from ociforge.pypi.fetch import Access, Archive, Cache, Fetcher
from ociforge.pypi.location import Local, Remote
from tests.support.channel import Served, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "demo-1.0-py3-none-any.whl"
NOISE = bytes(range(256)) * 9000  # 2.3 MB: several pieces
DIGEST = Digest.of(NOISE)
WAITED: list[float] = []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / NAME).write_bytes(NOISE)
    WAITED.clear()
    with serve(tmp_path / "index") as served:
        yield served


def remote(url: str, digest: Digest = DIGEST) -> Remote:
    return Remote(url=url, filename=NAME, sha256=digest, direct=False)


def fetcher(cache: Path, events: list[Event] | None = None, **access: Any) -> Fetcher:
    notify = events.append if events is not None else lambda _: None
    return Fetcher(Cache(cache), Access(sleep=WAITED.append, **access), notify)


def failure(cache: Path, source: Remote | Local, **access: Any) -> PackageError:
    with pytest.raises(PackageError) as caught:
        fetcher(cache, **access).fetch(source)
    assert list(cache.iterdir()) == []
    return caught.value


def test_a_file_is_downloaded_once(server: Served, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for _ in range(2):
        archive = fetcher(cache).fetch(remote(server.url + NAME))
        assert archive == Archive(path=cache / f"{DIGEST.hex}.whl", filename=NAME, digest=DIGEST, size=len(NOISE))
        assert archive.path.read_bytes() == NOISE
    assert server.requests == [f"GET /{NAME}"]
    assert [path.name for path in cache.iterdir()] == [f"{DIGEST.hex}.whl"]


@pytest.mark.parametrize("damage", [b"", b"short", NOISE[::-1]])
def test_a_damaged_file_in_the_cache_is_made_again(server: Served, tmp_path: Path, damage: bytes) -> None:
    source = remote(server.url + NAME)
    fetcher(tmp_path / "cache").fetch(source).path.write_bytes(damage)
    assert fetcher(tmp_path / "cache").fetch(source).path.read_bytes() == NOISE


def test_progress_is_told(server: Served, tmp_path: Path) -> None:
    events: list[Event] = []
    fetcher(tmp_path / "cache", events).fetch(remote(server.url + NAME))
    assert events[0] == BlobStarted(DIGEST, len(NOISE), server.url + NAME)
    assert events[-1] == BlobDone(DIGEST, len(NOISE), "downloaded")
    assert sum(event.count for event in events if isinstance(event, BlobProgress)) == len(NOISE)


def test_another_file_than_the_locked_one_is_refused(server: Served, tmp_path: Path) -> None:
    other = Digest.of(b"other")
    error = failure(tmp_path / "cache", remote(server.url + NAME, other))
    assert error.message == (
        f"`{NAME}` from `{server.url}{NAME}` is not the file that the lock names: expected `{other}`, got `{DIGEST}`"
        f" ({len(NOISE)} bytes)"
    )


def test_a_changed_file_is_refused(server: Served, tmp_path: Path) -> None:
    server.faults[f"/{NAME}"] = "corrupt"
    assert "is not the file that the lock names" in failure(tmp_path / "cache", remote(server.url + NAME)).message


@pytest.mark.parametrize(
    ("fault", "why"),
    [("truncated", "the connection was closed before the answer was complete"), ("busy", "503 Service Unavailable")],
)
def test_what_may_pass_is_tried_again_a_few_times(server: Served, tmp_path: Path, fault: Any, why: str) -> None:
    server.faults[f"/{NAME}"] = fault
    error = failure(tmp_path / "cache", remote(server.url + NAME), attempts=3)
    assert error.message == f"fetching `{NAME}` from `{server.url}{NAME}`: {why}"
    assert len(server.requests) == 3
    assert WAITED == [0.5, 1.0]


def test_a_transfer_that_recovers_is_whole(server: Served, tmp_path: Path) -> None:
    server.faults[f"/{NAME}"] = "truncated"
    access = Access(sleep=lambda _: server.faults.clear())
    archive = Fetcher(Cache(tmp_path / "cache"), access).fetch(remote(server.url + NAME))
    assert archive.path.read_bytes() == NOISE


def test_a_missing_file_is_not_asked_for_again(server: Served, tmp_path: Path) -> None:
    error = failure(tmp_path / "cache", remote(f"{server.url}gone.whl?signature=secret#x"))
    assert error.message == f"fetching `{NAME}` from `{server.url}gone.whl`: 404 File not found"
    assert error.hint == "update the lock: the index no longer has this file"
    assert len(server.requests) == 1


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    error = failure(tmp_path / "cache", remote(f"http://u:secret@127.0.0.1:1/{NAME}"), attempts=1)
    assert error.message == f"fetching `{NAME}` from `http://127.0.0.1:1/{NAME}`: connection refused"


def test_threads_share_a_fetcher(server: Served, tmp_path: Path) -> None:
    names = [f"{number}.whl" for number in range(12)]
    for name in names:
        (tmp_path / "index" / name).write_bytes(name.encode())
    shared = fetcher(tmp_path / "cache")
    sources = [remote(server.url + name, Digest.of(name.encode())) for name in names]
    with ThreadPoolExecutor(4) as pool:
        archives = list(pool.map(shared.fetch, sources))
    assert [archive.path.read_bytes().decode() for archive in archives] == names


def test_a_local_file_is_copied_and_verified(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(NOISE)
    for sha256 in (None, DIGEST):
        archive = fetcher(tmp_path / "cache").fetch(Local(path=path, filename=NAME, sha256=sha256))
        assert archive.digest == DIGEST
        assert archive.path.read_bytes() == NOISE
        assert archive.path.parent == tmp_path / "cache"
        archive.path.unlink()
    error = failure(tmp_path / "cache", Local(path=path, filename=NAME, sha256=Digest.of(b"")))
    assert f"`{NAME}` from `{path}` is not the file that the lock names" in error.message


def test_an_unusable_cache_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(PackageError, match=r"cannot use `.*/cache` for wheels: File exists"):
        Cache(tmp_path / "cache")


# --- credentials


class _Guarded(BaseHTTPRequestHandler):
    """`/plain/…` needs the password, `/away/…` leads to another server, `/forbidden/…` never opens."""

    seen: list[tuple[str, str | None]]
    elsewhere = ""

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization")
        self.seen.append((self.path, authorization))
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", self.elsewhere + NAME)
            self.end_headers()
            return
        allowed = authorization == "Basic " + base64.b64encode("usér:pä ss".encode()).decode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(NOISE) if allowed else 0))
        self.end_headers()
        if allowed:
            self.wfile.write(NOISE)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def guarded(elsewhere: str = "") -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    seen: list[tuple[str, str | None]] = []
    handler = type("Handler", (_Guarded,), {"seen": seen, "elsewhere": elsewhere})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def netrc(directory: Path, text: str) -> Path:
    path = directory / "netrc"
    path.write_text(text)
    return path


def test_credentials_of_the_url_are_used_and_never_shown(tmp_path: Path) -> None:
    events: list[Event] = []
    with guarded() as (host, _):
        url = f"http://us%C3%A9r:p%C3%A4%20ss@{host}/{NAME}"
        assert fetcher(tmp_path / "cache", events).fetch(remote(url)).digest == DIGEST
        error = failure(tmp_path / "other", remote(f"http://us%C3%A9r:wrong@{host}/{NAME}"))
    assert error.message == f"fetching `{NAME}` from `http://{host}/{NAME}`: 401 Unauthorized"
    assert error.hint == "add the index's host to ~/.netrc"
    assert not [event for event in events if "p%C3" in repr(event) or "pä" in repr(event)]


def test_credentials_of_a_netrc_file_are_used_when_it_is_named(tmp_path: Path) -> None:
    path = netrc(tmp_path, 'machine 127.0.0.1 login usér password "pä ss"\n')
    with guarded() as (host, _):
        assert fetcher(tmp_path / "cache", netrc=path).fetch(remote(f"http://{host}/{NAME}")).digest == DIGEST


def test_no_credential_is_taken_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: Path
) -> None:
    text = 'machine 127.0.0.1 login usér password "pä ss"\n'
    monkeypatch.setenv("NETRC", str(netrc(tmp_path, text)))
    (clean_environment / ".netrc").write_text(text)
    with guarded() as (host, seen):
        assert "401" in failure(tmp_path / "cache", remote(f"http://{host}/{NAME}")).message
    assert seen == [(f"/{NAME}", None)]


def test_a_credential_does_not_follow_to_another_host(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(netrc(tmp_path, "default login a password b\n")))
    with guarded(elsewhere="http://localhost:1/") as (host, seen):
        failure(tmp_path / "cache", remote(f"http://a:b@{host}/away/x"), attempts=1)
        assert seen[0][1] is not None
    with guarded() as (other, others), guarded(elsewhere=f"http://localhost:{other.rpartition(':')[2]}/") as (host, _):
        failure(tmp_path / "cache", remote(f"http://a:b@{host}/away/x"), attempts=1)
        assert others == [(f"/{NAME}", None)]


def test_a_broken_netrc_file_is_told_without_what_is_in_it(tmp_path: Path) -> None:
    path = netrc(tmp_path, "machine a login b secret c\n")
    with pytest.raises(PackageError) as caught:
        fetcher(tmp_path / "cache", netrc=path).fetch(remote(f"https://index.invalid/{NAME}"))
    assert caught.value.message == f"`{path}` is no netrc file: see line 1"


# --- mirrors, and no network

FAR = "http://files.invalid/packages/"


def mirrored(*mirrors: str, prefix: str = FAR) -> Mirrors:
    return Mirrors(prefixes={prefix: mirrors})


def test_a_mirror_serves_in_the_indexs_place(server: Served, tmp_path: Path) -> None:
    archive = fetcher(tmp_path / "cache", mirrors=mirrored(server.url)).fetch(remote(FAR + NAME))
    assert archive.path.read_bytes() == NOISE
    assert server.requests == [f"GET /{NAME}"]


def test_a_directory_can_be_a_mirror(server: Served, tmp_path: Path) -> None:
    odd = tmp_path / "ö t%20"
    (tmp_path / "index").rename(odd)
    mirrors = mirrored(odd.as_uri())
    assert fetcher(tmp_path / "cache", mirrors=mirrors, offline=True).fetch(remote(FAR + NAME)).digest == DIGEST


@pytest.mark.parametrize(
    ("fault", "said"),
    [("missing", "does not have everything"), ("corrupt", "is passed over"), ("busy", "is passed over")],
)
def test_where_a_mirror_fails_the_next_place_does(server: Served, tmp_path: Path, fault: Any, said: str) -> None:
    events: list[Event] = []
    server.faults[f"/{NAME}"] = fault
    with serve(tmp_path / "index") as far:
        mirrors = mirrored("file:///nothing/here", server.url, prefix=far.url)
        archive = fetcher(tmp_path / "cache", events, mirrors=mirrors).fetch(remote(far.url + NAME))
    assert archive.path.read_bytes() == NOISE
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert warnings[0].startswith("the mirror `file:///nothing/here` does not have everything")
    assert warnings[1].startswith(f"the mirror `{server.url}` {said}")
    assert len(warnings) == 2


def test_a_mirror_has_its_own_credentials_or_none(tmp_path: Path) -> None:
    secret = remote(f"http://usér:p%C3%A4%20ss@files.invalid/packages/{NAME}")
    with guarded() as (host, seen):
        failure(tmp_path / "cache", secret, mirrors=mirrored(f"http://{host}"), attempts=1)
        assert seen == [(f"/{NAME}", None)]
        mirrors = mirrored(f"http://us%C3%A9r:p%C3%A4%20ss@{host}")
        assert fetcher(tmp_path / "own", mirrors=mirrors).fetch(remote(FAR + NAME)).digest == DIGEST
        path = netrc(tmp_path, 'machine 127.0.0.1 login usér password "pä ss"\n')
        mirrors = mirrored(f"http://{host}")
        assert fetcher(tmp_path / "netrc-cache", mirrors=mirrors, netrc=path).fetch(secret).digest == DIGEST


def test_offline_nothing_is_asked_for(server: Served, tmp_path: Path) -> None:
    source = remote(server.url + NAME)
    with pytest.raises(OfflineError) as caught:
        fetcher(tmp_path / "cache", offline=True).fetch(source)
    assert caught.value.message == f"`{NAME}` is not in the store"
    assert list((tmp_path / "cache").iterdir()) == []
    assert server.requests == []
    fetcher(tmp_path / "cache").fetch(source)
    assert fetcher(tmp_path / "cache", offline=True).fetch(source).digest == DIGEST
    assert len(server.requests) == 1
