import csv
import io
import json
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_rows import MINOR, MODERATE, SEVERE, answering, report, right_rows

from evaluation.field_scores import rouge_by_field
from evaluation.predictions import Prediction
from riskva.csvfile import open_csv
from riskva.errors import RecipeError
from riskva.generation.agreement import AgreementCount
from riskva.generation.records import FORMULA_STARTS, write_records
from riskva.generation.review_list import ReviewRule
from riskva.report import DEFAULT_FORMAT, RiskReport

RULE = ReviewRule(0.7, (SEVERE,))
LABELS = DEFAULT_FORMAT.labels


def _rows() -> list[Prediction]:
    """Right; the level wrong and a text other; no report; without a truth; failed; cut off."""
    right, wrong, unread, unknown, failed, cut = right_rows([MINOR, SEVERE, MODERATE, MINOR, MINOR, MINOR])
    return [
        replace(right, image="images/0.jpg", group="g0001", level_probabilities=(0.8, 0.15, 0.05)),
        answering(wrong, replace(report(1, MODERATE), texts={**report(1, MODERATE).texts, "缺陷描述": "墙面泛碱。"})),
        replace(unread, predict="墙面有裂缝，\n请复核。"),
        replace(unknown, label=""),
        replace(failed, predict="", error="images/4.jpg: not an image", image="images/4.jpg", finish_reason="error"),
        replace(cut, finish_reason="length", image=("a.jpg", "b.jpg")),
    ]


def _written(path: Path, rows: Sequence[Prediction], compare_gt: bool = False) -> AgreementCount | None:
    return write_records(rows, DEFAULT_FORMAT, path, compare_gt=compare_gt, rule=RULE)


def _json(path: Path, rows: Sequence[Prediction], compare_gt: bool = False) -> list[dict[str, Any]]:
    _written(path, rows, compare_gt)
    loaded: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def test_a_record_holds_the_report_and_how_sure_it_is(tmp_path: Path) -> None:
    first = _json(tmp_path / "reports.json", _rows())[0]
    assert first == {
        "id": "p000",
        "image": "images/0.jpg",
        "group": "g0001",
        "report": {
            "风险描述": "裂缝会影响美观，也会让水汽渗入。",
            "风险等级": "轻微",
            "纠正和预防建议": "建议开槽后用柔性腻子填补并重新涂刷。",
            "缺陷描述": "客厅墙面存在细小裂缝。",
        },
        "level": "轻微",
        "level_probability": 0.8,
        "level_probabilities": {"轻微": 0.8, "中等": 0.15, "严重": 0.05},
        "finish_reason": None,
        "review": [],
        "error": None,
        "text": None,
    }
    assert list(first["report"]) == list(LABELS)


def test_what_is_no_report_keeps_its_text_and_says_why(tmp_path: Path) -> None:
    records = _json(tmp_path / "reports.json", _rows())
    for place, code in ((2, "no_report"), (4, "error"), (5, "no_report")):
        assert records[place]["report"] is records[place]["level"] is records[place]["level_probability"] is None
        assert [one["code"] for one in records[place]["review"]] == [code]
    assert records[2]["text"] == "墙面有裂缝，\n请复核。"
    assert records[4]["error"] == "images/4.jpg: not an image"
    assert records[5]["text"] == _rows()[5].predict
    assert records[5]["image"] == ["a.jpg", "b.jpg"]


def test_json_and_jsonl_hold_the_same_records(tmp_path: Path) -> None:
    array = _json(tmp_path / "reports.json", _rows(), compare_gt=True)
    _written(tmp_path / "reports.jsonl", _rows(), compare_gt=True)
    lines = (tmp_path / "reports.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == array
    # the array is what json.dump writes
    expected = json.dumps(array, ensure_ascii=False, indent=2) + "\n"
    assert (tmp_path / "reports.json").read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".CSV"])
def test_no_rows_are_a_whole_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"reports{suffix}"
    _written(path, [])
    if suffix == ".json":
        assert json.loads(path.read_text()) == []
    elif suffix == ".jsonl":
        assert path.read_text() == ""
    else:
        assert path.read_bytes().startswith(b"\xef\xbb\xbfid,image,")
        assert _table(path) == []


def test_the_truth_and_where_it_agrees(tmp_path: Path) -> None:
    right, wrong, unread, unknown, failed, cut = _json(tmp_path / "reports.json", _rows(), compare_gt=True)
    assert right["truth"] == right["report"]
    assert right["agreement"]["level"] == {"right": True, "truth": "轻微", "answer": "轻微"}
    assert all(one == {"same": True, "rouge-l": 100.0} for one in right["agreement"]["texts"].values())
    assert wrong["agreement"]["level"] == {"right": False, "truth": "严重", "answer": "中等"}
    assert [one["same"] for one in wrong["agreement"]["texts"].values()] == [True, True, False]
    assert unread["agreement"]["level"] == {"right": False, "truth": "中等", "answer": None}
    for none in (unread, failed, cut):
        assert all(one == {"same": False, "rouge-l": 0.0} for one in none["agreement"]["texts"].values())
    assert (unknown["truth"], unknown["agreement"]) == (None, None)
    assert unknown["truth_reason"] == "the row has no answer of its own"


