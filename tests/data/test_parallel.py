import threading
import time
from collections.abc import Iterator

import pytest

from riskva.data.parallel import ordered_map


@pytest.mark.parametrize("num_workers", [1, 3])
def test_results_come_in_the_order_of_the_items(num_workers: int) -> None:
    def slow_for_small(number: int) -> int:
        time.sleep(0.002 * (10 - number))
        return number * number

    assert list(ordered_map(slow_for_small, range(10), num_workers)) == [number * number for number in range(10)]


def test_items_are_taken_only_a_little_ahead_of_the_reader() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    results = ordered_map(lambda number: number, items(), 2)
    assert next(results) == 0
    assert taken <= 16


def test_an_exception_reaches_the_reader_and_ends_the_work() -> None:
    def fail_at_three(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    before = threading.active_count()
    with pytest.raises(ValueError, match="three"):
        list(ordered_map(fail_at_three, range(100), 2))
    assert threading.active_count() == before
