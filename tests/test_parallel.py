from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from ociforge.parallel import beside, ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_order(workers: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    with ordered_map(workers) as over:
        assert list(over(work, range(20))) == list(range(20))


def test_bounded() -> None:
    """No more is taken from the input than is under way, however slow the consumer is."""
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    with ordered_map(2, ahead=3) as over:
        results = over(str, numbers())
        assert taken == []
        assert next(iter(results)) == "0"
        assert len(taken) <= 1 + 3


def test_first_failure_in_order() -> None:
    def fail(number: int) -> int:
        if number >= 3:
            raise ValueError(number)
        return number

    with pytest.raises(ValueError, match="3"), ordered_map(4) as over:
        list(over(fail, range(10)))


def test_what_has_not_begun_is_dropped() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 0:
            raise ValueError("first")
        time.sleep(0.02)
        return number

    with pytest.raises(ValueError, match="first"), ordered_map(2, ahead=50) as over:
        list(over(work, range(50)))
    assert len(begun) < 50


def test_two_calls_side_by_side() -> None:
    with ordered_map(3) as outer, ordered_map(3, ahead=1) as inner:
        assert list(outer(lambda number: sum(inner(int, str(number))), range(100, 120))) == [
            sum(map(int, str(number))) for number in range(100, 120)
        ]


def test_an_interrupt_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ociforge.parallel._GRACE", 0.05)
    gate = threading.Event()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), ordered_map(2) as over:
        results = iter(over(lambda number: number or gate.wait(20), [1, 0, 0]))
        next(results)
        raise KeyboardInterrupt
    assert time.monotonic() - start < 5
    gate.set()


def test_beside() -> None:
    both = threading.Barrier(2, timeout=20)
    done = []

    def work(wanted: Callable[[], bool]) -> None:
        both.wait()
        done.append(wanted())

    with beside(work):
        both.wait()
    assert done == [True]


def test_beside_ends_with_the_block() -> None:
    begun = threading.Event()
    ended = []

    def work(wanted: Callable[[], bool]) -> None:
        begun.set()
        while wanted():
            time.sleep(0.001)
        ended.append(True)

    with pytest.raises(ValueError, match="block"), beside(work):
        begun.wait()
        raise ValueError("block")
    assert ended == [True]


def test_beside_raises_what_the_thread_does() -> None:
    def work(wanted: Callable[[], bool]) -> None:
        raise ValueError("thread")

    with pytest.raises(ValueError, match="thread"), beside(work):
        pass
