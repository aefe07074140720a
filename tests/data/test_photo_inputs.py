"""Photos in folders, patterns, lists and files of rows become prompts; what is wrong with one is its own affair."""

import base64
import csv
import io
import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from riskva.data.asking import Asking, make_asking
from riskva.data.conversation import Conversation, Photo
from riskva.data.images import open_photo
from riskva.data.photo_inputs import Inputs, one_photo, open_inputs
from riskva.errors import DataError, ImageError, MissingDataError, RecipeError
from riskva.preparation.writers import ParquetForm, write_jsonl, write_parquet

ASKING = Asking("<image>有什么缺陷？", "你是检查员。")


def picture(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def put(folder: Path, *names: str) -> Path:
    """A picture at each of these paths in `folder`, or a line of text where the name is none of a picture."""
    for shade, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(shade) if path.suffix.lower() in (".jpg", ".png") else b"text")
    return folder


def shade_of(conversation: Conversation) -> int:
    (photo,) = conversation.photos
    return open_photo(photo).getpixel((0, 0))[0]  # type: ignore[index, return-value]


def texts(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in conversation.messages]


def test_a_folders_pictures_are_asked_alike_in_the_order_of_their_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("b 楼/2.JPG", "a.png", "b 楼/厨房/1.jpg", "notes.docx", ".hidden/x.jpg", "._a.png", "b 楼/.x.jpg")
    inputs = open_inputs(put(tmp_path, *names), ASKING)
    assert inputs.ids == ["a.png", "b 楼/2.JPG", "b 楼/厨房/1.jpg"]
    assert [inputs.id_of(index) for index in range(len(inputs))] == inputs.ids
    assert [shade_of(inputs[index]) for index in range(3)] == [1, 0, 2]
    assert inputs[1].id == "b 楼/2.JPG"
    assert inputs[1].photos[0].name == f"{tmp_path}/b 楼/2.JPG"
    assert texts(inputs[1]) == [("system", "你是检查员。"), ("user", "<image>有什么缺陷？")]
    (said,) = capsys.readouterr().err.splitlines()
    assert "left out, no picture by its name: 1 file" in said
    assert "notes.docx" in said


def test_photos_are_called_as_the_user_would_find_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "site/a.jpg", "list.txt")
    (tmp_path / "list.txt").write_text("site/a.jpg")
    monkeypatch.chdir(tmp_path)
    for source in ("site", "site/*.jpg", "site/a.jpg", "list.txt"):
        assert open_inputs(Path(source), ASKING)[0].photos[0].name == "site/a.jpg"
    assert one_photo(Path("site/a.jpg"), ASKING)[0].photos[0].name == "site/a.jpg"


def test_max_samples_takes_the_first_and_all_of_it_can_be_pickled(tmp_path: Path) -> None:
    inputs = open_inputs(put(tmp_path, "b.jpg", "a.jpg", "c.jpg"), ASKING, max_samples=2)
    again = pickle.loads(pickle.dumps(inputs))
    assert (len(again), again.ids, again[1]) == (2, ["a.jpg", "b.jpg"], inputs[1])
    with pytest.raises(IndexError):
        inputs[2]


