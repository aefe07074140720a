"""`infer_backend: openai_batch`: questions go out as files, and answers that came back go into the journal."""

from __future__ import annotations

from pathlib import Path

from riskva.console import note
from riskva.data.parallel import num_cores
from riskva.data.photo_inputs import Inputs
from riskva.errors import DataError, RecipeError
from riskva.generation.answer import Answer
from riskva.generation.journal import Line
from riskva.generation.openai_batch import Form, Requests, read_results, write_requests
from riskva.generation.prompts import answered, failed, line_of
from riskva.generation.share import Share
from riskva.modeling.context import ModelContext
from riskva.recipe import PredictRecipe
from riskva.report import ReportFormat

LINES_AT_ONCE = 64


def require_answerable(recipe: PredictRecipe) -> None:
    """Raise `RecipeError` where an endpoint cannot do what the recipe asks for."""
    if recipe.adapter_name_or_path and recipe.batch_model is None:
        raise RecipeError(
            "batch_model: missing: what the endpoint calls the model with the adapter in it; serve the export_dir of "
            "stage: export, or the adapter under a name"
        )


def take_in(recipe: PredictRecipe, share: Share, done: frozenset[str], form: ReportFormat) -> frozenset[str]:
    """Append what the endpoint answered to the journal; the ids of all rows that have a line then."""
    if not recipe.batch_results:
        return done
    results = read_results(recipe.batch_results, share.ids, form)
    new = [number for number, one in zip(share.numbers, share.ids, strict=True) if one in results and one not in done]
    with share.journal.appending(0) as append:
        for first in range(0, len(new), LINES_AT_ONCE):
            append([_line(share.rows, number, results, form) for number in new[first : first + LINES_AT_ONCE]])
    note(f"{len(new)} rows taken in from {', '.join(map(str, recipe.batch_results))}")
    return done | results.keys()


def _line(rows: Inputs, number: int, results: dict[str, Answer | str], form: ReportFormat) -> Line:
    row_id = rows.id_of(number)
    try:
        line = line_of(rows[number])
    except DataError as error:
        return failed({"id": row_id, "prompt": "", "label": ""}, str(error))
    result = results[row_id]
    return answered(line, result, form) if isinstance(result, Answer) else failed(line, f"id {row_id}: {result}")


def ask(
    recipe: PredictRecipe, share: Share, done: frozenset[str], folder: Path, context: ModelContext
) -> Requests | None:
    """Write the files that ask for the rows that are not done; those that cannot be read get their line at once.

    None where nothing is left to be asked.
    """
    assert recipe.constrain != "report"
    form = Form(
        model=recipe.batch_model or recipe.model_name_or_path,
        keys=recipe,
        report_format=context.report_format,
        max_pixels=context.image_max_pixels,
        constrain=recipe.constrain,
    )
    numbers = [number for number, one in zip(share.numbers, share.ids, strict=True) if one not in done]
    workers = recipe.preprocessing_num_workers or num_cores()
    requests = write_requests(share.rows, folder, form, numbers=numbers, num_workers=workers)
    with share.journal.appending(0) as append:
        append([failed({"id": one, "prompt": "", "label": ""}, text) for one, text in requests.failed.items()])
    return requests if requests.num_requests else None
