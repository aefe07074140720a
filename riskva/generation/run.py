"""A predict or eval recipe's predictions, from its model and data sets to the finished file."""

from __future__ import annotations

import json
from pathlib import Path

from riskva import output_folder
from riskva.console import note, warn
from riskva.data.datasets import ConversationDataset, open_datasets
from riskva.data.parallel import num_cores
from riskva.errors import DataError, SomeRowsFailed
from riskva.files import write_whole
from riskva.generation.predict import FILE_NAME, PromptDataset, predict
from riskva.generation.setup import build_answerer, context_of, processor_of
from riskva.modeling.context import ModelContext
from riskva.recipe import recipe_to_yaml
from riskva.recipe.stages import EvalRecipe, PredictRecipe

FAILED_FILE = "failed_rows.jsonl"
OWNED_FILES = (FILE_NAME, FILE_NAME + ".partial", FAILED_FILE, "metrics.json", "riskva.json")
MOST_WORKERS = 4


def claim_output(recipe: PredictRecipe | EvalRecipe, finished_file: str) -> None:
    """Take the recipe's output folder for this run, or for the interrupted one that it goes on with."""
    comparable = recipe.model_copy(update={"overwrite_output_dir": False})
    output_folder.claim(
        recipe.output_dir, recipe_to_yaml(comparable), finished_file, OWNED_FILES, recipe.overwrite_output_dir
    )


def predict_recipe(recipe: PredictRecipe | EvalRecipe) -> tuple[Path, ModelContext]:
    """Answer every row of the recipe's data sets; the finished predictions file, and the rules of the model."""
    context = context_of(recipe)
    path = recipe.output_dir / FILE_NAME
    if path.is_file():
        note(f"{path} is complete already")
        return path, context
    processor = processor_of(recipe, context)
    rows = open_datasets(recipe.eval_dataset, recipe.dataset_dir, recipe.media_dir, recipe.max_samples)
    note(f"{len(rows)} rows of {', '.join(recipe.eval_dataset)}; loading {recipe.model_name_or_path}")
    _warn_of_other_prompts(rows, context)
    answerer = build_answerer(recipe, processor)
    context.save(recipe.output_dir)
    predict(
        PromptDataset(rows, processor, recipe.cutoff_len),
        answerer,
        context.report_format,
        recipe.output_dir,
        batch_size=recipe.per_device_eval_batch_size,
        num_workers=recipe.preprocessing_num_workers or min(MOST_WORKERS, num_cores()),
    )
    return path, context


def _warn_of_other_prompts(rows: ConversationDataset, context: ModelContext) -> None:
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


def plan_predictions(recipe: PredictRecipe | EvalRecipe) -> list[str]:
    """What `predict_recipe` would do. Loads no weights and writes nothing."""
    context = context_of(recipe)
    rows = open_datasets(recipe.eval_dataset, recipe.dataset_dir, recipe.media_dir, recipe.max_samples)
    return [
        f"answer {len(rows)} rows of {', '.join(recipe.eval_dataset)}, {recipe.per_device_eval_batch_size} at a time",
        f"photos between {context.image_min_pixels} and {context.image_max_pixels} pixels, "
        f"at most {recipe.max_new_tokens} new tokens",
        f"report fields: {', '.join(context.report_format.labels)}",
    ]


def raise_for_failed_rows(predictions: Path) -> None:
    """List the rows that carry an error in `failed_rows.jsonl` and raise `SomeRowsFailed`, if there are any."""
    with predictions.open(encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    failed = [line for line in lines if line.get("error")]
    if not failed:
        return
    path = predictions.with_name(FAILED_FILE)
    with write_whole(path) as stream:
        stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in failed)
    raise SomeRowsFailed(
        f"{len(failed)} of {len(lines)} rows failed, listed in {path}; the first: {failed[0]['error']}"
    )
