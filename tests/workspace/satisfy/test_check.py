"""The check behind `--locked`: a lock that fits, and one mutation per reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from ociforge.errors import WorkspaceError
from ociforge.workspace import lockfile
from ociforge.workspace.satisfy import check
from tests.workspace.locks import FORGE, Conda, lock
from tests.workspace.making import workspace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ociforge.workspace.satisfy import Verdict

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HEAD = '[workspace]\nname = "demo"\nchannels = ["conda-forge"]\nplatforms = ["linux-64"]\n'
PYTHON = Conda(name="python", version="3.12.4", depends=("__glibc >=2.17,<3.0.a0", "openssl >=3,<4", "tzdata"))
OPENSSL = Conda(name="openssl", version="3.3.1")
TZDATA = Conda(name="tzdata", version="2024a", subdir="noarch")
GOOD = (PYTHON, OPENSSL, TZDATA)


def verdict(root: Path, manifest: str, locked: str, *, head: str = HEAD) -> Verdict:
    (root / "pixi.lock").write_text(locked)
    found = workspace(root, manifest, head=head)
    return check(found.manifest, lockfile.read(found.lock_path), now=NOW)


def reasons(root: Path, manifest: str, locked: str, *, head: str = HEAD) -> list[tuple[str, str]]:
    found = verdict(root, manifest, locked, head=head)
    assert not found.undecided
    return [(reason.kind, str(reason)) for reason in found.reasons]


def default(*packages: Conda) -> str:
    return lock({"default": {"linux-64": packages}})


def test_a_lock_that_fits(tmp_path: Path) -> None:
    found = verdict(tmp_path, "[dependencies]\npython = '>=3.11'\n", default(*GOOD))
    assert found.satisfied and found.lasting
    assert (found.reasons, found.undecided) == ((), ())


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ("'3.12.*'", True),
        ("'>=3.12,<3.13'", True),
        ("'3.12.4'", True),
        ("'3.12'", False),
        ("'>=3.13'", False),
        ("{ version = '>=3', build = '0' }", True),
        ("{ version = '>=3', build = 'h*' }", False),
        ("{ build-number = '>=1' }", False),
        ("{ channel = 'conda-forge' }", True),
        (f"{{ channel = '{FORGE}' }}", True),
        ("{ channel = 'bioconda' }", False),
        ("{ file-name = 'python-3.12.4-0.conda' }", True),
        ("{ file-name = 'python-3.12.5-0.conda' }", False),
        (f"{{ url = '{FORGE}linux-64/python-3.12.4-0.conda' }}", True),
        (f"{{ url = '{FORGE}linux-64/python-3.12.5-0.conda' }}", False),
        ("{ md5 = '6f5902ac237024bdd0c176cb93063dc4' }", False),
        ("{ license = 'MIT' }", False),
    ],
)
def test_specs(tmp_path: Path, spec: str, fits: bool) -> None:
    found = reasons(tmp_path, f"[dependencies]\npython = {spec}\n", default(*GOOD))
    assert [kind for kind, _ in found] == ([] if fits else ["UnsatisfiableMatchSpec"])


ASKED = "[dependencies]\npython = '*'\n"


@pytest.mark.parametrize(
    ("manifest", "locked", "expected"),
    [
        pytest.param(
            "[dependencies]\npython = '>=3.13'\n",
            default(*GOOD),
            [
                (
                    "UnsatisfiableMatchSpec",
                    (
                        "`default`, `linux-64`: `python >=3.13`: the lock has `python 3.12.4 0`, "
                        "`dependencies.python` asks for it"
                    ),
                )
            ],
            id="a spec",
        ),
        pytest.param(
            ASKED + "numpy = '*'\n",
            default(*GOOD),
            [
                (
                    "UnsatisfiableMatchSpec",
                    "`default`, `linux-64`: `numpy`: the lock has no such package, `dependencies.numpy` asks for it",
                )
            ],
            id="a new dependency",
        ),
        pytest.param(
            ASKED,
            default(PYTHON, TZDATA),
            [
                (
                    "UnsatisfiableMatchSpec",
                    (
                        "`default`, `linux-64`: `openssl >=3,<4`: the lock has no such package, "
                        "`python 3.12.4` depends on it"
                    ),
                )
            ],
            id="a row is gone",
        ),
        pytest.param(
            ASKED,
            default(PYTHON, Conda(name="openssl", version="4.0"), TZDATA),
            [
                (
                    "UnsatisfiableMatchSpec",
                    (
                        "`default`, `linux-64`: `openssl >=3,<4`: the lock has `openssl 4.0 0`, "
                        "`python 3.12.4` depends on it"
                    ),
                )
            ],
            id="a row breaks what depends on it",
        ),
        pytest.param(
            ASKED,
            default(*GOOD, Conda(name="left")),
            [
                (
                    "TooManyCondaPackages",
                    "`default`, `linux-64`: the lock has packages that nothing asks for: `left`",
                )
            ],
            id="a row too many",
        ),
        pytest.param(
            "",
            default(TZDATA),
            [
                (
                    "TooManyCondaPackages",
                    "`default`, `linux-64`: the lock has conda packages, but none is asked for: `tzdata`",
                )
            ],
            id="nothing is asked for",
        ),
        pytest.param(
            ASKED,
            default(*GOOD, Conda(name="tzdata", version="2025a", subdir="noarch")),
            [("DuplicateEntry", "`default`, `linux-64`: `tzdata` is locked twice")],
            id="a row twice",
        ),
        pytest.param(
            ASKED + "[constraints]\nopenssl = '<3.3'\nabsent = '<1'\n",
            default(*GOOD),
            [
                (
                    "ConstraintViolated",
                    (
                        "`default`, `linux-64`: `openssl 3.3.1 0` breaks the constraint `openssl <3.3` "
                        "(`constraints.openssl`)"
                    ),
                )
            ],
            id="a constraint",
        ),
        pytest.param(
            ASKED + "__cuda = '*'\n",
            default(*GOOD),
            [
                (
                    "UnsatisfiableMatchSpec",
                    "`default`, `linux-64`: `__cuda`: the lock has no such package, `dependencies.__cuda` asks for it",
                )
            ],
            id="a virtual package that is not promised",
        ),
        pytest.param(
            ASKED + "__glibc = '>=2.40'\n",
            default(*GOOD),
            [
                (
                    "UnsatisfiableMatchSpec",
                    (
                        "`default`, `linux-64`: `__glibc >=2.40`: the platform has `__glibc 2.28`, "
                        "`dependencies.__glibc` asks for it"
                    ),
                )
            ],
            id="a virtual package that is too old",
        ),
        pytest.param(
            ASKED,
            lock({"default": {"linux-64": GOOD, "linux-aarch64": ()}}),
            [
                (
                    "AdditionalPlatformsInLockFile",
                    (
                        "`default`, `linux-aarch64`: the lock has the platform `linux-aarch64`, "
                        "which the environment does not support (`workspace.platforms`)"
                    ),
                )
            ],
            id="a platform too many",
        ),
        pytest.param(
            ASKED,
            lock({"default": {}}),
            [("PlatformMissing", "`default`, `linux-64`: the lock has no such platform (`workspace.platforms`)")],
            id="a platform too few",
        ),
        pytest.param(
            ASKED + "[environments]\ntest = []\n",
            default(*GOOD),
            [("EnvironmentMissing", "`test`: the environment is not in `pixi.lock` (`environments.test`)")],
            id="an environment too few",
        ),
        pytest.param(
            ASKED,
            lock({"default": {"linux-64": GOOD}, "test": {"linux-64": ()}}),
            [
                (
                    "EnvironmentRemoved",
                    "`test`: the environment `test` is in `pixi.lock` but not in the manifest (`environments`)",
                )
            ],
            id="an environment too many",
        ),
        pytest.param(
            ASKED,
            lock({"default": {"linux-64": GOOD}}, channels=("https://conda.anaconda.org/bioconda", FORGE)),
            [
                (
                    "ChannelsMismatch",
                    (
                        f"`default`: the channels are `{FORGE}` in the manifest, "
                        f"`https://conda.anaconda.org/bioconda/`, `{FORGE}` in the lock (`workspace.channels`)"
                    ),
                )
            ],
            id="channels",
        ),
        pytest.param(
            ASKED,
            lock({"default": {"linux-64": GOOD}}, channels=()),
            [
                (
                    "ChannelsExtended",
                    f"`default`: the channels are `{FORGE}` in the manifest, none in the lock (`workspace.channels`)",
                )
            ],
            id="one more channel",
        ),
        pytest.param(
            ASKED,
            lock({"default": {"linux-64": GOOD}}, blocks="options:\n  strategy: lowest-version"),
            [
                (
                    "SolveStrategyMismatch",
                    (
                        "`default`: `solve-strategy` is `highest` in the manifest, `lowest-version` in the lock "
                        "(`workspace.solve-strategy`)"
                    ),
                )
            ],
            id="strategy",
        ),
        pytest.param(
            ASKED,
            lock({"default": {"linux-64": GOOD}}, blocks="options:\n  channel-priority: disabled"),
            [
                (
                    "ChannelPriorityMismatch",
                    (
                        "`default`: `channel-priority` is `strict` in the manifest, `disabled` in the lock "
                        "(`workspace.channel-priority`)"
                    ),
                )
            ],
            id="channel priority",
        ),
        pytest.param(
            ASKED,
            lock({"default": {"linux-64": GOOD}}, blocks="options:\n  pypi-prerelease-mode: allow"),
            [
                (
                    "PypiPrereleaseModeMismatch",
                    (
                        "`default`: `pypi-options.prerelease-mode` is `if-necessary-or-explicit` in the manifest, "
                        "`allow` in the lock (`workspace.pypi-options.prerelease-mode`)"
                    ),
                )
            ],
            id="prerelease mode",
        ),
    ],
)
def test_reason(tmp_path: Path, manifest: str, locked: str, expected: list[tuple[str, str]]) -> None:
    assert reasons(tmp_path, manifest, locked) == expected


def test_every_reason_is_given(tmp_path: Path) -> None:
    manifest = (
        "channel-priority = 'flexible'\n[dependencies]\npython = '>=3.13'\nnumpy = '*'\n[environments]\ntest = []\n"
    )
    assert [kind for kind, _ in reasons(tmp_path, manifest, default(*GOOD))] == [
        "ChannelPriorityMismatch",
        "UnsatisfiableMatchSpec",
        "UnsatisfiableMatchSpec",
        "EnvironmentMissing",
    ]


def test_a_reason_says_where(tmp_path: Path) -> None:
    text = "[feature.web.target.linux.dependencies]\nflask = '*'\n[environments]\ndefault = ['web']\n"
    (found,) = verdict(tmp_path, text, lock({"default": {"linux-64": ()}})).reasons
    assert (found.environment, found.platform, found.package) == ("default", "linux-64", "flask")
    assert found.where == "feature.web.target.linux.dependencies.flask"


class TestSecrets:
    """URLs in manifests and locks may hold them; no reason does."""

    @pytest.mark.parametrize(
        ("wanted", "locked", "shown"),
        [
            (
                "https://u:secret@h/a",
                "https://h/b",
                "`https://h/a/` in the manifest, `https://h/b/` in the lock",
            ),
            (
                "https://h/t/tk-secret/a",
                "https://v:secret@i/b",
                "`https://h/a/` in the manifest, `https://i/b/` in the lock",
            ),
            (
                "https://h/a",
                "https://u:secret@h/a",
                (
                    "`https://h/a/` in the manifest, `https://h/a/` in the lock:"
                    " what differs is a user, password or token, which is not shown"
                ),
            ),
        ],
    )
    def test_of_channels(self, tmp_path: Path, wanted: str, locked: str, shown: str) -> None:
        text = lock({"default": {"linux-64": GOOD}}, channels=(locked,))
        assert reasons(tmp_path, ASKED, text, head=HEAD.replace("conda-forge", wanted)) == [
            ("ChannelsMismatch", f"`default`: the channels are {shown} (`workspace.channels`)")
        ]

    @pytest.mark.parametrize(
        "spec",
        [
            "{ url = 'https://u:secret@h/t/tk-secret/python-3.12.4-0.conda' }",
            "{ version = '*', channel = 'https://u:secret@h/t/tk-secret/a' }",
        ],
    )
    def test_of_specs(self, tmp_path: Path, spec: str) -> None:
        found = reasons(tmp_path, f"[dependencies]\npython = {spec}\n", default(*GOOD))
        assert "https://h/" in found[0][1]
        assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("strategy", "locked"), [("lowest", "lowest-version"), ("lowest-direct", "lowest-version-direct")]
)
def test_strategies_have_other_names_in_the_lock(tmp_path: Path, strategy: str, locked: str) -> None:
    text = lock({"default": {"linux-64": ()}}, blocks=f"options:\n  strategy: {locked}")
    assert reasons(tmp_path, f"solve-strategy = '{strategy}'\n", text) == []


class TestConditions:
    """`when` of the manifest and of records; extras."""

    @pytest.mark.parametrize(
        ("when", "asked"),
        [
            ("'python >=3.12'", True),
            ("'python >=3.13'", False),
            ("'__linux'", True),
            ("'__osx'", False),
            ("{ all = ['__linux', 'python >=3'] }", True),
            ("{ all = ['__linux', '__osx'] }", False),
            ("{ any = ['__osx', 'python >=3'] }", True),
            ("{ package = 'python', version = '<3' }", False),
        ],
    )
    def test_of_the_manifest(self, tmp_path: Path, when: str, asked: bool) -> None:
        text = ASKED + f"extra = {{ version = '*', when = {when} }}\n"
        kinds = [kind for kind, _ in reasons(tmp_path, text, default(*GOOD))]
        assert kinds == (["UnsatisfiableMatchSpec"] if asked else [])

    @pytest.mark.parametrize(
        ("condition", "asked"),
        [
            ("python >=3.12", True),
            ("python >=3.13", False),
            ("python >=3.13 or __linux", True),
            ("python >=3.12 and (__osx or __win)", False),
            ("(python >=3.12 and __linux) or __win", True),
        ],
    )
    def test_of_records(self, tmp_path: Path, condition: str, asked: bool) -> None:
        python = Conda(name="python", version="3.12.4", depends=(f'extra *[when="{condition}"]',))
        kinds = [kind for kind, _ in reasons(tmp_path, ASKED, default(python))]
        assert kinds == (["UnsatisfiableMatchSpec"] if asked else [])

    def test_extras(self, tmp_path: Path) -> None:
        package = Conda(name="pkg", more={"extra_depends": {"x": ["helper"]}})
        locked = default(package, Conda(name="helper"))
        assert reasons(tmp_path, "[dependencies]\npkg = { version = '*', extras = ['x'] }\n", locked) == []
        assert [kind for kind, _ in reasons(tmp_path, "[dependencies]\npkg = '*'\n", locked)] == [
            "TooManyCondaPackages"
        ]

    def test_a_damaged_spec_in_a_record(self, tmp_path: Path) -> None:
        python = Conda(name="python", version="3.12.4", depends=("foo >=>1",))
        ((kind, message),) = reasons(tmp_path, ASKED, default(python))
        assert kind == "FailedToParseMatchSpec"
        assert message.startswith("`default`, `linux-64`: `python 3.12.4`: `foo >=>1` is no match spec: ")

    def test_a_damaged_spec_in_the_manifest(self, tmp_path: Path) -> None:
        ((kind, message),) = reasons(tmp_path, "[dependencies]\npython = '>=>1'\n", default())
        assert kind == "FailedToParseMatchSpec"
        assert message.startswith("`default`, `linux-64`: `python`: `python[version='>=>1']` is no match spec: ")


class TestExcludeNewer:
    MORE: Mapping[str, object] = {"timestamp": 1_767_225_600_000}  # 2026-01-01T00:00:00Z

    @pytest.mark.parametrize(
        ("head", "top", "fits"),
        [
            ("exclude-newer = '2025-12-31'\n", "", True),
            ("exclude-newer = '2025-12-30'\n", "", False),
            ("exclude-newer = '2025-12-31T23:59:59Z'\n", "", False),
            ("exclude-newer = '2026-01-01T00:00:00Z'\n", "", True),
            ("exclude-newer = '151d'\n", "", True),
            ("exclude-newer = '152d'\n", "", False),
            ("exclude-newer = '2020-01-01'\n", "[exclude-newer]\npkg = '2026-02-01'\n", True),
            ("", "[exclude-newer]\npkg = '2025-02-01'\n", False),
            ("", "[exclude-newer]\nother = '2025-02-01'\n", True),
        ],
    )
    def test_cutoff(self, tmp_path: Path, head: str, top: str, fits: bool) -> None:
        text = head + top + "[dependencies]\npkg = '*'\n"
        kinds = [kind for kind, _ in reasons(tmp_path, text, default(Conda(name="pkg", more=self.MORE)))]
        assert kinds == ([] if fits else ["ExcludeNewerMismatch"])

    @pytest.mark.parametrize(("day", "fits"), [("2026-02-01", True), ("2025-02-01", False)])
    def test_of_a_channel(self, tmp_path: Path, day: str, fits: bool) -> None:
        channel = f"{{ channel = 'conda-forge', exclude-newer = '{day}' }}"
        head = HEAD.replace('"conda-forge"', channel) + "exclude-newer = '2025-06-01'\n"
        locked = default(Conda(name="pkg", more=self.MORE))
        kinds = [kind for kind, _ in reasons(tmp_path, "[dependencies]\npkg = '*'\n", locked, head=head)]
        assert kinds == ([] if fits else ["ExcludeNewerMismatch"])

    def test_without_a_timestamp(self, tmp_path: Path) -> None:
        text = "exclude-newer = '2000-01-01'\n[dependencies]\npkg = '*'\n"
        assert reasons(tmp_path, text, default(Conda(name="pkg"))) == []


class TestRichPlatforms:
    HEAD = "[workspace]\nchannels = ['conda-forge']\nplatforms = [{ platform = 'linux-64', cuda = '12' }]\n"

    def check(self, root: Path, packages: list[str], name: str = "p1") -> list[str]:
        locked = lock(
            {"default": {name: (Conda(name="torch", depends=("__cuda >=12",)),)}},
            platforms={name: {"subdir": "linux-64", "virtual-packages": packages}},
        )
        return [kind for kind, _ in reasons(root, "[dependencies]\ntorch = '*'\n", locked, head=self.HEAD)]

    def test_an_alias_with_the_same_promises(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, ["__cuda=12.0", "__glibc=2.28"]) == []

    def test_an_alias_with_others(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, ["__cuda=13"]) == ["PlatformMissing"]

    def test_the_same_name_with_others(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, ["__cuda=13"], "linux-64-cuda-12") == ["PlatformDefinitionChanged"]

    def test_the_bare_subdir_of_an_old_lock(self, tmp_path: Path) -> None:
        locked = lock({"default": {"linux-64": (Conda(name="torch", depends=("__cuda >=12",)),)}})
        assert reasons(tmp_path, "[dependencies]\ntorch = '*'\n", locked, head=self.HEAD) == []


class TestSolveGroups:
    MANIFEST = (
        "[feature.a.dependencies]\nx = '*'\n[feature.b.dependencies]\nx = '*'\n[environments]\n"
        "a = { features = ['a'], solve-group = 'g' }\nb = { features = ['b'], solve-group = 'g' }\n"
    )

    @pytest.mark.parametrize(("version", "fits"), [("1", True), ("2", False)])
    def test_agree_on_every_package(self, tmp_path: Path, version: str, fits: bool) -> None:
        locked = lock(
            {
                "default": {"linux-64": ()},
                "a": {"linux-64": (Conda(name="x", version="1"),)},
                "b": {"linux-64": (Conda(name="x", version=version),)},
            }
        )
        found = reasons(tmp_path, self.MANIFEST, locked)
        assert found == (
            []
            if fits
            else [
                (
                    "SolveGroupMismatch",
                    (
                        "`b`, `linux-64`: the solve group `g` has two versions of `x`: `x-1-0.conda` in `a`, "
                        "`x-2-0.conda` here (`environments.b.solve-group`)"
                    ),
                )
            ]
        )

    def test_channels_are_those_of_the_group(self, tmp_path: Path) -> None:
        text = self.MANIFEST + "[feature.a]\nchannels = ['nvidia']\n"
        text = text.replace("[feature.a.dependencies]\nx = '*'\n", "") + "dependencies = { x = '*' }\n"
        row = (Conda(name="x"),)
        locked = lock({"a": {"linux-64": row}, "b": {"linux-64": row}, "default": {"linux-64": ()}})
        kinds = [(kind, message.split(":")[0]) for kind, message in reasons(tmp_path, text, locked)]
        assert kinds == [("ChannelsMismatch", "`a`"), ("ChannelsMismatch", "`b`")]


class TestOpenQuestions:
    @pytest.mark.parametrize(
        ("text", "kind", "message"),
        [
            ("[dependencies]\nx = { path = './x' }\n", "SourcePackage", "`x` is a source package: needs pixi-build"),
            ("[dependencies]\nx = { git = 'h:' }\n", "SourcePackage", "`x` is a source package: needs pixi-build"),
            ("[dev]\nx = { path = './x' }\n", "DevSourceMetadata", "the `[dev]` dependency `x` needs pixi-build"),
            ("[package]\nname = 'x'\n", "SourcePackage", "`[package]` needs pixi-build"),
        ],
    )  # fmt: skip
    def test_are_never_a_yes(self, tmp_path: Path, text: str, kind: str, message: str) -> None:
        found = verdict(tmp_path, text, lock({"default": {"linux-64": ()}}))
        assert [(reason.kind, reason.message) for reason in found.undecided] == [(kind, message)]
        assert {reason.kind for reason in found.reasons} <= {"SourcePackageMissing"}
        assert not found.satisfied

    def test_a_source_row(self, tmp_path: Path) -> None:
        locked = default(*GOOD).replace(
            "packages:\n      linux-64:\n", "packages:\n      linux-64:\n      - conda_source: bar[1234] @ ./bar\n"
        )
        locked += "- conda_source: bar[1234] @ ./bar\n  depends: []\n"
        (found,) = verdict(tmp_path, ASKED, locked).undecided
        assert str(found) == "`default`, `linux-64`: the lock builds `bar` from source: needs pixi-build"


def test_a_source_constraint(tmp_path: Path) -> None:
    text = ASKED + "[constraints]\nx = { path = './x' }\n"
    assert reasons(tmp_path, text, default(*GOOD)) == [
        (
            "SourceConstraintNotSupported",
            "`default`, `linux-64`: the constraint on `x` names a source package (`constraints.x`)",
        )
    ]


def test_a_manifest_that_contradicts_itself(tmp_path: Path) -> None:
    text = "channel-priority = 'strict'\n[feature.a]\nchannel-priority = 'disabled'\n[environments]\ndefault = ['a']\n"
    with pytest.raises(WorkspaceError, match="disagree on `channel-priority`"):
        verdict(tmp_path, text, lock({"default": {"linux-64": ()}}))
