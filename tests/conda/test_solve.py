from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from ociforge.conda.solve import Cutoffs, SolveRequest, solve
from ociforge.errors import SolveError
from ociforge.events import Warned
from ociforge.network import ONLINE, Mirrors, Network
from tests.support.channel import Channel, serve, write_channel
from tests.support.conda import CondaPackage

if TYPE_CHECKING:
    from pathlib import Path

    from rattler import RepoDataRecord

    from ociforge.events import Event

OLD, NEW = datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
BETWEEN = datetime(2024, 6, 1, tzinfo=UTC)
DEFAULTS = (("__unix", "0", ""), ("__linux", "4.18", ""), ("__glibc", "2.28", ""), ("__archspec", "0", "x86_64"))


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def package(name: str, version: str = "1.0", *depends: str, **more: Any) -> CondaPackage:
    return CondaPackage(name=name, version=version, depends=depends, **more)


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return write_channel(
        tmp_path / "main",
        [
            package("tool", "1.0", "lib >=1", timestamp=milliseconds(OLD)),
            package("tool", "2.0", "lib >=2", timestamp=milliseconds(NEW)),
            package("legacy", "1.0", "lib <2"),
            package("lib", "1.0", timestamp=milliseconds(OLD)),
            package("lib", "2.0", timestamp=milliseconds(NEW)),
            package("timeless", "1.0", timestamp=None),
            package("needs-glibc", "1.0", "__glibc >=2.17"),
            package("needs-cuda", "1.0", "__cuda >=12"),
            package("needs-v3", "1.0", "__archspec 1 x86_64_v3"),
            package("arm-only", "1.0", subdir="linux-aarch64"),
            package("any", "1.0", noarch="generic"),
            package("extra", "1.0", index_extra={"extra_depends": {"fast": ["lib ==1.0"]}}),
        ],
    )


@pytest.fixture
def other(tmp_path: Path) -> Channel:
    return write_channel(tmp_path / "other", [package("lib", "9.0"), package("rare", "1.0", "lib")])


def answer(tmp_path: Path, channels: list[Channel], *specs: str, **more: Any) -> dict[str, str]:
    """Name -> version of what is found for one request."""
    (records,) = solve([request(channels, *specs, **more)], cache=tmp_path / "cache", retries=0)
    return versions(records)


def request(channels: list[Channel], *specs: str, **more: Any) -> SolveRequest:
    values: dict[str, Any] = {
        "what": "environment `default` on `linux-64`",
        "subdir": "linux-64",
        "virtual_packages": DEFAULTS,
    }
    return SolveRequest(specs=specs, channels=tuple(channel.url for channel in channels), **(values | more))


def versions(records: tuple[RepoDataRecord, ...]) -> dict[str, str]:
    return {record.name.normalized: str(record.version) for record in records}


def failure(tmp_path: Path, channels: list[Channel], *specs: str, **more: Any) -> SolveError:
    with pytest.raises(SolveError) as caught:
        answer(tmp_path, channels, *specs, **more)
    return caught.value


def test_specs_and_what_they_depend_on_are_found_in_name_order(tmp_path: Path, channel: Channel) -> None:
    assert list(answer(tmp_path, [channel], "tool", "any").items()) == [("any", "1.0"), ("lib", "2.0"), ("tool", "2.0")]


def test_records_are_whole(tmp_path: Path, channel: Channel) -> None:
    ((record,),) = solve([request([channel], "lib ==1.0")], cache=tmp_path)
    (archive,) = (archive for archive in channel.named("lib") if archive.record["version"] == "1.0")
    assert record.sha256 is not None and record.sha256.hex() == archive.record["sha256"]
    assert (record.url, record.channel, record.size) == (channel.url_of(archive), channel.url, archive.record["size"])


def test_nothing_asked_for_is_nothing_found(tmp_path: Path) -> None:
    assert solve([request([])], cache=tmp_path) == ((),)


def test_several_requests_keep_their_order(tmp_path: Path, channel: Channel) -> None:
    both = [request([channel], "lib ==1.0"), request([channel], "arm-only", subdir="linux-aarch64")]
    assert [versions(records) for records in solve(both, cache=tmp_path)] == [{"lib": "1.0"}, {"arm-only": "1.0"}]


