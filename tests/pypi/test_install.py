from __future__ import annotations

import base64
import csv
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from layers.entry import Directory, File
from ociforge.errors import PackageError
from ociforge.events import StageStarted
from ociforge.pypi.package import Interpreter, Locked
from tests.pypi.making import HERE, Bench, digest, extract, locked, tar
from tests.support.channel import serve
from tests.support.tools import need
from tests.support.wheelbuilder import Executable, Wheel

if TYPE_CHECKING:
    from ociforge.pypi.package import Installation, Package

PREFIX = "app/.pixi/envs/prod"
SITE = f"{PREFIX}/lib/python3.12/site-packages"

# Something of everything that a wheel can hold.
DEMO = Wheel(
    files={
        "demo/__init__.py": b"import sys\n\ndef main():\n    print('demo', *sys.argv[1:])\n",
        "demo/library.so": Executable(b"\x7fELF"),
        'demo/data/ü, "x".txt': b"data\n",
        "demo/__pycache__/a.cpython-312.pyc": b"\0\0\0\0",
        "top.py": b"",
        "{data}/purelib/pure.py": b"",
        "{data}/platlib/plat.py": b"",
        "{data}/scripts/shell": b"#!/bin/sh\necho shell\n",
        "{data}/scripts/script": b"#!python\nprint('script')\n",
        "{data}/scripts/window": b"#!pythonw -E\nprint('window')\n",
        "{data}/data/share/demo/file": b"file\n",
        "{data}/headers/demo.h": b"// demo\n",
        "{info}/licenses/LICENSE": b"free\n",
    },
    entry_points="[console_scripts]\ndemo = demo:main\nsub = demo.sub:Thing.run [extra]\n[gui_scripts]\ngui=demo:main\n"
    "[other]\nx = y\n",
)


def files(package: Package) -> dict[str, File]:
    return {entry.path: entry for entry in package.entries if isinstance(entry, File)}


def text(file: File) -> str:
    with file.content.open() as stream:
        return stream.read().decode()


def failure(bench: Bench, *rows: Locked, **changes: object) -> PackageError:
    with pytest.raises(PackageError) as caught:
        bench.install(*rows, **changes)
    return caught.value


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return DEMO.write(tmp_path / "wheels")


def test_everything_has_its_place(bench: Bench, demo: Path) -> None:
    package = bench.one(locked(demo))
    assert {path.removeprefix(f"{PREFIX}/"): oct(file.mode)[2:] for path, file in files(package).items()} == {
        "bin/demo": "755",
        "bin/gui": "755",
        "bin/script": "755",
        "bin/shell": "755",
        "bin/sub": "755",
        "bin/window": "755",
        "include/python3.12/demo/demo.h": "644",
        "lib/python3.12/site-packages/demo-1.0.dist-info/INSTALLER": "644",
        "lib/python3.12/site-packages/demo-1.0.dist-info/METADATA": "644",
        "lib/python3.12/site-packages/demo-1.0.dist-info/RECORD": "644",
        "lib/python3.12/site-packages/demo-1.0.dist-info/REQUESTED": "644",
        "lib/python3.12/site-packages/demo-1.0.dist-info/WHEEL": "644",
        "lib/python3.12/site-packages/demo-1.0.dist-info/direct_url.json": "644",
        "lib/python3.12/site-packages/demo-1.0.dist-info/entry_points.txt": "644",
        "lib/python3.12/site-packages/demo-1.0.dist-info/licenses/LICENSE": "644",
        "lib/python3.12/site-packages/demo/__init__.py": "644",
        'lib/python3.12/site-packages/demo/data/ü, "x".txt': "644",
        "lib/python3.12/site-packages/demo/library.so": "755",
        "lib/python3.12/site-packages/plat.py": "644",
        "lib/python3.12/site-packages/pure.py": "644",
        "lib/python3.12/site-packages/top.py": "644",
        "share/demo/file": "644",
    }


def test_the_package_says_what_it_is(bench: Bench, demo: Path) -> None:
    package = bench.one(locked(demo))
    assert (package.name, package.version, package.filename) == ("demo", "1.0", demo.name)
    assert (package.sha256, package.size) == (digest(demo), demo.stat().st_size)
    assert (package.pure, package.local) == (True, False)
    assert [entry.path.split("/") for entry in package.entries] == sorted(
        entry.path.split("/") for entry in package.entries
    )


def test_entries_have_one_time_one_owner_and_all_directories_from_the_prefix_down(bench: Bench, demo: Path) -> None:
    package = bench.one(locked(demo), mtime=1_700_000_000)
    assert {(e.mtime, e.uid, e.gid) for e in package.entries if isinstance(e, File | Directory)} == {
        (1_700_000_000, 0, 0)
    }
    directories = {entry.path for entry in package.entries if isinstance(entry, Directory)}
    above = {str(parent) for path in files(package) for parent in Path(path).parents}
    assert directories == {path for path in above if f"{path}/".startswith(f"{PREFIX}/")}
    assert {entry.mode for entry in package.entries if isinstance(entry, Directory)} == {0o755}


