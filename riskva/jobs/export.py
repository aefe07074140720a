"""`stage: export`: an adapter merged into its base and saved as a model of its own."""

from __future__ import annotations

import dataclasses
import re
from io import BytesIO

import torch
from PIL import Image

from riskva.console import note
from riskva.data.conversation import IMAGE_PLACEHOLDER, Conversation, Message, Photo
from riskva.encoding import Encoded, Processor, encode, load_processor
from riskva.encoding.processor import PROCESSOR_FILES, copy_processor_files
from riskva.modeling.context import FILE_NAME, ModelContext
from riskva.modeling.loading import attach_adapter, load_model, locate_adapter, locate_model
from riskva.modeling.merging import check_export, logits_of, merge_and_save
from riskva.modeling.resolving import resolve_context
from riskva.output_folder import OutputFolder
from riskva.recipe import ExportRecipe, recipe_to_yaml
from riskva.recipe.stages import ModelKeys
from riskva.report import default_question

UNCHECKED = "unchecked"
"""Where the export is built: nothing bears a model's name before it has been checked."""

OWNED_FILES = (
    UNCHECKED,
    r"model(-\d+-of-\d+)?\.safetensors",
    r"model\.safetensors\.index\.json",
    r"(generation_)?config\.json",
    *map(re.escape, PROCESSOR_FILES),
)


def run(recipe: ExportRecipe) -> None:
    """Merge, save with all files that loading needs, reload, and compare with base + adapter."""
    output = _output(recipe)
    goes_on = output.check([recipe.model_name_or_path, recipe.adapter_name_or_path])
    folder, adapter = locate_model(recipe.model_name_or_path), locate_adapter(recipe.adapter_name_or_path)
    context = resolve_context(_model_keys(recipe))
    processor = load_processor(folder, context.image_max_pixels, context.image_min_pixels)
    probe = _probe(context, processor)
    model = attach_adapter(load_model(folder), adapter)
    if recipe.export_device == "auto" and torch.accelerator.is_available():
        model = model.to(torch.accelerator.current_accelerator())
    expected = logits_of(model, probe, processor)
    note(f"merging {recipe.adapter_name_or_path} into {recipe.model_name_or_path} ({model.dtype})")
    output.take(goes_on)
    unchecked = recipe.export_dir / UNCHECKED
    merge_and_save(model, unchecked, recipe.export_size)
    del model  # a 7B model need not lie in memory three times
    copy_processor_files(folder, unchecked)
    checked = check_export(unchecked, attach_adapter(load_model(folder), adapter), expected, probe, processor)
    for path in unchecked.iterdir():
        path.replace(recipe.export_dir / path.name)
    unchecked.rmdir()
    dataclasses.replace(context, base_model=recipe.model_name_or_path).save(recipe.export_dir)
    note(
        f"{recipe.export_dir}: reloaded and checked weight by weight; its logits differ from base + adapter's by "
        f"{checked.logit_difference:.1e} of the largest"
    )


def plan(recipe: ExportRecipe) -> list[str]:
    """What `run` would do."""
    _output(recipe).check([recipe.model_name_or_path, recipe.adapter_name_or_path])
    folder, adapter = locate_model(recipe.model_name_or_path), locate_adapter(recipe.adapter_name_or_path)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return [f"merge {adapter} into {folder} ({size / 1e9:.1f} GB) and save it in {recipe.export_dir}"]


def _output(recipe: ExportRecipe) -> OutputFolder:
    comparable = recipe.model_copy(update={"overwrite_output_dir": False})
    return OutputFolder(
        recipe.export_dir, recipe_to_yaml(comparable), FILE_NAME, OWNED_FILES, recipe.overwrite_output_dir
    )


def _model_keys(recipe: ExportRecipe) -> ModelKeys:
    return ModelKeys(model_name_or_path=recipe.model_name_or_path, adapter_name_or_path=recipe.adapter_name_or_path)


def _probe(context: ModelContext, processor: Processor) -> Encoded:
    """A question about a drawn picture: whatever its content, both models must answer it alike."""
    gradient = Image.linear_gradient("L").resize((280, 196)).convert("RGB")
    question = context.question or IMAGE_PLACEHOLDER + default_question(context.report_format)
    messages: tuple[Message, ...] = (Message("user", question),)
    if context.system_prompt:
        messages = (Message("system", context.system_prompt), *messages)
    photos = (Photo(data=_png(gradient), name="probe"),) * question.count(IMAGE_PLACEHOLDER)
    return encode(Conversation("probe", messages, photos), processor)


def _png(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
