from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from ociforge.errors import WorkspaceError
from ociforge.platform import Platform
from ociforge.workspace.settings import (
    DEFAULT_BASE,
    FileRules,
    Healthcheck,
    ImageSettings,
    TaskCommand,
    literal_dollars,
)
from tests.workspace.making import workspace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ociforge.workspace import Settings


def settings(root: Path, text: str) -> Settings:
    return workspace(root, "[environments]\nprod = []\n[tool.ociforge]\n" + text).settings


def failure(root: Path, text: str) -> str:
    with pytest.raises(WorkspaceError) as caught:
        settings(root, text)
    return caught.value.message


def test_defaults(tmp_path: Path) -> None:
    assert workspace(tmp_path, "").settings.image() == ImageSettings(
        environment="default", prefix="/app/.pixi/envs/default", base=DEFAULT_BASE, workdir="/app", layers=40
    )


def test_everything(tmp_path: Path) -> None:
    text = """\
base = "oci:../base"
prefix = "/opt/envs/prod/"
workdir = "/srv/app"
files = { include = ["src/"], exclude = ["*.md"] }
entrypoint = ["tini", "--"]
cmd = ["serve", "--port", "80"]
env = { LANG = "C.UTF-8", EMPTY = "" }
expose = [8000, "53/udp", "8000/tcp"]
user = "1000:1000"
volumes = ["/data", "/data"]
labels = { a = "b" }
annotations = { "org.opencontainers.image.title" = "t" }
stop-signal = "int"
healthcheck = { cmd = ["true"], interval = "1m30s", timeout = "500ms", start-period = "2s", retries = 3 }
layers = 12
compression = "zstd:3"
environment = "prod"
"""
    assert settings(tmp_path, text).image() == ImageSettings(
        environment="prod",
        prefix="/opt/envs/prod",
        base="oci:../base",
        workdir="/srv/app",
        files=FileRules(include=("src/",), exclude=("*.md",)),
        entrypoint=("tini", "--"),
        cmd=("serve", "--port", "80"),
        env={"LANG": "C.UTF-8", "EMPTY": ""},
        expose=("8000/tcp", "53/udp"),
        user="1000:1000",
        volumes=("/data",),
        labels={"a": "b"},
        annotations={"org.opencontainers.image.title": "t"},
        stop_signal="SIGINT",
        healthcheck=Healthcheck(
            test=("CMD", "true"),
            interval=90_000_000_000,
            timeout=500_000_000,
            start_period=2_000_000_000,
            retries=3,
        ),
        layers=12,
        compression="zstd:3",
    )


def test_named_images_change_the_common_keys(tmp_path: Path) -> None:
    text = (
        "cmd = ['a']\nenv = { A = '1', B = '1' }\nlayers = 3\n"
        "[tool.ociforge.images.web]\nenvironment = 'prod'\ncmd = ['b']\nenv = { B = '2', C = '2' }\n"
    )
    found = settings(tmp_path, text)
    web = found.image("web")
    assert (web.name, web.environment, web.prefix) == ("web", "prod", "/app/.pixi/envs/prod")
    assert (web.cmd, web.layers, web.env) == (("b",), 3, {"A": "1", "B": "2", "C": "2"})
    assert found.image().env == {"A": "1", "B": "1"}
    with pytest.raises(WorkspaceError, match=r"^there is no image `api` in `\[tool.ociforge.images\]`: found `web`$"):
        found.image("api")
    with pytest.raises(WorkspaceError, match=r"found none$") as caught:
        settings(tmp_path, "").image("api")
    assert str(caught.value.hint).startswith("leave out `--image`")


AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")


