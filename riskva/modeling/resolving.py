"""What a recipe's model was taught, where the recipe says otherwise, and what its photos are asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from riskva.console import warn
from riskva.data.asking import Asking, make_asking
from riskva.data.manifest import MANIFEST_NAME, read_manifest
from riskva.errors import RecipeError
from riskva.modeling.context import FILE_NAME, ModelContext
from riskva.modeling.loading import locate_model_and_adapter
from riskva.recipe.key_groups import AnswerKeys, ModelKeys, ReportKeys
from riskva.report import DEFAULT_FORMAT, DEFAULT_SYSTEM_PROMPT, ReportFormat, default_question


def resolve_context(
    keys: ModelKeys, dataset_dir: Path | None = None, asked: ReportKeys | AnswerKeys | None = None
) -> ModelContext:
    """How the recipe's model sees photos, is asked, and answers.

    From the `riskva.json` of its adapter or of the model itself; without one, which a warning tells, the report's form
    is that of the manifest in `dataset_dir`, or the default one. What the recipe says, in `keys` and in `asked`, wins,
    with a warning that names both values where the model was taught another. `question` and `system_prompt` stay None
    where nobody says them: rows may bring their own, and `asking_of` knows what else to ask.

    Raises `ModelError` for a folder without a model, or with a damaged riskva.json, and `RecipeError` for a question
    that no photo can be asked.
    """
    folder, adapter = locate_model_and_adapter(keys.model_name_or_path, keys.adapter_name_or_path)
    said = _said(keys, asked)
    taught = ModelContext.load(adapter or folder)
    if taught is None:
        return _untaught(keys, adapter or folder, dataset_dir, said)
    if keys.adapter_name_or_path and Path(taught.base_model).name != Path(keys.model_name_or_path).name:
        warn(
            f"model_name_or_path: the recipe says {keys.model_name_or_path}, the adapter was trained on "
            f"{taught.base_model}"
        )
    return _override(taught, said)


def context_without_model(name: str, dataset_dir: Path | None, asked: ReportKeys) -> ModelContext:
    """How a model is asked that is not here, as an endpoint's is: as the recipe says, or by the built-in rules."""
    keys = ModelKeys(model_name_or_path=name)
    said = _said(keys, asked)
    manifest = read_manifest(dataset_dir) if dataset_dir else None
    context = ModelContext(base_model=name, report_format=manifest.report_format if manifest else DEFAULT_FORMAT)
    return _completed(dataclasses.replace(context, **said), said)


def asking_of(context: ModelContext) -> Asking:
    """What a photo is asked that brings no question: as the model was taught, or else as prepare words it by default.

    A model that was taught one question and no system prompt is told none. Raises `RecipeError` when the question is
    not one about one photo.
    """
    if context.question is None:
        system = DEFAULT_SYSTEM_PROMPT if context.system_prompt is None else context.system_prompt
        return make_asking(system, default_question(context.report_format))
    try:
        return make_asking(context.system_prompt or "", context.question)
    except RecipeError as error:
        raise RecipeError(f"{error} (the model was taught {context.question!r}; set question in the recipe)") from error


def _untaught(keys: ModelKeys, folder: Path, dataset_dir: Path | None, said: dict[str, Any]) -> ModelContext:
    """The context of a model that was not made by RisKVA, or that was copied without its riskva.json."""
    manifest = read_manifest(dataset_dir) if dataset_dir else None
    form = manifest.report_format if manifest else DEFAULT_FORMAT
    named = "the recipe's" if "question" in said or "system_prompt" in said else "the built-in"
    where = f"in the form of {dataset_dir}/{MANIFEST_NAME}" if manifest else "in the default form"
    where = "in the form of answer_fields" if "report_format" in said else where
    warn(
        f"{folder}: no {FILE_NAME}, so what this model was taught is not known: photos that bring no question are "
        f"asked with {named} prompt, and reports are expected {where}"
    )
    context = ModelContext(base_model=keys.model_name_or_path, report_format=form)
    return _completed(dataclasses.replace(context, **said), said)


def _override(taught: ModelContext, said: dict[str, Any]) -> ModelContext:
    for name, value in said.items():
        known = getattr(taught, name)
        if value != known and (value or known) and not _is_open(taught, name):  # no prompt is "" or None
            shown = [", ".join(one.labels) if isinstance(one, ReportFormat) else one for one in (value, known)]
            shown = ["none" if one in (None, "") else one for one in shown]
            warn(f"{name}: the recipe says {shown[0]}, the model was trained with {shown[1]}; the recipe's is used")
    context = dataclasses.replace(taught, **said)
    return _completed(context, said) if taught.question is None and taught.system_prompt is None else context


def _is_open(taught: ModelContext, name: str) -> bool:
    """Whether the model was taught no one value; beside a question, a system prompt of None says there was none."""
    if name == "system_prompt":
        return taught.system_prompt is None and taught.question is None
    return name == "question" and taught.question is None


def _completed(context: ModelContext, said: dict[str, Any]) -> ModelContext:
    """With prepare's system prompt beside a question that the recipe gives alone, for a model that was taught none."""
    if "question" in said and "system_prompt" not in said:
        return dataclasses.replace(context, system_prompt=DEFAULT_SYSTEM_PROMPT)
    return context


def _said(keys: ModelKeys, asked: ReportKeys | AnswerKeys | None) -> dict[str, Any]:
    """What the recipe says of the context, by its names; a question with its `<image>` mark."""
    values: dict[str, Any] = {
        "image_max_pixels": keys.image_max_pixels,
        "image_min_pixels": keys.image_min_pixels,
        "report_format": asked.report_format() if asked else None,
    }
    if isinstance(asked, ReportKeys):
        asking = make_asking(asked.system_prompt or "", asked.question or "")
        values |= {
            "system_prompt": asked.system_prompt,
            "question": None if asked.question is None else asking.question,
        }
    return {name: value for name, value in values.items() if value is not None}
