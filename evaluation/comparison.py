"""Two runs or more on the same rows: what is better, by how much, whether it may be chance, and on which photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evaluation.compared import Comparison, Difference, Rival
from evaluation.evaluated import Evaluation
from evaluation.mcnemar import mcnemar
from evaluation.resampling import Resampling
from evaluation.sample_scores import SampleScore
from evaluation.score_names import Interval
from evaluation.scoring import run_tally
from evaluation.signature import comparable
from riskva.errors import DataError

NUM_LISTED = 5

NOTABLE_ROUGE = 10.0
"""By how much the mean ROUGE-L of a row's fields, in percent, must differ to make one answer the better one."""


def compare(runs: Mapping[str, Evaluation]) -> Comparison:
    """The runs set against the first of them, row by row.

    Raises `DataError` when there are fewer than two, or when they did not answer the same rows, or were not scored in
    the same way.
    """
    if len(runs) < 2:
        raise DataError(f"{len(runs)} run(s) to compare: give the predictions of two or more")
    for name, run in runs.items():
        if len({row.id for row in run.predictions}) < len(run.predictions):
            raise DataError(f"{name}: an id stands twice, so that rows cannot be paired; give each row its own")
    (first_name, first), *others = runs.items()
    for name, run in others:
        _check_comparable(first_name, first, name, run)
    ordered = {name: _in_order_of(first, run) for name, run in runs.items()}
    spread, counted = Resampling.of(first.samples), run_tally(first.samples, first.scoring)
    return Comparison(
        ordered,
        tuple(
            _rival(name, first, ordered[name], spread.leads(counted, run_tally(ordered[name].samples, run.scoring)))
            for name, run in others
        ),
    )


def _check_comparable(first_name: str, first: Evaluation, name: str, run: Evaluation) -> None:
    expected, found = comparable(first.signature), comparable(run.signature)
    for key, text in expected.items():
        if found[key] != text:
            raise DataError(
                f"{first_name} and {name} cannot be compared, their {key} differ: {text}; {found[key]}. "
                + _what_differs(first, run)
            )


def _what_differs(first: Evaluation, run: Evaluation) -> str:
    """What to do about it, with the first ids of rows that differ, if any do."""
    ours, theirs = ({(row.id, row.label) for row in one.predictions} for one in (first, run))
    ids = sorted(row_id for row_id, _ in ours ^ theirs)
    if not ids:
        return "Score both in the same way"
    listed = ", ".join(dict.fromkeys(ids[:NUM_LISTED])) + (", …" if len(ids) > NUM_LISTED else "")
    return f"Predict both on one data set: rows or labels differ at id {listed}"


def _in_order_of(first: Evaluation, run: Evaluation) -> Evaluation:
    """`run` with its rows in the order of `first`'s."""
    places = {row.id: place for place, row in enumerate(run.predictions)}
    order = [places[row.id] for row in first.predictions]
    moved_to = {old: new for new, old in enumerate(order)}
    return replace(
        run,
        predictions=[run.predictions[place] for place in order],
        samples=[run.samples[place] for place in order],
        findings=tuple(replace(one, rows=tuple(moved_to[row] for row in one.rows)) for one in run.findings),
    )


def _rival(name: str, first: Evaluation, run: Evaluation, spans: Mapping[str, Interval | None]) -> Rival:
    pairs = list(zip(first.samples, run.samples, strict=True))
    only_first = sum(one.is_level_right and not other.is_level_right for one, other in pairs)
    only_this = sum(other.is_level_right and not one.is_level_right for one, other in pairs)
    gains = {row: _gain(one, other) for row, (one, other) in enumerate(pairs)}
    worst_first, no_gain = sorted(gains, key=lambda row: gains[row]), (0.0,) * 4
    return Rival(
        name,
        {key: _difference(first.scores[key], value, spans.get(key)) for key, value in run.scores.items()},
        only_first,
        only_this,
        mcnemar(only_first, only_this),
        wins=tuple(row for row in reversed(worst_first) if gains[row] > no_gain),
        losses=tuple(row for row in worst_first if gains[row] < no_gain),
    )


def _difference(first: float | None, second: float | None, interval: Interval | None) -> Difference | None:
    return None if first is None or second is None else Difference(second - first, interval)


def _gain(first: SampleScore, second: SampleScore) -> tuple[float, ...]:
    """What the second answer has over the first: in cost, level, kind and texts, the first that differs decides."""
    texts = second.text_score - first.text_score
    return (
        (first.cost or 0.0) - (second.cost or 0.0),
        float(second.is_level_right - first.is_level_right),
        float(_names_kind(second) - _names_kind(first)),
        texts if abs(texts) >= NOTABLE_ROUGE else 0.0,
    )


def _names_kind(sample: SampleScore) -> bool:
    return sample.kind is not None and sample.kind.is_right
