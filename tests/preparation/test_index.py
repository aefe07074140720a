from pathlib import Path
from typing import Any

from prepared_rows import bad, prepared

from riskva.preparation.index import Index, index_rows, split_rows
from riskva.preparation.pieces import PieceRow
from riskva.recipe import PrepareRecipe
from riskva.tables.records import BadRow, PreparedRow


def index_of(*rows: PreparedRow | BadRow) -> Index:
    return index_rows(PieceRow(row, Path("photos"), 0) for row in rows)


def recipe(**keys: Any) -> PrepareRecipe:
    keys = {"split": {"train": 0.6, "test": 0.4}} | keys
    return PrepareRecipe(stage="prepare", csv_path="t.csv", image_base_path=".", output_dir="out", **keys)


def scattered(number: int) -> str:
    """A hash that looks like no other's."""
    import hashlib

    return hashlib.sha256(str(number).encode()).hexdigest()


def rows(count: int, **keys: Any) -> list[PreparedRow]:
    hashes = index_hash_length()
    return [
        prepared(n, perceptual_hash=scattered(n)[:hashes], texts={"缺陷描述": f"{n}"}, **keys) for n in range(count)
    ]


def index_hash_length() -> int:
    """Hexadecimal digits of the hashes that `riskva.data.images` gives."""
    from prepared_rows import jpeg

    from riskva.data.conversation import Photo
    from riskva.data.images import reencode

    return len(reencode(Photo(data=jpeg(), name="a"), (64, 64), 85).perceptual_hash)


def test_good_and_bad_rows_are_told_apart_and_counted() -> None:
    index = index_of(*rows(2), bad(2))
    assert (index.num_rows, index.numbers, index.bad) == (3, [0, 1], [bad(2)])
    assert index.rows_by_table == {"t.csv": 3}
    assert index.digest != index_of(*rows(2)).digest


def test_groups_have_numbers_by_first_appearance_for_names() -> None:
    made = [prepared(n, group=group) for n, group in enumerate(["3栋", None, "1栋", "3栋"])]
    assert index_of(*made, bad(4)).group_names == {"3栋": "g0001", "1栋": "g0002"}
    assert index_of(*rows(2)).group_names == {}


def test_photos_that_look_alike_go_to_one_split() -> None:
    alike = [prepared(n, perceptual_hash=scattered(n // 4)[: index_hash_length()]) for n in range(40)]
    splits = split_rows(index_of(*alike), recipe())
    assert {len(set(splits[start : start + 4])) for start in range(0, 40, 4)} == {1}
    assert set(splits) == {"train", "test"}
    reported = split_rows(index_of(*alike), recipe(near_duplicates="report"))
    assert {len(set(reported[start : start + 4])) for start in range(0, 40, 4)} != {1}


def test_identical_texts_go_to_one_split_only_when_asked() -> None:
    same = [
        prepared(n, perceptual_hash=one.photo.perceptual_hash, texts={"缺陷描述": f"{n % 8}"})
        for n, one in enumerate(rows(40))
    ]
    together = split_rows(index_of(*same), recipe(identical_texts="together"))
    assert all(len({together[n] for n in range(40) if n % 8 == text}) == 1 for text in range(8))
    reported = split_rows(index_of(*same), recipe())
    assert any(len({reported[n] for n in range(40) if n % 8 == text}) == 2 for text in range(8))


def test_groups_and_look_alikes_are_joined() -> None:
    """Row 3 of house 0 looks like row 12 of house 1: both houses go to one split."""
    length = index_hash_length()
    made = [prepared(n, group=f"{n // 10}", perceptual_hash=scattered(3 if n == 12 else n)[:length]) for n in range(60)]
    splits = split_rows(index_of(*made), recipe(group_by="房屋"))
    assert len(set(splits[:20])) == 1
    assert set(splits) == {"train", "test"}


def test_a_column_of_the_table_decides_over_all_else() -> None:
    made = [
        prepared(n, split="test" if n % 2 else "train", perceptual_hash=scattered(0)[: index_hash_length()])
        for n in range(6)
    ]
    assert split_rows(index_of(*made), recipe(split_column="划分")) == ["train", "test"] * 3
