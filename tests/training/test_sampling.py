from riskva.training.sampling import LengthSampler


def test_rows_of_like_length_come_together_in_another_order_each_epoch() -> None:
    lengths = [(7 * row) % 500 for row in range(400)]
    sampler = LengthSampler(4, lengths, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(400))
    spread = [max(part) - min(part) for part in _in_fours([lengths[row] for row in first])]
    unsorted = [max(part) - min(part) for part in _in_fours(lengths)]
    assert sum(spread) < 0.5 * sum(unsorted) or sum(spread) / len(spread) < 30
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    again = LengthSampler(4, lengths, seed=1)
    again.set_epoch(1)  # what a resumed run does
    assert list(again) == second


def _in_fours(values: list[int]) -> list[list[int]]:
    return [values[start : start + 4] for start in range(0, len(values), 4)]
