from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import rattler
from msgspec.structs import replace

from layers.entry import Directory, File, Hardlink, Symlink
from ociforge.conda.install import install
from ociforge.conda.package import Activation, Conflict, Installation
from ociforge.errors import PackageError
from ociforge.events import Event, Warned, ignore
from tests.conda.environment import content, entries, facts, records, without_paths_json
from tests.support import rattling
from tests.support.channel import Channel, write_channel
from tests.support.conda import PLACEHOLDER, CondaPackage, Link, Regular, SameFile, binary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rattler import RepoDataRecord

    from ociforge.events import Notify

PREFIX = "/app/.pixi/envs/prod"
AT = PREFIX.strip("/")
BUILT = 1_704_164_645  # the mtime of archives made by tests.support
BIG = bytes(64 << 10)

PYTHON = CondaPackage(
    name="python",
    version="3.12.4",
    build="h1_0_cpython",
    files={
        "bin/python3.12": Regular(content=b"\x7fELF", executable=True),
        "bin/python": Link("python3.12"),
        "lib/python3.12/os.py": "os",
    },
)
TOOL = CondaPackage(
    name="tool",
    depends=("python",),
    files={
        "bin/tool": Regular(
            content=f"#!{PLACEHOLDER}/bin/python\nprint()\n".encode(), executable=True, placeholder="text"
        ),
        "lib/libtool.so.1": Regular(content=binary("{prefix}/lib"), placeholder="binary", executable=True),
        "lib/libtool.so": Link("libtool.so.1"),
        "share/host": Link("/etc/hosts"),
        "share/gone": Link("../nowhere//x/"),
        "share/tool/data.txt": Regular(content=b"data", mtime=1_600_000_000),
    },
    activate="export TOOL=1\n",
    env_vars={"TOOL_HOME": "x"},
)
PURE = CondaPackage(
    name="pure",
    noarch="python",
    build="pyh_0",
    depends=("python",),
    files={
        "site-packages/pure/__init__.py": "",
        "python-scripts/pure-old": Regular(
            content=f"#!{PLACEHOLDER}/bin/python\n".encode(), placeholder="text", executable=True
        ),
    },
    entry_points=("pure = pure:main",),
)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Installation]:
    """`install` of packages from a channel made on the spot, each time into a staging directory of its own."""
    numbers = itertools.count()

    def run(*packages: CondaPackage, **options: Any) -> Installation:
        number = next(numbers)
        channel = write_channel(tmp_path / f"channel{number}", packages)
        return lay_out(records(channel), tmp_path, f"staging{number}", **options)

    return run


def lay_out(
    rows: Sequence[RepoDataRecord],
    tmp_path: Path,
    staging: str = "staging",
    *,
    cache: str = "cache",
    prefix: str = PREFIX,
    subdir: str = "linux-64",
    notify: Notify = ignore,
    **times: Any,
) -> Installation:
    target = tmp_path / staging
    target.mkdir()
    return install(
        rows, prefix=prefix, subdir=subdir, cache=tmp_path / cache, staging=target, notify=notify, retries=0, **times
    )


def named(installation: Installation, name: str) -> dict[str, object]:
    (package,) = (package for package in installation.packages if package.name == name)
    return {entry.path.removeprefix(f"{AT}/"): entry for entry in package.entries}


def test_every_file_of_the_environment_has_an_owner(tmp_path: Path, made: Callable[..., Installation]) -> None:
    """Checked against the prefix that rattler makes by itself."""
    channel = write_channel(tmp_path / "channel", [PYTHON, TOOL, PURE])
    plain = rattling.install(
        rattling.solve(channel.url, "tool", "pure"), tmp_path / "plain", cache=tmp_path / "theirs", prefix=PREFIX
    )
    expected = {
        f"{AT}/{path.relative_to(plain)}": path for path in plain.rglob("*") if not path.is_dir() or path.is_symlink()
    }
    del expected[f"{AT}/CACHEDIR.TAG"], expected[f"{AT}/conda-meta/history"]
    ours = {
        path: entry for path, entry in entries(made(PYTHON, TOOL, PURE)).items() if not isinstance(entry, Directory)
    }
    assert sorted(ours) == sorted(expected)
    for path, entry in ours.items():
        if isinstance(entry, Symlink):
            assert entry.target == os.readlink(expected[path])  # noqa: PTH115
        elif "conda-meta" not in path:
            assert content(entry) == expected[path].read_bytes(), path


