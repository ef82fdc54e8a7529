from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from layers.entry import Directory
from ociforge.conda.facts import gather_facts
from ociforge.conda.info import parse_info
from ociforge.conda.install import install
from ociforge.conda.package import Activation, Conflict
from ociforge.conda.survey import Summary, Survey, check_records, claim, interpreter, summary_key, survey
from ociforge.errors import PackageError
from ociforge.events import Event, StageStarted
from ociforge.store import Documents
from tests.conda.environment import records
from tests.support.channel import Channel, write_channel
from tests.support.conda import PLACEHOLDER, CondaPackage, Regular

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = CondaPackage(
    name="python",
    version="3.13.1",
    python_site_packages_path="lib/python3.13t/site-packages",
    files={"bin/python3.13": Regular(content=b"", executable=True), "conda-meta/history": "", "bin/sh": ""},
)
PURE = CondaPackage(
    name="pure",
    noarch="python",
    depends=("python",),
    files={"site-packages/pure.py": "", "python-scripts/old": "", "etc/conda/activate.d/z.sh": "", "share/x": "1"},
    entry_points=("pure = pure:main",),
)
HOOKS = CondaPackage(
    name="hooks",
    files={
        "etc/conda/env_vars.d/b.json": Regular(
            content=f'{{"B": "{PLACEHOLDER}/b"}}'.encode(), placeholder="text", executable=True
        ),
        "etc/conda/env_vars.d/c": Regular(content=f'{{"C": "{PLACEHOLDER}"}}'.encode(), placeholder="binary"),
        "etc/conda/env_vars.d/deep/er.json": "{}",
        "etc/conda/activate.d/a.sh": "",
        "etc/conda/activate.d/a.fish": "",
        "etc/conda/activate.d/z.sh": "lost",
        "share/x": "2",
        "share/y": "2",
        "conda-meta/state": '{"env_vars": {}}',
    },
    post_link="true\n",
)
LAST = CondaPackage(
    name="last",
    depends=("hooks",),
    files={"share/y": "2", "etc/conda/env_vars.d/b.json": '{"B": "last"}', "bin/.last-pre-link.sh": ""},
)
ALL = (PYTHON, PURE, HOOKS, LAST)


def surveyed(channel: Channel, tmp_path: Path, prefix: str = "/app/env") -> Survey:
    rows = records(channel)
    facts = gather_facts(rows, archives=tmp_path / "archives", documents=Documents(tmp_path / "store", "facts"))
    return survey(rows, facts, prefix=prefix)


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return write_channel(tmp_path / "channel", ALL)


def test_it_tells_what_an_installation_would(channel: Channel, tmp_path: Path) -> None:
    found = surveyed(channel, tmp_path)
    (tmp_path / "staging").mkdir()
    events: list[Event] = []
    installation = install(
        records(channel),
        prefix="/app/env",
        subdir="linux-64",
        cache=tmp_path,
        staging=tmp_path / "staging",
        notify=events.append,
    )
    assert found.conflicts == installation.conflicts
    assert found.python == installation.python == "3.13 lib/python3.13t/site-packages"
    assert found.activation == installation.activation
    paths = {
        entry.path.removeprefix("app/env/"): package.name
        for package in installation.packages
        for entry in package.entries
        if not isinstance(entry, Directory)
    }
    written = {path for path in paths if path.startswith("conda-meta/") and path.endswith(".json")}
    assert {**found.owners, **{path: paths[path] for path in written}} == paths | {"conda-meta/history": "python"}
    warned = [event for event in events if not isinstance(event, StageStarted) and "Blob" not in type(event).__name__]
    assert list(found.summary(()).warnings()) == warned


def test_the_winner_activates(channel: Channel, tmp_path: Path) -> None:
    found = surveyed(channel, tmp_path, prefix="/p")
    assert found.activation == Activation(
        scripts=("etc/conda/activate.d/a.sh", "etc/conda/activate.d/z.sh"),
        variables=(
            ("etc/conda/env_vars.d/b.json", '{"B": "last"}'),
            ("etc/conda/env_vars.d/c", found.activation.variables[1][1]),
        ),
        state='{"env_vars": {}}',
    )
    assert [(conflict.path, conflict.winner, conflict.differs) for conflict in found.conflicts] == [
        ("etc/conda/activate.d/z.sh", "hooks", True),
        ("etc/conda/env_vars.d/b.json", "last", True),
        ("share/x", "hooks", True),
        ("share/y", "last", False),
    ]


def test_variables_name_the_prefix(tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "channel", [HOOKS])
    assert dict(surveyed(channel, tmp_path, prefix="/p").activation.variables)["etc/conda/env_vars.d/b.json"] == (
        '{"B": "/p/b"}'
    )


def test_a_prefix_can_be_too_long(tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "channel", [HOOKS])
    with pytest.raises(
        PackageError, match=r"`etc/conda/env_vars\.d/c` of `hooks-1\.0-0\.conda`: target prefix"
    ) as caught:
        surveyed(channel, tmp_path, prefix="/" + "p" * len(PLACEHOLDER))
    assert caught.value.hint == "choose a shorter prefix: binaries have no room for this one"


def test_a_summary_survives_a_round_trip(channel: Channel, tmp_path: Path) -> None:
    found = surveyed(channel, tmp_path)
    summary = found.summary(["bin/sh", "bin/bash", "bin/pure"])
    assert summary.present == {"bin/sh", "bin/pure"}
    assert Summary.from_json(summary.to_json()) == summary
    assert (summary.conflicts, summary.activation, summary.python) == (found.conflicts, found.activation, found.python)


