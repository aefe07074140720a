"""`stage: sft`: data sets become a fine-tuned model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainingArguments, set_seed

from evaluation.while_training import scores_while_training
from riskva.console import note, warn
from riskva.data.manifest import read_manifest
from riskva.data.verification import Verify
from riskva.devices import num_accelerators
from riskva.distributed import decide_once, leaving_the_group
from riskva.encoding import Processor, load_processor
from riskva.encoding.processor import PROCESSOR_FILES, copy_processor_files
from riskva.encoding.survey import Asked
from riskva.errors import DataError, NothingLeftToTrain, RecipeError, StoppedBySignal
from riskva.generation.sampled import SampleAnswerer, draw_sample
from riskva.modeling.compiling import require_compiler
from riskva.modeling.context import ModelContext
from riskva.modeling.loading import locate_model
from riskva.modeling.quantization import require_quantization
from riskva.modeling.resolving import resolve_context
from riskva.output_folder import OutputFolder
from riskva.recipe import SftRecipe, recipe_to_yaml
from riskva.recipe.faults import did_you_mean
from riskva.recipe.metrics import EVAL_PREFIX, REPORT_SCORES, is_report_score
from riskva.report import DEFAULT_FORMAT, ReportFormat
from riskva.training.arguments import build_arguments
from riskva.training.assembly import build_model, build_trainer, plan_caches, plan_memory, schedule_of
from riskva.training.callbacks import StopOnSigterm
from riskva.training.checkpoints import is_at_the_end, newest_whole_checkpoint, require_whole
from riskva.training.dataset import letting_workers_go
from riskva.training.optimizer import LearningRates
from riskva.training.pixel_cache import DISK_FOLDER
from riskva.training.plot import plot_losses
from riskva.training.rows import Rows, open_rows
from riskva.training.schedule import packing_len
from riskva.training.trainer import RiskTrainer

ScoreAnswers = Callable[[Any], dict[str, float]]

FINISHED_FILE = "train_results.json"
OWNED_FILES = (
    r"checkpoint-\d+",
    r"adapter_(model\.safetensors|config\.json)",
    r"model(-\d+-of-\d+)?\.safetensors",
    r"model\.safetensors\.index\.json",
    r"(generation_)?config\.json",
    r"(all|eval|train)_results\.json",
    r"trainer_(log\.jsonl|state\.json)",
    r"training_(args\.bin|loss\.png)",
    r"riskva\.json",
    DISK_FOLDER,
    *map(re.escape, PROCESSOR_FILES),
)
HOW_TO_START = ("resume_from_checkpoint",)
"""Training keys that say how a run starts, not what it is."""
HOW_TO_READ = (
    "verify",
    "cache_images",
    "cache_images_gb",
    "vision_cache",
    "vision_cache_gb",
    "vision_cache_dir",
    "gradient_checkpointing",
    "torch_compile",
)
"""Keys that change nothing of what is learned, rounding apart: a run may go on with others."""


def run(recipe: SftRecipe) -> None:
    """Train, save the model with all that it must carry, and draw the loss."""
    _require_possible(recipe)
    with leaving_the_group():
        args = build_arguments(recipe)
        set_seed(args.seed)
        output = _output(recipe)
        checkpoint = decide_once(lambda: _checkpoint(recipe, output))
        folder = locate_model(recipe.model_name_or_path)
        processor = _processor(recipe, folder)
        rows = decide_once(lambda: open_rows(recipe, processor, args.seed, recipe.verify))
        caches = plan_caches(recipe, folder, processor, rows)
        memory = decide_once(lambda: plan_memory(recipe, folder, rows, caches, args.device.type))
        score_answers = _score_answers(recipe, args, processor, rows)
        model = build_model(recipe, args, folder, memory)
        trainer = build_trainer(
            recipe,
            args,
            model,
            processor,
            shapes=memory.planner.shapes,
            rows=rows,
            caches=caches,
            write_extras=_extras(recipe, folder, processor, rows.asked),
            score_answers=score_answers,
        )
        was_unfinished = decide_once(output.holds_this_run_unfinished)
        decide_once(lambda: output.take(goes_on=checkpoint is not None))
        with caches.opened(trainer), letting_workers_go():
            metrics = _train(trainer, recipe, checkpoint, was_unfinished)
            _finish(trainer, recipe, metrics)


def plan(recipe: SftRecipe) -> list[str]:
    """What `run` would do: rows, their lengths, steps. Loads no weights and writes nothing."""
    _require_possible(recipe)
    checkpoint = _checkpoint(recipe, _output(recipe))
    folder = locate_model(recipe.model_name_or_path)
    processor = _processor(recipe, folder)
    # By size alone: reading all the bytes is the run's, not the plan's.
    verify: Verify = "size" if recipe.verify == "full" else recipe.verify
    seed = int(recipe.training.get("seed", 42))
    rows = open_rows(recipe, processor, seed, verify, keeps_lengths=False)
    caches = plan_caches(recipe, folder, processor, rows)
    schedule = schedule_of(recipe, rows)
    units = "bins of rows" if recipe.packing else "rows"
    return [
        *([f"go on from {checkpoint}"] if checkpoint else []),
        f"train on {len(rows.train)} rows of {', '.join(recipe.dataset)}, evaluate on {len(rows.evaluation or ())}",
        *(rows.survey.histogram() if rows.survey else [_UNMEASURED.format(recipe.cutoff_len)]),
        *(["compare the files' SHA-256 with the manifest first"] if recipe.verify == "full" else []),
        *([f"packing: {schedule.num_units} bins of at most {packing_len(recipe)} tokens"] if recipe.packing else []),
        f"{schedule.steps_per_epoch} optimiser steps an epoch ({schedule.units_per_step} {units} each), about "
        f"{schedule.num_steps} in all",
        *plan_memory(recipe, folder, rows, caches, "cuda" if num_accelerators() else "cpu").lines(),
        *_planned_answers(recipe, rows),
    ]


def _require_possible(recipe: SftRecipe) -> None:
    """Raise `RecipeError` for what this machine, or the DeepSpeed configuration, does not allow."""
    require_quantization(recipe)
    LearningRates.of(recipe)
    if recipe.torch_compile:
        require_compiler()


def _planned_answers(recipe: SftRecipe, rows: Rows) -> list[str]:
    if not recipe.predict_with_generate or rows.evaluation is None:
        return []
    number = min(recipe.num_generated_samples, len(rows.evaluation))
    return [f"write {number} reports at each evaluation, of at most {recipe.max_new_tokens} tokens, and score them"]


_UNMEASURED = "streaming: lengths are checked as rows are read; one of over {} tokens stops the run"


def _output(recipe: SftRecipe) -> OutputFolder:
    training = {name: value for name, value in recipe.training.items() if name not in HOW_TO_START}
    read = {name: SftRecipe.model_fields[name].default for name in HOW_TO_READ}
    comparable = recipe.model_copy(update={"overwrite_output_dir": False, "training": training, **read})
    return OutputFolder(
        recipe.output_dir, recipe_to_yaml(comparable), FINISHED_FILE, OWNED_FILES, recipe.overwrite_output_dir
    )


def _checkpoint(recipe: SftRecipe, output: OutputFolder) -> str | None:
    """The checkpoint to go on from, or None for a fresh start.

    An unfinished run of the same recipe goes on from its newest whole checkpoint, so that the command that was stopped
    resumes whatever it said at first; `resume_from_checkpoint: false` starts afresh with `overwrite_output_dir`.
    """
    asked = recipe.training.get("resume_from_checkpoint")
    is_wanted = str(asked).lower() == "true"
    if asked is not False and output.holds_this_run_unfinished():
        newest = newest_whole_checkpoint(recipe.output_dir)
        if newest is not None:
            note(f"going on from {newest}")
            return str(newest)
        note(f"{recipe.output_dir} holds no whole checkpoint: starting afresh")
    inputs = [recipe.model_name_or_path, recipe.adapter_name_or_path, recipe.dataset_dir]
    if asked and not is_wanted:
        checkpoint = require_whole(Path(asked))
        if output.holds_this_run() and is_at_the_end(checkpoint):
            raise NothingLeftToTrain(f"{checkpoint} is the last step of this very recipe: nothing is left to train")
        if checkpoint.resolve().parent != recipe.output_dir.resolve():
            output.check([*inputs, checkpoint])
        return str(checkpoint)
    if is_wanted and not output.holds_this_run():
        newest = newest_whole_checkpoint(recipe.output_dir)
        if newest is not None:
            note(f"going on from {newest}, with another recipe than it was begun with")
            return str(newest)
    output.check(inputs)
    return None


def _processor(recipe: SftRecipe, folder: Path) -> Processor:
    """The base's processor; an adapter that is trained on keeps the pixel limits that it was begun with."""
    if recipe.adapter_name_or_path is None:
        return load_processor(folder, recipe.image_max_pixels, recipe.image_min_pixels)
    context = resolve_context(recipe, recipe.dataset_dir)
    return load_processor(folder, context.image_max_pixels, context.image_min_pixels)


