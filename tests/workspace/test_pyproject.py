from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ociforge.errors import WorkspaceError
from tests.workspace.making import workspace

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.workspace import Workspace

PIXI = "[tool.pixi.workspace]\nchannels = ['conda-forge']\nplatforms = ['linux-64']\n"


def project(root: Path, text: str, pixi: str = PIXI) -> Workspace:
    return workspace(root, text, head=pixi, name="pyproject.toml")


def python(found: Workspace) -> list[str | None]:
    return [spec.version for spec in found.environment("default", "linux-64").dependencies.get("python", ())]


def test_metadata(tmp_path: Path) -> None:
    text = "[project]\nname = 'My_App'\nversion = '1.2'\ndescription = 'd'\n"
    text += "authors = [{ name = 'A', email = 'a@b' }, { name = 'B' }]\n"
    manifest = project(tmp_path, text).manifest
    assert (manifest.name, manifest.version, manifest.description) == ("My_App", "1.2", "d")
    assert manifest.authors == ("A <a@b>", "B")


def test_the_workspace_beats_the_project(tmp_path: Path) -> None:
    assert project(tmp_path, "name = 'w'\n[project]\nname = 'p'\n").name == "w"


def test_poetry_has_everything_but_the_name(tmp_path: Path) -> None:
    manifest = project(tmp_path, "[tool.poetry]\nname = 'p'\nversion = '3'\nauthors = ['X <x@y>']\n").manifest
    assert (manifest.name, manifest.version, manifest.authors) == (tmp_path.name, "3", ("X <x@y>",))


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("[project]\nname = 'p'\n", ["*"]),
        ("[project]\nname = 'p'\nrequires-python = '>=3.11'\n", [">=3.11"]),
        ("[project]\nname = 'p'\nrequires-python = '==3.11.4'\n", ["3.11.4"]),
        (
            "[project]\nname = 'p'\nrequires-python = '>=3.11'\n[tool.pixi.dependencies]\npython = '3.12.*'\n",
            ["3.12.*"],
        ),
        ("[tool.pixi.target.linux.dependencies]\npython = '3.12.*'\n", ["3.12.*"]),
        ("[tool.pixi.host-dependencies]\npython = '3.12.*'\n", ["3.12.*"]),
    ],
)
def test_python_is_implied(tmp_path: Path, text: str, versions: list[str]) -> None:
    assert python(project(tmp_path, text)) == versions


def test_dependencies_are_appended(tmp_path: Path) -> None:
    text = "[project]\nname = 'p'\ndependencies = ['flask>=2', 'x @ git+https://u@h/r.git@v1#subdirectory=s']\n"
    found = project(tmp_path, text + "[tool.pixi.pypi-dependencies]\nflask = '<4'\n")
    specs = found.environment("default", "linux-64").pypi_dependencies
    assert [spec.version for spec in specs["flask"]] == ["<4", ">=2"]
    git = specs["x"][0].git
    assert git is not None
    assert (git.url, git.rev, git.subdirectory) == ("https://u@h/r.git", "v1", "s")


def test_extras_and_groups_are_features(tmp_path: Path) -> None:
    text = """\
[project]
name = "My.App"
[project.optional-dependencies]
web = ["flask"]
all = ["my-app[web]", "rich; python_version >= '3'"]
test = ["replaced"]
[dependency-groups]
test = ["pytest>=8", { include-group = "lint" }, "my_app[web]"]
lint = ["ruff"]
[tool.pixi.feature.lint.dependencies]
black = "*"
[tool.pixi.environments]
all = ["all"]
test = { features = ["test", "lint"], no-default-feature = true }
"""
    found = project(tmp_path, text)
    everything = found.environment("all", "linux-64").pypi_dependencies
    assert list(everything) == ["flask", "rich"]
    assert everything["rich"][0].markers == 'python_version >= "3"'
    test = found.environment("test", "linux-64")
    assert {name: len(specs) for name, specs in test.pypi_dependencies.items()} == {"pytest": 1, "ruff": 2, "flask": 1}
    assert list(test.dependencies) == ["black"]
    assert list(found.manifest.environments) == ["default", "all", "test"]


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ("[project]\nname = 'p'\ndependencies = ['a b c']\n", "project.dependencies[0]", "Expected"),
        ("[project]\nname = 'p'\ndependencies = 'x'\n", "project.dependencies", "expected an array, got string `x`"),
        (
            "[project]\nname = 'p'\nrequires-python = 3\n",
            "project.requires-python",
            "expected a string, got integer `3`",
        ),
        (
            "[dependency-groups]\na = [{ include-group = 'b' }]\nb = [{ include-group = 'a' }]\n",
            "dependency-groups.a",
            "the group includes itself",
        ),
        (
            "[dependency-groups]\na = [{ include-group = 'c' }]\n",
            "dependency-groups.a[0]",
            'expected `{ include-group = "…" }` with the name of a group',
        ),
        (
            "[project]\nname = 'p'\noptional-dependencies = { a = ['p[a]'] }\n",
            "project.optional-dependencies.a",
            "the extra refers to itself",
        ),
        ("[tool.pixi.tsks]\n", "tool.pixi.tsks", "unknown key: did you mean `tasks`?"),
    ],
)
def test_message(tmp_path: Path, text: str, key: str, why: str) -> None:
    with pytest.raises(WorkspaceError) as caught:
        project(tmp_path, text)
    assert caught.value.message.startswith(f"`{key}` in `pyproject.toml`: {why}")


def test_settings_stand_beside_pixi(tmp_path: Path) -> None:
    assert project(tmp_path, "[tool.ociforge]\nexpose = [80]\n").settings.image().expose == ("80/tcp",)
