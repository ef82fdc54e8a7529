"""The combination rules, one case each (pixi_manifest: features_ext.rs, target.rs)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ociforge.errors import WorkspaceError
from ociforge.workspace.environment import channel_url
from tests.workspace.making import HEAD, environment, workspace

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.workspace import Environment

FORGE = "https://conda.anaconda.org/conda-forge/"


def versions(found: Environment) -> dict[str, list[str | None]]:
    return {name: [spec.version for spec in specs] for name, specs in found.dependencies.items()}


def test_feature_order(tmp_path: Path) -> None:
    text = "[feature.a]\n[feature.b]\n[environments]\ne = { features = ['b', 'a'], dependencies = { x = '*' } }\n"
    assert environment(tmp_path, text, "e").features == ("<e>", "b", "a", "default")


def test_no_default_feature(tmp_path: Path) -> None:
    text = "[dependencies]\nx = '1'\n[feature.a]\n[environments]\ne = { features = ['a'], no-default-feature = true }\n"
    found = environment(tmp_path, text, "e")
    assert found.features == ("a",)
    assert not found.dependencies


def test_the_default_environment_always_exists(tmp_path: Path) -> None:
    assert environment(tmp_path, "[feature.a]\n[environments]\ne = ['a']\n").features == ("default",)


def test_later_targets_override_earlier_ones(tmp_path: Path) -> None:
    text = (
        "[dependencies]\nx = '1'\n[target.linux-64.dependencies]\nx = '2'\n"
        "[target.unix.dependencies]\nx = '3'\n[target.win.dependencies]\nx = '4'\n"
    )
    assert versions(environment(tmp_path, text)) == {"x": ["3"]}


def test_run_host_build(tmp_path: Path) -> None:
    text = "[build-dependencies]\nx = '3'\n[host-dependencies]\nx = '2'\ny = '2'\n"
    text += "[dependencies]\nx = '1'\ny = '1'\nz = '1'\n"
    assert versions(environment(tmp_path, text)) == {"x": ["3"], "y": ["2"], "z": ["1"]}


def test_a_target_overrides_across_kinds(tmp_path: Path) -> None:
    text = "[build-dependencies]\nx = '3'\n[target.linux.dependencies]\nx = '1'\n"
    assert versions(environment(tmp_path, text)) == {"x": ["1"]}


def test_features_add_up(tmp_path: Path) -> None:
    text = "[dependencies]\nx = '>=1'\n[feature.a.dependencies]\nx = '<3'\n[environments]\ne = ['a']\n"
    assert versions(environment(tmp_path, text, "e")) == {"x": ["<3", ">=1"]}


def test_pypi_overrides_inside_and_adds_between_features(tmp_path: Path) -> None:
    text = (
        "[pypi-dependencies]\nFoo_Bar = '>=1'\n[target.linux.pypi-dependencies]\nfoo-bar = '>=2'\n"
        "[feature.a.pypi-dependencies]\n'foo.bar' = '<9'\n[environments]\ne = ['a']\n"
    )
    found = environment(tmp_path, text, "e").pypi_dependencies
    assert {name: [spec.version for spec in specs] for name, specs in found.items()} == {"foo-bar": ["<9", ">=2"]}


def test_constraints_add_up(tmp_path: Path) -> None:
    text = "[constraints]\nx = '>=1'\n[feature.a.constraints]\nx = '<3'\n[environments]\ne = ['a']\n"
    assert [s.version for s in environment(tmp_path, text, "e").constraints["x"]] == ["<3", ">=1"]


class TestChannels:
    def test_of_the_workspace(self, tmp_path: Path) -> None:
        assert environment(tmp_path, "").channels == (FORGE,)

    def test_of_features_come_first(self, tmp_path: Path) -> None:
        text = "[feature.a]\nchannels = ['nvidia', 'conda-forge']\n[environments]\ne = ['a']\n"
        assert environment(tmp_path, text, "e").channels == ("https://conda.anaconda.org/nvidia/", FORGE)

    def test_are_sorted_by_priority(self, tmp_path: Path) -> None:
        text = (
            "[feature.a]\nchannels = ['x', { channel = 'low', priority = -1 }, { channel = 'high', priority = 2 }]\n"
            "[environments]\ne = ['a']\n"
        )
        names = [url.split("/")[-2] for url in environment(tmp_path, text, "e").channels]
        assert names == ["high", "x", "conda-forge", "low"]

    def test_of_a_solve_group_are_those_of_all(self, tmp_path: Path) -> None:
        text = (
            "[feature.a]\nchannels = ['nvidia']\n[feature.b]\n[environments]\n"
            "e = { features = ['b'], solve-group = 'g' }\nf = { features = ['a'], solve-group = 'g' }\n"
        )
        found = environment(tmp_path, text, "e")
        assert found.channels == (FORGE,)
        assert found.group_channels == (FORGE, "https://conda.anaconda.org/nvidia/")

    @pytest.mark.parametrize(
        ("channel", "url"),
        [
            ("conda-forge", FORGE),
            ("conda-forge/label/rc", "https://conda.anaconda.org/conda-forge/label/rc/"),
            ("https://prefix.dev/my", "https://prefix.dev/my/"),
            ("https://prefix.dev/my/", "https://prefix.dev/my/"),
            ("./local", "file:///ws/local/"),
            ("../other dir", "file:///other%20dir/"),
            ("/srv/channel", "file:///srv/channel/"),
            ("file:///srv/channel", "file:///srv/channel/"),
        ],
    )
    def test_url(self, channel: str, url: str) -> None:
        from pathlib import Path

        assert channel_url(channel, Path("/ws")) == url


class TestPriorityAndStrategy:
    def test_defaults(self, tmp_path: Path) -> None:
        found = environment(tmp_path, "")
        assert (found.channel_priority, found.solve_strategy) == ("strict", "highest")

    def test_of_the_workspace(self, tmp_path: Path) -> None:
        found = environment(tmp_path, "channel-priority = 'flexible'\nsolve-strategy = 'lowest'\n")
        assert (found.channel_priority, found.solve_strategy) == ("flexible", "lowest")

    def test_the_first_strategy_counts(self, tmp_path: Path) -> None:
        text = "solve-strategy = 'lowest'\n[feature.a]\nsolve-strategy = 'lowest-direct'\n[environments]\ne = ['a']\n"
        assert environment(tmp_path, text, "e").solve_strategy == "lowest-direct"

    def test_priorities_must_agree(self, tmp_path: Path) -> None:
        text = "channel-priority = 'strict'\n[feature.a]\nchannel-priority = 'disabled'\n[environments]\ne = ['a']\n"
        with pytest.raises(WorkspaceError) as caught:
            environment(tmp_path, text, "e")
        assert caught.value.message == (
            "the features of environment `e` disagree on `channel-priority`: "
            "`a` wants `disabled`, `default` wants `strict`"
        )


class TestPlatforms:
    RICH = (
        "[workspace]\nchannels = []\n"
        "platforms = ['linux-64', { name = 'gpu', platform = 'linux-64', cuda = '12' }, 'osx-arm64']\n"
    )

    def names(self, root: Path, text: str, name: str = "e", head: str = RICH) -> list[str]:
        found = workspace(root, text, head=head).environment(name, "linux-64")
        return [platform.name for platform in found.platforms]

    def test_all_without_a_word(self, tmp_path: Path) -> None:
        assert self.names(tmp_path, "", "default") == ["linux-64", "gpu", "osx-arm64"]

    def test_by_subdir_or_name(self, tmp_path: Path) -> None:
        text = "[feature.a]\nplatforms = ['gpu']\n[environments]\ne = ['a']\n"
        assert self.names(tmp_path, text) == ["gpu"]

    def test_an_exact_name_keeps_others_of_the_subdir_out(self, tmp_path: Path) -> None:
        text = "[feature.a]\nplatforms = ['linux-64']\n[environments]\ne = ['a']\n"
        assert self.names(tmp_path, text) == ["linux-64"]

    def test_a_mere_subdir_means_all_of_it(self, tmp_path: Path) -> None:
        head = self.RICH.replace("'linux-64', {", "{ name = 'cpu', platform = 'linux-64', linux = '5' }, {")
        text = "[feature.a]\nplatforms = ['linux-64']\n[environments]\ne = ['a']\n"
        assert self.names(tmp_path, text, head=head) == ["cpu", "gpu"]

    def test_every_feature_must_support_it(self, tmp_path: Path) -> None:
        text = (
            "[feature.a]\nplatforms = ['linux-64', 'osx-arm64']\n[feature.b]\nplatforms = ['linux-64']\n"
            "[environments]\ne = ['a', 'b']\n"
        )
        assert self.names(tmp_path, text) == ["linux-64"]

    def test_the_first_platform_of_a_subdir_is_meant(self, tmp_path: Path) -> None:
        found = workspace(tmp_path, "[target.gpu.dependencies]\ncuda = '*'\n", head=self.RICH)
        assert not found.environment("default", "linux-64").dependencies
        assert list(found.environment("default", "gpu").dependencies) == ["cuda"]

    def test_not_supported(self, tmp_path: Path) -> None:
        with pytest.raises(WorkspaceError) as caught:
            environment(tmp_path, "", platform="linux-ppc64le")
        assert caught.value.message == (
            "the environment `default` does not support the platform `linux-ppc64le`: "
            "it has `linux-64`, `linux-aarch64`, `osx-arm64`"
        )

    def test_no_such_environment(self, tmp_path: Path) -> None:
        with pytest.raises(WorkspaceError) as caught:
            environment(tmp_path, "[environments]\nprod = []\n", "prd")
        assert caught.value.message == "`pixi.toml` has no environment `prd`: found `default`, `prod`"
        assert caught.value.hint == "pass one of them with `--environment`: did you mean `prod`?"


class TestActivation:
    def test_scripts_of_the_last_matching_target_in_feature_order(self, tmp_path: Path) -> None:
        text = (
            "[activation]\nscripts = ['default.sh']\n[target.linux.activation]\nscripts = ['linux.sh']\n"
            "[target.linux-64.activation.env]\nA = '1'\n[feature.a.activation]\nscripts = ['a.sh']\n"
            "[environments]\ne = ['a']\n"
        )
        assert environment(tmp_path, text, "e").activation_scripts == ("a.sh", "linux.sh")

    def test_an_empty_list_silences(self, tmp_path: Path) -> None:
        text = "[activation]\nscripts = ['default.sh']\n[target.linux.activation]\nscripts = []\n"
        assert environment(tmp_path, text).activation_scripts == ()

    def test_env_first_writer_wins(self, tmp_path: Path) -> None:
        text = (
            "[activation.env]\nA = 'default'\nB = 'default'\nC = 'default'\n"
            "[target.linux.activation.env]\nA = 'linux'\nB = 'linux'\n"
            "[target.linux-64.activation.env]\nA = 'linux-64'\n"
            "[feature.f.activation.env]\nC = 'f'\n[feature.g.activation.env]\nC = 'g'\nD = 'g'\n"
            "[environments]\ne = ['f', 'g']\n"
        )
        found = environment(tmp_path, text, "e").activation_env
        assert found == {"C": "f", "D": "g", "A": "linux-64", "B": "linux"}
        assert list(found) == ["C", "D", "A", "B"]

    def test_tasks(self, tmp_path: Path) -> None:
        text = (
            "[tasks]\nx = '1'\n[target.linux.tasks]\nx = '2'\n[feature.a.tasks]\nx = '3'\n[environments]\ne = ['a']\n"
        )
        found = workspace(tmp_path, text)
        assert found.environment("default", "linux-64").tasks["x"].cmd == "2"
        assert found.environment("e", "linux-64").tasks["x"].cmd == "3"

    def test_names(self, tmp_path: Path) -> None:
        found = workspace(tmp_path, "[environments]\nprod = []\n")
        assert found.environment("default", "linux-64").display_name == "demo"
        assert found.environment("prod", "linux-64").display_name == "demo:prod"


class TestPypiOptions:
    def test_features_beat_the_workspace(self, tmp_path: Path) -> None:
        head = HEAD + "pypi-options = { index-url = 'https://w', extra-index-urls = ['https://x'], no-build = ['a'] }\n"
        text = (
            "[feature.a.pypi-options]\nindex-url = 'https://a'\nextra-index-urls = ['https://y', 'https://x']\n"
            "no-build = ['B_b']\n[environments]\ne = ['a']\n"
        )
        found = workspace(tmp_path, text, head=head)
        assert found.environment("default", "linux-64").pypi_options.indexes == ("https://w", "https://x")
        options = found.environment("e", "linux-64").pypi_options
        assert options.indexes == ("https://a", "https://x", "https://y")
        assert options.no_build == frozenset({"a", "b-b"})

    def test_features_must_agree(self, tmp_path: Path) -> None:
        text = (
            "[pypi-options]\nindex-url = 'https://d'\n[feature.a.pypi-options]\nindex-url = 'https://a'\n"
            "[environments]\ne = ['a']\n"
        )
        with pytest.raises(WorkspaceError, match=r"features of environment `e` disagree on `pypi-options.index-url`"):
            environment(tmp_path, text, "e")

    def test_true_beats_a_list(self, tmp_path: Path) -> None:
        text = (
            "[pypi-options]\nno-build = true\n[feature.a.pypi-options]\nno-build = ['x']\n[environments]\ne = ['a']\n"
        )
        assert environment(tmp_path, text, "e").pypi_options.no_build is True

    def test_the_default_index(self, tmp_path: Path) -> None:
        assert environment(tmp_path, "").pypi_options.indexes == ("https://pypi.org/simple",)
