from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from ociforge.conda.fetch import Archive, claim, fetch
from ociforge.errors import PackageError
from ociforge.events import BlobDone, BlobProgress, BlobStarted, Event
from tests.conda.environment import records
from tests.support.channel import Channel, serve, write_channel
from tests.support.conda import CondaPackage, Regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rattler import RepoDataRecord

NOISE = bytes(range(256)) * 300


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    packages = [CondaPackage(name=name, files={f"share/{name}": Regular(content=NOISE)}) for name in ("a", "b")]
    return write_channel(tmp_path / "channel", packages)


def get(rows: Sequence[RepoDataRecord], cache: Path, retries: int = 0) -> tuple[Archive, ...]:
    return fetch(rows, cache=cache, retries=retries)


def failure(rows: Sequence[RepoDataRecord], cache: Path) -> PackageError:
    with pytest.raises(PackageError) as caught:
        get(rows, cache)
    return caught.value


def assert_whole(archives: Sequence[Archive], channel: Channel) -> None:
    assert [archive.path.read_bytes() for archive in archives] == [
        archive.path.read_bytes() for archive in channel.archives
    ]
    for archive in archives:
        assert archive.digest == Digest.of(archive.path.read_bytes())
        assert archive.size == archive.path.stat().st_size
        assert archive.path.name == f"{archive.digest.hex}.conda"


def test_archives_come_from_a_directory(channel: Channel, tmp_path: Path) -> None:
    """They are used where they are: a copy would cost as much again."""
    found = get(records(channel), tmp_path / "cache")
    assert [(one.path, one.size) for one in found] == [(a.path, a.path.stat().st_size) for a in channel.archives]
    assert [one.digest.hex for one in found] == [archive.record["sha256"] for archive in channel.archives]
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("change", ["write", "replace", "remove"])
def test_a_change_after_verification_is_found(channel: Channel, tmp_path: Path, change: str) -> None:
    (found,) = get(records(channel, "a"), tmp_path / "cache")
    found.check_unchanged()
    data = found.path.read_bytes()
    match change:
        case "write":
            found.path.write_bytes(data)
        case "replace":
            (tmp_path / "other").write_bytes(data)
            (tmp_path / "other").replace(found.path)
        case _:
            found.path.unlink()
    with pytest.raises(PackageError, match="was changed while it was read"):
        found.check_unchanged()


def test_a_directory_may_have_any_name(channel: Channel, tmp_path: Path) -> None:
    odd = tmp_path / "ö t%20 #1"
    channel.path.rename(odd)
    moved = Channel(path=odd, url=odd.as_uri() + "/", archives=channel.archives)
    archives = get(records(moved), tmp_path / "cache")
    assert [archive.record.file_name for archive in archives] == ["a-1.0-0.conda", "b-1.0-0.conda"]


def test_archives_come_over_http_once(channel: Channel, tmp_path: Path) -> None:
    with serve(channel.path) as server:
        for _ in range(2):
            assert_whole(get(records(channel, url=server.url), tmp_path / "cache"), channel)
    assert sorted(server.requests) == ["GET /linux-64/a-1.0-0.conda", "GET /linux-64/b-1.0-0.conda"]
    assert len(list((tmp_path / "cache").iterdir())) == 2


@contextmanager
def serve_together(data: bytes, clients: int) -> Iterator[str]:
    """The URL of `data`, which nobody gets before all clients have asked for it."""
    barrier = threading.Barrier(clients)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            barrier.wait(timeout=20)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/a-1.0-0.conda"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("before", [None, b"damaged"])
