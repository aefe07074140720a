import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from evaluation.predictions import Prediction
from evaluation.scoring import Metrics, score
from evaluation.side_by_side import ScoreLine, read_metrics, render_side_by_side, score_lines
from evaluation.table import display_width
from riskva.errors import DataError, MissingDataError
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport

MINOR, MODERATE, SEVERE = RiskLevel
LEVELS = (MINOR, MINOR, MODERATE, SEVERE)


def _text(level: RiskLevel) -> str:
    return DEFAULT_FORMAT.render(
        RiskReport(level, dict.fromkeys(DEFAULT_FORMAT.text_labels, f"{level.label}的墙面裂缝"))
    )


def _metrics(answers: Sequence[str], levels: Sequence[RiskLevel] = LEVELS) -> Metrics:
    rows = [
        Prediction(str(number), "问", answer, _text(level))
        for number, (answer, level) in enumerate(zip(answers, levels, strict=True))
    ]
    return score(rows, DEFAULT_FORMAT)


@pytest.fixture(scope="module")
def runs() -> dict[str, Metrics]:
    """A base that never answers with a report, and a model that calls 严重 中等."""
    tuned = [_text(level) for level in (MINOR, MINOR, MODERATE, MODERATE)]
    return {"base": _metrics(["一面墙"] * 4), "fine-tuned": _metrics(tuned)}


def _cells(table: str, start: str) -> list[str]:
    line = next(line for line in table.split("\n") if line.startswith(start))
    return line.removeprefix(start).split()


def test_every_line_has_the_floor_and_each_run(runs: dict[str, Metrics]) -> None:
    table = render_side_by_side(runs)
    assert _cells(table, "4 rows") == ["floor", "base", "fine-tuned"]
    assert _cells(table, "reports that parse") == ["–", "0.000", "1.000"]
    assert _cells(table, "accuracy") == ["0.500", "0.000", "0.750"]
    # always 轻微: precision 1/2, recall 1, and two levels at 0; the tuned model: 1, 2/3 and 0
    assert _cells(table, "macro-F1") == [f"{2 / 9:.3f}", "0.000", f"{5 / 9:.3f}"]
    assert _cells(table, "recall of 严重") == ["–", "0.000", "0.000"]
    assert "always" not in table
    assert "轻微 for the level" in table.split("\n")[-1]


def test_texts_stand_field_by_field_and_whole_last(runs: dict[str, Metrics]) -> None:
    table = render_side_by_side(runs)
    base, tuned = runs.values()
    for name in (*DEFAULT_FORMAT.text_labels, "whole"):
        expected = (tuned["rouge"][name]["floor"]["rouge-l"], *(run["rouge"][name]["rouge-l"] for run in (base, tuned)))
        assert _cells(table, f"ROUGE-L {name}, %") == [f"{value:.1f}" for value in expected]
    assert _cells(table, "BLEU-4 whole, %") == [f"{x:.1f}" for x in (base["floor_bleu"], base["bleu"], tuned["bleu"])]
    assert [line.split(",")[0] for line in table.split("\n") if "%" in line][-2:] == ["ROUGE-L whole", "BLEU-4 whole"]


def test_a_run_without_reports_under_calls_nothing_that_is_known(runs: dict[str, Metrics]) -> None:
    assert runs["base"]["risk_level"]["under_call_rate"] == 0.0
    assert _cells(render_side_by_side(runs), "under-called (less is better)") == ["–", "–", "0.500"]


def test_columns_are_aligned_and_more_lines_come_last(runs: dict[str, Metrics]) -> None:
    more = [ScoreLine("kind", 0.25, (None, 1.0)), ScoreLine("percent", None, (12.34, 5.0), is_percent=True)]
    *lines, _note = render_side_by_side(runs, more).split("\n")
    assert len({display_width(line) for line in lines}) == 1
    assert [line.split() for line in lines[-2:]] == [["kind", "0.250", "–", "1.000"], ["percent", "–", "12.3", "5.0"]]


def test_any_number_of_runs(runs: dict[str, Metrics]) -> None:
    third = {**runs, "third": runs["base"]}
    assert {len(line.scores) for line in score_lines(third)} == {3}
    assert {len(line.scores) for line in score_lines({"one": runs["base"]})} == {1}
    with pytest.raises(DataError, match="no runs"):
        render_side_by_side({})


@pytest.mark.parametrize(
    ("levels", "what"),
    [
        ((MINOR, MINOR, MODERATE), "num_samples"),
        ((MINOR, MINOR, MINOR, SEVERE), "floor_accuracy"),
        ((SEVERE, SEVERE, MODERATE, MINOR), "floor_level"),
    ],
)
def test_runs_on_other_rows_are_refused(runs: dict[str, Metrics], levels: tuple[RiskLevel, ...], what: str) -> None:
    other = _metrics([_text(level) for level in levels], levels)
    with pytest.raises(DataError, match="base and other were not scored on the same rows") as caught:
        render_side_by_side({"base": runs["base"], "other": other})
    assert what in str(caught.value)


def test_runs_scored_in_another_way_are_refused(runs: dict[str, Metrics]) -> None:
    base = runs["base"]
    other: Metrics = {**base, "signature": {**base["signature"], "segmenter": "jieba 0.1"}}
    with pytest.raises(DataError, match=r"signature of segmenter is 'jieba .*'jieba 0.1' here"):
        score_lines({"base": base, "other": other})


def test_metrics_survive_their_file(runs: dict[str, Metrics], tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(runs["base"]), encoding="utf-8")
    assert read_metrics(path) == runs["base"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "lacks bleu, floor_bleu, format"),
        ('{"rouge": {}, "risk_level": 3}', "lacks bleu, .*risk_level.accuracy"),
    ],
)
def test_what_is_no_metrics_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_metrics(path)
    assert str(path) in str(caught.value)


def test_an_absent_metrics_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"metrics.json: no such file; score"):
        read_metrics(tmp_path / "metrics.json")


def test_comparing_loads_no_heavy_library() -> None:
    code = (
        "import sys, evaluation.side_by_side; print({'torch', 'transformers', 'evaluate', 'nltk'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
