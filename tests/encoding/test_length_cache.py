import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from shards import write_shards
from tokenizers import normalizers

from riskva.data.datasets import ConversationDataset, open_datasets
from riskva.encoding import Processor, load_processor
from riskva.encoding import length_cache as module
from riskva.encoding.length_cache import LengthCache
from riskva.encoding.survey import Survey, survey
from riskva.errors import DataError
from riskva.files import write_json

NUM_ROWS = 12


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)


@pytest.fixture
def surveys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was really measured, in order."""
    measured: list[str] = []

    def counted(rows: ConversationDataset, processor: Processor, what: str, *how: object) -> Survey:
        measured.append(what)
        return survey(rows, processor, what, *how)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "survey", counted)
    return measured


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set in JSONL, each row with a photo file of its own."""
    folder = tmp_path / "data"
    (folder / "photos").mkdir(parents=True)
    lines = []
    for number in range(NUM_ROWS):
        name = f"photos/{number}.png"
        Image.new("RGB", (56 + 28 * (number % 3), 112)).save(folder / name)
        turns = '[{"role": "user", "content": "<image>看图"}, {"role": "assistant", "content": "墙面裂缝"}]'
        lines.append(f'{{"messages": {turns}, "images": ["{name}"]}}\n')
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    entry = {"formatting": "openai", "columns": {"messages": "messages", "images": "images"}}
    write_json(folder / "dataset_info.json", {"rows": {"file_name": "rows.jsonl", **entry}})
    return folder


def found(folder: Path, processor: Processor, **how: object) -> Survey:
    """What a start over this data set finds."""
    rows = open_datasets(["rows"], folder)
    cache = LengthCache(folder / ".riskva_lengths", processor, **how)  # type: ignore[arg-type]
    return cache.survey(rows, "rows")


def same(one: Survey, other: Survey) -> bool:
    return list(one.lengths) == list(other.lengths) and (one.asked, one.unanswered) == (other.asked, other.unanswered)


@pytest.mark.parametrize("is_parquet", [False, True])
def test_a_second_start_measures_nothing_and_finds_the_same(
    processor: Processor, data: Path, tmp_path: Path, surveys: list[str], is_parquet: bool
) -> None:
    folder = write_shards(tmp_path / "shards", NUM_ROWS, 2, 3) if is_parquet else data
    first, second = found(folder, processor), found(folder, processor)
    assert surveys == ["rows"]
    fresh = survey(open_datasets(["rows"], folder), processor, "rows")
    assert same(first, second)
    assert same(second, fresh)
    assert len(set(second.lengths)) > 1


def _replace_photo(data: Path) -> None:
    Image.new("RGB", (224, 224)).save(data / "photos" / "3.png")


def _replace_photo_unseen(data: Path) -> None:
    """Another photo of the same number of bytes, with the old time of modification put back."""
    path = data / "photos" / "3.png"
    before, size = path.stat(), path.stat().st_size
    Image.new("RGB", (84, 56)).save(path)
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (size, before.st_mtime_ns)


def _add_row(data: Path) -> None:
    lines = (data / "rows.jsonl").read_text(encoding="utf-8")
    (data / "rows.jsonl").write_text(lines + lines.splitlines()[0] + "\n", encoding="utf-8")


def _read_otherwise(data: Path) -> None:
    text = (data / "dataset_info.json").read_text(encoding="utf-8")
    (data / "dataset_info.json").write_text(text.replace('"rows": {', '"rows": {"num_samples": 5, '), encoding="utf-8")


@pytest.mark.parametrize("change", [_replace_photo, _replace_photo_unseen, _add_row, _read_otherwise])
def test_what_has_changed_is_measured_again_and_kept(
    processor: Processor, data: Path, surveys: list[str], change: Callable[[Path], None]
) -> None:
    before = found(data, processor)
    change(data)
    after = found(data, processor)
    assert surveys == ["rows", "rows"]
    assert not same(before, after)
    assert same(after, survey(open_datasets(["rows"], data), processor, "rows"))
    assert same(after, found(data, processor))
    assert len(surveys) == 2