def test_packages_say_what_they_are(made: Callable[..., Installation]) -> None:
    installation = made(TOOL, PURE, PYTHON)
    assert [(package.name, package.version, package.build) for package in installation.packages] == [
        ("pure", "1.0", "pyh_0"),
        ("python", "3.12.4", "h1_0_cpython"),
        ("tool", "1.0", "0"),
    ]
    pure, python, _ = installation.packages
    assert (pure.subdir, pure.noarch_python, python.subdir, python.noarch_python) == ("noarch", True, "linux-64", False)
    assert installation.python == "3.12 lib/python3.12/site-packages"
    assert installation.conflicts == ()


def test_files_are_patched_for_the_prefix(made: Callable[..., Installation]) -> None:
    found = entries(made(PYTHON, TOOL, PURE))
    assert content(found[f"{AT}/bin/tool"]) == f"#!{PREFIX}/bin/python\nprint()\n".encode()
    library = content(found[f"{AT}/lib/libtool.so.1"])
    padding = b"\0" * (len(PLACEHOLDER) - len(PREFIX))
    assert library == b"\x7fDATA\x00" + f"{PREFIX}/lib".encode() + padding + b"\x00tail\x00\xff\xfe"
    assert content(found[f"{AT}/bin/pure"]).startswith(f"#!{PREFIX}/bin/python3.12\n".encode())
    assert content(found[f"{AT}/bin/pure-old"]) == f"#!{PREFIX}/bin/python\n".encode()
    assert f"{AT}/lib/python3.12/site-packages/pure/__init__.py" in found


def test_a_shebang_line_has_127_characters_at_most(made: Callable[..., Installation]) -> None:
    fits, long = "/" + "p" * 109, "/" + "p" * 110  # with #! and /bin/python3.12: 127 and 128
    assert content(entries(made(PYTHON, PURE, prefix=fits))[f"{fits[1:]}/bin/pure"]).splitlines()[0] == (
        f"#!{fits}/bin/python3.12".encode()
    )
    script = content(entries(made(PYTHON, PURE, prefix=long))[f"{long[1:]}/bin/pure"])
    assert script.splitlines()[:2] == [
        b"#!/bin/sh",
        f"""'''exec' "{long}/bin/python3.12" "$0" "$@" #'''""".encode(),
    ]


def test_metadata_is_ours(made: Callable[..., Installation]) -> None:
    odd = CondaPackage(
        name="odd",
        files={
            "a": Regular(content=b"a", mtime=0),
            "b": Regular(content=b"b", mtime=2**33),
            "c": Regular(content=b"c", mtime=2**31 - 2),
            "d": Regular(content=b"d", mtime=2**31),
            "e": Link("a"),
        },
    )
    found = entries(made(PYTHON, TOOL, PURE, odd, mtime=77))
    assert {(entry.uid, entry.gid) for entry in found.values() if not isinstance(entry, Hardlink)} == {(0, 0)}
    modes = {path.removeprefix(f"{AT}/"): entry.mode for path, entry in found.items() if isinstance(entry, File)}
    assert {path for path, mode in modes.items() if mode == 0o755} == {
        "bin/python3.12",
        "bin/tool",
        "lib/libtool.so.1",
        "bin/pure",
        "bin/pure-old",
    }
    assert set(modes.values()) == {0o644, 0o755}
    assert {(e.mode, e.mtime) for e in found.values() if isinstance(e, Directory)} == {(0o755, 77)}
    times = {
        path.removeprefix(f"{AT}/"): entry.mtime for path, entry in found.items() if isinstance(entry, File | Symlink)
    }
    assert {path for path, mtime in times.items() if mtime == 77} == {
        "bin/pure",
        "bin/pure-old",
        "bin/tool",
        "conda-meta/odd-1.0-0.json",
        "conda-meta/pure-1.0-pyh_0.json",
        "conda-meta/python-3.12.4-h1_0_cpython.json",
        "conda-meta/tool-1.0-0.json",
        "d",
        "lib/libtool.so.1",
    }
    assert (times["a"], times["b"], times["c"], times["e"]) == (315_532_800, 315_532_800, 2**31 - 2, BUILT)
    assert times["share/tool/data.txt"] == 1_600_000_000
    assert times["lib/libtool.so"] == times["lib/python3.12/os.py"] == BUILT


