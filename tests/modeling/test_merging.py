"""Exports of every kind of adapter and base against base + adapter, and against every way of getting one wrong."""

from __future__ import annotations

import gc
import itertools
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from make_tiny_model import build_tiny_model
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from riskva.encoding import Encoded, Processor, load_processor
from riskva.errors import ExportCheckError, ModelError
from riskva.modeling.adapted_weights import AdaptedWeights
from riskva.modeling.context import ModelContext
from riskva.modeling.export_check import (
    TOLERANCE,
    check_logits,
    check_weights,
    compare_logits,
    expected_logits,
    logits_of,
)
from riskva.modeling.loading import load_model
from riskva.modeling.merging import merge_and_save
from riskva.modeling.probe import make_probes
from riskva.modeling.tuning import prepare_tuning
from riskva.modeling.weight_files import StoredWeights
from riskva.recipe import SftRecipe

CPU = torch.device("cpu")
FORMS: dict[str, dict[str, bool]] = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}
VISION = {"freeze_vision_tower": False, "freeze_multi_modal_projector": False}

Base = Callable[..., Path]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Makes tiny bases: `dtype`, `tied` heads, `shards` as the hub has them, and the weights' `names` old or new."""
    made = dict[tuple[str, bool, bool, str], Path]()

    def make(dtype: str = "float32", tied: bool = False, shards: bool = False, names: str = "old") -> Path:
        key = (dtype, tied, shards, names)
        if key not in made:
            folder = tmp_path_factory.mktemp("base")
            build_tiny_model(folder, dtype=dtype, tie_word_embeddings=tied, layout="hub" if shards else "v5")
            made[key] = renamed(folder) if names == "new" else folder
        return made[key]

    return make


def renamed(folder: Path) -> Path:
    """The weights under the names that transformers has had since 4.52."""

    path = folder / "model.safetensors"
    tensors = {}
    for name, tensor in load_file(path).items():
        if name.startswith("visual."):
            tensors["model." + name] = tensor
        else:
            tensors[name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name] = tensor
    save_file(tensors, path, {"format": "pt"})
    return folder


def make_adapter(base: Path, target: Path, effect: float = 0.2, rank: int = 8, **keys: bool) -> Path:
    """A LoRA adapter of random weights that changes each weight by `effect` of its length."""
    recipe = SftRecipe(
        stage="sft", model_name_or_path="m", output_dir=Path("o"), dataset=("d",), lora_rank=rank, **keys
    )
    torch.manual_seed(1)
    model = prepare_tuning(load_model(base), recipe)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            up: Any = layer.lora_B["default"]
            up.weight.data = torch.randn_like(up.weight)
            length = layer.get_base_layer().weight.float().norm() / layer.get_delta_weight("default").norm()
            up.weight.data *= effect * length
            if "default" in layer.lora_magnitude_vector:
                magnitude = layer.lora_magnitude_vector["default"].weight
                magnitude.data *= 1 + effect * torch.randn_like(magnitude)
    model.save_pretrained(target)
    return target


def probes_of(base: Path) -> tuple[list[Encoded], Processor]:
    processor = load_processor(base)
    return make_probes(ModelContext(base_model="m"), processor), processor


def exported(base: Path, adapter: Path, folder: Path, max_shard_bytes: int = 10**9) -> Path:
    merge_and_save(AdaptedWeights.of(base, adapter), folder, max_shard_bytes)
    shutil.copy(base / "config.json", folder)
    return folder


