import json
from dataclasses import replace

import pytest
from report_rows import HUNDRED, MINOR, MODERATE, SEVERE, answering, expected, report, right_rows

from evaluation.comparison import compare
from evaluation.comparison_table import comparison_to_json, render_comparison
from evaluation.evaluated import Evaluation
from evaluation.predictions import Prediction
from evaluation.sample_scores import Scoring
from evaluation.scoring import score
from riskva.errors import DataError
from riskva.level_costs import LevelCosts

ROWS = right_rows([MINOR, MODERATE, SEVERE] * 8)


def _with(rows: list[Prediction], changes: dict[int, Prediction]) -> Evaluation:
    return score([changes.get(index, row) for index, row in enumerate(rows)], Scoring())


def _called(row: int, level: object) -> Prediction:
    return answering(ROWS[row], replace(expected(ROWS[row]), level=level))


def test_wins_and_losses_are_told_row_by_row_the_furthest_apart_first() -> None:
    first = _with(ROWS, {2: _called(2, MINOR), 4: _called(4, MINOR), 7: answering(ROWS[7], report(3, MODERATE))})
    second = _with(ROWS, {0: _called(0, MODERATE), 5: _called(5, MINOR)})
    (rival,) = compare({"old": first, "new": second}).rivals
    # costs 10, 3, then a wrong kind at no cost; losses 10, 1
    assert rival.wins == (2, 4, 7)
    assert rival.losses == (5, 0)
    assert (rival.num_only_first, rival.num_only_this) == (2, 2)
    assert rival.p_value == 1
    difference = rival.differences["risk_level.expected_cost"]
    assert difference is not None
    assert difference.value == pytest.approx((11 - 13) / 24)


def test_mcnemar_is_scipys() -> None:
    from scipy.stats import binomtest

    first = _with(ROWS, {row: _called(row, MINOR) for row in range(1, 24, 3)} | {2: _called(2, MINOR)})
    second = _with(ROWS, {3: _called(3, SEVERE), 2: _called(2, MINOR)})
    (rival,) = compare({"old": first, "new": second}).rivals
    assert (rival.num_only_first, rival.num_only_this) == (1, 8)
    assert rival.p_value == pytest.approx(binomtest(1, 9).pvalue, abs=1e-12)


def test_a_run_against_itself_differs_nowhere() -> None:
    run = _with(ROWS, {2: _called(2, MINOR)})
    (rival,) = compare({"one": run, "same": run}).rivals
    assert rival.wins == rival.losses == ()
    assert all(one is None or one.value == 0 for one in rival.differences.values())


def test_rows_in_another_order_are_put_in_order() -> None:
    first, second = _with(ROWS, {2: _called(2, MINOR)}), _with(ROWS, {5: _called(5, MINOR)})
    shuffled = score([*second.predictions[12:], *second.predictions[:12]], Scoring())
    straight, turned = compare({"a": first, "b": second}), compare({"a": first, "b": shuffled})
    assert turned.rivals[0].wins == straight.rivals[0].wins == (2,)
    assert [row.id for row in turned.runs["b"].predictions] == [row.id for row in ROWS]
    (missed,) = (one for one in turned.runs["b"].findings if one.code == "severe_missed")
    assert missed.rows == (5,)


def test_other_rows_labels_and_ways_of_scoring_are_refused() -> None:
    first = _with(ROWS, {})
    with pytest.raises(DataError, match=r"their data differ: 24 rows.*23 rows.*Predict both.*p023"):
        compare({"a": first, "b": score(ROWS[:-1], Scoring())})
    relabelled = score([replace(ROWS[0], label=_called(0, SEVERE).predict), *ROWS[1:]], Scoring())
    with pytest.raises(DataError, match=r"their data differ.*rows or labels differ at id p000"):
        compare({"a": first, "b": relabelled})
    with pytest.raises(DataError, match=r"their costs differ.*Score both in the same way"):
        compare({"a": first, "b": score(ROWS, Scoring(costs=LevelCosts(HUNDRED)))})
    with pytest.raises(DataError, match=r"1 run\(s\) to compare"):
        compare({"a": first})


def test_the_table_and_the_json_say_what_was_found() -> None:
    first = _with(ROWS, {row: _called(row, MINOR) for row in range(2, 24, 3)})
    comparison = compare({"old": first, "new": _with(ROWS, {3: _called(3, SEVERE)})})
    table = render_comparison(comparison)
    recall = next(line for line in table.split("\n") if line.startswith("recall of 严重"))
    assert recall.split()[3:6] == ["0.000", "0.000", "1.000"]
    assert "new against old: level right in old alone 1 times, in new alone 8 times; McNemar, exact, p = 0.039" in table
    cost = next(line for line in table.split("\n") if line.startswith("expected cost"))
    assert cost.endswith("*")
    written = json.loads(json.dumps(comparison_to_json(comparison), ensure_ascii=False))
    assert written["first"] == "old"
    assert written["rivals"]["new"]["losses"] == ["p003"]
    assert len(written["rivals"]["new"]["wins"]) == 8
    assert written["scores"]["new"]["risk_level.severe_recall"] == 1