def test_times_can_be_clamped(made: Callable[..., Installation]) -> None:
    found = named(made(PYTHON, TOOL, mtime=1_700_000_001, clamp=1_700_000_000), "tool")
    times = {path: entry.mtime for path, entry in found.items() if isinstance(entry, File | Symlink)}
    assert times["share/tool/data.txt"] == 1_600_000_000
    assert times["lib/libtool.so"] == 1_700_000_000
    assert times["bin/tool"] == 1_700_000_001


def test_each_package_brings_its_directories_from_the_prefix_down(made: Callable[..., Installation]) -> None:
    found = made(PYTHON, TOOL)
    (python,) = (package for package in found.packages if package.name == "python")
    assert [entry.path for entry in python.entries] == [
        AT,
        f"{AT}/bin",
        f"{AT}/conda-meta",
        f"{AT}/lib",
        f"{AT}/lib/python3.12",
        f"{AT}/bin/python",
        f"{AT}/bin/python3.12",
        f"{AT}/lib/python3.12/os.py",
        f"{AT}/conda-meta/python-3.12.4-h1_0_cpython.json",
    ]
    entries(found)  # shared directories are the same


def test_symbolic_links_are_kept_verbatim(made: Callable[..., Installation]) -> None:
    links = {path: e.target for path, e in named(made(PYTHON, TOOL), "tool").items() if isinstance(e, Symlink)}
    assert links == {"lib/libtool.so": "libtool.so.1", "share/gone": "../nowhere//x/", "share/host": "/etc/hosts"}


def test_no_link_may_lead_into_this_machine(tmp_path: Path, made: Callable[..., Installation]) -> None:
    package = CondaPackage(name="p", files={"leak": Link(f"{tmp_path}/cache/x")})
    with pytest.raises(PackageError) as caught:
        made(package)
    assert caught.value.message == f"`leak` of `p-1.0-0.conda` would carry `{tmp_path}/cache` of this machine"


def test_hard_links_of_the_archive_are_hard_links(made: Callable[..., Installation]) -> None:
    script = Regular(content=f"#!{PLACEHOLDER}\n".encode(), placeholder="text")
    git = CondaPackage(
        name="git",
        files={
            "bin/git": Regular(content=BIG + b"1", executable=True),
            "libexec/git-add": SameFile("bin/git"),
            "libexec/git-log": SameFile("bin/git"),
            "a/copy": Regular(content=BIG + b"1"),
            "small/a": "s",
            "small/b": SameFile("small/a"),
            "patched/a": script,
            "patched/b": SameFile("patched/a"),
        },
    )
    found = named(made(git), "git")
    assert {path: e.target for path, e in found.items() if isinstance(e, Hardlink)} == {
        "libexec/git-add": f"{AT}/bin/git",
        "libexec/git-log": f"{AT}/bin/git",
        "small/b": f"{AT}/small/a",
        "patched/b": f"{AT}/patched/a",
    }
    for path in ("bin/git", "a/copy", "small/a", "patched/a"):
        assert isinstance(found[path], File), path


def test_the_first_name_that_is_kept_is_the_file(made: Callable[..., Installation]) -> None:
    """The archive's own file may lose its place to another package."""
    git = CondaPackage(name="git", files={"z": BIG, "b": SameFile("z"), "c": SameFile("z")})
    other = CondaPackage(name="a-winner", files={"z": "other"})
    found = named(made(git, other), "git")
    assert isinstance(found["b"], File)
    assert found["c"] == Hardlink(path=f"{AT}/c", target=f"{AT}/b")
    assert "z" not in found
    whole = named(made(git), "git")
    assert isinstance(whole["z"], File)
    assert whole["b"] == Hardlink(path=f"{AT}/b", target=f"{AT}/z")


