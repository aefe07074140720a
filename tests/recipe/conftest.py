from __future__ import annotations

from pathlib import Path

import pytest
from recipe_loading import Faults, Load

from riskva.errors import RecipeError
from riskva.recipe import LoadedRecipe, load_recipe


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a recipe's text, written to r.yaml in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str, *overrides: str) -> LoadedRecipe:
        Path("r.yaml").write_text(text, encoding="utf-8")
        return load_recipe(Path("r.yaml"), overrides)

    return load_text


@pytest.fixture
def faults(load: Load) -> Faults:
    """The lines of the `RecipeError` that a recipe's text raises."""

    def faults_of(text: str, *overrides: str) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides)
        return str(caught.value).splitlines()

    return faults_of


SFT = "stage: sft\nmodel_name_or_path: m\ndataset: d\noutput_dir: o\n"
PREPARE = "stage: prepare\ncsv_path: a.csv\nimage_base_path: photos\noutput_dir: o\n"
EVAL = "stage: eval\nmodel_name_or_path: m\neval_dataset: d\noutput_dir: o\n"


@pytest.fixture
def sft() -> str:
    """The four lines that `stage: sft` needs; the next line is number 5."""
    return SFT


@pytest.fixture
def prepare() -> str:
    """The four lines that `stage: prepare` needs; the next line is number 5."""
    return PREPARE


@pytest.fixture
def evaluate() -> str:
    """The four lines that `stage: eval` needs; the next line is number 5."""
    return EVAL
