"""`ociforge lock` as a function: what it makes is what the lock check wants, for everything that a manifest can say."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from ociforge.errors import LockError, SolveError, WorkspaceError
from ociforge.events import Event, Warned
from ociforge.lock import Change, LockRequest, LockResult, lock
from ociforge.pypi.fetch import Access, Cache, Fetcher
from ociforge.workspace import load
from ociforge.workspace.lockfile import Lock, read, select
from ociforge.workspace.lockwriter import write_lock
from ociforge.workspace.satisfy import check
from tests.pypi.simple_index import Dist, write_index
from tests.support.channel import Channel, Served, serve, write_channel
from tests.support.conda import CondaPackage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = 1_704_067_200_000, 1_735_689_600_000  # 2024-01-01 and 2025-01-01, in milliseconds


def package(name: str, version: str = "1.0", *depends: str, **more: Any) -> CondaPackage:
    return CondaPackage(name=name, version=version, depends=depends, **{"timestamp": OLD, **more})


def packages() -> list[CondaPackage]:
    both = [
        made
        for subdir in ("linux-64", "linux-aarch64")
        for made in (
            package("python", "3.12.4", "__glibc >=2.17", build="h1_0_cpython", subdir=subdir),
            package("python", "3.11.9", "__glibc >=2.17", build="h1_0_cpython", subdir=subdir),
            package("native", "1.0", subdir=subdir),
            package("native", "2.0", subdir=subdir, timestamp=NEW),
        )
    ]
    return [
        *both,
        package("tool", "1.0", "native", noarch="python"),
        package("tool", "2.0", "native >=2", "__unix", noarch="python", timestamp=NEW),
        package("numpy", "2.0", "python", purls=("pkg:pypi/numpy",)),
        package("cuda-thing", "1.0", "__cuda >=12"),
        package("cuda-thing", "0.1", "native"),
        package("only-x86", "1.0"),
        package("optional", "1.0", noarch="generic", index_extra={"extra_depends": {"fast": ["native ==1.0"]}}),
        package("v3", "1.0", "__archspec 1 x86_64_v3"),
        package("fussy", "1.0", "native <2"),
    ]


@dataclass(frozen=True)
class World:
    """A workspace beside a channel and an index."""

    root: Path
    channel: Channel
    other: Channel
    index: Served
    uv_cache: Path

    def write(self, text: str, *, head: str | None = None, name: str = "pixi.toml") -> None:
        start = head if head is not None else HEAD
        (self.root / name).write_text(
            start.replace("INDEX", f"{self.index.url}simple") + text.replace("INDEX", f"{self.index.url}simple")
        )

    def lock(self, previous: Lock | None = None, **more: Any) -> LockResult:
        access = Access(attempts=1)
        return lock(
            LockRequest(
                workspace=load(self.root),
                previous=previous,
                now=NOW,
                cache=self.root.parent / "repodata",
                fetcher=Fetcher(Cache(self.root.parent / "wheels"), access),
                access=access,
                environ={**os.environ, "UV_CACHE_DIR": str(self.uv_cache), "UV_HTTP_RETRIES": "0"},
                retries=0,
            ),
            **more,
        )

    def written(self, previous: Lock | None = None) -> Lock:
        """Lock, write, read back, and have it checked."""
        write_lock(self.root / "pixi.lock", self.lock(previous).text)
        made = read(self.root / "pixi.lock")
        verdict = check(load(self.root).manifest, made, now=NOW)
        assert verdict.satisfied, [str(reason) for reason in (*verdict.reasons, *verdict.undecided)]
        return made

    def found(self, made: Lock, environment: str = "default", platform: str = "linux-64") -> dict[str, str]:
        """Name -> version of what the lock has."""
        selection = select(made, environment, load(self.root).environment(environment, platform).platform)
        conda = {record.name.normalized: str(record.version) for record in selection.records}
        return conda | {f"pypi:{row.name}": row.version or "dynamic" for row in selection.pypi}

    def failure(self) -> WorkspaceError:
        with pytest.raises(WorkspaceError) as caught:
            self.lock()
        return caught.value


HEAD = """\
[workspace]
name = "demo"
channels = ["../channel"]
platforms = ["linux-64", "linux-aarch64"]

[pypi-options]
index-url = "INDEX"

