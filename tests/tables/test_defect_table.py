import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from riskva.errors import DataError, MissingDataError
from riskva.level_names import level_names_from
from riskva.report import DEFAULT_FORMAT, ReportField, ReportFormat, RiskLevel
from riskva.tables.records import BadRow, DefectRecord
from riskva.tables.table import TableLayout, open_tables

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


def read_table(path: Path, layout: TableLayout) -> list[DefectRecord | BadRow]:
    return list(open_tables([path], layout).rows())


def layout(**keys: Any) -> TableLayout:
    return TableLayout(DEFAULT_FORMAT, **keys)


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
    assert (record.number, record.table, record.line, record.id) == (0, "table.csv", 2, "1")
    assert (record.photo.name, record.photo.path) == ("a.jpg", tmp_path / "a.jpg")
    assert (record.group, record.split, record.level_as_written) == (None, None, None)
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
    assert record.photo.name == "sub/b.jpg"


def test_absolute_path_inside_the_folder_becomes_relative(tmp_path: Path) -> None:
    row = changed("image_path", str(tmp_path / "sub" / "b.jpg"))
    record = only(read_table(table(tmp_path, [row]), LAYOUT))
    assert isinstance(record, DefectRecord)
    assert record.photo.name == "sub/b.jpg"


BAD_ROWS = [
    (changed("data_风险等级", "B轻微"), "unknown_level", "'B轻微': expected one of 轻微, 中等, 严重"),
    (changed("data_风险等级", "不严重"), "unknown_level", "'不严重'"),
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
    (changed("image_path", "..\\a.jpg"), "image_outside", "leads out of the photo folder"),
    (changed("image_path", "C:\\照片\\a.jpg"), "image_outside", "a path of another computer, outside the photo folder"),
    (changed("image_path", "d:/a.jpg"), "image_outside", "a path of another computer"),
    (changed("image_path", "\\\\server\\照片\\a.jpg"), "image_outside", "a path of another computer"),
    (changed("image_path", "a" * 5000), "image_missing", "no such file"),
    (changed("image_path", "."), "image_missing", "no such file"),
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
    with_place = TableLayout(ReportFormat(fields))
    absent = only(read_table(table(tmp_path, [GOOD]), with_place))
    empty = only(read_table(table(tmp_path, [[*GOOD, " "]], [*HEADER, "data_位置"]), with_place))
    given = only(read_table(table(tmp_path, [[*GOOD, "客厅"]], [*HEADER, "data_位置"]), with_place))
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
        open_tables([table(tmp_path, [GOOD], header)], LAYOUT)
    assert "column_names" in str(caught.value)
    assert "answer_fields" in str(caught.value)


def test_nameless_columns_of_a_spreadsheet_are_left_out(tmp_path: Path) -> None:
    rows = [[*GOOD, "", ""], [*changed("image_id", "2"), "", "备注"]]
    good, bad = read_table(table(tmp_path, rows, [*HEADER, "", ""]), LAYOUT)
    assert isinstance(good, DefectRecord)
    assert list(good.cells) == HEADER
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.id, bad.reason) == (3, "2", "nameless_column")
    assert "column 8 holds '备注'" in bad.message


def test_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="columns stand twice: data_风险"):
        open_tables([table(tmp_path, [], [*HEADER, "data_风险"])], LAYOUT)


def test_column_that_stands_twice_after_renaming_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, [], [*HEADER, "照片"])
    with pytest.raises(DataError, match=r"columns stand twice \(after column_names\): image_path"):
        open_tables([path], layout(column_names={"照片": "image_path"}))


def test_columns_are_renamed_on_reading(tmp_path: Path) -> None:
    names = {"编号": "image_id", "照片": "image_path", "等级": "data_风险等级", "不在": "data_风险"}
    header = ["编号", "照片", "data_风险", "data_纠正和预防建议", "等级", "data_缺陷描述"]
    record = only(read_table(table(tmp_path, [GOOD], header, "gbk"), layout(column_names=names)))
    assert isinstance(record, DefectRecord)
    assert list(record.cells) == HEADER
    assert record.id == "1"


def test_missing_photo_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="image_base_path"):
        open_tables([table(tmp_path, [GOOD])], LAYOUT, tmp_path / "gone")


