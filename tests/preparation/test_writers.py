import base64
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from riskva.data.conversation import Conversation, Message, Photo
from riskva.data.manifest import WrittenFile
from riskva.files import sha256_of
from riskva.preparation.writers import (
    ROWS_PER_GROUP,
    ParquetForm,
    PhotoFolder,
    PhotoNames,
    plan_shards,
    write_jsonl,
    write_parquet,
)
from riskva.tables.records import StoredPhoto


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def conversation(number: int) -> Conversation:
    messages = (Message("user", "<image>问"), Message("assistant", "答"))
    photo = Photo(data=jpeg(), name=f"images/{number}.jpg")
    return Conversation(str(number), messages, (photo,), extra={"楼层": "三层"})


def stored(source: Path | str | None, name: str, is_unchanged: bool = True) -> StoredPhoto:
    path = None if source is None else Path(source)
    return StoredPhoto(name, path, (8, 6), len(jpeg()), hashlib.sha256(jpeg()).hexdigest(), "0" * 16, is_unchanged)


def names(*photos: tuple[str | None, str, bool]) -> list[str]:
    chosen = PhotoNames()
    return [chosen.name(stored(*photo), number) for number, photo in enumerate(photos)]


def test_photo_names_keep_the_tables_path_under_one_folder() -> None:
    assert names(
        ("/p/a.jpg", "a.jpg", True), ("/p/x/b.JPG", "x/b.JPG", True), ("/p/images/c.jpg", "images/c.jpg", True)
    ) == [
        "images/a.jpg",
        "images/x/b.JPG",
        "images/c.jpg",
    ]


def test_photo_names_never_clash() -> None:
    photos = (("/p/a.png", "a.png", False), ("/p/a.jpg", "a.jpg", True), ("/p/images/A.jpg", "images/A.jpg", True))
    assert names(*photos) == ["images/a.jpg", "images/a-2.jpg", "images/A-3.jpg"]


def test_a_photo_that_two_rows_show_has_one_name() -> None:
    assert names(("/p/a.jpg", "a.jpg", True), ("/p/a.jpg", "a.jpg", True)) == ["images/a.jpg"] * 2


def test_pictures_that_a_table_holds_are_each_their_rows_own() -> None:
    assert names((None, "a.jpg", True), (None, "a.jpg", True)) == ["images/a.jpg", "images/a-2.jpg"]


def test_a_photo_with_a_number_keeps_it() -> None:
    photos = (("/p/a.jpg", "a.jpg", True), ("/p/a.png", "a.png", False), ("/p/A.jpg", "A.jpg", True))
    assert names(*photos, *photos) == ["images/a.jpg", "images/a-2.jpg", "images/A-3.jpg"] * 2


def test_a_name_is_never_another_files_folder() -> None:
    photos = (("/p/a.jpg", "a.jpg", True), ("/p/a.jpg/b.jpg", "a.jpg/b.jpg", True), ("/p/images", "images", True))
    assert names(*photos) == ["images/a.jpg", "images/a.jpg_b.jpg", "images/images"]
    assert names(("/p/x/1.jpg", "x/1.jpg", True), ("/p/x", "x", True)) == ["images/x/1.jpg", "images/x-2"]


def test_a_name_is_never_longer_than_file_systems_allow() -> None:
    (name,) = names(("/p/x", "图" * 85, False))
    assert len(name.removeprefix("images/").encode()) <= 255
    assert name.endswith(".jpg")


def test_thousands_of_equal_names_take_no_longer_than_others() -> None:
    found = names(*((None, "image.jpg", True) for _ in range(20_000)))
    assert len(set(found)) == 20_000


def test_jsonl_rows_hold_paths(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    written = write_jsonl(path, [conversation(1)], "bytes")
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "id": "1",
        "messages": [{"role": "user", "content": "<image>问"}, {"role": "assistant", "content": "答"}],
        "images": ["images/1.jpg"],
        "楼层": "三层",
    }
    assert (written.name, written.rows, written.bytes) == ("train.jsonl", 1, path.stat().st_size)
    assert written.sha256 == sha256_of(path)


def test_jsonl_rows_may_hold_base64(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [conversation(1)], "base64")
    row = json.loads((tmp_path / "train.jsonl").read_text(encoding="utf-8"))
    assert base64.b64decode(row["image_base64"][0]) == jpeg()
    assert "images" not in row


def parquet(folder: Path, count: int) -> WrittenFile:
    form = ParquetForm("bytes", "zstd", ("楼层",))
    return write_parquet(folder / "train.parquet", map(conversation, range(count)), form)


