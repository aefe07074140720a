"""A recipe's trainer, put together: the model as it is tuned, its rows, what is kept of their photos."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, ProgressCallback, Qwen2_5_VLConfig, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from riskva.console import note, warn
from riskva.devices import num_processes
from riskva.distributed import decide_on_each_machine, decide_once
from riskva.encoding import PackedCollator, Processor
from riskva.errors import RecipeError
from riskva.modeling.checkpointing import checkpoint_layers, memory_at_hand, num_layers_to_checkpoint
from riskva.modeling.compiling import compile_layers
from riskva.modeling.loading import load_model
from riskva.modeling.memory import Planner
from riskva.modeling.model import KeepFeatures
from riskva.modeling.quantization import quantization_config
from riskva.modeling.shapes import Shapes, shapes_of
from riskva.modeling.tuning import num_weights, prepare_tuning
from riskva.recipe import SftRecipe
from riskva.recipe.deepspeed import splits_weights
from riskva.training import pixel_cache, vision_cache
from riskva.training.arguments import compute_dtype
from riskva.training.callbacks import (
    BarWithoutLogs,
    FlushFeatures,
    NoStepTooMany,
    StopEarly,
    StopWhenDiverged,
    TrainerLog,
)
from riskva.training.dataset import EncodedDataset
from riskva.training.feature_writer import FeatureWriter
from riskva.training.optimizer import LearningRates
from riskva.training.pixel_cache import CachePlan
from riskva.training.rows import Rows
from riskva.training.schedule import Schedule, packing_len
from riskva.training.throughput import Throughput
from riskva.training.trainer import RiskTrainer, bare_model
from riskva.training.vision_cache import VisionCachePlan


@dataclass(frozen=True)
class Caches:
    """What is kept of photos for later epochs: decoded ones, or what a frozen vision tower made of them."""

    pixels: CachePlan | None
    features: VisionCachePlan | None

    @property
    def bytes_in_memory(self) -> int:
        """The most that they take of a machine's main memory."""
        plans = [one for one in (self.pixels, self.features) if one is not None and one.place == "memory"]
        return sum(one.num_bytes for one in plans)

    @contextmanager
    def opened(self, trainer: RiskTrainer) -> Iterator[None]:
        """Within, they are filled: by the rows as they are read, and by the trainer's model as its tower runs."""
        model = bare_model(trainer.model)
        with pixel_cache.opened(self.pixels), vision_cache.opened(self.features) as writer:
            if writer is not None:
                model.keep_features = self._keeping(writer)
                trainer.add_callback(FlushFeatures(writer.flush))
            try:
                yield
            finally:
                model.keep_features = None

    def _keeping(self, writer: FeatureWriter) -> KeepFeatures:
        def keep(keys: Sequence[str], features: Sequence[Tensor]) -> None:
            # Under bf16_full_eval, say, evaluation at the end has another dtype than training
            if self.features is not None and features[0].dtype == self.features.store.dtype:
                writer.keep(keys, features)

        return keep


def schedule_of(recipe: SftRecipe, rows: Rows) -> Schedule:
    """The steps that the training rows make."""
    launched = os.environ.get("WORLD_SIZE")
    return Schedule(
        recipe, len(rows.train), rows.train_lengths, int(launched) if launched else num_processes(recipe.nproc_per_node)
    )


def plan_caches(recipe: SftRecipe, folder: Path, processor: Processor, rows: Rows) -> Caches:
    """What is to be kept of photos, with a line for each that says so; nothing is written.

    Raises `RecipeError` on every process where a machine has no room for what the recipe asks for.
    """
    features, said = decide_once(
        lambda: vision_cache.plan_vision_cache(
            recipe,
            processor,
            folder,
            dtype=compute_dtype(recipe),
            lengths=_all_lengths(rows) or None,
            num_epochs=schedule_of(recipe, rows).num_epochs,
        )
    )
    if said:
        note(said)
    pixels = None
    if recipe.cache_images is not False:
        photo_tokens = [one.num_image_tokens.tolist() for one in _all_lengths(rows)]
        pixels, said = pixel_cache.plan_cache(
            recipe.cache_images, recipe.output_dir, recipe.cache_images_gb, photo_tokens, processor
        )
        note(said)
    caches = Caches(pixels, features)
    decide_on_each_machine(lambda: _require_room(caches))
    return caches


def _all_lengths(rows: Rows) -> list[Any]:
    return [one for one in (rows.train_lengths, rows.evaluation_lengths) if one is not None]


def _require_room(caches: Caches) -> None:
    if caches.pixels is not None:
        pixel_cache.require_room(caches.pixels)
    if caches.features is not None:
        vision_cache.require_room(caches.features)


