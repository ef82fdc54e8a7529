from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ociforge.errors import ImageError
from ociforge.oci.config import ConfigChanges, ImageConfig, derive
from ociforge.oci.descriptor import canonical_json
from ociforge.platform import Platform
from tests.oci.documents import config, config_document, digest, json_values

NOTHING = ConfigChanges()


def run_of(derived: ImageConfig) -> dict[str, Any]:
    run = derived.raw["config"]
    assert isinstance(run, dict)
    return run


def test_what_is_read() -> None:
    read = config(
        2,
        {
            "User": "1000:1000",
            "ExposedPorts": {"80/tcp": {}},
            "Env": ["PATH=/bin", "A=1=2", "B=", "A=3"],
            "Entrypoint": ["/init"],
            "Cmd": ["sh"],
            "Shell": ["/bin/bash", "-c"],
            "Volumes": {"/data": {}},
            "WorkingDir": "/srv",
            "Labels": {"x": "y"},
            "StopSignal": "SIGINT",
            "Healthcheck": {"Test": ["NONE"]},
        },
        created="2024-01-01T00:00:00Z",
        variant="v2",
    )
    assert read.platform == Platform(architecture="amd64", variant="v2")
    assert read.diff_ids == (digest("base 0 tar"), digest("base 1 tar"))
    assert list(read.env.items()) == [("PATH", "/bin"), ("A", "3"), ("B", "")]
    assert (read.entrypoint, read.cmd, read.shell) == (("/init",), ("sh",), ("/bin/bash", "-c"))
    assert (read.user, read.workdir, read.stop_signal) == ("1000:1000", "/srv", "SIGINT")
    assert (read.exposed_ports, read.volumes, read.labels) == (("80/tcp",), ("/data",), {"x": "y"})
    assert read.healthcheck == {"Test": ["NONE"]}
    assert read.created == "2024-01-01T00:00:00Z"
    assert len(read.history) == 2


def test_null_is_absent() -> None:
    members = ("config", "created", "history", "variant", "author")
    assert config(0, **dict.fromkeys(members)).env == {}
    names = (
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "Shell",
    )
    read = config(0, dict.fromkeys(names))
    assert (read.user, read.workdir, read.entrypoint, read.cmd) == ("", "", None, None)
    document = config_document(0)
    document["rootfs"]["diff_ids"] = None
    assert ImageConfig.parse(canonical_json(document)).diff_ids == ()


def test_empty() -> None:
    assert ImageConfig.empty(Platform.parse("linux/arm64")).to_bytes() == (
        b'{"architecture":"arm64","config":{},"os":"linux","rootfs":{"diff_ids":[],"type":"layers"},"variant":"v8"}'
    )
    assert "variant" not in ImageConfig.empty(Platform.parse("linux/amd64")).raw


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"os": None}, "image config: needs `os` and `architecture`"),
        ({"architecture": ""}, "image config: needs `os` and `architecture`"),
        ({"architecture": 1}, "image config.architecture: expected a string, got a number"),
        ({"Architecture": "amd64"}, "image config: `Architecture`: the specification spells it `architecture`"),
        ({"rootfs": None}, "image config.rootfs: missing"),
        ({"rootfs": []}, "image config.rootfs: expected an object, got an array"),
        ({"rootfs": {"type": "tar"}}, "image config: rootfs.type: expected `layers`, got `tar`"),
        (
            {"rootfs": {"type": "layers", "diff_ids": {}}},
            "image config: rootfs.diff_ids: expected an array, got an object",
        ),
        (
            {"rootfs": {"type": "layers", "diff_ids": [1]}},
            "image config: rootfs.diff_ids[0]: expected a string, got a number",
        ),
        ({"config": []}, "image config.config: expected an object, got an array"),
        ({"config": {"user": "root"}}, "image config: config: `user`: the specification spells it `User`"),
        ({"config": {"Env": "A=1"}}, "image config: config.Env: expected an array, got a string"),
        ({"config": {"Env": ["A=1", "B"]}}, "image config: config.Env[1]: expected `NAME=value`, got `B`"),
        ({"config": {"Env": ["=1"]}}, "image config: config.Env[0]: expected `NAME=value`, got `=1`"),
        ({"config": {"Cmd": "sh"}}, "image config: config.Cmd: expected an array, got a string"),
        ({"config": {"Entrypoint": [None]}}, "image config: config.Entrypoint[0]: expected a string, got null"),
        ({"config": {"Labels": {"a": 1}}}, "image config: config.Labels[`a`]: expected a string, got a number"),
        ({"config": {"Volumes": ["/data"]}}, "image config: config.Volumes: expected an object, got an array"),
        ({"history": {}}, "image config.history: expected an array, got an object"),
        ({"history": ["RUN x"]}, "image config.history[0]: expected an object, got a string"),
        ({"history": [{"empty_layer": "no"}]}, "image config: history[0].empty_layer: expected true or false"),
        (
            {"history": [{"Empty_Layer": True}]},
            "image config: history[0]: `Empty_Layer`: the specification spells it `empty_layer`",
        ),
        ({"created": 0}, "image config.created: expected a string, got a number"),
    ],
)
def test_bad_configurations(members: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError) as caught:
        config(1, **members)
    assert caught.value.message == message