@pytest.mark.parametrize("vision", [False, True], ids=["language", "language+vision"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_export_is_base_and_adapter(dtype: str, tied: bool, vision: bool, base: Base, tmp_path: Path) -> None:
    """In every dtype, with and without the tower, whole and in shards, and under old and new names."""
    for number, (shards, names, form) in enumerate(
        [(False, "old", "lora"), (True, "old", "lora"), (False, "new", "dora")]
    ):
        folder = base(dtype, tied, shards, names)
        adapter = make_adapter(folder, tmp_path / f"adapter{number}", **FORMS[form], **(VISION if vision else {}))
        out = exported(folder, adapter, tmp_path / f"out{number}", 200_000 if shards else 10**9)
        probes, processor = probes_of(folder)
        expected = expected_logits(folder, adapter, probes, processor, CPU)
        likeness = check_logits(out, expected, probes, processor, CPU)
        assert check_weights(out, AdaptedWeights.of(folder, adapter)) == pytest.approx(1, abs=1e-2)
        # The base alone is told from it
        alone = [logits_of(load_model(folder), probe, processor) for probe in probes]
        assert compare_logits(alone, expected).share > 3 * likeness.share
        if dtype == "float32":
            with pytest.raises(ExportCheckError, match="logits differ from base"):
                check_logits(folder, expected, probes, processor, CPU)
        names_there = set(StoredWeights.of(out).files)
        assert names_there == set(StoredWeights.of(folder).files)
        assert ("lm_head.weight" in names_there) is not tied
        assert any(name.startswith("visual.") for name in names_there) is (names == "old")
        assert (out / "model.safetensors.index.json").is_file() is shards
        loaded = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(out)
        assert (loaded.lm_head.weight is loaded.model.language_model.embed_tokens.weight) is tied
        assert loaded.dtype == getattr(torch, dtype)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rank", [8, 64])
def test_a_merge_is_pefts_own_in_float32(rank: int, form: str, base: Base, tmp_path: Path) -> None:
    folder = base()
    adapter = make_adapter(folder, tmp_path / "adapter", rank=rank, **FORMS[form])
    out = exported(folder, adapter, tmp_path / "out")
    plain = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    whole: Any = PeftModel.from_pretrained(plain, str(adapter))
    merged = whole.merge_and_unload(safe_merge=True).state_dict()
    found = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(out).state_dict()
    assert merged.keys() == found.keys()
    for name in merged:
        torch.testing.assert_close(found[name], merged[name], atol=1e-6, rtol=1e-6)


def test_small_numbers_of_float16_are_rounded_as_they_are(base: Base, tmp_path: Path) -> None:
    """Below 6e-5 its steps no longer shrink with the number."""
    folder = base("float16")
    adapter = make_adapter(folder, tmp_path / "adapter", rank=64)
    check_weights(exported(folder, adapter, tmp_path / "out"), AdaptedWeights.of(folder, adapter))


def test_ranks_and_scales_of_single_modules_are_pefts(base: Base, tmp_path: Path) -> None:
    folder = base()
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={r"layers\.1\.self_attn\.q_proj": 16},
        alpha_pattern={r"layers\.0\.self_attn\.v_proj": 64},
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    plain = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    get_peft_model(plain, config).save_pretrained(tmp_path / "adapter")
    out = exported(folder, tmp_path / "adapter", tmp_path / "out")
    probes, processor = probes_of(folder)
    check_logits(out, expected_logits(folder, tmp_path / "adapter", probes, processor, CPU), probes, processor, CPU)
    check_weights(out, AdaptedWeights.of(folder, tmp_path / "adapter"))


def save_whole_module(folder: Path, target: Path, name: str) -> Path:
    """An adapter with the module `name` trained whole beside its LoRA."""
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=[name], init_lora_weights=False)
    adapted = get_peft_model(transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder), config)
    for weight, tensor in adapted.named_parameters():
        if "modules_to_save" in weight:
            tensor.data += 0.1 * torch.randn_like(tensor)
    adapted.save_pretrained(target)
    return target


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_modules_that_were_trained_whole_are_taken_whole(name: str, base: Base, tmp_path: Path) -> None:
    folder = base()
    adapter = save_whole_module(folder, tmp_path / "adapter", name)
    out = exported(folder, adapter, tmp_path / "out")
    probes, processor = probes_of(folder)
    check_logits(out, expected_logits(folder, adapter, probes, processor, CPU), probes, processor, CPU)
    check_weights(out, AdaptedWeights.of(folder, adapter))
    kept = exported(folder, make_adapter(folder, tmp_path / "lora"), tmp_path / "other")
    with pytest.raises(ExportCheckError, match="is not what merging gives"):
        check_weights(kept, AdaptedWeights.of(folder, adapter))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_one_of_two_tied_embeddings_is_not_merged(base: Base, tmp_path: Path) -> None:
    folder = base(tied=True)
    adapter = save_whole_module(folder, tmp_path / "adapter", "lm_head")
    with pytest.raises(ModelError, match=r"changes lm_head\.weight as one of the base's two embeddings"):
        AdaptedWeights.of(folder, adapter)


