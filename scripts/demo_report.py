"""Base and fine-tuned model side by side: a table in the terminal, and one page with every photo.

    python scripts/demo_report.py OUT.html --base demo/outputs/eval_base --tuned demo/outputs/eval --photos demo/photos

Reads `generated_predictions.jsonl` and `metrics.json` of both folders. The page stands alone, photos and style in it.
For drawn photos only: whether the kind is right is read off the words that their descriptions are made of.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import file_to_write
from drawn_defects.kind_score import KIND_FIELD, KIND_LINE, kind_is_right, kind_line, kinds_in
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.field_scores import read_answer
from evaluation.levels import level_scores
from evaluation.predictions import Prediction, read_predictions
from evaluation.side_by_side import ScoreLine, floor_note, read_metrics, render_side_by_side, score_lines
from riskva.data.conversation import Photo
from riskva.data.images import reencode
from riskva.errors import DataError, MissingDataError, RiskvaError
from riskva.files import write_whole
from riskva.report import DEFAULT_FORMAT, RiskReport, Unparsed

if TYPE_CHECKING:
    from evaluation.scoring import Metrics

BASE, TUNED = "base", "fine-tuned"
PREDICTIONS_FILE, METRICS_FILE = "generated_predictions.jsonl", "metrics.json"
HEADLINES = ("reports that parse", "macro-F1", "recall of 严重", KIND_LINE)
SHOWN_SIZE, SHOWN_QUALITY = (480, 480), 88
TEMPLATE = Path(__file__).with_suffix(".html.jinja")


@dataclass(frozen=True)
class Run:
    """One model's answers and their scores, as `stage: eval` left them in a folder."""

    predictions: Sequence[Prediction]
    metrics: Metrics


@dataclass(frozen=True)
class Answer:
    """One model's answer to one photo: its text, the report in it, and whether level and kind are the truth's.

    `report` is None where the text is none, and `fault` says why.
    """

    text: str
    report: RiskReport | None
    fault: str | None
    level_is_right: bool
    kind_is_right: bool

    @property
    def is_right(self) -> bool:
        return self.level_is_right and self.kind_is_right


@dataclass(frozen=True)
class PhotoRow:
    """A photo (its path relative to the photos' folder), the true report, and both models' answers."""

    id: str
    image: str
    truth: RiskReport
    base: Answer
    tuned: Answer


def read_run(folder: Path) -> Run:
    """The predictions and metrics in `folder`.

    Raises `MissingDataError` or `DataError` when a file is absent or broken, or when the metrics are of other answers.
    """
    predictions = read_predictions(folder / PREDICTIONS_FILE)
    metrics = read_metrics(folder / METRICS_FILE)
    if _level_counts(predictions) != {level: dict(row) for level, row in metrics["risk_level"]["confusion"].items()}:
        raise DataError(
            f"{folder}: {METRICS_FILE} is of other answers than those in {PREDICTIONS_FILE}; "
            "score them again with stage: eval"
        )
    return Run(predictions, metrics)


def _level_counts(predictions: Sequence[Prediction]) -> dict[str, dict[str, int]]:
    """How often each true level was answered with which, as `metrics.json` counts it."""
    pairs = [(_report_in(row.label), _report_in(row.answer)) for row in predictions]
    known = [(truth, answer) for truth, answer in pairs if truth is not None]
    levels = [None if answer is None else int(answer.level) for _, answer in known]
    return level_scores(levels, [int(truth.level) for truth, _ in known])["confusion"]


def _report_in(text: str) -> RiskReport | None:
    parsed = read_answer(text, DEFAULT_FORMAT)
    return None if isinstance(parsed, Unparsed) else parsed


def pair_rows(base: Sequence[Prediction], tuned: Sequence[Prediction]) -> list[PhotoRow]:
    """Both models' answers photo by photo, in the order of `tuned`.

    Raises `DataError` unless both answer the same ids with the same labels, each a report that names a drawn kind.
    """
    answers = _by_id(base, BASE)
    if others := sorted(answers.keys() ^ _by_id(tuned, TUNED).keys()):
        raise DataError(f"{BASE} and {TUNED} do not answer the same rows: only one has {', '.join(others[:5])}")
    return [_pair(answers[row.id], row) for row in tuned]


