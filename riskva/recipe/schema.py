"""The JSON schema of recipes, for editors: every key of every stage, flat as it is written, with its description."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from riskva.recipe.keys import MODES, STAGES, stage_keys
from riskva.recipe.llamafactory import IGNORED
from riskva.recipe.translations import TRANSLATIONS


def json_schema() -> dict[str, Any]:
    """One schema (draft 2020-12) for recipes of all stages; recipes/recipe.schema.json holds it."""
    properties: dict[str, Any] = {
        "extends": {
            "type": "string",
            "description": "Another recipe, relative to this one, whose keys this one replaces.",
        },
        "stage": {"enum": list(STAGES), "description": "The job."},
    }
    definitions: dict[str, Any] = {}
    for stage in STAGES:
        keys = stage_keys(stage)
        definitions |= {name: _untitled(one) for name, one in keys.definitions.items()}
        properties |= {name: _property(name) for name in keys.schemas if name not in properties}
    for old, translation in TRANSLATIONS.items():
        target = translation.schema or properties[translation.key]
        properties[old] = {**target, "description": f"Another name of {translation.key}.", "deprecated": True}
    for name in MODES:
        properties.setdefault(
            name, {"type": "boolean", "description": "LLaMA-Factory's way of naming the job; here it is stage."}
        )
    for name, reason in IGNORED.items():
        properties[name] = {"description": f"Accepted and ignored: {reason}.", "deprecated": True}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "RisKVA recipe",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": definitions,
    }


def _property(name: str) -> dict[str, Any]:
    """The schema of one key over all stages that know it; its description says which those are."""
    stages = [stage for stage in STAGES if name in stage_keys(stage).schemas]
    variants = [_untitled(stage_keys(stage).schemas[name]) for stage in stages]
    texts = [one.pop("description", "") for one in variants]
    if stages == ["sft"] and name in stage_keys("sft").training:
        texts.append("A field of transformers' TrainingArguments.")
    note = {"description": f"({', '.join(stages)}) {next((text for text in texts if text), '')}".strip()}
    if len(_distinct(variants)) > 1:
        variants = [{key: value for key, value in one.items() if key != "default"} for one in variants]
    distinct = _distinct(variants)
    return {**distinct[0], **note} if len(distinct) == 1 else {"anyOf": distinct, **note}


def _distinct(items: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def _untitled(schema: Any) -> Any:
    """The schema without pydantic's titles, which only repeat the names."""
    if isinstance(schema, dict):
        return {
            key: _untitled(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))
        }
    return [_untitled(item) for item in schema] if isinstance(schema, list) else schema