"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    root = tmp_path_factory.mktemp("index")
    write_index(
        root,
        [
            Dist(name="web", requires=("numpy>=1", 'colour ; sys_platform == "win32"', "speed")),
            Dist(name="web", version="0.9", requires=("numpy",)),
            Dist(name="picky", requires=("numpy>=3",)),
            Dist(name="speed", tag="cp312-cp312-manylinux_2_17_x86_64"),
            Dist(name="speed", tag="cp312-cp312-manylinux_2_17_aarch64"),
            Dist(name="pure", extras=("fast",), requires=('speed ; extra == "fast"',)),
        ],
    )
    with serve(root) as served:
        yield served, tmp_path_factory.mktemp("uv")


@pytest.fixture
def world(tmp_path: Path, shared: tuple[Served, Path]) -> World:
    (tmp_path / "workspace").mkdir()
    channel = write_channel(tmp_path / "channel", packages())
    other = write_channel(tmp_path / "other", [package("native", "9.0"), package("rare", "1.0", "native")])
    return World(root=tmp_path / "workspace", channel=channel, other=other, index=shared[0], uv_cache=shared[1])


# --- conda


def test_every_environment_on_every_platform(world: World) -> None:
    world.write(
        '[dependencies]\nnative = "*"\n[feature.test.dependencies]\ntool = "*"\n'
        '[target.linux-64.dependencies]\nonly-x86 = "*"\n[environments]\ntest = ["test"]\n'
    )
    made = world.written()
    assert world.found(made) == {"native": "2.0", "only-x86": "1.0"}
    assert world.found(made, "default", "linux-aarch64") == {"native": "2.0"}
    assert world.found(made, "test", "linux-aarch64") == {"native": "2.0", "tool": "2.0"}


def test_the_lock_does_not_depend_on_where_the_workspace_is(world: World) -> None:
    world.write('[dependencies]\ntool = "*"\npython = "*"\n')
    text = world.lock().text
    assert str(world.root.parent) not in text and "../channel/linux-64/python-3.12.4" in text
    assert text == world.lock().text


def test_an_empty_workspace(world: World) -> None:
    world.write("")
    assert world.found(world.written()) == {}


def test_an_environment_without_platforms(world: World) -> None:
    world.write('[dependencies]\nnative = "*"\n[feature.mac]\nplatforms = ["osx-64"]\n[environments]\nmac = ["mac"]\n')
    made = world.written()
    assert made.environment("mac").platforms == ()


def test_declared_virtual_packages(world: World) -> None:
    head = HEAD.replace(
        '["linux-64", "linux-aarch64"]',
        '["linux-64", { platform = "linux-64", cuda = "12" },'
        ' { name = "fast", platform = "linux-64", archspec = "x86_64_v3" }]',
    )
    world.write('[dependencies]\ncuda-thing = "*"\n[target.fast.dependencies]\nv3 = "*"\n', head=head)
    made = world.written()
    assert world.found(made) == {"cuda-thing": "0.1", "native": "2.0"}
    assert world.found(made, "default", "linux-64-cuda-12") == {"cuda-thing": "1.0"}
    assert world.found(made, "default", "fast") == {"cuda-thing": "0.1", "native": "2.0", "v3": "1.0"}


def test_system_requirements(world: World) -> None:
    world.write(
        '[dependencies]\ncuda-thing = "*"\n[feature.gpu.system-requirements]\ncuda = "12"\n'
        '[feature.gpu]\nplatforms = ["linux-64"]\n[environments]\ngpu = ["gpu"]\n',
        head=HEAD.replace(', "linux-aarch64"', ""),
    )
    made = world.written()
    assert world.found(made) == {"cuda-thing": "0.1", "native": "2.0"}
    assert world.found(made, "gpu") == {"cuda-thing": "1.0"}


def test_constraints(world: World) -> None:
    world.write('[dependencies]\ntool = "*"\n[constraints]\nnative = "<2"\npython = "<3"\n')
    assert world.found(world.written()) == {"native": "1.0", "tool": "1.0"}


@pytest.mark.parametrize(
    ("strategy", "found"),
    [
        ("highest", {"native": "2.0", "tool": "2.0"}),
        ("lowest", {"native": "1.0", "tool": "1.0"}),
        ("lowest-direct", {"native": "2.0", "tool": "1.0"}),
    ],
)
def test_strategies(world: World, strategy: str, found: dict[str, str]) -> None:
    world.write('[dependencies]\ntool = "*"\n', head=HEAD.replace("[pypi", f'solve-strategy = "{strategy}"\n[pypi', 1))
    assert world.found(world.written()) == found


