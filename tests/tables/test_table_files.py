import base64
import csv
import datetime
import importlib.util
import io
import json
import subprocess
import sys
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from riskva.errors import DataError, MissingDataError, RecipeError
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport
from riskva.tables.records import BadRow, DefectRecord
from riskva.tables.table import TableLayout, Tables, open_tables
from riskva.tables.table_files import cell_text

HEADER = ["image_id", "image_path", "data_风险", "data_纠正和预防建议", "data_风险等级", "data_缺陷描述"]
GOOD = ["1", "a.jpg", "渗水", "修补", "轻微", "裂缝"]
LAYOUT = TableLayout(DEFAULT_FORMAT)
REPORT = RiskReport(RiskLevel.MINOR, {"风险描述": "渗水", "纠正和预防建议": "修补", "缺陷描述": "裂缝"})
ANSWER = DEFAULT_FORMAT.render(REPORT)


def jpeg(colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a photo in it."""
    (tmp_path / "a.jpg").write_bytes(jpeg())
    return tmp_path


def layout(**keys: Any) -> TableLayout:
    return TableLayout(DEFAULT_FORMAT, **keys)


def row(row_id: str = "1", **cells: str) -> list[str]:
    return [cells.get(name, default) for name, default in zip(HEADER, [row_id, *GOOD[1:]], strict=True)]


def csv_table(path: Path, rows: list[list[str]], header: list[str] | None = None, delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([header or HEADER, *rows])
    return path


def excel(path: Path, rows: list[list[Any]], title: str = "缺陷", **others: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = title
    for cells in rows:
        sheet.append(cells)
    for name, content in others.items():
        other = book.create_sheet(name)
        for cells in content:
            other.append(cells)
    book.save(path)
    return path


def jsonl(path: Path, *rows: Any) -> Path:
    lines = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def flat(**changes: Any) -> dict[str, Any]:
    return {**dict(zip(HEADER, GOOD, strict=True)), **changes}


def records(tables: Tables) -> list[DefectRecord]:
    rows = list(tables.rows())
    assert not [one for one in rows if isinstance(one, BadRow)]
    return [one for one in rows if isinstance(one, DefectRecord)]


def reasons(tables: Tables) -> list[str]:
    return [one.reason if isinstance(one, BadRow) else "good" for one in tables.rows()]


def only_bad(tables: Tables) -> BadRow:
    (bad,) = tables.rows()
    assert isinstance(bad, BadRow)
    return bad


# Several tables


def test_tables_are_one_stream_in_order(folder: Path) -> None:
    csv_table(folder / "b.csv", [row("1"), row("2", data_风险等级="?")], [*HEADER, "楼层"][:6])
    csv_table(folder / "a.csv", [[*row("3"), "三层"]], [*HEADER, "楼层"])
    excel(folder / "c.xlsx", [HEADER, row("4")])
    tables = open_tables([folder / "b.csv", folder / "a*.csv", folder / "c.xlsx"], LAYOUT)
    assert tables.columns == (*HEADER, "楼层")
    assert [file.path.name for file in tables.files] == ["b.csv", "a.csv", "c.xlsx"]
    assert tables.photo_folder == folder
    read = [(one.number, one.table, one.line, one.id) for one in tables.rows()]
    assert read == [(0, "b.csv", 2, "1"), (1, "b.csv", 3, "2"), (2, "a.csv", 2, "3"), (3, "c.xlsx", 2, "4")]
    assert list(tables.rows()) == list(tables.rows())


def test_patterns_are_sorted_and_leave_out_what_excel_leaves_behind(folder: Path) -> None:
    for name in ("t10.xlsx", "t2.xlsx", "deep/t1.xlsx"):
        (folder / name).parent.mkdir(exist_ok=True)
        excel(folder / name, [HEADER, row(name)])
    (folder / "~$t2.xlsx").write_bytes(b"\5lock")
    (folder / "x.xlsx").mkdir()
    files = open_tables([folder / "*.xlsx"], LAYOUT).files
    assert [file.path.name for file in files] == ["t10.xlsx", "t2.xlsx"]
    assert len(open_tables([folder / "**" / "t*.xlsx"], LAYOUT).files) == 3


def test_a_name_that_looks_like_a_pattern_is_a_file_first(folder: Path) -> None:
    path = csv_table(folder / "表[1].csv", [row()])
    assert [file.path for file in open_tables([path], LAYOUT).files] == [path]


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.csv", "no such file"), ("*.csv", "no file fits this pattern"), ("", "names a folder"), ("\0", "no such")],
)
def test_paths_that_lead_to_nothing(folder: Path, name: str, message: str) -> None:
    with pytest.raises(MissingDataError, match=message) as caught:
        open_tables([folder / name], LAYOUT)
    assert "csv_path" in str(caught.value)


def test_no_table_at_all() -> None:
    with pytest.raises(RecipeError, match="csv_path names no table"):
        open_tables([], LAYOUT)


@pytest.mark.parametrize("other", ["t.csv", "*.csv", "link", "./x/../t.csv"])
def test_the_same_file_twice_is_an_error(folder: Path, other: str) -> None:
    path = csv_table(folder / "t.csv", [row()])
    (folder / "x").mkdir()
    (folder / "link").symlink_to(path)
    with pytest.raises(DataError, match=r"is the same file as .*t\.csv, named before"):
        open_tables([path, folder / other], LAYOUT)


def test_an_id_stands_once_in_all_tables(folder: Path) -> None:
    paths = [
        csv_table(folder / "a.csv", [row("1"), row("2")]),
        csv_table(folder / "b.csv", [row("2"), row("3"), row("3")]),
    ]
    rows = list(open_tables(paths, LAYOUT).rows())
    bad = [(one.table, one.line, one.reason, one.message) for one in rows if isinstance(one, BadRow)]
    assert bad == [
        ("b.csv", 2, "duplicate_id", "image_id '2' stands in a.csv on line 3 already"),
        ("b.csv", 4, "duplicate_id", "image_id '3' stands on line 3 already"),
    ]


def test_rows_without_ids_are_called_after_table_and_line(folder: Path) -> None:
    paths = [
        csv_table(folder / name, [row()[1:], row(data_风险等级="")[1:]], HEADER[1:]) for name in ("a/t.csv", "b/t.csv")
    ]
    rows = list(open_tables([*paths, excel(folder / "u.xlsx", [HEADER[1:], row()[1:]])], LAYOUT, folder).rows())
    assert [one.id for one in rows] == ["t-2", "t-3", "t.2-2", "t.2-3", "u-2"]
    assert [one.table for one in rows] == [*[str(paths[0])] * 2, *[str(paths[1])] * 2, "u.xlsx"]


def test_without_a_photo_folder_each_tables_own_counts(folder: Path) -> None:
    paths = []
    for name in ("x", "y"):
        paths.append(csv_table(folder / name / f"{name}.csv", [row(name)]))
        (folder / name / "a.jpg").write_bytes(jpeg())
    tables = open_tables(paths, LAYOUT)
    assert tables.photo_folder == folder
    assert [one.photo.path for one in records(tables)] == [folder / "x" / "a.jpg", folder / "y" / "a.jpg"]


def test_missing_columns_of_all_tables_are_told_at_once(folder: Path) -> None:
    csv_table(folder / "a.csv", [row()], ["id", *HEADER[1:5], "data_缺陷描写"])
    csv_table(folder / "b.csv", [row()])
    excel(folder / "c.xlsx", [["照片", *HEADER[2:]], GOOD[1:]])
    with pytest.raises(DataError) as caught:
        open_tables([folder / "*.csv", folder / "c.xlsx"], LAYOUT)
    first, second = str(caught.value).splitlines()
    assert "a.csv: columns missing: data_缺陷描述 (nearest: data_缺陷描写); found (UTF-8): id, image_path" in first
    assert "c.xlsx: columns missing: image_path; found (Excel, sheet '缺陷'): 照片, data_风险" in second
    assert "column_names, as in {照片: image_path}" in second


def test_a_table_without_the_group_or_split_column_is_told_of(folder: Path) -> None:
    paths = [csv_table(folder / "a.csv", [[*row(), "1"]], [*HEADER, "房屋"]), csv_table(folder / "b.csv", [row("2")])]
    with pytest.raises(DataError, match=r"b\.csv: columns missing: 房屋"):
        open_tables(paths, layout(group_by="房屋"))
    with pytest.raises(DataError, match=r"b\.csv: columns missing: 房屋"):
        open_tables(paths, layout(split_column="房屋", splits=("1",)))
    assert [one.group for one in records(open_tables(paths, layout(group_by="房屋", group_pattern=r"\d")))] == [
        "1",
        None,
    ]


# Text


@pytest.mark.parametrize(
    ("name", "delimiter", "label"),
    [
        ("t.csv", ",", "UTF-8"),
        ("t.csv", "\t", "UTF-8, parted by tabs"),
        ("t.csv", ";", "UTF-8, parted by semicolons"),
        ("t.tsv", "\t", "UTF-8, parted by tabs"),
        ("t.TAB", "\t", "UTF-8, parted by tabs"),
        ("t.txt", "\t", "UTF-8, parted by tabs"),
        ("t.txt", ",", "UTF-8"),
    ],
)
def test_the_delimiter_is_found_and_told(folder: Path, name: str, delimiter: str, label: str) -> None:
    path = csv_table(folder / name, [row(data_风险="a, b; c\t'd'\n\"e\"")], delimiter=delimiter)
    tables = open_tables([path], LAYOUT)
    assert tables.files[0].label == label
    assert records(tables)[0].cells["data_风险"] == "a, b; c\t'd'\n\"e\""


def test_columns_missing_from_a_table_of_semicolons_are_told_as_columns(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"columns missing: data_缺陷描述.*; found \(UTF-8, parted by semicolons\): image_id, im"
    ):
        open_tables([csv_table(folder / "t.csv", [], HEADER[:5], delimiter=";")], LAYOUT)


def test_unicode_text_of_excel(folder: Path) -> None:
    path = folder / "t.txt"
    path.write_bytes("\r\n".join("\t".join(cells) for cells in (HEADER, GOOD)).encode("utf-16"))
    assert records(open_tables([path], LAYOUT))[0].report == REPORT


# Excel


def test_a_workbook_is_read_as_people_see_it(folder: Path) -> None:
    extra = [
        7, 7.0, 7.5, 0.1 + 0.2, 12345678901234, True, None, datetime.date(2024, 5, 6),
        datetime.datetime(2024, 5, 6, 7, 8), datetime.time(7, 8), " 文 ",
    ]  # fmt: skip
    names = [f"c{number}" for number in range(len(extra))]
    path = excel(folder / "t.xlsx", [[*HEADER, *names], [1, *GOOD[1:], *extra]])
    record = records(open_tables([path], LAYOUT))[0]
    assert (record.id, record.line, record.report) == ("1", 2, REPORT)
    assert [record.cells[name] for name in names] == [
        "7", "7", "7.5", "0.3", "12345678901234", "TRUE", "", "2024-05-06", "2024-05-06 07:08:00", "07:08:00", " 文 ",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), ""), (-3.0, "-3"), (-0.0, "0"), (1e20, "1e+20"), (float("inf"), "inf"), (10**20, "1" + "0" * 20),
        (Decimal("2.50"), "2.50"), (False, "FALSE"), ("x", "x"),
        (datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC), "2024-05-06 00:00:00+00:00"),
    ],
)  # fmt: skip
def test_cell_text(value: Any, text: str) -> None:
    assert cell_text(value) == text


def test_lines_are_those_of_the_sheet(folder: Path) -> None:
    path = excel(folder / "t.xlsx", [[], [None, " "], HEADER, [], row("1"), [" "], [], row("2")])
    assert [(one.id, one.line) for one in records(open_tables([path], LAYOUT))] == [("1", 5), ("2", 8)]


def test_a_size_that_the_sheet_only_claims_cuts_nothing(folder: Path) -> None:
    path = excel(folder / "t.xlsx", [HEADER, row("1"), row("2")])
    rewrite(path, "xl/worksheets/sheet1.xml", '<dimension ref="A1:F3"', '<dimension ref="A1"')
    assert len(records(open_tables([path], LAYOUT))) == 2


def rewrite(path: Path, member: str, old: str, new: str) -> None:
    """Put `new` for `old` in one file of the workbook."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert old.encode() in files[member]
    files[member] = files[member].replace(old.encode(), new.encode())
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def test_formulas_count_by_the_value_that_was_saved(folder: Path) -> None:
    path = excel(folder / "t.xlsx", [HEADER, row("1", data_风险='="渗"&"水"'), row("2", data_风险="=1+1")])
    unsaved = '<c r="C2"><f>"渗"&amp;"水"</f><v />'
    rewrite(path, "xl/worksheets/sheet1.xml", unsaved, '<c r="C2" t="str"><f>"渗"&amp;"水"</f><v>渗水</v>')
    good, bad = open_tables([path], LAYOUT).rows()
    assert isinstance(good, DefectRecord)
    assert good.report == REPORT
    assert isinstance(bad, BadRow)
    assert (bad.reason, bad.message) == ("empty_field", "data_风险 is empty")


@pytest.mark.parametrize("error", ["#N/A", "#REF!", "#DIV/0!", "#VALUE!"])
def test_a_formula_that_failed_makes_its_row_bad(folder: Path, error: str) -> None:
    path = excel(folder / "t.xlsx", [[*HEADER, "备注"], [*row("1"), error], [*row("2"), "ok"]])
    bad, good = open_tables([path], LAYOUT).rows()
    assert isinstance(good, DefectRecord)
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.id, bad.reason) == (2, "1", "formula_error")
    assert f"备注 shows {error}" in bad.message


