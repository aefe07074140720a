"""What a recipe's DeepSpeed configuration says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from riskva.errors import RecipeError
from riskva.recipe.stages import SftRecipe


def deepspeed_settings(recipe: SftRecipe) -> Mapping[str, Any]:
    """The configuration that the recipe gives, or names a file of; empty without DeepSpeed.

    Raises `RecipeError` when the file cannot be read.
    """
    given = recipe.training.get("deepspeed")
    if not isinstance(given, str):
        return given or {}
    try:
        settings: Mapping[str, Any] = json.loads(Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"deepspeed: {given} cannot be read: {error}") from error
    return settings


def splits_weights(recipe: SftRecipe) -> bool:
    """Whether training splits the weights themselves over the processes (ZeRO-3)."""
    return int(deepspeed_settings(recipe).get("zero_optimization", {}).get("stage", 0)) == 3
