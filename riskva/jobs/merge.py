"""`stage: merge`: the parts that `stage: prepare` wrote with `shard` become one data set."""

from __future__ import annotations

from contextlib import ExitStack

from riskva.errors import StoppedBySignal
from riskva.preparation.assembly import assemble
from riskva.preparation.finished_parts import read_parts
from riskva.preparation.staging import Staging
from riskva.preparation.summary import summary
from riskva.recipe import MergeRecipe, PrepareRecipe
from riskva.signals import sigterm_raises


def run(recipe: MergeRecipe) -> None:
    """Make the data set of all parts, byte for byte as one process would have made it with the same libraries.

    Raises `MissingDataError` while a part is missing or unfinished, `DataError` for parts that do not fit together, and
    `OutputFolderError` while one of them is at work.
    """
    staging = Staging(recipe.output_dir, recipe.overwrite_output_dir)
    with ExitStack() as stack:
        stack.enter_context(sigterm_raises(StoppedBySignal("stopped on SIGTERM; the same command begins anew")))
        for one in read_parts(staging.work):
            stack.enter_context(staging.locked(one.part.name))
        parts = read_parts(staging.work)  # again, now that none of them can change
        prepare = PrepareRecipe(**{**parts[0].recipe, "output_dir": recipe.output_dir})
        made = assemble(parts, prepare, staging)
    print("\n".join(summary(made, prepare, staging.output_dir)))


def plan(recipe: MergeRecipe) -> list[str]:
    """What `run` would merge, as lines for a person. Raises what `run` raises for parts that are not all there."""
    staging = Staging(recipe.output_dir, recipe.overwrite_output_dir)
    parts = read_parts(staging.work)
    return [f"would merge {len(parts)} parts of {parts[0].num_rows} rows in {staging.output_dir}"]
