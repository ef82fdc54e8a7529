"""The PyPI half of the check: what a table of mutations of workspaces cannot show."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from ociforge.workspace import lockfile
from ociforge.workspace.satisfy import check
from tests.workspace.locks import FORGE, Conda, Pypi, lock
from tests.workspace.making import workspace

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.workspace.satisfy import Verdict

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HEAD = '[workspace]\nname = "demo"\nchannels = ["conda-forge"]\nplatforms = ["linux-64"]\n'
PYTHON = Conda(name="python", version="3.12.4", more={"purls": []})
INDEXES = "indexes:\n- https://pypi.org/simple"
ASKED = "[dependencies]\npython = '*'\n[pypi-dependencies]\n"


def verdict(root: Path, manifest: str, *packages: Conda | Pypi, head: str = HEAD, blocks: str = INDEXES) -> Verdict:
    (root / "pixi.lock").write_text(lock({"default": {"linux-64": packages}}, blocks=blocks))
    found = workspace(root, manifest, head=head)
    return check(found.manifest, lockfile.read(found.lock_path), now=NOW)


def reasons(root: Path, manifest: str, *packages: Conda | Pypi, blocks: str = INDEXES) -> list[tuple[str, str]]:
    found = verdict(root, manifest, *packages, blocks=blocks)
    assert not found.undecided
    return [(reason.kind, reason.message) for reason in found.reasons]


class TestPython:
    def test_there_is_none(self, tmp_path: Path) -> None:
        manifest = "[dependencies]\nzlib = '*'\n[pypi-dependencies]\nfoo = '*'\n"
        assert reasons(tmp_path, manifest, Conda(name="zlib", more={"purls": []}), Pypi(name="foo")) == [
            ("MissingPythonInterpreter", "there are PyPI packages, but the lock has no python")
        ]

    def test_a_platform_without_markers(self, tmp_path: Path) -> None:
        head = HEAD.replace("linux-64", "emscripten-wasm32")
        locked = lock({"default": {"emscripten-wasm32": (PYTHON, Pypi(name="foo"))}}, blocks=INDEXES)
        (tmp_path / "pixi.lock").write_text(locked)
        found = workspace(tmp_path, ASKED + "foo = '*'\n", head=head)
        (reason,) = check(found.manifest, lockfile.read(found.lock_path), now=NOW).reasons
        assert reason.kind == "FailedToDetermineMarkerEnvironment"
        assert reason.message == "PyPI packages know no platform `emscripten-wasm32`"

    def test_an_odd_version(self, tmp_path: Path) -> None:
        python = Conda(name="python", version="3.x", more={"purls": []})
        assert reasons(tmp_path, ASKED + "foo = '*'\n", python, Pypi(name="foo")) == [
            ("FailedToDetermineMarkerEnvironment", "`3.x` is no version of Python")
        ]

    @pytest.mark.parametrize(
        ("abi", "wheel", "fits"),
        [
            ("3.13.* *_cp313", "cp313-cp313", True),
            ("3.13.* *_cp313", "cp313-cp313t", False),
            ("3.13.* *_cp313t", "cp313-cp313t", True),
            ("3.13.* *_cp313t", "cp313-cp313", False),
            ("3.13.* *_cp313t", "cp39-abi3", False),
        ],
    )
    def test_without_the_gil(self, tmp_path: Path, abi: str, wheel: str, fits: bool) -> None:
        python = Conda(name="python", version="3.13.1", depends=(f"python_abi {abi}",), more={"purls": []})
        build = abi.partition("*_")[2]
        python_abi = Conda(name="python_abi", version="3.13", build=f"1_{build}", more={"purls": []})
        row = Pypi(name="foo", location=f"https://files/foo-1.0-{wheel}-manylinux_2_17_x86_64.whl")
        kinds = [kind for kind, _ in reasons(tmp_path, ASKED + "foo = '*'\n", python, python_abi, row)]
        assert kinds == ([] if fits else ["PypiWheelTagsMismatch"])


class TestPurls:
    NUMPY = Conda(name="numpy", version="1.26", depends=("python",))
    WANTED = ASKED + "numpy = '>=1'\n"

    def test_none_at_all(self, tmp_path: Path) -> None:
        """A lock from before the environment had PyPI packages."""
        found = reasons(tmp_path, self.WANTED, Conda(name="python", version="3.12.4"))
        assert found == [("MissingPurls", "no conda package of the lock says which PyPI package it provides")]

    def test_a_record_of_conda_forge_without_any(self, tmp_path: Path) -> None:
        """Is taken to be called as on PyPI."""
        text = self.WANTED.replace("[pypi", "numpy = '*'\n[pypi")
        assert reasons(tmp_path, text, PYTHON, self.NUMPY) == []

    def test_a_record_of_another_channel_without_any(self, tmp_path: Path) -> None:
        text = self.WANTED.replace("[pypi", "numpy = '*'\n[pypi")
        other = Conda(name="numpy", version="1.26", channel="https://conda.anaconda.org/bioconda/")
        assert [kind for kind, _ in reasons(tmp_path, text, PYTHON, other)] == ["UnsatisfiableRequirement"]

    @pytest.mark.parametrize(
        ("purls", "fits"),
        [
            (["pkg:pypi/NumPy"], True),
            (["pkg:pypi/numpy@0.9?source=x"], False),
            (["pkg:generic/numpy"], False),
            (["pkg:pypi/numpy@not.a.version"], False),
            ([], False),
        ],
    )
    def test_what_they_say(self, tmp_path: Path, purls: list[str], fits: bool) -> None:
        numpy = Conda(name="numpy", version="1.26", more={"purls": purls})
        text = self.WANTED.replace("[pypi", "numpy = '*'\n[pypi")
        assert (reasons(tmp_path, text, PYTHON, numpy) == []) == fits

    def test_only_asked_for_by_pypi(self, tmp_path: Path) -> None:
        """Without a solve group, too; what the package depends on is asked for by conda."""
        numpy = Conda(name="numpy", version="1.26", depends=("blas",), more={"purls": ["pkg:pypi/numpy"]})
        blas = Conda(name="blas", more={"purls": []})
        assert reasons(tmp_path, self.WANTED, PYTHON, numpy, blas) == [
            ("CondaPackageShouldBePypi", "only PyPI packages ask for the conda packages `numpy`")
        ]


class TestRows:
    def test_twice(self, tmp_path: Path) -> None:
        other = Pypi(name="foo", version="2.0")
        assert reasons(tmp_path, ASKED + "foo = '*'\n", PYTHON, Pypi(name="foo"), other) == [
            ("DuplicateEntry", "`foo` is locked twice")
        ]

    def test_nothing_asked_for(self, tmp_path: Path) -> None:
        text = ASKED + "foo = { version = '*', env-markers = \"sys_platform == 'win32'\" }\n"
        assert reasons(tmp_path, text, PYTHON, Pypi(name="foo")) == [
            ("TooManyPypiPackages", "the lock has PyPI packages, but none is asked for: `foo`")
        ]

    def test_nothing_in_the_manifest_at_all(self, tmp_path: Path) -> None:
        assert reasons(tmp_path, "[dependencies]\npython = '*'\n", PYTHON, Pypi(name="foo")) == [
            ("TooManyPypiPackages", "the lock has PyPI packages, but none is asked for: `foo`")
        ]

    def test_without_a_version(self, tmp_path: Path) -> None:
        row = Pypi(name="foo", version=None, location="./foo")
        (tmp_path / "foo").mkdir()
        assert reasons(tmp_path, ASKED + "foo = '*'\n", PYTHON, row) == []
        assert reasons(tmp_path, ASKED + "foo = '>=1'\n", PYTHON, row) == [
            (
                "LockedPyPIVersionsMismatch",
                "`foo >=1`: the lock has `foo at ./foo`, `pypi-dependencies.foo` asks for it",
            )
        ]

    def test_a_tree_takes_the_place_of_a_transitive_requirement(self, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        rows = (Pypi(name="foo", requires=("tree>=7",)), Pypi(name="tree", version=None, location="./tree"))
        assert reasons(tmp_path, ASKED + "foo = '*'\ntree = { path = 'tree' }\n", PYTHON, *rows) == []

    def test_pre_releases_are_allowed(self, tmp_path: Path) -> None:
        assert reasons(tmp_path, ASKED + "foo = '>=1'\n", PYTHON, Pypi(name="foo", version="2.0rc1")) == []

    def test_a_wheel_that_became_a_directory(self, tmp_path: Path) -> None:
        name = "foo-1.0-py3-none-any.whl"
        (tmp_path / name).mkdir()
        row = Pypi(name="foo", location=f"./{name}")
        assert reasons(tmp_path, ASKED + f"foo = {{ path = '{name}' }}\n", PYTHON, row) == [
            ("DistributionShouldBeSource", f"`./{name}` is a wheel in the lock, but a directory")
        ]

    def test_a_path_through_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        row = Pypi(name="foo", version=None, location="./real")
        assert reasons(tmp_path, ASKED + "foo = { path = 'link', editable = true }\n", PYTHON, row) == []

    def test_a_file_url_is_a_path(self, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        rows = (
            Pypi(name="foo", requires=(f"tree @ file://{tmp_path}/tree",)),
            Pypi(name="tree", version=None, location="./tree"),
        )
        assert reasons(tmp_path, ASKED + "foo = '*'\n", PYTHON, *rows) == []

    def test_requirements_meet_in_circles(self, tmp_path: Path) -> None:
        rows = (
            Pypi(name="foo", requires=("bar[more]",)),
            Pypi(name="bar", requires=("foo", "bar[most] ; extra == 'more'", "baz ; extra == 'most'")),
            Pypi(name="baz"),
        )
        assert reasons(tmp_path, ASKED + "foo = '*'\n", PYTHON, *rows) == []

    def test_credentials_are_not_shown(self, tmp_path: Path) -> None:
        text = ASKED + "foo = { version = '*', index = 'https://me:secret@index.example.com/simple' }\n"
        text += "bar = { git = 'https://me:secret@git.example.com/bar' }\n"
        text += "[pypi-options]\nextra-index-urls = ['https://me:secret@extra.example.com/simple']\n"
        found = verdict(tmp_path, text, PYTHON, Pypi(name="foo"), Pypi(name="bar"))
        assert len(found.reasons) == 3
        assert not any("secret" in str(reason) for reason in found.reasons)


class TestTrees:
    """`tool.uv.sources` and what is left to a build."""

    def check(self, root: Path, project: str, requires: tuple[str, ...], *rows: Pypi) -> list[str]:
        (root / "tree").mkdir()
        (root / "tree" / "pyproject.toml").write_text(f'[project]\nname = "tree"\nversion = "1.0"\n{project}')
        tree = Pypi(name="tree", location="./tree", requires=requires)
        return [kind for kind, _ in reasons(root, ASKED + "tree = { path = 'tree' }\n", PYTHON, tree, *rows)]

    def test_what_a_tree_says_may_change(self, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "pyproject.toml").write_text('[project]\nname = "tree"\nversion = "1.0"\n')
        row = Pypi(name="tree", location="./tree")
        found = verdict(tmp_path, ASKED + "tree = { path = 'tree' }\n", PYTHON, row)
        assert found.satisfied and not found.lasting

    @pytest.mark.parametrize(
        ("source", "locked", "fits"),
        [
            ("{ git = 'https://example.com/foo', tag = 'v1' }", "git+https://example.com/foo@v1", True),
            ("{ git = 'https://example.com/foo', tag = 'v2' }", "git+https://example.com/foo@v1", False),
            ("[{ git = 'https://example.com/foo', rev = 'v1', marker = 'os_name == \"posix\"' }]",
             "git+https://example.com/foo@v1", True),
            ("{ workspace = true }", "git+https://example.com/foo@v1", True),
        ],
    )  # fmt: skip
    def test_sources_of_uv(self, tmp_path: Path, source: str, locked: str, fits: bool) -> None:
        project = f"dependencies = ['foo>=1']\n[tool.uv.sources]\nfoo = {source}\n"
        foo = Pypi(name="foo", location="git+https://example.com/foo?rev=v1#ae020e13b98d276a6558ffc25e82509fd4c288f0")
        kinds = self.check(tmp_path, project, (f"foo @ {locked}",), foo)
        assert kinds == ([] if fits else ["LocalPackageMetadataMismatch"])

    @pytest.mark.parametrize(
        "project",
        [
            "dynamic = ['dependencies']\n",
            "dynamic = ['optional-dependencies']\n",
            "dependencies = ['not a requirement']\n",
            "dependencies = 7\n",
            "[tool.poetry.dependencies]\nfoo = '*'\n",
            "= no toml",
        ],
    )
    def test_what_only_a_build_can_tell(self, tmp_path: Path, project: str) -> None:
        assert self.check(tmp_path, project, ("foo>=1",), Pypi(name="foo")) == []

    def test_a_project_table_without_dependencies_has_none(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, "", ("foo>=1",), Pypi(name="foo")) == ["LocalPackageMetadataMismatch"]


class TestOpenQuestions:
    """What needs pixi-build does not keep the rest from being checked."""

    SOURCE = "- conda_source: bar[1234] @ ./bar\n  depends: []\n"

    def check(self, root: Path, text: str, *packages: Conda | Pypi) -> Verdict:
        locked = lock({"default": {"linux-64": packages}}, blocks=INDEXES)
        listed = "      linux-64:\n"
        locked = locked.replace(listed, f"{listed}      - conda_source: bar[1234] @ ./bar\n") + self.SOURCE
        (root / "pixi.lock").write_text(locked)
        found = workspace(root, text, head=HEAD)
        return check(found.manifest, lockfile.read(found.lock_path), now=NOW)

    def test_the_rest_is_checked(self, tmp_path: Path) -> None:
        text = "[dependencies]\npython = '>=3.13'\nbar = { path = 'bar' }\n[pypi-dependencies]\nfoo = '>=2'\n"
        found = self.check(tmp_path, text, PYTHON, Pypi(name="foo"), Conda(name="left", more={"purls": []}))
        assert [reason.kind for reason in found.reasons] == ["UnsatisfiableMatchSpec", "LockedPyPIVersionsMismatch"]
        assert [(reason.kind, reason.package) for reason in found.undecided] == [("SourcePackage", "bar")] * 2

    def test_what_it_may_provide(self, tmp_path: Path) -> None:
        text = "[dependencies]\npython = '*'\nbar = { path = 'bar' }\n[pypi-dependencies]\nfoo = '>=2'\n"
        found = self.check(tmp_path, text, PYTHON)
        assert found.reasons == ()
        assert found.undecided[-1].message == (
            "`foo >=2`: the lock has no such package, unless one that it builds provides it"
        )

    def test_a_record_that_depends_on_it(self, tmp_path: Path) -> None:
        python = Conda(name="python", version="3.12.4", depends=("bar >=1",), more={"purls": []})
        found = self.check(tmp_path, "[dependencies]\npython = '*'\nbar = { path = 'bar' }\n", python)
        assert found.reasons == ()
        assert not found.satisfied

    def test_a_binary_in_its_place(self, tmp_path: Path) -> None:
        text = "[dependencies]\npython = { path = 'python' }\n"
        (reason,) = verdict(tmp_path, text, PYTHON).reasons
        assert (reason.kind, reason.where) == ("RequiredSourceIsBinary", "dependencies.python")
        assert "the lock has the binary package `python 3.12.4 0`" in reason.message


def test_where_of_a_pyproject(tmp_path: Path) -> None:
    """Keys are those of the file, below `tool.pixi`, and of the feature that sets them."""
    text = f"""\
[tool.pixi.workspace]
channels = ["{FORGE}"]
platforms = ["linux-64"]
[tool.pixi.feature.x]
solve-strategy = "lowest"
[tool.pixi.feature.x.pypi-options]
prerelease-mode = "allow"
[tool.pixi.environments]
default = {{ features = ["x"], channels = ["bioconda"] }}
"""
    (tmp_path / "pixi.lock").write_text(lock({"default": {"linux-64": (PYTHON,)}}, blocks=INDEXES))
    found = workspace(tmp_path, text, head="", name="pyproject.toml")
    verdict = check(found.manifest, lockfile.read(found.lock_path), now=NOW)
    assert [reason.where for reason in verdict.reasons] == [
        "tool.pixi.environments.default.channels",
        "tool.pixi.feature.x.solve-strategy",
        "tool.pixi.feature.x.pypi-options.prerelease-mode",
    ]
