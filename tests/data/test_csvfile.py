from pathlib import Path

import pytest

from riskva.data.csvfile import open_csv
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
        ("编号".encode("utf-16"), "UTF-16"),
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


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no such file"):
        open_csv(tmp_path / "gone.csv")
