"""None of the bad inputs ends the job, none is lost, and each is told in words."""

import csv
import io
import json
from pathlib import Path

import pytest
from bad_inputs import BAD_ROWS, HEADER, BadRowCase, picture

from riskva.data.datasets import open_datasets
from riskva.errors import DataError
from riskva.jobs import prepare
from riskva.recipe import PrepareRecipe

COLUMNS = (*HEADER, "房屋", "划分")
NUM_GOOD = 6


def good_cells(name: str) -> dict[str, str]:
    return dict(zip(COLUMNS, (name, f"{name}.jpg", "渗水", "修补", "轻微", "墙面裂缝", "3栋", "train"), strict=True))


def line_of(cells: dict[str, str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow([cells[name] for name in COLUMNS])
    return text.getvalue()


def make_input(folder: Path, case: BadRowCase) -> Path:
    """Six good rows with the case's row as the third."""
    folder.mkdir()
    lines = [",".join(COLUMNS) + "\n"]
    for number in range(NUM_GOOD):
        (folder / f"good-{number}.jpg").write_bytes(picture((40 + number, 40)))
        lines.append(line_of(good_cells(f"good-{number}")))
    (folder / "bad.jpg").write_bytes(picture() if case.photo is None else case.photo)
    if case.arrange is not None:
        case.arrange(folder)
    lines.insert(3, case.text + "\n" if case.text is not None else line_of(good_cells("bad") | case.cells))
    table = folder / "table.csv"
    table.write_text("".join(lines), encoding="utf-8")
    return table


def test_the_table_of_cases_is_long_enough_and_names_each_once() -> None:
    assert len(BAD_ROWS) >= 40
    assert len({case.name for case in BAD_ROWS}) == len(BAD_ROWS)


@pytest.mark.parametrize("case", BAD_ROWS, ids=lambda case: case.name.replace(" ", "-"))
def test_a_bad_row_is_quarantined_with_its_reason_and_the_others_pass(case: BadRowCase, tmp_path: Path) -> None:
    table, out = make_input(tmp_path / "in", case), tmp_path / "out"
    prepare.run(
        PrepareRecipe(
            stage="prepare",
            csv_path=table,
            image_base_path=table.parent,
            output_dir=out,
            max_bad_share=0.5,
            **case.recipe,
        )
    )
    (bad,) = [json.loads(line) for line in (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (bad["reason"], bad["table"], bad["line"], bad["number"]) == (case.reason, "table.csv", 4, 2)
    assert case.words in bad["message"]
    names = list(json.loads((out / "dataset_info.json").read_text()))
    assert sorted(open_datasets(names, out).ids) == [f"good-{number}" for number in range(NUM_GOOD)]
    audit = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    assert case.reason in json.dumps(audit, ensure_ascii=False)


TABLES = {
    "empty": (b"", "empty"),
    "header alone": (",".join(COLUMNS).encode(), "no rows"),
    "columns missing": (b"image_id,image_path\n1,a.jpg\n", "columns missing"),
    "old Excel": (b"\xd0\xcf\x11\xe0" + b"\0" * 64, "old Excel workbook"),
    "broken workbook": (b"PK\x03\x04" + b"\0" * 64, "workbook"),
    "neither UTF-8 nor GBK": ((",".join(COLUMNS) + "\n").encode() + b"\xff\xff\xff,\n", "save the table as CSV"),
    "a quote left open": (
        (",".join(COLUMNS) + '\nx,x.jpg,"渗水,修补,轻微,裂缝,1,train\n').encode(),
        "close the quote",
    ),
    "a column twice": ((",".join((*COLUMNS, "image_id")) + "\n").encode(), "stand twice"),
    "a column of ours": ((",".join((*COLUMNS, "messages")) + "\n" + "1," * 8 + "x\n").encode(), "columns messages"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_read_is_told_in_words_before_anything_is_written(name: str, tmp_path: Path) -> None:
    content, words = TABLES[name]
    (tmp_path / "table.csv").write_bytes(content)
    recipe = PrepareRecipe(
        stage="prepare", csv_path=tmp_path / "table.csv", image_base_path=tmp_path, output_dir=tmp_path / "out"
    )
    for job in (prepare.run, prepare.plan):
        with pytest.raises(DataError, match=words):
            job(recipe)
    assert not (tmp_path / "out").exists()