def test_bad_diff_ids() -> None:
    with pytest.raises(
        ImageError, match=r"^image config: rootfs\.diff_ids\[0\]: expected `sha256:` .*, got `sha256:x`$"
    ):
        config(rootfs={"type": "layers", "diff_ids": ["sha256:x"]})


def test_a_huge_configuration_is_not_parsed() -> None:
    with pytest.raises(ImageError, match="5000002 bytes, but engines read at most 4194304"):
        ImageConfig.parse(b"{}" + b" " * 5_000_000)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["architecture", "os", "config", "rootfs", "history", "created"]), json_values),
    st.dictionaries(st.sampled_from(["Env", "Cmd", "User", "Labels", "Volumes", "ExposedPorts"]), json_values),
)
def test_any_json_is_a_configuration_to_build_on_or_an_error(members: dict[str, Any], run: dict[str, Any]) -> None:
    try:
        read = ImageConfig.parse(canonical_json(config_document(1, run) | members))
    except ImageError:
        return
    derived = derive(read, [(digest("own tar"), "own")], NOTHING)
    assert ImageConfig.parse(derived.to_bytes()) == derived


# What a base says is inherited.


def test_the_base_is_inherited() -> None:
    run = {
        "User": "1000",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["PATH=/usr/bin", "LANG=C"],
        "Entrypoint": ["/init"],
        "Cmd": ["sh"],
        "Shell": ["/bin/bash", "-c"],
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "Labels": {"x": "y"},
        "StopSignal": "SIGINT",
        "Healthcheck": {"Test": ["CMD", "true"]},
        "Unknown": {"kept": [1, 2.5, None]},
        "Tty": False,
    }
    base = config(1, run, author="someone", **{"os.version": "1", "os.features": ["a"], "unknown": True})
    derived = derive(base, [(digest("own tar"), "own")], NOTHING)
    assert run_of(derived) == run
    for key in ("author", "os.version", "os.features", "unknown", "architecture", "os"):
        assert derived.raw[key] == base.raw[key]


def test_dockers_own_members_are_dropped() -> None:
    docker = {"container": "f00", "container_config": {"Cmd": ["x"]}, "docker_version": "20", "id": "1", "parent": "0"}
    run = {"Hostname": "f00", "Image": "sha256:1", "OnBuild": ["RUN x"], "ArgsEscaped": True, "User": "x"}
    derived = derive(config(1, run, created="2024-01-01T00:00:00Z", **docker), [], NOTHING)
    assert set(derived.raw) == {"architecture", "os", "config", "rootfs", "history"}
    assert run_of(derived) == {"User": "x"}


def test_changes_are_made() -> None:
    base = config(
        0,
        {
            "Env": ["PATH=/bin", "A=1", "B=2"],
            "Labels": {"x": "1", "y": "1"},
            "Volumes": {"/a": {}},
            "ExposedPorts": {"80/tcp": {}},
        },
    )
    changes = ConfigChanges(
        env={"C": "3", "A": "", "PATH": "/app/bin:/bin"},
        entrypoint=("/app/entrypoint.sh",),
        cmd=("uvicorn", "app"),
        workdir="/app",
        user="1000:1000",
        expose=("8000", "80", "53/udp"),
        volumes=("/b", "/a"),
        labels={"y": "2", "z": ""},
        stop_signal="SIGINT",
        healthcheck={"Test": ["CMD", "true"], "Interval": 1_000_000_000},
    )
    assert run_of(derive(base, [], changes)) == {
        "Env": ["PATH=/app/bin:/bin", "A=", "B=2", "C=3"],
        "Labels": {"x": "1", "y": "2", "z": ""},
        "Volumes": {"/a": {}, "/b": {}},
        "ExposedPorts": {"80/tcp": {}, "8000/tcp": {}, "53/udp": {}},
        "Entrypoint": ["/app/entrypoint.sh"],
        "Cmd": ["uvicorn", "app"],
        "WorkingDir": "/app",
        "User": "1000:1000",
        "StopSignal": "SIGINT",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
    }


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "expected"),
    [
        (None, None, {"Entrypoint": ["/init"], "Cmd": ["sh"]}),
        (None, ("app",), {"Entrypoint": ["/init"], "Cmd": ["app"]}),
        (None, (), {"Entrypoint": ["/init"]}),
        (("/e",), None, {"Entrypoint": ["/e"]}),
        (("/e",), ("app",), {"Entrypoint": ["/e"], "Cmd": ["app"]}),
        ((), None, {}),
        ((), ("app",), {"Cmd": ["app"]}),
    ],
)
def test_entrypoint_and_command(
    entrypoint: tuple[str, ...] | None, cmd: tuple[str, ...] | None, expected: dict[str, Any]
) -> None:
    base = config(0, {"Entrypoint": ["/init"], "Cmd": ["sh"]})
    assert run_of(derive(base, [], ConfigChanges(entrypoint=entrypoint, cmd=cmd))) == expected