def _extras(recipe: SftRecipe, folder: Path, processor: Processor, asked: Asked) -> Callable[[Path], None]:
    """What writes into a checkpoint's folder what it must carry besides weights."""
    context = _context(recipe, processor, asked)

    def write(target: Path) -> None:
        context.save(target)
        copy_processor_files(folder, target)

    return write


def _score_answers(recipe: SftRecipe, args: TrainingArguments, processor: Processor, rows: Rows) -> ScoreAnswers | None:
    """What evaluations score beside the loss: the reports for a sample of the evaluation rows; None if nothing.

    Raises `DataError` where the sample holds no report, and `RecipeError` where it does not give the metric that the
    best model is to be chosen by.
    """
    evaluation, report_format = rows.evaluation, _report_format(recipe)
    if not recipe.predict_with_generate or evaluation is None:
        return None
    sample = decide_once(lambda: draw_sample(evaluation, recipe.num_generated_samples, args.seed, report_format))
    note(
        f"each evaluation also writes and scores {len(sample.references)} reports ({sample.by_level}): that takes time"
    )
    answer = SampleAnswerer(sample, processor, recipe.max_new_tokens, args.eval_batch_size)

    def scores(texts: Sequence[str]) -> dict[str, float]:
        reports = [report_format.read_answer(text).report for text in texts]
        return scores_while_training(reports, sample.references, report_format.text_labels)

    _require_metric(args, scores([""] * len(sample.references)))
    return lambda model: scores(answer(model))


