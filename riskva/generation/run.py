"""A recipe's predictions, from its model and rows to the finished file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from peft.utils import SAFETENSORS_WEIGHTS_NAME

from evaluation.predictions import FILE_NAME, Prediction, prediction_of, write_predictions
from riskva.console import note, warn
from riskva.data.conversation import Conversation
from riskva.data.parallel import num_photo_workers
from riskva.data.photo_inputs import Inputs
from riskva.data.stamps import digest_of, stamped
from riskva.distributed import decide_once, gathered, num_processes, rank, together
from riskva.errors import DataError, OutputFolderError, SomeRowsFailed
from riskva.files import sha256_of, write_json
from riskva.generation.asked import BLANKED_FILE, TEST_FILE, AnsweringRecipe, Asked
from riskva.generation.batch_exchange import ask, require_answerable, take_in
from riskva.generation.batches import LengthBuckets
from riskva.generation.engines import build_engine
from riskva.generation.journal import Journal
from riskva.generation.predict import answer_row, predict
from riskva.generation.prompts import PromptDataset, PromptEncoder
from riskva.generation.share import Share, with_confidence
from riskva.modeling.context import FILE_NAME as CONTEXT_FILE
from riskva.modeling.context import ModelContext
from riskva.output_folder import OutputFolder
from riskva.parts import Part, choose_part
from riskva.recipe import PredictRecipe, recipe_to_yaml

GOES_ON = "the same command goes on with the answers that are written"

MAY_DIFFER = (
    *("train_dataset", "kinds", "rooms", "level_costs", "report_rows", "label_studio", "leaderboard"),
    *("per_device_eval_batch_size", "preprocessing_num_workers", "nproc_per_node"),
    *("output_file", "compare_gt", "review_below", "always_review", "batch_results"),
)
"""Keys that may differ when a run is gone on with."""

FAILED_FILE = "failed_rows.jsonl"
WEIGHTS_MARK = "# sizes and times of the model's weights: "
ROWS_FILE = "rows.json"
"""How many rows there are in all parts, and a digest of their ids: parts of other rows do not fit together."""
JOURNALS = {FILE_NAME: "answers", BLANKED_FILE: "blanked_answers", TEST_FILE: "test_answers"}
"""The folder in which the answers for each file collect."""

OWNED = (*map(re.escape, (*JOURNALS, *JOURNALS.values(), FAILED_FILE, ROWS_FILE, CONTEXT_FILE)),)


def output_folder_of(recipe: AnsweringRecipe, finished_file: str, also_owned: Sequence[str] = ()) -> OutputFolder:
    """The recipe's output folder; a run of it is finished with `finished_file`, and writes `also_owned` beside answers.

    A model or an adapter that was made anew makes it another run: half the answers of one and half of another are no
    scores.
    """
    assert recipe.output_dir is not None
    known = type(recipe).model_fields
    same = {name: known[name].default for name in MAY_DIFFER if name in known}
    comparable = recipe_to_yaml(recipe.model_copy(update={"overwrite_output_dir": False, "verify": "size", **same}))
    for name in filter(None, (recipe.adapter_name_or_path, recipe.model_name_or_path)):
        adapter = Path(name) / SAFETENSORS_WEIGHTS_NAME
        if adapter.is_file():
            comparable += f"# SHA-256 of the adapter's weights: {sha256_of(adapter)}\n"
    if weights := sorted(Path(recipe.model_name_or_path).expanduser().glob("model*.safetensors")):
        comparable += f"{WEIGHTS_MARK}{digest_of(map(stamped, weights))}\n"
    part = part_of(recipe)
    path = recipe.output_dir / part.name if part.count > 1 else recipe.output_dir
    return OutputFolder(path, comparable, finished_file, (*OWNED, *also_owned), recipe.overwrite_output_dir)


def part_of(recipe: AnsweringRecipe) -> Part:
    """The part of the rows that this run answers."""
    shard = recipe.shard if isinstance(recipe, PredictRecipe) else None
    return choose_part(shard, os.environ) if shard is not None else Part()


@dataclass(frozen=True)
class Predicted:
    """A recipe's answers, by the file of `folder` that they belong in, and how the model was asked."""

    folder: Path
    context: ModelContext
    answers: Mapping[str, list[Prediction]]