@pytest.mark.parametrize(("written", "level"), [("B-轻微", RiskLevel.MINOR), ("一般", RiskLevel.MODERATE)])
def test_a_level_in_other_words_is_kept_as_written(tmp_path: Path, written: str, level: RiskLevel) -> None:
    record = only(read_table(table(tmp_path, [changed("data_风险等级", f" {written} ")]), LAYOUT))
    assert isinstance(record, DefectRecord)
    assert (record.report.level, record.level_as_written) == (level, written)


def test_level_names_are_the_layouts(tmp_path: Path) -> None:
    path = table(tmp_path, [changed("data_风险等级", "一般", "1"), changed("data_风险等级", "三级", "2")])
    first, second = read_table(path, layout(level_names=level_names_from({"一般": None, "三级": "严重"})))
    assert isinstance(first, BadRow)
    assert first.reason == "unknown_level"
    assert isinstance(second, DefectRecord)
    assert second.report.level is RiskLevel.SEVERE


def test_a_default_level_is_not_what_the_table_says(tmp_path: Path) -> None:
    fields = (ReportField("风险等级", "data_风险等级", default="中等", is_level=True),)
    record = only(read_table(table(tmp_path, [changed("data_风险等级", "")]), TableLayout(ReportFormat(fields))))
    assert isinstance(record, DefectRecord)
    assert (record.report.level, record.level_as_written) == (RiskLevel.MODERATE, None)


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def test_a_link_must_not_lead_out_of_the_photo_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
    names = ["secret.jpg", "far/a.jpg", "near.jpg", "loop.jpg", "dangling.jpg"]
    path = table(inside, [changed("image_path", name, str(number)) for number, name in enumerate(names)])
    Image.new("RGB", (8, 8)).save(outside / "a.jpg")
    link(inside / "secret.jpg", outside / "a.jpg")
    link(inside / "far", outside)
    link(inside / "near.jpg", inside / "a.jpg")
    link(inside / "loop.jpg", inside / "loop.jpg")
    link(inside / "dangling.jpg", outside / "gone.jpg")
    rows = read_table(path, LAYOUT)
    reasons = [row.reason if isinstance(row, BadRow) else "good" for row in rows]
    assert reasons == ["image_outside", "image_outside", "good", "image_missing", "image_missing"]
    assert isinstance(rows[0], BadRow)
    assert f"'secret.jpg' links to {outside / 'a.jpg'}, outside the photo folder" in rows[0].message


def test_the_photo_folder_may_be_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "sub" / "b.jpg"
    path = table(tmp_path / "real", [GOOD, changed("image_path", str(real))])
    link(tmp_path / "link", tmp_path / "real")
    records = list(open_tables([path], LAYOUT, tmp_path / "link").rows())
    assert [row.photo.name for row in records if isinstance(row, DefectRecord)] == ["a.jpg", "sub/b.jpg"]


def test_no_more_than_one_real_path_is_asked_for_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path, [[str(number), *GOOD[1:]] for number in range(50)])
    tables = open_tables([path], LAYOUT)
    calls = []
    real_path = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: calls.append(path) or real_path(path))
    assert len(list(tables.rows())) == 50
    assert len(calls) <= 51


def test_half_a_character_in_a_path_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"image_path": "\\ud83d.jpg", "data_风险等级": "轻微"}\n', encoding="utf-8")
    fields = (ReportField("风险等级", "data_风险等级", is_level=True),)
    with pytest.raises(DataError, match="half a character"):
        open_tables([tmp_path / "rows.jsonl"], TableLayout(ReportFormat(fields)))


@pytest.mark.parametrize(
    ("cell", "rest"),
    [
        ("1-2-301：客厅裂缝", "客厅裂缝"),
        (" 1-2-301 , - 客厅裂缝 ", "客厅裂缝"),
        ("1-2-301客厅裂缝，1-2-302 也有", "客厅裂缝，1-2-302 也有"),
        ("客厅裂缝 1-2-301", "客厅裂缝 1-2-301"),
    ],
)
def test_private_prefixes_are_cut_from_answers_and_cells(tmp_path: Path, cell: str, rest: str) -> None:
    path = table(tmp_path, [[*changed("data_缺陷描述", cell), "1-2-301、张三"]], [*HEADER, "住户"])
    number = r"\d+-\d+-\d+"
    record = only(read_table(path, layout(strip_patterns={"data_缺陷描述": number, "住户": number})))
    assert isinstance(record, DefectRecord)
    assert (record.report.texts["缺陷描述"], record.cells["data_缺陷描述"]) == (rest, rest)
    assert record.cells["住户"] == "张三"


