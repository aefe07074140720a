import csv
import io
from pathlib import Path

import pytest

from riskva.csvfile import open_csv
from riskva.errors import DataError, MissingDataError


def written(folder: Path, content: bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("encoding", "label"),
    [("utf-8", "UTF-8"), ("utf-8-sig", "UTF-8 with BOM"), ("gbk", "GBK/GB18030"), ("gb18030", "GBK/GB18030")],
)
def test_encoding_is_found_and_named(tmp_path: Path, encoding: str, label: str) -> None:
    file = open_csv(written(tmp_path, "编号,等级\n1,轻微\n".encode(encoding)), lambda header: "等级" in header)
    assert file.label == label
    assert file.header == ("编号", "等级")
    assert [row.cells for row in file.rows()] == [("1", "轻微")]


def test_an_encoding_that_decodes_is_not_taken_when_the_header_does_not_fit(tmp_path: Path) -> None:
    # These bytes are valid UTF-8 by accident, and GBK in truth.
    word = "聞".encode()[:2] * 2
    path = written(tmp_path, "a,".encode("gbk") + word + b"\n")
    wanted = word.decode("gb18030")
    assert open_csv(path, lambda header: wanted in header).header == ("a", wanted)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_unicode_text_as_excel_saves_it(tmp_path: Path, encoding: str) -> None:
    text = '编号\t等级\r\n1\t"轻\r\n微"\r\n'
    content = text.encode(encoding) if encoding == "utf-16" else ("\ufeff" + text).encode(encoding)
    file = open_csv(written(tmp_path, content), lambda header: "等级" in header, ["\t"])
    assert (file.label, file.header) == ("UTF-16, parted by tabs", ("编号", "等级"))
    assert [(row.cells, row.line, row.last_line) for row in file.rows()] == [(("1", "轻\r\n微"), 2, 3)]


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
@pytest.mark.parametrize(
    ("delimiter", "label"), [(",", ""), ("\t", ", parted by tabs"), (";", ", parted by semicolons")]
)
def test_delimiter_is_the_one_that_gives_the_columns(tmp_path: Path, delimiter: str, label: str, encoding: str) -> None:
    rows = [["编号", "说明"], ["1", 'a, b; c\td "e"\nf'], ["2", "g"], ["3", delimiter]]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    path = written(tmp_path, text.getvalue().encode(encoding))
    file = open_csv(path, lambda header: {"编号", "说明"} <= set(header), [",", "\t", ";"])
    assert (file.delimiter, file.label.endswith("UTF-8" + label) or file.label == "GBK/GB18030" + label) == (
        delimiter,
        True,
    )
    assert [list(row.cells) for row in file.rows()] == rows[1:]


def test_without_a_fitting_header_the_delimiter_with_most_columns_counts(tmp_path: Path) -> None:
    file = open_csv(written(tmp_path, b"a;b;c,d\n"), lambda _: False, [",", "\t", ";"])
    assert file.header == ("a", "b", "c,d")


def test_two_delimiters_that_fit_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"table\.csv: the header can be read with commas and with semicolons"):
        open_csv(written(tmp_path, b"a,x;id;b,x\n"), lambda header: len(header) == 3, [",", ";"])


def test_wrong_cell_count_names_the_delimiter(tmp_path: Path) -> None:
    file = open_csv(written(tmp_path, b"a\tb\n1\t2\t3\n"), delimiters=["\t"])
    (row,) = file.rows()
    assert file.fault(row) == ("wrong_cell_count", "3 cells, the header has 2; quote cells with tabs")


def test_open_quote_in_a_table_of_tabs_is_found(tmp_path: Path) -> None:
    content = swallowing('10,10.jpg,"裂缝,轻微', '350,350.jpg,"裂缝",轻微').replace(b",", b"\t")
    file = open_csv(written(tmp_path, content), delimiters=["\t"])
    with pytest.raises(DataError, match=r"table\.csv:11: .*to line 351, .*a quote is left open"):
        list(file.rows())


def test_the_blank_of_old_chinese_software_is_no_sign_of_big5(tmp_path: Path) -> None:
    file = open_csv(written(tmp_path, "编号\n".encode("gbk") + b"\xa3\xa0x\n"))
    assert file.label == "GBK/GB18030"


def test_rows_carry_the_physical_line_they_start_on(tmp_path: Path) -> None:
    content = b'id,text\r\n1,"two\r\nlines"\r\n\r\n2,x\r\n,\r\n3,"a\nb\nc"\n4,y\n'
    rows = list(open_csv(written(tmp_path, content)).rows())
    assert [(row.cells[0], row.line, row.last_line) for row in rows] == [
        ("1", 2, 3),
        ("2", 5, 5),
        ("3", 7, 9),
        ("4", 10, 10),
    ]
    assert rows[0].cells[1] == "two\r\nlines"


