"""The scores as a person reads them in a terminal: each beside its floor, columns aligned around Chinese labels."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.scoring import Metrics
    from evaluation.text_overlap import RougeScores

NUM_REASONS = 5
REASON_WIDTH = 72
UNKNOWN = "–"

Row = Sequence[str]


def render_table(metrics: Metrics) -> str:
    """`metrics` as lines of text without a last line break; needs a font whose Chinese is two columns wide."""
    blocks = (_summary(metrics), _levels(metrics), _per_level(metrics), _texts(metrics), _signature(metrics))
    return "\n\n".join("\n".join(block) for block in blocks)


def display_width(text: str) -> int:
    """Columns that `text` takes in a terminal: two for a wide East Asian character, none for a combining mark."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def shown_share(value: float | None) -> str:
    """A share of 0 to 1 as tables show it, `UNKNOWN` for None."""
    return UNKNOWN if value is None else f"{value:.3f}"


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


def _summary(metrics: Metrics) -> Iterator[str]:
    form = metrics["format"]
    num_samples = metrics["num_samples"]
    yield f"{num_samples} rows scored"
    if metrics["num_failed"]:
        yield f"{metrics['num_failed']} of them failed: scored as empty answers"
    if metrics["num_unparsed_references"]:
        yield f"{metrics['num_unparsed_references']} label(s) are no reports: left out of levels and fields"
    yield f"{form['num_valid']} of {num_samples} answers are reports ({form['valid_rate']:.1%})"
    reasons = list(form["invalid_reasons"].items())
    for reason, count in reasons[:NUM_REASONS]:
        yield f"  {count} × {_shortened(reason)}"
    if len(reasons) > NUM_REASONS:
        yield f"  … and {len(reasons) - NUM_REASONS} other reasons"


def under_call_rate(metrics: Metrics) -> float | None:
    """The share of under-calls; None where no answer is a report, since its 0 would look like a virtue."""
    return metrics["risk_level"]["under_call_rate"] if metrics["format"]["num_valid"] else None


def _levels(metrics: Metrics) -> Iterator[str]:
    scores = metrics["risk_level"]
    yield from aligned(
        [
            ("risk level", "score", f"floor (always {scores['floor_level']})"),
            ("accuracy", shown_share(scores["accuracy"]), shown_share(scores["floor_accuracy"])),
            ("macro-F1", shown_share(scores["macro_f1"]), shown_share(scores["floor_macro_f1"])),
            ("recall of 严重", shown_share(scores["severe_recall"]), ""),
            ("under-called", shown_share(under_call_rate(metrics)), ""),
        ]
    )


def _per_level(metrics: Metrics) -> Iterator[str]:
    scores = metrics["risk_level"]
    answers = list(next(iter(scores["confusion"].values())))
    header = ("level", "precision", "recall", "F1", "rows", *(f"→{answer}" for answer in answers))
    rows: list[Row] = [header]
    for label, one in scores["per_level"].items():
        recall, f1 = (one["recall"], one["f1"]) if one["support"] else (None, None)
        counts = (str(count) for count in scores["confusion"][label].values())
        shares = map(shown_share, (one["precision"], recall, f1))
        rows.append((label, *shares, str(one["support"]), *counts))
    yield from aligned(rows)


def _texts(metrics: Metrics) -> Iterator[str]:
    rows: list[Row] = [("text, percent", "ROUGE-1", "floor", "ROUGE-2", "floor", "ROUGE-L", "floor")]
    for name, scores in sorted(metrics["rouge"].items(), key=lambda item: item[0] == "whole"):
        pairs = zip(_percents(scores), _percents(scores["floor"]), strict=True)
        rows.append((name, *(cell for pair in pairs for cell in pair)))
    yield from aligned(rows)
    yield f"BLEU-4 of whole texts {metrics['bleu']:.1f}, floor {metrics['floor_bleu']:.1f}"


def _percents(scores: RougeScores) -> tuple[str, str, str]:
    return f"{scores['rouge-1']:.1f}", f"{scores['rouge-2']:.1f}", f"{scores['rouge-l']:.1f}"


def _signature(metrics: Metrics) -> Iterator[str]:
    for what, text in metrics["signature"].items():
        yield f"{what}: {text}"


def _shortened(text: str) -> str:
    return text if len(text) <= REASON_WIDTH else text[: REASON_WIDTH - 1] + "…"
