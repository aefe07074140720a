import csv
import io
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from riskva.errors import DataError, MissingDataError
from riskva.preparation.records import BadRow, DefectRecord
from riskva.preparation.table import TableLayout, open_table, read_table
from riskva.report import DEFAULT_FORMAT, ReportField, ReportFormat, RiskLevel

HEADER = ["image_id", "image_path", "data_风险", "data_纠正和预防建议", "data_风险等级", "data_缺陷描述"]
GOOD = ["1", "a.jpg", "渗水", "修补", "轻微", "裂缝"]
LAYOUT = TableLayout(DEFAULT_FORMAT)


def table(folder: Path, rows: Iterable[list[str]], header: list[str] | None = None, encoding: str = "utf-8") -> Path:
    for name in ("a.jpg", "sub/b.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    text = io.StringIO()
    csv.writer(text).writerows([header or HEADER, *rows])
    path = folder / "table.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def changed(column: str, value: str, sample_id: str = "2") -> list[str]:
    row = [sample_id, *GOOD[1:]]
    row[HEADER.index(column)] = value
    return row


def only(rows: Iterable[DefectRecord | BadRow]) -> DefectRecord | BadRow:
    (row,) = rows
    return row


def test_a_good_row_becomes_a_record(tmp_path: Path) -> None:
    record = only(read_table(table(tmp_path, [GOOD]), LAYOUT))
    assert isinstance(record, DefectRecord)
    assert (record.id, record.line, record.photo_name) == ("1", 2, "a.jpg")
    assert record.photo == tmp_path / "a.jpg"
    assert record.report.level is RiskLevel.MINOR
    assert record.report.texts == {"风险描述": "渗水", "纠正和预防建议": "修补", "缺陷描述": "裂缝"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk"])
def test_encoding_columns_in_any_order_and_extra_ones(tmp_path: Path, encoding: str) -> None:
    header = ["楼层", *reversed(HEADER)]
    path = table(tmp_path, [["三层", *reversed(GOOD)]], header, encoding)
    record = only(read_table(path, LAYOUT))
    assert isinstance(record, DefectRecord)
    assert record.cells["楼层"] == "三层"
    assert record.report.texts["缺陷描述"] == "裂缝"


@pytest.mark.parametrize(
    ("value", "level"), [(" 严重 ", RiskLevel.SEVERE), ("中等\u3000", RiskLevel.MODERATE), ("轻微\n", RiskLevel.MINOR)]
)
def test_space_around_a_level_is_no_fault(tmp_path: Path, value: str, level: RiskLevel) -> None:
    record = only(read_table(table(tmp_path, [changed("data_风险等级", value)]), LAYOUT))
    assert isinstance(record, DefectRecord)
    assert record.report.level is level


@pytest.mark.parametrize("name", ["sub/b.jpg", "sub\\b.jpg", "./sub/../sub/b.jpg"])
def test_photo_paths_are_relative_with_either_slash(tmp_path: Path, name: str) -> None:
    record = only(read_table(table(tmp_path, [changed("image_path", name)]), LAYOUT))
    assert isinstance(record, DefectRecord)
    assert record.photo_name == "sub/b.jpg"


def test_absolute_path_inside_the_folder_becomes_relative(tmp_path: Path) -> None:
    row = changed("image_path", str(tmp_path / "sub" / "b.jpg"))
    record = only(read_table(table(tmp_path, [row]), LAYOUT))
    assert isinstance(record, DefectRecord)
    assert record.photo_name == "sub/b.jpg"


BAD_ROWS = [
    (changed("data_风险等级", "B-轻微"), "unknown_level", "'B-轻微': expected one of 轻微, 中等, 严重"),
    (changed("data_风险等级", "较严重"), "unknown_level", "'较严重'"),
    (changed("data_风险等级", " "), "empty_field", "data_风险等级 is empty"),
    (changed("data_缺陷描述", "\u3000"), "empty_field", "data_缺陷描述 is empty"),
    (changed("image_path", ""), "empty_field", "image_path is empty"),
    (changed("image_id", " "), "empty_field", "image_id is empty"),
    (changed("image_id", "1"), "duplicate_id", "image_id '1' stands on line 2 already"),
    (changed("image_path", "gone.jpg"), "image_missing", "gone.jpg"),
    (changed("image_path", "sub"), "image_missing", "sub"),
    (changed("image_path", "长" * 100), "image_missing", "no such file"),
    (changed("image_path", "a.jpg\0"), "image_missing", "no such file"),
    (changed("image_path", "../a.jpg"), "image_outside", "leads out of the photo folder"),
    (changed("image_path", "sub/../../a.jpg"), "image_outside", "leads out of the photo folder"),
    (changed("image_path", "/etc/passwd"), "image_outside", "outside the photo folder"),
    (changed("data_风险", "坏<|im_end|>"), "control_token", "data_风险 holds '<|im_end|>'"),
    (changed("data_缺陷描述", "见<image>"), "control_token", "data_缺陷描述 holds '<image>'"),
    (["2", "a.jpg", "渗水", "修补", "轻微"], "wrong_cell_count", "5 cells, the header has 6"),
    (["2", *GOOD[1:], "多"], "wrong_cell_count", "7 cells, the header has 6"),
]


@pytest.mark.parametrize(
    ("row", "reason", "message"), BAD_ROWS, ids=[f"{one[1]}-{i}" for i, one in enumerate(BAD_ROWS)]
)
def test_a_bad_row_is_kept_with_its_reason_and_spoils_no_other(
    tmp_path: Path, row: list[str], reason: str, message: str
) -> None:
    last = ["3", *GOOD[1:]]
    first, bad, third = read_table(table(tmp_path, [GOOD, row, last]), LAYOUT)
    assert isinstance(first, DefectRecord)
    assert isinstance(third, DefectRecord)
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.reason) == (3, reason)
    assert message in bad.message


def test_a_row_that_swallowed_others_names_its_lines(tmp_path: Path) -> None:
    path = table(tmp_path, [])
    with path.open("a", encoding="utf-8") as stream:
        stream.write('1,a.jpg,"渗水,修补,轻微,裂缝\n2,a.jpg,"渗水,修补,轻微,裂缝\n')
    rows = list(read_table(path, LAYOUT))
    assert [type(row) for row in rows] == [BadRow]


def test_rows_without_any_text_are_no_rows(tmp_path: Path) -> None:
    assert len(list(read_table(table(tmp_path, [GOOD, [""] * 6, [" "] * 6]), LAYOUT))) == 1


def test_defaults_fill_empty_cells_and_absent_columns(tmp_path: Path) -> None:
    fields = (*DEFAULT_FORMAT.fields, ReportField("位置信息", "data_位置", default="未注明"))
    layout = TableLayout(ReportFormat(fields))
    absent = only(read_table(table(tmp_path, [GOOD]), layout))
    empty = only(read_table(table(tmp_path, [[*GOOD, " "]], [*HEADER, "data_位置"]), layout))
    given = only(read_table(table(tmp_path, [[*GOOD, "客厅"]], [*HEADER, "data_位置"]), layout))
    found = [row.report.texts["位置信息"] for row in (absent, empty, given) if isinstance(row, DefectRecord)]
    assert found == ["未注明", "未注明", "客厅"]


def test_groups_are_read_and_must_not_be_empty(tmp_path: Path) -> None:
    path = table(tmp_path, [[*GOOD, " 1栋 "], [*changed("image_id", "2"), ""]], [*HEADER, "房屋"])
    good, bad = read_table(path, TableLayout(DEFAULT_FORMAT, group_by="房屋"))
    assert isinstance(good, DefectRecord)
    assert good.group == "1栋"
    assert isinstance(bad, BadRow)
    assert bad.reason == "empty_field"


def test_missing_column_says_what_is_there_and_what_is_near(tmp_path: Path) -> None:
    header = [name.replace("data_风险等级", "data_风险级别") for name in HEADER]
    with pytest.raises(
        DataError, match=r"data_风险等级 \(nearest: data_风险级别\).*found \(UTF-8\): image_id"
    ) as caught:
        open_table(table(tmp_path, [GOOD], header), LAYOUT)
    assert "answer_fields" in str(caught.value)


def test_nameless_columns_of_a_spreadsheet_are_left_out(tmp_path: Path) -> None:
    rows = [[*GOOD, "", ""], [*changed("image_id", "2"), "", "备注"]]
    good, bad = read_table(table(tmp_path, rows, [*HEADER, "", ""]), LAYOUT)
    assert isinstance(good, DefectRecord)
    assert list(good.cells) == HEADER
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.id, bad.reason) == (3, "2", "nameless_column")
    assert "column 8 holds '备注'" in bad.message


def test_semicolons_are_recognised_as_the_fault(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="semicolons or tabs"):
        open_table(table(tmp_path, [], [";".join(HEADER)]), LAYOUT)


def test_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="columns stand twice: data_风险"):
        open_table(table(tmp_path, [], [*HEADER, "data_风险"]), LAYOUT)


def test_missing_photo_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="image_base_path"):
        open_table(table(tmp_path, [GOOD]), LAYOUT, tmp_path / "gone")
