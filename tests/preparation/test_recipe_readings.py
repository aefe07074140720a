from pathlib import Path
from typing import Any

from riskva.parts import Part
from riskva.preparation.finished_parts import SourceFile
from riskva.preparation.recipe_readings import AFTER_THE_PHOTOS, HOW_TO_RUN, key_of_rows, recorded
from riskva.recipe import PrepareRecipe

OF_THE_ROWS = {
    "answer_fields",
    "column_names",
    "csv_path",
    "excel_sheet",
    "group_by",
    "group_pattern",
    "image_base_path",
    "image_quality",
    "level_names",
    "max_image_size",
    "split_column",
    "stage",
    "strip_patterns",
}


def recipe(**keys: Any) -> PrepareRecipe:
    keys = {"csv_path": "t.csv", "image_base_path": "photos", "output_dir": "out"} | keys
    return PrepareRecipe(stage="prepare", **keys)


def source(path: str = "in/t.csv", sha256: str = "0" * 64) -> SourceFile:
    return SourceFile("t.csv", path, sha256, "UTF-8")


def key(table: SourceFile, part: Part, **keys: Any) -> str:
    return key_of_rows(recipe(**keys), [table], part)


def test_of_every_key_it_is_said_what_it_decides() -> None:
    assert set(PrepareRecipe.model_fields) == HOW_TO_RUN | AFTER_THE_PHOTOS | OF_THE_ROWS
    assert not HOW_TO_RUN & AFTER_THE_PHOTOS
    assert not (HOW_TO_RUN | AFTER_THE_PHOTOS) & OF_THE_ROWS


def test_pieces_serve_while_rows_and_photos_come_out_the_same(tmp_path: Path) -> None:
    base = key(source(), Part())
    same = [
        key(source("elsewhere/t.csv"), Part()),
        key(source(), Part(), seed=7, output_format="jsonl", split={"train": 1.0}, output_dir=tmp_path),
        key(source(), Part(), image_base_path=Path("photos").absolute()),
    ]
    assert set(same) == {base}
    others = [
        key(source(sha256="1" * 64), Part()),
        key(source(), Part(0, 2)),
        key(source(), Part(), image_quality=90),
        key(source(), Part(), max_image_size=(10, 10)),
        key(source(), Part(), level_names={"警告": "中等"}),
        key(source(), Part(), image_base_path=tmp_path),
        key(source(), Part(), split_column="划分"),
        key(source(), Part(), split_column="划分", split={"train": 0.5, "dev": 0.5}),
    ]
    assert len({base, *others}) == len(others) + 1


def test_a_manifest_records_what_decides_on_the_outcome() -> None:
    assert set(recorded(recipe())) == set(PrepareRecipe.model_fields) - HOW_TO_RUN
