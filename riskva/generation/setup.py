"""A recipe's model, ready to answer."""

from __future__ import annotations

import torch
from transformers import set_seed

from riskva.encoding import Processor, load_processor
from riskva.generation.answer import Answerer, generation_settings
from riskva.modeling.context import ModelContext
from riskva.modeling.loading import attach_adapter, load_model, locate_adapter, locate_model
from riskva.recipe.stages import ModelKeys, PredictKeys


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
