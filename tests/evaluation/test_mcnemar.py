import pytest
from scipy.stats import binomtest

from evaluation.mcnemar import mcnemar
from riskva.errors import DataError


def test_it_is_scipys_exact_binomial_test() -> None:
    for first in range(12):
        for second in range(12):
            if first + second:
                expected = binomtest(first, first + second, 0.5).pvalue
                # scipy adds up floating-point terms: the largest difference here is 2e-16 of the value
                assert mcnemar(first, second) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("first", "second"), [(300, 400), (4000, 3900), (0, 60), (40, 1000)])
def test_it_is_scipys_for_many_rows(first: int, second: int) -> None:
    # scipy adds up logarithms of large numbers: 7e-14 at most here
    assert mcnemar(first, second) == pytest.approx(binomtest(first, first + second, 0.5).pvalue, rel=1e-9)


def test_a_case_worked_by_hand() -> None:
    # 1 and 5 of 6: twice (1 + 6) of 64 ways
    assert mcnemar(1, 5) == mcnemar(5, 1) == 14 / 64


def test_models_that_no_row_tells_apart() -> None:
    assert mcnemar(0, 0) == mcnemar(7, 7) == 1.0


def test_many_rows_lose_nothing() -> None:
    assert 0 <= mcnemar(0, 100_000) < 1e-300
    assert mcnemar(50_000, 50_001) == pytest.approx(1.0)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(DataError, match="at least 0, found -1 and 3"):
        mcnemar(-1, 3)