def test_parquet_has_small_row_groups_a_page_index_and_the_asked_compression(tmp_path: Path) -> None:
    written = parquet(tmp_path, ROWS_PER_GROUP + 1)
    assert (written.name, written.rows) == ("train.parquet", ROWS_PER_GROUP + 1)
    assert written.sha256 == sha256_of(tmp_path / "train.parquet")
    metadata = pq.ParquetFile(tmp_path / written.name).metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [ROWS_PER_GROUP, 1]
    column = metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert column.has_column_index
    assert column.has_offset_index


def test_a_row_group_is_cut_off_by_its_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riskva.preparation.writers.BYTES_PER_GROUP", 2 * len(jpeg()))
    parquet(tmp_path, 5)
    metadata = pq.read_metadata(tmp_path / "train.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [2, 2, 1]


@pytest.mark.parametrize("count", [0, 1])
def test_parquet_of_few_rows_is_one_file(tmp_path: Path, count: int) -> None:
    written = parquet(tmp_path, count)
    assert written.rows == pq.read_metadata(tmp_path / written.name).num_rows == count


def test_a_file_that_is_not_finished_has_no_name(tmp_path: Path) -> None:
    def failing() -> Iterator[Conversation]:
        yield conversation(1)
        raise KeyboardInterrupt

    for write in (
        lambda: write_parquet(tmp_path / "a.parquet", failing(), ParquetForm("bytes", "snappy", ())),
        lambda: write_jsonl(tmp_path / "a.jsonl", failing(), "bytes"),
    ):
        with pytest.raises(KeyboardInterrupt):
            write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sizes", "max_bytes", "shards"),
    [
        ([], 10, []),
        ([5], 10, [(0, 1)]),
        ([5, 5, 5], 10, [(0, 2), (2, 3)]),
        ([50, 1, 50], 10, [(0, 1), (1, 2), (2, 3)]),
        ([1] * 7, 3, [(0, 3), (3, 6), (6, 7)]),
    ],
)
def test_shards_hold_rows_up_to_a_size(sizes: list[int], max_bytes: int, shards: list[tuple[int, int]]) -> None:
    assert plan_shards(sizes, max_bytes) == [range(*one) for one in shards]


def test_datasets_library_sees_pictures(tmp_path: Path) -> None:
    import datasets

    written = parquet(tmp_path, 2)
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / written.name), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded[1]["images"][0].size == (8, 6)
    assert loaded[1]["messages"][1] == {"role": "assistant", "content": "答"}
    assert loaded[1]["楼层"] == "三层"


@pytest.mark.parametrize(
    ("storage", "is_unchanged", "is_link"), [("copy", True, False), ("link", True, True), ("link", False, False)]
)
def test_only_unchanged_photos_are_linked(tmp_path: Path, storage: str, is_unchanged: bool, is_link: bool) -> None:
    source = tmp_path / "source.jpg"
    source.write_bytes(jpeg())
    folder = PhotoFolder(tmp_path / "out", storage)  # type: ignore[arg-type]
    folder.store(stored(source, "source.jpg", is_unchanged), jpeg(), "images/source.jpg")
    copy = tmp_path / "out" / "images" / "source.jpg"
    assert copy.read_bytes() == jpeg()
    assert copy.samefile(source) is is_link
    assert folder.files["images/source.jpg"].sha256 == sha256_of(source)


def test_a_link_leads_to_the_file_behind_a_relative_link(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "real.jpg").write_bytes(jpeg())
    source = tmp_path / "in" / "b.jpg"
    source.symlink_to("real.jpg")
    folder = PhotoFolder(tmp_path / "out", "link")
    folder.store(stored(source, "b.jpg"), jpeg(), "images/b.jpg")
    assert (tmp_path / "out" / "images" / "b.jpg").read_bytes() == jpeg()
    assert not (tmp_path / "out" / "images" / "b.jpg").is_symlink()


def test_a_link_that_a_killed_run_left_is_not_written_through(tmp_path: Path) -> None:
    source = tmp_path / "source.jpg"
    source.write_bytes(jpeg())
    for storage, is_unchanged in (("link", True), ("copy", False), ("link", True)):
        folder = PhotoFolder(tmp_path / "out", storage)  # type: ignore[arg-type]
        folder.store(stored(source, "source.jpg", is_unchanged), b"other" if storage == "copy" else jpeg(), "a.jpg")
        assert source.read_bytes() == jpeg()


def test_link_across_file_systems_is_symbolic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    test_only_unchanged_photos_are_linked(tmp_path, "link", True, True)
    assert (tmp_path / "out" / "images" / "source.jpg").is_symlink()
