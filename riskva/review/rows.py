"""Predictions and the data set that they answer, row by row: who belongs together, and what the photo shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evaluation.predictions import Prediction
from riskva.columns import GROUP_COLUMN
from riskva.console import warn
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
    unreadable: dict[int, str] = field(default_factory=dict, init=False, compare=False)
    """Rows of which a photo could not be shown, as far as they were asked for, and why."""

    def photos(self, index: int) -> Sequence[Photo]:
        """The photos of a row as the data set has them; none where the row itself cannot be read."""
        conversation = self._conversation(index)
        return conversation.photos if conversation else ()

    def named_photos(self, index: int) -> list[tuple[str, bytes]]:
        """The row's photos at full size, each with its name. Raises `OSError` where one is gone."""
        return [(photo.name, photo.read()) for photo in self.photos(index)]

    def cells(self, index: int) -> dict[str, str]:
        """The row's cells that play no part in training: the table's own columns."""
        conversation = self._conversation(index)
        return dict(conversation.extra) if conversation else {}

    def page_photos(self, index: int) -> list[bytes]:
        """Small JPEGs of the row's photos; one that cannot be read is left out and noted in `unreadable`."""
        small = []
        for photo in self.photos(index):
            try:
                small.append(reencode(photo, (PAGE_SIDE, PAGE_SIDE), PAGE_QUALITY).data)
            except DataError as error:
                self.unreadable[index] = str(error)
        return small

    def tell_unreadable(self) -> None:
        """Warn of photos that are missing on a page."""
        if self.unreadable:
            row, reason = next(iter(self.unreadable.items()))
            row_id = self.predictions[row].id
            warn(f"the photos of {len(self.unreadable)} rows cannot be shown; the first, id {row_id}: {reason}")

    def _conversation(self, index: int) -> Conversation | None:
        if self.dataset is None:
            return None
        try:
            return self.dataset[self.places[index]]
        except DataError as error:
            self.unreadable[index] = str(error)
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
    set's order, and get its ids. Raises `DataError` where a label is not the row's answer, since it is another data set
    then, and where rows have no prediction: a part must not pass for the whole.
    """
    if not names:
        return AnsweredRows(predictions)
    dataset = open_datasets(names, dataset_dir, media_dir, max_samples)
    ids = dataset.ids
    places = _places(predictions, ids, ", ".join(names))
    _check_complete(ids, places, ", ".join(names))
    answers, groups = dataset.answers, dataset.cells(GROUP_COLUMN)
    _check_labels(predictions, [answers[place] for place in places], [ids[place] for place in places])
    joined = [
        replace(
            row,
            id=ids[place],
            has_own_id=True,
            group=_text(groups[place]) or row.group,
            # the data's own: a row that failed at being read has none, and must not vanish from the scores
            label=answers[place] or row.label,
        )
        for row, place in zip(predictions, places, strict=True)
    ]
    return AnsweredRows(joined, dataset, places)


def _text(cell: object) -> str | None:
    return None if cell in (None, "") else str(cell)


def _places(predictions: Sequence[Prediction], ids: Sequence[str], names: str) -> list[int]:
    has_no_ids = not any(row.has_own_id for row in predictions)
    if has_no_ids and len(predictions) == len(ids):
        return list(range(len(ids)))
    place_of = {row_id: place for place, row_id in enumerate(ids)}
    unknown = [row.id for row in predictions if row.id not in place_of]
    if not unknown and not has_no_ids:
        return [place_of[row.id] for row in predictions]
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


def _check_complete(ids: Sequence[str], places: Sequence[int], names: str) -> None:
    answered = set(places)
    missing = [row_id for place, row_id in enumerate(ids) if place not in answered]
    if missing:
        listed = ", ".join(missing[:NUM_LISTED]) + (", …" if len(missing) > NUM_LISTED else "")
        raise DataError(
            f"{len(missing)} of {len(ids)} rows of {names} have no prediction: id {listed}; is the file cut off? Set "
            "max_samples as they were made with, or eval_dataset=null to score what there is"
        )


def _check_labels(predictions: Sequence[Prediction], answers: Sequence[str | None], ids: Sequence[str]) -> None:
    other = [
        row_id
        for row, answer, row_id in zip(predictions, answers, ids, strict=True)
        if (row.label or row.error is None) and row.plain_label != replace(row, label=answer or "").plain_label
    ]
    if other:
        listed = ", ".join(other[:NUM_LISTED]) + (", …" if len(other) > NUM_LISTED else "")
        raise DataError(
            f"{len(other)} of {len(predictions)} labels are not what the data set now says: id {listed}; the data were "
            "prepared anew or are others: predict again, or eval_dataset=null to score without the data set"
        )
