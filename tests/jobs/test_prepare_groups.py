import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from riskva.data.datasets import ConversationDataset, open_datasets
from riskva.errors import DataError
from riskva.jobs import prepare
from riskva.recipe import PrepareRecipe

HEADER = ["image_id", "image_path", "data_风险", "data_纠正和预防建议", "data_风险等级", "data_缺陷描述", "房屋"]
HOUSES = ["3栋", "1栋", "2栋", "1栋", "3栋", "4栋", "1栋", "5栋", "4栋", "2栋"]

every_form = pytest.mark.parametrize(
    "form",
    [
        {"output_format": "jsonl"},
        {"output_format": "jsonl", "image_encoding": "base64"},
        {"output_format": "parquet"},
        {"output_format": "parquet", "image_encoding": "base64"},
    ],
    ids=lambda form: "-".join(form.values()),
)


def make_table(folder: Path, header: list[str] = HEADER, descriptions: dict[int, str] | None = None) -> Path:
    """Ten rows of five houses."""
    folder.mkdir(exist_ok=True)
    rows = []
    for number, house in enumerate(HOUSES):
        pixels = np.random.default_rng(number).integers(0, 255, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 32)).save(folder / f"{number}.jpg")
        description = (descriptions or {}).get(number, f"缺陷{number}")
        rows.append([f"r{number}", f"{number}.jpg", f"风险{number}", "修补", "轻微", description, house])
    path = folder / "table.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def run(out: Path, table: Path | list[Path], photos: Path, **keys: Any) -> ConversationDataset:
    keys = {"split": {"train": 0.6, "test": 0.4}} | keys
    prepare.run(PrepareRecipe(stage="prepare", csv_path=table, image_base_path=photos, output_dir=out, **keys))
    return open_datasets(list(json.loads((out / "dataset_info.json").read_text(encoding="utf-8"))), out)


@every_form
def test_rows_say_by_number_which_belong_together(tmp_path: Path, form: dict[str, Any]) -> None:
    table = make_table(tmp_path / "in")
    found = run(tmp_path / "out", table, table.parent, group_by="房屋", **form)
    groups = {one.id: one.extra["riskva_group"] for one in found}
    names = {"3栋": "g0001", "1栋": "g0002", "2栋": "g0003", "4栋": "g0004", "5栋": "g0005"}
    assert groups == {f"r{number}": names[house] for number, house in enumerate(HOUSES)}
    assert set(found[0].extra) == {*HEADER, "riskva_group"}
    assert "g0001" not in (tmp_path / "out" / "audit.json").read_text(encoding="utf-8")


@every_form
def test_without_groups_there_is_no_column(tmp_path: Path, form: dict[str, Any]) -> None:
    table = make_table(tmp_path / "in")
    assert set(run(tmp_path / "out", table, table.parent, **form)[0].extra) == set(HEADER)


@every_form
def test_private_numbers_stay_out_and_rows_without_a_group_have_none(tmp_path: Path, form: dict[str, Any]) -> None:
    table = make_table(tmp_path / "in", descriptions={3: "7-1-301 裂缝", 6: "7-1-301 空鼓", 8: "7-2-405 起砂"})
    pattern = r"^\d+-\d+-\d+"
    keys = {"group_by": "data_缺陷描述", "group_pattern": pattern, "strip_patterns": {"data_缺陷描述": pattern}}
    found = run(tmp_path / "out", table, table.parent, **keys, **form)
    groups = {one.id: one.extra["riskva_group"] for one in found if "riskva_group" in one.extra}
    assert groups == {"r3": "g0001", "r6": "g0001", "r8": "g0002"}
    assert not any("7-1-301" in text for one in found for text in (*one.extra.values(), one.answer or ""))


def test_a_column_of_that_name_is_refused(tmp_path: Path) -> None:
    table = make_table(tmp_path / "in", [*HEADER[:-1], "riskva_group"])
    with pytest.raises(DataError, match="columns riskva_group of their own; rename the tables' with column_names"):
        run(tmp_path / "out", table, table.parent)


@every_form
def test_prepared_rows_that_come_back_leave_their_groups_behind_unless_renamed(
    tmp_path: Path, form: dict[str, Any]
) -> None:
    table, first = make_table(tmp_path / "in"), tmp_path / "first"
    run(first, table, table.parent, group_by="房屋", **form)
    files = [*first.glob("t*.jsonl"), *first.glob("t*.parquet")]
    plain = run(tmp_path / "plain", files, first)
    assert len(plain) == len(HOUSES)
    assert all("riskva_group" not in one.extra for one in plain)
    names = {"riskva_group": "组"}
    grouped = run(tmp_path / "grouped", files, first, column_names=names, group_by="组")
    pairs = {(one.extra["房屋"], one.extra["组"], one.extra["riskva_group"]) for one in grouped}
    assert len(pairs) == len({house for house, *_ in pairs}) == 5
