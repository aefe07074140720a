"""`stage: export`: an adapter merged into its base and saved as a model of its own."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig

from riskva.console import note
from riskva.encoding import Processor, load_processor
from riskva.encoding.processor import PROCESSOR_FILES, copy_processor_files
from riskva.errors import OutputFolderError
from riskva.files import remove_folder
from riskva.generation.answer import end_tokens
from riskva.modeling.adapted_weights import AdaptedWeights
from riskva.modeling.context import FILE_NAME, ModelContext
from riskva.modeling.export_check import Likeness, check_logits, check_weights, expected_logits
from riskva.modeling.loading import locate_adapter, locate_model
from riskva.modeling.merging import merge_and_save
from riskva.modeling.model_card import FILE_NAME as CARD_NAME
from riskva.modeling.model_card import ModelCard
from riskva.modeling.probe import make_probes
from riskva.modeling.resolving import resolve_context
from riskva.modeling.weight_files import StoredWeights
from riskva.output_folder import OutputFolder
from riskva.recipe import ExportRecipe, recipe_to_yaml
from riskva.recipe.key_groups import ModelKeys
from riskva.training.shared_folder import free_bytes

UNCHECKED = "unchecked"
"""Where the export is built: nothing bears a model's name before it has been checked."""

CONFIG = "config.json"
"""Without it nothing loads, so it is the last to get its name."""

OWNED_FILES = (
    UNCHECKED,
    r"model(-\d+-of-\d+)?\.safetensors",
    r"model\.safetensors\.index\.json",
    r"(generation_)?config\.json",
    re.escape(CARD_NAME),
    *map(re.escape, PROCESSOR_FILES),
)


def run(recipe: ExportRecipe) -> None:
    """Merge, save with all files that loading needs, reload, and compare with base + adapter."""
    output = _output(recipe)
    goes_on = output.check([recipe.model_name_or_path, recipe.adapter_name_or_path])
    adapter, folder = locate_adapter(recipe.adapter_name_or_path), locate_model(recipe.model_name_or_path)
    context = resolve_context(_model_keys(recipe))
    processor = load_processor(folder, context.image_max_pixels, context.image_min_pixels)
    weights = AdaptedWeights.of(folder, adapter)
    _check_space(recipe, weights.stored)
    device = _device(recipe)
    note(f"asking {recipe.model_name_or_path} + {recipe.adapter_name_or_path} about drawn photos ({device})")
    probes = make_probes(context, processor)
    expected = expected_logits(folder, adapter, probes, processor, device)
    output.take(goes_on)
    unchecked = _emptied(recipe.export_dir)
    merge_and_save(weights, unchecked, recipe.export_size * 10**9, device)
    shutil.copyfile(folder / CONFIG, unchecked / CONFIG)
    copy_processor_files(folder, unchecked)
    greedy(processor).save_pretrained(unchecked)
    likeness = check_logits(unchecked, expected, probes, processor, device)
    kept_share = check_weights(unchecked, AdaptedWeights.of(folder, adapter))
    context = dataclasses.replace(context, base_model=recipe.model_name_or_path)
    _card(recipe, context, weights.stored, likeness, kept_share).save(unchecked)
    _publish(unchecked, context)
    note(
        f"{recipe.export_dir}: reloaded and checked weight by weight; its logits differ from base + adapter's by at "
        f"most {likeness.difference:.1e} ({likeness.share:.1e} of the largest), and the likeliest token is the same at "
        f"{likeness.agreement:.1%} of positions"
    )


def plan(recipe: ExportRecipe) -> list[str]:
    """What `run` would do."""
    _output(recipe).check([recipe.model_name_or_path, recipe.adapter_name_or_path])
    adapter, folder = locate_adapter(recipe.adapter_name_or_path), locate_model(recipe.model_name_or_path)
    weights = AdaptedWeights.of(folder, adapter)
    _check_space(recipe, weights.stored)
    return [
        f"merge {adapter} into {len(weights.modules)} of the {len(weights.stored.files)} tensors of {folder} "
        f"({weights.stored.total_bytes / 1e9:.1f} GB) and save it in {recipe.export_dir}"
    ]


def greedy(processor: Processor) -> GenerationConfig:
    """How the export answers unless it is told otherwise; the base's own settings, such as a penalty, are left out."""
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        eos_token_id=list(end_tokens(processor)),
        pad_token_id=processor.pad_token_id,
    )


def _output(recipe: ExportRecipe) -> OutputFolder:
    comparable = recipe.model_copy(update={"overwrite_output_dir": False})
    return OutputFolder(
        recipe.export_dir, recipe_to_yaml(comparable), FILE_NAME, OWNED_FILES, recipe.overwrite_output_dir
    )


def _model_keys(recipe: ExportRecipe) -> ModelKeys:
    return ModelKeys(model_name_or_path=recipe.model_name_or_path, adapter_name_or_path=recipe.adapter_name_or_path)


def _device(recipe: ExportRecipe) -> torch.device:
    found = torch.accelerator.current_accelerator() if recipe.export_device == "auto" else None
    return found or torch.device("cpu")


def _check_space(recipe: ExportRecipe, stored: StoredWeights) -> None:
    """Raise `OutputFolderError` when the disk has no room for as much as the base takes."""
    old = sum(path.stat().st_size for path in recipe.export_dir.glob("**/model*.safetensors"))  # deleted before
    free = free_bytes(recipe.export_dir) + old
    if free < stored.total_bytes:
        raise OutputFolderError(
            f"{recipe.export_dir}: the export takes {stored.total_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
            "free there; make room, or name another export_dir"
        )


def _emptied(export_dir: Path) -> Path:
    """The folder to build in, without anything that an export of this recipe left there or beside it when it ended."""
    remove_folder(export_dir / UNCHECKED)
    for path in sorted(export_dir.iterdir(), key=lambda path: path.name != CONFIG):
        if any(re.fullmatch(pattern, path.name) for pattern in OWNED_FILES):
            path.unlink()
    return export_dir / UNCHECKED


def _card(
    recipe: ExportRecipe, context: ModelContext, stored: StoredWeights, likeness: Likeness, kept_share: float
) -> ModelCard:
    dtype = stored[next(iter(stored.files))].dtype
    return ModelCard(
        context, recipe.model_name_or_path, recipe.adapter_name_or_path, dtype, likeness, kept_share=kept_share
    )


def _publish(unchecked: Path, context: ModelContext) -> None:
    """Give the checked files their names; a kill in between leaves nothing that loads."""
    for path in sorted(unchecked.iterdir(), key=lambda path: path.name == CONFIG):
        path.replace(unchecked.parent / path.name)
    unchecked.rmdir()
    context.save(unchecked.parent)