@pytest.mark.parametrize(
    ("keys", "said"),
    [({"bias": "lora_only"}, "it also holds .*bias"), ({"lora_bias": True}, "q_proj is adapted with lora_bias")],
)
def test_what_cannot_be_merged_is_refused(keys: dict[str, Any], said: str, base: Base, tmp_path: Path) -> None:
    folder = base()
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, **keys)
    adapted = get_peft_model(transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder), config)
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match=said):
        AdaptedWeights.of(folder, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("shape", "said"),
    [({"hidden_size": 96}, "adapter tensors do not fit the model"), ({"num_hidden_layers": 3}, "do not fit the model")],
    ids=["other width", "other depth"],
)
def test_an_adapter_of_another_base_is_refused(shape: dict[str, int], said: str, base: Base, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other", **shape)  # type: ignore[arg-type]
    for folder, trained_on in ((base(), other), (other, base())):
        adapter = make_adapter(trained_on, tmp_path / f"adapter of {trained_on.name}")
        with pytest.raises(ModelError, match=said) as caught:
            AdaptedWeights.of(folder, adapter)
        assert "\n" not in str(caught.value)


def test_a_base_with_a_weight_missing_is_refused(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "base")
    adapter = make_adapter(folder, tmp_path / "adapter")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing, model\.language_model\.norm\.weight among them"):
        AdaptedWeights.of(folder, adapter)


class AliveBytes:
    """The bytes of the tensors that it was shown and that are still there, and the most that there ever were."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def watch(self, tensor: Tensor) -> Tensor:
        self.now += tensor.nbytes
        self.most = max(self.most, self.now)
        weakref.finalize(tensor, self._gone, tensor.nbytes)
        return tensor

    def _gone(self, num_bytes: int) -> None:
        self.now -= num_bytes


def test_never_more_than_a_shard_is_in_memory(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = base()
    weights = AdaptedWeights.of(folder, make_adapter(folder, tmp_path / "adapter"))
    largest, total = max(weights.stored[name].nbytes for name in weights.stored.files), weights.stored.total_bytes
    alive, read, merge = AliveBytes(), StoredWeights.__getitem__, AdaptedWeights.merged
    monkeypatch.setattr(StoredWeights, "__getitem__", lambda self, name: alive.watch(read(self, name)))
    monkeypatch.setattr(AdaptedWeights, "merged", lambda self, *args: alive.watch(merge(self, *args)))
    gc.disable()  # tensors must go when they are done with, not when someone collects them
    try:
        merge_and_save(weights, tmp_path / "out", largest)
        merging = alive.most
        check_weights(tmp_path / "out", AdaptedWeights.of(folder, tmp_path / "adapter"))
    finally:
        gc.enable()
    assert 5 * largest < total
    # A shard, the tensor that is merged and what it becomes
    assert merging <= 3 * largest
    assert alive.most <= 4 * largest  # two pairs, while the one is replaced by the next


def _scaled(name: str, weight: Tensor, plain: Tensor) -> Tensor:
    return (plain.float() + 1.3 * (weight.float() - plain.float())).to(weight.dtype)


def _without_v_proj(name: str, weight: Tensor, plain: Tensor) -> Tensor:
    return plain if name.endswith("v_proj.weight") else weight


def _base_alone(name: str, weight: Tensor, plain: Tensor) -> Tensor:
    return plain


def _touched_elsewhere(name: str, weight: Tensor, plain: Tensor) -> Tensor:
    return weight + 1e-2 if name == "visual.patch_embed.proj.weight" else weight


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("damage", [_scaled, _without_v_proj, _base_alone, _touched_elsewhere])
@pytest.mark.parametrize("form", FORMS)
def test_wrong_merges_are_refused(
    form: str, damage: Callable[[str, Tensor, Tensor], Tensor], dtype: str, base: Base, tmp_path: Path
) -> None:
    folder = base(dtype)
    adapter = make_adapter(folder, tmp_path / "adapter", **FORMS[form])
    out = exported(folder, adapter, tmp_path / "out")
    right, plain = load_file(out / "model.safetensors"), load_file(folder / "model.safetensors")
    wrong = {name: damage(name, tensor, plain[name]) for name, tensor in right.items()}
    save_file(wrong, out / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportCheckError, match="is not what merging gives"):
        check_weights(out, AdaptedWeights.of(folder, adapter))


def test_a_merge_that_forgets_what_the_form_changes_is_refused(base: Base, tmp_path: Path) -> None:
    folder = base()
    adapter = make_adapter(folder, tmp_path / "adapter", use_rslora=True, use_dora=True)
    config = json.loads((adapter / "adapter_config.json").read_text())
    out = exported(folder, adapter, tmp_path / "out")
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"use_rslora": False}))
    with pytest.raises(ExportCheckError, match="is not what merging gives"):
        check_weights(out, AdaptedWeights.of(folder, adapter))


def test_a_tensor_more_or_less_is_refused(base: Base, tmp_path: Path) -> None:
    folder = base()
    adapter = make_adapter(folder, tmp_path / "adapter")
    out = exported(folder, adapter, tmp_path / "out")
    tensors = load_file(out / "model.safetensors")
    save_file({name: tensors[name] for name in tensors if "norm" not in name}, out / "model.safetensors")
    with pytest.raises(ExportCheckError, match="is only in one of the export and its base"):
        check_weights(out, AdaptedWeights.of(folder, adapter))


def test_a_module_that_merging_leaves_out_is_an_error(base: Base, tmp_path: Path) -> None:
    folder = base()
    weights = AdaptedWeights.of(folder, make_adapter(folder, tmp_path / "adapter"))
    name = next(name for name, place in weights.places.items() if place in weights.modules)
    del weights.places[name]  # type: ignore[attr-defined]
    with pytest.raises(ExportCheckError, match=f"{len(weights.modules) - 1} of {len(weights.modules)} weights"):
        merge_and_save(weights, tmp_path / "out", 10**9)


@pytest.mark.parametrize("form", ["rslora", "dora"])
def test_a_trained_adapter_answers_merged_as_it_does_on_its_base(form: str, base: Base, tmp_path: Path) -> None:
    folder, ids = base(), torch.randint(0, 1000, (1, 24))
    recipe = SftRecipe(stage="sft", model_name_or_path="m", output_dir=Path("o"), dataset=("d",), **FORMS[form])
    model = prepare_tuning(load_model(folder), recipe)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    before = model(input_ids=ids).logits
    cross_entropy(before[0, :-1], ids[0, 1:]).backward()
    optimizer.step()
    model.save_pretrained(tmp_path / "adapter")
    out = exported(folder, tmp_path / "adapter", tmp_path / "out")
    with torch.no_grad():
        expected, found = model.eval()(input_ids=ids).logits, load_model(out)(input_ids=ids).logits
    assert (expected - before).abs().max() > 1e-2 * expected.abs().max()  # the step did something
    assert (found - expected).abs().max() <= TOLERANCE[torch.float32] * expected.abs().max()


def test_an_adapter_below_rounding_is_reported(base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = base("bfloat16")
    adapter = make_adapter(folder, tmp_path / "adapter", effect=1e-5)
    assert check_weights(exported(folder, adapter, tmp_path / "out"), AdaptedWeights.of(folder, adapter)) < 0.5
    assert "rounding keeps only" in capsys.readouterr().err


def test_an_adapter_is_plain_pefts(base: Base, tmp_path: Path) -> None:
    """What training saves loads with transformers and PEFT alone, to the same logits."""
    for form, dtype in itertools.product(FORMS, ["float32", "bfloat16"]):
        folder = base(dtype)
        adapter = make_adapter(folder, tmp_path / f"{form} {dtype}", **FORMS[form], **VISION)
        plain = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
        probes, processor = probes_of(folder)
        loaded = PeftModel.from_pretrained(plain, str(adapter))
        found = [logits_of(loaded, probe, processor) for probe in probes]
        likeness = compare_logits(found, expected_logits(folder, adapter, probes, processor, CPU))
        assert likeness.share <= TOLERANCE[getattr(torch, dtype)]