def test_a_photo_that_turns_up_where_it_is_looked_for_first_counts(
    processor: Processor, data: Path, tmp_path: Path, surveys: list[str]
) -> None:
    media, cache = tmp_path / "media", LengthCache(data / "kept", processor)

    def lengths() -> list[int]:
        return cache.survey(open_datasets(["rows"], data, media), "rows").lengths.totals.tolist()

    before = lengths()
    assert lengths() == before
    assert len(surveys) == 1
    (media / "photos").mkdir(parents=True)
    Image.new("RGB", (224, 224)).save(media / "photos" / "5.png")
    after = lengths()
    assert [number for number in range(NUM_ROWS) if before[number] != after[number]] == [5]


def test_a_photo_that_has_gone_is_reported(processor: Processor, data: Path) -> None:
    found(data, processor)
    (data / "photos" / "3.png").unlink()
    with pytest.raises(DataError, match="no image file"):
        found(data, processor)


def test_other_pixel_limits_and_other_tokens_have_lengths_of_their_own(
    processor: Processor, data: Path, tiny_model: Path, surveys: list[str]
) -> None:
    before = found(data, processor)
    smaller = load_processor(tiny_model, image_max_pixels=56 * 56)
    assert found(data, smaller).lengths.num_image_tokens.max() < before.lengths.num_image_tokens.max()
    other = load_processor(tiny_model)
    other.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("墙面裂缝", "墙")
    assert found(data, other).lengths.num_text_tokens.max() < before.lengths.num_text_tokens.max()
    assert len(surveys) == 3
    assert same(before, found(data, processor))
    assert len(surveys) == 3


def test_other_rows_of_the_same_files_have_lengths_of_their_own(processor: Processor, data: Path) -> None:
    cache, rows = LengthCache(data / "kept", processor), open_datasets(["rows"], data)
    whole = cache.survey(rows, "rows").lengths
    for indices in ([0, 1, 2], [2, 1, 0], [5]):
        assert list(cache.survey(rows.select(indices), "rows").lengths) == list(whole.select(indices))


@pytest.mark.parametrize("place", [0, 40, -1, None])
def test_a_damaged_file_is_noticed_and_made_anew(
    processor: Processor, data: Path, surveys: list[str], place: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = found(data, processor)
    (path,) = (data / ".riskva_lengths").iterdir()
    content = bytearray(path.read_bytes())
    if place is None:
        content = content[: len(content) // 2]
    else:
        content[place] ^= 1
    path.write_bytes(content)
    assert same(found(data, processor), before)
    assert len(surveys) == 2
    assert f"{path} is damaged" in capsys.readouterr().err
    assert same(found(data, processor), before)
    assert len(surveys) == 2


def test_a_folder_that_cannot_be_written_to_is_done_without(
    processor: Processor, data: Path, surveys: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (data / ".riskva_lengths").write_text("a file in the folder's place", encoding="utf-8")
    assert same(found(data, processor), found(data, processor))
    assert len(surveys) == 2
    assert "the rows' lengths cannot be kept here" in capsys.readouterr().err


def test_nothing_is_written_where_that_is_not_wanted(processor: Processor, data: Path) -> None:
    found(data, processor, writes=False)
    assert not (data / ".riskva_lengths").exists()


def test_bad_rows_are_not_kept(processor: Processor, data: Path) -> None:
    (data / "photos" / "3.png").write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(DataError, match="1 of 12 rows of rows cannot be used"):
            found(data, processor)
    assert not (data / ".riskva_lengths").exists()


def test_old_files_make_way(processor: Processor, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_FILES", 2)
    cache, rows = LengthCache(data / "kept", processor), open_datasets(["rows"], data)
    for number in range(4):
        cache.survey(rows.select([number]), "rows")
    assert len(list((data / "kept").iterdir())) == 2


def test_lengths_are_small_to_send(processor: Processor, tmp_path: Path) -> None:
    lengths = survey(open_datasets(["rows"], write_shards(tmp_path, 400, 1, 50)), processor, "rows").lengths
    assert len(pickle.dumps(lengths)) < 400 * 8 + 1000
    assert lengths.totals.tolist() == [one.total for one in lengths]
    assert list(lengths[2:5]) == list(lengths.select([2, 3, 4]))
