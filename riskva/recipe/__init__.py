"""Recipes: YAML and `key=value` overrides become one frozen, typed value. Imports neither torch nor transformers."""

from riskva.recipe.loader import LoadedRecipe, load_recipe
from riskva.recipe.stages import (
    AnswerField,
    CompareRecipe,
    EvalRecipe,
    ExportRecipe,
    MergeRecipe,
    PredictRecipe,
    PrepareRecipe,
    Recipe,
    SftRecipe,
    num_bytes,
)
from riskva.recipe.written import recipe_to_yaml

__all__ = [
    "AnswerField",
    "CompareRecipe",
    "EvalRecipe",
    "ExportRecipe",
    "LoadedRecipe",
    "MergeRecipe",
    "PredictRecipe",
    "PrepareRecipe",
    "Recipe",
    "SftRecipe",
    "load_recipe",
    "num_bytes",
    "recipe_to_yaml",
]