def test_one_sheet_is_read_and_the_others_are_told(folder: Path) -> None:
    path = excel(folder / "t.xlsx", [HEADER, row("1")], 二期=[HEADER, row("2")], 空=[], 说明=[["x"]])
    first, second = open_tables([path], LAYOUT), open_tables([path], layout(excel_sheet="二期"))
    assert first.files[0].label == "Excel, sheet '缺陷', not read: '二期', '说明'"
    assert second.files[0].label == "Excel, sheet '二期', not read: '缺陷', '说明'"
    assert [records(one)[0].id for one in (first, second)] == ["1", "2"]


def test_unknown_and_empty_sheets(folder: Path) -> None:
    path = excel(folder / "t.xlsx", [], 二期=[HEADER])
    with pytest.raises(DataError, match="no sheet '三期'; excel_sheet can be: 缺陷, 二期"):
        open_tables([path], layout(excel_sheet="三期"))
    with pytest.raises(DataError, match=r"sheet '缺陷' is empty; .*sheets with rows: 二期"):
        open_tables([path], LAYOUT)


def test_cells_beyond_the_header_are_not_lost(folder: Path) -> None:
    path = excel(folder / "t.xlsx", [[*HEADER, None, None], [*row("1"), None, None, "x"], row("2")[:6], row("3")])
    bad, *good = open_tables([path], LAYOUT).rows()
    assert isinstance(bad, BadRow)
    assert (bad.reason, bad.message) == ("nameless_column", "column 9 holds 'x' and has no name; name it in the header")
    assert all(isinstance(one, DefectRecord) for one in good)


