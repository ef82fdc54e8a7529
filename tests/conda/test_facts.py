from __future__ import annotations

import dataclasses
import os
import random
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from ociforge.conda.facts import PackageFacts, check, gather_facts, look_ahead
from ociforge.conda.fetch import fetch
from ociforge.conda.info import parse_info
from ociforge.conda.remote import TAIL
from ociforge.errors import PackageError
from ociforge.events import Event, StageStarted, ignore
from ociforge.store import Documents
from tests.conda.environment import records, without_paths_json
from tests.conda.ranged import serve_ranges
from tests.support.channel import Channel, serve, write_channel
from tests.support.conda import CondaPackage, Link, Regular

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rattler import RepoDataRecord

    from ociforge.events import Notify

    Gather = Callable[..., tuple[PackageFacts, ...]]

NOISE = random.Random(1).randbytes(4 * TAIL)
BIG = CondaPackage(name="big", files={"share/big": NOISE, "bin/big": Regular(content=b"", executable=True)})
MANY = CondaPackage(name="many", files={"share/big": NOISE} | {f"lib/{n}": NOISE[n : n + 8] for n in range(3000)})
PURE = CondaPackage(
    name="pure",
    noarch="python",
    files={"site-packages/pure.py": NOISE},
    entry_points=("pure = pure:main", "other=pure.a:b.c"),
)
ACTIVE = CondaPackage(name="active", files={"share/big": NOISE}, activate="true\n", env_vars={"A": "b"})
SMALL = CondaPackage(name="small", files={"x": "x"})


@pytest.fixture
def documents(tmp_path: Path) -> Documents:
    return Documents(tmp_path / "store", "facts")


@pytest.fixture
def gather(tmp_path: Path, documents: Documents) -> Gather:
    def run(rows: Sequence[RepoDataRecord], notify: Notify = ignore) -> tuple[PackageFacts, ...]:
        return gather_facts(rows, archives=tmp_path / "archives", documents=documents, retries=0, notify=notify)

    return run


def channel_of(tmp_path: Path, *packages: CondaPackage) -> Channel:
    return write_channel(tmp_path / "channel", packages)


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "archives").iterdir())


def test_of_an_archive_behind_http_only_info_is_read(tmp_path: Path, gather: Gather) -> None:
    channel = channel_of(tmp_path, BIG, PURE)
    with serve_ranges(channel.path) as ranged:
        big, pure = gather(records(channel, url=ranged.url))
    assert [(name, wanted) for name, wanted, _ in sorted(ranged.sent)] == [
        (archive.filename, f"bytes=-{TAIL}") for archive in channel.archives
    ]
    assert (big.info, big.verified) == (parse_info(BIG.info(), BIG.filename()), False)
    assert pure.info == parse_info(PURE.info(), PURE.filename())
    assert [point.path for point in pure.info.entry_points] == ["bin/pure", "bin/other"]
    assert kept(tmp_path) == []


def test_two_requests_are_enough(tmp_path: Path, gather: Gather) -> None:
    """However large the list of paths is."""
    channel = channel_of(tmp_path, MANY)
    with serve_ranges(channel.path) as ranged:
        (facts,) = gather(records(channel, url=ranged.url))
    assert facts.info == parse_info(MANY.info(), MANY.filename())
    assert len(ranged.sent) == 2
    assert ranged.total() < channel.archives[0].record["size"]


def test_what_is_known_is_not_asked_again(tmp_path: Path, gather: Gather) -> None:
    channel = channel_of(tmp_path, BIG, ACTIVE, SMALL)
    with serve_ranges(channel.path) as ranged:
        rows = records(channel, url=ranged.url)
        first = gather(rows)
    events: list[Event] = []
    assert gather(rows, events.append) == first
    assert events == []
    assert gather(rows[::-1]) == first[::-1]


def test_progress_is_told(tmp_path: Path, gather: Gather) -> None:
    rows = records(channel_of(tmp_path, BIG, SMALL))
    events: list[Event] = []
    gather(rows[:1])
    gather(rows, events.append)
    assert events == [StageStarted("reading what is in 1 package")]


def test_a_local_archive_is_read_where_it_is(tmp_path: Path, gather: Gather) -> None:
    channel = without_paths_json(channel_of(tmp_path, SMALL))
    (facts,) = gather(records(channel))
    assert [path.path for path in facts.info.paths] == ["x"]
    assert (facts.verified, kept(tmp_path)) == (False, [])