@pytest.mark.parametrize(("priority", "version"), [("strict", "2.0"), ("disabled", "9.0")])
def test_channel_priority(world: World, priority: str, version: str) -> None:
    head = HEAD.replace('["../channel"]', f'["../channel", "../other"]\nchannel-priority = "{priority}"')
    world.write('[target.linux-64.dependencies]\nrare = "*"\n', head=head)
    assert world.found(world.written()) == {"rare": "1.0", "native": version}


def test_channels_of_features_and_their_priorities(world: World) -> None:
    world.write(
        '[feature.first]\nchannels = [{ channel = "../other", priority = 1 }, "../channel"]\n'
        'platforms = ["linux-64"]\n[feature.first.dependencies]\nrare = "*"\n[environments]\nfirst = ["first"]\n'
    )
    made = world.written()
    assert made.environment("first").channels == ("../other/", "../channel/")
    assert world.found(made, "first") == {"native": "9.0", "rare": "1.0"}


def test_specs_with_more_than_a_version(world: World) -> None:
    head = HEAD.replace('["../channel"]', '["../channel", "../other"]').replace(', "linux-aarch64"', "")
    world.write(
        "[dependencies]\n"
        'native = { version = "*", channel = "../other" }\n'
        'tool = { file-name = "tool-1.0-0.conda" }\n'
        'only-x86 = { version = "1.0", build = "0", build-number = "0", subdir = "linux-64", license = "BSD-3-Clause"'
        " }\n"
        'v3 = { version = "*", when = "__win" }\n'
        'numpy = { version = "*", when = { all = ["__unix", { any = ["python >=3.12", "__osx"] }] } }\n'
        'python = ">=3.11"\n',
        head=head,
    )
    found = world.found(world.written())
    assert found == {"native": "9.0", "numpy": "2.0", "only-x86": "1.0", "python": "3.12.4", "tool": "1.0"}


def test_extras(world: World) -> None:
    world.write('[dependencies]\noptional = { version = "*", extras = ["fast"] }\n')
    assert world.found(world.written()) == {"native": "1.0", "optional": "1.0"}


def test_archives_by_path_and_url(world: World) -> None:
    archive = world.other.named("native")[0].path
    (world.root / "vendor").mkdir()
    (world.root / "vendor" / archive.name).write_bytes(archive.read_bytes())
    for spec in (f'path = "vendor/{archive.name}"', f'url = "{archive.as_uri()}"'):
        world.write(f"[target.linux-64.dependencies]\nnative = {{ {spec} }}\n")
        made = world.written()
        assert world.found(made) == {"native": "9.0"}
        (record,) = select(made, "default", load(world.root).environment("default", "linux-64").platform).records
        assert record.sha256 is not None


@pytest.mark.parametrize(
    ("cutoff", "version"),
    [("2024-12-31", "2.0"), ("2024-12-30", "1.0"), ("2025-01-01T00:00:00Z", "2.0"), ("370d", "1.0"), ("360d", "2.0")],
)
def test_exclude_newer(world: World, cutoff: str, version: str) -> None:
    world.write('[dependencies]\nnative = "*"\n', head=HEAD.replace("[pypi", f'exclude-newer = "{cutoff}"\n[pypi', 1))
    assert world.found(world.written()) == {"native": version}


def test_exclude_newer_by_package_and_channel(world: World) -> None:
    head = HEAD.replace('"../channel"', '{ channel = "../channel", exclude-newer = "2024-06-01" }')
    world.write('[dependencies]\nnative = "*"\ntool = "*"\n[exclude-newer]\nnative = "2025-06-01"\n', head=head)
    assert world.found(world.written()) == {"native": "2.0", "tool": "1.0"}


