"""Ways to write one place compare as equal; lower bounds of `requires-python`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ociforge.workspace.satisfy.pypi_match import python_fits
from ociforge.workspace.satisfy.pypi_places import GitPlace, LocalPlace, UrlPlace, locked_place, wanted_place
from ociforge.workspace.specs import PypiSpec

ROOT = Path("/work")
COMMIT = "ae020e13b98d276a6558ffc25e82509fd4c288f0"


@pytest.mark.parametrize(
    ("requirement", "location"),
    [
        ("x @ git+https://github.com/Org/Repo@v1", f"git+https://github.com/org/repo.git?rev=v1#{COMMIT}"),
        ("x @ git+https://me@git.example.com/r/", f"git+https://git.example.com/r#{COMMIT}"),
        ("x @ git+ssh://git@git.example.com/r@v1", f"git+ssh://git@git.example.com/r.git?rev=v1#{COMMIT}"),
        ("x @ git+https://h/r@v1#subdirectory=a/b", f"git+https://h/r?subdirectory=a%2Fb&rev=v1#{COMMIT}"),
        ("x @ https://me:pw@Files.example.com/x.whl", "direct+https://****@files.example.com/x.whl"),
        ("x @ https://h/x.zip#subdirectory=a", "direct+https://h/x.zip"),
        ("x @ file:///work/a%20b", "./a b"),
        ("x @ ./a/../b", "/work/b"),
        ("x @ ../b", "../b/"),
    ],
)
def test_the_same_place(requirement: str, location: str) -> None:
    wanted, locked = wanted_place(PypiSpec.of_requirement(requirement, ""), ROOT), locked_place(location, ROOT)
    if isinstance(locked, GitPlace):
        assert isinstance(wanted, GitPlace)
        same = [(p.repository, p.reference, p.subdirectory) for p in (wanted, locked)]
        assert same[0] == same[1]
    else:
        assert wanted == locked


def test_kinds_of_places() -> None:
    assert locked_place("https://h/x.whl", ROOT) == UrlPlace("https://h/x.whl", direct=False)
    assert locked_place("./x", ROOT) == LocalPlace("/work/x")
    assert wanted_place(PypiSpec(name="x", where=""), ROOT) is None


@pytest.mark.parametrize(
    ("location", "precise"),
    [
        (f"git+https://h/r#{COMMIT}", False),
        (f"git+https://h/r@v1#{COMMIT}", True),
        (f"git+https://h/r?branch=main#{COMMIT}", True),
    ],
)
def test_old_locks_keep_the_commit_only(location: str, precise: bool) -> None:
    place = locked_place(location, ROOT)
    assert isinstance(place, GitPlace)
    assert (place.repository, place.precise) == ("https://h/r", precise)


@pytest.mark.parametrize(
    ("requires", "python", "fits"),
    [
        (">=3.8", "3.12.4", True),
        (">=3.13", "3.12.4", False),
        (">=3.12.5", "3.12.4", False),
        (">3.12.4", "3.12.4", False),
        (">3.12", "3.12.4", True),
        ("==3.12.*", "3.12.4", True),
        ("==3.13.*", "3.12.4", False),
        ("~=3.12", "3.12.4", True),
        ("~=3.13.0", "3.12.4", False),
        (">=3.8,<3.10", "3.12.4", True),
        ("==3.8.*", "3.12.4", True),
        ("!=3.12.*", "3.12.4", True),
        ("<3", "3.12.4", True),
        (">=3.13", "3.13.0rc1", True),
        ("", "3.12.4", True),
    ],
)
def test_the_lower_bound_of_requires_python(requires: str, python: str, fits: bool) -> None:
    assert python_fits(requires, python) == fits