def test_text_agreement_is_evaluations_rouge(tmp_path: Path) -> None:
    rows = [row for row in _rows() if row.label and not row.is_cut_off]
    count = _written(tmp_path / "reports.json", rows, compare_gt=True)
    assert count is not None
    scores = rouge_by_field([row.answer for row in rows], [row.label for row in rows])
    for label in DEFAULT_FORMAT.text_labels:
        # each row is rounded to two digits
        assert count.rouge_sums[label] / count.num_truths == pytest.approx(scores[label]["rouge-l"], abs=5e-3)


def test_the_summary_counts_levels_texts_and_rows_without_a_truth(tmp_path: Path) -> None:
    count = _written(tmp_path / "reports.csv", _rows(), compare_gt=True)
    assert count is not None
    lines = count.lines()
    assert lines[0] == "1 of 6 rows have no report of their own to compare with"
    assert lines[1] == "level right in 1 of 5 (20.0%)"
    assert lines[2].startswith("风险描述: the same in 2, mean ROUGE-L 40.0")
    assert "stage: eval" in lines[-1]


def test_the_summary_of_rows_without_any_truth_is_one_line(tmp_path: Path) -> None:
    count = _written(tmp_path / "reports.csv", [replace(row, label="") for row in _rows()], compare_gt=True)
    assert count is not None
    assert count.lines() == ["6 of 6 rows have no report of their own to compare with"]
    assert _written(tmp_path / "plain.csv", _rows()) is None


def test_csv_is_for_excel_and_has_a_column_a_field(tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    _written(path, _rows(), compare_gt=True)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = _table(path)
    assert len(rows) == 6
    assert rows[0]["缺陷描述"] == "客厅墙面存在细小裂缝。"
    assert (rows[0]["风险等级"], rows[0]["level_probability"], rows[0]["probability_中等"]) == ("轻微", "0.8", "0.15")
    assert (rows[1]["level_right"], rows[1]["truth_风险等级"], rows[1]["same_缺陷描述"]) == ("no", "严重", "no")
    assert (rows[2]["缺陷描述"], rows[2]["text"]) == ("", "墙面有裂缝，\n请复核。")
    assert rows[2]["review"].startswith("no_report: the answer is no report: ")
    assert (rows[3]["level_right"], rows[3]["truth_reason"]) == ("", "the row has no answer of its own")
    assert rows[5]["image"] == "a.jpg\nb.jpg"


def test_csv_is_read_back_by_the_projects_own_reader(tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    _written(path, _rows())
    file = open_csv(path, lambda header: "缺陷描述" in header)
    assert [file.cells(row)["id"] for row in file.rows()] == [row.id for row in _rows()]


@pytest.mark.parametrize("start", FORMULA_STARTS)
def test_no_cell_is_a_formula(start: str, tmp_path: Path) -> None:
    hostile = f'{start}HYPERLINK("http://x")'
    # white space before a text does not get into a report
    texts = {**report(0, MINOR).texts, "缺陷描述": hostile}
    row = answering(right_rows([MINOR])[0], RiskReport(MINOR, texts))
    rows = [replace(row, id=f"{start}1", image=f"{start}a.jpg"), replace(row, id="2", predict=hostile)]
    path = tmp_path / "reports.csv"
    _written(path, rows)
    cells = [cell for row in _table(path) for cell in row.values()]
    assert not any(cell.startswith(FORMULA_STARTS) for cell in cells)
    assert f"'{hostile}" in cells
    # other forms hold the text as it is
    assert _json(tmp_path / "reports.json", rows)[1]["text"] == hostile


def test_numbers_stay_numbers_in_csv(tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    _written(path, [replace(_rows()[0], level_probabilities=(0.75, 0.25, 1e-7))])
    row = _table(path)[0]
    assert [row[f"probability_{level}"] for level in ("轻微", "中等", "严重")] == ["0.75", "0.25", "0.0"]  # four digits


def test_another_suffix_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"reports\.xlsx: the name must end in \.json, \.jsonl, \.csv"):
        _written(tmp_path / "reports.xlsx", _rows())
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_no_half_file(tmp_path: Path) -> None:
    broken: list[Any] = [*_rows(), None]
    for suffix in (".json", ".csv"):
        with pytest.raises(AttributeError):
            _written(tmp_path / f"reports{suffix}", broken)
    assert list(tmp_path.iterdir()) == []


def test_records_are_made_one_at_a_time(tmp_path: Path) -> None:
    _written(tmp_path / "reports.json", _rows())  # what is loaded once does not count
    rows = [_rows()[0]] * 4000
    tracemalloc.start()
    try:
        _written(tmp_path / "reports.json", rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # measured: 0.4 MB; the records together take 5 MB
    assert peak < 1e6