def test_another_platforms_packages_do_not_count(tmp_path: Path, channel: Channel) -> None:
    assert "No candidates were found for arm-only" in failure(tmp_path, [channel], "arm-only").message


# --- virtual packages


def test_only_declared_virtual_packages_count(tmp_path: Path, channel: Channel) -> None:
    assert answer(tmp_path, [channel], "needs-glibc") == {"needs-glibc": "1.0"}
    error = failure(tmp_path, [channel], "needs-glibc", virtual_packages=(("__unix", "0", "0"),))
    assert "__glibc" in error.message
    assert error.hint == "relax one of these requirements, or promise more in `workspace.platforms`"


def test_a_declared_driver_counts_whatever_this_machine_has(tmp_path: Path, channel: Channel) -> None:
    declared = (*DEFAULTS, ("__cuda", "12.4", ""))
    assert answer(tmp_path, [channel], "needs-cuda", virtual_packages=declared) == {"needs-cuda": "1.0"}
    assert "__cuda" in failure(tmp_path, [channel], "needs-cuda").message


def test_archspec_is_solved_with_version_one(tmp_path: Path, channel: Channel) -> None:
    declared = (*DEFAULTS[:3], ("__archspec", "0", "x86_64_v3"))
    assert answer(tmp_path, [channel], "needs-v3", virtual_packages=declared) == {"needs-v3": "1.0"}
    assert "needs-v3" in failure(tmp_path, [channel], "needs-v3").message


def test_an_undeclared_virtual_package_is_to_be_declared(tmp_path: Path, channel: Channel) -> None:
    error = failure(tmp_path, [channel], "__cuda >=11")
    assert (
        error.message
        == "environment `default` on `linux-64` cannot be solved: No candidates were found for __cuda >=11"
    )
    assert error.hint == "declare `__cuda` for `linux-64` in `workspace.platforms`"


# --- channels


def test_the_first_channel_wins_by_default(tmp_path: Path, channel: Channel, other: Channel) -> None:
    assert answer(tmp_path, [channel, other], "rare") == {"lib": "2.0", "rare": "1.0"}
    assert answer(tmp_path, [other, channel], "rare") == {"lib": "9.0", "rare": "1.0"}


@pytest.mark.parametrize(("priority", "version"), [("strict", "2.0"), ("flexible", "2.0"), ("disabled", "9.0")])
def test_channel_priority(tmp_path: Path, channel: Channel, other: Channel, priority: str, version: str) -> None:
    assert answer(tmp_path, [channel, other], "rare", channel_priority=priority)["lib"] == version


def test_a_spec_may_name_its_channel(tmp_path: Path, channel: Channel, other: Channel) -> None:
    assert answer(tmp_path, [channel, other], f"lib[channel='{other.url}']") == {"lib": "9.0"}


def test_a_spec_may_name_an_archive(tmp_path: Path, channel: Channel, other: Channel) -> None:
    url = other.url_of(other.named("lib")[0])
    assert answer(tmp_path, [channel], f"lib[url='{url}']") == {"lib": "9.0"}


@pytest.mark.parametrize("remote", [False, True])
def test_an_archive_named_by_its_place_is_looked_at(
    tmp_path: Path, channel: Channel, other: Channel, *, remote: bool
) -> None:
    (archive,) = other.named("lib")
    with serve(other.path) as served:
        url = (other.at(served.url) if remote else other).url_of(archive)
        ((record,),) = solve([request([channel], f"lib[url='{url}']")], cache=tmp_path / "cache")
        assert record.sha256 is not None
        assert (record.sha256.hex(), record.size) == (archive.record["sha256"], archive.record["size"])
        error = failure(tmp_path, [channel], f"lib[url='{url}', sha256='{'ab' * 32}']")
    assert error.message == (
        f"environment `default` on `linux-64`: `{url}` is not the archive that the manifest names:"
        f" expected `{'ab' * 32}`, got `{archive.record['sha256']}`"
    )


def test_an_unreachable_channel_is_named_without_its_token(tmp_path: Path, channel: Channel) -> None:
    with serve(channel.path) as served:
        url = served.url.replace("http://", "http://user:secret@") + "t/tk-123/nothing/"
        error = failure(tmp_path, [channel.at(url)], "lib")
    assert error.message.startswith("environment `default` on `linux-64`: a channel cannot be read: ")
    assert "secret" not in error.message and "tk-123" not in error.message
    assert error.hint == "check the network and the channels of the manifest"