def test_looking_ahead_tells_what_gathering_would(tmp_path: Path, gather: Gather, documents: Documents) -> None:
    channel = channel_of(tmp_path, BIG, PURE, ACTIVE)
    rows = records(channel)
    found = look_ahead(rows, documents=documents, wanted=lambda: True)
    assert not (tmp_path / "archives").exists()
    assert look_ahead(rows, documents=documents, wanted=lambda: True) == found
    events: list[Event] = []
    expected = gather_facts(rows, archives=tmp_path / "archives", documents=Documents(tmp_path / "other", "facts"))
    told = gather_facts(rows, archives=tmp_path / "archives", documents=documents, known=found, notify=events.append)
    assert told == expected
    assert not [event for event in events if isinstance(event, StageStarted)], "looking ahead has told of it"
    assert found == {facts.archive: facts for facts in expected if not facts.texts}


def test_looking_ahead_ends_when_nobody_wants_it(tmp_path: Path, documents: Documents) -> None:
    channel = channel_of(tmp_path, BIG, PURE, SMALL)
    asked = iter([True, False])
    look_ahead(records(channel), documents=documents, wanted=lambda: next(asked))
    assert len(list((tmp_path / "store/facts").iterdir())) == 1


def test_looking_ahead_leaves_failures_to_gathering(tmp_path: Path, gather: Gather, documents: Documents) -> None:
    channel = channel_of(tmp_path, BIG, PURE)
    rows = records(channel)
    for path in channel.path.rglob("big-*.conda"):
        path.write_bytes(b"no archive")
    look_ahead(rows, documents=documents, wanted=lambda: True)
    assert len(list((tmp_path / "store/facts").iterdir())) == 1
    with pytest.raises(PackageError, match="is not the archive that the lock names"):
        gather(rows)


def test_a_pipe_is_not_waited_for(tmp_path: Path, gather: Gather, documents: Documents) -> None:
    rows = records(channel_of(tmp_path, BIG))
    (path,) = (tmp_path / "channel").rglob("big-*.conda")
    path.unlink()
    os.mkfifo(path)
    assert look_ahead(rows, documents=documents, wanted=lambda: True) == {}
    with pytest.raises(PackageError, match="not a regular file"):
        gather(rows)


def test_looking_ahead_fetches_nothing(tmp_path: Path, documents: Documents) -> None:
    channel = channel_of(tmp_path, BIG)
    with serve_ranges(channel.path) as ranged:
        look_ahead(records(channel, url=ranged.url), documents=documents, wanted=lambda: True)
        assert not ranged.sent


def test_an_archive_in_the_cache_is_verified(tmp_path: Path, gather: Gather) -> None:
    channel = channel_of(tmp_path, BIG)
    with serve(channel.path) as server:
        fetch(records(channel, url=server.url), cache=tmp_path / "archives")
    with serve_ranges(channel.path) as ranged:
        (facts,) = gather(records(channel, url=ranged.url))
    assert facts.verified
    assert ranged.sent == []


@pytest.mark.parametrize("package", [SMALL, ACTIVE], ids=["small", "active"])
def test_what_is_small_or_activated_is_downloaded(package: CondaPackage, tmp_path: Path, gather: Gather) -> None:
    channel = channel_of(tmp_path, package)
    with serve_ranges(channel.path) as ranged:
        (facts,) = gather(records(channel, url=ranged.url))
    assert facts.verified
    assert ranged.sent[-1] == (channel.archives[0].filename, None, channel.archives[0].record["size"])
    assert kept(tmp_path) == [f"{facts.archive.hex}.conda"]
    assert facts.texts == ({"etc/conda/env_vars.d/active.json": '{"A": "b"}'} if package is ACTIVE else {})


def test_without_range_requests_archives_are_downloaded(tmp_path: Path, gather: Gather) -> None:
    channel = channel_of(tmp_path, BIG)
    with serve_ranges(channel.path) as ranged:
        ranged.ranges = False
        (facts,) = gather(records(channel, url=ranged.url))
    assert facts == replace(facts, info=parse_info(BIG.info(), BIG.filename()), verified=True)


def test_old_archives_are_downloaded(tmp_path: Path, gather: Gather) -> None:
    channel = write_channel(tmp_path / "channel", [BIG], form=".tar.bz2")
    with serve_ranges(channel.path) as ranged:
        (facts,) = gather(records(channel, url=ranged.url))
    assert facts.verified
    assert [wanted for _, wanted, _ in ranged.sent] == [None]