def test_rows_that_end_early_lack_their_last_cells(folder: Path) -> None:
    bad = only_bad(open_tables([excel(folder / "t.xlsx", [HEADER, row()[:5]])], LAYOUT))
    assert (bad.reason, bad.message) == ("empty_field", "data_缺陷描述 is empty")


def test_line_breaks_inside_cells(folder: Path) -> None:
    path = excel(folder / "t.xlsx", [HEADER, row(data_风险="渗\n水", data_缺陷描述="裂_x000D_\n缝")])
    record = records(open_tables([path], LAYOUT))[0]
    assert record.report.texts["风险描述"] == "渗 水"
    assert record.report.texts["缺陷描述"] == "裂 缝"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xls", b"\xd0\xcf\x11\xe0", r"t\.xls: \.xls workbooks cannot be read; save it as \.xlsx"),
        ("t.ods", b"PK\x03\x04", r"\.ods workbooks cannot be read"),
        ("t.xlsx", b"\xd0\xcf\x11\xe0", "an old Excel workbook, or one locked with a password"),
        ("t.xlsx", b"", "this is no Excel workbook"),
        ("t.xlsx", b"id,name\n", "if it is text, call it .csv"),
        ("t.xlsx", b"PK\x03\x04broken", "not a readable Excel workbook"),
        ("t.csv", b"PK\x03\x04", "this is an Excel workbook, not a CSV table"),
    ],
)
def test_workbooks_that_cannot_be_read(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_tables([folder / name], LAYOUT)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("member", ["xl/workbook.xml", "xl/worksheets/sheet1.xml", "[Content_Types].xml"])
@pytest.mark.parametrize("new", ["<broken", ""])
def test_broken_inside(folder: Path, member: str, new: str) -> None:
    path = excel(folder / "t.xlsx", [HEADER, *(row(str(number)) for number in range(50))])
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files[member] = files[member][: len(files[member]) // 2] + new.encode() if new else b""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    with pytest.raises(DataError, match=r"t\.xlsx: "):
        list(open_tables([path], LAYOUT).rows())


def test_without_openpyxl_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = excel(folder / "t.xlsx", [HEADER, row()])
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openpyxl" else find(name))
    with pytest.raises(DataError, match=r"pip install openpyxl"):
        open_tables([path], LAYOUT)


def test_openpyxl_is_not_imported_for_other_tables(folder: Path) -> None:
    code = "import sys, riskva.tables.table; assert 'openpyxl' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_columns_of_a_workbook_are_renamed_and_counted(folder: Path) -> None:
    path = excel(folder / "t.xlsx", [["编号", *HEADER[1:]], row()])
    names = {"编号": "image_id"}
    assert records(open_tables([path], layout(column_names=names)))[0].id == "1"
    path = excel(folder / "u.xlsx", [["编号", *HEADER], ["9", *row()]])
    with pytest.raises(DataError, match=r"columns stand twice \(after column_names\): image_id"):
        open_tables([path], layout(column_names=names))


# JSONL, JSON and Parquet made elsewhere


@pytest.mark.parametrize("as_array", [False, True])
def test_flat_rows(folder: Path, as_array: bool) -> None:
    rows = [flat(image_id=1, 面积=2.0), flat(image_id="2", 楼层=None), flat(image_id=3, 框=[1, 2])]
    path = folder / "rows.json"
    if as_array:
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        jsonl(path, *rows)
    tables = open_tables([path], LAYOUT)
    assert tables.files[0].label == "JSON, flat rows, left out as no text: 框"
    assert tables.columns == (*HEADER, "面积", "楼层")
    read = records(tables)
    assert [(one.id, one.report) for one in read] == [(str(number), REPORT) for number in (1, 2, 3)]
    assert [one.cells["面积"] for one in read] == ["2", "", ""]
    assert read[0].photo.path == folder / "a.jpg"


BASE64 = base64.b64encode(jpeg()).decode()


@pytest.mark.parametrize(
    ("column", "value", "name"),
    [
        ("image", "a.jpg", "a.jpg"),
        ("images", ["a.jpg"], "a.jpg"),
        ("images", '["a.jpg"]', "a.jpg"),
        ("image", {"path": "a.jpg"}, "a.jpg"),
        ("image_base64", BASE64, "1.jpg"),
        ("image_base64", [BASE64], "1.jpg"),
        ("image", "data:image/jpeg;base64," + BASE64, "1.jpg"),
    ],
)
def test_photos_of_flat_json_rows(folder: Path, column: str, value: Any, name: str) -> None:
    cells = {key: cell for key, cell in flat().items() if key != "image_path"}
    tables = open_tables([jsonl(folder / "rows.jsonl", {**cells, column: value})], LAYOUT)
    (record,) = records(tables)
    assert (record.photo.name, record.photo.read()) == (name, jpeg())
    assert column not in tables.columns


@pytest.mark.parametrize("value", [[], ["a.jpg", "a.jpg"], None, "", '["a.jpg", "a.jpg"]'])
def test_a_row_shows_exactly_one_photo(folder: Path, value: Any) -> None:
    cells = {key: cell for key, cell in flat().items() if key != "image_path"}
    bad = only_bad(open_tables([jsonl(folder / "rows.jsonl", {**cells, "images": value})], LAYOUT))
    assert bad.reason == "not_one_photo"
    assert "a row tells of exactly one" in bad.message


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"bytes": BASE64, "path": "a.jpg"}, "image_unreadable"),
        ("data:image/png;base64,???", "image_unreadable"),
        (7, "malformed_row"),
        ("[a", "malformed_row"),
        ("../a.jpg", "image_outside"),
        ("/etc/hostname", "image_outside"),
        ("C:\\a.jpg", "image_outside"),
        ({"path": "gone.jpg"}, "image_missing"),
        ({"path": None}, "malformed_row"),
    ],
)
def test_photos_of_json_rows_that_cannot_be_used(folder: Path, value: Any, reason: str) -> None:
    cells = {key: cell for key, cell in flat().items() if key != "image_path"}
    tables = open_tables([jsonl(folder / "rows.jsonl", {**cells, "image": value})], LAYOUT)
    assert reasons(tables) == [reason]


