from __future__ import annotations

import json
import os
import platform
import sys
from typing import TYPE_CHECKING

import pytest

from layers.entry import File
from ociforge.errors import PackageError
from ociforge.events import StageStarted
from ociforge.platform import Platform
from ociforge.pypi.package import Interpreter, Locked
from tests.pypi.making import HERE, SHORT, Bench, digest, tar
from tests.pypi.projects import git, project, sdist
from tests.support.channel import serve
from tests.support.tools import need

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.pypi.package import Package

SITE = "app/.pixi/envs/prod/lib/python3.12/site-packages"
MACHINE = platform.machine()
THIS = Platform.from_subdir({"x86_64": "linux-64", "aarch64": "linux-aarch64"}.get(MACHINE, "linux-64"))
OTHER = Platform.parse("linux/arm64" if MACHINE == "x86_64" else "linux/amd64")
NATIVE = f"cp{SHORT.replace('.', '')}-cp{SHORT.replace('.', '')}-linux_{MACHINE}"
ROW = Locked(name="demo", location=".")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench in a workspace of its own, with the cache beside it."""
    return Bench(tmp_path)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


def texts(package: Package) -> dict[str, str]:
    found = {}
    for entry in package.entries:
        if isinstance(entry, File):
            with entry.content.open() as stream:
                found[entry.path.removeprefix(f"{SITE}/")] = stream.read().decode()
    return found


def builds(bench: Bench) -> list[str]:
    return [e.what for e in bench.events if isinstance(e, StageStarted) and e.what.startswith("building")]


def failure(bench: Bench, *rows: Locked, **changes: object) -> PackageError:
    with pytest.raises(PackageError) as caught:
        bench.install(*rows, **changes)
    return caught.value


def test_a_tree_of_the_workspace_is_built(bench: Bench, workspace: Path) -> None:
    project(workspace)
    before = sorted(workspace.rglob("*"))
    package = bench.one(ROW, root=workspace, workdir="/srv/app")
    assert (package.name, package.version, package.pure, package.local) == ("demo", "1.0", True, True)
    assert texts(package)["demo.py"] == "x = 1\n"
    assert json.loads(texts(package)["demo-1.0.dist-info/direct_url.json"]) == {
        "dir_info": {},
        "url": "file:///srv/app",
    }
    assert sorted(workspace.rglob("*")) == before
    assert builds(bench) == [f"building `demo` in `{workspace}`"]


def test_the_same_source_is_built_once(bench: Bench, workspace: Path) -> None:
    project(workspace)
    first = bench.one(ROW, root=workspace)
    (workspace / "src" / "demo.py").touch()
    (workspace / "src" / "__pycache__").mkdir()
    (workspace / "src" / "__pycache__" / "demo.pyc").write_bytes(b"")
    assert bench.one(ROW, root=workspace).sha256 == first.sha256
    assert len(builds(bench)) == 1
    (workspace / "src" / "demo.py").write_text("x = 2\n")
    assert texts(bench.one(ROW, root=workspace))["demo.py"] == "x = 2\n"
    assert len(builds(bench)) == 2


def test_what_compilers_are_told_is_part_of_the_source(bench: Bench, workspace: Path) -> None:
    project(workspace, extra="import os\nreturn {'seen.py': os.environ.get('CC', '')}")
    base = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    assert texts(bench.one(ROW, root=workspace, environ=base | {"CC": "one"}))["seen.py"] == "one"
    assert texts(bench.one(ROW, root=workspace, environ=base | {"CC": "two"}))["seen.py"] == "two"
    reached = {"https_proxy": "http://127.0.0.1:9", "SSL_CERT_FILE": "/x", "TMPDIR": str(bench.directory), "HOME": "/x"}
    bench.one(ROW, root=workspace, environ=base | {"CC": "two"} | reached)
    assert len(builds(bench)) == 2


def test_a_damaged_result_is_built_again(bench: Bench, workspace: Path) -> None:
    project(workspace)
    first = bench.one(ROW, root=workspace)
    for place in ("built", "files"):
        for path in (bench.cache / place).iterdir():
            path.write_bytes(b'{"filename": "demo-1.0-py3-none-any.whl", "wheel": "sha256:"}')
        assert bench.one(ROW, root=workspace).sha256 == first.sha256
    assert len(builds(bench)) == 3


def test_a_pure_result_is_good_for_every_platform(bench: Bench, workspace: Path) -> None:
    project(workspace)
    layers = {tar([bench.one(ROW, root=workspace, platform=where)]) for where in (THIS, OTHER)}
    assert len(layers) == 1
    assert len(builds(bench)) == 1


def test_the_result_depends_on_the_source_alone(tmp_path: Path) -> None:
    found = []
    for place, mask in (("one", 0o022), ("another/place", 0o077)):
        before = os.umask(mask)
        try:
            bench = Bench(tmp_path / place)
            project(tmp_path / place / "workspace")
            package = bench.one(ROW, root=tmp_path / place / "workspace")
            found.append((package.sha256, tar([package])))
        finally:
            os.umask(before)
    assert found[0] == found[1]
    assert str(tmp_path).encode() not in found[0][1]


@pytest.mark.parametrize("scheme", ["direct", "index", "file"])
def test_a_source_distribution_is_verified_and_built(scheme: str, bench: Bench, tmp_path: Path) -> None:
    packed = sdist(tmp_path / "index", project(tmp_path / "tree"))
    with serve(packed.parent) as server:
        url = server.url + packed.name
        locations = {"direct": f"direct+{url}", "index": url, "file": packed.as_uri()}
        row = Locked(name="demo", version="1.0", location=locations[scheme], sha256=digest(packed))
        package = bench.one(row)
        wrong = Locked(name="demo", version="1.0", location=url, sha256=digest(tmp_path / "tree" / "backend.py"))
        assert "is not the file that the lock names" in failure(bench, wrong).message
    assert texts(package)["demo.py"] == "x = 1\n"
    assert not package.local
    told = texts(package).get("demo-1.0.dist-info/direct_url.json")
    assert (told is None) == (scheme == "index")
    assert told is None or digest(packed).hex in told
    assert builds(bench) == ["building `demo-1.0.tar.gz`"]


def test_a_subdirectory_of_a_source_distribution(bench: Bench, tmp_path: Path) -> None:
    project(tmp_path / "tree" / "python" / "demo")
    packed = sdist(tmp_path, tmp_path / "tree")
    row = Locked(name="demo", location=f"direct+{packed.as_uri()}#subdirectory=python/demo")
    assert texts(bench.one(row))["demo.py"] == "x = 1\n"
    wrong = Locked(name="demo", location=f"direct+{packed.as_uri()}#subdirectory=../..")
    assert failure(bench, wrong).message == "`demo-1.0.tar.gz` has no subdirectory `../..`"


def test_a_commit_is_built(bench: Bench, tmp_path: Path) -> None:
    need("git")
    repository = tmp_path / "repository"
    project(repository / "python")
    git(repository, "init", "--quiet")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "one")
    commit = git(repository, "rev-parse", "HEAD").strip()
    row = Locked(name="demo", location=f"git+{repository.as_uri()}?branch=main&subdirectory=python#{commit}")
    package = bench.one(row, environ=os.environ)
    assert texts(package)["demo.py"] == "x = 1\n"
    assert json.loads(texts(package)["demo-1.0.dist-info/direct_url.json"]) == {
        "subdirectory": "python",
        "url": "file:///repository",
        "vcs_info": {"commit_id": commit, "requested_revision": "main", "vcs": "git"},
    }
    assert not package.local
    repository.rename(tmp_path / "gone")
    assert bench.one(row).sha256 == package.sha256
    assert len(builds(bench)) == 1


# --- compiled parts


def test_compiled_parts_are_good_for_this_machine_and_python_only(bench: Bench, workspace: Path) -> None:
    project(workspace, tag=NATIVE)
    package = bench.one(ROW, root=workspace, platform=THIS, python=HERE)
    assert not package.pure
    built = f"`demo-1.0-{NATIVE}.whl`"
    error = failure(bench, ROW, root=workspace, platform=OTHER, python=HERE)
    assert error.message == (
        f"`demo` has compiled parts: it was built as {built} on this machine, which does not fit Python {SHORT} on"
        f" `{OTHER}` with glibc 2.28"
    )
    assert error.hint
    later = f"3.{sys.version_info.minor + 1}"
    python = Interpreter(version=later, site_packages=f"lib/python{later}/site-packages")
    error = failure(bench, ROW, root=workspace, platform=THIS, python=python)
    assert f"which does not fit Python {later} on `{THIS}`" in error.message
    assert len(builds(bench)) == 1


@pytest.mark.skipif(not platform.libc_ver()[1], reason="there is no glibc here")
def test_a_newer_glibc_here_is_told(bench: Bench, workspace: Path) -> None:
    project(workspace, tag=NATIVE)
    here = platform.libc_ver()[1]
    bench.install(ROW, root=workspace, platform=THIS, python=HERE, glibc=here)
    assert bench.warnings == []
    bench.install(ROW, root=workspace, platform=THIS, python=HERE, glibc="2.5")
    (warning,) = bench.warnings
    assert warning.startswith(f"`demo` was compiled on this machine, whose glibc {here} is newer than the 2.5 that")


# --- failures


def test_a_failing_backend_is_quoted(bench: Bench, workspace: Path) -> None:
    project(workspace, extra="print('https://user:secret@example.com/')\nraise SystemExit('no compiler')")
    error = failure(bench, ROW, root=workspace)
    first, *rest = error.message.splitlines()
    assert first == f"building `demo` in `{workspace}`: the backend failed"
    assert rest[0] == "https://example.com/"
    assert "no compiler" in rest
    assert len(rest) <= 20


def test_a_missing_backend_is_told(bench: Bench, workspace: Path) -> None:
    project(workspace)
    (workspace / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "nowhere"\n')
    message = failure(bench, ROW, root=workspace).message
    assert message.startswith(f"building `demo` in `{workspace}`: Backend 'nowhere' is not available.")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[build-system]\n", "`requires` is a required property"),
        ("not toml", "Failed to parse"),
        ("[build-system]\nrequires = 1\n", "`requires` must be an array of strings"),
    ],
)
def test_a_malformed_pyproject_is_told(text: str, why: str, bench: Bench, workspace: Path) -> None:
    project(workspace)
    (workspace / "pyproject.toml").write_text(text)
    assert why in failure(bench, ROW, root=workspace).message


def test_a_pyproject_that_is_not_utf_8_is_told(bench: Bench, tmp_path: Path) -> None:
    project(tmp_path / "tree")
    with (tmp_path / "tree" / "pyproject.toml").open("ab") as stream:
        stream.write(b"# \xff\n")
    error = failure(bench, Locked(name="demo", location=sdist(tmp_path, tmp_path / "tree").name))
    assert "its `pyproject.toml` is not UTF-8" in error.message


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def build_wheel(*_): return None", "the backend gave an answer of the wrong type"),
        ("def get_requires_for_build_wheel(*_): return [3]", "the backend gave an answer of the wrong type"),
        ("def get_requires_for_build_wheel(*_): return 3", "Backend operation failed: TypeError"),
        (
            "def build_wheel(*_): return 'demo-1.0-py3-none-any.whl'",
            "the backend says that it wrote `demo-1.0-py3-none-any.whl`, and did not",
        ),
    ],
)
def test_a_backend_that_breaks_the_rules_is_blamed(code: str, why: str, bench: Bench, workspace: Path) -> None:
    project(workspace)
    backend = workspace / "backend.py"
    backend.write_text(f"{backend.read_text()}\n{code}\n")
    assert why in failure(bench, ROW, root=workspace).message


def test_a_tree_without_a_project_is_told(bench: Bench, workspace: Path) -> None:
    workspace.mkdir()
    assert "no pyproject.toml or setup.py" in failure(bench, ROW, root=workspace).message


def test_requirements_that_cannot_be_had_are_told(
    bench: Bench, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip finds them by its own configuration."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    project(workspace, requires=("no-such-requirement>=1",))
    error = failure(bench, ROW, root=workspace)
    first, *rest = error.message.splitlines()
    assert first == f"building `demo` in `{workspace}`: what its build requires cannot be installed"
    assert any("no-such-requirement" in line for line in rest)
    assert error.hint


def test_all_failing_builds_are_told(bench: Bench, workspace: Path) -> None:
    for name in ("a", "b"):
        project(workspace / name, name, extra="raise SystemExit('no')")
    error = failure(bench, *(Locked(name=name, location=name) for name in ("a", "b")), root=workspace)
    assert [line for line in error.message.splitlines() if line.startswith("building")] == [
        f"building `{name}` in `{workspace / name}`: the backend failed" for name in ("a", "b")
    ]


def test_a_wheel_of_another_package_is_refused(bench: Bench, workspace: Path) -> None:
    project(workspace, "other")
    error = failure(bench, ROW, root=workspace)
    assert error.message == "`demo` is locked at a wheel of another package: `other-1.0-py3-none-any.whl`"


def test_a_tree_may_have_moved_on_and_a_source_distribution_may_not(bench: Bench, tmp_path: Path) -> None:
    project(tmp_path / "tree", version="2.0")
    assert bench.one(Locked(name="demo", version="1.0", location="tree")).version == "2.0"
    packed = sdist(tmp_path, tmp_path / "tree")
    error = failure(bench, Locked(name="demo", version="1.0", location=packed.name))
    assert error.message.startswith("`demo 1.0` is locked at a wheel of version 2.0")


@pytest.mark.parametrize("place", ["os.getcwd()", "sys.prefix", "os.environ['HOME']"])
def test_nothing_of_this_machine_gets_into_the_wheel(place: str, bench: Bench, workspace: Path) -> None:
    project(workspace, extra=f"import os, sys\nreturn {{'where.py': 'x' * ((1 << 20) - 9) + {place}}}")
    message = failure(bench, ROW, root=workspace).message
    assert message.startswith("`demo-1.0-py3-none-any.whl`: `where.py` would carry `")


def test_a_damaged_wheel_is_told(bench: Bench, workspace: Path) -> None:
    project(workspace)
    backend = workspace / "backend.py"
    backend.write_text(backend.read_text() + "\nzipfile.ZipFile.writestr = lambda *_: None\n")
    assert "exactly one `.dist-info` directory: found none" in failure(bench, ROW, root=workspace).message


def test_a_wheel_with_damaged_lzma_is_told(bench: Bench, workspace: Path) -> None:
    project(workspace)
    backend = workspace / "backend.py"
    text = backend.read_text().replace("ZIP_DEFLATED", "ZIP_LZMA")
    damage = """
