"""Recipes: YAML and `key=value` overrides become one frozen, typed value. Imports neither torch nor transformers."""

from riskva.recipe.key_groups import AnswerField, num_bytes
from riskva.recipe.loader import LoadedRecipe, load_recipe
from riskva.recipe.stages import (
    CalibrateRecipe,
    CompareRecipe,
    EvalRecipe,
    ExportRecipe,
    MergeRecipe,
    PredictRecipe,
    PrepareRecipe,
    Recipe,
    SftRecipe,
)
from riskva.recipe.written import recipe_to_yaml

__all__ = [
    "AnswerField",
    "CalibrateRecipe",
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