def test_scripts_start_the_interpreter_of_the_prefix(bench: Bench, demo: Path) -> None:
    found = files(bench.one(locked(demo)))
    shebang = f"#!/{PREFIX}/bin/python3.12\n"
    assert text(found[f"{PREFIX}/bin/script"]) == f"{shebang}print('script')\n"
    assert text(found[f"{PREFIX}/bin/window"]) == f"{shebang}print('window')\n"
    assert text(found[f"{PREFIX}/bin/shell"]) == "#!/bin/sh\necho shell\n"
    assert text(found[f"{PREFIX}/bin/demo"]) == (
        f'{shebang}import sys\nfrom demo import main\nif __name__ == "__main__":\n    sys.exit(main())\n'
    )
    assert "from demo.sub import Thing\n" in text(found[f"{PREFIX}/bin/sub"])
    assert "sys.exit(Thing.run())\n" in text(found[f"{PREFIX}/bin/sub"])


def test_record_has_every_file_and_no_other(bench: Bench, demo: Path, tmp_path: Path) -> None:
    root = extract(bench.install(locked(demo)), tmp_path / "root")
    site = root / SITE
    rows = list(csv.reader((site / "demo-1.0.dist-info" / "RECORD").read_text().splitlines()))
    assert rows == sorted(rows)
    told = {os.path.normpath(site / path) for path, _, _ in rows}
    assert told == {str(path) for path in root.rglob("*") if path.is_file()}
    for path, sha256, size in rows:
        if path != "demo-1.0.dist-info/RECORD":
            content = (site / path).read_bytes()
            assert (sha256, size) == (f"sha256={_urlsafe(content)}", str(len(content)))


def _urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(Digest.of(content).hex)).decode().rstrip("=")


def test_python_finds_the_distribution(bench: Bench, demo: Path, tmp_path: Path) -> None:
    root = extract(bench.install(locked(demo)), tmp_path / "root")
    (found,) = importlib.metadata.distributions(path=[str(root / SITE)])
    assert (found.name, found.version) == ("demo", "1.0")
    assert found.read_text("INSTALLER") == "uv-pixi"
    assert found.read_text("REQUESTED") == ""
    assert {point.name for point in found.entry_points} == {"demo", "sub", "gui", "x"}
    assert all(Path(str(file.locate())).exists() for file in found.files or ())


def test_a_package_of_an_index_has_no_direct_url(bench: Bench, demo: Path) -> None:
    with serve(demo.parent) as server:
        row = Locked(name="demo", version="1.0", location=server.url + demo.name, sha256=digest(demo))
        package = bench.one(row)
        direct = bench.one(Locked(name="demo", location=f"direct+{row.location}", sha256=row.sha256))
    name = f"{SITE}/demo-1.0.dist-info/direct_url.json"
    assert name not in files(package)
    assert json.loads(text(files(direct)[name])) == {
        "url": server.url + demo.name,
        "archive_info": {"hashes": {"sha256": digest(demo).hex}},
    }
    assert direct.sha256 == package.sha256
    assert direct.record != package.record


def test_a_file_of_the_workspace_is_told_as_its_place_in_the_image(bench: Bench, demo: Path) -> None:
    package = bench.one(Locked(name="demo", location=f"./wheels/{demo.name}"), workdir="/srv")
    document = json.loads(text(files(package)[f"{SITE}/demo-1.0.dist-info/direct_url.json"]))
    assert document["url"] == f"file:///srv/wheels/{demo.name}"
    assert str(bench.directory) not in tar([package]).decode(errors="replace")


def test_the_result_depends_on_the_rows_alone(tmp_path: Path) -> None:
    """Not on order, threads, directories, umask, the archives' times, or what a cache holds."""
    wheels = [DEMO.write(tmp_path / "w"), *(Wheel(name=n, files={f"{n}.py": b""}).write(tmp_path / "w") for n in "abc")]
    names = ["demo", "a", "b", "c"]
    with serve(tmp_path / "w") as server:
        rows = [
            Locked(name=name, version="1.0", location=server.url + wheel.name, sha256=digest(wheel))
            for name, wheel in zip(names, wheels, strict=True)
        ]
        first = Bench(tmp_path / "one").install(*rows)
        before = os.umask(0o077)
        try:
            second = Bench(tmp_path / "other" / "place")
            with ThreadPoolExecutor(3) as pool:
                again = [second.install(*reversed(rows), map_=pool.map) for _ in range(2)]
                told = [tar(installation.packages) for installation in again]
        finally:
            os.umask(before)
    assert [package.name for package in first.packages] == sorted(names)
    assert told == [tar(first.packages)] * 2
    assert str(tmp_path).encode() not in told[0]


