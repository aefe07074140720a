import base64
import io
import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from riskva.data.datasets import ConversationDataset, open_datasets
from riskva.data.images import open_photo
from riskva.errors import DataError, ImageError

ALPACA = {"columns": {"prompt": "instruction", "query": "input", "response": "output", "images": "images"}}
SHAREGPT = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
}


def jpeg(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def make(folder: Path, rows: list[Any], entry: dict[str, Any], kind: str = "jsonl", name: str = "set") -> Path:
    """A data set called `name` in `folder`, added to the registry there, with photos a.jpg and b.jpg beside it."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for shade, photo in enumerate(("a.jpg", "b.jpg")):
        (folder / "images" / photo).write_bytes(jpeg(100 * shade))
    path = folder / f"{name}.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif kind == "csv":
        import csv

        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]", encoding="utf-8")
    registry = folder / "dataset_info.json"
    entries = json.loads(registry.read_text()) if registry.exists() else {}
    registry.write_text(json.dumps(entries | {name: entry | {"file_name": path.name}}))
    return folder


def opened(folder: Path, rows: list[Any], entry: dict[str, Any], kind: str = "jsonl") -> ConversationDataset:
    return open_datasets(["set"], make(folder, rows, entry, kind))


def roles_and_texts(dataset: ConversationDataset, index: int = 0) -> list[tuple[str, str]]:
    return [(one.role, one.content) for one in dataset[index].messages]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_sharegpt_rows_with_photos_in_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    rows = [{"id": str(i), "messages": turns(f"<image>问{i}", f"答{i}"), "images": ["images/a.jpg"]} for i in range(5)]
    dataset = opened(tmp_path, rows, SHAREGPT, kind)
    assert len(dataset) == 5
    for index in (3, 0, 4, 1, 2):
        assert dataset[index].id == str(index)
        assert roles_and_texts(dataset, index) == [("user", f"<image>问{index}"), ("assistant", f"答{index}")]
        assert dataset[index].photos[0].path == tmp_path / "images" / "a.jpg"
        assert dataset[index].photos[0].name == "images/a.jpg"


@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_alpaca_joins_instruction_and_input(tmp_path: Path, kind: str) -> None:
    row = {"instruction": "<image>看图", "input": "哪里坏了？", "output": "墙面", "images": "images/a.jpg"}
    dataset = opened(tmp_path, [row, row | {"input": ""}], ALPACA, kind)
    assert roles_and_texts(dataset) == [("user", "<image>看图\n哪里坏了？"), ("assistant", "墙面")]
    assert roles_and_texts(dataset, 1) == [("user", "<image>看图"), ("assistant", "墙面")]


def test_alpaca_history_and_system_come_first(tmp_path: Path) -> None:
    entry = {"columns": {"prompt": "p", "response": "r", "history": "h", "system": "s"}}
    row = {"p": "三", "r": "四", "h": [["一", "二"]], "s": "你是检查员"}
    assert roles_and_texts(opened(tmp_path, [row], entry)) == [
        ("system", "你是检查员"),
        ("user", "一"),
        ("assistant", "二"),
        ("user", "三"),
        ("assistant", "四"),
    ]


def test_alpaca_without_an_answer_ends_with_the_question(tmp_path: Path) -> None:
    dataset = opened(tmp_path, [{"instruction": "问", "output": ""}], {})
    assert dataset[0].answer is None


def test_sharegpt_with_from_and_value(tmp_path: Path) -> None:
    turns = [{"from": "system", "value": "甲"}, {"from": "human", "value": "乙"}, {"from": "gpt", "value": "丙"}]
    dataset = opened(tmp_path, [{"conversations": turns}], {"formatting": "sharegpt"}, "json")
    assert roles_and_texts(dataset) == [("system", "甲"), ("user", "乙"), ("assistant", "丙")]


def test_system_column_serves_where_no_turn_does(tmp_path: Path) -> None:
    entry = {"formatting": "openai", "columns": {"messages": "messages", "system": "s"}}
    own = [{"role": "system", "content": "内"}, *turns("问", "答")]
    dataset = opened(tmp_path, [{"messages": turns("问", "答"), "s": "外"}, {"messages": own, "s": "外"}], entry)
    assert [dataset[0].system, dataset[1].system] == ["外", "内"]


def test_photos_as_structs_base64_and_data_uris_are_the_same_bytes(tmp_path: Path) -> None:
    text = base64.b64encode(jpeg(7)).decode()
    forms: list[Any] = [[text], [f"data:image/jpeg;base64,{text}"], text]
    rows = [{"messages": turns("<image>问", "答"), "images": form} for form in forms]
    for conversation in opened(tmp_path, rows, SHAREGPT):
        assert conversation.photos[0].data == jpeg(7)
    struct = [{"messages": turns("<image>问", "答"), "images": [{"bytes": jpeg(7), "path": "x/y.jpg"}]}]
    photo = opened(tmp_path / "p", struct, SHAREGPT, "parquet")[0].photos[0]
    assert (photo.data, photo.name) == (jpeg(7), "x/y.jpg")


def test_base64_column_is_base64_however_short(tmp_path: Path) -> None:
    entry = SHAREGPT | {"columns": {"messages": "messages", "images": "image_base64"}}
    rows = [{"messages": turns("<image>问", "答"), "image_base64": [base64.b64encode(b"abc").decode()]}]
    assert opened(tmp_path, rows, entry)[0].photos[0].data == b"abc"


def test_media_dir_is_looked_in_before_the_files_own_folder(tmp_path: Path) -> None:
    rows = [{"messages": turns("<image>问", "答"), "images": ["images/a.jpg"]}]
    folder, media = make(tmp_path / "sets", rows, SHAREGPT), tmp_path / "media"
    assert open_datasets(["set"], folder, media)[0].photos[0].path == folder / "images" / "a.jpg"
    (media / "images").mkdir(parents=True)
    (media / "images" / "a.jpg").write_bytes(jpeg(9))
    assert open_datasets(["set"], folder, media)[0].photos[0].path == media / "images" / "a.jpg"


def test_other_columns_travel_as_text(tmp_path: Path) -> None:
    rows = [{"id": "1", "messages": turns("问", "答"), "楼层": "三层", "面积": 3.5, "空": None, "表": [1]}]
    entry = SHAREGPT | {"columns": {"messages": "messages"}}
    assert opened(tmp_path, rows, entry)[0].extra == {"楼层": "三层", "面积": "3.5"}


GOOD = {"id": "g", "messages": turns("<image>问", "答"), "images": ["images/a.jpg"]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [{"role": "tool", "content": "x"}]}, "unknown role 'tool': expected system, user, assistant"),
        ({"messages": [{"role": "observation", "content": "x"}]}, "role 'observation'.*not on tool calls"),
        ({"messages": turns("问", "答"), "images": ["images/a.jpg"]}, "0 <image> mark.*1 image"),
        ({"messages": turns("<image>问", "答"), "images": []}, "1 <image> mark.*0 image"),
        ({"messages": [*turns("问", "答"), *turns("问", "答")][1:]}, "roles must alternate"),
        ({"messages": [{"from": "user", "value": "x"}]}, "expected turns with 'role' and 'content'.*tags"),
        ({"messages": "no list"}, "expected a JSON list"),
        ({"messages": [{"role": "user", "content": 3}]}, "expected text, found 3"),
        ({"conversations": []}, "column 'messages' is absent or empty; the row has: conversations"),
        ({"messages": turns("<image>问", "答"), "images": [3]}, "expected a path"),
        (["no object"], "expected an object"),
    ],
)
def test_a_bad_row_is_named_when_it_is_asked_for(tmp_path: Path, row: Any, message: str) -> None:
    dataset = opened(tmp_path, [GOOD, row], SHAREGPT)
    assert dataset[0].id == "g"
    with pytest.raises(DataError, match=message) as caught:
        dataset[1]
    assert "set.jsonl:2" in str(caught.value)


def test_a_line_that_is_no_json_is_named_when_it_is_asked_for(tmp_path: Path) -> None:
    dataset_dir = make(tmp_path, [GOOD], SHAREGPT)
    with (dataset_dir / "set.jsonl").open("a") as stream:
        stream.write('\n\n{"id": ')
    dataset = open_datasets(["set"], dataset_dir)
    with pytest.raises(DataError, match=r"set\.jsonl:3: not valid JSON"):
        dataset[1]


def test_row_with_a_missing_photo_can_be_read_and_the_photo_says_so(tmp_path: Path) -> None:
    rows = [GOOD, {"messages": turns("<image>问", "答"), "images": ["gone.jpg"]}]
    dataset = opened(tmp_path, rows, SHAREGPT)
    assert dataset[1].answer == "答"
    with pytest.raises(ImageError, match=r"gone\.jpg: no image file .*see media_dir") as caught:
        open_photo(dataset[1].photos[0])
    assert caught.value.reason == "image_missing"


def test_marks_without_an_images_column_say_what_to_name(tmp_path: Path) -> None:
    dataset = opened(tmp_path, [GOOD], SHAREGPT | {"columns": {"messages": "messages"}})
    with pytest.raises(DataError, match="no images column; name it for 'set'"):
        dataset[0]


def mixed(folder: Path) -> Path:
    row = {"messages": turns("问", "答")}
    make(folder, [row | {"id": "1"}, row | {"id": "2"}], SHAREGPT, name="one")
    make(folder, [row | {"id": "2"}, row | {"id": "3"}, row | {"id": "3"}, row], SHAREGPT, name="two")
    return folder


def test_ids_change_only_where_they_collide(tmp_path: Path) -> None:
    dataset = open_datasets(["one", "two"], mixed(tmp_path))
    assert dataset.ids == ["1", "one/2", "two/2", "3", "3#2", "two-4"]
    assert [conversation.id for conversation in dataset] == dataset.ids
    assert open_datasets(["one"], tmp_path).ids == ["1", "2"]


def test_max_samples_counts_for_each_data_set(tmp_path: Path) -> None:
    assert open_datasets(["one", "two"], mixed(tmp_path), max_samples=1).ids == ["1", "2"]


@pytest.mark.parametrize(("number", "expected"), [(2, 2), (3, 3), (8, 8)])
def test_num_samples_draws_the_same_rows_each_time(tmp_path: Path, number: int, expected: int) -> None:
    rows = [{"id": str(i), "messages": turns("问", "答")} for i in range(3)]
    dataset = opened(tmp_path, rows, SHAREGPT | {"num_samples": number})
    assert len(dataset) == len(set(dataset.ids)) == expected
    assert dataset.ids == open_datasets(["set"], tmp_path).ids
    taken = [name.split("#")[0] for name in dataset.ids]
    assert max(map(taken.count, taken)) - min(taken.count(name) for name in ("0", "1", "2")) <= 1


def test_no_rows_and_no_names_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        opened(tmp_path, [], SHAREGPT)
    with pytest.raises(DataError, match="no data set is named"):
        open_datasets([], tmp_path)


def test_select_keeps_the_given_order(tmp_path: Path) -> None:
    rows = [{"id": str(i), "messages": turns("问", "答")} for i in range(4)]
    assert opened(tmp_path, rows, SHAREGPT).select([2, 0]).ids == ["2", "0"]


def test_indices_beyond_the_end_raise_index_error(tmp_path: Path) -> None:
    dataset = opened(tmp_path, [GOOD], SHAREGPT)
    assert dataset[-1].id == "g"
    with pytest.raises(IndexError):
        dataset[1]


def shades(dataset: ConversationDataset) -> list[int]:
    return [int(np.asarray(open_photo(one.photos[0]))[0, 0, 0]) for one in dataset]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_other_processes_read_the_same(tmp_path: Path, kind: str, method: str) -> None:
    photos: list[list[Any]] = [[f"images/{name}.jpg"] for name in "abab"]
    if kind == "parquet":
        photos = [[{"bytes": jpeg(shade), "path": None}] for shade in (0, 100, 0, 100)]
    rows = [{"messages": turns("<image>问", "答"), "images": one} for one in photos]
    dataset = opened(tmp_path, rows, SHAREGPT, kind)
    assert shades(dataset) == [0, 100, 0, 100]
    # The parent's open file and cached rows must not travel, neither by pickle nor by fork.
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(shades, [dataset, dataset.select([1, 0])]) == [[0, 100, 0, 100], [100, 0]]


def test_pickled_dataset_holds_no_rows(tmp_path: Path) -> None:
    rows = [{"messages": turns("<image>问", "答"), "images": [{"bytes": jpeg(), "path": "x" * 9999}]}]
    dataset = opened(tmp_path, rows, SHAREGPT, "parquet")
    dataset[0]
    assert len(pickle.dumps(dataset)) < 5000


@pytest.mark.parametrize("kind", ["jsonl", "json"])
@pytest.mark.parametrize(
    "row",
    [
        {"messages": turns("\ud800", "答")},
        {"messages": turns("问", "答\udfff")},
        {"messages": turns("问", "答"), "房屋": "\ud800栋"},
        {"messages": turns("问", "答"), "id": "\ud800"},
        {"messages": turns("<image>问", "答"), "images": ["\ud800.jpg"]},
    ],
)
def test_half_a_character_is_an_error_of_its_row(tmp_path: Path, kind: str, row: dict[str, Any]) -> None:
    make(tmp_path, [{"messages": turns("问", "答")}], SHAREGPT, kind)
    rows = [{"messages": turns("问", "答")}, row]
    lines = [json.dumps(one) for one in rows]
    (tmp_path / f"set.{kind}").write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]")
    dataset = open_datasets(["set"], tmp_path)
    assert dataset[0].answer == "答"
    assert "".join(dataset.ids).encode()
    with pytest.raises(DataError, match=rf"set\.{kind}:2: column .*half a character"):
        dataset[1]


def test_json_nested_too_deeply_is_not_valid(tmp_path: Path) -> None:
    make(tmp_path, [{"messages": turns("问", "答")}], SHAREGPT)
    with (tmp_path / "set.jsonl").open("a") as stream:
        stream.write("\n" + "[" * 3000 + "]" * 3000)
    dataset = open_datasets(["set"], tmp_path)
    assert dataset[0].answer == "答"
    with pytest.raises(DataError, match=r"set\.jsonl:2: not valid JSON"):
        dataset[1]
    make(tmp_path, [{"messages": turns("问", "答")}], SHAREGPT, "json")
    (tmp_path / "set.json").write_text("[" * 3000 + "]" * 3000)
    with pytest.raises(DataError, match=r"set\.json: not valid JSON"):
        open_datasets(["set"], tmp_path)


def test_a_photos_name_that_is_too_long_is_an_error_of_that_photo(tmp_path: Path) -> None:
    row = {"messages": turns("<image>问", "答"), "images": ["长" * 100 + ".jpg"]}
    photo = opened(tmp_path, [row], SHAREGPT)[0].photos[0]
    with pytest.raises(ImageError, match="cannot be opened"):
        open_photo(photo)


@pytest.mark.parametrize("given", [["a", "a", "a#2"], ["a#2", "a", "a"], ["a", "a#2", "a", "a#2", "a", "a#3"]])
def test_ids_all_differ_and_those_that_stand_once_are_kept(tmp_path: Path, given: list[str]) -> None:
    ids = opened(tmp_path, [{"id": one, "messages": turns("问", "答")} for one in given], SHAREGPT).ids
    assert len(set(ids)) == len(ids)
    for first in set(given):
        assert ids[given.index(first)] == first


def test_csv_with_nameless_columns(tmp_path: Path) -> None:
    make(tmp_path, [{"instruction": "问", "output": "答"}], {}, "csv")
    (tmp_path / "set.csv").write_text("instruction,output,,\n问,答,,\n", encoding="utf-8")
    assert dict(open_datasets(["set"], tmp_path)[0].extra) == {}
    (tmp_path / "set.csv").write_text("instruction,output,,\n问,答,,注\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"set\.csv:2: column 4 holds '注'"):
        open_datasets(["set"], tmp_path)
