"""The export check against merges that are right, and against every way of getting one wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from make_tiny_model import build_tiny_model
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from riskva.errors import ExportCheckError
from riskva.modeling.loading import attach_adapter, load_model
from riskva.modeling.merging import TOLERANCE, check_weights, merge_and_save
from riskva.modeling.tuning import prepare_tuning
from riskva.recipe import SftRecipe

PLAIN: dict[str, bool] = {}
RSLORA, DORA = {"use_rslora": True}, {"use_dora": True}


def adapted(folder: Path, effect: float, form: dict[str, bool] = PLAIN) -> PeftModel:
    """The tiny model under a LoRA adapter of random weights; `effect` scales what it adds."""
    recipe = SftRecipe(stage="sft", model_name_or_path="m", output_dir=Path("o"), dataset=("d",), lora_rank=8, **form)
    torch.manual_seed(1)
    model = prepare_tuning(load_model(folder), recipe)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn_like(weight) * effect
        if "lora_magnitude" in name:
            weight.data *= 1 + effect * torch.randn_like(weight)
    assert isinstance(model, PeftModel)
    return model


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("base") / request.param, dtype=request.param)


@pytest.mark.parametrize("form", [PLAIN, RSLORA, DORA], ids=["lora", "rslora", "dora"])
@pytest.mark.parametrize("effect", [1e-3, 1e-1])
def test_right_merges_pass(effect: float, form: dict[str, bool], base: Path, tmp_path: Path) -> None:
    merge_and_save(adapted(base, effect, form), tmp_path, 5)
    kept = check_weights(load_model(tmp_path), adapted(base, effect, form))
    # Measured: 1 in float32; 0.98 and 1 in bfloat16 for the small and the large effect.
    assert kept == pytest.approx(1, abs=0.1)


def _scaled(model: PreTrainedModel, plain: PreTrainedModel) -> None:
    for weight, other in zip(model.parameters(), plain.parameters(), strict=True):
        weight.data = (other.float() + 1.3 * (weight.float() - other.float())).to(weight.dtype)


def _without_v_proj(model: PreTrainedModel, plain: PreTrainedModel) -> None:
    for (name, weight), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        if name.endswith("v_proj.weight"):
            weight.data = other.data


def _base_alone(model: PreTrainedModel, plain: PreTrainedModel) -> None:
    for weight, other in zip(model.parameters(), plain.parameters(), strict=True):
        weight.data = other.data


def _touched_elsewhere(model: PreTrainedModel, plain: PreTrainedModel) -> None:
    next(model.model.visual.parameters()).data += 1e-2


@pytest.mark.parametrize("form", [PLAIN, RSLORA, DORA], ids=["lora", "rslora", "dora"])
@pytest.mark.parametrize("damage", [_scaled, _without_v_proj, _base_alone, _touched_elsewhere])
def test_wrong_merges_are_refused(
    damage: Callable[[PreTrainedModel, PreTrainedModel], None], form: dict[str, bool], base: Path, tmp_path: Path
) -> None:
    merge_and_save(adapted(base, 1e-1, form), tmp_path, 5)
    model = load_model(tmp_path)
    damage(model, load_model(base))
    with pytest.raises(ExportCheckError, match="is not what merging gives"):
        check_weights(model, adapted(base, 1e-1, form))


def test_a_merge_that_forgets_what_the_form_changes_is_refused(tmp_path: Path) -> None:
    base = build_tiny_model(tmp_path / "base")
    merge_and_save(adapted(base, 1e-1), tmp_path / "merged", 5)
    for form in (RSLORA, DORA):
        with pytest.raises(ExportCheckError, match="is not what merging gives"):
            check_weights(load_model(tmp_path / "merged"), adapted(base, 1e-1, form))


@pytest.mark.parametrize("form", [RSLORA, DORA], ids=["rslora", "dora"])
def test_a_trained_adapter_answers_merged_as_it_does_on_its_base(form: dict[str, bool], tmp_path: Path) -> None:
    base = build_tiny_model(tmp_path / "base")
    model, ids = adapted(base, 0, form), torch.randint(0, 1000, (1, 24))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    before = model(input_ids=ids).logits
    cross_entropy(before[0, :-1], ids[0, 1:]).backward()
    optimizer.step()
    model.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = model.eval()(input_ids=ids).logits
        merge_and_save(attach_adapter(load_model(base), tmp_path / "adapter"), tmp_path / "merged", 5)
        found = load_model(tmp_path / "merged")(input_ids=ids).logits
    assert (expected - before).abs().max() > 1e-2 * expected.abs().max()  # the step did something
    assert (found - expected).abs().max() <= TOLERANCE[torch.float32] * expected.abs().max()


def test_an_adapter_below_rounding_is_reported(tmp_path: Path) -> None:
    base = build_tiny_model(tmp_path / "base", dtype="bfloat16")
    merge_and_save(adapted(base, 1e-6), tmp_path / "merged", 5)
    assert check_weights(load_model(tmp_path / "merged"), adapted(base, 1e-6)) < 0.5
