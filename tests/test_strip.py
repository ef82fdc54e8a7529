"""What each policy leaves out, and what it must not touch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from layers.entry import Bytes, Directory, File, Hardlink
from ociforge.strip import POLICIES, remaining, stripped, tally
from ociforge.workspace.settings import _STRIPS

if TYPE_CHECKING:
    from layers.entry import Entry

GONE = {
    "static-libraries": ["lib/libz.a", "lib/python3.12/config-3.12-x86_64-linux-gnu/libpython3.12.a"],
    "js-maps": ["share/app/main.js.map", "lib/python3.12/site-packages/notebook/static/1.css.map", "a.mjs.map"],
    "headers": ["include/zlib.h", "include/python3.12/Python.h", "include/python3.12t/internal/x.h"],
    "tests": [
        "lib/python3.12/test/test_os.py",
        "lib/python3.12/site-packages/pandas/tests/io/test_csv.py",
        "lib/python3.12/site-packages/six/test/a.py",
        "lib/python3.12/site-packages/tests/a.py",
    ],
    "docs": ["share/doc/zlib/index.html", "share/man/man1/xz.1", "man/man1/x.1", "share/info/dir"],
    "conda-meta": ["conda-meta/zlib-1.3-0.json"],
}
KEPT = {
    "static-libraries": [
        "lib/gcc/x86_64-conda-linux-gnu/13.2.0/libgcc.a",
        "x86_64-conda-linux-gnu/sysroot/usr/lib64/libc_nonshared.a",
        "lib/libz.so",
        "bin/a.a",
        "lib/python3.12/site-packages/triton/libx.a",
    ],
    "js-maps": ["share/geo.map", "share/app/main.js", "lib/x.map"],
    "headers": [
        "include/python3.12/pyconfig.h",
        "lib/python3.12/site-packages/numpy/_core/include/numpy/arrayobject.h",
    ],
    "tests": ["lib/python3.12/site-packages/numpy/testing/__init__.py", "lib/python3.12/unittest/case.py", "bin/test"],
    "docs": ["share/zoneinfo/UTC", "lib/python3.12/site-packages/docutils/a.py"],
    "conda-meta": ["conda-meta/history", "conda-meta/state"],
}


@pytest.mark.parametrize(("policy", "path"), [(policy, path) for policy, paths in GONE.items() for path in paths])
def test_leaves_out(policy: str, path: str) -> None:
    assert stripped(path, [policy]) == policy


@pytest.mark.parametrize(("policy", "path"), [(policy, path) for policy, paths in KEPT.items() for path in paths])
def test_keeps(policy: str, path: str) -> None:
    assert stripped(path, [policy]) is None


def test_every_setting_has_a_rule() -> None:
    assert set(POLICIES) == set(_STRIPS) == set(GONE) == set(KEPT)


def test_what_remains_is_whole() -> None:
    """A hard link does not outlive its file by name alone, and no empty directory stays."""
    entries: list[Entry] = [
        *(Directory(path=path) for path in ("e", "e/include", "e/lib", "e/conda-meta")),
        File(path="e/include/z.h", size=1, content=Bytes(b"h")),
        Hardlink(path="e/lib/z.h", target="e/include/z.h"),
        Hardlink(path="e/lib/y.h", target="e/include/z.h"),
        File(path="e/conda-meta/z-1-0.json", size=2, content=Bytes(b"{}")),
    ]
    assert remaining(entries, "e", ["headers"]) == (
        *(Directory(path=path) for path in ("e", "e/lib", "e/conda-meta")),
        File(path="e/lib/z.h", size=1, content=Bytes(b"h")),
        Hardlink(path="e/lib/y.h", target="e/lib/z.h"),
        entries[-1],
    )
    assert [entry.path for entry in remaining(entries, "e", ["conda-meta"])][-1] == "e/lib/y.h"
    assert remaining(entries, "e", []) == tuple(entries)


def test_a_tally_counts_each_path_once() -> None:
    paths = [("lib/libz.a", 10), ("lib/libx.a", 5), ("include/z.h", 1), ("bin/x", 100)]
    assert tally(paths, ["headers", "static-libraries", "docs"]) == {
        "headers": (1, 1),
        "static-libraries": (2, 15),
        "docs": (0, 0),
    }
