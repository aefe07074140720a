"""What answers prompts: this process with transformers, or vLLM."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

from riskva.console import note
from riskva.data.conversation import Conversation
from riskva.encoding import Processor
from riskva.errors import RecipeError
from riskva.generation.answer import Answer, ReportWriter, Writer, end_tokens, generation_settings
from riskva.generation.asked import AnsweringRecipe
from riskva.generation.constraint import Constraint, grammar_of
from riskva.generation.prompts import PromptEncoder
from riskva.modeling.loading import load_model_and_adapter
from riskva.modeling.model import Qwen2_5_VLForConditionalGeneration
from riskva.recipe import PredictRecipe
from riskva.recipe.key_groups import GenerationKeys
from riskva.report import ReportFormat

Constrain = Literal["report", "json", "off"]


@dataclass(frozen=True)
class Engine:
    """`encode` makes a prompt of a conversation, also in other processes; `answer` takes up to `batch_size` of them."""

    encode: Callable[[Conversation], Any]
    answer: Callable[[Sequence[Any]], list[Answer]]
    batch_size: int


def build_engine(
    recipe: AnsweringRecipe, folder: Path, adapter: Path | None, processor: Processor, report_format: ReportFormat
) -> Engine:
    """The recipe's engine with its model loaded."""
    if isinstance(recipe, PredictRecipe) and recipe.infer_backend == "vllm":
        return _vllm_engine(recipe, folder, adapter, processor, report_format)
    note(f"loading {folder}" + (f" with the adapter {adapter}" if adapter else ""))
    model = load_answering(folder, adapter, torch.bfloat16 if recipe.bf16 else None, recipe.attn_implementation)
    writer = report_writer(model, processor, report_format, recipe, recipe.constrain)
    return Engine(PromptEncoder(processor, recipe.cutoff_len), writer, recipe.per_device_eval_batch_size)


def _vllm_engine(
    recipe: PredictRecipe, folder: Path, adapter: Path | None, processor: Processor, report_format: ReportFormat
) -> Engine:
    from riskva.generation.vllm_engine import PROMPTS_AT_ONCE, VllmEncoder, VllmEngine, require_vllm

    require_vllm(str(adapter) if adapter else None)
    note(f"loading {folder} into vLLM")
    grammar = _grammar(report_format, recipe.constrain, recipe)
    engine = VllmEngine(folder, processor, recipe, report_format, cutoff_len=recipe.cutoff_len, grammar=grammar)
    return Engine(VllmEncoder(processor, recipe.cutoff_len), engine, PROMPTS_AT_ONCE)


def _grammar(report_format: ReportFormat, constrain: Constrain, keys: GenerationKeys) -> str | None:
    """The grammar that answers are held to, None without one."""
    return None if constrain == "off" else grammar_of(report_format, constrain, keys.max_field_chars)


def load_answering(
    folder: Path, adapter: Path | None, dtype: torch.dtype | None = None, attn_implementation: str = "sdpa"
) -> Qwen2_5_VLForConditionalGeneration:
    """The model, with the adapter's layers in it if there is one, on this process's accelerator or else the CPU."""
    model: Any = load_model_and_adapter(folder, adapter, dtype, attn_implementation)
    if adapter is not None:
        model = model.get_base_model()
    if torch.accelerator.is_available():
        torch.accelerator.set_device_index(_own_device())
        model.to(torch.accelerator.current_accelerator())
    return cast(Qwen2_5_VLForConditionalGeneration, model.eval())


def _own_device() -> int:
    """The number of this process's accelerator. Raises `RecipeError` where there are more processes than those."""
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.accelerator.device_count()
    if number >= count:
        raise RecipeError(f"nproc_per_node: more processes than the {count} accelerator(s) here; ask for {count}")
    return number


def report_writer(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Processor,
    report_format: ReportFormat,
    keys: GenerationKeys,
    constrain: Constrain,
) -> ReportWriter:
    """What writes reports with a model that is loaded, as the keys say."""
    settings = generation_settings(keys, processor)
    model.generation_config = settings  # generate() fills what a caller leaves open from here
    constraint = None
    if grammar := _grammar(report_format, constrain, keys):
        num_tokens: int = cast(Any, model.config).text_config.vocab_size
        constraint = Constraint(grammar, processor, num_tokens, end_tokens(processor))
    return ReportWriter(Writer(model, processor, settings), report_format, constraint, keys.seed)
