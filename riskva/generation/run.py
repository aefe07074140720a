"""A predict or eval recipe's predictions, from its model and data sets to the finished file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from peft.utils import SAFETENSORS_WEIGHTS_NAME

from evaluation.predictions import FILE_NAME, Prediction, write_predictions
from riskva.console import note, warn
from riskva.data.conversation import Conversations
from riskva.data.datasets import ConversationDataset, open_datasets
from riskva.data.grey_photos import GreyPhotos
from riskva.data.parallel import num_photo_workers
from riskva.data.verification import Verify, verify_datasets
from riskva.errors import DataError, SomeRowsFailed
from riskva.files import sha256_of
from riskva.generation.predict import PARTIAL_SUFFIX, PromptDataset, check_ids, predict
from riskva.generation.setup import build_answerer, processor_of
from riskva.modeling.context import FILE_NAME as CONTEXT_FILE
from riskva.modeling.context import ModelContext
from riskva.modeling.resolving import resolve_context
from riskva.output_folder import OutputFolder
from riskva.recipe import recipe_to_yaml
from riskva.recipe.stages import EvalRecipe, PredictRecipe
from riskva.report import ReportFormat

GOES_ON = "the same command goes on with the answers that are written"

HOW_TO_SCORE = ("train_dataset", "kinds", "rooms", "level_costs", "report_rows", "label_studio", "leaderboard")
"""Keys that change no answer."""

FAILED_FILE = "failed_rows.jsonl"
BLANKED_FILE = "blanked_predictions.jsonl"
OWNED_FILES = (
    *(re.escape(name + suffix) for name in (FILE_NAME, BLANKED_FILE) for suffix in ("", PARTIAL_SUFFIX)),
    *map(re.escape, (FAILED_FILE, CONTEXT_FILE)),
)


def output_folder_of(
    recipe: PredictRecipe | EvalRecipe, finished_file: str, also_owned: Sequence[str] = ()
) -> OutputFolder:
    """The recipe's output folder; a run of it is finished with `finished_file`, and writes `also_owned` beside answers.

    An adapter that was trained anew makes it another run: half the answers of one and half of another are no scores.
    What answers are scored by makes none: it may be mended while they are kept.
    """
    same = {name: type(recipe).model_fields[name].default for name in HOW_TO_SCORE if name in type(recipe).model_fields}
    comparable = recipe_to_yaml(recipe.model_copy(update={"overwrite_output_dir": False, "verify": "size", **same}))
    adapter = Path(recipe.adapter_name_or_path or "") / SAFETENSORS_WEIGHTS_NAME
    if recipe.adapter_name_or_path and adapter.is_file():
        comparable += f"# SHA-256 of the adapter's weights: {sha256_of(adapter)}\n"
    owned = (*OWNED_FILES, *also_owned)
    return OutputFolder(recipe.output_dir, comparable, finished_file, owned, recipe.overwrite_output_dir)


def inputs_of(recipe: PredictRecipe | EvalRecipe) -> list[Path | str | None]:
    """What the recipe reads, and overwriting must not delete."""
    return [recipe.model_name_or_path or None, recipe.adapter_name_or_path, recipe.dataset_dir]


@dataclass(frozen=True)
class Predicted:
    """The finished files of a recipe's answers, and the form of its reports; `blanked` only where it was asked for."""

    predictions: Path
    report_format: ReportFormat
    blanked: Path | None = None


def predict_recipe(recipe: PredictRecipe | EvalRecipe, output: OutputFolder) -> Predicted:
    """Answer every row of the recipe's data sets, and once more with grey photos under `blank_photos`."""
    goes_on = output.check(inputs_of(recipe))
    context = _context(recipe)
    rows = _open_rows(recipe, recipe.verify)
    wanted = _wanted(recipe, rows)
    finished = {path for path in wanted if goes_on and path.is_file()}
    for path in finished:
        note(f"{path} is complete already")
        check_ids(path, rows.ids)
    if finished != set(wanted):
        _answer(recipe, output, goes_on, context, {path: wanted[path] for path in wanted if path not in finished})
    blanked = recipe.output_dir / BLANKED_FILE
    return Predicted(recipe.output_dir / FILE_NAME, context.report_format, blanked if blanked in wanted else None)


def _wanted(
    recipe: PredictRecipe | EvalRecipe, rows: ConversationDataset
) -> dict[Path, ConversationDataset | GreyPhotos]:
    """What is to be answered, by the file that the answers go to."""
    wanted: dict[Path, ConversationDataset | GreyPhotos] = {recipe.output_dir / FILE_NAME: rows}
    if isinstance(recipe, EvalRecipe) and recipe.blank_photos:
        wanted[recipe.output_dir / BLANKED_FILE] = GreyPhotos(rows)
    return wanted


def _answer(
    recipe: PredictRecipe | EvalRecipe,
    output: OutputFolder,
    goes_on: bool,
    context: ModelContext,
    wanted: Mapping[Path, ConversationDataset | GreyPhotos],
) -> None:
    processor = processor_of(recipe, context)
    rows = next(iter(wanted.values()))
    note(f"{len(rows)} rows of {', '.join(recipe.eval_dataset)}; loading {recipe.model_name_or_path}")
    _warn_of_other_prompts(rows, context)
    answerer = build_answerer(recipe, processor)
    output.take(goes_on)
    context.save(recipe.output_dir)
    for path, conversations in wanted.items():
        if isinstance(conversations, GreyPhotos):
            note("once more, with every photo painted grey")
        predict(
            PromptDataset(conversations, processor, recipe.cutoff_len),
            answerer,
            context.report_format,
            path,
            batch_size=recipe.per_device_eval_batch_size,
            num_workers=recipe.preprocessing_num_workers or num_photo_workers(),
        )


def _open_rows(recipe: PredictRecipe | EvalRecipe, verify: Verify) -> ConversationDataset:
    """The recipe's rows, their files compared with the manifest as `verify` says."""
    verify_datasets(recipe.eval_dataset, recipe.dataset_dir, recipe.media_dir, verify)
    return open_datasets(recipe.eval_dataset, recipe.dataset_dir, recipe.media_dir, recipe.max_samples)


def _context(recipe: PredictRecipe | EvalRecipe) -> ModelContext:
    answer_fields = recipe.report_format() if isinstance(recipe, EvalRecipe) else None
    return resolve_context(recipe, recipe.dataset_dir, answer_fields)


def _warn_of_other_prompts(rows: Conversations, context: ModelContext) -> None:
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
            if taught is not None and asked != taught:
                warn(f"{row.where}: its {name} is {asked!r}, but the model was trained with {taught!r}")
        return


def plan_predictions(recipe: PredictRecipe | EvalRecipe, output: OutputFolder) -> list[str]:
    """What `predict_recipe` would do. Loads no weights and writes nothing."""
    goes_on = output.check(inputs_of(recipe))
    context = _context(recipe)
    rows = _open_rows(recipe, "size" if recipe.verify == "full" else recipe.verify)  # a plan reads no photo
    return [
        *(["go on with the unfinished run in " + str(recipe.output_dir)] if goes_on else []),
        f"answer {len(rows)} rows of {', '.join(recipe.eval_dataset)}, {recipe.per_device_eval_batch_size} at a time"
        + (", and once more with grey photos" if len(_wanted(recipe, rows)) > 1 else ""),
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
