"""Writes recipes/recipe.schema.json, which editors use to complete and check recipes; a test holds it current.

    python scripts/dump_recipe_schema.py

In VS Code, with the YAML extension, the first line of a recipe names it:

    # yaml-language-server: $schema=recipe.schema.json
"""

from __future__ import annotations

from pathlib import Path

from riskva.files import write_json
from riskva.recipe.schema import json_schema

TARGET = Path(__file__).resolve().parent.parent / "recipes" / "recipe.schema.json"

if __name__ == "__main__":
    write_json(TARGET, json_schema())
    print(f"wrote {TARGET}")