def test_bad_lines_spoil_no_others(folder: Path) -> None:
    path = jsonl(
        folder / "rows.jsonl",
        flat(),
        '{"image_id": ',
        "[1]",
        "",
        flat(image_id="2", data_风险=["x"]),
        flat(image_id="3"),
    )
    rows = list(open_tables([path], LAYOUT).rows())
    assert [(one.line, one.number) for one in rows] == [(1, 0), (2, 1), (3, 2), (5, 3), (6, 4)]
    bad = [(one.reason, one.message) for one in rows if isinstance(one, BadRow)]
    assert [reason for reason, _ in bad] == ["malformed_row"] * 3
    assert bad[0][1].startswith("not valid JSON")
    assert bad[1][1] == "expected an object with columns, found list"
    assert bad[2][1] == "data_风险 holds a list; expected text or a number"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file holds no rows"),
        ("x\ny\n", "rows.jsonl:1: not valid JSON"),
        ('{"a": 1}\n', "columns missing: image_path"),
    ],
)
def test_json_files_without_any_use(folder: Path, content: str, message: str) -> None:
    (folder / "rows.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        open_tables([folder / "rows.jsonl"], LAYOUT)


CONVERSATIONS = [
    {"messages": [{"role": "user", "content": "<image>问"}, {"role": "assistant", "content": ANSWER}]},
    {"conversations": [{"from": "human", "value": "<image>问"}, {"from": "gpt", "value": ANSWER}], "system": "你是"},
    {"conversations": [{"role": "user", "content": "<image>问"}, {"role": "assistant", "content": ANSWER}]},
    {"messages": [{"from": "human", "value": "<image>问"}, {"from": "gpt", "value": ANSWER}]},
    {"instruction": "<image>问", "input": "", "output": ANSWER},
    {"instruction": "问", "input": "<image>", "output": ANSWER, "history": [["a", "b"]], "system": ""},
]


@pytest.mark.parametrize(
    "photo", [{"images": ["a.jpg"]}, {"image": "a.jpg"}, {"image_base64": [BASE64]}, {"image_path": "a.jpg"}]
)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_conversations_of_llamafactory(folder: Path, conversation: dict[str, Any], photo: dict[str, Any]) -> None:
    path = jsonl(folder / "rows.jsonl", {**conversation, **photo, "id": "x/1", "楼层": 3})
    tables = open_tables([path], LAYOUT)
    assert tables.columns == ("image_id", "楼层")
    (record,) = records(tables)
    assert (record.id, record.report, record.photo.read()) == ("x/1", REPORT, jpeg())
    assert record.photo.name == ("x_1.jpg" if "image_base64" in photo else "a.jpg")
    assert record.cells == {"image_id": "x/1", "楼层": "3"}


def test_conversations_with_renamed_columns_and_grouped_rows(folder: Path) -> None:
    conversation = {"对话": CONVERSATIONS[0]["messages"], "照片": ["a.jpg"], "房屋": "1-2"}
    names = {"对话": "messages", "照片": "images"}
    path = jsonl(folder / "rows.jsonl", conversation)
    (record,) = records(open_tables([path], layout(column_names=names, group_by="房屋", group_pattern=r"^\d")))
    assert (record.id, record.group) == ("rows-1", "1")


def spoken(answer: str, question: str = "<image>问") -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        "images": ["a.jpg"],
    }


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        ("很好", "answer_unparsed", "the last answer is no report: missing or empty: 风险描述"),
        (ANSWER.replace("轻微", "B-轻微"), "answer_unparsed", "unknown risk level 'B-轻微'"),
        (ANSWER.replace("渗水", "渗<|im_end|>"), "control_token", "data_风险 holds '<|im_end|>'"),
        ("<image>" + ANSWER, "malformed_row", "1 image"),
    ],
)
def test_answers_that_are_no_reports(folder: Path, answer: str, reason: str, message: str) -> None:
    bad = only_bad(open_tables([jsonl(folder / "rows.jsonl", spoken(answer))], LAYOUT))
    assert bad.reason == reason
    assert message in bad.message
    assert str(folder) not in bad.message


