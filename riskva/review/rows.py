"""Predictions and the data set that they answer, row by row: who belongs together, and what the photo shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.predictions import Prediction
from riskva.columns import GROUP_COLUMN
from riskva.data.conversation import Conversation, Photo
from riskva.data.datasets import ConversationDataset, open_datasets
from riskva.data.images import reencode
from riskva.errors import DataError

PAGE_SIDE = 640
"""Pixels of the longer side of a photo on a page."""

PAGE_QUALITY = 78

NUM_LISTED = 5


@dataclass(frozen=True)
class AnsweredRows:
    """Predictions with the rows that they answer; `places` (N,) are their numbers in the data set.

    Without a data set there are no photos and no cells.
    """

    predictions: Sequence[Prediction]
    dataset: ConversationDataset | None = None
    places: Sequence[int] = ()

    def photos(self, index: int) -> Sequence[Photo]:
        """The photos of a row as the data set has them; none where the row itself cannot be read."""
        conversation = self._conversation(index)
        return conversation.photos if conversation else ()

    def named_photos(self, index: int) -> list[tuple[str, bytes]]:
        """The row's photos at full size, each with its name; none where one cannot be read."""
        try:
            return [(photo.name, photo.read()) for photo in self.photos(index)]
        except OSError:  # the file is gone since: the row failed at it, or will be left out
            return []

    def cells(self, index: int) -> dict[str, str]:
        """The row's cells that play no part in training: the table's own columns."""
        conversation = self._conversation(index)
        return dict(conversation.extra) if conversation else {}

    def page_photos(self, index: int) -> list[bytes]:
        """Small JPEGs of the row's photos; none for one that cannot be read: that is what the row failed at."""
        small = []
        for photo in self.photos(index):
            try:
                small.append(reencode(photo, (PAGE_SIDE, PAGE_SIDE), PAGE_QUALITY).data)
            except DataError:
                continue
        return small

    def _conversation(self, index: int) -> Conversation | None:
        if self.dataset is None:
            return None
        try:
            return self.dataset[self.places[index]]
        except DataError:  # the prediction says so: it failed at the same
            return None


def answered_rows(
    predictions: Sequence[Prediction],
    names: Sequence[str],
    dataset_dir: Path,
    media_dir: Path | None = None,
    max_samples: int | None = None,
) -> AnsweredRows:
    """The predictions joined with the rows of the data sets called `names`; alone when none is named.

    Rows are found by id. Predictions without ids of their own, such as LLaMA-Factory's, are taken to be in the data
    set's order, and get its ids. Raises `DataError` where a label is not the row's answer: then it is another data set.
    """
    if not names:
        return AnsweredRows(predictions)
    dataset = open_datasets(names, dataset_dir, media_dir, max_samples)
    ids = dataset.ids
    places = _places(predictions, ids, ", ".join(names))
    answers, groups = dataset.answers, dataset.cells(GROUP_COLUMN)
    _check_labels(predictions, [answers[place] for place in places], [ids[place] for place in places])
    joined = [
        replace(row, id=ids[place], group=row.group if row.group is not None else _text(groups[place]))
        for row, place in zip(predictions, places, strict=True)
    ]
    return AnsweredRows(joined, dataset, places)


def _text(cell: object) -> str | None:
    return None if cell in (None, "") else str(cell)


def _places(predictions: Sequence[Prediction], ids: Sequence[str], names: str) -> list[int]:
    place_of = {row_id: place for place, row_id in enumerate(ids)}
    unknown = [row.id for row in predictions if row.id not in place_of]
    if not unknown:
        return [place_of[row.id] for row in predictions]
    has_no_ids = all(row.id == str(number) for number, row in enumerate(predictions, start=1))
    if has_no_ids and len(predictions) == len(ids):
        return list(range(len(ids)))
    if has_no_ids:
        raise DataError(
            f"the predictions have no ids, and there are {len(predictions)} of them for {len(ids)} rows of {names}; "
            "set max_samples as they were made with, or eval_dataset=null to score them without the data set"
        )
    listed = ", ".join(unknown[:NUM_LISTED]) + (", …" if len(unknown) > NUM_LISTED else "")
    raise DataError(
        f"{len(unknown)} of {len(predictions)} predictions answer no row of {names}: id {listed}; name the data set "
        "that was predicted, or eval_dataset=null to score them without one"
    )


def _check_labels(predictions: Sequence[Prediction], answers: Sequence[str | None], ids: Sequence[str]) -> None:
    other = [
        row_id
        for row, answer, row_id in zip(predictions, answers, ids, strict=True)
        if row.error is None and _plain(row.label) != _plain(answer or "")
    ]
    if other:
        listed = ", ".join(other[:NUM_LISTED]) + (", …" if len(other) > NUM_LISTED else "")
        raise DataError(
            f"{len(other)} of {len(predictions)} labels are not what the data set now says: id {listed}; the data were "
            "prepared anew or are others: predict again, or eval_dataset=null to score without the data set"
        )


def _plain(text: str) -> str:
    """A label as texts are compared here: LLaMA-Factory's end with a line break."""
    return " ".join(text.split())
