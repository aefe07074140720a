import json
from dataclasses import asdict
from pathlib import Path

import pytest

from evaluation.predictions import Prediction, read_predictions
from riskva.errors import DataError, MissingDataError


def _write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _row(**changes: object) -> dict[str, object]:
    return {"prompt": "问", "predict": "答", "label": "标", **changes}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "generated_predictions.jsonl"


def test_llama_factorys_file_is_read_with_line_numbers_as_ids(path: Path) -> None:
    _write(path, _row(), _row(predict="答\n二\u2028\x85"))
    assert read_predictions(path) == [
        Prediction("1", "问", "答", "标"),
        Prediction("2", "问", "答\n二\u2028\x85", "标"),
    ]


def test_every_key_makes_the_round_trip(path: Path) -> None:
    rows = [
        Prediction("a", "问", "答 \"'\n", "标", "images/1.jpg", "严重", 0.875, "stop"),
        Prediction("b", "", "", "标", image=("1.jpg", "2.jpg"), error="images/2.jpg: truncated"),
        Prediction("c", "", "", "标", image=()),
    ]
    _write(path, *(asdict(row) for row in rows))
    assert read_predictions(path) == rows


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
    assert [row.id for row in read_predictions(path)] == ["1", "3"]


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