def test_the_last_answer_counts(folder: Path) -> None:
    row_of_two = spoken("第一")
    row_of_two["messages"] += [{"role": "user", "content": "再"}, {"role": "assistant", "content": ANSWER}]
    unanswered = spoken("x")
    unanswered["messages"].pop()
    tables = open_tables([jsonl(folder / "rows.jsonl", row_of_two, unanswered)], LAYOUT)
    assert reasons(tables) == ["good", "answer_unparsed"]


def test_prefixes_are_cut_from_spoken_answers(folder: Path) -> None:
    path = jsonl(folder / "rows.jsonl", spoken(ANSWER.replace("裂缝", "1-2-301：裂缝")))
    (record,) = records(open_tables([path], layout(strip_patterns={"data_缺陷描述": r"[\d-]+"})))
    assert record.report == REPORT


def test_malformed_conversations(folder: Path) -> None:
    rows = [
        spoken(ANSWER),
        {**spoken(ANSWER), "messages": "nothing"},
        {**spoken(ANSWER), "messages": [{"role": "boss", "content": "x"}]},
        {**spoken(ANSWER), "images": ["a.jpg", "a.jpg"]},
        spoken(ANSWER, "no mark"),
    ]
    tables = open_tables([jsonl(folder / "rows.jsonl", *rows)], LAYOUT)
    assert reasons(tables) == ["good", "malformed_row", "malformed_row", "not_one_photo", "malformed_row"]


