from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ociforge.errors import WorkspaceError
from ociforge.workspace import load
from tests.workspace.making import HEAD, workspace

if TYPE_CHECKING:
    from pathlib import Path

MINIMAL = '[workspace]\nchannels = []\nplatforms = ["linux-64"]\n'


def failure(root: Path, text: str, *, head: str = HEAD, name: str = "pixi.toml") -> str:
    with pytest.raises(WorkspaceError) as caught:
        workspace(root, text, head=head, name=name)
    return caught.value.message


class TestDiscovery:
    def test_walks_up_to_the_first_workspace(self, tmp_path: Path) -> None:
        (tmp_path / "pixi.toml").write_text(MINIMAL)
        below = tmp_path / "a" / "b"
        below.mkdir(parents=True)
        assert load(below).manifest.path == tmp_path / "pixi.toml"

    def test_pixi_toml_hides_pyproject(self, tmp_path: Path) -> None:
        (tmp_path / "pixi.toml").write_text(MINIMAL)
        (tmp_path / "pyproject.toml").write_text("[tool.pixi.workspace]\nchannels = []\nplatforms = []\n")
        assert load(tmp_path).manifest.path.name == "pixi.toml"

    def test_pyproject_without_pixi_hides_mojoproject(self, tmp_path: Path) -> None:
        inner = tmp_path / "inner"
        inner.mkdir()
        (tmp_path / "pixi.toml").write_text(MINIMAL)
        (inner / "pyproject.toml").write_text("[project]\nname = 'x'\n")
        (inner / "mojoproject.toml").write_text(MINIMAL)
        assert load(inner).root == tmp_path

    def test_mojoproject(self, tmp_path: Path) -> None:
        (tmp_path / "mojoproject.toml").write_text(MINIMAL)
        assert load(tmp_path).manifest.path.name == "mojoproject.toml"

    def test_a_package_belongs_to_the_workspace_above(self, tmp_path: Path) -> None:
        inner = tmp_path / "package"
        inner.mkdir()
        (tmp_path / "pixi.toml").write_text(MINIMAL)
        (inner / "pixi.toml").write_text("[package]\nname = 'p'\n")
        assert load(inner).root == tmp_path

    def test_manifest_path_is_a_file_or_a_directory(self, tmp_path: Path) -> None:
        (tmp_path / "pixi.toml").write_text(MINIMAL)
        assert load(tmp_path / "gone", tmp_path).root == tmp_path
        assert load(tmp_path / "gone", tmp_path / "pixi.toml").root == tmp_path

    def test_nothing_found(self, tmp_path: Path) -> None:
        with pytest.raises(WorkspaceError, match=r"^no pixi workspace in `.*` or above it$") as caught:
            load(tmp_path)
        assert caught.value.hint is not None
        with pytest.raises(WorkspaceError, match=r"^no pixi workspace in `[^`]*`$"):
            load(tmp_path, tmp_path)
        with pytest.raises(WorkspaceError, match="no such directory"):
            load(tmp_path / "gone")

    def test_a_manifest_without_workspace(self, tmp_path: Path) -> None:
        (tmp_path / "pixi.toml").write_text("[dependencies]\n")
        with pytest.raises(WorkspaceError, match=r"it has no `\[workspace\]`"):
            load(tmp_path, tmp_path / "pixi.toml")

    def test_unreadable(self, tmp_path: Path) -> None:
        with pytest.raises(WorkspaceError, match=r"^cannot read `.*/pixi.toml`: No such file or directory$"):
            load(tmp_path, tmp_path / "pixi.toml")
        (tmp_path / "pixi.toml").write_bytes(b"[workspace]\nname = '\xff'")
        with pytest.raises(WorkspaceError, match="not UTF-8: byte 20"):
            load(tmp_path)


class TestDialect:
    def test_toml_1_1(self, tmp_path: Path) -> None:
        text = HEAD.replace("platforms", "preview = [\n  'pixi-build', # why\n]\nplatforms")
        done = workspace(tmp_path, "[environments]\nprod = {\n  features = [],\n  solve-group = 'a',\n}\n", head=text)
        assert done.manifest.environments["prod"].solve_group == "a"

    def test_syntax_error(self, tmp_path: Path) -> None:
        assert failure(tmp_path, "[dependencies\n") == (
            "`pixi.toml` is not valid TOML: expected ']' at the end of a table declaration (at line 5, column 14)"
        )

    def test_schema_and_tool_are_ignored(self, tmp_path: Path) -> None:
        workspace(tmp_path, "[tool.other]\nx = 1\n", head='"$schema" = "x"\n' + HEAD)

    def test_tool_must_be_a_table(self, tmp_path: Path) -> None:
        assert (
            failure(tmp_path, "", head="tool = 1\n" + HEAD)
            == "`tool` in `pixi.toml`: expected a table, got integer `1`"
        )


