"""Ignore patterns mean what git says they mean."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ociforge.app import collect
from ociforge.app.ignore import Patterns
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize(
    ("pattern", "path", "is_directory", "matches"),
    [
        ("*.log", "a/b.log", False, True),
        ("*.log", "a.log/b", False, None),
        ("build/", "build", True, True),
        ("build/", "build", False, None),
        ("build/", "a/build", True, True),
        ("/build", "a/build", True, None),
        ("a/b", "a/b", False, True),
        ("a/b", "c/a/b", False, None),
        ("a/**", "a", True, None),
        ("a/**", "a/b/c", False, True),
        ("a/**/", "a", True, None),
        ("a/**/", "a/b", True, True),
        ("a/**/", "a/b", False, None),
        ("**/x", "a/b/x", False, True),
        ("a/**/x", "a/x", False, True),
        ("*/", "a", True, True),
        ("*/", "a/b", False, None),
        ("!x", "x", False, False),
        ("\\!x", "!x", False, True),
        ("# x", "# x", False, None),
        ("", "x", False, None),
        ("[", "[", False, None),
        ("x\\", "x", False, None),
        ("x  ", "x", False, True),
    ],
)
def test_one_pattern(pattern: str, path: str, is_directory: bool, matches: bool | None) -> None:
    assert Patterns([pattern]).decide(path, is_directory=is_directory) is matches


def test_the_last_match_counts() -> None:
    patterns = Patterns.parse(b"\xef\xbb\xbf*.log\r\n!keep.log\r\n\r\n# comment\n/keep.log")
    assert patterns.decide("a/x.log", is_directory=False) is True
    assert patterns.decide("a/keep.log", is_directory=False) is False
    assert patterns.decide("keep.log", is_directory=False) is True
    assert patterns.decide("x", is_directory=False) is None


def test_matching_names_the_lines() -> None:
    patterns = Patterns(["/src", "", "*.py", "/src/a.py"])
    assert patterns.matching("src", is_directory=True) == {0}
    assert patterns.matching("src/a.py", is_directory=False) == {2, 3}
    assert patterns.matching("doc", is_directory=True) == frozenset()


names = st.sampled_from(["a", "b", "c.py", "d.log", "foo", "bar"])
parts = names | st.sampled_from(["*", "**", "*.py", "fo?", "[ab]", "*.log"])
patterns = st.builds(
    lambda bang, lead, body, tail: f"{bang}{lead}{body}{tail}",
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(parts, min_size=1, max_size=3).map("/".join),
    st.sampled_from(["", "", "/"]),
)
trees = st.dictionaries(st.lists(names, min_size=1, max_size=4).map("/".join), st.none(), min_size=1, max_size=10)
ignore_files = st.dictionaries(
    st.lists(names, max_size=2).map("/".join), st.lists(patterns, min_size=1, max_size=4), min_size=1, max_size=3
)


def make(root: Path, files: Mapping[str, None], ignores: Mapping[str, list[str]]) -> None:
    for path in files:
        if not any(above.is_file() for above in (root / path).parents) and not (root / path).exists():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(b"")
    for path, lines in ignores.items():
        if (root / path).is_dir():
            (root / path / ".gitignore").write_text("\n".join(lines) + "\n")


@settings(max_examples=60, deadline=None)
@given(trees, ignore_files)
def test_what_is_taken_is_what_git_would_add(files: dict[str, None], ignores: dict[str, list[str]]) -> None:
    git = need("git")
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        make(root, files, ignores)
        subprocess.run([git, "init", "--quiet", directory], check=True, capture_output=True)
        command = [git, "-C", directory, "ls-files", "--others", "-z", "--exclude-per-directory=.gitignore"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        taken = {entry.path for entry in collect(root, workdir="/", mtime=0, include=["."])} if listed else set()
        assert {path for path in taken if not (root / path).is_dir()} == {path for path in listed.split("\0") if path}
