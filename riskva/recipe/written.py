"""A recipe as YAML text again: what a run keeps beside its results, and what a dry run prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from riskva.recipe.stages import Recipe, SftRecipe
from riskva.recipe.yaml_text import CoreDumper


def recipe_to_yaml(recipe: Recipe, origins: Mapping[str, str] | None = None) -> str:
    """The recipe as flat YAML that `load_recipe` reads back to an equal recipe, defaults included.

    With `origins`, every key has a comment that says where it was set.
    """
    lines = []
    for key, value in flat_values(recipe):
        text = yaml.dump({key: value}, Dumper=CoreDumper, allow_unicode=True, sort_keys=False, width=1_000_000)
        if origins is not None:
            first, rest = text.split("\n", 1)
            text = f"{first}  # {origins.get(key, 'default')}\n{rest}"
        lines.append(text)
    return "".join(lines)


def flat_values(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """Every key that says something with its value as YAML holds it, `stage` first; unset keys are left out."""
    values = recipe.model_dump(mode="json", exclude_none=True, exclude={"training"})
    yield "stage", values.pop("stage")
    for name, field in type(recipe).model_fields.items():
        value = values.get(name)
        if value is not None and not (value in ("", [], {}) and getattr(recipe, name) == field.default):
            yield name, value
    if isinstance(recipe, SftRecipe):
        yield from recipe.training.items()
