"""Scored answers as tasks for Label Studio, so that a person can correct what is wrong, in the data or in the model.

A task shows the photo, the reference and the model's answer, and comes filled in with the reference. Rows are mostly
picked because the answer differs from the reference, and mostly the answer is at fault: then there is nothing to type,
and whoever clicks on too fast leaves the data as it was, instead of turning what a model said into what it is taught.
Only a row whose label is no report comes filled in with the answer, if that is one.

The controls are called as the table's columns, so the export (JSON) is a table for `stage: prepare`:

    riskva-run recipes/prepare_parquet.yaml csv_path=project-export.json image_base_path=FOLDER
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from evaluation.evaluated import Evaluation
from evaluation.sample_scores import SampleScore
from riskva import columns
from riskva.console import note
from riskva.errors import DataError
from riskva.files import write_json, write_whole
from riskva.report import LEVEL_LABELS, ReportField, ReportFormat, RiskReport

TASKS_NAME = "tasks.json"
CONFIG_NAME = "config.xml"
PHOTO_FOLDER = "photos"

MODEL_VERSION = "riskva"
"""One for all tasks: a project shows the predictions of one version."""

NUM_LISTED = 5

_LONGEST_STEM = 150  # bytes; file systems take 255, and a number and an ending are added
_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}
_BLANK = "—"


def require_own_folder(folder: Path) -> None:
    """Raise `DataError` when the folder of tasks holds something else than such tasks, which would be lost."""
    if not folder.is_dir():
        return
    own = {TASKS_NAME, CONFIG_NAME, PHOTO_FOLDER}
    foreign = [path for path in folder.iterdir() if path.name not in own]
    photos = folder / PHOTO_FOLDER
    if photos.is_dir():
        foreign += [path for path in photos.iterdir() if path.suffix not in _SUFFIXES.values()]
    if foreign:
        raise DataError(
            f"label_studio: {folder} holds {foreign[0].relative_to(folder)}, which no evaluation wrote, and would be "
            "replaced; move the folder to where you annotate"
        )


def write_tasks(
    evaluation: Evaluation,
    rows: Sequence[int],
    photos: Callable[[int], Sequence[tuple[str, bytes]]],
    folder: Path,
    extra: Callable[[int], Mapping[str, str]],
) -> Path:
    """Write these rows' tasks into `folder`: `tasks.json` to import, `config.xml`, and the photos; gives the first.

    `rows` are indices into `evaluation.predictions`. `photos(i)` gives name and encoded bytes of each photo of row i,
    `extra(i)` the table's own columns, which come back with the task. Rows without exactly one photo, or whose photo
    cannot be read, are left out, and a note says which: a training row shows one. Raises `DataError` when no row is
    left. Label Studio finds the photos when it is started as the note says, with `folder/photos` as a local storage.
    """
    tasks: list[dict[str, Any]] = []
    left_out: list[str] = []
    names = _PhotoNames()
    for row in rows:
        identity = evaluation.predictions[row].id
        try:
            name, data = _only_photo(photos(row))
        except (DataError, OSError) as fault:
            left_out.append(f"id {identity}: {fault}")
            continue
        path = f"{PHOTO_FOLDER}/{names.name(name or identity, data)}"
        with write_whole(folder / path, "wb") as stream:
            stream.write(data)
        tasks.append(_task(evaluation, row, path, extra(row)))
    if not tasks:
        raise DataError(f"{folder}: none of {len(rows)} rows can be a task for Label Studio:\n  {_listed(left_out)}")
    with write_whole(folder / CONFIG_NAME) as stream:
        stream.write(config_xml(evaluation.scoring.report_format))
    write_json(folder / TASKS_NAME, tasks)
    _tell(folder, len(tasks), left_out)
    return folder / TASKS_NAME


def config_xml(report_format: ReportFormat) -> str:
    """The labelling config: the photo, what was expected and answered, and a control for each column of a field."""
    view = ElementTree.Element("View")
    _shown_text(view, "模型判断有误之处", columns.MARKS_COLUMN)
    photo = {"zoom": "true", "zoomControl": "true", "rotateControl": "true"}
    ElementTree.SubElement(view, "Image", photo, name=columns.PHOTO_URL_COLUMN, value=f"${columns.PHOTO_URL_COLUMN}")
    _shown_text(view, "参考答案", columns.REFERENCE_COLUMN)
    _shown_text(view, "模型回答", columns.ANSWER_COLUMN)
    for one in _controls(report_format):
        ElementTree.SubElement(view, "Header", value=one.label)
        _control(view, one)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _shown_text(view: ElementTree.Element, title: str, column: str) -> None:
    ElementTree.SubElement(view, "Header", value=title)
    ElementTree.SubElement(view, "Text", name=column, value=f"${column}")


def _control(view: ElementTree.Element, one: ReportField) -> None:
    common = {"name": one.column, "toName": columns.PHOTO_URL_COLUMN, "required": "false" if one.default else "true"}
    if not one.is_level:
        # One text a field: with more, nobody could tell which of them is the report's.
        ElementTree.SubElement(view, "TextArea", common, editable="true", maxSubmissions="1", rows="3")
        return
    choices = ElementTree.SubElement(view, "Choices", common, choice="single", showInline="true")
    for label in LEVEL_LABELS:
        ElementTree.SubElement(choices, "Choice", value=label)


def _controls(report_format: ReportFormat) -> list[ReportField]:
    """The fields, one for each column: two may be filled from the same."""
    return list({one.column: one for one in reversed(report_format.fields)}.values())[::-1]


def _only_photo(found: Sequence[tuple[str, bytes]]) -> tuple[str, bytes]:
    if len(found) != 1:
        raise DataError(f"{len(found)} photos; a task, as the training row it becomes, shows exactly one")
    return found[0]


class _PhotoNames:
    """Names that are safe in a folder and in a URL, and all different, whatever photos were called."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, name: str, data: bytes) -> str:
        path = PurePosixPath(re.sub(r"[^\w.-]", "_", PurePosixPath(name.replace("\\", "/")).name))
        stem, suffix = (path.stem, path.suffix) if 1 < len(path.suffix) <= 5 else (path.name, "")
        # Label Studio tells from the ending what to send a browser.
        suffix = suffix or next((one for start, one in _SUFFIXES.items() if data.startswith(start)), ".jpg")
        stem = stem.encode()[:_LONGEST_STEM].decode(errors="ignore").strip(".") or "photo"
        return next(one for one in self._numbered(stem, suffix) if self._take(one))

    def _numbered(self, stem: str, suffix: str) -> Iterator[str]:
        yield f"{stem}{suffix}"
        for number in range(2, len(self._taken) + 3):
            yield f"{stem}-{number}{suffix}"

    def _take(self, name: str) -> bool:
        is_free = name.lower() not in self._taken  # some file systems do not tell a.jpg from A.jpg
        self._taken.add(name.lower())
        return is_free