def test_a_solve_group_has_one_version_of_each_package(world: World) -> None:
    world.write(
        '[dependencies]\nnative = "*"\n[feature.old]\nplatforms = ["linux-64"]\n'
        '[feature.old.dependencies]\nfussy = "*"\n'
        '[feature.test.dependencies]\npython = "*"\n[environments]\n'
        'old = { features = ["old"], solve-group = "g" }\ntest = { features = ["test"], solve-group = "g" }\n'
        'prod = { features = [], solve-group = "g" }\n'
    )
    made = world.written()
    assert world.found(made, "old") == {"fussy": "1.0", "native": "1.0"}
    assert world.found(made, "test") == {"native": "1.0", "python": "3.12.4"}
    assert world.found(made, "prod") == {"native": "1.0"}
    assert world.found(made) == {"native": "2.0"}
    assert world.found(made, "prod", "linux-aarch64") == {"native": "2.0"}


def test_environments_of_a_group_must_agree_on_the_channel_priority(world: World) -> None:
    world.write(
        '[dependencies]\nnative = "*"\n[feature.a]\nchannel-priority = "disabled"\n[environments]\n'
        'a = { features = ["a"], solve-group = "g", no-default-feature = true }\n'
        'b = { features = [], solve-group = "g" }\n',
        head=HEAD.replace("[pypi", 'channel-priority = "strict"\n[pypi', 1),
    )
    assert world.failure().message == (
        "solve group `g` (`a`, `b`) on `linux-64` disagrees on `channel-priority`:"
        " `a` wants `disabled`, `b` wants `strict`"
    )


def test_pyproject(world: World) -> None:
    world.write(
        '[project]\nname = "demo"\nversion = "1"\nrequires-python = "==3.11.*"\ndependencies = ["pure"]\n'
        '[dependency-groups]\ntest = ["speed"]\n[tool.pixi.workspace]\nchannels = ["../channel"]\n'
        'platforms = ["linux-64"]\n[tool.pixi.pypi-options]\nindex-url = "INDEX"\n'
        '[tool.pixi.pypi-dependencies]\ndemo = { path = ".", editable = true }\n',
        head="",
        name="pyproject.toml",
    )
    assert world.found(world.written()) == {"python": "3.11.9", "pypi:demo": "1", "pypi:pure": "1.0"}


# --- what was locked before


def test_what_was_locked_is_kept_unless_it_no_longer_fits(world: World) -> None:
    world.write('[dependencies]\ntool = "*"\nnative = "<2"\n')
    before = world.written()
    assert world.found(before) == {"native": "1.0", "tool": "1.0"}
    world.write('[dependencies]\ntool = "*"\npython = "3.11.*"\n')
    kept = world.written(before)
    assert world.found(kept) == {"native": "1.0", "python": "3.11.9", "tool": "1.0"}
    assert world.found(world.written()) == {"native": "2.0", "python": "3.11.9", "tool": "2.0"}
    changes = world.lock(before).changes
    assert [change for change in changes if change.platform == "linux-64"] == [
        Change(
            environment="default",
            platform="linux-64",
            kind="conda",
            name="python",
            before=None,
            after="3.11.9 h1_0_cpython",
        )
    ]


def test_a_new_environment_in_a_solve_group_takes_what_the_others_have(world: World) -> None:
    world.write('[dependencies]\nnative = "<2"\n[environments]\na = { features = [], solve-group = "g" }\n')
    before = world.written()
    world.write(
        '[dependencies]\nnative = "*"\n[environments]\na = { features = [], solve-group = "g" }\n'
        'b = { features = [], solve-group = "g" }\n'
    )
    assert world.found(world.written(before), "b") == {"native": "1.0"}


def test_tallies_and_changes(world: World) -> None:
    world.write(
        '[dependencies]\npython = "*"\n[pypi-dependencies]\npure = "*"\n', head=HEAD.replace(', "linux-aarch64"', "")
    )
    result = world.lock()
    assert [(t.environment, t.platform, t.conda, t.pypi) for t in result.tallies] == [("default", "linux-64", 1, 1)]
    assert [(change.kind, change.name, change.after) for change in result.changes] == [
        ("conda", "python", "3.12.4 h1_0_cpython"),
        ("pypi", "pure", "1.0"),
    ]
    write_lock(world.root / "pixi.lock", result.text)
    again = world.lock(read(world.root / "pixi.lock"))
    assert (again.text, again.changes) == (result.text, ())


# --- PyPI


