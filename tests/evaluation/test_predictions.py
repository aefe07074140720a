import csv
import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from evaluation.predictions import Prediction, read_predictions
from riskva.errors import DataError, MissingDataError
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport


def _write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _row(**changes: object) -> dict[str, object]:
    return {"prompt": "问", "predict": "答", "label": "标", **changes}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "generated_predictions.jsonl"


def test_llama_factorys_rows_are_called_by_their_numbers(path: Path) -> None:
    _write(path, _row(), _row(predict="答\n二\u2028\x85"))
    assert read_predictions(path) == [
        Prediction("1", "问", "答", "标"),
        Prediction("2", "问", "答\n二\u2028\x85", "标"),
    ]
    assert not any(row.has_own_id for row in read_predictions(path))


def test_every_key_makes_the_round_trip(path: Path) -> None:
    rows = [
        Prediction("a", "问", "答 \"'\n", "标", "images/1.jpg", "g0001", "严重", 0.875, (0.0, 0.125, 0.875), "stop"),
        Prediction("b", "", "", "标", image=("1.jpg", "2.jpg"), error="images/2.jpg: truncated"),
        Prediction("c", "", "", "标", image=()),
    ]
    _write(path, *(asdict(row) for row in rows))
    assert read_predictions(path) == rows


def test_probabilities_may_be_given_by_level_and_rounded(path: Path) -> None:
    by_level = {"严重": 0.7, "轻微": 0.1, "中等": 0.2}
    _write(path, _row(level_probabilities=by_level), _row(level_probabilities=[0.333, 0.333, 0.333]), _row(group=3))
    read = read_predictions(path)
    assert [row.level_probabilities for row in read] == [(0.1, 0.2, 0.7), (0.333, 0.333, 0.333), None]
    assert [row.group for row in read] == [None, None, "3"]


def test_a_failed_row_needs_no_answer_and_has_none(path: Path) -> None:
    _write(path, {"id": 7, "label": "标", "error": "no such photo"}, _row(error="stopped", predict="half"))
    failed, half = read_predictions(path)
    assert (failed.id, failed.error, failed.answer) == ("7", "no such photo", "")
    assert half.answer == ""


def test_a_row_that_could_not_even_be_read_has_no_label(path: Path) -> None:
    _write(path, {"id": "row 3", "predict": "", "level": None, "error": "train.jsonl:3: no such image"})
    assert read_predictions(path) == [Prediction("row 3", "", "", "", error="train.jsonl:3: no such image")]


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_are_no_fault(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(_row()).encode() + b"\r\n\r\n" + json.dumps(_row()).encode())
    assert [row.id for row in read_predictions(path)] == ["1", "2"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"predict": "答"', "not JSON"),
        ("[1, 2]", "expected a JSON object, found list"),
        ({"predict": "答"}, "label is missing"),
        ({"label": "标"}, "predict is missing"),
        (_row(predict=None), "predict is missing"),
        (_row(label=3), "label: expected text, found 3"),
        (_row(id=[1]), r"id: expected text, found \[1\]"),
        (_row(id=True), "id: expected text, found True"),
        (_row(level="一般"), "level: expected one of 轻微, 中等, 严重 or null, found '一般'"),
        (_row(level_probability=1.5), "level_probability: expected a number from 0 to 1, found 1.5"),
        (_row(level_probability=True), "level_probability: expected a number from 0 to 1, found True"),
        ('{"predict": "答", "label": "标", "level_probability": NaN}', "found nan"),
        ('{"predict": "\\ud800", "label": "标"}', "predict: holds half of a surrogate pair"),
        (_row(image=["1.jpg", 2]), r"image: expected text, found \['1.jpg', 2\]"),
        (_row(group=["3栋"]), r"group: expected text, found \['3栋'\]"),
        (
            _row(level_probabilities="0.1"),
            "level_probabilities: expected three numbers from 0 to 1, for 轻微, 中等, 严重",
        ),
        (_row(level_probabilities=[0.5, 0.5]), r"found \[0.5, 0.5\]"),
        (_row(level_probabilities=[0.5, 0.7, -0.2]), "three numbers from 0 to 1"),
        (_row(level_probabilities=[True, 0, 0]), "three numbers from 0 to 1"),
        (_row(level_probabilities=[0.5, 0.4, 0.098]), "add up to 1, found .* which make 0.998; divide them"),
        (_row(level_probabilities={"轻微": 1}), "expected the keys 轻微, 中等, 严重, found 轻微"),
        (_row(level_probabilities={}), "found none"),
        ('{"a": ' * 100_000, "nested too deeply|not JSON"),
        (_row(id=1), "id '1' stands on line 1 already; give each row an id of its own"),
    ],
)
def test_a_bad_line_is_named_with_its_fault(path: Path, row: object, message: str) -> None:
    _write(path, _row(), row)
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path)
    assert f"{path}:2: " in str(caught.value)
    assert "predict again" in str(caught.value)


def test_all_bad_lines_are_counted_and_the_first_five_listed(path: Path) -> None:
    _write(path, *["{}"] * 3, _row(), *["[]"] * 4)
    with pytest.raises(DataError) as caught:
        read_predictions(path)
    message = str(caught.value)
    assert f"{path}: 7 bad line(s)" in message
    assert [f"{path}:{line}: " in message for line in range(1, 9)] == [True] * 3 + [False] + [True] * 2 + [False] * 2
    assert message.endswith("… and 2 more")


def test_an_empty_file_is_refused(path: Path) -> None:
    path.write_text("\n\n", encoding="utf-8")
    with pytest.raises(DataError, match="no predictions in this file"):
        read_predictions(path)


