from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.support.channel import Fault, serve, write_channel
from tests.support.conda import CondaPackage
from tests.support.rattling import install, solve

if TYPE_CHECKING:
    from pathlib import Path

A = CondaPackage(name="a", files={"share/a": b"a" * 1000})
B = CondaPackage(name="b", noarch="generic", depends=("a",), files={"share/b": b"b"})


def test_repodata_states_every_archive(tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "channel", [A, B])

    repodata = json.loads((channel.path / "linux-64" / "repodata.json").read_text())

    assert list(repodata["packages.conda"]) == ["a-1.0-0.conda"]
    assert repodata["packages.conda"]["a-1.0-0.conda"]["size"] == channel.archives[0].path.stat().st_size
    assert channel.url == f"file://{tmp_path}/channel/"


def test_an_archive_of_another_channel_is_taken_over(tmp_path: Path) -> None:
    first = write_channel(tmp_path / "first", [A])

    second = write_channel(tmp_path / "second", [*first.archives, B])

    records = solve(second.url, "b")
    root = install(records, tmp_path / "env", cache=tmp_path / "cache")
    assert (root / "share/a").is_file()
    second.archives[0].path.write_bytes(b"spoiled")
    assert first.archives[0].path.stat().st_size == first.archives[0].record["size"]


def test_a_served_channel_solves_and_installs(tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "channel", [A, B])

    with serve(channel.path) as server:
        records = solve(server.url, "b")
        install(records, tmp_path / "env", cache=tmp_path / "cache")

    assert "GET /linux-64/a-1.0-0.conda" in server.requests


@pytest.mark.parametrize(("fault", "status"), [("missing", 404), ("busy", 503)])
def test_a_served_file_can_be_refused(fault: Fault, status: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345678")
    with serve(tmp_path) as server:
        server.faults["/file"] = fault
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{server.url}file")
        caught.value.close()
        del server.faults["/file"]
        with urllib.request.urlopen(f"{server.url}file") as response:
            assert response.read() == b"12345678"

    assert caught.value.code == status


def test_a_served_file_can_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345678")
    with serve(tmp_path) as server:
        server.faults["/file"] = "corrupt"
        with urllib.request.urlopen(f"{server.url}file") as response:
            assert response.read() == b"1234" + bytes([ord("5") ^ 0xFF]) + b"678"
        server.faults["/file"] = "truncated"
        with urllib.request.urlopen(f"{server.url}file") as response, pytest.raises(http.client.IncompleteRead):
            response.read()