def test_the_archives_own_times_do_not_matter(bench: Bench, tmp_path: Path) -> None:
    layers = []
    for year in (1980, 2024):
        wheel = Wheel(files={"demo.py": b""}, date=(year, 1, 1, 0, 0, 0)).write(tmp_path / str(year))
        with serve(wheel.parent) as server:
            package = bench.one(Locked(name="demo", location=server.url + wheel.name, sha256=digest(wheel)))
            layers.append(tar([package]))
    assert layers[0] == layers[1]


def test_the_cache_may_be_deleted_before_the_layer_is_written(bench: Bench, demo: Path) -> None:
    package = bench.one(locked(demo))
    demo.unlink()
    shutil.rmtree(bench.cache)
    assert b"share/demo/file" in tar([package])


@pytest.mark.parametrize(
    ("prefix", "direct"), [("/" + "p" * 108, True), ("/" + "p" * 109, False), ("/with a/blank", False)]
)
def test_a_path_that_no_kernel_takes_is_started_by_a_shell(prefix: str, direct: bool, bench: Bench, demo: Path) -> None:
    found = files(bench.one(locked(demo), prefix=prefix))
    first = text(found[f"{prefix.strip('/')}/bin/demo"]).splitlines()[0]
    assert len(first) <= 126
    assert first == (f"#!{prefix}/bin/python3.12" if direct else "#!/bin/sh")


def test_an_entry_point_replaces_a_script_of_its_name(bench: Bench, tmp_path: Path) -> None:
    wheel = Wheel(
        files={"{data}/scripts/demo": b"#!python\nold\n"}, entry_points="[console_scripts]\ndemo = demo:main\n"
    )
    package = bench.one(locked(wheel.write(tmp_path)))
    assert "from demo import main" in text(files(package)[f"{PREFIX}/bin/demo"])
    record = text(files(package)[f"{SITE}/demo-1.0.dist-info/RECORD"])
    assert record.count("bin/demo,") == 1


