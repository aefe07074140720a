"""Predictions joined with the data set that they answer."""

from dataclasses import replace
from pathlib import Path

import pytest
from running import riskva_run

from evaluation.predictions import Prediction
from riskva.columns import GROUP_COLUMN
from riskva.data.datasets import open_datasets
from riskva.data.grey_photos import GreyPhotos
from riskva.data.images import open_photo
from riskva.errors import DataError
from riskva.review.rows import answered_rows

TRAIN = ("building_defect_train",)


@pytest.fixture(scope="module", params=["parquet", "jsonl"])
def data(request: pytest.FixtureRequest, photo_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / request.param
    places = (f"csv_path={photo_table}", f"image_base_path={photo_table.parent}", f"output_dir={out}")
    keys = ("group_by=房屋", "split={train: 0.75, val: 0, test: 0.25}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).resolve().parents[2])
        assert riskva_run(f"prepare_{request.param}.yaml", *places, *keys) == 0
    return out


def _predictions(data: Path) -> list[Prediction]:
    rows = open_datasets(TRAIN, data)
    return [Prediction(row.id, "", "", row.answer or "") for row in rows]


def test_rows_are_found_by_id_in_any_order(data: Path) -> None:
    predictions = _predictions(data)[::-1]
    rows = answered_rows(predictions, TRAIN, data)
    dataset = open_datasets(TRAIN, data)
    assert [dataset.ids[place] for place in rows.places] == [row.id for row in predictions]
    assert rows.cells(0)["房屋"] == dataset[len(dataset) - 1].extra["房屋"]
    assert open_photo(rows.photos(0)[0]).size == (112, 112)
    assert rows.page_photos(0)[0].startswith(b"\xff\xd8")


def test_groups_come_from_the_data_set_without_their_names(data: Path) -> None:
    rows = answered_rows(_predictions(data), TRAIN, data)
    houses = [rows.cells(index)["房屋"] for index in range(len(rows.predictions))]
    pairs = {(house, row.group) for house, row in zip(houses, rows.predictions, strict=True)}
    assert len(pairs) == len(set(houses)) > 1
    assert all(group and group.startswith("g") for _, group in pairs)
    assert set(houses).isdisjoint(group for _, group in pairs)


def test_predictions_without_ids_are_taken_in_order(data: Path) -> None:
    # LLaMA-Factory: no ids, labels with a line break at their end
    theirs = [
        replace(row, id=str(number), has_own_id=False, label=row.label + "\n")
        for number, row in enumerate(_predictions(data), start=1)
    ]
    rows = answered_rows(theirs, TRAIN, data)
    assert [row.id for row in rows.predictions] == open_datasets(TRAIN, data).ids
    with pytest.raises(DataError, match=r"have no ids, and there are \d+ of them for \d+ rows"):
        answered_rows(theirs[:-1], TRAIN, data)
    labels = [row.label for row in theirs]
    place = next(place for place in range(1, len(labels)) if labels[place] != labels[0])
    swapped = [*theirs]
    swapped[0], swapped[place] = (
        replace(theirs[0], label=theirs[place].label),
        replace(theirs[place], label=theirs[0].label),
    )
    with pytest.raises(DataError, match=r"2 of \d+ labels are not what the data set now says"):
        answered_rows(swapped, TRAIN, data)


def test_a_part_does_not_pass_for_the_whole(data: Path) -> None:
    with pytest.raises(DataError, match=r"1 of \d+ rows of building_defect_train have no prediction: id .*max_samples"):
        answered_rows(_predictions(data)[1:], TRAIN, data)
    num_rows = len(open_datasets(TRAIN, data))
    assert len(answered_rows(_predictions(data)[:3], TRAIN, data, max_samples=3).predictions) == 3 < num_rows


def test_a_failed_row_has_the_label_of_the_data(data: Path) -> None:
    first, *others = _predictions(data)
    failed = replace(first, label="", predict="", error="no such photo")
    assert answered_rows([failed, *others], TRAIN, data).predictions[0].label == first.label


def test_answers_of_another_data_set_are_refused(data: Path) -> None:
    foreign = [replace(row, id="x-" + row.id) for row in _predictions(data)]
    with pytest.raises(DataError, match=r"answer no row of building_defect_train: id x-.*eval_dataset=null"):
        answered_rows(foreign, TRAIN, data)


def test_without_a_data_set_there_are_answers_alone() -> None:
    rows = answered_rows([Prediction("1", "", "a", "b")], (), Path("nowhere"))
    assert rows.photos(0) == ()
    assert rows.page_photos(0) == []
    assert rows.cells(0) == {}


def test_answers_and_cells_are_read_without_photos(data: Path) -> None:
    dataset = open_datasets(TRAIN, data)
    assert dataset.answers == [row.answer for row in dataset]
    assert dataset.cells(GROUP_COLUMN) == [row.extra[GROUP_COLUMN] for row in dataset]
    assert dataset.cells("no such column") == [None] * len(dataset)
    chosen = dataset.select([3, 1])
    assert chosen.answers == [dataset[3].answer, dataset[1].answer]


def test_grey_photos_have_their_size_and_nothing_else(data: Path) -> None:
    dataset = open_datasets(TRAIN, data)
    grey = GreyPhotos(dataset)
    assert grey.ids == dataset.ids
    assert grey[0].messages == dataset[0].messages
    pixels = open_photo(grey[0].photos[0])
    assert pixels.size == open_photo(dataset[0].photos[0]).size
    assert pixels.getcolors() == [(112 * 112, (128, 128, 128))]
