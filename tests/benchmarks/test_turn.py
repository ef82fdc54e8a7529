from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.contestants import Forge, take_turn
from tests.benchmarks.tiny import tiny_ground

if TYPE_CHECKING:
    from benchmarks.results import Result, Scenario


# Three builds are enough here; the second platform and an empty store are options and paths of the same command.
WANTED: tuple[Scenario, ...] = ("nothing changed", "one dependency changed")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """A turn of ours: a second or two."""
    root = tmp_path_factory.mktemp("turn")
    ground = tiny_ground(root)
    return {result.scenario: result for result in take_turn(Forge(codec="gzip"), ground, root / "scratch", WANTED)}


def test_what_is_wanted_is_measured_and_cold(results: dict[str, Result]) -> None:
    assert tuple(results) == ("cold", *WANTED)
    assert all(result.usage.cpu > 0 and result.usage.memory > 10e6 for result in results.values())
    assert all(result.registry.cpu >= 0 and result.received > 0 for result in results.values())
    assert {(result.ground, result.tool) for result in results.values()} == {("tiny", "ociforge, gzip")}


def test_only_what_changed_is_sent(results: dict[str, Result]) -> None:
    sent = [results[name].sent for name in ("nothing changed", "one dependency changed", "cold")]
    assert sent == sorted(set(sent))
    requests = [results[name].requests for name in ("nothing changed", "one dependency changed", "cold")]
    assert 0 < requests[0] < requests[1] < requests[2]
