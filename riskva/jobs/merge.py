"""`stage: merge`: the parts that `stage: prepare` or `stage: predict` wrote with `shard` become one."""

from __future__ import annotations

from contextlib import ExitStack

from riskva.errors import StoppedBySignal
from riskva.generation.joining import answered_parts, holds_answered_parts, join
from riskva.preparation.assembly import assemble
from riskva.preparation.finished_parts import read_parts
from riskva.preparation.staging import Staging
from riskva.preparation.summary import summary
from riskva.recipe import MergeRecipe, PrepareRecipe
from riskva.signals import sigterm_raises


def run(recipe: MergeRecipe) -> None:
    """Make the data set, or the prediction, of all parts, as one process would have made it.

    Raises `MissingDataError` while a part is missing or unfinished, `DataError` for parts that do not fit together, and
    `OutputFolderError` while one of them is at work.
    """
    with sigterm_raises(StoppedBySignal("stopped on SIGTERM; the same command begins anew")):
        if holds_answered_parts(recipe.output_dir):
            join(recipe)
        else:
            _merge_data(recipe)


def _merge_data(recipe: MergeRecipe) -> None:
    """Byte for byte what one process would have made with the same libraries."""
    staging = Staging(recipe.output_dir, recipe.overwrite_output_dir)
    with ExitStack() as stack:
        for one in read_parts(staging.work):
            stack.enter_context(staging.locked(one.part.name))
        parts = read_parts(staging.work)  # again, now that none of them can change
        prepare = PrepareRecipe(**{**parts[0].recipe, "output_dir": recipe.output_dir})
        made = assemble(parts, prepare, staging)
    print("\n".join(summary(made, prepare, staging.output_dir)))


def plan(recipe: MergeRecipe) -> list[str]:
    """What `run` would merge, as lines for a person. Raises what `run` raises for parts that are not all there."""
    if holds_answered_parts(recipe.output_dir):
        answered = answered_parts(recipe.output_dir)
        return [f"would merge the answers of {len(answered)} parts in {recipe.output_dir}"]
    staging = Staging(recipe.output_dir, recipe.overwrite_output_dir)
    parts = read_parts(staging.work)
    return [f"would merge {len(parts)} parts of {parts[0].num_rows} rows in {staging.output_dir}"]
