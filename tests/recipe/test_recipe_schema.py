"""The files that scripts write are current."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from riskva.recipe.keys import STAGES, stage_keys
from riskva.recipe.schema import json_schema
from riskva.recipe.training_fields import RISKVA_SETS, training_schemas

ROOT = Path(__file__).resolve().parents[2]


def test_the_editors_schema_is_current() -> None:
    held = json.loads((ROOT / "recipes" / "recipe.schema.json").read_text(encoding="utf-8"))
    assert held == json_schema(), "run python scripts/dump_recipe_schema.py"


def test_the_editors_schema_knows_every_key_and_says_who_has_it() -> None:
    properties = json_schema()["properties"]
    for stage in STAGES:
        assert set(stage_keys(stage).schemas) <= set(properties)
    assert properties["image_quality"]["description"] == "(prepare) JPEG quality of re-encoded photos."
    assert properties["learning_rate"]["description"] == "(sft) A field of transformers' TrainingArguments."
    assert {"extends", "warmup_ratio", "trust_remote_code", "do_train"} <= set(properties)


def test_references_of_the_editors_schema_resolve() -> None:
    schema = json_schema()
    names = {part.split('"')[0] for part in json.dumps(schema).split("#/$defs/")[1:]}
    assert names
    assert names <= set(schema["$defs"])


@pytest.mark.slow  # imports transformers
def test_training_arguments_are_those_of_the_installed_transformers() -> None:
    dump = pytest.importorskip("dump_training_arguments")
    held = json.loads(files("riskva.recipe").joinpath("training_arguments.json").read_text(encoding="utf-8"))
    assert held == dump.describe(), "run python scripts/dump_training_arguments.py"
    left_out = {"output_dir", "do_train", "do_eval", "do_predict", *RISKVA_SETS}
    left_out |= {"gradient_checkpointing", "activation_checkpointing", "torch_compile"}
    assert set(training_schemas()) == set(held["fields"]) - left_out


def test_recipes_load_no_heavy_library() -> None:
    heavy = ["torch", "transformers", "datasets", "pyarrow", "numpy"]
    program = f"import sys, riskva.recipe\nprint([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