def test_platforms_change_what_stands_beside_them(tmp_path: Path) -> None:
    """An image's own words beat what is common, on every platform; options beat all."""
    text = """\
cmd = ["a"]
base = "oci:common"
env = { A = "1", B = "1" }
[tool.ociforge.platform."linux/arm64"]
base = "oci:common-arm"
layers = 3
env = { B = "2" }
[tool.ociforge.images.web]
base = "oci:web"
[tool.ociforge.images.web.platform."linux/arm64/v8"]
cmd = ["b"]
env = { C = "3" }
[tool.ociforge.images.api]
environment = "prod"
"""
    found = settings(tmp_path, text)
    plain, other, arm = (found.image(platform=platform) for platform in (None, AMD64, ARM64))
    assert plain == other
    assert (plain.base, plain.layers, plain.env) == ("oci:common", 40, {"A": "1", "B": "1"})
    assert (arm.base, arm.layers, arm.env) == ("oci:common-arm", 3, {"A": "1", "B": "2"})
    web, web_arm = (found.image("web", platform=platform) for platform in (AMD64, ARM64))
    assert (web.base, web.cmd, web.layers) == ("oci:web", ("a",), 40)
    assert (web_arm.base, web_arm.cmd, web_arm.layers) == ("oci:web", ("b",), 3)
    assert web_arm.env == {"A": "1", "B": "2", "C": "3"}
    assert found.image("api", platform=ARM64).prefix == "/app/.pixi/envs/prod"
    assert found.image("web", {"base": "scratch", "env": {"C": "4"}}, platform=ARM64) == replace(
        web_arm, base="scratch", env={"A": "1", "B": "2", "C": "4"}
    )


def test_what_does_not_go_together_on_one_platform(tmp_path: Path) -> None:
    message = "the image's `workdir` `/opt/e/x` lies in its `prefix` `/opt/e`"
    assert (
        failure(tmp_path, "workdir = '/opt/e/x'\n[tool.ociforge.platform.'linux/arm64']\nprefix = '/opt/e'") == message
    )


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        ({"base": "scratch", "cmd": None}, "base", "scratch"),
        ({"environment": "prod"}, "prefix", "/app/.pixi/envs/prod"),
        ({"env": {"B": "9"}}, "env", {"A": "1", "B": "9"}),
        ({"expose": ["80"]}, "expose", ("80/tcp",)),
        ({"labels": {"x": "y"}}, "labels", {"x": "y"}),
        ({"user": "7"}, "user", "7"),
    ],
)
def test_options_beat_settings(tmp_path: Path, overrides: Mapping[str, object], key: str, value: object) -> None:
    found = settings(tmp_path, "base = 'oci:x'\nenv = { A = '1', B = '1' }\nexpose = [1]\n")
    assert getattr(found.image(overrides=overrides), key) == value


def test_options_are_held_to_the_same_rules(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError) as caught:
        settings(tmp_path, "").image(overrides={"prefix": "opt/x"})
    assert caught.value.message == "`prefix` in the options: expected an absolute path, got string `opt/x`"


def test_a_level_that_there_is_not_in_the_options(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError) as caught:
        settings(tmp_path, "").image(overrides={"compression": "gzip:0"})
    assert caught.value.message == "`compression` in the options: `gzip` has no level 0: expected 1 to 12"


def test_the_command_of_a_task(tmp_path: Path) -> None:
    found = settings(tmp_path, "cmd = { task = 'start' }\n[tool.ociforge.images.web]\ncmd = ['serve']\n")
    assert found.image().cmd == TaskCommand(task="start")
    assert found.image("web").cmd == ("serve",)


@pytest.mark.parametrize("text", ["none", "gzip", "gzip:1", "gzip:9", "zstd", "zstd:19"])
def test_compressions(tmp_path: Path, text: str) -> None:
    assert settings(tmp_path, f"compression = '{text}'").image().compression == text


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("", FileRules(include=None)),
        ("files = []", FileRules(include=())),
        ("files = ['src']", FileRules(include=("src",))),
        ("files = {}", FileRules(include=None)),
        ("files = { include = [] }", FileRules(include=())),
        ("files = { exclude = ['*.md'] }", FileRules(include=None, exclude=("*.md",))),
    ],
)
def test_files(tmp_path: Path, text: str, rules: FileRules) -> None:
    assert settings(tmp_path, text).image().files == rules


