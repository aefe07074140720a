"""What a finished prediction leaves beside its answers: records, the list for a person, failed rows, a summary."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from evaluation.predictions import FILE_NAME, Prediction, write_predictions
from riskva.console import note
from riskva.errors import OutputFolderError
from riskva.files import write_json, write_whole
from riskva.generation.records import write_records
from riskva.generation.review_list import FILE_NAME as REVIEW_FILE
from riskva.generation.review_list import ReviewRule, write_review_list
from riskva.generation.run import raise_for_failed_rows, write_failed_rows
from riskva.recipe import MergeRecipe, PredictRecipe
from riskva.recipe.key_groups import RecordKeys
from riskva.report import ReportFormat, RiskLevel

RECORDS_NAME = "reports"
RECORDS_PATTERN = rf"{RECORDS_NAME}\.(json|jsonl|csv)"
CLAIM_FILE = "output_file.txt"
KEYS_FILE = "records.json"
KEPT_KEYS = ("compare_gt", "review_below", "always_review")


def rule_of(keys: RecordKeys) -> ReviewRule:
    """Which reports the recipe wants a person to look at."""
    return ReviewRule(keys.review_below, tuple(map(RiskLevel.from_label, keys.always_review)))


def records_path(keys: RecordKeys, folder: Path) -> Path:
    """Where the reports go that people take on."""
    return keys.output_file or folder / f"{RECORDS_NAME}.json"


def remember_keys(recipe: PredictRecipe, part_folder: Path) -> None:
    """Keep with a part what `stage: merge` is to make of all of them, unless its own recipe says otherwise."""
    write_json(part_folder / KEYS_FILE, recipe.model_dump(mode="json", include=set(KEPT_KEYS)))


def remembered_keys(recipe: MergeRecipe, part_folder: Path) -> MergeRecipe:
    """The recipe with what a part remembers of the keys that it leaves at their defaults."""
    kept = json.loads((part_folder / KEYS_FILE).read_text(encoding="utf-8"))
    fields = MergeRecipe.model_fields
    untouched = {name: kept[name] for name in KEPT_KEYS if getattr(recipe, name) == fields[name].get_default()}
    return recipe.model_validate(recipe.model_dump() | untouched)


def check_records_path(keys: RecordKeys, folder: Path | None, inputs: Iterable[Path | str | None]) -> None:
    """Raise `OutputFolderError` where `output_file` cannot be written, or would replace what it must not.

    Not even `overwrite_output_dir` lets it replace what the run reads, or what the run itself writes into `folder`.
    """
    path = keys.output_file
    if path is None:
        return
    own = folder is not None and path.resolve().parent == folder.resolve()
    if own and not re.fullmatch(RECORDS_PATTERN, path.name):
        raise OutputFolderError(f"output_file: {path}: in the output folder it can only be called reports.json or so")
    is_ours = own or (folder is not None and _claimed(folder) == str(path.resolve()))
    for one in inputs if path.exists() and not is_ours else ():
        if one is not None and Path(one).exists() and path.resolve().is_relative_to(Path(one).resolve()):
            raise OutputFolderError(f"output_file: {path} lies in {one}, which this run reads; name another")
    if path.exists() and not (is_ours or keys.overwrite_output_dir):
        raise OutputFolderError(f"output_file: {path} exists; name another, or set overwrite_output_dir: true")
    _require_writable(path)


def _require_writable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFolderError(f"output_file: {path}: no such folder can be made ({error.strerror})") from error
    if not os.access(path.parent, os.W_OK | os.X_OK) or path.is_dir():
        raise OutputFolderError(f"output_file: {path} cannot be written; name another")


def _claimed(folder: Path) -> str | None:
    """The file that a run into `folder` began to write its records to."""
    path = folder / CLAIM_FILE
    return path.read_text(encoding="utf-8") if path.is_file() else None


def publish(keys: RecordKeys, folder: Path, report_format: ReportFormat, answers: Sequence[Prediction]) -> None:
    """Write the answers and the files that go with them. Raises `SomeRowsFailed` at the end if a row has failed."""
    rule, path = rule_of(keys), records_path(keys, folder)
    if keys.output_file is not None:  # a run that is killed from here on may write it again
        with write_whole(folder / CLAIM_FILE) as stream:
            stream.write(str(path.resolve()))
    agreement = write_records(answers, report_format, path, compare_gt=keys.compare_gt, rule=rule)
    num_review = write_review_list(answers, report_format, rule, folder / REVIEW_FILE)
    write_failed_rows(answers, folder)
    write_predictions(answers, folder / FILE_NAME)  # the last: it says that the run is finished
    for line in _summary(answers, num_review, folder):
        print(line)
    for line in agreement.lines() if agreement is not None else ():
        print(line)
    note(f"the reports: {path}")
    raise_for_failed_rows(answers, folder)


def _summary(answers: Sequence[Prediction], num_review: int, folder: Path) -> Iterator[str]:
    levels = Counter(row.level for row in answers)
    cut_off = sum(row.finish_reason == "length" for row in answers)
    num_failed = sum(row.error is not None for row in answers)
    parts = [f"{level.label} {levels[level.label]}" for level in RiskLevel]
    if none := levels[None] - num_failed:
        parts.append(f"no report {none}" + (f" ({cut_off} cut off by max_new_tokens)" if cut_off else ""))
    if num_failed:
        parts.append(f"failed {num_failed}")
    yield f"{len(answers)} rows: {', '.join(parts)}"
    if num_review:
        yield f"{num_review} for a person to look at: {folder / REVIEW_FILE}"
