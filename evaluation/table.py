"""The scores as a person reads them in a terminal: each beside its floors, columns aligned around Chinese labels."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from evaluation.evaluated import Baseline, Evaluation
from evaluation.levels import UNPARSED
from evaluation.sample_scores import WHOLE
from evaluation.score_names import FORM_NAMES, LEVEL_NAMES, NAMING_NAMES, UNKNOWN, BaselineKind, ScoreName, text_names
from evaluation.signature import DATA_KEY, DIGEST_KEY

NUM_REASONS = 5
REASON_WIDTH = 72

SHOWN_PARTS = (DIGEST_KEY, DATA_KEY, "floors", "intervals")

MEANINGS: Mapping[BaselineKind, str] = {
    "constant": "one report for every photo, the commonest level and texts",
    "cheapest": "the same with the level that costs least if it is always answered",
    "nearest": "the nearest training report, chosen knowing the truth: the most that copying could reach, no floor",
    "blanked": "the same model, every photo painted grey",
}

Row = Sequence[str]


def render_table(evaluation: Evaluation) -> str:
    """`evaluation` as lines of text without a last line break; needs a font whose Chinese is two columns wide."""
    blocks = (_summary, _scores, _per_level, _texts, _findings, _signature)
    return "\n\n".join("\n".join(block(evaluation)) for block in blocks)


def display_width(text: str) -> int:
    """Columns that `text` takes in a terminal: two for a wide East Asian character, none for a combining mark."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def aligned(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of a table: the first column to the left, the others to the right, two blanks between."""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [_padding(cell, width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(
            [row[0] + cells[0], *(pad + cell for pad, cell in zip(cells[1:], row[1:], strict=True))]
        ).rstrip()


def _padding(cell: str, width: int) -> str:
    return " " * (width - display_width(cell))


def _summary(evaluation: Evaluation) -> Iterator[str]:
    samples = evaluation.samples
    groups = f" in {evaluation.num_groups} groups" if evaluation.num_groups is not None else ""
    yield f"{len(samples)} rows scored{groups}"
    if num_failed := sum(row.error is not None for row in evaluation.predictions):
        yield f"{num_failed} of them failed: scored as empty answers"
    if num_unparsed := sum(one.expected is None for one in samples):
        yield f"{num_unparsed} label(s) are no reports: left out of levels and fields"
    reasons = Counter(one.reading.reason for one in samples if one.reading.reason is not None)
    num_valid = len(samples) - reasons.total()
    yield f"{num_valid} of {len(samples)} answers are reports ({num_valid / len(samples):.1%})"
    for reason, count in reasons.most_common(NUM_REASONS):
        yield f"  {count} × {_shortened(reason)}"
    if len(reasons) > NUM_REASONS:
        yield f"  … and {len(reasons) - NUM_REASONS} other reasons"


def _scores(evaluation: Evaluation) -> Iterator[str]:
    names = (*LEVEL_NAMES, *FORM_NAMES, *NAMING_NAMES)
    floors = evaluation.baselines
    rows: list[Row] = [("", "score", "95 % interval", *(one.kind for one in floors))]
    for name in names:
        value, interval = evaluation.scores[name.name], evaluation.intervals.get(name.name)
        rows.append(
            (
                name.en + _of_how_many(evaluation, name),
                name.shown(value),
                name.shown_interval(interval),
                *(name.shown(one.scores[name.name]) for one in floors),
            )
        )
    yield from aligned(rows)
    yield from (f"{one.kind}: {MEANINGS[one.kind]}" for one in floors)


def _of_how_many(evaluation: Evaluation, name: ScoreName) -> str:
    """What stands behind a score's name: which way is better, or over how many rows a mean is that is not over all."""
    named = {"kind.accuracy": "kind", "room.accuracy": "room"}.get(name.name)
    if named is not None:
        return f" ({sum(getattr(one, named) is not None for one in evaluation.samples)} rows)"
    return " (less is better)" if name.lower_is_better else ""


def _per_level(evaluation: Evaluation) -> Iterator[str]:
    levels = evaluation.levels
    answers = list(next(iter(levels["confusion"].values())))
    rows: list[Row] = [("level", "precision", "recall", "F1", "rows", *(f"→{answer}" for answer in answers))]
    for label, one in levels["per_level"].items():
        recall, f1 = (one["recall"], one["f1"]) if one["support"] else (None, None)
        counts = (str(count) for count in levels["confusion"][label].values())
        shares = (UNKNOWN if value is None else f"{value:.3f}" for value in (one["precision"], recall, f1))
        rows.append((label, *shares, str(one["support"]), *counts))
    yield from aligned(rows)
    if any(counts[UNPARSED] for counts in levels["confusion"].values()):
        yield "an unparsed answer counts as wrong, and costs what the worst level would"


def _texts(evaluation: Evaluation) -> Iterator[str]:
    names = {name.name: name for name in text_names(evaluation.scoring.report_format.text_labels)}
    header = (
        "text, percent",
        "ROUGE-1",
        "ROUGE-2",
        "ROUGE-L",
        "95 % interval",
        *(one.kind for one in _with_texts(evaluation)),
    )
    rows: list[Row] = [header]
    for label in (*evaluation.scoring.report_format.text_labels, WHOLE):
        first, second, longest = (names[f"rouge.{label}.rouge-{kind}"] for kind in "12l")
        cells = (one.shown(evaluation.scores[one.name]) for one in (first, second, longest))
        rows.append((label, *cells, *_beside(evaluation, longest)))
    bleu = names["bleu"]
    rows.append(("BLEU-4 whole", "", "", bleu.shown(evaluation.scores["bleu"]), *_beside(evaluation, bleu)))
    yield from aligned(rows)


def _beside(evaluation: Evaluation, name: ScoreName) -> Iterator[str]:
    yield name.shown_interval(evaluation.intervals.get(name.name))
    yield from (name.shown(one.scores[name.name]) for one in _with_texts(evaluation))


def _with_texts(evaluation: Evaluation) -> list[Baseline]:
    """The baselines whose texts are their own: the cheapest level has the constant report's."""
    return [one for one in evaluation.baselines if one.kind != "cheapest"]


def _findings(evaluation: Evaluation) -> Iterator[str]:
    for one in evaluation.findings:
        yield f"{one.severity}: {one.en}"


def _signature(evaluation: Evaluation) -> Iterator[str]:
    """The parts that tell runs apart; metrics.json and the page have them all."""
    for what in SHOWN_PARTS:
        yield f"{what}: {evaluation.signature[what]}"


def _shortened(text: str) -> str:
    return text if len(text) <= REASON_WIDTH else text[: REASON_WIDTH - 1] + "…"
