"""The types of the fixtures that load a recipe's text."""

from __future__ import annotations

from collections.abc import Callable

from riskva.recipe import LoadedRecipe

Load = Callable[..., LoadedRecipe]
Faults = Callable[..., list[str]]
