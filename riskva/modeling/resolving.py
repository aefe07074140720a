"""What a recipe's model was taught, and where the recipe says otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from riskva.console import warn
from riskva.data.manifest import read_manifest
from riskva.modeling.context import ModelContext
from riskva.modeling.loading import locate_adapter, locate_model
from riskva.recipe.stages import ModelKeys
from riskva.report import DEFAULT_FORMAT, ReportFormat


def resolve_context(
    keys: ModelKeys, dataset_dir: Path | None = None, answer_fields: ReportFormat | None = None
) -> ModelContext:
    """How the recipe's model sees photos, is asked, and answers.

    From the `riskva.json` of its adapter or of the model itself; for a base model, which has none, the report's form
    is that of the manifest in `dataset_dir`, or the default one. What the recipe says wins, with a warning that names
    both values where the model was taught another.
    """
    folder = locate_model(keys.model_name_or_path)
    adapter = locate_adapter(keys.adapter_name_or_path) if keys.adapter_name_or_path else None
    taught = ModelContext.load(adapter or folder)
    if taught is None:
        taught = ModelContext(base_model=keys.model_name_or_path, report_format=_format_of_data(dataset_dir))
        return dataclasses.replace(taught, **_asked(keys, answer_fields))
    if adapter is not None and Path(taught.base_model).name != Path(keys.model_name_or_path).name:
        warn(
            f"model_name_or_path: the recipe says {keys.model_name_or_path}, the adapter was trained on "
            f"{taught.base_model}"
        )
    return _override(taught, keys, answer_fields)


def _override(taught: ModelContext, keys: ModelKeys, answer_fields: ReportFormat | None) -> ModelContext:
    asked = _asked(keys, answer_fields)
    for name, value in asked.items():
        known = getattr(taught, name)
        if value != known:
            shown = [", ".join(one.labels) if isinstance(one, ReportFormat) else one for one in (value, known)]
            warn(f"{name}: the recipe says {shown[0]}, the model was trained with {shown[1]}; the recipe's is used")
    return dataclasses.replace(taught, **asked)


def _asked(keys: ModelKeys, answer_fields: ReportFormat | None) -> dict[str, Any]:
    values = {
        "image_max_pixels": keys.image_max_pixels,
        "image_min_pixels": keys.image_min_pixels,
        "report_format": answer_fields,
    }
    return {name: value for name, value in values.items() if value is not None}


def _format_of_data(dataset_dir: Path | None) -> ReportFormat:
    manifest = read_manifest(dataset_dir) if dataset_dir else None
    return manifest.report_format if manifest else DEFAULT_FORMAT
