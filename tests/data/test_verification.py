import json
import re
import time
from pathlib import Path

import pytest
from shards import ENTRY, write_manifest, write_shards

from riskva.data.verification import Verify, verify_datasets
from riskva.errors import DataError


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two files of data set `rows`, one of `other`, all listed in the manifest."""
    folder = write_shards(tmp_path / "data", 6, 2, 2, with_photos=False)
    (folder / "other.parquet").write_bytes((folder / "rows-00000-of-00002.parquet").read_bytes())
    registry = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(registry | {"other": ENTRY | {"file_name": "other.parquet"}}))
    write_manifest(folder)
    return folder


def verify(folder: Path, how: Verify = "size", name: str = "rows", media_dir: Path | None = None) -> None:
    verify_datasets([name], folder, media_dir, how)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["size", "full", "off"])
def test_files_as_they_were_written_pass(shards: Path, how: Verify) -> None:
    verify(shards, how)


def test_a_cut_file_is_found_by_its_size_and_only_if_it_is_used(shards: Path) -> None:
    path = shards / "rows-00001-of-00002.parquet"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-10])
    expected = f"rows-00001-of-00002.parquet: expected {size:,} bytes, found {size - 10:,} bytes"
    with pytest.raises(DataError, match=re.escape(expected)) as caught:
        verify(shards)
    assert str(caught.value).startswith("1 file(s) are not as ")
    assert "verify: off if the rows were edited on purpose" in str(caught.value)
    verify(shards, name="other")
    verify(shards, "off")


def test_a_shard_that_is_gone_is_missed_though_the_pattern_finds_others(shards: Path) -> None:
    (shards / "rows-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match=r"rows-00001-of-00002\.parquet: expected [\d,]+ bytes, found no such file"):
        verify(shards)


def test_a_file_that_the_pattern_finds_and_the_manifest_does_not_list(shards: Path) -> None:
    (shards / "rows-00007-of-00002.parquet").write_bytes((shards / "other.parquet").read_bytes())
    with pytest.raises(DataError, match=r"rows-00007-of-00002\.parquet: not listed in it"):
        verify(shards)


def test_a_flipped_bit_is_found_by_full_and_not_by_size(shards: Path) -> None:
    flip_a_bit(shards / "rows-00000-of-00002.parquet")
    verify(shards, "size")
    with pytest.raises(DataError, match=r"rows-00000-of-00002\.parquet: expected SHA-256 \w{12}…, found \w{12}…"):
        verify(shards, "full")


def test_without_a_manifest_and_for_a_data_set_that_it_does_not_list_nothing_is_said(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest["files"] = [one for one in manifest["files"] if one["name"] != "other.parquet"]
    (shards / "manifest.json").write_text(json.dumps(manifest))
    (shards / "other.parquet").write_bytes(b"mine")
    verify(shards, "full", "other")
    (shards / "manifest.json").unlink()
    (shards / "rows-00000-of-00002.parquet").write_bytes(b"mine")
    verify(shards, "full")
    assert capsys.readouterr().err == ""


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    """JSONL `rows` with eight photos beside it, and Parquet `packed` that needs none of them."""
    folder = write_shards(tmp_path / "data", 4, 1, 2, with_photos=False)
    (folder / "images").mkdir()
    names = [f"images/{number}.jpg" for number in range(8)]
    for name in names:
        (folder / name).write_bytes(name.encode() * 9)
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"images": [name]}) for name in names))
    entries = {"rows": ENTRY | {"file_name": "rows.jsonl"}, "packed": ENTRY | {"file_name": "rows-*.parquet"}}
    (folder / "dataset_info.json").write_text(json.dumps(entries))
    write_manifest(folder, tuple(names))
    return folder


def test_photos_are_compared_for_jsonl_alone_and_the_first_are_named(jsonl: Path) -> None:
    verify(jsonl, "full")
    for path in (jsonl / "images").iterdir():
        path.write_bytes(b"")
    verify(jsonl, "full", "packed")
    with pytest.raises(DataError, match=r"8 file\(s\)") as caught:
        verify(jsonl)
    assert "images/0.jpg: expected 108 bytes, found 0 bytes" in str(caught.value)
    assert "and 3 more" in str(caught.value)
    assert "images/7.jpg" not in str(caught.value)


def test_photos_are_looked_for_where_rows_find_them(jsonl: Path, tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (jsonl / "images").rename(media / "images")
    verify(jsonl, "full", media_dir=media)
    with pytest.raises(DataError, match="no such file"):
        verify(jsonl)


def test_the_sizes_of_many_photos_are_compared_fast(jsonl: Path) -> None:
    """Measured: 100,000 photos in 1.8 s on a local disk."""
    photo = json.loads((jsonl / "manifest.json").read_text())["photos"][0]
    manifest = json.loads((jsonl / "manifest.json").read_text())
    manifest["photos"] = [photo | {"name": f"images/many-{number}.jpg"} for number in range(5000)]
    for one in manifest["photos"]:
        (jsonl / one["name"]).hardlink_to(jsonl / "images" / "0.jpg")
    (jsonl / "manifest.json").write_text(json.dumps(manifest))
    start = time.monotonic()
    verify(jsonl)
    assert time.monotonic() - start < 5