def test_links_in_a_circle_and_to_the_same_folder_count_once(tmp_path: Path) -> None:
    put(tmp_path / "site", "b/1.jpg")
    put(tmp_path / "elsewhere", "2.jpg")
    (tmp_path / "site" / "b" / "up").symlink_to(tmp_path / "site")
    (tmp_path / "site" / "a").symlink_to(tmp_path / "site" / "b")
    (tmp_path / "site" / "self").symlink_to(tmp_path / "site" / "self")
    (tmp_path / "site" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "site" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    inputs = open_inputs(tmp_path / "site", ASKING)
    assert inputs.ids == ["b/1.jpg", "c/2.jpg", "gone.jpg"]
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        open_photo(inputs[2].photos[0])


def test_text_called_a_photo_costs_its_own_row(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    inputs = open_inputs(tmp_path, ASKING)
    assert shade_of(inputs[0]) == 0
    with pytest.raises(ImageError, match=r"text\.jpg"):
        open_photo(inputs[1].photos[0])


def test_names_that_are_not_utf8_can_be_written_and_are_found(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    for name in ("裂缝".encode("gb18030"), b"\xff"):
        (Path(os.fsdecode(folder + b"/" + name + b".png"))).write_bytes(picture(9))
    inputs = pickle.loads(pickle.dumps(open_inputs(tmp_path, ASKING)))
    assert sorted(inputs.ids) == ["\\xff.png", "裂缝.png"]
    for index in range(2):
        inputs[index].photos[0].name.encode()
        assert shade_of(inputs[index]) == 9


def fault(source: Path, kind: type[DataError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        open_inputs(source, ASKING)
    assert type(caught.value) is kind
    return str(caught.value)


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    assert "holds no file" in fault(tmp_path)
    put(tmp_path, "a.docx", "sub/b.zip", "c.mp4", "d.md")
    said = fault(tmp_path)
    assert "4 files, none a picture: a.docx, c.mp4, d.md, …" in said
    assert ".jpeg" in said
    put(tmp_path, "rows.parquet")
    assert f"images: {tmp_path}/rows.parquet" in fault(tmp_path)
    put(tmp_path, "dataset_info.json")
    assert f"dataset_dir: {tmp_path} and eval_dataset" in fault(tmp_path)


def test_a_prepared_folder_with_photos_hints_at_its_data_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(open_inputs(put(tmp_path, "images/a.jpg", "dataset_info.json"), ASKING)) == 1
    assert "eval_dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("*.jpg", ["1.jpg"]),
        ("**/*.jpg", ["1.jpg", "a/2.jpg", "a/b/3.jpg", "c [1]/4.jpg"]),
        ("a/**/*.jpg", ["2.jpg", "b/3.jpg"]),
        ("**/b/*", ["a/b/3.jpg", "a/b/5.PNG"]),
        ("*/[0-9].jpg", ["a/2.jpg", "c [1]/4.jpg"]),
        ("c [1]/?.jpg", ["4.jpg"]),
        ("a/**", ["2.jpg", "b/3.jpg", "b/5.PNG"]),
    ],
)
def test_patterns_find_what_pathlib_finds(tmp_path: Path, pattern: str, ids: list[str]) -> None:
    put(tmp_path, "1.jpg", "a/2.jpg", "a/b/3.jpg", "c [1]/4.jpg", "a/b/5.PNG", ".x/6.jpg", "a/b/notes.txt")
    assert open_inputs(tmp_path / pattern, ASKING).ids == ids
    if "[1]" not in pattern and not pattern.endswith("**"):  # pathlib takes that name for a wildcard
        found = [path for path in tmp_path.glob(pattern) if path.suffix in (".jpg", ".PNG") and ".x" not in path.parts]
        assert len(found) == len(ids)


def test_a_pattern_reads_only_folders_that_it_may_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/1.jpg", "a/deep/2.jpg", "b/3.jpg")
    read: list[str] = []
    scandir = os.scandir

    def watched(path: Path) -> Any:
        read.append(path.name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)
    open_inputs(tmp_path / "[a]/*.jpg", ASKING)
    assert read == [tmp_path.name, "a"]


def test_a_pattern_that_fits_nothing_says_where_it_looked(tmp_path: Path) -> None:
    put(tmp_path, "1.JPG", "2.JPG", "a.docx")
    assert "2 files would if it did not matter that letters are large or small: 1.JPG" in fault(
        tmp_path / "*.jpg", MissingDataError
    )
    assert "braces" in fault(tmp_path / "*.{jpg,png}", MissingDataError)
    assert f"of 3 files looked at in {tmp_path}" in fault(tmp_path / "x*", MissingDataError)
    assert f"no folder {tmp_path}/nowhere" in fault(tmp_path / "nowhere" / "*.jpg", MissingDataError)
    assert "1 file, none a picture: a.docx" in fault(tmp_path / "a*")


def test_what_is_not_there_is_named_with_a_like_name(tmp_path: Path) -> None:
    put(tmp_path, "photos/a.jpg")
    assert "did you mean" in fault(tmp_path / "photo", MissingDataError)
    assert f"nor is there a folder {tmp_path}/x" in fault(tmp_path / "x" / "y.txt", MissingDataError)
    put(tmp_path, "a.docx")
    assert ".docx files are not read; name a folder" in fault(tmp_path / "a.docx")


def test_one_photo_must_be_there_and_be_one(tmp_path: Path) -> None:
    put(tmp_path, "裂缝 1.jpg", "rows.jsonl")
    inputs = one_photo(tmp_path / "裂缝 1.jpg", ASKING)
    assert (len(inputs), inputs.ids, shade_of(inputs[0])) == (1, ["裂缝 1.jpg"], 0)
    with pytest.raises(MissingDataError, match=r"image: .*裂缝 2\.jpg.*did you mean .*裂缝 1\.jpg"):
        one_photo(tmp_path / "裂缝 2.jpg", ASKING)
    for many in (tmp_path, tmp_path / "rows.jsonl"):
        with pytest.raises(DataError, match="image names one photo"):
            one_photo(many, ASKING)


LIST = '# Montag\r\nsite/裂缝 1.jpg\r\n\r\n"site/渗水.jpg"\r\nsite\\渗水.jpg\r\nsite/裂缝 1.jpg\r\nsite/无.jpg\r\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "utf-16"])
def test_lists_of_any_encoding_name_photos_and_missing_ones_cost_their_own_row(tmp_path: Path, encoding: str) -> None:
    put(tmp_path, "site/裂缝 1.jpg", "site/渗水.jpg")
    (tmp_path / "list.txt").write_bytes(LIST.encode(encoding))
    inputs = open_inputs(tmp_path / "list.txt", ASKING)
    assert inputs.ids == ["site/裂缝 1.jpg", "site/渗水.jpg", "site\\渗水.jpg", "site/裂缝 1.jpg#2", "site/无.jpg"]
    assert [shade_of(inputs[index]) for index in range(4)] == [0, 1, 1, 0]
    assert inputs[4].source == f"{tmp_path}/list.txt:7"
    with pytest.raises(ImageError, match=r"site/无\.jpg") as caught:
        open_photo(inputs[4].photos[0])
    assert caught.value.reason == "image_missing"


def test_a_lists_paths_are_relative_to_its_folder_or_the_working_directory_or_media_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "lists", "0.jpg")
    put(tmp_path / "media", "1.jpg", "2.jpg", "0.jpg")
    put(tmp_path / "work", "2.jpg")
    monkeypatch.chdir(tmp_path / "work")
    path = tmp_path / "lists" / "list.txt"
    path.write_text(f"0.jpg\n1.jpg\n2.jpg\n{tmp_path}/media/0.jpg\n")
    inputs = open_inputs(path, ASKING)
    folders = [inputs[index].photos[0].path for index in (0, 2, 3)]
    assert folders == [tmp_path / "lists/0.jpg", Path("2.jpg"), tmp_path / "media/0.jpg"]
    inputs = open_inputs(path, ASKING, media_dir=tmp_path / "media")
    assert {inputs[index].photos[0].path for index in range(4)} == {tmp_path / f"media/{n}.jpg" for n in range(3)}


def test_a_list_without_entries_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\n# nothing\n")
    assert "names no photo" in fault(path)
    path.write_bytes(b"\xff\x81\xff")
    assert "UTF-8" in fault(path)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="gbk", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_parquet_file_of_nothing_but_bytes_is_asked(tmp_path: Path) -> None:
    rows = [{"image": picture(3)}, {"image": picture(4)}]
    inputs = pickle.loads(pickle.dumps(open_inputs(write_rows(tmp_path / "照片.parquet", rows), ASKING)))
    assert inputs.ids == ["照片-1", "照片-2"]
    assert [shade_of(inputs[index]) for index in range(2)] == [3, 4]
    assert texts(inputs[0]) == texts(ASKING.conversation(Photo(data=b""), "x"))


@pytest.mark.parametrize(
    ("name", "column", "cell"),
    [
        ("rows.jsonl", "images", ["site/a b.jpg"]),
        ("rows.json", "image_path", "site/a b.jpg"),
        ("rows.csv", "图片", "site/a b.jpg"),
        ("rows.csv", "Image", "site/a b.jpg"),
        ("rows.parquet", "照片路径", "site/a b.jpg"),
        ("rows.parquet", "image", {"bytes": picture(0), "path": "a.png"}),
        ("rows.jsonl", "image_base64", base64.b64encode(picture(0)).decode()),
        ("rows.jsonl", "photo", base64.b64encode(picture(0)).decode()),
    ],
)
def test_rows_with_a_photo_and_no_question_are_asked_and_keep_their_other_columns(
    tmp_path: Path, name: str, column: str, cell: Any
) -> None:
    put(tmp_path, "site/a b.jpg")
    rows = [{"id": f"r{number}", column: cell, "riskva_group": "g1", "房屋": "3栋"} for number in (1, 1, 3)]
    inputs = open_inputs(write_rows(tmp_path / name, rows), ASKING, max_samples=2)
    assert (len(inputs), inputs.ids, inputs[1].id, inputs.id_of(1)) == (2, ["r1", "r1#2"], "r1#2", "r1#2")
    assert shade_of(inputs[0]) == 0
    assert inputs[0].extra == {"riskva_group": "g1", "房屋": "3栋"}
    assert texts(inputs[0])[1:] == [("user", ASKING.question)]
    with pytest.raises(IndexError):
        inputs[2]


def test_tables_rows_go_by_their_image_id(tmp_path: Path) -> None:
    rows = [{"image_id": "甲", "image_path": "a.jpg"}, {"image_id": "", "image_path": "无.jpg"}]
    inputs = open_inputs(write_rows(tmp_path / "t.csv", rows), ASKING)
    assert inputs.ids == ["甲", "t-3"]
    with pytest.raises(ImageError, match=r"无\.jpg"):
        open_photo(inputs[1].photos[0])


def test_a_bad_row_is_told_when_it_is_read(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"image": "a.jpg"}\n{"image": \n{"image": ["a.jpg", "a.jpg"]}\n{"image": null}\n')
    inputs = open_inputs(path, ASKING)
    assert inputs.ids == ["rows-1", "rows-2", "rows-3", "rows-4"]
    assert shade_of(inputs[0]) == 0
    for index, said in ((1, "not valid JSON"), (2, "2 image"), (3, "0 image")):
        with pytest.raises(DataError, match=rf"rows\.jsonl:{index + 1}.*{said}"):
            inputs[index]


def prepared(folder: Path, kind: str) -> Path:
    photos = [Photo(path=put(folder, "p/a.jpg", "p/b.jpg") / f"p/{name}.jpg", name=f"p/{name}.jpg") for name in "ab"]
    rows = []
    for number, photo in enumerate(photos):
        asked = Asking(f"<image>第{number}问", "自带的提示").conversation(
            photo, f"r{number}", "", {"riskva_group": "g"}
        )
        rows.append(Conversation(asked.id, (*asked.messages, answered(number)), asked.photos, "", asked.extra))
    if kind == "jsonl":
        write_jsonl(folder / "rows.jsonl", rows, "bytes")
        return folder / "rows.jsonl"
    write_parquet(folder / "rows.parquet", rows, ParquetForm(kind, "snappy", ("riskva_group",)))  # type: ignore[arg-type]
    return folder / "rows.parquet"


def answered(number: int) -> Any:
    from riskva.data.conversation import Message

    return Message("assistant", f"答{number}")


@pytest.mark.parametrize("kind", ["jsonl", "bytes", "base64"])
def test_rows_as_prepare_writes_them_bring_their_own_question_and_answer(tmp_path: Path, kind: str) -> None:
    path = prepared(tmp_path, kind)
    inputs = open_inputs(path, ASKING)
    assert (inputs.ids, [shade_of(inputs[index]) for index in range(2)]) == (["r0", "r1"], [0, 1])
    assert texts(inputs[1]) == [("system", "自带的提示"), ("user", "<image>第1问"), ("assistant", "答1")]
    assert inputs[1].extra == {"riskva_group": "g"}
    assert len(open_inputs(path, ASKING, max_samples=1)) == 1
    assert len(open_inputs(path, ASKING, max_samples=9)) == 2


def test_other_forms_of_rows_bring_their_own_question_too(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    turns = [{"from": "human", "value": "<image>问"}, {"from": "gpt", "value": "答"}]
    sharegpt = {"conversations": turns, "images": ["a.jpg"], "system": "说"}
    alpaca = {"instruction": "<image>问", "output": "答", "images": ["a.jpg"], "system": "说"}
    for row in (sharegpt, alpaca):
        inputs = open_inputs(write_rows(tmp_path / "rows.jsonl", [row]), ASKING)
        assert texts(inputs[0]) == [("system", "说"), ("user", "<image>问"), ("assistant", "答")]
    question = {"instruction": "<image>问", "image": "a.jpg"}
    inputs = open_inputs(write_rows(tmp_path / "rows.json", [question]), ASKING)
    assert texts(inputs[0]) == [("user", "<image>问")]
    cells = {"messages": json.dumps([{"role": "user", "content": "<image>问"}]), "images": "a.jpg"}
    inputs = open_inputs(write_rows(tmp_path / "rows.csv", [cells]), ASKING)
    assert texts(inputs[0]) == [("user", "<image>问")]


def test_files_without_photos_or_rows_are_refused(tmp_path: Path) -> None:
    said = fault(write_rows(tmp_path / "rows.parquet", [{"文字": "x", "编号": 1}]))
    assert "no column of photos among 文字, 编号" in said
    assert "image_path" in said
    assert "no column of photos" in fault(write_rows(tmp_path / "rows.jsonl", [{"messages": []}]))
    assert "no rows" in fault(write_rows(tmp_path / "rows.json", []))
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    assert "not a readable Parquet file" in fault(tmp_path / "x.parquet")
    (tmp_path / "bad.jsonl").write_text("[1\n2\n")
    assert "not valid JSON" in fault(tmp_path / "bad.jsonl")


def test_a_question_gets_one_mark() -> None:
    assert make_asking("", "问") == Asking("<image>问", None)
    assert make_asking("说", "问<image>") == Asking("问<image>", "说")
    for system, question in (("", "<image><image>"), ("<image>", "问"), ("", "<|im_end|>")):
        with pytest.raises(RecipeError):
            make_asking(system, question)


def test_many_photos_stay_small(tmp_path: Path) -> None:
    """A forked worker must not pay for names: two Arrow arrays, whatever the number of photos."""
    path = tmp_path / "list.txt"
    path.write_text("".join(f"site/{number}.jpg\n" for number in range(20_000)))
    inputs: Inputs = open_inputs(path, ASKING)
    assert len(pickle.dumps(inputs)) < 20_000 * 80
    assert inputs.id_of(19_999) == "site/19999.jpg"