def _by_id(predictions: Sequence[Prediction], name: str) -> dict[str, Prediction]:
    rows = {row.id: row for row in predictions}
    if len(rows) < len(predictions):
        twice = next(row_id for row_id, count in Counter(row.id for row in predictions).items() if count > 1)
        raise DataError(f"{name}: id {twice} stands twice; predict again")
    return rows


def _pair(base: Prediction, tuned: Prediction) -> PhotoRow:
    if base.label != tuned.label:
        raise DataError(f"id {tuned.id}: {BASE} and {TUNED} were given other labels; score both on one data set")
    if not isinstance(tuned.image, str):
        raise DataError(f"id {tuned.id}: image is {tuned.image!r}, expected the path of one photo")
    truth = DEFAULT_FORMAT.parse(tuned.label)
    if isinstance(truth, Unparsed):
        raise DataError(f"id {tuned.id}: the label is no report ({truth.reason})")
    if not kinds_in(tuned.label):
        raise DataError(f"id {tuned.id}: {KIND_FIELD} of the label names no drawn kind: {truth.texts[KIND_FIELD]!r}")
    return PhotoRow(tuned.id, tuned.image, truth, _judge(base, truth), _judge(tuned, truth))


def _judge(row: Prediction, truth: RiskReport) -> Answer:
    parsed = read_answer(row.answer, DEFAULT_FORMAT)
    if isinstance(parsed, Unparsed):
        return Answer(row.answer, None, row.error or parsed.reason, level_is_right=False, kind_is_right=False)
    return Answer(row.answer, parsed, None, parsed.level == truth.level, kind_is_right(row))


def render_page(base: Run, tuned: Run, photos: Path) -> str:
    """The page as HTML; photos are read from the folder `photos`.

    Raises `DataError` as `pair_rows` and `score_lines` do, `MissingDataError` or `ImageError` for a photo.
    """
    rows = pair_rows(base.predictions, tuned.predictions)
    lines = _lines(base, tuned)
    by_name = {line.name: line for line in lines}
    wrong_first = sorted(rows, key=lambda row: row.tuned.is_right)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(TEMPLATE.name).render(
        names=(BASE, TUNED),
        lines=lines,
        headlines=[by_name[name] for name in HEADLINES],
        floor_note=floor_note(tuned.metrics),
        confusion=tuned.metrics["risk_level"]["confusion"],
        cards=[(row, _data_uri(photos, row)) for row in wrong_first],
        num_wrong=sum(not row.tuned.is_right for row in rows),
        labels=DEFAULT_FORMAT.labels,
        level_label=DEFAULT_FORMAT.level_label,
        kind_field=KIND_FIELD,
    )


def _lines(base: Run, tuned: Run) -> list[ScoreLine]:
    scores = score_lines({BASE: base.metrics, TUNED: tuned.metrics})
    return [*scores, kind_line(_answers(base, tuned))]


def _answers(base: Run, tuned: Run) -> list[Sequence[Prediction]]:
    return [base.predictions, tuned.predictions]


def _data_uri(photos: Path, row: PhotoRow) -> str:
    """The photo as a JPEG in a data URI, shrunk where it is larger than the page shows."""
    path = photos / row.image
    if not path.is_file():
        raise MissingDataError(f"id {row.id}: no photo {path}; --photos names the folder that image paths start from")
    encoded = reencode(Photo(path, name=str(path)), SHOWN_SIZE, SHOWN_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.data).decode("ascii")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write the page that the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=file_to_write, help="the page to write")
    parser.add_argument("--base", type=Path, required=True, help="the output folder of stage: eval, before fine-tuning")
    parser.add_argument("--tuned", type=Path, required=True, help="the output folder of stage: eval, after it")
    parser.add_argument("--photos", type=Path, required=True, help="the folder that image paths start from")
    asked = parser.parse_args(arguments)
    try:
        _report(asked.out, read_run(asked.base), read_run(asked.tuned), asked.photos)
    except RiskvaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a file where a folder should be
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _report(out: Path, base: Run, tuned: Run, photos: Path) -> None:
    page = render_page(base, tuned, photos)
    print(render_side_by_side({BASE: base.metrics, TUNED: tuned.metrics}, [kind_line(_answers(base, tuned))]))
    with write_whole(out) as stream:
        stream.write(page)
    print(f"every photo: {out}")


if __name__ == "__main__":
    sys.exit(main())
