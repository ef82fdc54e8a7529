from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rattler

from ociforge.conda.meta import PathRecord, history_entry, identity, record_entry, record_name
from tests.conda.environment import content, records
from tests.support.channel import Channel, write_channel
from tests.support.conda import CondaPackage

if TYPE_CHECKING:
    from layers.entry import File

PACKAGE = CondaPackage(
    name="tool",
    depends=("libc >=2",),
    constrains=("other <3",),
    purls=("pkg:pypi/tool",),
    build="h12_0",
    files={"bin/tool": "x"},
)

PATHS = (
    PathRecord(path="lib/é", path_type="softlink", sha256_in_prefix="22" * 32, size_in_bytes=0),
    PathRecord(
        path="bin/tool",
        path_type="hardlink",
        sha256="00" * 32,
        sha256_in_prefix="11" * 32,
        size_in_bytes=7,
        file_mode="text",
        prefix_placeholder="/opt/build",
    ),
)


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return write_channel(tmp_path / "channel", [PACKAGE])


def written(channel: Channel, url: str | None = None) -> File:
    (record,) = records(channel, url=url)
    return record_entry(record, PATHS, path="app/conda-meta/x.json", mtime=5)


def test_the_bytes_of_a_record(channel: Channel) -> None:
    """Golden: these bytes may change only with the layer format's number."""
    entry = written(channel, "https://u:p@conda.example/t/tk-1/main")
    assert (entry.path, entry.mode, entry.mtime) == ("app/conda-meta/x.json", 0o644, 5)
    record = channel.archives[0].record
    assert content(entry).decode() == (
        '{"arch":"x86_64","build":"h12_0","build_number":0,"channel":"https://conda.example/main/",'
        '"constrains":["other <3"],"depends":["libc >=2"],"files":["bin/tool","lib/é"],"fn":"tool-1.0-h12_0.conda",'
        '"license":"BSD-3-Clause","link":{"source":"","type":1},'
        f'"md5":"{record["md5"]}","name":"tool","paths_data":{{"paths":['
        '{"_path":"bin/tool","file_mode":"text","path_type":"hardlink","prefix_placeholder":"/opt/build",'
        f'"sha256":"{"00" * 32}","sha256_in_prefix":"{"11" * 32}","size_in_bytes":7}},'
        f'{{"_path":"lib/é","path_type":"softlink","sha256_in_prefix":"{"22" * 32}","size_in_bytes":0}}'
        '],"paths_version":1},"platform":"linux","purls":["pkg:pypi/tool"],"requested_specs":[],'
        f'"sha256":"{record["sha256"]}","size":{record["size"]},"subdir":"linux-64","timestamp":1704164645000,'
        '"url":"https://conda.example/main/linux-64/tool-1.0-h12_0.conda","version":"1.0"}'
    )


def test_rattler_reads_it(channel: Channel, tmp_path: Path) -> None:
    (record,) = records(channel)
    assert record_name(record) == "tool-1.0-h12_0.json"
    path = tmp_path / record_name(record)
    path.write_bytes(content(written(channel)))
    read = rattler.PrefixRecord.from_path(path)
    assert read.name.normalized == "tool"
    assert str(read.version) == "1.0"
    assert read.files == [Path("bin/tool"), Path("lib/é")]
    assert [entry.relative_path for entry in read.paths_data.paths] == read.files
    assert read.sha256 == record.sha256
    assert read.url == "file:///linux-64/tool-1.0-h12_0.conda"
    assert read.requested_specs == []
    assert read.extracted_package_dir is None
    assert read.package_tarball_full_path is None


def test_a_local_channel_leaves_no_trace(channel: Channel, tmp_path: Path) -> None:
    elsewhere = write_channel(tmp_path / "elsewhere", [PACKAGE])
    data = content(written(channel))
    assert data == content(written(elsewhere))
    assert str(tmp_path).encode() not in data
    document = json.loads(data)
    assert (document["channel"], document["url"]) == ("file:///", "file:///linux-64/tool-1.0-h12_0.conda")


def test_identity_is_what_the_lock_says_of_the_archive(channel: Channel, tmp_path: Path) -> None:
    first, same, hotfixed, elsewhere = (records(channel)[0] for _ in range(4))
    hotfixed.depends = ["libc >=3"]
    elsewhere.url = "https://mirror.example/linux-64/tool-1.0-h12_0.conda"
    assert identity(first) == identity(same)
    assert len({identity(first), identity(hotfixed), identity(elsewhere)}) == 3


def test_the_history_is_a_fixed_text() -> None:
    entry = history_entry("/app/.pixi/envs/prod", 7)
    assert (entry.path, entry.mode, entry.mtime) == ("app/.pixi/envs/prod/conda-meta/history", 0o644, 7)
    assert content(entry) == b"// not relevant for pixi but for `conda run -p`"