def _require_metric(args: TrainingArguments, scores: Mapping[str, float]) -> None:
    metric = str(args.metric_for_best_model).removeprefix(EVAL_PREFIX)
    if is_report_score(metric) and metric not in scores:
        reason = "no drawn row is 严重" if metric in REPORT_SCORES else "the report has no such field"
        raise RecipeError(
            f"metric_for_best_model: evaluations do not give {metric} ({reason}); they give {', '.join(scores)}"
            f"{did_you_mean(metric, scores)}"
        )


def _context(recipe: SftRecipe, processor: Processor, asked: Asked) -> ModelContext:
    manifest = read_manifest(recipe.dataset_dir)
    if not asked.is_uniform:
        warn("the training rows are not all asked alike; riskva.json will name no question or system prompt for them")
    size = processor.image_processor.size
    return ModelContext(
        base_model=recipe.model_name_or_path,
        report_format=_report_format(recipe),
        system_prompt=asked.system_prompt,
        question=asked.question,
        image_max_pixels=size["longest_edge"],
        image_min_pixels=size["shortest_edge"],
        template=recipe.template,
        dataset_fingerprint=manifest.fingerprint if manifest else None,
    )


def _report_format(recipe: SftRecipe) -> ReportFormat:
    manifest = read_manifest(recipe.dataset_dir)
    return manifest.report_format if manifest else DEFAULT_FORMAT


def _train(trainer: RiskTrainer, recipe: SftRecipe, checkpoint: str | None, was_unfinished: bool) -> dict[str, float]:
    """Train to the last step; the metrics of doing so. A run that had only its end left to save has none."""
    with StopOnSigterm() as stop:
        trainer.add_callback(stop)
        try:
            metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
        except NothingLeftToTrain:
            if not was_unfinished:
                raise
            metrics = {}
            trainer.end_with_the_best()
    state = trainer.state
    if stop.stopped and state.global_step < state.max_steps:
        raise StoppedBySignal(
            f"stopped after step {state.global_step} of {state.max_steps}, saved in {recipe.output_dir}; the same "
            "command goes on from there"
        )
    if state.global_step == 0:
        raise DataError("no step was taken: the training rows do not fill one batch; see dataloader_drop_last")
    return {**metrics, "num_steps": state.global_step}


def _finish(trainer: RiskTrainer, recipe: SftRecipe, metrics: dict[str, float]) -> None:
    if trainer.step_of_model != trainer.state.global_step:
        note(f"the model of step {trainer.step_of_model} is saved, the best by {trainer.args.metric_for_best_model}")
    trainer.save_model()
    trainer.save_state()
    if trainer.eval_dataset is not None:
        trainer.save_metrics("eval", _evaluation_at_the_end(trainer))
    if recipe.plot_loss and trainer.is_world_process_zero():
        plot_losses(trainer.state.log_history, recipe.output_dir / "training_loss.png")
    trainer.save_metrics("train", metrics)  # last: this file says that the run is finished
    if recipe.finetuning_type == "lora":  # also when the recipe named an adapter to train on
        keys = f"model_name_or_path={recipe.model_name_or_path} adapter_name_or_path={recipe.output_dir}"
    else:
        keys = f"model_name_or_path={recipe.output_dir} adapter_name_or_path=null"
    note(f"saved in {recipe.output_dir}\nnext: riskva-run recipes/eval.yaml {keys} dataset_dir={recipe.dataset_dir}")


def _evaluation_at_the_end(trainer: RiskTrainer) -> dict[str, float]:
    """The evaluation of the model that is saved: the one that training logged at its step, or a new one."""
    for entry in reversed(trainer.state.log_history):
        if "eval_loss" in entry and entry["step"] == trainer.step_of_model:
            return entry
    return trainer.evaluate()