@pytest.mark.parametrize(
    ("wheel", "why"),
    [
        (
            Wheel(files={"a.py": b"1", "{data}/purelib/a.py": b"2"}),
            "would be written twice: `lib/python3.12/site-packa",
        ),
        (
            Wheel(files={"{data}/data/conda-meta/history": b""}),
            "would write what belongs to conda: `conda-meta/history`",
        ),
        (Wheel(wheel="Wheel-Version: 2.0\nRoot-Is-Purelib: true\n"), "Incompatible Wheel-Version 2.0"),
        (Wheel(wheel="Root-Is-Purelib: true\n"), "Incompatible Wheel-Version None"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(wheel: Wheel, why: str, bench: Bench, tmp_path: Path) -> None:
    error = failure(bench, locked(wheel.write(tmp_path)))
    assert error.message.startswith("`demo-1.0-py3-none-any.whl` cannot be installed: ")
    assert why in error.message
    assert " object at 0x" not in error.message


def test_all_failures_are_told_together(bench: Bench, tmp_path: Path) -> None:
    good = Wheel(name="good").write(tmp_path)
    old = Wheel(name="old", tag="cp311-cp311-manylinux_2_17_x86_64").write(tmp_path)
    error = failure(
        bench,
        locked(good, "good"),
        locked(old, "old"),
        locked(tmp_path / "gone-1.0-py3-none-any.whl", "gone"),
        locked(good, "other"),
        locked(good, "Good", "1.1"),
        Locked(name="far", location="https://example.com/far-1.0-py3-none-any.whl"),
    )
    assert [line.split(":")[0] for line in error.message.splitlines()] == [
        "the lock names no sha256 for `far`",
        f"`gone` is locked at `{tmp_path}/gone-1.0-py3-none-any.whl`, which does not exist",
        "`Good 1.1` is locked at a wheel of version 1.0",
        "`old-1.0-cp311-cp311-manylinux_2_17_x86_64.whl` does not fit Python 3.12 on `linux/amd64` with glibc 2.28",
        "`other` is locked at a wheel of another package",
    ]


def test_a_package_that_is_locked_twice_is_refused(bench: Bench, demo: Path) -> None:
    assert failure(bench, locked(demo), locked(demo, "Demo")).message == "`demo` is locked twice"


def test_a_lock_without_version_or_with_another_spelling_agrees(bench: Bench, demo: Path) -> None:
    assert bench.one(locked(demo, "DEMO", None)).name == "demo"
    assert bench.one(locked(demo, "demo", "1.0.0")).version == "1.0"


@pytest.mark.parametrize("prefix", ["", "/", "opt/env", "/opt/../env", "/opt//env", "/opt/env/"])
def test_a_prefix_is_absolute_and_normalised(prefix: str, bench: Bench) -> None:
    assert "is no prefix" in failure(bench, prefix=prefix).message


def test_without_rows_nothing_happens(bench: Bench) -> None:
    installation = bench.install()
    assert (installation.packages, installation.conflicts, installation.overrides) == ((), (), ())
    assert bench.events == []


def test_the_work_is_told(bench: Bench, demo: Path) -> None:
    bench.install(locked(demo))
    assert bench.events == [StageStarted("reading what is in 1 wheel"), StageStarted("linking 1 wheel")]


def test_headers_and_libraries_of_a_free_threaded_interpreter(bench: Bench, demo: Path) -> None:
    python = Interpreter.parse("3.13 lib/python3.13t/site-packages")
    found = files(bench.one(locked(demo), python=python))
    assert f"{PREFIX}/include/python3.13t/demo/demo.h" in found
    assert f"{PREFIX}/lib/python3.13t/site-packages/top.py" in found


# --- what other installers make of it


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An empty environment without pip."""
    path = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    return path


def put(bench: Bench, environment: Path, *rows: Locked) -> Installation:
    """Install into an environment on disk, for the interpreter that runs the tests."""
    installation = bench.install(*rows, prefix=str(environment), python=HERE)
    extract(installation, Path("/"))
    return installation


def test_scripts_run(bench: Bench, demo: Path, environment: Path) -> None:
    put(bench, environment, locked(demo))
    for name, said in [("demo", "demo a b"), ("script", "script"), ("shell", "shell"), ("window", "window")]:
        done = subprocess.run([environment / "bin" / name, "a", "b"], capture_output=True, text=True, check=True)
        assert done.stdout == f"{said}\n"


def test_scripts_run_below_a_long_path_too(bench: Bench, demo: Path, tmp_path: Path) -> None:
    environment = tmp_path / f"an environment {'x' * 130}"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    put(bench, environment, locked(demo))
    for name, said in [("demo", "demo a b"), ("script", "script")]:
        done = subprocess.run([environment / "bin" / name, "a", "b"], capture_output=True, text=True, check=True)
        assert done.stdout == f"{said}\n"


def test_pip_sees_the_package_and_can_remove_all_of_it(bench: Bench, demo: Path, environment: Path) -> None:
    before = sorted(environment.rglob("*"))
    needs = Wheel(name="needs", requires=("demo>=1",)).write(demo.parent)
    put(bench, environment, locked(demo), locked(needs, "needs"))
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python")]
    assert subprocess.run([*pip, "check"], check=False).returncode == 0
    listed = subprocess.run([*pip, "list", "--format=freeze"], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ["demo==1.0", "needs==1.0"]
    subprocess.run([*pip, "uninstall", "--yes", "--quiet", "demo", "needs"], check=True, env=_root_user())
    assert [path for path in sorted(environment.rglob("*")) if path.is_file() and path not in before] == []


def _root_user() -> dict[str, str]:
    return {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}


def test_uv_installs_the_same_files(bench: Bench, demo: Path, environment: Path, tmp_path: Path) -> None:
    """But for what is its own (texts of scripts, notes on its cache), and bytecode."""
    other = tmp_path / "by-uv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    command = [need("uv"), "pip", "install", "--quiet", "--no-deps", "--offline", "--no-config"]
    cache = {**os.environ, "UV_CACHE_DIR": str(tmp_path / "uv-cache")}
    subprocess.run([*command, "--python", other / "bin" / "python", demo], check=True, env=cache)
    put(bench, environment, locked(demo))
    ours, theirs = _tree(environment), _tree(other)
    own = {path for path in theirs if "__pycache__" in path or path.endswith("uv_cache.json")}
    assert set(ours) == set(theirs) - own
    texts = ("bin/demo", "bin/gui", "bin/sub", "INSTALLER", "RECORD", "direct_url.json")
    differing = {path for path in ours if ours[path] != theirs[path] and not path.endswith(texts)}
    assert differing == set()


def _tree(environment: Path) -> dict[str, tuple[bytes, bool]]:
    """Files by path, with whether they are executable; the environment's own path and venv's headers made alike."""
    return {
        str(path.relative_to(environment)).replace("include/site/", "include/"): (
            path.read_bytes()
            .replace(str(environment).encode(), b"/env")
            .replace(b"/env/bin/python3.11", b"/env/bin/python"),
            bool(path.stat().st_mode & 0o111),
        )
        for path in environment.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and path.name not in ("pyvenv.cfg", ".lock")
        and not path.name.lower().startswith("activate")
    }
