"""Small Python projects to build; their backend is in the tree, so that nothing has to be downloaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.cache import cached, fingerprint
from tests.support.tools import missing

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["backends", "git", "project", "sdist"]

# A backend that packs `src` and what `extra.py` answers for the kind of build, under the tag that `project.json` says.
_BACKEND = """\
import json, os, pathlib, runpy, zipfile

HERE = pathlib.Path(__file__).parent
INFO = json.loads((HERE / "project.json").read_text())

def build_wheel(directory, config_settings=None, metadata_directory=None):
    return _write(directory, "wheel")

def _write(directory, kind):
    stem = f"{INFO['name'].replace('-', '_')}-{INFO['version']}"
    filename = f"{stem}-{INFO['tag']}.whl"
    files = {}
    if kind == "wheel":
        files = {p.relative_to(HERE / "src").as_posix(): p.read_bytes() for p in sorted(HERE.glob("src/**/*.py"))}
    if (HERE / "extra.py").exists():
        made = runpy.run_path(str(HERE / "extra.py"))["files"](kind)
        files |= {name: text.encode() for name, text in made.items()}
    metadata = f"Metadata-Version: 2.1\\nName: {INFO['name']}\\nVersion: {INFO['version']}\\n"
    files[f"{stem}.dist-info/METADATA"] = metadata.encode()
    pure = str(INFO["tag"].endswith("any")).lower()
    files[f"{stem}.dist-info/WHEEL"] = f"Wheel-Version: 1.0\\nRoot-Is-Purelib: {pure}\\nTag: {INFO['tag']}\\n".encode()
    files[f"{stem}.dist-info/RECORD"] = b"".join(f"{name},,\\n".encode() for name in files)
    (HERE / "left-by-the-build").write_text("")
    with zipfile.ZipFile(pathlib.Path(directory, filename), "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return filename
"""
_EDITABLE = """
def build_editable(directory, config_settings=None, metadata_directory=None):
    return _write(directory, "editable")
"""


def project(
    root: Path,
    name: str = "demo",
    *,
    version: str = "1.0",
    tag: str = "py3-none-any",
    files: Mapping[str, str] | None = None,
    extra: str = "",
    requires: tuple[str, ...] = (),
    editable: bool = True,
) -> Path:
    """Write a source tree at `root`. `files` lie below `src`; `extra` is the body of `files(kind)` in `extra.py`."""
    (root / "src").mkdir(parents=True, exist_ok=True)
    (root / "backend.py").write_text(_BACKEND + (_EDITABLE if editable else ""))
    (root / "project.json").write_text(json.dumps({"name": name, "version": version, "tag": tag}))
    (root / "pyproject.toml").write_text(
        f'[build-system]\nrequires = {json.dumps(requires)}\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    for path, text in ({"demo.py": "x = 1\n"} if files is None else files).items():
        (root / "src" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "src" / path).write_text(text)
    if extra:
        body = "".join(f"    {line}\n" for line in extra.splitlines())
        (root / "extra.py").write_text(f"def files(kind):\n{body}")
    return root


def sdist(directory: Path, tree: Path, *, stem: str = "demo-1.0") -> Path:
    """The tree as a source distribution in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{stem}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tree, stem)
    return path


def backends() -> Path:
    """A directory with the wheels of hatchling and setuptools, cached between runs; skips where PyPI is not reached."""
    requirements = ("hatchling", "setuptools", "editables")

    def download(directory: Path) -> None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--retries=1"]
        done = subprocess.run(
            [*command, "--dest", str(directory), *requirements], capture_output=True, text=True, check=False
        )
        if done.returncode:
            missing(f"`pip download {' '.join(requirements)}` failed: {done.stderr.strip().splitlines()[-1:]}")

    return cached(f"backends-{fingerprint(Path(__file__), sys.version, *requirements)}", download)


def git(directory: Path, *arguments: str, **environ: str) -> str:
    """Run git as someone, with nobody's configuration."""
    someone = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(
        ["git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        | someone
        | environ,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