def predict_recipe(recipe: AnsweringRecipe, output: OutputFolder) -> Predicted | None:
    """Answer every row of the recipe, this process its share of them; all answers on the main process, else None."""
    asked = Asked(recipe)
    goes_on = decide_once(lambda: output.check(asked.inputs))
    wanted = together(lambda: asked.wanted(recipe.verify))
    own = _shares(recipe, wanted, output)
    if isinstance(recipe, PredictRecipe) and recipe.infer_backend == "openai_batch":
        require_answerable(recipe)
        _take(asked, output, goes_on, own)
        if not _exchange(recipe, asked.context, output.path, own[FILE_NAME]):
            return None
    elif goes_on and decide_once(lambda: all(len(share.done()) == len(share.ids) for share in own.values())):
        decide_once(lambda: _take(asked, output, goes_on, own))
    else:
        _answer(asked, output, goes_on, own)
    gathered(None)  # all are done
    if rank():
        return None
    answers = {name: share.predictions(asked.temperature) for name, share in own.items()}
    for name, predictions in answers.items():
        if name != output.finished_file:  # which is written when all else is
            write_predictions(predictions, output.path / name)
    return Predicted(output.path, asked.context, answers)


def _shares(recipe: AnsweringRecipe, wanted: Mapping[str, Inputs], output: OutputFolder) -> dict[str, Share]:
    return {name: Share(rows, Journal(output.path / JOURNALS[name]), part_of(recipe)) for name, rows in wanted.items()}


def _answer(asked: Asked, output: OutputFolder, goes_on: bool, shares: Mapping[str, Share]) -> None:
    recipe, context = asked.recipe, together(lambda: asked.context)
    rows = next(iter(shares.values())).rows
    _warn_of_other_prompts(rows, context)
    note(f"{sum(len(share.ids) for share in shares.values())} rows of {asked.source}")
    engine = together(lambda: build_engine(recipe, *asked.place, asked.processor, context.report_format))
    decide_once(lambda: _take(asked, output, goes_on, shares))
    for name, share in shares.items():
        if name == BLANKED_FILE:
            note("once more, with every photo painted grey")
        done = decide_once(share.done)  # only now that no other run can add to it
        if done:
            note(f"going on after {len(done)} rows that an earlier run finished")
        own, finished_rows = share.of_process(rank(), num_processes(), done)
        predict(
            PromptDataset(share.rows, engine.encode),
            LengthBuckets(share.rows, own, engine.batch_size, asked.processor, finished_rows),
            engine.answer,
            context.report_format,
            share.journal,
            done=done,
            num_rows=len(own) - len(finished_rows),
            num_workers=recipe.preprocessing_num_workers or num_photo_workers(num_processes()),
        )


def _take(asked: Asked, output: OutputFolder, goes_on: bool, shares: Mapping[str, Share]) -> None:
    """Make the folder this run's, and say there how the model is asked and which rows all parts are of."""
    if goes_on:
        _require_same_context(asked, output.path)
    output.take(goes_on)
    for share in shares.values():
        share.journal.require_idle()
    asked.context.save(output.path)
    write_json(output.path / ROWS_FILE, {name: share.digest for name, share in shares.items()})


