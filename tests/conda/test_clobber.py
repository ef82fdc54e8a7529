from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest

from ociforge.conda.clobber import Claim, link_order, lost, settle
from ociforge.conda.info import Python, parse_info
from ociforge.conda.install import install
from ociforge.conda.package import Conflict
from ociforge.errors import PackageError
from tests.conda.environment import records
from tests.support.channel import write_channel
from tests.support.conda import PLACEHOLDER, CondaPackage, FileLike, Link, Regular

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ociforge.conda.info import Noarch

    Judge = Callable[..., tuple[Conflict, ...]]

PYTHON = CondaPackage(name="python", version="3.12.4", files={"bin/python3.12": Regular(content=b"", executable=True)})
ENVIRONMENTS = 16


def told(packages: Sequence[CondaPackage], directory: Path) -> tuple[Conflict, ...]:
    """Who wins, from what the packages say."""
    python = Python.parse("3.12 lib/python3.12/site-packages")
    claims = []
    for package in packages:
        info = parse_info(package.info(), package.filename())
        claims.append(Claim(name=package.name, filename=info.filename, places=dict(info.places(python))))
    return settle(claims, link_order(records(write_channel(directory / "told", packages))))


def linked(packages: Sequence[CondaPackage], directory: Path) -> tuple[Conflict, ...]:
    """Who wins when rattler links the packages."""
    rows = records(write_channel(directory / "channel", packages))
    staging = directory / "staging"
    staging.mkdir(parents=True)
    return install(rows, prefix="/env", subdir="linux-64", cache=directory / "cache", staging=staging).conflicts


@pytest.fixture(params=[told, linked], ids=["told", "linked"])
def judge(request: pytest.FixtureRequest, tmp_path: Path) -> Judge:
    """Both, for tests whose answer is known."""
    judged: Judge = request.param
    numbers = itertools.count()
    return lambda *packages: judged(packages, tmp_path / str(next(numbers)))


def generated(rng: random.Random) -> list[CondaPackage]:
    """A few packages that are likely to be in each other's way, and to depend on each other, round in circles too."""
    names = rng.sample(["a", "b", "c-d", "e", "_f", "g2", "h"], rng.randint(2, 5))
    return [PYTHON, *(_package(rng, name, names) for name in names)]


def _package(rng: random.Random, name: str, names: Sequence[str]) -> CondaPackage:
    depends = tuple(f"{other}{rng.choice(['', ' >=1', '=1.0'])}" for other in rng.sample(names, rng.randint(0, 2)))
    kinds: list[Noarch | None] = [None, None, "generic", "python"]
    kind = rng.choice(kinds)
    pool = ["bin/x", "bin/tool", "share/x", "share/y", "lib/python3.12/site-packages/m.py", "Share/x"]
    files: dict[str, FileLike] = {path: _file(rng) for path in rng.sample(pool, rng.randint(1, 4))}
    entry_points: tuple[str, ...] = ()
    if kind == "python":
        files = {path: file for path, file in files.items() if not path.startswith("lib/")}
        files["site-packages/m.py"] = _file(rng)
        entry_points = (f"{name} = m:main",)
    if rng.random() < 0.1:
        files = {path: file for path, file in files.items() if path != "share/x"} | {"share/x/deep": b""}
    if kind == "python":
        depends = (*depends, "python")
    return CondaPackage(name=name, noarch=kind, depends=depends, files=files, entry_points=entry_points)


def _file(rng: random.Random) -> FileLike:
    text = rng.choice([b"1", b"2"])
    match rng.randrange(4):
        case 0:
            # One that leads somewhere from everywhere: rattler does not move others.
            return Link("/dev/null")
        case 1:
            return Regular(content=PLACEHOLDER.encode() + text, placeholder="text")
        case _:
            return text


def test_nothing_needs_to_be_linked_to_know_who_wins(tmp_path: Path) -> None:
    """The same answer as rattler's own, or the same refusal."""
    contested = refused = 0
    for number in range(ENVIRONMENTS):
        packages = generated(random.Random(number))
        directory = tmp_path / str(number)
        try:
            expected = linked(packages, directory)
        except PackageError:  # its words depend on the order in which rattler linked
            refused += 1
            with pytest.raises(PackageError, match="is a file of"):
                told(packages, directory)
        else:
            contested += len(expected)
            assert told(packages, directory) == expected, number
    assert contested > ENVIRONMENTS
    assert refused > 1