def test_values_that_look_as_if_they_were_expanded_are_told_of(tmp_path: Path) -> None:
    text = """\
[tool.ociforge.env]
PATH = "/opt/bin:$PATH:$HOME"
"a.b" = "${HOME:-/root}/x"
PRICE = "5$"
PASSWORD = "a$1$$(x)"
PLAIN = "x"
"""
    assert literal_dollars(settings(tmp_path, text).image()) == (
        "`env.PATH` holds `$PATH`, which is not expanded: config variables are literal",
        '`env."a.b"` holds `${HOME}`, which is not expanded: config variables are literal',
    )


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ("bas = 'x'", "tool.ociforge.bas", "unknown key: did you mean `base`?"),
        (
            "[tool.ociforge.images.web]\nenvironmnt = 'x'",
            "tool.ociforge.images.web.environmnt",
            "unknown key: did you mean `environment`?",
        ),
        (
            "[tool.ociforge.images.Web]",
            "tool.ociforge.images.Web",
            "no image name: lower case letters, digits and `.`, `_`, `-` between them",
        ),
        (
            "environment = 'prd'",
            "tool.ociforge.environment",
            "expected one of `default`, `prod`, got `prd`: did you mean `prod`?",
        ),
        (
            "[tool.ociforge.platform.'linux/arm64']\nenvironment = 'prod'",
            'tool.ociforge.platform."linux/arm64".environment',
            "an image has one environment, on all of its platforms",
        ),
        (
            "[tool.ociforge.images.web.platform.'linux/arm64']\nbas = 'x'",
            'tool.ociforge.images.web.platform."linux/arm64".bas',
            "unknown key: did you mean `base`?",
        ),
        (
            "[tool.ociforge.platform.'linux/arm64'.platform.'linux/amd64']\nbase = 'x'",
            'tool.ociforge.platform."linux/arm64".platform',
            "unknown key",
        ),
        (
            "[tool.ociforge.platform.linux-aarch64]",
            "tool.ociforge.platform.linux-aarch64",
            "unknown platform: `linux-aarch64`: did you mean `linux/arm64`?",
        ),
        (
            "[tool.ociforge.platform]\n'linux/arm64' = {}\n'linux/arm64/v8' = {}",
            'tool.ociforge.platform."linux/arm64/v8"',
            "this is the platform of `linux/arm64`, too",
        ),
        ("platform = 'linux/arm64'", "tool.ociforge.platform", "expected a table, got string `linux/arm64`"),
        ("base = 'a b'", "tool.ociforge.base", "string `a b` is no image: white space"),
        ("base = ''", "tool.ociforge.base", "expected a string that is not empty"),
        ("prefix = 'env'", "tool.ociforge.prefix", "expected an absolute path, got string `env`"),
        ("prefix = '/'", "tool.ociforge.prefix", "expected a directory below `/`, got string `/`"),
        (
            "prefix = '/env'",
            "tool.ociforge.prefix",
            "`/env` is too near to the root: expected at least two components, such as `/opt/env`",
        ),
        (
            "prefix = '/a/../b'",
            "tool.ociforge.prefix",
            "expected a path in normal form: without `//`, `.` and `..`, got string `/a/../b`",
        ),
        (
            "prefix = '/a//b'",
            "tool.ociforge.prefix",
            "expected a path in normal form: without `//`, `.` and `..`, got string `/a//b`",
        ),
        (
            "prefix = '/a/b c'",
            "tool.ociforge.prefix",
            "expected only letters, digits and `._-+=@%,~` between the slashes, got string `/a/b c`",
        ),
        (
            "prefix = '/a/$b'",
            "tool.ociforge.prefix",
            "expected only letters, digits and `._-+=@%,~` between the slashes, got string `/a/$b`",
        ),
        (
            f"prefix = '/a/{'b' * 300}'",
            "tool.ociforge.prefix",
            "longer than 255 bytes, the room that conda packages leave for it",
        ),
        (
            "workdir = '/a/b:c'",
            "tool.ociforge.workdir",
            "expected only letters, digits and `._-+=@%,~` between the slashes, got string `/a/b:c`",
        ),
        (
            "cmd = 'uvicorn app:app'",
            "tool.ociforge.cmd",
            'expected an array of strings: did you mean `["uvicorn", "app:app"]`?',
        ),
        ("cmd = {}", "tool.ociforge.cmd", "expected an array of strings, or a table with `task`"),
        ("cmd = { task = 7 }", "tool.ociforge.cmd.task", "expected a string, got integer `7`"),
        ("cmd = { task = 'x', arg = 1 }", "tool.ociforge.cmd.arg", "unknown key"),
        ("entrypoint = { task = 'x' }", "tool.ociforge.entrypoint", "expected an array, got a table"),
        ("cmd = ['a', 1]", "tool.ociforge.cmd[1]", "expected a string, got integer `1`"),
        ('entrypoint = ["a\\u0000"]', "tool.ociforge.entrypoint[0]", "expected a string, got string `a\\x00`"),
        ("env = { 'A=B' = 'x' }", 'tool.ociforge.env."A=B"', "no name for a variable"),
        ("env = { PORT = 80 }", "tool.ociforge.env.PORT", "expected a string, got integer `80`"),
        ("expose = [0]", "tool.ociforge.expose[0]", 'expected a port such as `8000` or `"53/udp"`, got integer `0`'),
        (
            "expose = ['80/sctpx']",
            "tool.ociforge.expose[0]",
            'expected a port such as `8000` or `"53/udp"`, got string `80/sctpx`',
        ),
        ("expose = [true]", "tool.ociforge.expose[0]", 'expected a port such as `8000` or `"53/udp"`, got `true`'),
        (
            "user = 'www'",
            "tool.ociforge.user",
            'expected a numeric user such as `1000` or `"1000:1000"`, got string `www`',
        ),
        (
            "user = '4294967295'",
            "tool.ociforge.user",
            'expected a numeric user such as `1000` or `"1000:1000"`, got string `4294967295`',
        ),
        ("volumes = ['data']", "tool.ociforge.volumes[0]", "expected an absolute path, got string `data`"),
        ("labels = { '' = 'x' }", 'tool.ociforge.labels.""', "a key must not be empty"),
        (
            "stop-signal = 'SIGTREM'",
            "tool.ociforge.stop-signal",
            "string `SIGTREM` is no signal: did you mean `SIGTERM`?",
        ),
        ("stop-signal = 99", "tool.ociforge.stop-signal", "expected a signal such as `SIGTERM`, got integer `99`"),
        ("healthcheck = { interval = '5s' }", "tool.ociforge.healthcheck", "the key `cmd` is missing"),
        (
            "healthcheck = { cmd = 'x', interval = '5' }",
            "tool.ociforge.healthcheck.interval",
            "expected a duration such as `30s` or `1m30s`, got string `5`",
        ),
        *(
            (
                f"healthcheck = {{ cmd = ['{word}', 'true'] }}",
                "tool.ociforge.healthcheck.cmd",
                (
                    f"write the command itself, without docker's `{word}`: "
                    "an array is run as it is, a string is run by the shell"
                ),
            )
            for word in ("CMD", "CMD-SHELL", "NONE")
        ),
        ("layers = 0", "tool.ociforge.layers", "expected an integer from 1 to 120, got integer `0`"),
        (
            "compression = 'bzip2'",
            "tool.ociforge.compression",
            "expected `gzip`, `zstd` or `none`, with a level if wanted (`gzip:6`), got string `bzip2`",
        ),
        (
            "compression = 'zstd:99'",
            "tool.ociforge.compression",
            "`zstd` has no level 99: expected 1 to 19",
        ),
        (
            "compression = 'none:1'",
            "tool.ociforge.compression",
            "unknown compression `none:1`: expected `gzip:LEVEL` or `zstd:LEVEL`",
        ),
        (
            "files = 'src'",
            "tool.ociforge.files",
            "expected an array of patterns, or a table with `include` and `exclude`, got string `src`",
        ),
        ("files = ['a', '']", "tool.ociforge.files[1]", "expected a string, got an empty one"),
        ("files = { include = 'src' }", "tool.ociforge.files.include", "expected an array, got string `src`"),
        ("files = { only = [] }", "tool.ociforge.files.only", "unknown key"),
    ],
)
def test_message(tmp_path: Path, text: str, key: str, why: str) -> None:
    assert failure(tmp_path, text) == f"`{key}` in `pixi.toml`: {why}"


def test_the_application_stays_out_of_the_prefix(tmp_path: Path) -> None:
    message = "the image's `workdir` `/opt/e` lies in its `prefix` `/opt/e`"
    assert failure(tmp_path, "workdir = '/opt/e'\nprefix = '/opt/e'") == message


def test_it_is_a_table(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"^`tool.ociforge` in `pixi.toml`: expected a table, got integer `1`$"):
        workspace(tmp_path, "[tool]\nociforge = 1\n")


@pytest.mark.parametrize(("given", "kept"), [("SIGRTMIN+3", "SIGRTMIN+3"), ("quit", "SIGQUIT"), ("15", "15")])
def test_signals(tmp_path: Path, given: str, kept: str) -> None:
    assert settings(tmp_path, f"stop-signal = '{given}'").image().stop_signal == kept


def test_a_shell_health_check(tmp_path: Path) -> None:
    found = settings(tmp_path, "healthcheck = { cmd = 'curl -f localhost || exit 1' }").image().healthcheck
    assert found == Healthcheck(test=("CMD-SHELL", "curl -f localhost || exit 1"))
