import base64
import io
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from riskva.data.conversation import Conversation, Message, Photo
from riskva.data.images import EncodedPhoto
from riskva.files import sha256_of
from riskva.preparation.writers import ROWS_PER_GROUP, JsonlWriter, ParquetWriter, PhotoFolder, PhotoNames


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def conversation(number: int) -> Conversation:
    messages = (Message("user", "<image>问"), Message("assistant", "答"))
    photo = Photo(data=jpeg(), name=f"images/{number}.jpg")
    return Conversation(str(number), messages, (photo,), extra={"楼层": "三层"})


def encoded(is_unchanged: bool = True) -> EncodedPhoto:
    return EncodedPhoto(jpeg(), (8, 6), is_unchanged)


def names(*photos: tuple[str, str, bool]) -> list[str]:
    chosen = PhotoNames()
    return [chosen.name(Photo(path=Path(path), name=name), encoded(kept)) for path, name, kept in photos]


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


def test_jsonl_rows_hold_paths(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path, "train", "bytes")
    writer.add(conversation(1))
    (written,) = writer.close()
    path = tmp_path / "train.jsonl"
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "id": "1",
        "messages": [{"role": "user", "content": "<image>问"}, {"role": "assistant", "content": "答"}],
        "images": ["images/1.jpg"],
        "楼层": "三层",
    }
    assert (written.name, written.rows, written.bytes) == ("train.jsonl", 1, path.stat().st_size)
    assert written.sha256 == sha256_of(path)


def test_jsonl_rows_may_hold_base64(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path, "train", "base64")
    writer.add(conversation(1))
    writer.close()
    row = json.loads((tmp_path / "train.jsonl").read_text(encoding="utf-8"))
    assert base64.b64decode(row["image_base64"][0]) == jpeg()
    assert "images" not in row


def parquet(folder: Path, count: int, bytes_per_file: int = 1 << 30) -> ParquetWriter:
    writer = ParquetWriter(
        folder, "train", "bytes", compression="zstd", extra_columns=["楼层"], bytes_per_file=bytes_per_file
    )
    for number in range(count):
        writer.add(conversation(number))
    return writer


def test_parquet_has_small_row_groups_and_the_asked_compression(tmp_path: Path) -> None:
    (written,) = parquet(tmp_path, ROWS_PER_GROUP + 1).close()
    assert (written.name, written.rows) == ("train-00000-of-00001.parquet", ROWS_PER_GROUP + 1)
    metadata = pq.ParquetFile(tmp_path / written.name).metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [ROWS_PER_GROUP, 1]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_parquet_is_cut_into_files_that_count_themselves(tmp_path: Path) -> None:
    files = parquet(tmp_path, 3 * ROWS_PER_GROUP, bytes_per_file=1).close()
    assert [one.name for one in files] == [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [one.name for one in files]
    assert [one.rows for one in files] == [ROWS_PER_GROUP] * 3


@pytest.mark.parametrize("count", [0, 1])
def test_parquet_of_few_rows_is_one_file(tmp_path: Path, count: int) -> None:
    (written,) = parquet(tmp_path, count).close()
    assert written.rows == pq.read_metadata(tmp_path / written.name).num_rows == count


def test_datasets_library_sees_pictures(tmp_path: Path) -> None:
    import datasets

    (written,) = parquet(tmp_path, 2).close()
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
    folder.store(Photo(path=source, name="source.jpg"), encoded(is_unchanged), "images/source.jpg")
    stored = tmp_path / "out" / "images" / "source.jpg"
    assert stored.read_bytes() == jpeg()
    assert stored.samefile(source) is is_link
    assert folder.files["images/source.jpg"].sha256 == sha256_of(source)


def test_link_across_file_systems_is_symbolic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    test_only_unchanged_photos_are_linked(tmp_path, "link", True, True)
    assert (tmp_path / "out" / "images" / "source.jpg").is_symlink()