class TestRequiresPixi:
    @pytest.mark.parametrize(
        "spec", [">=0.40", ">=0.77.0", "0.77.*", "=0.77", "~=0.70", "<1", "*", ">=0.1,<0.78", "<0.2|>0.76", "!=0.76.0"]
    )
    def test_fits(self, tmp_path: Path, spec: str) -> None:
        workspace(tmp_path, f'requires-pixi = "{spec}"\n')

    @pytest.mark.parametrize("spec", [">=0.78", "<0.77", "0.76.*", "==0.77.1", ">0.77.0", "~=0.77.1", "!=0.77.*"])
    def test_is_looked_at_before_anything_else(self, tmp_path: Path, spec: str) -> None:
        message = failure(tmp_path, f'requires-pixi = "{spec}"\nnew-key = 1\n')
        assert message == f"`pixi.toml` needs pixi `{spec}`: this ociforge follows pixi 0.77.0"

    def test_is_a_spec(self, tmp_path: Path) -> None:
        assert failure(tmp_path, 'requires-pixi = "soon"\n') == (
            "`workspace.requires-pixi` in `pixi.toml`: no version spec, such as `>=0.60`"
        )


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ("[dependancies]\n", "dependancies", "unknown key: did you mean `dependencies`?"),
        (
            "[feature.prod.activation]\nskripts = []\n",
            "feature.prod.activation.skripts",
            "unknown key: did you mean `scripts`?",
        ),
        ("channel = []\n", "workspace.channel", "unknown key: did you mean `channels`?"),
        ("[target.linux.activaton]\n", "target.linux.activaton", "unknown key: did you mean `activation`?"),
        (
            "channel-priority = 'strickt'\n",
            "workspace.channel-priority",
            "expected one of `strict`, `flexible`, `disabled`, got `strickt`: did you mean `strict`?",
        ),
        ("[dependencies]\npython = 3\n", "dependencies.python", "expected a version or a table, got integer `3`"),
        (
            "[dependencies]\npython = { verison = '3' }\n",
            "dependencies.python.verison",
            "unknown key: did you mean `version`?",
        ),
        ("[dependencies]\npython = {}\n", "dependencies.python", "expected at least one key, such as `version`"),
        (
            "[dependencies]\n'a b' = '*'\n",
            'dependencies."a b"',
            "no conda package name: letters, digits, `-`, `_` and `.`",
        ),
        ("[dependencies]\nFoo = '*'\nfoo = '1'\n", "dependencies.foo", "`foo` is listed twice"),
        ("[dependencies]\nfoo = { branch = 'a' }\n", "dependencies.foo.branch", "only valid together with `git`"),
        (
            "[dependencies]\nfoo = { git = 'https://x', branch = 'a', tag = 'b' }\n",
            "dependencies.foo",
            "only one of `branch`, `tag` and `rev` can be set",
        ),
        (
            "[dependencies]\nfoo = { url = 'https://x', path = 'y' }\n",
            "dependencies.foo",
            "only one of `url`, `path` and `git` can be set",
        ),
        (
            "[dependencies]\nfoo = { version = '1', md5 = 'xyz' }\n",
            "dependencies.foo.md5",
            "expected 32 hexadecimal digits",
        ),
        (
            "[dependencies]\nfoo = { workspace = true }\n",
            "dependencies.foo",
            "`workspace.dependencies` has no such entry",
        ),
        (
            "[dependencies]\nfoo = { version = '1', when = { all = [], any = [] } }\n",
            "dependencies.foo.when",
            "expected exactly one of `all`, `any` and `package`",
        ),
        (
            "[pypi-dependencies]\nfoo = '1.0'\n",
            "pypi-dependencies.foo",
            "`1.0` is no version specifier: did you mean `==1.0`?",
        ),
        (
            "[pypi-dependencies]\nfoo = { path = '.', url = 'https://x' }\n",
            "pypi-dependencies.foo",
            "only one of `version`, `path`, `url` and `git` can be set",
        ),
        (
            "[pypi-dependencies]\nfoo = { version = '*', editable = true }\n",
            "pypi-dependencies.foo.editable",
            "only valid together with `path`",
        ),
        (
            "[pypi-options]\nindex-strategy = 'best'\n",
            "pypi-options.index-strategy",
            "expected one of `first-index`, `unsafe-first-match`, `unsafe-best-match`, got `best`",
        ),
        (
            "[environments]\nprod = ['prd']\n[feature.prod]\n",
            "environments.prod",
            "there is no feature `prd`: did you mean `prod`?",
        ),
        ("[environments]\nprod = ['a', 'a']\n[feature.a]\n", "environments.prod", "the feature `a` is listed twice"),
        ("[environments]\nPROD = []\n", "environments.PROD", "no environment name: lower case letters, digits and `-`"),
        (
            "[environments.prod.host-dependencies]\n",
            "environments.prod.host-dependencies",
            "not allowed in an environment: put it into a feature",
        ),
        ("[environments.prod]\nfeaturs = []\n", "environments.prod.featurs", "unknown key: did you mean `features`?"),
        ("[feature.default]\n", "feature.default", "the name `default` is reserved for the top level of the manifest"),
        ("[activation.env]\n'A-B' = 'x'\n", "activation.env.A-B", "no name for a variable: letters, digits and `_`"),
        ('[activation.env]\nA = "a\\u0000b"\n', "activation.env.A", "expected a string without NUL characters"),
        ("[tasks]\nstart = 7\n", "tasks.start", "expected a table, got integer `7`"),
        ("[tasks.start]\ncommand = 'x'\n", "tasks.start.command", "unknown key: did you mean `cmd`?"),
        (
            "exclude-newer = 'soon'\n",
            "workspace.exclude-newer",
            "expected a duration such as `7d`, a date such as `2026-01-31`, or a time in RFC 3339",
        ),
        ('[target."if(x)"]\n', 'target."if(x)"', "expected a platform: `if(…)` is only known inside `[package]`"),
    ],
)
def test_message(tmp_path: Path, text: str, key: str, why: str) -> None:
    assert failure(tmp_path, text) == f"`{key}` in `pixi.toml`: {why}"


