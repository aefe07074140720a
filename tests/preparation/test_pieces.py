import os
from pathlib import Path

import pytest
from prepared_rows import bad, jpeg, prepared, record

from riskva.data.conversation import Photo
from riskva.errors import DataError, MissingDataError
from riskva.parts import Part
from riskva.preparation.finished_parts import FinishedPart, SourceFile, find_row, read_parts, rows_in_order
from riskva.preparation.pieces import ROWS_PER_PIECE, DoneRow, PieceFolder, file_state, in_pieces
from riskva.tables.records import BadRow, PreparedRow

TABLES = (SourceFile("t.csv", "in/t.csv", "0" * 64, "UTF-8"),)


def folder_of(path: Path, key: str = "key") -> PieceFolder:
    folder = PieceFolder(path, key)
    folder.open()
    return folder


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    source = tmp_path / "1.jpg"
    source.write_bytes(jpeg(1))
    rows = [
        prepared(0, group="3栋", split="train", level_as_written="一般"),
        prepared(1, source),
        bad(2),
        prepared(3, size=(4000, 3000)),
    ]
    folder = folder_of(tmp_path / "part")
    with folder.writing(0) as writer:
        for row in rows:
            is_new = isinstance(row, PreparedRow) and row.photo.source is None
            writer.add(DoneRow(row, jpeg(row.number) if is_new else None))
    back = list(folder.rows(1))
    assert [one.row for one in back] == rows
    assert [one.read_photo() for one in back if isinstance(one.row, PreparedRow)] == [jpeg(0), jpeg(1), jpeg(3)]


@pytest.mark.parametrize("fault", ["changed", "gone"])
def test_an_original_that_is_no_longer_the_same_is_noticed(tmp_path: Path, fault: str) -> None:
    source = tmp_path / "1.jpg"
    source.write_bytes(jpeg(1))
    folder = folder_of(tmp_path / "part")
    with folder.writing(0) as writer:
        writer.add(DoneRow(prepared(1, source)))
    source.write_bytes(jpeg(2)) if fault == "changed" else source.unlink()
    with pytest.raises(DataError, match="run prepare again"):
        next(folder.rows(1)).read_photo()


def test_a_piece_counts_while_its_rows_and_photos_are_the_same(tmp_path: Path) -> None:
    source = tmp_path / "0.jpg"
    source.write_bytes(jpeg())
    photo = Photo(path=source, name="0.jpg")
    rows = [record(0, photo), record(1, photo), bad(2)]
    folder = folder_of(tmp_path / "part")
    with folder.writing(0) as writer:
        writer.add(DoneRow(prepared(0, source), state=file_state(photo)))
        writer.add(DoneRow(prepared(1), jpeg(1), state=file_state(photo)))
        writer.add(DoneRow(bad(2)))
    assert folder.holds(0, rows)
    assert not folder.holds(1, rows)
    assert not folder.holds(0, rows[:2])
    assert not folder.holds(0, [record(5, photo), *rows[1:]])
    assert not folder.holds(0, [*rows[:2], bad(2, "empty_field")])
    assert not PieceFolder(tmp_path / "part", "other key").holds(0, rows)
    os.utime(source, ns=(1, 1))  # the photo was replaced by another of the same size
    assert not folder.holds(0, rows)


def test_a_photo_that_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    source = tmp_path / "0.jpg"
    source.write_bytes(jpeg())
    photo = Photo(path=source, name="0.jpg")
    folder = folder_of(tmp_path / "part")
    with folder.writing(0) as writer:
        writer.add(DoneRow(bad(0, "image_unreadable"), state=file_state(photo)))
    assert not folder.holds(0, [record(0, photo)])


@pytest.mark.parametrize("left", [None, 0, 10])
def test_a_piece_without_all_of_its_pictures_is_not_whole(tmp_path: Path, left: int | None) -> None:
    folder = folder_of(tmp_path / "part")
    with folder.writing(0) as writer:
        writer.add(DoneRow(prepared(0), jpeg()))
    row = record(0, Photo(data=jpeg(), name="0.jpg"))
    assert folder.holds(0, [row])
    pictures = tmp_path / "part" / "piece-00000.photos"
    pictures.unlink() if left is None else pictures.write_bytes(pictures.read_bytes()[:left])
    assert not folder.holds(0, [row])


def test_line_breaks_of_all_kinds_in_a_cell_break_no_line(tmp_path: Path) -> None:
    text = "a\nb\rc\u2028d\u2029e\x85f\x0bg\x0ch\x1ci"
    row = prepared(0, texts={"缺陷描述": text})
    folder = folder_of(tmp_path)
    with folder.writing(0) as writer:
        writer.add(DoneRow(row, jpeg()))
    assert [one.row for one in folder.rows(1)] == [row]
    assert folder.holds(0, [record(0, Photo(data=jpeg(), name="0.jpg"), texts={"缺陷描述": text})])


@pytest.mark.parametrize("damage", [b"", b"{", b"\0\0\0\n", b"\xff\xfe\n"])
def test_a_damaged_piece_is_done_again_and_told_by_merge(tmp_path: Path, damage: bytes) -> None:
    part = finished(tmp_path, Part(), [0, 1], 2)
    facts = part.folder.path / "piece-00000.jsonl"
    facts.write_bytes(damage)
    assert not part.folder.holds(0, [bad(0), bad(1)])
    with pytest.raises(DataError, match="run th"):
        list(rows_in_order([part]))
    facts.unlink()
    with pytest.raises(DataError, match="run this part of prepare again"):
        list(rows_in_order([part]))


