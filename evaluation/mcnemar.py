"""Whether two models differ on the same rows more than chance would have it."""

from __future__ import annotations

from itertools import accumulate

from riskva.errors import DataError


def mcnemar(num_only_first: int, num_only_second: int) -> float:
    """The exact two-sided p of McNemar's test (1947): 1.0 when no row tells the models apart.

    The counts are of rows that only the one or only the other model answered rightly; were the models alike, each such
    row would fall to either with probability a half. Rows that belong together break that: then look at the interval.
    Raises `DataError` for a negative count.
    """
    if min(num_only_first, num_only_second) < 0:
        raise DataError(f"counts of rows are at least 0, found {num_only_first} and {num_only_second}")
    num_rows, fewer = num_only_first + num_only_second, min(num_only_first, num_only_second)
    # whole numbers all the way, so that nothing is lost in a tail of 2^-1000: ways = num_rows over 0, 1, …, fewer
    ways = accumulate(range(1, fewer + 1), lambda way, k: way * (num_rows - k + 1) // k, initial=1)
    return min(1.0, 2 * sum(ways) / (1 << num_rows))