_sound = build_wheel
def build_wheel(directory, *_, **__):
    name = _sound(directory)
    path = pathlib.Path(directory, name)
    data = bytearray(path.read_bytes())
    data[30 + data[26] + 4] = 0xFF
    path.write_bytes(data)
    return name
"""
    backend.write_text(text + damage)
    assert "the backend built a wheel that is damaged" in failure(bench, ROW, root=workspace).message


# --- what a build sees


def test_a_build_sees_little_of_the_environment(bench: Bench, workspace: Path, clean_environment: Path) -> None:
    project(
        workspace,
        extra="import json, os, pathlib\n"
        "home = os.listdir(pathlib.Path.home())\n"
        "seen = {k: v for k, v in os.environ.items() if 'tmp' not in v and k != 'PATH'}\n"
        "return {'seen.json': json.dumps([seen, home])}",
    )
    (clean_environment / ".netrc").write_text("machine a login b password c")
    environ = {
        "HOME": str(clean_environment),
        "PATH": os.environ["PATH"],
        "AWS_SECRET_ACCESS_KEY": "secret",
        "PIP_INDEX_URL": "https://user:secret@example.com",
        "PYTHONPATH": "/somewhere",
        "CC": "clang",
        "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_DEMO": "1.0",
    }
    package = bench.one(ROW, root=workspace, environ=environ, mtime=1_700_000_000)
    seen, home = json.loads(texts(package)["seen.json"])
    assert home == []
    assert {name: seen[name] for name in ("CC", "LC_ALL", "PYTHONHASHSEED", "SOURCE_DATE_EPOCH", "TZ")} == {
        "CC": "clang",
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": "1700000000",
        "TZ": "UTC",
    }
    assert seen["SETUPTOOLS_SCM_PRETEND_VERSION_FOR_DEMO"] == "1.0"
    assert "secret" not in json.dumps(seen)
    assert seen.get("PYTHONPATH", "") == ""


def test_the_earliest_time_is_that_of_zip_archives(bench: Bench, workspace: Path) -> None:
    project(workspace, extra="import os\nreturn {'time.py': os.environ['SOURCE_DATE_EPOCH']}")
    assert texts(bench.one(ROW, root=workspace))["time.py"] == "315532800"