def test_a_damaged_part_json_is_told(tmp_path: Path) -> None:
    part = finished(tmp_path, Part(), [0], 1)
    for damage in ("{}", "{"):
        (part.folder.path / "part.json").write_text(damage)
        with pytest.raises(DataError, match=r"part.json: damaged"):
            read_parts(tmp_path)


def test_a_photo_that_changed_unseen_is_done_again(tmp_path: Path) -> None:
    source = tmp_path / "1.jpg"
    source.write_bytes(jpeg(1))
    photo = Photo(path=source, name="1.jpg")
    folder = folder_of(tmp_path / "part")
    with folder.writing(0) as writer:
        writer.add(DoneRow(prepared(1, source), state=file_state(photo)))
    times = source.stat()
    source.write_bytes(jpeg(1)[:-1] + b"x")
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert folder.holds(0, [record(1, photo)])
    with pytest.raises(DataError, match="has changed"):
        next(folder.rows(1)).read_photo()
    assert not folder.holds(0, [record(1, photo)])


def test_large_pictures_in_a_table_make_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riskva.preparation.pieces.PICTURE_BYTES_PER_PIECE", 2 * len(jpeg()))
    rows = [record(number, Photo(data=jpeg(), name="a")) for number in range(5)]
    assert [len(piece) for piece in in_pieces(rows)] == [2, 2, 1]


def test_an_unfinished_piece_is_not_there(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)

    def fail() -> None:
        with folder.writing(0) as writer:
            writer.add(DoneRow(bad(0)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_pieces_of_another_key_are_removed(tmp_path: Path) -> None:
    with folder_of(tmp_path / "part").writing(0) as writer:
        writer.add(DoneRow(bad(0)))
    assert folder_of(tmp_path / "part").holds(0, [bad(0)])
    folder_of(tmp_path / "part", "other")
    assert [path.name for path in (tmp_path / "part").iterdir()] == ["key"]


@pytest.mark.parametrize("count", [0, 1, ROWS_PER_PIECE, ROWS_PER_PIECE + 1])
def test_pieces_hold_all_rows_in_order(count: int) -> None:
    pieces = list(in_pieces(map(bad, range(count))))
    assert [row.number for piece in pieces for row in piece] == list(range(count))
    assert all(len(piece) == ROWS_PER_PIECE for piece in pieces[:-1])


def finished(work: Path, part: Part, numbers: list[int], num_rows: int, **keys: object) -> FinishedPart:
    folder = folder_of(work / part.name)
    pieces = [numbers[start : start + 2] for start in range(0, len(numbers), 2)]
    for number, piece in enumerate(pieces):
        with folder.writing(number) as writer:
            for one in piece:
                writer.add(DoneRow(bad(one)))
    made = FinishedPart(part, folder, len(pieces), num_rows, {"seed": 42, **keys}, TABLES, ("image_id",))
    made.save()
    return made


def test_parts_are_read_back_in_the_order_of_the_tables(tmp_path: Path) -> None:
    parts = [finished(tmp_path, Part(0, 3), [0, 3, 4], 6), finished(tmp_path, Part(1, 3), [], 6)]
    parts.append(finished(tmp_path, Part(2, 3), [1, 2, 5], 6))
    assert read_parts(tmp_path) == parts
    assert [one.row.number for one in rows_in_order(parts)] == list(range(6))
    assert [find_row(parts, number).row.number for number in range(6)] == list(range(6))
    with pytest.raises(KeyError):
        find_row(parts, 6)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([0, 2], [3], "row 1 is in no part"),
        ([0, 1], [1, 2, 3], "row 1 stands in two parts"),
        ([0, 1], [2], "row 3 is in no part"),
        ([1, 2], [3], "row 0 is in no part"),
    ],
)
def test_gaps_and_doubles_are_refused(tmp_path: Path, first: list[int], second: list[int], message: str) -> None:
    parts = [finished(tmp_path, Part(0, 2), first, 4), finished(tmp_path, Part(1, 2), second, 4)]
    with pytest.raises(DataError, match=message):
        list(rows_in_order(parts))


def test_parts_that_are_missing_or_unfinished_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no parts to merge"):
        read_parts(tmp_path)
    finished(tmp_path, Part(0, 3), [0], 3)
    with pytest.raises(MissingDataError, match=r"parts are missing: 1/3, 2/3; run prepare with shard=1/3"):
        read_parts(tmp_path)
    (finished(tmp_path, Part(2, 3), [1], 3).folder.path / "part.json").unlink()
    with pytest.raises(MissingDataError, match="parts are missing: 1/3; parts are not finished: 2/3"):
        read_parts(tmp_path)


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    finished(tmp_path, Part(0, 2), [0], 2)
    finished(tmp_path, Part(1, 2), [1], 2, seed=7)
    with pytest.raises(
        DataError, match="part-00001-of-00002 was prepared otherwise than part-00000-of-00002: seed 42 and 7"
    ):
        read_parts(tmp_path)
    finished(tmp_path, Part(1, 3), [1], 2)
    with pytest.raises(DataError, match="parts of 2 and of 3"):
        read_parts(tmp_path)


def test_bad_rows_keep_their_reason(tmp_path: Path) -> None:
    part = finished(tmp_path, Part(), [0], 1)
    (one,) = rows_in_order([part])
    assert isinstance(one.row, BadRow)
    assert one.row.reason == "image_missing"
