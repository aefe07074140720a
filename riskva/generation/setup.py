"""A recipe's model, ready to answer, and the rules that it was trained under."""

from __future__ import annotations

import dataclasses

import torch
from transformers import set_seed

from riskva.console import warn
from riskva.encoding import Processor, load_processor
from riskva.generation.answer import Answerer, generation_settings
from riskva.modeling.context import ModelContext
from riskva.modeling.loading import attach_adapter, load_model, locate_adapter, locate_model
from riskva.recipe.stages import ModelKeys, PredictKeys


def context_of(keys: ModelKeys) -> ModelContext:
    """How the recipe's model sees photos and is asked: from its `riskva.json`, or the defaults for a base model.

    A recipe's pixel limits win over the file's, with a warning that names both: the model was trained with the file's.
    """
    folder = locate_model(keys.model_name_or_path)
    adapter = locate_adapter(keys.adapter_name_or_path) if keys.adapter_name_or_path else None
    context = ModelContext.load(adapter or folder)
    if context is None:
        context = ModelContext(base_model=keys.model_name_or_path)
        trained = False
    else:
        trained = True
    changes = {}
    for name in ("image_max_pixels", "image_min_pixels"):
        asked, known = getattr(keys, name), getattr(context, name)
        if asked is not None and asked != known:
            changes[name] = asked
            if trained:
                warn(f"{name}: the recipe says {asked}, the model was trained with {known}; the recipe's is used")
    return dataclasses.replace(context, **changes)


def processor_of(keys: ModelKeys, context: ModelContext) -> Processor:
    """The processor of the recipe's model under the context's pixel limits."""
    return load_processor(locate_model(keys.model_name_or_path), context.image_max_pixels, context.image_min_pixels)


def build_answerer(keys: PredictKeys, processor: Processor) -> Answerer:
    """The recipe's model, with its adapter if it names one, on the accelerator if there is one."""
    set_seed(keys.seed)
    model = load_model(
        locate_model(keys.model_name_or_path),
        dtype=torch.bfloat16 if keys.bf16 else None,
        attn_implementation=keys.attn_implementation,
    )
    settings = generation_settings(keys, processor)
    model.generation_config = settings  # generate() fills what a caller leaves open from here
    answering = attach_adapter(model, locate_adapter(keys.adapter_name_or_path)) if keys.adapter_name_or_path else model
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    torch.nn.Module.to(answering, device)  # transformers' own .to is typed for a model alone
    return Answerer(answering.eval(), processor, settings)
