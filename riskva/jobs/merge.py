"""`stage: merge`: the parts that `stage: prepare` wrote with `shard` become one data set."""

from __future__ import annotations

from riskva.preparation.assembly import assemble
from riskva.preparation.finished_parts import FinishedPart, read_parts
from riskva.preparation.staging import Staging
from riskva.preparation.summary import summary
from riskva.recipe import MergeRecipe, PrepareRecipe


def run(recipe: MergeRecipe) -> None:
    """Make the data set of all parts, byte for byte as one process would have made it.

    Raises `MissingDataError` while a part is missing or unfinished, and `DataError` for parts that do not fit together.
    """
    staging = Staging(recipe.output_dir, recipe.overwrite_output_dir)
    parts = read_parts(staging.work)
    prepare = _prepare_recipe(parts, recipe)
    print("\n".join(summary(assemble(parts, prepare, staging), prepare, staging.output_dir)))


def plan(recipe: MergeRecipe) -> list[str]:
    """What `run` would merge, as lines for a person. Raises what `run` raises for parts that are not all there."""
    staging = Staging(recipe.output_dir, recipe.overwrite_output_dir)
    parts = read_parts(staging.work)
    return [f"would merge {len(parts)} parts of {parts[0].num_rows} rows in {staging.output_dir}"]


def _prepare_recipe(parts: list[FinishedPart], recipe: MergeRecipe) -> PrepareRecipe:
    return PrepareRecipe(**{**parts[0].recipe, "output_dir": recipe.output_dir})