def test_all_that_fails_is_told(tmp_path: Path, gather: Gather) -> None:
    channel = channel_of(tmp_path, BIG, MANY, SMALL, PURE)
    with serve(channel.path) as served:
        rows = records(channel, url=served.url)
        served.faults = {
            f"/linux-64/{BIG.filename()}": "missing",
            f"/linux-64/{MANY.filename()}": "corrupt",
            f"/linux-64/{SMALL.filename()}": "truncated",
        }
        with pytest.raises(PackageError) as caught:
            gather(rows)
        lines = caught.value.message.splitlines()
        assert [line.split("`")[1] for line in lines] == [BIG.filename(), MANY.filename(), SMALL.filename()]
        served.faults.clear()
        served.requests.clear()
        assert len(gather(rows)) == 4
        assert not any(PURE.filename() in request for request in served.requests)  # was kept


def test_a_package_that_cannot_be_linked_is_refused(tmp_path: Path, gather: Gather) -> None:
    channel = channel_of(tmp_path, dataclasses.replace(SMALL, files={"../x": ""}))
    with pytest.raises(PackageError, match=r"`\.\./x`, which is no plain path"):
        gather(records(channel))


def test_a_text_that_is_none_is_refused(tmp_path: Path, gather: Gather) -> None:
    channel = channel_of(tmp_path, dataclasses.replace(SMALL, files={"etc/conda/env_vars.d/x.json": b"\xff"}))
    with pytest.raises(PackageError, match=r"`etc/conda/env_vars\.d/x\.json` of `small-1\.0-0\.conda` cannot be read"):
        gather(records(channel))


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[:-1], lambda data: data.replace(b":1", b":0")])
def test_damaged_documents_count_as_absent(
    spoil: Callable[[bytes], bytes],
    tmp_path: Path,
    gather: Gather,
    documents: Documents,
) -> None:
    rows = records(channel_of(tmp_path, BIG))
    (facts,) = gather(rows)
    path = documents.path(facts.archive)
    path.write_bytes(spoil(path.read_bytes()))
    assert gather(rows) == (facts,)
    assert documents.find(facts.archive) == facts.to_json()


def test_facts_become_verified(tmp_path: Path, gather: Gather, documents: Documents) -> None:
    rows = records(channel_of(tmp_path, BIG))
    (facts,) = gather(rows)
    (archive,) = fetch(rows, cache=tmp_path / "archives")
    check(facts, archive, documents)
    (again,) = gather(rows)
    assert again == replace(facts, verified=True)
    archive.path.unlink()
    check(again, archive, documents)  # has nothing to do


def test_false_facts_are_found_and_replaced(tmp_path: Path, gather: Gather, documents: Documents) -> None:
    channel = channel_of(tmp_path, BIG)
    rows = records(channel)
    (truth,) = channel.archives
    truth.path.write_bytes(dataclasses.replace(BIG, files={"share/big": NOISE, "bin/lie": ""}).archive())
    (facts,) = gather(rows)
    truth.path.write_bytes(BIG.archive())
    (archive,) = fetch(rows, cache=tmp_path / "archives")
    with pytest.raises(PackageError) as caught:
        check(facts, archive, documents)
    assert caught.value.message == (
        "`big-1.0-0.conda`: what the channel served as its `info` is not what the archive holds"
    )
    (facts,) = gather(rows)
    assert (facts.info, facts.verified) == (parse_info(BIG.info(), BIG.filename()), True)


def test_a_text_of_any_size_is_refused(tmp_path: Path, gather: Gather) -> None:
    """It is held in memory, and zeros make a small archive."""
    channel = channel_of(tmp_path, dataclasses.replace(SMALL, files={"conda-meta/state": bytes((16 << 20) + 1)}))
    with pytest.raises(PackageError, match="cannot be read: it has 16777217 bytes"):
        gather(records(channel))


def test_a_text_that_is_a_link_is_refused(tmp_path: Path, gather: Gather) -> None:
    channel = channel_of(tmp_path, dataclasses.replace(SMALL, files={"conda-meta/state": Link("x")}))
    with pytest.raises(PackageError, match="`conda-meta/state`, which is no regular file in it"):
        gather(records(channel))