def test_links_inside_noarch_python_packages_are_links(made: Callable[..., Installation]) -> None:
    pure = dataclasses.replace(
        PURE, files={"site-packages/a.py": "a", "site-packages/b.py": SameFile("site-packages/a.py")}
    )
    site_packages = f"{AT}/lib/python3.12/site-packages"
    assert [entry for entry in named(made(PYTHON, pure), "pure").values() if isinstance(entry, Hardlink)] == [
        Hardlink(path=f"{site_packages}/b.py", target=f"{site_packages}/a.py")
    ]


def test_conda_meta_describes_the_package_and_nothing_else(tmp_path: Path, made: Callable[..., Installation]) -> None:
    found = entries(made(PYTHON, TOOL, PURE))
    assert f"{AT}/conda-meta/history" not in found
    for path, entry in found.items():
        if path.endswith(".json") and "/conda-meta/" in path:
            data = content(entry)
            assert str(tmp_path).encode() not in data
            copy = tmp_path / Path(path).name
            copy.write_bytes(data)
            read = rattler.PrefixRecord.from_path(copy)
            for name, known in zip(read.files, read.paths_data.paths, strict=True):
                shipped = found[f"{AT}/{name}"]
                if isinstance(shipped, File):
                    assert known.size_in_bytes == shipped.size
    meta = json.loads(content(found[f"{AT}/conda-meta/pure-1.0-pyh_0.json"]))
    assert meta["files"] == ["bin/pure", "bin/pure-old", "lib/python3.12/site-packages/pure/__init__.py"]
    assert meta["link"] == {"source": "", "type": 1}
    assert [path["path_type"] for path in meta["paths_data"]["paths"]] == [
        "unix_python_entry_point",
        "hardlink",
        "hardlink",
    ]


def test_capitals_in_a_name_are_refused(made: Callable[..., Installation]) -> None:
    """conda forbids them; rattler panics when such a package is linked."""
    with pytest.raises(PackageError) as caught:
        made(CondaPackage(name="Mixed", files={"a": "a"}))
    assert caught.value.message == "`Mixed-1.0-0.conda` has capitals in its name, with which rattler cannot link it"


def test_environment_files_of_packages_are_left_out(made: Callable[..., Installation]) -> None:
    package = CondaPackage(
        name="p",
        files={"conda-meta/history": "x", "conda-meta/pixi": "x", "conda-meta/pixi_env_prefix": "x", "a": "a"},
    )
    assert list(named(made(package), "p")) == [AT, "conda-meta", "a", "conda-meta/p-1.0-0.json"]


def test_activation_is_read(made: Callable[..., Installation]) -> None:
    state = CondaPackage(name="state", files={"conda-meta/state": '{"env_vars": {"X": "1"}}'})
    other = CondaPackage(
        name="other",
        activate="export O=1\n",
        files={
            "etc/conda/activate.d/o.fish": "",
            "etc/conda/activate.d/sub/x.sh": "",
            "etc/conda/deactivate.d/o.sh": "",
        },
    )
    installation = made(PYTHON, TOOL, state, other)
    assert installation.activation == Activation(
        scripts=("etc/conda/activate.d/other.sh", "etc/conda/activate.d/tool.sh"),
        variables=(("etc/conda/env_vars.d/tool.json", '{"TOOL_HOME": "x"}'),),
        state='{"env_vars": {"X": "1"}}',
    )
    assert installation.packages[1].activation == Activation()


def test_link_scripts_are_warned_of(made: Callable[..., Installation]) -> None:
    events: list[Event] = []
    made(
        CondaPackage(name="p", post_link="exit 1\n", files={"bin/.other-post-link.sh": "", "bin/.p-pre-unlink.sh": ""}),
        notify=events.append,
    )
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "`p-1.0-0.conda` has a link script, which is not run: `bin/.p-post-link.sh`"
    ]