def test_the_base_document_is_not_touched() -> None:
    base = config(1, {"Env": ["A=1"], "Labels": {"x": "1"}})
    before = base.to_bytes()
    derive(base, [(digest("own tar"), "own")], ConfigChanges(env={"A": "2"}, labels={"x": "2"}), 0)
    assert base.to_bytes() == before


# Layers, history and time.


def test_layers_are_put_on_top_even_twice() -> None:
    own = digest("own tar")
    derived = derive(config(2), [(own, "first"), (own, "again")], NOTHING)
    assert derived.diff_ids == (digest("base 0 tar"), digest("base 1 tar"), own, own)
    assert derived.raw["rootfs"]["type"] == "layers"
    assert derived.history == (
        {"created_by": "layer 0"},
        {"created_by": "layer 1"},
        {"created_by": "first"},
        {"created_by": "again"},
    )


PADDING = {"comment": "layer of the base image, without a history"}
EMPTY = {"created_by": "ENV A=1", "empty_layer": True}


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (None, [PADDING, PADDING]),
        ([], [PADDING, PADDING]),
        ([{"created_by": "a"}], [{"created_by": "a"}, PADDING]),
        ([{"created_by": "a"}, EMPTY], [{"created_by": "a"}, EMPTY, PADDING]),
        ([{"created_by": "a"}, EMPTY, {"created_by": "b"}], [{"created_by": "a"}, EMPTY, {"created_by": "b"}]),
        ([{}, {"empty_layer": False}, EMPTY], [{}, {"empty_layer": False}, EMPTY]),
        ([{"created_by": "a"}] * 3, [PADDING, PADDING]),
    ],
)
def test_history_has_one_entry_for_each_layer(history: object, expected: list[object]) -> None:
    derived = derive(config(2, history=history), [(digest("own tar"), "own")], NOTHING)
    assert derived.raw["history"] == [*expected, {"created_by": "own"}]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000, "2023-11-14T22:13:20Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
        (-62_135_596_800, "0001-01-01T00:00:00Z"),
    ],
)
def test_time_is_what_is_given(seconds: int, text: str) -> None:
    derived = derive(config(1), [(digest("own tar"), "own")], NOTHING, seconds)
    assert derived.created == text
    assert derived.history[-1] == {"created": text, "created_by": "own"}


def test_without_a_time_there_is_none() -> None:
    derived = derive(config(1, created="2024-01-01T00:00:00Z"), [(digest("own tar"), "own")], NOTHING)
    assert "created" not in derived.raw
    assert "created" not in derived.history[-1]


@pytest.mark.parametrize("seconds", [253_402_300_800, 1 << 80, -(1 << 60)])
def test_impossible_times(seconds: int) -> None:
    with pytest.raises(ImageError, match=f"^creation time: `{seconds}` is no number of seconds since 1970"):
        derive(config(1), [], NOTHING, seconds)


def test_the_variant_of_arm64_is_written() -> None:
    assert derive(config(0, architecture="arm64"), [], NOTHING).raw["variant"] == "v8"
    assert derive(config(0, architecture="arm", variant="v7"), [], NOTHING).raw["variant"] == "v7"
    assert "variant" not in derive(config(0), [], NOTHING).raw


@settings(deadline=None)
@given(st.permutations(["os", "architecture", "config", "rootfs", "history"]))
def test_member_order_of_the_base_does_not_matter(order: list[str]) -> None:
    document = config_document(1, {"Labels": {"a": "1", "b": "2"}})
    shuffled = json.dumps({key: document[key] for key in order}).encode()
    derived = derive(ImageConfig.parse(shuffled), [(digest("own tar"), "own")], NOTHING)
    assert derived.to_bytes() == derive(config(1, document["config"]), [(digest("own tar"), "own")], NOTHING).to_bytes()
