from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from ociforge.errors import OfflineError, PackageError, SolveError
from ociforge.events import Event, Warned
from ociforge.network import Mirrors
from ociforge.pypi.describe import Description
from ociforge.pypi.fetch import Access, Cache, Fetcher
from ociforge.pypi.machine import Machine
from ociforge.pypi.request import Distribution, GitReference, PypiRequest, Requirement
from ociforge.pypi.resolve import Resolver
from tests.pypi.simple_index import Dist, write_index
from tests.support.channel import Served, serve
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINUX = Machine(subdir="linux-64", version="3.12.4", system="2.28")
ARM = Machine(subdir="linux-aarch64", version="3.12.4", system="2.28")

DISTS = (
    Dist(name="app", requires=("lib>=1", "numpy>=1", 'colour>=1 ; sys_platform == "win32"')),
    Dist(name="app", version="2.0", requires=("lib>=2", "numpy>=3")),
    Dist(name="lib", metadata=True, requires_python=">=3.8"),
    Dist(name="lib", version="1.5", metadata=True, requires=('speed ; extra == "fast"',), extras=("fast",)),
    Dist(name="speed", tag="cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64"),
    Dist(name="speed", tag="cp312-cp312-manylinux_2_28_aarch64"),
    Dist(name="speed", tag="cp312-cp312-manylinux_2_34_x86_64"),
    Dist(name="speed", tag="cp311-cp311-manylinux_2_17_x86_64"),
    Dist(name="speed"),
    Dist(name="unbuilt", sdist=True, requires=("lib",)),
    Dist(name="early", version="1.0a1"),
    Dist(name="hashless", hashed=False),
    Dist(name="sloppy", requires=("lib>=1.0.*",), requires_python=">=3.6.*"),
    Dist(name="only-windows", tag="cp312-cp312-win_amd64"),
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("index")
    write_index(root, DISTS)
    write_index(root / "other", [Dist(name="lib", version="9.0"), Dist(name="special", requires=("lib",))])
    with serve(root) as served:
        yield served


@pytest.fixture(scope="module")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv")


@pytest.fixture
def resolver(tmp_path: Path, uv_cache: Path) -> Resolver:
    access = Access(attempts=1)
    return Resolver(
        fetcher=Fetcher(Cache(tmp_path / "wheels"), access),
        access=access,
        static=lambda tree: None,
        environ={**os.environ, "UV_CACHE_DIR": str(uv_cache), "UV_HTTP_RETRIES": "0"},
    )


def static(resolver: Resolver, found: Description | None) -> Resolver:
    return Resolver(
        fetcher=resolver.fetcher, access=resolver.access, static=lambda tree: found, environ=resolver.environ
    )


def request(root: Path, index: Served, *names: str | Requirement, **more: Any) -> PypiRequest:
    asked = tuple(name if isinstance(name, Requirement) else Requirement(name=name) for name in names)
    values: dict[str, Any] = {
        "what": "environment `default` on `linux-64`",
        "machine": LINUX,
        "root": root,
        "indexes": (f"{index.url}simple",),
        "provided": {"numpy": "2.0"},
    }
    return PypiRequest(requirements=asked, **(values | more))


def versions(found: tuple[Distribution, ...]) -> dict[str, str | None]:
    return {row.name: row.version for row in found}


def failure(resolver: Resolver, asked: PypiRequest) -> SolveError:
    with pytest.raises(SolveError) as caught:
        resolver.resolve(asked)
    return caught.value


# --- rows


def test_rows_have_what_the_lock_needs(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    found = resolver.resolve(request(tmp_path, index, "app"))
    app = DISTS[0]
    assert found == (
        Distribution(
            name="app",
            version="1.0",
            location=f"{index.url}files/{app.filename}",
            sha256=app.sha256,
            index=f"{index.url}simple",
            requires_dist=("lib>=1", "numpy>=1", 'colour>=1; sys_platform == "win32"'),
        ),
        Distribution(
            name="lib",
            version="1.5",
            location=f"{index.url}files/{DISTS[3].filename}",
            sha256=DISTS[3].sha256,
            index=f"{index.url}simple",
            requires_dist=('speed; extra == "fast"',),
        ),
    )


def test_only_metadata_is_fetched_where_the_index_offers_it(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    before = len(index.requests)
    (row,) = resolver.resolve(request(tmp_path, index, Requirement(name="lib", specifier="==1.0")))
    assert row.requires_python == ">=3.8"
    asked = index.requests[before:]
    assert any(line.startswith("GET /files/lib-1.0") and line.endswith(".metadata") for line in asked)
    assert not list((tmp_path / "wheels").iterdir())


def test_what_conda_provides_is_given_and_left_out(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    assert versions(resolver.resolve(request(tmp_path, index, "app", provided={"numpy": "3.0", "lib": "2.0.0"}))) == {
        "app": "2.0"
    }
    assert versions(resolver.resolve(request(tmp_path, index, "numpy"))) == {}


def test_a_version_of_conda_that_no_requirement_meets_is_a_conflict(
    tmp_path: Path, index: Served, resolver: Resolver
) -> None:
    error = failure(resolver, request(tmp_path, index, Requirement(name="app", specifier=">=2")))
    assert error.message.startswith(
        "environment `default` on `linux-64`: the PyPI requirements cannot be resolved: No solution found"
    )
    assert "because you require app>=2" in error.message and "ociforge" not in error.message
    assert error.hint == "relax one of these requirements"


def test_a_conda_version_that_pypi_cannot_have(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    odd = {"numpy": "2.0", "lib": "1.0_x"}
    assert versions(resolver.resolve(request(tmp_path, index, "speed", provided=odd))) == {"speed": "1.0"}
    error = failure(resolver, request(tmp_path, index, "app", provided=odd))
    assert error.message == (
        "environment `default` on `linux-64`: a PyPI package needs `lib`, which conda provides as `1.0_x`:"
        " no version of PyPI's kind"
    )


def test_digests_that_an_index_lacks_are_computed(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    (row,) = resolver.resolve(request(tmp_path, index, "hashless"))
    assert row.sha256 == Dist(name="hashless", hashed=False).sha256


def test_old_specifiers_are_put_right(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    sloppy, _ = resolver.resolve(request(tmp_path, index, Requirement(name="sloppy")))[::-1]
    assert (sloppy.requires_dist, sloppy.requires_python) == (("lib>=1.0",), ">=3.6")


def test_source_distributions_with_static_metadata_need_no_build(
    tmp_path: Path, index: Served, resolver: Resolver
) -> None:
    pyproject = '[project]\nname = "unbuilt"\nversion = "1.0"\ndependencies = ["lib"]\n'
    dist = Dist(name="unbuilt", sdist=True, requires=("lib",), pyproject=pyproject)
    write_index(tmp_path / "site", [dist, DISTS[2]])
    with serve(tmp_path / "site") as served:
        found = resolver.resolve(request(tmp_path, served, "unbuilt"))
        assert [(row.name, row.location) for row in found] == [
            ("lib", f"{served.url}files/lib-1.0-py3-none-any.whl"),
            ("unbuilt", f"{served.url}files/unbuilt-1.0.tar.gz"),
        ]
    assert found[1].requires_dist == ("lib",) and found[1].sha256 == dist.sha256


# --- the machine


@pytest.mark.parametrize(
    ("machine", "tag"),
    [
        (LINUX, "cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64"),
        (ARM, "cp312-cp312-manylinux_2_28_aarch64"),
        (Machine(subdir="linux-64", version="3.12.4", system="2.35"), "cp312-cp312-manylinux_2_34_x86_64"),
        (Machine(subdir="linux-64", version="3.11.9", system="2.28"), "cp311-cp311-manylinux_2_17_x86_64"),
        (Machine(subdir="linux-64", version="3.13.0", system="2.28"), "py3-none-any"),
        (Machine(subdir="osx-arm64", version="3.12.4", system="13.0"), "py3-none-any"),
    ],
)
def test_the_best_wheel_for_the_machine(
    tmp_path: Path, index: Served, resolver: Resolver, machine: Machine, tag: str
) -> None:
    (row,) = resolver.resolve(request(tmp_path, index, "speed", machine=machine))
    assert row.location == f"{index.url}files/speed-1.0-{tag}.whl"


def test_markers_are_the_machines(tmp_path: Path, resolver: Resolver) -> None:
    dists = [
        Dist(name="top", requires=('posix ; os_name == "posix"', 'arm ; platform_machine == "aarch64"')),
        Dist(name="posix"),
        Dist(name="arm"),
    ]
    write_index(tmp_path / "site", dists)
    with serve(tmp_path / "site") as served:
        both = [resolver.resolve(request(tmp_path, served, "top", machine=machine)) for machine in (LINUX, ARM)]
    assert [sorted(versions(found)) for found in both] == [["posix", "top"], ["arm", "posix", "top"]]


def test_a_package_without_a_wheel_for_the_machine(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    error = failure(resolver, request(tmp_path, index, "only-windows"))
    assert "no wheels with a matching platform tag" in error.message
    assert error.hint is not None and "win_amd64" in error.hint


@pytest.mark.parametrize(
    ("python", "abi", "message"),
    [
        (("3.13.1", "h1_2_cp313t"), None, "for the Python `3.13.1 h1_2_cp313t`: only for CPython with the GIL"),
        (("3.13.1", "h1_2"), "8_cp313t", "for the Python `3.13.1 8_cp313t`: only for CPython with the GIL"),
        (("3.10.1", "1_73_pypy"), None, "for the Python `3.10.1 1_73_pypy`: only for CPython with the GIL"),
    ],
)
def test_pythons_that_uv_is_not_asked_about(python: tuple[str, str], abi: str | None, message: str) -> None:
    with pytest.raises(SolveError) as caught:
        Machine.of(subdir="linux-64", virtual_packages={}, python=python, abi=abi)
    assert caught.value.message == f"PyPI packages cannot be resolved {message}"


@pytest.mark.parametrize(
    ("subdir", "virtual", "platform"),
    [
        ("linux-64", {"__glibc": "2.28"}, "x86_64-manylinux_2_28"),
        ("linux-64", {"__musl": "1.2"}, "x86_64-unknown-linux-musl"),
        ("linux-64", {"__eglibc": "2.17"}, "x86_64-manylinux_2_17"),
        ("linux-64", {"__glibc": "2.30"}, "x86_64-manylinux_2_28"),
        ("linux-64", {"__glibc": "2.99"}, "x86_64-manylinux_2_40"),
        ("linux-aarch64", {"__glibc": "2.17"}, "aarch64-manylinux_2_17"),
        ("osx-arm64", {"__osx": "14.0"}, "aarch64-apple-darwin"),
        ("win-64", {}, "x86_64-pc-windows-msvc"),
    ],
)
def test_platforms_in_uvs_words(subdir: str, virtual: dict[str, str], platform: str) -> None:
    machine = Machine.of(subdir=subdir, virtual_packages=virtual, python=("3.12.4", "h_0_cpython"), abi=None)
    assert machine.uv_platform == platform


@pytest.mark.parametrize(("subdir", "glibc"), [("linux-s390x", "2.28"), ("linux-64", "2.12")])
def test_platforms_that_uv_does_not_know(subdir: str, glibc: str) -> None:
    machine = Machine.of(subdir=subdir, virtual_packages={"__glibc": glibc}, python=("3.12.4", "h"), abi=None)
    with pytest.raises(SolveError, match=f"`{subdir}` with glibc {glibc}: uv has none such"):
        _ = machine.uv_platform


# --- options


def test_versions_of_before_are_kept_where_they_fit(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    kept = {"lib": "1.0", "numpy": "1.0"}
    assert versions(resolver.resolve(request(tmp_path, index, "app", preferred=kept)))["lib"] == "1.0"
    wanted = Requirement(name="lib", specifier=">1.2")
    assert versions(resolver.resolve(request(tmp_path, index, wanted, preferred=kept)))["lib"] == "1.5"


def test_extras_and_markers_of_requirements(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    fast = Requirement(name="lib", extras=("fast",))
    assert sorted(versions(resolver.resolve(request(tmp_path, index, fast)))) == ["lib", "speed"]
    never = Requirement(name="speed", markers='sys_platform == "win32"')
    assert sorted(versions(resolver.resolve(request(tmp_path, index, "lib", never)))) == ["lib"]


def test_prereleases(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    assert versions(resolver.resolve(request(tmp_path, index, "early"))) == {"early": "1.0a1"}
    error = failure(resolver, request(tmp_path, index, "early", prerelease_mode="disallow"))
    assert "early" in error.message


def test_overrides_replace_requirements_of_packages(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    override = Requirement(name="lib", specifier="==1.0")
    asked = request(tmp_path, index, "app", overrides=(override,))
    assert versions(resolver.resolve(asked)) == {"app": "1.0", "lib": "1.0"}


def test_an_override_cannot_name_an_index(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    override = Requirement(name="lib", index="https://example.com/simple")
    error = failure(resolver, request(tmp_path, index, "app", overrides=(override,)))
    assert "the override of `lib` names an index" in error.message


def test_what_may_not_be_built_needs_a_wheel(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    for option in ({"no_build": True}, {"no_build": frozenset({"unbuilt"})}):
        assert "unbuilt" in failure(resolver, request(tmp_path, index, "unbuilt", **option)).message
    error = failure(resolver, request(tmp_path, index, "unbuilt", no_build_isolation=frozenset({"unbuilt"})))
    assert error.hint is not None and "builds without isolation are not supported: `unbuilt`" in error.hint


def test_file_names_of_wheels_need_not_be_checked(tmp_path: Path, resolver: Resolver) -> None:
    honest = Dist(name="renamed", version="1.0")
    write_index(tmp_path / "site", [honest])
    page = tmp_path / "site" / "simple" / "renamed" / "index.html"
    (tmp_path / "site" / "files" / "renamed-1.1-py3-none-any.whl").write_bytes(honest.content())
    page.write_text(page.read_text().replace("renamed-1.0", "renamed-1.1"))
    with serve(tmp_path / "site") as served:
        with pytest.raises(PackageError, match=r"`renamed 1.1` at .* says that it is version 1.0"):
            resolver.resolve(request(tmp_path, served, "renamed"))
        asked = request(tmp_path, served, "renamed", skip_wheel_filename_check=True)
        assert versions(resolver.resolve(asked)) == {"renamed": "1.0"}


def test_wheels_can_be_refused(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    error = failure(resolver, request(tmp_path, index, "lib", no_binary=frozenset({"lib"})))
    assert "lib" in error.message


def test_cutoffs(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    long_ago = datetime(2001, 2, 3, tzinfo=UTC)
    # The index tells no upload times, and what has none is as good as new.
    for option in ({"cutoff": long_ago}, {"package_cutoffs": {"lib": long_ago}}):
        assert "lib" in failure(resolver, request(tmp_path, index, "lib", **option)).message


# --- places


def test_several_indexes(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    both = (f"{index.url}simple", f"{index.url}other/simple/")
    found = {row.name: row for row in resolver.resolve(request(tmp_path, index, "app", "special", indexes=both))}
    assert {name: row.index for name, row in found.items()} == {"app": both[0], "lib": both[1], "special": both[1]}
    asked = request(tmp_path, index, Requirement(name="lib", specifier="<2"), indexes=both)
    assert "lib" in failure(resolver, asked).message
    (lib,) = resolver.resolve(
        request(tmp_path, index, asked.requirements[0], indexes=both, index_strategy="unsafe-best-match")
    )
    assert (lib.version, lib.index) == ("1.5", both[0])


def test_a_requirement_names_its_index(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    other = f"{index.url}other/simple"
    found = resolver.resolve(request(tmp_path, index, "app", Requirement(name="lib", index=other)))
    assert {row.name: row.index for row in found} == {"app": f"{index.url}simple", "lib": other}


def test_credentials_do_not_get_into_rows(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    secret = index.url.replace("http://", "http://user:s3cret@") + "simple"
    asked = request(tmp_path, index, "app", Requirement(name="lib", index=secret), indexes=(secret,))
    found = resolver.resolve(asked)
    assert [row.index for row in found] == [f"{index.url}simple"] * 2
    assert "s3cret" not in repr(found)
    assert "s3cret" not in failure(resolver, request(tmp_path, index, "ghost", indexes=(secret,))).message


def test_find_links(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    root, dist = tmp_path / "workspace", Dist(name="linked", requires=("lib",))
    dist.write(root / "wheels")
    dist.write(tmp_path / "beside")
    for link, location in (
        ("wheels", "./wheels/linked-1.0-py3-none-any.whl"),
        ("../beside", "../beside/linked-1.0-py3-none-any.whl"),
        (str(tmp_path / "beside"), str(tmp_path / "beside" / "linked-1.0-py3-none-any.whl")),
    ):
        lib, linked = resolver.resolve(request(root, index, "linked", find_links=(link,)))
        assert (linked.location, linked.sha256, linked.index) == (location, dist.sha256, None)
        assert (linked.requires_dist, lib.index) == (("lib",), f"{index.url}simple")


def test_find_links_behind_a_url(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    dist = Dist(name="linked")
    dist.write(tmp_path / "site")
    (tmp_path / "site" / "page.html").write_text(f'<a href="{dist.filename}#sha256={dist.sha256}">{dist.filename}</a>')
    with serve(tmp_path / "site") as served:
        page = f"{served.url}page.html"
        (row,) = resolver.resolve(request(tmp_path, index, "linked", find_links=(page,)))
        assert (row.location, row.index) == (f"{served.url}{dist.filename}", page)


def test_direct_urls_and_files(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    lib = DISTS[2]
    url = f"{index.url}files/{lib.filename}"
    (row,) = resolver.resolve(request(tmp_path, index, Requirement(name="lib", url=url)))
    assert (row.location, row.version, row.sha256, row.index) == (f"direct+{url}", "1.0", lib.sha256, None)
    lib.write(tmp_path / "vendor")
    (row,) = resolver.resolve(request(tmp_path, index, Requirement(name="lib", path=f"vendor/{lib.filename}")))
    assert (row.location, row.sha256) == (f"./vendor/{lib.filename}", lib.sha256)


def test_source_trees(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "0.1"\ndependencies = ["lib"]\n')
    told = Description(version="0.1", requires_dist=("lib",), requires_python=">=3.11")
    lib, mine = static(resolver, told).resolve(request(tmp_path, index, Requirement(name="mine", path=".")))
    assert (lib.name, mine) == (
        "lib",
        Distribution(name="mine", version="0.1", location="./", requires_dist=("lib",), requires_python=">=3.11"),
    )
    (tmp_path / "workspace").mkdir()
    for path, location in (("..", ".."), (str(tmp_path), str(tmp_path))):
        asked = request(tmp_path / "workspace", index, Requirement(name="mine", path=path))
        assert static(resolver, told).resolve(asked)[1].location == location


def test_git_repositories(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    git = need("git")
    repository = tmp_path / "repository"
    (repository / "inner").mkdir(parents=True)
    (repository / "inner" / "pyproject.toml").write_text(
        '[project]\nname = "theirs"\nversion = "0.2"\ndependencies = ["lib"]\n'
    )
    author = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    for arguments in (("init", "-q", "-b", "main"), ("add", "."), (*author, "commit", "-qm", "x"), ("tag", "v1")):
        subprocess.run([git, *arguments], cwd=repository, check=True)
    commit = subprocess.run([git, "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    told = static(resolver, Description(version="0.2", requires_dist=("lib",)))
    url, inner = repository.as_uri(), "inner"
    for source, query in (
        (GitReference(url=url, subdirectory=inner, tag="v1"), "tag=v1&"),
        (GitReference(url=url, subdirectory=inner, branch="main"), "branch=main&"),
        (GitReference(url=url, subdirectory=inner), ""),
    ):
        _, row = told.resolve(request(tmp_path, index, Requirement(name="theirs", git=source)))
        assert row.location == f"git+{repository.as_uri()}?{query}subdirectory=inner#{commit.stdout.strip()}"
        assert (row.version, row.requires_dist) == ("0.2", ("lib",))


def test_one_name_from_two_places(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    asked = request(tmp_path, index, Requirement(name="lib", path="a"), Requirement(name="lib", path="b"))
    assert failure(resolver, asked).message == (
        "environment `default` on `linux-64`: the PyPI package `lib` is asked for from two places"
    )


# --- failures


def test_an_unknown_package(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    error = failure(resolver, request(tmp_path, index, "no-such-thing"))
    assert "no-such-thing was not found in the package registry" in error.message
    assert error.hint is not None and error.hint.endswith("check the name, and the indexes of the manifest")


def test_an_unreachable_index(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    error = failure(resolver, request(tmp_path, index, "lib", indexes=("http://u:pw@127.0.0.1:9/simple",)))
    assert "http://127.0.0.1:9/simple/lib/" in error.message and "pw" not in error.message
    assert error.hint is not None and error.hint.endswith("check the network, and the indexes of the manifest")


def test_a_wheel_that_belies_the_index(tmp_path: Path, resolver: Resolver) -> None:
    honest = Dist(name="liar", metadata=True)
    write_index(tmp_path / "site", [honest])
    beside = tmp_path / "site" / "files" / f"{honest.filename}.metadata"
    beside.write_bytes(honest.describe().replace(b"Version: 1.0", b"Version: 1.1"))
    with serve(tmp_path / "site") as served, pytest.raises((PackageError, SolveError)):
        resolver.resolve(request(tmp_path, served, "liar"))


def test_variables_that_choose_do_not_count(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    bent = {**resolver.environ, "UV_EXCLUDE_NEWER": "2001-01-01", "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}
    steered = Resolver(fetcher=resolver.fetcher, access=resolver.access, static=resolver.static, environ=bent)
    assert versions(steered.resolve(request(tmp_path, index, "lib"))) == {"lib": "1.5"}


# --- mirrors, and no network


def test_rows_do_not_tell_which_mirror_was_asked(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    events: list[Event] = []
    direct = resolver.resolve(request(tmp_path, index, "app"))
    mirrors = Mirrors(
        prefixes={
            "https://index.invalid/simple": ("http://127.0.0.1:1/simple", f"{index.url}simple"),
            "https://files.invalid/": (f"{index.url}files/",),
        }
    )
    access = replace(resolver.access, mirrors=mirrors)
    through = replace(resolver, access=access, fetcher=Fetcher(Cache(tmp_path / "other"), access), notify=events.append)
    found = through.resolve(request(tmp_path, index, "app", indexes=("https://index.invalid/simple",)))
    assert found == tuple(
        replace(
            row,
            index="https://index.invalid/simple",
            location=row.location.replace(f"{index.url}files/", "https://files.invalid/"),
        )
        for row in direct
    )
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert warned.message.startswith("the mirror `http://127.0.0.1:1/simple` is passed over: ")


def test_offline_uv_takes_what_it_knows(tmp_path: Path, index: Served, resolver: Resolver) -> None:
    offline = replace(resolver, access=replace(resolver.access, offline=True))
    empty = replace(offline, environ={**resolver.environ, "UV_CACHE_DIR": str(tmp_path / "empty")})
    resolver.resolve(request(tmp_path, index, "app"))
    before = len(index.requests)
    error = failure(empty, request(tmp_path, index, "app"))
    assert error.hint == "run `ociforge lock` where there is a network"
    nothing = replace(offline, fetcher=Fetcher(Cache(tmp_path / "nothing"), offline.access))
    with pytest.raises(
        OfflineError, match=r"^environment `default` on `linux-64`: `app-1\.0-py3-none-any\.whl` is not"
    ) as caught:
        nothing.resolve(request(tmp_path, index, "app"))
    assert caught.value.hint == "run `ociforge lock` where there is a network"
    assert len(index.requests) == before