def test_photos_of_data_files_lie_in_the_photo_folder_or_beside_the_file(tmp_path: Path) -> None:
    for name in ("photos", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jpg").write_bytes(jpeg())
        (tmp_path / name / "both.jpg").write_bytes(jpeg())
    names = [
        "photos.jpg",
        "data.jpg",
        "both.jpg",
        "../photos/photos.jpg",
        str(tmp_path / "data" / "data.jpg"),
        "gone.jpg",
    ]
    path = jsonl(tmp_path / "data" / "rows.jsonl", *({**spoken(ANSWER), "images": [name]} for name in names))
    rows = list(open_tables([path], LAYOUT, tmp_path / "photos").rows())
    found = [one.photo.path if isinstance(one, DefectRecord) else one.reason for one in rows]
    assert found == [
        tmp_path / "photos" / "photos.jpg",
        tmp_path / "data" / "data.jpg",
        tmp_path / "photos" / "both.jpg",
        "image_outside",
        tmp_path / "data" / "data.jpg",
        "image_missing",
    ]
    assert isinstance(rows[-1], BadRow)
    assert rows[-1].file == "gone.jpg"


def parquet(path: Path, rows: list[dict[str, Any]], **keys: Any) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, **keys)
    return path


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"bytes": jpeg(), "path": "x/a.jpg"}, "x/a.jpg"),
        ({"bytes": jpeg(), "path": "../../a.jpg"}, "a.jpg"),
        ({"bytes": jpeg(), "path": "C:\\照片\\a.jpg"}, "a.jpg"),
        ({"bytes": jpeg(), "path": "/home/someone/a.jpg"}, "a.jpg"),
        ({"bytes": jpeg(), "path": ".."}, "1.jpg"),
        ({"bytes": jpeg(), "path": "a" * 300}, "1.jpg"),
        ({"bytes": jpeg(), "path": "a\0\n.jpg"}, "a.jpg"),
        ({"bytes": jpeg(), "path": None}, "1.jpg"),
        ([{"bytes": jpeg(), "path": ""}], "1.jpg"),
        (jpeg(), "1.jpg"),
        ([jpeg()], "1.jpg"),
        (b"unknown", "1"),
    ],
)
def test_pictures_in_parquet_have_names_that_are_safe(folder: Path, value: Any, name: str) -> None:
    cells = {key: cell for key, cell in flat().items() if key != "image_path"}
    path = parquet(folder / "rows.parquet", [{**cells, "image": value}])
    (record,) = records(open_tables([path], LAYOUT))
    assert record.photo.name == name
    assert record.photo.path is None