@pytest.mark.parametrize("network", [ONLINE, Network(offline=True)])
def test_all_that_ask_an_unreachable_channel_are_told_the_reason(
    tmp_path: Path, channel: Channel, network: Network
) -> None:
    """rattler asks once, and has the reason for one of them alone."""
    gone = channel.at("http://127.0.0.1:1/channel/")
    requests = [request([gone], "lib", what=f"environment `{name}`") for name in "ab"]
    with pytest.raises(SolveError) as caught:
        solve(requests, cache=tmp_path / "cache", retries=0, network=network)
    why = "no usable repodata cache" if network.offline else "Connection refused"
    lines = caught.value.message.splitlines()  # each of another file of the channel, as it happens
    for name, line in zip("ab", lines, strict=True):
        assert line.startswith(f"environment `{name}`: a channel cannot be read: ")
    assert all(why in line and "coalesced" not in line for line in lines)


def test_a_mirror_and_a_channel_that_cannot_be_reached(tmp_path: Path, channel: Channel) -> None:
    network = Network(conda=Mirrors(prefixes={"http://127.0.0.1:1/": ("http://127.0.0.1:2/",)}))
    gone = channel.at("http://127.0.0.1:1/channel/")
    requests = [request([gone], "lib", what=f"environment `{name}`") for name in "ab"]
    events: list[Event] = []
    with pytest.raises(SolveError) as caught:
        solve(requests, cache=tmp_path / "cache", retries=0, network=network, notify=events.append)
    for line, name in zip(caught.value.message.splitlines(), "ab", strict=True):
        assert line.startswith(f"environment `{name}`: a channel cannot be read: error sending request for url (http:")
        assert "Connection refused" in line
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert "Connection refused" in warned.message


def test_repodata_is_read_once_for_all_requests(tmp_path: Path, channel: Channel) -> None:
    with serve(channel.path) as served:
        requests = [request([channel.at(served.url)], spec) for spec in ("lib", "tool", "any")]
        solve(requests, cache=tmp_path / "cache")
        asked = [path for path in served.requests if path.startswith("GET /linux-64/repodata.json")]
    assert len([path for path in asked if path.endswith("repodata.json")]) == 1


# --- options


def test_constraints_bind_only_what_is_needed(tmp_path: Path, channel: Channel) -> None:
    assert answer(tmp_path, [channel], "any", constraints=("lib <2",)) == {"any": "1.0"}
    assert answer(tmp_path, [channel], "tool", constraints=("lib <2",)) == {"lib": "1.0", "tool": "1.0"}


@pytest.mark.parametrize(
    ("strategy", "found"),
    [
        ("highest", {"lib": "2.0", "tool": "2.0"}),
        ("lowest", {"lib": "1.0", "tool": "1.0"}),
        ("lowest-direct", {"lib": "2.0", "tool": "1.0"}),
    ],
)
def test_strategies(tmp_path: Path, channel: Channel, strategy: str, found: dict[str, str]) -> None:
    assert answer(tmp_path, [channel], "tool", strategy=strategy) == found


def test_extras_and_conditions(tmp_path: Path, channel: Channel) -> None:
    assert answer(tmp_path, [channel], "extra[extras=[fast]]") == {"extra": "1.0", "lib": "1.0"}
    assert answer(tmp_path, [channel], 'lib[when="__win"]', "any") == {"any": "1.0"}
    assert answer(tmp_path, [channel], "lib[version='<2', when=\"__unix and any\"]", "any") == {
        "any": "1.0",
        "lib": "1.0",
    }


def test_previous_records_are_kept_where_they_fit(tmp_path: Path, channel: Channel) -> None:
    (before,) = solve([request([channel], "tool <2", "lib <2")], cache=tmp_path)
    assert answer(tmp_path, [channel], "tool", preferred=before) == {"lib": "1.0", "tool": "1.0"}
    assert answer(tmp_path, [channel], "tool >=2", preferred=before) == {"lib": "2.0", "tool": "2.0"}


# --- cutoffs


