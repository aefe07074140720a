"""What makes a predict run the same run, to be gone on with."""

from pathlib import Path

from riskva.generation.run import output_folder_of
from riskva.recipe import PredictRecipe


def test_an_adapter_that_was_trained_anew_makes_it_another_run(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    recipe = PredictRecipe.model_validate(
        {
            "stage": "predict",
            "model_name_or_path": str(tmp_path),
            "adapter_name_or_path": str(adapter),
            "output_dir": str(tmp_path / "out"),
            "eval_dataset": ("d",),
        }
    )
    (adapter / "adapter_model.safetensors").write_bytes(b"first")
    output_folder_of(recipe, "finished.json").take(goes_on=False)
    assert output_folder_of(recipe, "finished.json").check()
    (adapter / "adapter_model.safetensors").write_bytes(b"again")
    again = output_folder_of(recipe.model_copy(update={"overwrite_output_dir": True}), "finished.json")
    assert not again.check()