def test_pypi_packages_beside_conda_ones(world: World) -> None:
    world.write(
        '[dependencies]\npython = "*"\n[target.linux-64.dependencies]\nnumpy = "*"\n[pypi-dependencies]\nweb = "*"\n',
        head=HEAD.replace(', "linux-aarch64"', ""),
    )
    made = world.written()
    assert world.found(made) == {"numpy": "2.0", "python": "3.12.4", "pypi:speed": "1.0", "pypi:web": "1.0"}
    locked = made.environment("default")
    assert locked.indexes == (f"{world.index.url}simple",)
    rows = {
        row.name: row
        for row in select(made, "default", load(world.root).environment("default", "linux-64").platform).pypi
    }
    assert rows["speed"].location.endswith("cp312-cp312-manylinux_2_17_x86_64.whl") and rows["speed"].sha256
    assert rows["web"].index == f"{world.index.url}simple"
    assert "numpy>=1" in rows["web"].requires_dist


def test_each_platform_gets_its_own_wheels(world: World) -> None:
    world.write('[dependencies]\npython = "*"\n[pypi-dependencies]\npure = { version = "*", extras = ["fast"] }\n')
    made = world.written()
    for platform, machine in (("linux-64", "x86_64"), ("linux-aarch64", "aarch64")):
        rows = select(made, "default", load(world.root).environment("default", platform).platform).pypi
        assert [row.location.rpartition("_")[2] for row in rows if row.name == "speed"] == [
            {"x86_64": "64.whl", "aarch64": "aarch64.whl"}[machine]
        ]


def test_what_a_lock_of_before_says_that_a_package_brings(world: World) -> None:
    """A lock of pixi's knows what the channel does not tell."""
    world.write(
        '[dependencies]\npython = "*"\nnative = "*"\n'
        '[pypi-dependencies]\npure = { version = "*", extras = ["fast"] }\n',
        head=HEAD.replace(', "linux-aarch64"', ""),
    )
    before = world.written()
    assert "pypi:speed" in world.found(before)
    text = (world.root / "pixi.lock").read_text()
    entry = text.index("- conda: ../channel/linux-64/native-2.0", text.index("\npackages:"))
    (world.root / "pixi.lock").write_text(
        text[:entry] + text[entry:].replace("purls: []", "purls:\n  - pkg:pypi/speed", 1)
    )
    after = world.written(read(world.root / "pixi.lock"))
    assert world.found(after) == {"native": "2.0", "python": "3.12.4", "pypi:pure": "1.0"}


def test_requirements_that_conda_meets_alone(world: World) -> None:
    world.write(
        '[dependencies]\npython = "*"\nnumpy = "*"\n[pypi-dependencies]\nnumpy = ">=1"\n',
        head=HEAD.replace(', "linux-aarch64"', ""),
    )
    assert world.found(world.written()) == {"numpy": "2.0", "python": "3.12.4"}


def test_a_pypi_requirement_that_a_conda_package_breaks(world: World) -> None:
    world.write(
        '[dependencies]\npython = "*"\nnumpy = "*"\n[pypi-dependencies]\npicky = "*"\n',
        head=HEAD.replace(', "linux-aarch64"', ""),
    )
    error = world.failure()
    assert error.message.startswith(
        "environment `default` on `linux-64`: the PyPI requirements cannot be resolved: No solution"
    )
    assert "picky" in error.message and "numpy" in error.message


def test_pypi_packages_need_a_python(world: World) -> None:
    world.write('[pypi-dependencies]\npure = "*"\n')
    assert world.failure().message.splitlines() == [
        "environment `default` on `linux-64` has PyPI requirements, but no python",
        "environment `default` on `linux-aarch64` has PyPI requirements, but no python",
    ]


def test_a_solve_group_with_pypi_packages(world: World) -> None:
    (world.root / "app").mkdir()
    (world.root / "app" / "pyproject.toml").write_text(
        '[project]\nname = "app"\nversion = "0.1"\ndependencies = ["web"]\nrequires-python = ">=3.10"\n'
    )
    world.write(
        '[dependencies]\npython = "*"\nnumpy = "*"\n[feature.dev.pypi-dependencies]\n'
        'app = { path = "app", editable = true }\npure = "*"\n'
        '[feature.prod.pypi-dependencies]\napp = { path = "./app" }\n'
        '[environments]\ndefault = { features = ["dev"], solve-group = "g" }\n'
        'prod = { features = ["prod"], solve-group = "g" }\n',
        head=HEAD.replace(', "linux-aarch64"', ""),
    )
    made = world.written()
    common = {"numpy": "2.0", "python": "3.12.4", "pypi:app": "0.1", "pypi:speed": "1.0", "pypi:web": "1.0"}
    assert world.found(made, "prod") == common
    assert world.found(made) == common | {"pypi:pure": "1.0"}