def _require_same_context(asked: Asked, folder: Path) -> None:
    """Raise `OutputFolderError` where the answers there were asked for otherwise; a new temperature does no harm."""
    before = ModelContext.load(folder)
    if before is None:
        return
    now = replace(asked.context, level_temperature=before.level_temperature, versions=before.versions)
    if now != before:
        differing = [one.name for one in fields(now) if getattr(now, one.name) != getattr(before, one.name)]
        raise OutputFolderError(
            f"{folder} was begun with another {', '.join(differing)} in {CONTEXT_FILE}; name another output_dir, or "
            "delete this one"
        )


def _exchange(recipe: PredictRecipe, context: ModelContext, folder: Path, share: Share) -> bool:
    """Take in what an endpoint has answered, and ask it for the rest; whether nothing is left to be answered."""
    done = take_in(recipe, share, share.done(), context.report_format)
    requests = ask(recipe, share, done, folder, context)
    if requests is None:
        return True
    files = ", ".join(map(str, requests.paths))
    note(f"{requests.num_requests} rows wait for answers: have {files} answered (POST /v1/chat/completions)")
    note("then the same command with batch_results=THE_ANSWERED_FILE takes them in")
    return False


def answer_one(asked: Asked, row: Conversation) -> Prediction:
    """The row's answer. Raises `DataError` where it cannot be read and `ModelError` where memory does not suffice."""
    recipe, context = asked.recipe, asked.context
    PromptEncoder(asked.processor, recipe.cutoff_len)(row.prompt)  # a bad photo is found before the model loads
    engine = build_engine(recipe, *asked.place, asked.processor, context.report_format)
    line = answer_row(row, engine, context.report_format)
    return with_confidence(prediction_of(line), asked.temperature)


def _warn_of_other_prompts(rows: Inputs, context: ModelContext) -> None:
    """Name both wordings when the rows are asked otherwise than the model was taught; the rows' own are used.

    The first row that can be read stands for all: a data set's rows are asked alike, and reading all means reading
    all photos.
    """
    for index in range(len(rows)):
        try:
            row = rows[index]
        except DataError:
            continue
        question = next(message.content for message in row.messages if message.role == "user")
        for name, asked, taught in (
            ("system prompt", row.system, context.system_prompt),
            ("question", question, context.question),
        ):
            if taught is not None and (asked or "") != taught:
                warn(f"{row.where}: its {name} is {asked!r}, but the model was trained with {taught!r}")
        return


def plan_predictions(recipe: AnsweringRecipe, output: OutputFolder) -> list[str]:
    """What `predict_recipe` would do. Loads no weights and writes nothing."""
    asked = Asked(recipe)
    goes_on = output.check(asked.inputs)
    # A plan reads no photo
    wanted = asked.wanted("size" if recipe.verify == "full" else recipe.verify)
    own = _shares(recipe, wanted, output)
    num_todo = sum(len(share.ids) - (len(share.done()) if goes_on else 0) for share in own.values())
    context = asked.context
    return [
        *(["go on with the unfinished run in " + str(output.path)] if goes_on else []),
        f"answer {num_todo} rows of {asked.source}, {recipe.per_device_eval_batch_size} at a time"
        + (", grey photos among them" if BLANKED_FILE in own else ""),
        f"photos between {context.image_min_pixels} and {context.image_max_pixels} pixels, "
        f"at most {recipe.max_new_tokens} new tokens",
        f"report fields: {', '.join(context.report_format.labels)}",
    ]


def write_failed_rows(predictions: Sequence[Prediction], folder: Path) -> None:
    """List the rows that carry an error in `failed_rows.jsonl`, if there are any."""
    failed = [row for row in predictions if row.error is not None]
    if failed:
        write_predictions(failed, folder / FAILED_FILE)


def raise_for_failed_rows(predictions: Sequence[Prediction], folder: Path) -> None:
    """Raise `SomeRowsFailed` if any row carries an error."""
    errors = [row.error for row in predictions if row.error is not None]
    if errors:
        raise SomeRowsFailed(
            f"{len(errors)} of {len(predictions)} rows failed, listed in {folder / FAILED_FILE}; the first: {errors[0]}"
        )