def test_a_summary_is_small() -> None:
    """Many conflicts of the same packages are told once."""
    summary = Summary(
        python=None,
        conflicts=tuple(
            Conflict(path=f"share/{number:03}", winner="a", losers=("b",), differs=number % 2 == 0)
            for number in range(500)
        ),
        activation=Activation(),
        link_scripts=(),
        present=frozenset(),
    )
    assert Summary.from_json(summary.to_json()) == summary
    assert len(summary.to_json()) < 8192


@pytest.mark.parametrize("data", [b"", b"{}", b'{"format":2}', b"[]"])
def test_what_is_no_summary_is_none(data: bytes) -> None:
    assert Summary.from_json(data) is None


def test_another_format_is_none(channel: Channel, tmp_path: Path) -> None:
    data = surveyed(channel, tmp_path).summary(()).to_json()
    assert Summary.from_json(data.replace(b'"format":1', b'"format":2')) is None


def test_the_key_is_that_of_all_inputs(channel: Channel) -> None:
    rows = records(channel)
    key = summary_key(rows, prefix="/p", asked=["a", "b"])
    assert summary_key(rows[::-1], prefix="/p", asked=["b", "a"]) == key
    others = [
        summary_key(rows, prefix="/q", asked=["a", "b"]),
        summary_key(rows, prefix="/p", asked=["a"]),
        summary_key(rows[1:], prefix="/p", asked=["a", "b"]),
    ]
    rows[0].depends = ["other"]
    others.append(summary_key(rows, prefix="/p", asked=["a", "b"]))
    assert len({key, *others}) == 5


def test_an_environment_can_be_empty(tmp_path: Path) -> None:
    found = surveyed(write_channel(tmp_path / "channel", []), tmp_path)
    assert (found.facts, found.python, found.owners, interpreter([])) == ((), None, {}, None)


def test_noarch_python_needs_python(tmp_path: Path) -> None:
    channel = write_channel(tmp_path / "channel", [PURE])
    with pytest.raises(PackageError, match="there is no python version specified"):
        surveyed(channel, tmp_path)


def test_lock_and_archive_must_agree_on_noarch(tmp_path: Path) -> None:
    """Whether the interpreter is part of the layer's key is decided by the lock."""
    channel = write_channel(tmp_path / "channel", [PYTHON, PURE])
    rows = records(channel)
    facts = gather_facts(rows, archives=tmp_path / "archives", documents=Documents(tmp_path / "store", "facts"))
    with pytest.raises(PackageError, match="disagree whether it is a noarch Python package"):
        survey([rows[0], rows[0]], facts, prefix="/p")


ELSEWHERE = ["/etc/x", "../x", "../../../../../x", "lib/../../x", "./lib//x/", "", ".", "..", "lib/", "a\0b"]


@pytest.mark.parametrize("directory", ELSEWHERE)
def test_site_packages_stay_in_the_prefix(tmp_path: Path, directory: str) -> None:
    rows = records(write_channel(tmp_path / "channel", [PYTHON]))
    rows[0].python_site_packages_path = directory
    with pytest.raises(PackageError) as caught:
        check_records(rows, "/p")
    assert caught.value.message == (
        f"`python-3.13.1-0.conda`: `python_site_packages_path` is `{directory}`: expected a path below the prefix"
    )


@pytest.mark.parametrize("part", ["../x", "/x", "a/b", "..", ".", "", "a\0b", "a/"])
@pytest.mark.parametrize("field", ["build", "subdir"])
def test_what_becomes_part_of_a_path_is_none(tmp_path: Path, field: str, part: str) -> None:
    """Names of `conda-meta` and of rattler's cache, and the address in the record."""
    package = CondaPackage(name="p", index_extra={field: part})
    with pytest.raises(PackageError) as caught:
        check_records(records(write_channel(tmp_path / "channel", [package])), "/p")
    assert caught.value.message == f"`p-1.0-0.conda`: the {field} is `{part}`: expected a part of a path"
    assert caught.value.hint == "the channel's index is wrong: tell its owner, or lock another build"


@pytest.mark.parametrize("name", ["../p-1.0-0.conda", "/p-1.0-0.conda", "p-1.0-../../x.conda", "p-1.0-\0.conda"])
def test_the_name_of_an_archive_is_one(tmp_path: Path, name: str) -> None:
    rows = records(write_channel(tmp_path / "channel", [CondaPackage(name="p")]))
    rows[0].file_name = name
    with pytest.raises(PackageError, match="the file name is `"):
        check_records(rows, "/p")


@pytest.mark.parametrize("name", [".", ".."])
def test_names_that_are_no_names(tmp_path: Path, name: str) -> None:
    """rattler allows dots."""
    rows = records(write_channel(tmp_path / "channel", [CondaPackage(name=name)]))
    with pytest.raises(PackageError, match=rf"the name is `{re.escape(name)}`"):
        check_records(rows, "/p")


def test_two_files_for_one_place(tmp_path: Path) -> None:
    package = CondaPackage(name="p", noarch="python", files={"bin/x": "1", "python-scripts/x": "2"})
    (record,) = records(write_channel(tmp_path / "channel", [package]))
    info = parse_info(package.info(), "p-1.0-0.conda")
    with pytest.raises(PackageError) as caught:
        claim(record, info, interpreter(records(write_channel(tmp_path / "python", [PYTHON]))))
    assert caught.value.message == "`p-1.0-0.conda` ships two files for `bin/x`"
    assert caught.value.hint == "report it to the package's maintainers, or lock another build of it"