@dataclass(frozen=True)
class MemoryPlan:
    """How many layers are checkpointed, and what a process then needs."""

    num_checkpointed: int
    planner: Planner

    def lines(self) -> list[str]:
        """For people: the estimate, and what checkpointing it comes with."""
        number, total = self.num_checkpointed, self.planner.num_layers
        return [
            *self.planner.with_checkpointed(number).lines(),
            f"gradient checkpointing in {number} of {total} layers",
        ]


def plan_memory(recipe: SftRecipe, folder: Path, rows: Rows, caches: Caches, device: str) -> MemoryPlan:
    """The layers to checkpoint as the recipe says, or as few as the memory of `device` asks for."""
    config = Qwen2_5_VLConfig.from_pretrained(folder)
    schedule = schedule_of(recipe, rows)
    planner = Planner(
        shapes_of(config, recipe), recipe, schedule.largest_load, schedule.num_processes, device == "cuda"
    )
    if recipe.gradient_checkpointing != "auto":
        return MemoryPlan(planner.num_layers if recipe.gradient_checkpointing else 0, planner)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", schedule.num_processes))
    at_hand = memory_at_hand(device, here)
    if device == "cpu":
        at_hand -= caches.bytes_in_memory // here
    return MemoryPlan(num_layers_to_checkpoint(planner.bytes_with, planner.num_layers, at_hand), planner)


def build_model(
    recipe: SftRecipe, args: TrainingArguments, folder: Path, memory: MemoryPlan
) -> PreTrainedModel | PeftModel:
    """The model with the recipe's weights trainable, its layers checkpointed and compiled as it says."""
    dtype = compute_dtype(recipe)
    model = load_model(folder, dtype, recipe.attn_implementation, quantization_config(recipe, dtype))
    tuned = prepare_tuning(model, recipe, float32_weights=not args.deepspeed)
    trains, total = num_weights(tuned)
    note(f"{trains:,} of {total:,} weights train ({100 * trains / total:.2f} %)")
    is_split = splits_weights(recipe) or bool(args.fsdp)
    model.always_runs_tower = args.world_size > 1 and (is_split or memory.planner.shapes.tower_trains)
    checkpoint_layers(tuned, memory.num_checkpointed)
    if recipe.torch_compile:
        compile_layers(model)
    return tuned


def build_trainer(
    recipe: SftRecipe,
    args: TrainingArguments,
    model: Any,
    processor: Processor,
    *,
    shapes: Shapes,
    rows: Rows,
    caches: Caches,
    write_extras: Callable[[Path], None],
    score_answers: Callable[[Any], dict[str, float]] | None,
) -> RiskTrainer:
    """The trainer of `model`. Raises `RecipeError` where transformers refuses a training key."""
    train, evaluation = _encoded(recipe, processor, rows, caches)
    try:
        trainer = RiskTrainer(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=evaluation,
            data_collator=PackedCollator(processor),
            write_extras=write_extras,
            score_answers=score_answers,
            rates=LearningRates.of(recipe),
            packing_len=packing_len(recipe) if recipe.packing else None,
            throughput=Throughput(shapes, compute_dtype(recipe), args.device, args.world_size),
            callbacks=[TrainerLog(recipe.output_dir), StopWhenDiverged(), NoStepTooMany(), *_early_stopping(recipe)],
        )
    except (ImportError, RuntimeError, ValueError) as error:  # an integration that is not installed, for example
        raise RecipeError(f"transformers refuses the training keys: {error}") from error
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback):
        trainer.add_callback(BarWithoutLogs)
    return trainer


def _early_stopping(recipe: SftRecipe) -> list[TrainerCallback]:
    if recipe.early_stopping_steps is None:
        return []
    if not recipe.training.get("load_best_model_at_end"):
        warn("early_stopping_steps without load_best_model_at_end: the last model is saved, not the best one")
    return [StopEarly(recipe.early_stopping_steps)]


def _encoded(
    recipe: SftRecipe, processor: Processor, rows: Rows, caches: Caches
) -> tuple[EncodedDataset, EncodedDataset | None]:
    """The training and evaluation rows as the Trainer takes them."""
    features = caches.features.store if caches.features else None
    cutoff_len = recipe.cutoff_len if recipe.streaming else None

    def encoded(conversations: Any, number: int, **others: Any) -> EncodedDataset:
        pixels = caches.pixels.cache(number) if caches.pixels else None
        return EncodedDataset(
            conversations, processor, cutoff_len=cutoff_len, cache=pixels, features=features, **others
        )

    runs = rows.train.runs() if recipe.streaming else None
    train = encoded(rows.train, 0, lengths=rows.train_lengths, runs=runs)
    return train, encoded(rows.evaluation, 1) if rows.evaluation is not None else None