def test_header_is_found_below_blank_lines_and_stripped(tmp_path: Path) -> None:
    assert open_csv(written(tmp_path, b"\n\n id , text\n1,2\n")).header == ("id", "text")


def test_quote_in_the_wrong_place_spoils_its_row_only(tmp_path: Path) -> None:
    rows = list(open_csv(written(tmp_path, b'id,text\n1,"a"b\n2,5" wide\n')).rows())
    assert rows[0].fault
    assert rows[1].cells == ("2", '5" wide')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"PK\x03\x04rest", "an Excel workbook"),
        ("编号".encode("utf-32"), "UTF-32 text"),
        ("编号\n".encode("utf-16")[:-1], "not utf-16"),
        ("编号\n".encode("utf-8-sig") + b"\xb1\xe0", "not utf-8"),
        ("編號,等級\n1,嚴重的工地\n".encode("big5"), "is it Big5"),
        (b"id\n\xff\xff\n", "save the table as CSV in UTF-8"),
    ],
)
def test_unreadable_file_says_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        open_csv(path)
    assert str(path) in str(caught.value)


def test_open_quote_is_an_error_since_it_swallows_rows(tmp_path: Path) -> None:
    file = open_csv(written(tmp_path, b'id,text\n1,fine\n2,"open\n3,lost\n4,lost\n'))
    with pytest.raises(DataError, match=":3: a quoted cell that begins in this row does not end"):
        list(file.rows())


def swallowing(tenth: str, last: str, count: int = 400) -> bytes:
    """A table of four columns whose row 10 opens a quote and whose row 350 happens to end it."""
    rows = [f"{number},{number}.jpg,裂缝,轻微" for number in range(1, count + 1)]
    rows[9], rows[349] = tenth, last
    return "\r\n".join(["id,photo,text,level", *rows, ""]).encode()


@pytest.mark.parametrize(
    "tenth", ['10,10.jpg,"裂缝,轻微', '10,"10.jpg,裂缝,轻微', '10,10.jpg,裂缝,"轻微', '"10,"",x,轻微']
)
@pytest.mark.parametrize(
    "last", ['350,350.jpg,"裂缝",轻微', '350,350.jpg,"裂缝, 长",轻微', '350,350.jpg,20",轻微', '350,350.jpg,裂缝,20"']
)
def test_open_quote_that_another_quote_ends_is_an_error_too(tmp_path: Path, tenth: str, last: str) -> None:
    file = open_csv(written(tmp_path, swallowing(tenth, last)))
    with pytest.raises(DataError, match=r"table\.csv:11: .*to line 351, .*a quote is left open; close it, or double"):
        list(file.rows())


def test_open_quote_that_the_next_row_ends_is_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r":2: .*to line 3"):
        list(open_csv(written(tmp_path, b'id,text,level\n1,"a,x\n2,20",y\n3,b,z\n')).rows())


@pytest.mark.parametrize(
    "cells",
    [
        ["1", "first\nsecond\nthird", "x"],
        ["1", "x", "one, two, three\nfour, five, six\nseven"],
        ["one\n\ntwo", "one, two\nthree, four\nfive, six", "x"],
        ["1", "a, b\nc, d, e\nf", "g\nh, i, j\nk"],
        ["1\n2", 'he said "a, b, c"\nand\nleft', "3\n4"],
    ],
)
def test_text_with_line_breaks_is_one_cell(tmp_path: Path, cells: list[str]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["id", "text", "level"], cells, ["2", "b", "c"]])
    rows = list(open_csv(written(tmp_path, text.getvalue().encode())).rows())
    assert [list(row.cells) for row in rows] == [cells, ["2", "b", "c"]]


def test_nameless_columns_without_content_are_left_out(tmp_path: Path) -> None:
    file = open_csv(written(tmp_path, b"id,text,,\n1,a,,\n2,b, ,\n3,c,,oops\n"))
    first, second, third = file.rows()
    assert file.columns == ("id", "text")
    assert [file.fault(row) for row in (first, second)] == [None, None]
    assert [file.cells(row) for row in (first, second)] == [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]
    assert file.fault(third) == ("nameless_column", "column 4 holds 'oops' and has no name; name it in the header")


def test_a_name_that_is_too_long_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no such file"):
        open_csv(tmp_path / ("长" * 100))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no such file"):
        open_csv(tmp_path / "gone.csv")


@pytest.mark.parametrize("mark", ["\ufeff", "\u200b", "\ufeff\ufeff"])
def test_marks_that_nobody_sees_are_no_part_of_a_name(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{mark}id{mark},名\n1,甲\n", encoding="utf-8-sig")
    assert open_csv(path).columns == ("id", "名")