def test_a_package_wins_over_what_it_depends_on(judge: Judge) -> None:
    a = CondaPackage(name="a", depends=("b",), files={"x": b"a", "same": b""})
    b = CondaPackage(name="b", depends=("c",), files={"x": b"b", "same": b""})
    c = CondaPackage(name="c", files={"x": b"c"})
    assert judge(a, b, c) == (
        Conflict(path="same", winner="a", losers=("b",), differs=False),
        Conflict(path="x", winner="a", losers=("b", "c"), differs=True),
    )
    assert lost(judge(c, b, a)) == {"b": {"same", "x"}, "c": {"x"}}


def test_the_name_decides_between_strangers(judge: Judge) -> None:
    a, b = (CondaPackage(name=name, files={"x": name}) for name in "ab")
    assert judge(b, a) == (Conflict(path="x", winner="a", losers=("b",), differs=True),)


def test_in_a_circle_noarch_packages_win(judge: Judge) -> None:
    a = CondaPackage(name="a", depends=("b",), noarch="generic", files={"x": "a"})
    b = CondaPackage(name="b", depends=("a",), files={"x": "b"})
    assert judge(a, b) == (Conflict(path="x", winner="a", losers=("b",), differs=True),)


def test_generated_scripts_take_part(tmp_path: Path) -> None:
    """rattler writes them without looking who else has the path, so its reader refuses."""
    a, b = (
        CondaPackage(name=name, noarch="python", depends=("python",), entry_points=("tool = a:main",)) for name in "ab"
    )
    c = CondaPackage(name="c", files={"bin/tool": ""})
    assert told([PYTHON, a, b], tmp_path) == (Conflict(path="bin/tool", winner="a", losers=("b",), differs=False),)
    assert told([PYTHON, b, c], tmp_path) == (Conflict(path="bin/tool", winner="b", losers=("c",), differs=True),)
    with pytest.raises(PackageError, match=r"`a-1\.0-0\.conda`, `b-1\.0-0\.conda` all provide `bin/tool`") as caught:
        linked([PYTHON, a, b], tmp_path)
    assert caught.value.hint == "build again, or with the streaming installer, which settles it itself"


def test_a_link_that_rattler_does_not_move_is_noticed(tmp_path: Path) -> None:
    """It depends on the order in which rattler links whether one has to be moved: either all is well, or it is told."""
    a = CondaPackage(name="a", depends=("b",), files={"share/x": Link("../nowhere")})
    b = CondaPackage(name="b", files={"share/x": b"b"})
    expected = (Conflict(path="share/x", winner="a", losers=("b",), differs=True),)
    assert told([a, b], tmp_path) == expected
    try:
        assert linked([a, b], tmp_path) == expected
    except PackageError as error:
        assert "did not settle whose is used" in error.message


def test_what_is_not_known_to_be_the_same_counts_as_different(tmp_path: Path) -> None:
    """Archives without `paths.json` do not tell what is in their files."""
    claims = [
        Claim(name=name, filename=name, places=dict(parse_info({"info/files": b"x\n"}, name).places(None)))
        for name in "ab"
    ]
    assert settle(claims, ("a", "b")) == (Conflict(path="x", winner="b", losers=("a",), differs=True),)


def test_a_file_and_a_directory_are_refused(judge: Judge) -> None:
    a = CondaPackage(name="a", files={"x/y/z": ""})
    b = CondaPackage(name="b", files={"x/y": "", "x/y2": ""})
    with pytest.raises(PackageError) as caught:
        judge(a, b)
    assert caught.value.message == "`x/y` is a file of `b-1.0-0.conda` but a directory of `a-1.0-0.conda`"
    assert caught.value.hint == "the two packages cannot be in one environment: lock another build of one"


def test_a_file_and_a_directory_of_one_package() -> None:
    places = dict(parse_info({"info/files": b"x\nx/z\n"}, "a").places(None))
    with pytest.raises(PackageError) as caught:
        settle([Claim(name="a", filename="a", places=places)], ["a"])
    assert caught.value.hint == "report it to the package's maintainers, or lock another build of it"
