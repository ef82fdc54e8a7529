from __future__ import annotations

from typing import Any

import pytest

from ociforge.errors import ImageError
from ociforge.oci.changes import ConfigChanges


def test_nothing_to_change_is_fine() -> None:
    assert ConfigChanges() == ConfigChanges()


@pytest.mark.parametrize(
    "user", ["root", "0", "0:0", "1000", "1000:1000", "app:app", "app:1000", "_apt", "a.b-c$", "2147483647:2147483647"]
)
def test_good_users(user: str) -> None:
    assert ConfigChanges(user=user).user == user


@pytest.mark.parametrize(
    "user",
    [
        "",
        ":",
        "a:",
        ":a",
        "a:b:c",
        "-1",
        "+1",
        " 0",
        "0x0",
        "00",
        "1.5",
        "1a",
        "a b",
        "ä",
        "٣",
        "root\n",
        "a/b",
        "1_000",
    ],
)
def test_bad_users(user: str) -> None:
    with pytest.raises(ImageError, match=r"^user: `.*`: expected `user`, `uid`, `user:group` or `uid:gid`"):
        ConfigChanges(user=user)


@pytest.mark.parametrize("user", ["2147483648", "4294967296", "0:2147483648", "app:99999999999999999999", "9" * 5000])
def test_ids_that_overflow_are_refused(user: str) -> None:
    with pytest.raises(ImageError, match="is beyond 2147483647, the largest id"):
        ConfigChanges(user=user)


def test_ports() -> None:
    assert ConfigChanges(expose=("1", "8000/tcp", "53/udp", "65535")).ports == (
        "1/tcp",
        "8000/tcp",
        "53/udp",
        "65535/tcp",
    )


@pytest.mark.parametrize(
    "port",
    ["", "0", "65536", "08000", "-1", "http", "8000/", "8000/TCP", "8000/sctp", "8000-8010", "80:80", "٣", "80\n"],
)
def test_bad_ports(port: str) -> None:
    with pytest.raises(ImageError, match=r"^expose: `.*`: expected a port such as `8000` or `8000/udp`$"):
        ConfigChanges(expose=(port,))


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGRTMIN+3", "SIGRTMAX-14", "SIGUSR1", "1", "9", "64"])
def test_good_signals(signal: str) -> None:
    assert ConfigChanges(stop_signal=signal).stop_signal == signal


@pytest.mark.parametrize("signal", ["", "0", "65", "-9", "sigterm", "TERM", "SIG", "SIGTERM ", "SIGTERM\n"])
def test_bad_signals(signal: str) -> None:
    with pytest.raises(ImageError, match=r"^stop signal: "):
        ConfigChanges(stop_signal=signal)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": {"": "x"}}, "env: ``: not a variable name"),
        ({"env": {"A=B": "x"}}, "env: `A=B`: not a variable name"),
        ({"env": {"A": "x\0"}}, "env: `A`: contains a NUL character"),
        ({"env": {"A": "\ud800"}}, "env: `A`: is not valid Unicode"),
        ({"env": {"A": 1}}, "env: `A`: expected a string, got int"),
        ({"entrypoint": "/init"}, "entrypoint: expected a tuple of strings, got str"),
        ({"entrypoint": ("",)}, "entrypoint[0]: the program's name is empty"),
        ({"cmd": ("sh", "a\0b")}, "cmd[1]: contains a NUL character"),
        ({"cmd": ("sh", 1)}, "cmd[1]: expected a string, got int"),
        ({"workdir": "app"}, "workdir: `app`: not an absolute path"),
        ({"workdir": ""}, "workdir: ``: not an absolute path"),
        ({"workdir": "/app/../etc"}, "workdir: `/app/../etc`: has `..` in it"),
        ({"workdir": "/a\0"}, r"workdir: `'/a\x00'`: contains a NUL character"),
        ({"volumes": ("/ok", "data")}, "volumes: `data`: not an absolute path"),
        ({"labels": {"": "x"}}, "labels: a name is empty"),
        ({"labels": {"a": 1}}, "labels: `a`: expected a string, got int"),
        ({"healthcheck": {"test": []}}, "healthcheck: `test`: unknown member"),
        (
            {"healthcheck": {"Interval": "30s"}},
            "healthcheck: `Interval`: expected a whole number, not negative, got `30s`",
        ),
        ({"healthcheck": {"Retries": -1}}, "healthcheck: `Retries`: expected a whole number, not negative, got `-1`"),
        (
            {"healthcheck": {"Retries": True}},
            "healthcheck: `Retries`: expected a whole number, not negative, got `True`",
        ),
        ({"healthcheck": {"Test": "true"}}, "healthcheck: `Test`: expected a list of strings, got str"),
        (
            {"healthcheck": {"Test": ["true"]}},
            "healthcheck: `Test`: starts with one of `NONE`, `CMD` and `CMD-SHELL`, got `true`",
        ),
        ({"healthcheck": {"Test": ["CMD", 1]}}, "healthcheck: `Test`: expected a string, got int"),
    ],
)
def test_bad_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError) as caught:
        ConfigChanges(**changes)
    assert caught.value.message == message


def test_all_bad_values_are_named() -> None:
    with pytest.raises(ImageError) as caught:
        ConfigChanges(workdir="app", user="-1", expose=("x", "y"))
    assert [line.partition(":")[0] for line in caught.value.message.splitlines()] == [
        "workdir",
        "user",
        "expose",
        "expose",
    ]


def test_a_healthcheck_of_every_member() -> None:
    healthcheck = {
        "Test": ["CMD-SHELL", "curl -f http://localhost"],
        "Interval": 30_000_000_000,
        "Timeout": 0,
        "StartPeriod": 1,
        "StartInterval": 1,
        "Retries": 3,
    }
    assert ConfigChanges(healthcheck=healthcheck).healthcheck == healthcheck