CLASHING = (
    CondaPackage(name="b", files={"share/x": "from b", "share/y": "from b", "same": "s"}),
    CondaPackage(name="a", files={"share/x": "from a", "share/y": "from a", "same": "s"}),
    CondaPackage(name="c", depends=("b",), files={"share/x": "from c"}),
)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_winner_of_a_path_does_not_depend_on_the_order(
    made: Callable[..., Installation], order: tuple[int, ...]
) -> None:
    events: list[Event] = []
    installation = made(*(CLASHING[index] for index in order), notify=events.append)
    assert installation.conflicts == (
        Conflict(path="same", winner="a", losers=("b",), differs=False),
        Conflict(path="share/x", winner="a", losers=("b", "c"), differs=True),
        Conflict(path="share/y", winner="a", losers=("b",), differs=True),
    )
    found = entries(installation)
    assert content(found[f"{AT}/share/x"]) == b"from a"
    assert not any("__clobbers__" in path for path in found)
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "`a` and `b` provide `share/y` with different content: `a` wins",
        "`a` and `b`, `c` provide `share/x` with different content: `a` wins",
    ]


@pytest.mark.parametrize("other", [Link("."), "file"])
def test_a_file_in_place_of_a_directory_is_refused(made: Callable[..., Installation], other: Link | str) -> None:
    """rattler keeps now the one, now neither."""
    with pytest.raises(PackageError) as caught:
        made(CondaPackage(name="a", files={"tree/x/leaf": "l"}), CondaPackage(name="b", files={"tree/x": other}))
    assert caught.value.message == "`tree/x` is a file of `b-1.0-0.conda` but a directory of `a-1.0-0.conda`"


def test_records_do_not_depend_on_neighbours(made: Callable[..., Installation]) -> None:
    """A package that loses a path still lists it, as with conda."""
    alone = named(made(CLASHING[0]), "b")["conda-meta/b-1.0-0.json"]
    clashing = named(made(*CLASHING), "b")["conda-meta/b-1.0-0.json"]
    assert isinstance(alone, File)
    assert isinstance(clashing, File)
    assert content(alone) == content(clashing)
    assert json.loads(content(alone))["files"] == ["same", "share/x", "share/y"]


def test_the_same_entries_on_any_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cold and warm caches, other directories, umask, time zone, order of records."""
    git = CondaPackage(name="git", files={"bin/git": BIG, "bin/git-add": SameFile("bin/git")})
    channel = write_channel(tmp_path / "channel", [PYTHON, TOOL, PURE, git, *CLASHING])
    rows = records(channel)
    first = lay_out(rows, tmp_path, "s1", cache="c1")
    expected = [facts(package.entries) for package in first.packages]
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    umask = os.umask(0o077)
    try:
        cold = lay_out(rows[::-1], tmp_path, "longer name", cache="an other cäche")
        os.umask(0)
        warm = lay_out(rows[3:] + rows[:3], tmp_path, "s3", cache="c1")
    finally:
        os.umask(umask)
        monkeypatch.undo()
        time.tzset()
    for other in (cold, warm):
        assert [facts(package.entries) for package in other.packages] == expected
        assert replace(other, packages=()) == replace(first, packages=())


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_staging_on_another_file_system(tmp_path: Path) -> None:
    """rattler copies there instead of linking: hard links of the archive are two files."""
    git = CondaPackage(name="git", files={"bin/git": BIG, "bin/git-add": SameFile("bin/git"), "l": Link("bin/git")})
    rows = records(write_channel(tmp_path / "channel", [git]))
    expected = [facts(package.entries) for package in lay_out(rows, tmp_path).packages]
    staging = Path("/dev/shm") / f"ociforge-test-{os.getpid()}"
    staging.mkdir()
    try:
        far = install(rows, prefix=PREFIX, subdir="linux-64", cache=tmp_path / "cache", staging=staging)
        assert [facts(package.entries) for package in far.packages] == expected
    finally:
        shutil.rmtree(staging)


def test_concurrent_installs_share_a_cache(tmp_path: Path) -> None:
    """From threads, each with an event loop of its own."""
    rows = records(write_channel(tmp_path / "channel", [PYTHON, TOOL, PURE]))
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda number: lay_out(rows, tmp_path, f"s{number}"), range(4)))
    assert len({repr([facts(package.entries) for package in installation.packages]) for installation in made}) == 1


def test_nothing_unpacked_outlives_the_staging_directory(tmp_path: Path) -> None:
    """rattler believes an unpacked package's `info`, which nothing vouches for; archives have a digest."""
    channel = write_channel(tmp_path / "channel", [PYTHON])
    lay_out(records(channel), tmp_path, "s1")
    shutil.rmtree(tmp_path / "s1")
    kept = [path for path in tmp_path.joinpath("cache").rglob("*") if path.is_file()]
    assert kept == []


