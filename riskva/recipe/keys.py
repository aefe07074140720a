"""Which keys each stage knows, flat as recipes write them, with the schema of each value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

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
from riskva.recipe.training_fields import RISKVA_SETS, training_schemas
from riskva.recipe.translations import REMOVED, TRANSLATIONS
from riskva.recipe.values import Schema

STAGES: Mapping[str, type[Recipe]] = {
    "prepare": PrepareRecipe,
    "merge": MergeRecipe,
    "sft": SftRecipe,
    "predict": PredictRecipe,
    "calibrate": CalibrateRecipe,
    "eval": EvalRecipe,
    "compare": CompareRecipe,
    "export": ExportRecipe,
}

MODES = ("do_train", "do_eval", "do_predict", "predict_with_generate")
"""LLaMA-Factory's way of naming the job of a `stage: sft` recipe; the last is a key of that stage's own as well."""


@dataclass(frozen=True)
class StageKeys:
    """The keys of one stage: `own` are fields of its class, `training` those of TrainingArguments beside them."""

    stage: str
    own: Mapping[str, Schema]
    training: Mapping[str, Schema]
    required: tuple[str, ...]
    definitions: Mapping[str, Schema]

    @property
    def schemas(self) -> Mapping[str, Schema]:
        """Every key that a recipe of this stage may set."""
        return {**self.own, **self.training}

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The default of every key of the stage's class that has one, as JSON values."""
        return {name: schema["default"] for name, schema in self.own.items() if "default" in schema}

    def names(self) -> set[str]:
        """What a mistyped key may have meant: the stage's keys and the other names that lead to them."""
        known = {*self.schemas, "stage", "extends"}
        renamed = {old for old, one in TRANSLATIONS.items() if one.key in self.schemas}
        return known | renamed | (set(MODES) if self.stage != "prepare" else set())


@cache
def stage_keys(stage: str) -> StageKeys:
    """The keys of the stage of that name."""
    schema = STAGES[stage].model_json_schema()
    own = {name: one for name, one in schema["properties"].items() if name != "training"}
    training = {name: one for name, one in training_schemas().items() if name not in own} if stage == "sft" else {}
    return StageKeys(stage, own, training, tuple(schema["required"]), schema.get("$defs", {}))


def stages_with(key: str) -> list[str]:
    """The stages that know `key`, by any of its names."""
    name = TRANSLATIONS[key].key if key in TRANSLATIONS else key
    return [stage for stage in STAGES if name in stage_keys(stage).schemas] or (
        ["sft"] if name in RISKVA_SETS or name in REMOVED else []
    )
