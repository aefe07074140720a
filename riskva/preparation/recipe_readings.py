"""What prepare reads out of its recipe: the form, the prompt, the table's layout, and which keys decide what."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import features

from riskva.level_names import level_names_from
from riskva.parts import Part
from riskva.preparation.conversations import Prompt, make_prompt
from riskva.preparation.finished_parts import SourceFile
from riskva.recipe import PrepareRecipe
from riskva.report import DEFAULT_FORMAT, DEFAULT_SYSTEM_PROMPT, ReportFormat, default_question
from riskva.tables.table import TableLayout
from riskva.version import __version__

HOW_TO_RUN = frozenset(
    {"preprocessing_num_workers", "overwrite_output_dir", "preview", "preview_rows", "output_dir", "shard"}
)
"""Keys that say how to run, not what to make: the same data set comes out whatever they are."""

AFTER_THE_PHOTOS = frozenset(
    {
        "audit",
        "dataset_name",
        "identical_texts",
        "image_encoding",
        "image_max_pixels",
        "image_min_pixels",
        "image_storage",
        "kinds",
        "max_bad_share",
        "max_shard_size",
        "near_duplicates",
        "output_format",
        "parquet_compression",
        "question",
        "seed",
        "split",
        "system_prompt",
    }
)
"""Keys that say what is made of prepared rows: pieces serve whatever they are. All others decide on the rows."""

_LIBRARIES = ("pillow", "imagehash", "pillow-heif")


def report_format_of(recipe: PrepareRecipe) -> ReportFormat:
    """The recipe's report form, or the default one."""
    return recipe.report_format() or DEFAULT_FORMAT


def prompt_of(recipe: PrepareRecipe) -> Prompt:
    """What a photo is asked. Raises `RecipeError` for a question with more than one `<image>` mark."""
    return make_prompt(
        DEFAULT_SYSTEM_PROMPT if recipe.system_prompt is None else recipe.system_prompt,
        default_question(report_format_of(recipe)) if recipe.question is None else recipe.question,
    )


def split_names(recipe: PrepareRecipe) -> list[str]:
    """The splits that may come out; with shares, those whose share is not 0."""
    return [name for name, share in recipe.split.items() if share > 0 or recipe.split_column is not None]


def layout_of(recipe: PrepareRecipe) -> TableLayout:
    """How the recipe's tables are to be read."""
    return TableLayout(
        report_format_of(recipe),
        column_names=recipe.column_names,
        level_names=level_names_from(recipe.level_names),
        strip_patterns=recipe.strip_patterns,
        group_by=recipe.group_by,
        group_pattern=recipe.group_pattern,
        split_column=recipe.split_column,
        splits=tuple(split_names(recipe)),
        excel_sheet=recipe.excel_sheet,
    )


def recorded(recipe: PrepareRecipe) -> dict[str, Any]:
    """The keys that decide what comes out, as JSON values: what parts and manifests keep."""
    return recipe.model_dump(mode="json", exclude=set(HOW_TO_RUN))


def key_of_rows(recipe: PrepareRecipe, tables: Sequence[SourceFile], part: Part) -> str:
    """Equal for runs whose rows and photos come out the same, wherever the tables lie and whatever is made of them."""
    others = {*HOW_TO_RUN, *AFTER_THE_PHOTOS, "csv_path", "image_base_path"}
    made_from = {
        "riskva": __version__,
        "libraries": _library_versions(),
        "tables": [one.identity for one in tables],
        "photos": str(Path(recipe.image_base_path or ".").resolve()),
        "parts": part.count,
        "recipe": recipe.model_dump(mode="json", exclude=others),
        "splits": split_names(recipe) if recipe.split_column else [],
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def _library_versions() -> dict[str, str | None]:
    """Of what decodes, encodes and hashes photos: other versions may write other bytes."""
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES if _is_installed(name)}
    return {**versions, "libjpeg": features.version("jpg")}


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec({"pillow": "PIL"}.get(name, name.replace("-", "_"))) is not None