def test_indexes_and_links_of_a_workspace(world: World) -> None:
    Dist(name="linked").write(world.root / "wheels")
    head = HEAD.replace(', "linux-aarch64"', "").replace(
        'index-url = "INDEX"',
        'extra-index-urls = ["INDEX"]\nfind-links = [{ path = "./wheels" }]\nindex-url = "INDEX/"',
    )
    world.write(
        '[dependencies]\npython = "*"\n[pypi-dependencies]\nlinked = "*"\npure = { version = "*", index = "INDEX" }\n',
        head=head,
    )
    made = world.written()
    assert world.found(made) == {"python": "3.12.4", "pypi:linked": "1.0", "pypi:pure": "1.0"}
    assert made.environment("default").find_links == ("./wheels",)


def test_overrides_of_dependencies(world: World) -> None:
    head = HEAD.replace(', "linux-aarch64"', "") + '[pypi-options.dependency-overrides]\nnumpy = ">=1"\n'
    world.write('[dependencies]\npython = "*"\nnumpy = "*"\n[pypi-dependencies]\npicky = "*"\n', head=head)
    assert world.found(world.written()) == {"numpy": "2.0", "python": "3.12.4", "pypi:picky": "1.0"}


# --- refusals


def test_conflicts_of_several_environments_are_told_together(world: World) -> None:
    world.write(
        '[feature.a.dependencies]\nfussy = "*"\nnative = ">=2"\n[feature.a]\nplatforms = ["linux-64"]\n'
        '[feature.b.dependencies]\nnowhere = "*"\n[feature.b]\nplatforms = ["linux-64"]\n'
        '[environments]\na = ["a"]\nb = ["b"]\n'
    )
    error = world.failure()
    assert isinstance(error, SolveError)
    assert "environment `a` on `linux-64` cannot be solved: " in error.message
    assert "environment `b` on `linux-64` cannot be solved: No candidates were found for nowhere *" in error.message


def test_what_needs_pixi_build_is_named(world: World) -> None:
    world.write(
        '[dependencies]\nmine = { path = "./src" }\ntheirs = { git = "https://example.com/r.git" }\n'
        '[dev]\nwork = { path = "w" }\n',
        head=HEAD.replace("[pypi", 'preview = ["pixi-build"]\n[pypi', 1),
    )
    error = world.failure()
    assert error.message.splitlines() == [
        "`pixi.toml` cannot be locked: `dependencies.mine` names a source package, which needs pixi-build",
        "`pixi.toml` cannot be locked: `dependencies.theirs` names a source package, which needs pixi-build",
        "`pixi.toml` cannot be locked: `dev.work` needs pixi-build",
    ]


def test_specs_that_the_solver_cannot_be_asked(world: World) -> None:
    world.write('[dependencies]\nnative = { file-name = "other-1.0-0.conda" }\n')
    assert world.failure().message == (
        "environment `default` on `linux-64`: `dependencies.native`: `other-1.0-0.conda` is no archive of `native`:"
        " expected `native-VERSION-BUILD.conda`"
    )


def test_a_solution_that_does_not_fit_is_never_locked(world: World) -> None:
    world.write(
        '[feature.a]\nplatforms = ["linux-64"]\n[feature.a.dependencies]\npython = "*"\n[feature.a.pypi-dependencies]\n'
        'lost = { path = "./nowhere.whl" }\n[environments]\na = ["a"]\n'
    )
    error = world.failure()
    assert isinstance(error, (LockError, SolveError)) and "nowhere.whl" in error.message


def test_a_custom_map_is_warned_about(world: World) -> None:
    world.write(
        '[dependencies]\nnative = "*"\n', head=HEAD.replace("[pypi", 'conda-pypi-map = { "x" = "map.json" }\n[pypi', 1)
    )
    events: list[Event] = []
    world.lock(notify=events.append)
    assert [event for event in events if isinstance(event, Warned)] == [
        Warned("`conda-pypi-map` is not used: what a conda package brings is taken from its channel")
    ]