def test_another_encoding_is_refused(path: Path) -> None:
    path.write_bytes(json.dumps(_row(), ensure_ascii=False).encode("gbk"))
    with pytest.raises(DataError, match="save the file as UTF-8"):
        read_predictions(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no such file; predictions: names"):
        read_predictions(tmp_path / "absent.jsonl")
    with pytest.raises(MissingDataError, match="is a folder"):
        read_predictions(tmp_path)


# Tables


def _csv(path: Path, rows: list[list[str]], encoding: str = "utf-8", delimiter: str = ",") -> Path:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


@pytest.mark.parametrize(
    ("name", "encoding", "delimiter"),
    [
        ("p.csv", "utf-8", ","),
        ("p.csv", "utf-8-sig", ";"),
        ("p.csv", "gbk", ","),
        ("p.csv", "gb18030", "\t"),
        ("p.TSV", "utf-16", "\t"),
        ("p.tab", "utf-8", ","),
        ("p.txt", "gbk", "\t"),
        ("p", "utf-8-sig", ","),
    ],
)
def test_a_table_is_read_in_whatever_way_it_was_saved(tmp_path: Path, name: str, encoding: str, delimiter: str) -> None:
    rows = [["label", "备注", "predict"], ["标，准", "", '答,"案"\n;第二行\t'], ["标", "x", ""]]
    assert read_predictions(_csv(tmp_path / name, rows, encoding, delimiter)) == [
        Prediction("1", "", '答,"案"\n;第二行\t', "标，准"),
        Prediction("2", "", "", "标"),
    ]


def test_all_columns_of_a_table(tmp_path: Path) -> None:
    header = [name for name in Prediction.__dataclass_fields__ if name != "has_own_id"]
    full = [
        "a",
        "问",
        "答\r\n二",
        "标",
        "1.jpg",
        " 3栋 ",
        "严重",
        "0.7",
        '{"轻微": 0.1, "中等": 0.2, "严重": 0.7}',
        "stop",
        "",
    ]
    failed = ["b", "", "", "", "", "", "", "", "", "", "没有照片"]
    assert read_predictions(_csv(tmp_path / "p.csv", [header, full, failed])) == [
        Prediction("a", "问", "答\n二", "标", "1.jpg", "3栋", "严重", 0.7, (0.1, 0.2, 0.7), "stop"),
        Prediction("b", "", "", "", error="没有照片"),
    ]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1", "答"], "2 cells, the header has 5"),
        (["1", "答", "标", "87%", ""], "level_probability: expected a number from 0 to 1, found '87%'; write 0.87"),
        (["1", "答", "标", "1.5", ""], "level_probability: expected a number from 0 to 1, found 1.5"),
        (["1", "答", "标", "nan", ""], "found nan"),
        (["1", "答", "标", "", "0.7 0.3"], r"level_probabilities: expected three numbers as \[0.7, 0.2, 0.1\]"),
        (["1", "答", "标", "", "[0.7, 0.3]"], "expected three numbers from 0 to 1"),
        (["0", "答", "标", "", ""], "id '0' stands on line 2 already"),
    ],
)
def test_a_bad_row_of_a_table_is_named_with_its_fault(tmp_path: Path, cells: list[str], message: str) -> None:
    header = ["id", "predict", "label", "level_probability", "level_probabilities"]
    path = _csv(tmp_path / "p.csv", [header, ["0", "答\n二", "标", "1", ""], cells])
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path)
    assert f"{path}: 1 bad line(s); each row must have the cells predict and label" in str(caught.value)
    assert f"{path}:4: " in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["预测", "label"], ["a", "b"]], r"columns missing: predict; found \(UTF-8\): 预测, label"),
        ([["predict", "label", "predict"], ["a", "b", "c"]], "columns stand twice: predict"),
        ([["predict", "label"]], "no predictions in this file"),
        ([], "the file is empty"),
    ],
)
def test_tables_that_are_none_of_predictions(tmp_path: Path, rows: list[list[str]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_predictions(_csv(tmp_path / "p.csv", rows))


def test_a_workbook_is_told_to_be_saved_as_csv(tmp_path: Path) -> None:
    (tmp_path / "p.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="this is an Excel workbook, not a CSV table"):
        read_predictions(tmp_path / "p.xlsx")


def test_a_file_of_another_name_is_told_by_its_first_character(tmp_path: Path) -> None:
    assert [row.id for row in read_predictions(_write(tmp_path / "answers.txt", _row()))] == ["1"]


def test_an_open_quote_is_located(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text('predict,label\n"答,标\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"p\.csv:2: .*close the quote"):
        read_predictions(path)


def test_an_answer_that_was_cut_off_is_no_report_also_where_it_reads_as_one() -> None:
    report = RiskReport(RiskLevel.SEVERE, dict.fromkeys(DEFAULT_FORMAT.text_labels, "立即停用"))
    whole = Prediction("a", "问", DEFAULT_FORMAT.render(report), "", finish_reason="stop")
    cut = replace(whole, finish_reason="length")
    assert whole.reading(DEFAULT_FORMAT).report == report
    assert (cut.reading(DEFAULT_FORMAT).report, cut.reading(DEFAULT_FORMAT).reason) == (
        None,
        "cut off by max_new_tokens",
    )
    # what could be read of it is still shown
    assert cut.reading(DEFAULT_FORMAT).texts == report.texts
    # LLaMA-Factory's files do not tell
    assert replace(whole, finish_reason=None).reading(DEFAULT_FORMAT).report == report
    # a row that failed was not cut off, it has no answer at all
    failed = replace(cut, error="no such photo")
    assert failed.reading(DEFAULT_FORMAT).reason == "the answer is empty"