def test_processes_that_bring_one_archive_at_once_read_the_same_file(
    channel: Channel, tmp_path: Path, before: bytes | None
) -> None:
    archive = channel.archives[0]
    (tmp_path / "index.json").write_text(json.dumps(dict(archive.record)))
    if before is not None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / f"{archive.record['sha256']}.conda").write_bytes(before)
    script = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from rattler import PackageRecord, RepoDataRecord
        from ociforge.conda.fetch import fetch
        index, digest, url, cache = sys.argv[1:]
        record = PackageRecord.from_index_json(Path(index))
        record.sha256 = bytes.fromhex(digest)
        (found,) = fetch([RepoDataRecord(record, "a-1.0-0.conda", url, url)], cache=Path(cache))
        print("fetched", flush=True)
        sys.stdin.readline()
        found.check_unchanged()
        print("unchanged", flush=True)
        os._exit(0)
    """)
    with serve_together(archive.path.read_bytes(), 2) as url:
        arguments = [tmp_path / "index.json", archive.record["sha256"], url, tmp_path / "cache"]
        command = [sys.executable, "-c", script, *map(str, arguments)]
        processes = [
            subprocess.Popen(
                command,
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "fetched\n"
        for process in processes:
            output, errors = process.communicate("go on\n", timeout=20)
            assert output == "unchanged\n", errors
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{archive.record['sha256']}.conda"]


def test_use_shows_in_the_atime_and_is_no_change(channel: Channel, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with serve(channel.path) as server:
        (row,) = records(channel, "a", url=server.url)
        (first,) = get([row], cache)
        os.utime(first.path, (1000, 1000))
        (second,) = get([row], cache)
        assert first.path.stat().st_mtime == 1000
        assert first.path.stat().st_atime > time.time() - 60
        os.utime(first.path, (1000, 1000))
        claim(cache, row)
    assert first.path.stat().st_atime > time.time() - 60
    second.check_unchanged()
    first.path.write_bytes(first.path.read_bytes())
    with pytest.raises(PackageError, match="was changed while it was read"):
        second.check_unchanged()


def test_modes_do_not_follow_the_umask(channel: Channel, tmp_path: Path) -> None:
    modes = set()
    for umask in (0o000, 0o077):
        cache = tmp_path / f"{umask}"
        before = os.umask(umask)
        try:
            with serve(channel.path) as server:
                get(records(channel, url=server.url), cache)
        finally:
            os.umask(before)
        modes |= {(path.is_dir(), path.stat().st_mode & 0o777) for path in (cache, *cache.iterdir())}
    assert modes == {(True, 0o755), (False, 0o644)}


@pytest.mark.parametrize("damage", [b"", b"short", NOISE])
def test_a_damaged_archive_in_the_cache_is_made_again(channel: Channel, tmp_path: Path, damage: bytes) -> None:
    with serve(channel.path) as server:
        rows = records(channel, url=server.url)
        get(rows, tmp_path / "cache")[0].path.write_bytes(damage)
        assert_whole(get(rows, tmp_path / "cache"), channel)


def test_progress_is_told(channel: Channel, tmp_path: Path) -> None:
    events: list[Event] = []
    with serve(channel.path) as server:
        row = records(channel, "a", url=server.url)
        (archive,) = fetch(row, cache=tmp_path / "cache", notify=events.append)
    assert events[0] == BlobStarted(archive.digest, archive.size, f"{server.url}linux-64/a-1.0-0.conda")
    assert events[-1] == BlobDone(archive.digest, archive.size, "downloaded")
    assert sum(event.count for event in events if isinstance(event, BlobProgress)) == archive.size


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_another_archive_is_refused(channel: Channel, tmp_path: Path, scheme: str) -> None:
    with serve(channel.path) as server:
        rows = records(channel, "a", url=server.url if scheme == "http" else None)
        path = channel.archives[0].path
        data = bytearray(path.read_bytes())
        true = Digest.of(bytes(data))
        data[100] ^= 1
        path.write_bytes(data)
        error = failure(rows, tmp_path / "cache")
    assert error.message == (
        f"`a-1.0-0.conda` from `{rows[0].url}` is not the archive that the lock names:"
        f" expected `{true}`, got `{Digest.of(bytes(data))}` ({len(data)} bytes)"
    )
    assert error.hint
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_short_archive_is_refused(channel: Channel, tmp_path: Path) -> None:
    path = channel.archives[0].path
    size = path.stat().st_size
    os.truncate(path, size - 100)
    error = failure(records(channel, "a"), tmp_path / "cache")
    assert error.message.endswith(f"({size - 100} of {size} bytes)")


def test_an_archive_longer_than_announced_is_not_read_to_its_end(channel: Channel, tmp_path: Path) -> None:
    with serve(channel.path) as server:
        rows = records(channel, "a", url=server.url)
        rows[0].size = 10
        error = failure(rows, tmp_path / "cache")
    assert error.message == (
        f"`a-1.0-0.conda` from `{rows[0].url}` is not the archive that the lock names: it has more than 10 bytes"
    )
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_transfer_that_breaks_off_is_tried_again(channel: Channel, tmp_path: Path) -> None:
    with serve(channel.path) as server:
        server.faults["/linux-64/a-1.0-0.conda"] = "truncated"
        rows = records(channel, "a", url=server.url)
        error = failure(rows, tmp_path / "cache")
        assert error.message.startswith(f"fetching `a-1.0-0.conda` from `{rows[0].url}`: ")
        assert len(server.requests) == 3
        assert list((tmp_path / "cache").iterdir()) == []
        server.faults.clear()
        assert len(get(rows, tmp_path / "cache")) == 1


def test_refusals_are_named_with_what_to_do(channel: Channel, tmp_path: Path) -> None:
    with serve(channel.path) as server:
        server.faults["/linux-64/a-1.0-0.conda"] = "missing"
        server.faults["/linux-64/b-1.0-0.conda"] = "busy"
        error = failure(records(channel, url=server.url), tmp_path / "cache")
        assert error.message.splitlines() == [
            f"fetching `a-1.0-0.conda` from `{server.url}linux-64/a-1.0-0.conda`: 404 Not Found",
            f"fetching `b-1.0-0.conda` from `{server.url}linux-64/b-1.0-0.conda`: 503 Service Unavailable",
        ]
    assert error.hint == (
        "update the lock: the channel no longer has this archive; check the network and that the channel can be reached"
    )


def test_a_failing_request_is_repeated(channel: Channel, tmp_path: Path) -> None:
    with serve(channel.path) as server:
        server.faults["/linux-64/a-1.0-0.conda"] = "busy"
        with pytest.raises(PackageError, match="503"):
            get(records(channel, "a", url=server.url), tmp_path / "cache", retries=1)
        assert len(server.requests) == 2


def test_nobody_listens(channel: Channel, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        error = failure(records(channel, "a", url=url), tmp_path / "cache")
    assert error.message == f"fetching `a-1.0-0.conda` from `{url}linux-64/a-1.0-0.conda`: error sending request"
    assert error.hint == "check the network and that the channel can be reached"


def test_credentials_are_sent_but_never_shown(channel: Channel, tmp_path: Path) -> None:
    with serve(channel.path) as server:
        secret = server.url.replace("http://", "http://me:pass@") + "t/tk-99/"
        error = failure(records(channel, "a", url=secret), tmp_path / "cache")
        assert server.requests == ["GET /t/tk-99/linux-64/a-1.0-0.conda"]
    assert error.message == f"fetching `a-1.0-0.conda` from `{server.url}linux-64/a-1.0-0.conda`: 404 File not found"
    assert error.__cause__ is None


def test_a_local_archive_that_is_gone(channel: Channel, tmp_path: Path) -> None:
    rows = records(channel, "b")
    channel.archives[1].path.unlink()
    error = failure(rows, tmp_path / "cache")
    assert error.message == f"fetching `b-1.0-0.conda` from `{rows[0].url}`: No such file or directory"


def test_a_lock_without_checksum_is_refused(channel: Channel, tmp_path: Path) -> None:
    rows = records(channel, "a")
    rows[0].sha256 = None
    assert failure(rows, tmp_path / "cache").message == "the lock names no sha256 for `a-1.0-0.conda`"


def test_a_cache_that_cannot_be_made(channel: Channel, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    error = failure(records(channel), tmp_path / "file" / "cache")
    assert error.message == f"cannot use `{tmp_path}/file/cache` for conda archives: Not a directory"


def test_an_interrupt_comes_through_at_once_and_leaves_nothing(channel: Channel, tmp_path: Path) -> None:
    """The server accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        index = channel.path / "index.json"
        index.write_text(json.dumps(dict(channel.archives[0].record)))
        script = textwrap.dedent(f"""
            import os, sys
            from pathlib import Path
            from rattler import PackageRecord, RepoDataRecord
            from ociforge.conda.fetch import fetch
            record = PackageRecord.from_index_json(Path({str(index)!r}))
            record.sha256 = bytes(32)
            url = "http://127.0.0.1:{server.getsockname()[1]}/linux-64/a-1.0-0.conda"
            try:
                fetch([RepoDataRecord(record, "a-1.0-0.conda", url, url)], cache=Path({str(tmp_path / "cache")!r}))
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            os._exit(0)
        """)
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        connection, _ = server.accept()
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
        connection.close()
    assert output == b"interrupted\n"
    assert time.monotonic() - started < 5
    assert list((tmp_path / "cache").iterdir()) == []