def test_two_archives_of_one_name_do_not_mix(tmp_path: Path) -> None:
    first = write_channel(tmp_path / "one", [CondaPackage(name="p", files={"a": "one"})])
    second = write_channel(tmp_path / "two", [CondaPackage(name="p", files={"a": "two"})])
    for number, (channel, data) in enumerate([(first, b"one"), (second, b"two"), (first, b"one")]):
        found = entries(lay_out(records(channel), tmp_path, f"s{number}"))
        assert content(found[f"{AT}/a"]) == data


def test_another_architecture_needs_nothing_of_it(tmp_path: Path) -> None:
    packages = [
        dataclasses.replace(PYTHON, subdir="linux-aarch64"),
        PURE,
        dataclasses.replace(TOOL, subdir="linux-aarch64"),
    ]
    found = entries(lay_out(records(write_channel(tmp_path / "ch", packages)), tmp_path, subdir="linux-aarch64"))
    assert content(found[f"{AT}/bin/pure"]).startswith(f"#!{PREFIX}/bin/python3.12\n".encode())
    assert content(found[f"{AT}/bin/tool"]).startswith(f"#!{PREFIX}/bin/python\n".encode())


def test_bz2_archives_give_the_same_entries(tmp_path: Path, made: Callable[..., Installation]) -> None:
    packages = [PYTHON, TOOL, PURE]
    channel = write_channel(tmp_path / "bz2", packages, form=".tar.bz2")
    old = lay_out(records(channel), tmp_path, "old")
    new = made(*packages)

    def without_meta(installation: Installation) -> list[tuple[object, ...]]:
        return [fact for fact in facts(entries(installation).values()) if "/conda-meta/" not in str(fact[0])]

    assert without_meta(old) == without_meta(new)


def test_packages_older_than_paths_json(tmp_path: Path) -> None:
    package = dataclasses.replace(
        CondaPackage(name="old", files={"a": "a", "bin/l": Link("../a"), "t": f"{PLACEHOLDER}/x"}),
        info_extra={"info/has_prefix": f"{PLACEHOLDER} text t\n".encode()},
    )
    channel: Channel = without_paths_json(write_channel(tmp_path / "channel", [package]))
    found = entries(lay_out(records(channel), tmp_path))
    assert content(found[f"{AT}/t"]) == f"{PREFIX}/x".encode()
    assert isinstance(found[f"{AT}/bin/l"], Symlink)


@pytest.mark.parametrize("prefix", ["app", "/", "", "/app/", "/app/../x", "/a//b"])
def test_a_prefix_is_an_absolute_path(made: Callable[..., Installation], prefix: str) -> None:
    with pytest.raises(PackageError) as caught:
        made(PYTHON, prefix=prefix)
    assert caught.value.message == f"`{prefix}` is no prefix: expected an absolute, normalised path below `/`"


def test_a_prefix_that_does_not_fit(made: Callable[..., Installation]) -> None:
    with pytest.raises(PackageError) as caught:
        made(PYTHON, TOOL, prefix="/" + "p" * 300)
    assert "target prefix cannot be longer than the placeholder prefix" in caught.value.message
    assert caught.value.hint == "choose a shorter prefix: binaries have no room for this one"


def test_noarch_python_without_python(made: Callable[..., Installation]) -> None:
    with pytest.raises(PackageError) as caught:
        made(PURE)
    assert caught.value.message == (
        "cannot install noarch python package `pure-1.0-pyh_0.conda`: there is no python version specified"
    )
    assert caught.value.hint == "noarch Python packages need `python` in the environment"


