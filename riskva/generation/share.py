"""A part of the rows to answer, and the journal of its answers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property

from evaluation.calibration import tempered
from evaluation.predictions import Prediction, prediction_of
from riskva.data.photo_inputs import Inputs
from riskva.errors import DataError, OutputFolderError
from riskva.generation.journal import Journal
from riskva.parts import Part
from riskva.report import RiskLevel


@dataclass(frozen=True)
class Share:
    """A part of the rows, and the journal of their answers."""

    rows: Inputs
    journal: Journal
    part: Part

    @cached_property
    def ids(self) -> list[str]:
        """The ids of this part's rows, in order."""
        return [*self.rows.ids][self.numbers.start : self.numbers.stop]

    @cached_property
    def digest(self) -> str:
        """The number of all parts' rows, and SHA-256 of their ids."""
        ids = [*self.rows.ids]
        return f"{len(ids)} {hashlib.sha256(json.dumps(ids).encode()).hexdigest()}"

    @property
    def numbers(self) -> range:
        """The numbers of this part's rows."""
        return self.part.slice_of(len(self.rows))

    def done(self) -> frozenset[str]:
        """The ids of rows that have an answer. Raises `OutputFolderError` where there are answers to other rows."""
        done = frozenset(self.journal.lines())
        if unknown := done - set(self.ids):
            raise OutputFolderError(
                f"{self.journal.folder} answers rows that are not there any more, such as {min(unknown)!r}; delete it "
                "or name another output_dir"
            )
        return done

    def of_process(self, rank: int, count: int, done: frozenset[str]) -> tuple[range, frozenset[int]]:
        """The rows of one of `count` processes, and which of them have an answer, both as numbers."""
        within = Part(rank, count).slice_of(len(self.numbers))
        own = self.numbers[within.start : within.stop]
        return own, frozenset(number for number, place in zip(own, within, strict=True) if self.ids[place] in done)

    def predictions(self, temperature: float) -> list[Prediction]:
        """The rows as they were answered, in order, with tempered probabilities."""
        lines = self.journal.lines()
        return [self._prediction(lines[one], temperature) for one in self.ids]

    def _prediction(self, line: str, temperature: float) -> Prediction:
        try:
            row = prediction_of(json.loads(line))
        except DataError as error:
            where = f"{self.journal.folder}: the line of row {json.loads(line)['id']!r}"
            raise DataError(f"{where} was changed: {error}; delete that line, and run again") from error
        return with_confidence(row, temperature)


def with_confidence(row: Prediction, temperature: float) -> Prediction:
    """The row with its probabilities tempered, and that of its level."""
    if row.level_probabilities is None or row.level is None:
        return row
    probabilities = tempered(row.level_probabilities, temperature)
    sure = probabilities[RiskLevel.from_label(row.level)]
    return replace(row, level_probabilities=probabilities, level_probability=sure)