def _task(evaluation: Evaluation, row: int, path: str, extra: Mapping[str, str]) -> dict[str, Any]:
    sample = evaluation.samples[row]
    report_format = evaluation.scoring.report_format
    own = {columns.ID_COLUMN: evaluation.predictions[row].id, columns.IMAGE_COLUMN: path}
    # The fields come back as what the person says, never as what the table said before.
    not_theirs = {*own, columns.GROUP_COLUMN, *columns.SHOWN_COLUMNS, *(one.column for one in report_format.fields)}
    theirs = {name: text for name, text in extra.items() if name not in not_theirs}
    return {
        "data": own | theirs | _shown(evaluation, row, path),
        "predictions": list(_filled_in(sample, report_format, evaluation.predictions[row].level_probability)),
    }


def _shown(evaluation: Evaluation, row: int, path: str) -> dict[str, Any]:
    """What the task shows, and what tasks can be sorted and filtered by. No text is empty: that would look broken."""
    prediction, sample = evaluation.predictions[row], evaluation.samples[row]
    answer = prediction.predict if prediction.error is None else f"失败：{prediction.error}"
    answered = sample.answered_level
    shown: dict[str, Any] = {
        columns.PHOTO_URL_COLUMN: f"/data/local-files/?d={quote(path)}",
        columns.REFERENCE_COLUMN: prediction.label.strip() or _BLANK,
        columns.REFERENCE_LEVEL_COLUMN: sample.expected.level.label if sample.expected else _BLANK,
        columns.ANSWER_COLUMN: answer.strip() or _BLANK,
        columns.ANSWER_LEVEL_COLUMN: answered.label if answered is not None else _BLANK,
        columns.MARKS_COLUMN: ", ".join(sample.marks) or _BLANK,
    }
    if prediction.level_probability is not None:
        shown[columns.CONFIDENCE_COLUMN] = prediction.level_probability
    if prediction.group is not None:
        shown[columns.GROUP_COLUMN] = prediction.group
    return shown


def _filled_in(sample: SampleScore, report_format: ReportFormat, confidence: float | None) -> Iterator[dict[str, Any]]:
    """What the controls hold to begin with; nothing where neither label nor answer is a report."""
    report = sample.expected or sample.reading.report
    if report is None:
        return
    score = {} if sample.expected or confidence is None else {"score": confidence}
    results = [_result(one, report) for one in _controls(report_format)]
    yield {"model_version": MODEL_VERSION, **score, "result": results}


def _result(one: ReportField, report: RiskReport) -> dict[str, Any]:
    value = {"choices": [report.level.label]} if one.is_level else {"text": [report.texts[one.label]]}
    kind = "choices" if one.is_level else "textarea"
    return {
        "id": one.column,
        "from_name": one.column,
        "to_name": columns.PHOTO_URL_COLUMN,
        "type": kind,
        "value": value,
    }


def _tell(folder: Path, num_tasks: int, left_out: Sequence[str]) -> None:
    if left_out:
        note(f"Label Studio: {len(left_out)} rows left out\n  {_listed(left_out)}")
    note(
        f"Label Studio: {num_tasks} tasks in {folder / TASKS_NAME}. Start it with "
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true "
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder.absolute()}; put {CONFIG_NAME} into the labelling interface, "
        f"add {(folder / PHOTO_FOLDER).absolute()} as a local storage without syncing it, and import {TASKS_NAME}"
    )


def _listed(left_out: Sequence[str]) -> str:
    more = [f"… and {len(left_out) - NUM_LISTED} more"] if len(left_out) > NUM_LISTED else []
    return "\n  ".join([*left_out[:NUM_LISTED], *more])