def test_a_cell_that_is_all_prefix_is_empty(tmp_path: Path) -> None:
    path = table(tmp_path, [changed("data_缺陷描述", "1-2-301：")])
    bad = only(read_table(path, layout(strip_patterns={"data_缺陷描述": r"\d+-\d+-\d+"})))
    assert isinstance(bad, BadRow)
    assert bad.reason == "empty_field"


def test_a_pattern_that_matches_nothing_cuts_nothing(tmp_path: Path) -> None:
    record = only(
        read_table(
            table(tmp_path, [changed("data_缺陷描述", "- 裂缝")]), layout(strip_patterns={"data_缺陷描述": r"\d*"})
        )
    )
    assert isinstance(record, DefectRecord)
    assert record.cells["data_缺陷描述"] == "- 裂缝"


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"\d+-\d+-\d+", ["1-2-301", "1-2-302", None]),
        (r"(\d+)-\d+-\d+", ["1", "1", None]),
        (r"(?P<house>\d+-\d+)-(\d+)", ["1-2", "1-2", None]),
        (r"x?(\d+-)?", ["1-", None, None]),
    ],
)
def test_a_group_is_what_its_pattern_finds_before_prefixes_are_cut(
    tmp_path: Path, pattern: str, groups: list[str | None]
) -> None:
    texts = ["1-2-301 裂缝", "客厅 1-2-302", "裂缝"]
    path = table(tmp_path, [changed("data_缺陷描述", text, str(number)) for number, text in enumerate(texts)])
    keys = layout(group_by="data_缺陷描述", group_pattern=pattern, strip_patterns={"data_缺陷描述": r"[\d-]+"})
    rows = read_table(path, keys)
    assert [row.group for row in rows if isinstance(row, DefectRecord)] == groups


def test_the_table_may_say_the_split(tmp_path: Path) -> None:
    words = ["train", " val ", "训练", "验证", "dev", "valid", "validation", "测试", "test", "", "训", "held-out"]
    rows = [[str(number), *GOOD[1:], word] for number, word in enumerate(words)]
    path = table(tmp_path, rows, [*HEADER, "data"])
    read = read_table(path, layout(split_column="data", splits=("train", "val", "test")))
    splits = [row.split if isinstance(row, DefectRecord) else row.reason for row in read]
    assert splits == ["train", "val", "train", "val", "val", "val", "val", "test", "test", *["unknown_split"] * 3]
    assert isinstance(read[-1], BadRow)
    assert read[-1].message == "data: 'held-out' is none of the splits train, val, test"


def test_other_words_count_only_for_splits_that_there_are(tmp_path: Path) -> None:
    path = table(tmp_path, [[*GOOD, "验证"], [*changed("image_id", "2"), "fold0"]], [*HEADER, "data"])
    bad, good = read_table(path, layout(split_column="data", splits=("train", "fold0")))
    assert isinstance(bad, BadRow)
    assert isinstance(good, DefectRecord)
    assert good.split == "fold0"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"group_by": "房屋号"}, r"group_by: no table has a column 房屋号 \(nearest: 房屋\)"),
        ({"group_by": "房屋号", "group_pattern": "x"}, "group_by: no table has a column 房屋号"),
        ({"split_column": "split"}, "split_column: no table has a column split"),
        ({"strip_patterns": {"data_缺陷描": "x"}}, r"strip_patterns: .* \(nearest: data_缺陷描述\)"),
    ],
)
def test_a_column_that_the_recipe_names_and_no_table_has(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    path = table(tmp_path, [[*GOOD, "1"]], [*HEADER, "房屋"])
    with pytest.raises(DataError, match=message):
        open_tables([path], layout(**keys))