def test_parquet_has_types_and_positions(folder: Path) -> None:
    day = datetime.datetime(2024, 5, 6)
    rows = [flat(image_id=number, 日期=day, 面积=Decimal("1.5"), 框=[1], 缩略图=b"x") for number in range(5)]
    tables = open_tables([parquet(folder / "rows.parquet", rows, row_group_size=2)], LAYOUT)
    assert tables.files[0].label == "Parquet, flat rows, left out as no text: 框, 缩略图"
    read = records(tables)
    assert [(one.id, one.line) for one in read] == [(str(number), number + 1) for number in range(5)]
    assert [read[0].cells[name] for name in ("日期", "面积")] == ["2024-05-06", "1.5"]


def test_prepared_data_can_be_prepared_again(folder: Path) -> None:
    rows = [
        {
            **spoken(ANSWER),
            "id": str(number),
            "images": [{"bytes": jpeg(), "path": f"images/{number}.jpg"}],
            "image_path": "z",
        }
        for number in range(3)
    ]
    tables = open_tables([parquet(folder / "train.parquet", rows)], LAYOUT)
    assert tables.files[0].label == "Parquet, conversations"
    assert tables.columns == ("image_id", "image_path")
    assert [(one.id, one.photo.name, one.report) for one in records(tables)] == [
        (str(number), f"images/{number}.jpg", REPORT) for number in range(3)
    ]


def test_a_parquet_file_that_is_broken_ends_the_job(folder: Path) -> None:
    path = parquet(folder / "rows.parquet", [flat()])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"rows\.parquet"):
        open_tables([path], LAYOUT)


def test_parquet_text_that_is_not_utf8_spoils_its_row_only(folder: Path) -> None:
    rows = [flat(image_id=name, 备注=f"x{name}z") for name in "123"]
    path = parquet(folder / "rows.parquet", rows, compression=None, use_dictionary=False, write_statistics=False)
    path.write_bytes(path.read_bytes().replace(b"x2z", b"\xff\xfez"))
    assert reasons(open_tables([path], LAYOUT)) == ["good", "malformed_row", "good"]


def test_parquet_names_that_are_not_utf8(folder: Path) -> None:
    path = parquet(folder / "rows.parquet", [flat(xyz="x")])
    path.write_bytes(path.read_bytes().replace(b"xyz", b"\xff\xfez"))
    with pytest.raises(DataError, match=r"rows\.parquet: columns' names are not UTF-8"):
        open_tables([path], LAYOUT)