def test_a_name_may_occur_once(made: Callable[..., Installation]) -> None:
    with pytest.raises(PackageError) as caught:
        made(PYTHON, dataclasses.replace(PYTHON, version="3.13.0"))
    assert caught.value.message == (
        "two packages are called `python`: `python-3.12.4-h1_0_cpython.conda` and `python-3.13.0-h1_0_cpython.conda`"
    )


def test_an_unknown_subdir(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="`linux-sparc` is no conda subdir"):
        lay_out([], tmp_path, subdir="linux-sparc")


def test_an_empty_environment(tmp_path: Path) -> None:
    assert lay_out([], tmp_path) == Installation(packages=(), conflicts=(), python=None)


def test_what_paths_json_says_of_contents_does_not_matter(tmp_path: Path) -> None:
    """The archive's digest vouches for its content; a cold and a warm cache give the same."""
    package = CondaPackage(name="p", files={"a": Regular(content=b"a", sha256="00" * 32)})
    rows = records(write_channel(tmp_path / "channel", [package]))
    cold, warm = (lay_out(rows, tmp_path, staging) for staging in ("cold", "warm"))
    assert facts(cold.packages[0].entries) == facts(warm.packages[0].entries)


@pytest.mark.parametrize("directory", ["../../../escaped", "ABSOLUTE", "./lib//x/"])
def test_site_packages_stay_in_the_prefix(tmp_path: Path, directory: str) -> None:
    """rattler writes there, or aborts the process."""
    directory = directory.replace("ABSOLUTE", f"{tmp_path}/escaped")
    rows = records(write_channel(tmp_path / "channel", [PYTHON, PURE]))
    rows[0].python_site_packages_path = directory
    with pytest.raises(PackageError, match="`python_site_packages_path` is `"):
        lay_out(rows, tmp_path)
    assert list((tmp_path / "staging").iterdir()) == []
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("build", ["x/../../../../../escaped", "../x"])
def test_records_stay_in_conda_meta(tmp_path: Path, build: str) -> None:
    package = CondaPackage(name="p", files={"a": ""}, index_extra={"build": build})
    rows = records(write_channel(tmp_path / "channel", [package]))
    with pytest.raises(PackageError, match="the build is `"):
        lay_out(rows, tmp_path)
    assert list((tmp_path / "staging").iterdir()) == []


@pytest.mark.parametrize(
    ("link", "below"), [("lib", "lib/x"), ("conda-meta", "x"), ("lib/python3.12/site-packages", "x"), ("bin", "x")]
)
def test_nothing_is_linked_through_a_link(tmp_path: Path, link: str, below: str) -> None:
    """Of one package into a directory of this machine: rattler would write there what other packages have below it."""
    (tmp_path / "host").mkdir()
    packages = [
        CondaPackage(name="a", files={link: Link(f"{tmp_path}/host")}),
        CondaPackage(name="b", files={below: "x"}),
        dataclasses.replace(PYTHON, files={"python": ""}),
        PURE,
    ]
    with pytest.raises(PackageError, match=rf"`{link}`(,| is a file of)"):
        lay_out(records(write_channel(tmp_path / "channel", packages)), tmp_path)
    assert list((tmp_path / "host").iterdir()) == list((tmp_path / "staging").iterdir()) == []


def test_the_same_entry_point_twice(tmp_path: Path) -> None:
    package = dataclasses.replace(PURE, entry_points=("pure = pure:main", "pure=pure:main"))
    once, twice = (
        lay_out(records(write_channel(tmp_path / f"{number}", [PYTHON, one])), tmp_path, f"staging{number}")
        for number, one in enumerate((PURE, package))
    )
    names = [
        [fact for fact in facts(one.packages[0].entries) if "conda-meta" not in str(fact)] for one in (once, twice)
    ]
    assert names[0] == names[1]
    meta = json.loads(content(entries(twice)[f"{AT}/conda-meta/pure-1.0-pyh_0.json"]))
    assert meta["files"] == ["bin/pure", "bin/pure-old", "lib/python3.12/site-packages/pure/__init__.py"]