def test_channels_and_platforms_are_needed(tmp_path: Path) -> None:
    assert failure(tmp_path, "", head="[workspace]\n").splitlines() == [
        "`workspace` in `pixi.toml`: the key `channels` is missing",
        "`workspace` in `pixi.toml`: the key `platforms` is missing",
    ]


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    message = failure(tmp_path, "nam = 1\n[dependencies]\na = 1\n[feature.x.tasks.y]\nz = 1\n")
    assert set(message.splitlines()) == {
        "`workspace.nam` in `pixi.toml`: unknown key: did you mean `name`?",
        "`dependencies.a` in `pixi.toml`: expected a version or a table, got integer `1`",
        "`feature.x.tasks.y.z` in `pixi.toml`: unknown key",
    }


def test_many_findings_are_cut(tmp_path: Path) -> None:
    lines = failure(tmp_path, "".join(f"k{i} = 1\n" for i in range(50))).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "… and 30 more"


def test_every_key_is_known(tmp_path: Path) -> None:
    text = """\
version = "1.2"
description = "d"
authors = ["A <a@b.c>"]
channel-priority = "flexible"
solve-strategy = "lowest-direct"
license = "MIT"
license-file = "LICENSE"
readme = "README.md"
homepage = "https://h"
repository = "https://r"
documentation = "https://d"
conda-pypi-map = { conda-forge = "map.json" }
pypi-options = { index-url = "https://i", skip-wheel-filename-check = true }
s3-options.bucket = { endpoint-url = "https://s", region = "r", force-path-style = true }
preview = ["pixi-build"]
build-variants = { python = ["3.11"] }
build-variants-files = ["v.yaml"]
requires-pixi = ">=0.70"
exclude-newer = 2026-01-31
target.linux-64.build-variants = { c_compiler = ["gcc"] }
dependencies = { shared = { version = ">=1", build = "py*" } }

[package]
name = "p"
anything = "goes: pixi-build reads it"

[dependencies]
plain = "3.12"
shared = { workspace = true, build = "h*" }
full = { version = "1.*", build = "b*", build-number = ">=1", file-name = "f.conda", channel = "c", \
subdir = "linux-64", md5 = "6f5902ac237024bdd0c176cb93063dc4", \
sha256 = "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447", \
license = "MIT", license-family = "MIT", extras = ["x"], flags = ["cuda"], track-features = ["t"], when = "python >=3" }
condition = { version = "*", when = { all = ["__linux", { any = [{ package = "python", version = ">=3" }, "pypy"] }] } }
archive = { url = "https://h/noarch/a-1-0.conda" }
source = { git = "https://g", tag = "v1", subdirectory = "s", lfs = true }
local = { path = "../local" }
[host-dependencies]
h = "*"
[build-dependencies]
b = "*"
[constraints]
c = "<2"
[exclude-newer]
plain = "7d"
[pypi-dependencies]
req = { version = ">=1", extras = ["a", "b"], env-markers = "sys_platform == 'linux'", index = "https://i" }
here = { path = ".", editable = true }
repo = { git = "https://g", rev = "abc", subdirectory = "s" }
file = { url = "https://h/x-1-py3-none-any.whl" }
[pypi-exclude-newer]
req = "2026-01-01T00:00:00Z"
[dev]
me = { path = "." }
[activation]
scripts = ["a.sh"]
env = { A = "1" }
[tasks]
one = "echo"
two = { cmd = ["a", "b"], cwd = "x", env = { A = "1" }, depends-on = ["one"], inputs = ["i"], outputs = ["o"], \
clean-env = true, description = "d", args = ["q"] }
three = [{ task = "one" }]
four = { depends-on = "one" }
[pypi-options]
extra-index-urls = ["https://e"]
find-links = [{ path = "./links" }, { url = "https://l" }]
no-build-isolation = ["detectron2"]
index-strategy = "unsafe-best-match"
prerelease-mode = "allow"
no-build = true
no-binary = ["x"]
dependency-overrides = { numpy = ">=1.21" }
[system-requirements]
linux = "5.10"
cuda = 12.1
macos = "13.5"
libc = { family = "glibc", version = "2.31" }
archspec = "ignored"
[feature.gpu]
platforms = ["linux-64"]
channels = ["nvidia", { channel = "pytorch", priority = -1, exclude-newer = "3d" }]
channel-priority = "flexible"
solve-strategy = "lowest"
[feature.gpu.target.linux.dependencies]
cuda = "*"
[environments]
gpu = { features = ["gpu"], solve-group = "g", no-default-feature = true }
inline = { dependencies = { x = "*" }, platforms = ["linux-64"], activation.env = { X = "1" } }
"""
    manifest = workspace(tmp_path, text).manifest
    assert manifest.has_package
    assert manifest.exclude_newer == "2026-01-31"
    assert manifest.package_exclude_newer == {"plain": "7d"}
    default = manifest.features["default"].targets[0]
    assert default.dependencies["shared"].version == ">=1"
    assert default.dependencies["shared"].build == "h*"
    assert {name for name, spec in default.dependencies.items() if spec.is_source} == {"source", "local"}
    assert default.tasks["two"].cmd == ("a", "b")
    assert default.tasks["two"].other_keys == ("inputs", "outputs", "clean-env", "args")
    assert manifest.environments["inline"].inline is not None


class TestName:
    def test_workspace_name(self, tmp_path: Path) -> None:
        assert workspace(tmp_path, "").name == "demo"

    def test_package_name(self, tmp_path: Path) -> None:
        assert workspace(tmp_path, "[package]\nname = 'p'\n", head=MINIMAL).name == "p"

    def test_directory_name(self, tmp_path: Path) -> None:
        assert workspace(tmp_path, "", head=MINIMAL).name == tmp_path.name


class TestWarnings:
    def test_none(self, tmp_path: Path) -> None:
        assert workspace(tmp_path, "[target.linux.dependencies]\n[target.unix.tasks]\n").manifest.warnings == ()

    def test_what_has_no_effect(self, tmp_path: Path) -> None:
        text = "[target.gpu.dependencies]\n[feature.f]\nplatforms = ['win-64', 'linux-64']\n"
        found = workspace(tmp_path, text, head=HEAD.replace("[workspace]", "[project]")).manifest.warnings
        assert found == (
            "`pixi.toml`: the table `project` is deprecated: call it `workspace`",
            "`pixi.toml`: the target `gpu` of feature `default` matches no platform",
            "`pixi.toml`: feature `f` names the platform `win-64`, which the workspace lacks",
        )