@pytest.mark.parametrize(
    ("moment", "version"),
    [(BETWEEN, "1.0"), (NEW, "2.0"), (NEW - timedelta(seconds=1), "1.0"), (OLD, "1.0")],
)
def test_a_cutoff_includes_its_own_moment(tmp_path: Path, channel: Channel, moment: datetime, version: str) -> None:
    assert answer(tmp_path, [channel], "lib", cutoffs=Cutoffs(default=moment)) == {"lib": version}
    by_name = Cutoffs(packages={"lib": moment})
    assert answer(tmp_path, [channel], "lib", cutoffs=by_name) == {"lib": version}


def test_a_cutoff_in_another_time_zone_is_the_same_moment(tmp_path: Path, channel: Channel) -> None:
    tokyo = NEW.astimezone(timezone(timedelta(hours=9))) - timedelta(minutes=1)
    assert answer(tmp_path, [channel], "lib", cutoffs=Cutoffs(default=tokyo)) == {"lib": "1.0"}


def test_a_packages_cutoff_beats_its_channels_and_that_the_default(
    tmp_path: Path, channel: Channel, other: Channel
) -> None:
    cutoffs = Cutoffs(default=OLD, packages={"lib": NEW}, channels={channel.url: BETWEEN})
    assert answer(tmp_path, [channel], "lib", "tool", cutoffs=cutoffs) == {"lib": "2.0", "tool": "1.0"}
    cutoffs = Cutoffs(default=NEW, channels={channel.url: BETWEEN})
    assert answer(tmp_path, [channel], "lib", cutoffs=cutoffs) == {"lib": "1.0"}
    assert answer(tmp_path, [other, channel], "rare", cutoffs=cutoffs) == {"lib": "9.0", "rare": "1.0"}
    assert answer(tmp_path, [channel, other], "rare", cutoffs=cutoffs) == {"lib": "1.0", "rare": "1.0"}


def test_records_without_a_time_pass_any_cutoff(tmp_path: Path, channel: Channel) -> None:
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)
    for cutoffs in (Cutoffs(default=long_ago), Cutoffs(packages={"timeless": long_ago})):
        assert answer(tmp_path, [channel], "timeless", cutoffs=cutoffs) == {"timeless": "1.0"}


# --- failures


def test_a_conflict_is_told_in_the_solvers_words(tmp_path: Path, channel: Channel) -> None:
    error = failure(tmp_path, [channel], "tool >=2", "legacy")
    first, *rest = error.message.splitlines()
    assert first == ("environment `default` on `linux-64` cannot be solved: The following packages are incompatible")
    told = " ".join(rest)
    assert "legacy" in told and "lib <2" in told and "tool 2.0 would require" in told and "lib >=2" in told
    assert error.hint == "relax one of these requirements"


def test_an_unknown_package_lists_the_channels(tmp_path: Path, channel: Channel) -> None:
    error = failure(tmp_path, [channel], "nothing-like-it")
    assert error.message == (
        "environment `default` on `linux-64` cannot be solved: No candidates were found for nothing-like-it *"
    )
    assert error.hint == f"check the name and the version; the channels are `{channel.url}`"


def test_all_failing_requests_are_told(tmp_path: Path, channel: Channel) -> None:
    bad = [request([channel], "ghost", what="environment `a`"), request([channel], "lib"), request([channel], "ghoul")]
    with pytest.raises(SolveError) as caught:
        solve(bad, cache=tmp_path)
    assert [line.partition(" cannot")[0] for line in caught.value.message.splitlines()] == [
        "environment `a`",
        "environment `default` on `linux-64`",
    ]


def test_a_text_that_is_no_spec_is_named(tmp_path: Path, channel: Channel) -> None:
    error = failure(tmp_path, [channel], "lib[version='>>2']")
    assert error.message.startswith(
        "environment `default` on `linux-64`: `lib[version='>>2']` is no spec that can be solved: "
    )


@pytest.mark.parametrize("more", [{"subdir": "beos-64"}, {"virtual_packages": (("__glibc", "2..", ""),)}])
def test_a_machine_that_there_is_not(tmp_path: Path, channel: Channel, more: dict[str, Any]) -> None:
    error = failure(tmp_path, [channel], "lib", **more)
    assert error.message.startswith("environment `default` on `linux-64`: its platform cannot be solved for: ")
