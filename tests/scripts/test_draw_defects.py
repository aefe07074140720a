import csv
from pathlib import Path

import numpy as np
import pytest
from draw_defects import COLUMNS, KINDS, Kind, draw_defects, risk_level
from PIL import Image

from riskva.report import LEVEL_LABELS, RiskLevel


def read_rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_table_has_the_columns_that_prepare_takes(photo_table: Path) -> None:
    rows = read_rows(photo_table)
    assert len(rows) == 24
    assert tuple(rows[0]) == COLUMNS
    assert all(value for row in rows for value in row.values())
    assert {row["data_风险等级"] for row in rows} == set(LEVEL_LABELS)
    assert len({row["房屋"] for row in rows}) == 4
    assert len({row["image_id"] for row in rows}) == 24


def test_every_photo_opens_at_the_size_asked_for_and_shows_something(photo_table: Path) -> None:
    for row in read_rows(photo_table):
        with Image.open(photo_table.parent / row["image_path"]) as photo:
            assert photo.size == (112, 112)
            assert photo.mode == "RGB"
            assert np.asarray(photo, dtype=float).std() > 2  # measured: 5 and more


def test_no_file_name_tells_a_label(photo_table: Path) -> None:
    names = [row["image_path"] for row in read_rows(photo_table)]
    assert names == [f"images/{number:05d}.jpg" for number in range(24)]


def test_the_same_seed_draws_the_same_rows_however_many_are_asked_for(tmp_path: Path, photo_table: Path) -> None:
    few = draw_defects(tmp_path / "few", rows=5, seed=7, size=112, houses=4)
    assert read_rows(few) == read_rows(photo_table)[:5]
    for row in read_rows(few):
        assert (few.parent / row["image_path"]).read_bytes() == (photo_table.parent / row["image_path"]).read_bytes()


def test_another_seed_draws_other_photos(tmp_path: Path, photo_table: Path) -> None:
    other = draw_defects(tmp_path / "other", rows=5, seed=8, size=112, houses=4)
    for row in read_rows(other):
        assert (other.parent / row["image_path"]).read_bytes() != (photo_table.parent / row["image_path"]).read_bytes()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_level_rises_with_the_extent_and_in_worse_places(kind: Kind) -> None:
    for place in kind.places:
        levels = [risk_level(kind, extent, place) for extent in range(3)]
        assert levels == sorted(levels)
        assert levels[0] < levels[-1]
    for place in kind.worse_in:
        best = min(risk_level(kind, 1, other) for other in kind.places)
        assert risk_level(kind, 1, place) > best or best == RiskLevel.SEVERE
