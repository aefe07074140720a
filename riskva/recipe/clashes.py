"""What a recipe's keys must agree on among themselves, checked on plain values (`key -> value`, defaults filled in).

A key whose value is wrong in itself is absent from the values; a check that needs it then says nothing, so that every
other contradiction is still found in the same run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from riskva.errors import RecipeError, ReportError
from riskva.level_costs import LevelCosts
from riskva.level_names import level_names_from
from riskva.recipe.metrics import EVAL_PREFIX, is_report_score, known_metrics_hint
from riskva.report import LEVEL_LABELS, ReportField, ReportFormat
from riskva.vocabulary import Vocabulary

Values = Mapping[str, Any]

INPUTS = ("image", "images", "eval_dataset")
"""The keys of `stage: predict` that each say what to answer."""

RECORD_SUFFIXES = (".json", ".jsonl", ".csv")
"""The forms that `output_file` can have."""

LONGEST_NAME = 40
"""Characters of a run's name that still fit above a column."""


@dataclass(frozen=True)
class Clash:
    """Keys that do not fit together, or a key that is needed; the text follows the name of one of the keys."""

    keys: tuple[str, ...]
    text: str


def answer_clashes(values: Values) -> Iterator[Clash]:
    """Whether `answer_fields` make a report format."""
    try:
        build_format(values.get("answer_fields"))
    except ReportError as error:
        yield Clash(("answer_fields",), str(error).removeprefix("answer_fields: "))


def build_format(answer_fields: Any) -> ReportFormat | None:
    """The format that a recipe's `answer_fields` describe, or None without any; raises `ReportError` on a bad one."""
    if answer_fields is None:
        return None
    return ReportFormat(tuple(ReportField(**one) for one in answer_fields))


def prepare_clashes(values: Values) -> Iterator[Clash]:
    """Splits that cannot be, patterns and levels that mean nothing, and what a run without `preview` needs."""
    yield from _split_clashes(values)
    yield from _pattern_clashes(values)
    yield from _word_clashes(values)
    if "preview" in values and values["preview"] is None:
        for key in ("csv_path", "image_base_path", "output_dir"):
            if not values.get(key, True):
                yield Clash((key,), "missing; prepare needs it unless preview names a file to show")


def _split_clashes(values: Values) -> Iterator[Clash]:
    split = values.get("split")
    by_shares = values.get("split_column", "") is None
    if split is not None and by_shares and not math.isclose(math.fsum(split.values()), 1, abs_tol=1e-6):
        yield Clash(("split",), f"the shares must add up to 1, they add up to {math.fsum(split.values()):g}")
    for name in split or ():
        if not re.fullmatch(r"\w[\w-]*", name):
            yield Clash(("split",), f"{name!r} cannot be the name of a split; use letters, digits, _ and -")
        elif name.lower() == "quarantine":
            yield Clash(("split",), f"{name!r} cannot be the name of a split: bad rows are listed under it")


def _word_clashes(values: Values) -> Iterator[Clash]:
    yield from _refused("level_names", level_names_from, values.get("level_names"))
    yield from _refused("kinds", Vocabulary, values.get("kinds"))
    for name, ours in (values.get("column_names") or {}).items():
        if not ours.strip():
            yield Clash(("column_names",), f"{name!r} gets no name")


def _pattern_clashes(values: Values) -> Iterator[Clash]:
    if values.get("group_pattern") is not None and values.get("group_by", "") is None:
        yield Clash(("group_pattern",), "needs group_by: the column whose text it is looked for in")
    patterns = [("group_pattern", values.get("group_pattern") or "")]
    patterns += [("strip_patterns", pattern) for pattern in (values.get("strip_patterns") or {}).values()]
    for key, pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield Clash((key,), f"{pattern!r} is no regular expression: {error}")


def image_clashes(values: Values) -> Iterator[Clash]:
    """Whether the limits on a photo's pixels leave room between them."""
    low, high = values.get("image_min_pixels"), values.get("image_max_pixels")
    if low and high and low > high:
        yield Clash(
            ("image_min_pixels", "image_max_pixels"), f"image_min_pixels {low} is above image_max_pixels {high}"
        )


def sft_clashes(values: Values) -> Iterator[Clash]:
    """Training that would train nothing, evaluate on nothing, or that transformers would refuse after loading."""
    freezes = ("freeze_language_model", "freeze_vision_tower", "freeze_multi_modal_projector")
    if all(values.get(key) for key in freezes):
        yield Clash(freezes, "everything is frozen, nothing would train; set one of the freeze_* keys to false")
    if _is_empty(values.get("dataset", True)):
        yield Clash(("dataset",), "names no data set")
    if values.get("eval_dataset") and values.get("val_size"):
        yield Clash(("val_size", "eval_dataset"), "eval_dataset and val_size contradict each other; keep one")
    if _is_empty(values.get("lora_target", True)):
        yield Clash(("lora_target",), "names no module; all means every linear module of what is not frozen")
    if values.get("adapter_name_or_path") and values.get("finetuning_type", "lora") != "lora":
        yield Clash(
            ("finetuning_type", "adapter_name_or_path"),
            "training on with an adapter is finetuning_type: lora; export it first to train the whole model",
        )
    size = values.get("val_size", 0)
    if size > 1 and size != int(size):
        yield Clash(("val_size",), f"a share below 1 or a whole number of rows, found {size:g}")
    yield from _tuning_clashes(values)
    yield from _packing_clashes(values)
    yield from _streaming_clashes(values)
    yield from _vision_cache_clashes(values)
    yield from _precision_clashes(values)
    yield from _evaluation_clashes(values)


LORA_KEYS = ("use_rslora", "use_dora", "loraplus_lr_ratio", "quantization_bit")
"""Keys that mean something for adapters alone."""

RATE_KEYS = ("vision_lr", "merger_lr", "loraplus_lr_ratio")
"""Keys that give some of the weights a learning rate of their own."""

GROUPING_OPTIMIZERS = ("galore", "apollo", "lomo", "adalomo")
"""Optimizers of transformers, by how their names begin, that choose the groups of weights themselves."""


def _tuning_clashes(values: Values) -> Iterator[Clash]:
    """Forms of LoRA without LoRA, 4 bits where they cannot be, and learning rates of weights that do not train."""
    kind = values.get("finetuning_type", "lora")
    for key in LORA_KEYS:
        if values.get(key) and kind != "lora":
            yield Clash((key, "finetuning_type"), f"needs finetuning_type: lora, found {kind}")
    if values.get("quantization_bit"):
        for key, remedy in (("fsdp", "deepspeed with ZeRO-2"), ("use_cpu", "quantization_bit: null")):
            if values.get(key):
                yield Clash(("quantization_bit", key), f"quantization_bit cannot be combined with {key}; use {remedy}")
    yield from _rate_clashes(values)


def _rate_clashes(values: Values) -> Iterator[Clash]:
    for key, freeze in (("vision_lr", "freeze_vision_tower"), ("merger_lr", "freeze_multi_modal_projector")):
        # An adapter that is trained on brings the parts that train.
        if values.get(key) and values.get(freeze) and not values.get("adapter_name_or_path"):
            yield Clash((key, freeze), f"{key} is for weights that train; set {freeze}: false, or leave it out")
    optim, rates = str(values.get("optim", "")), [key for key in RATE_KEYS if values.get(key)]
    if rates and optim.startswith(GROUPING_OPTIMIZERS):
        text = f"{optim} chooses the groups of weights itself; leave {', '.join(rates)} out, or take optim: adamw_torch"
        yield Clash((*rates, "optim"), text)


def _packing_clashes(values: Values) -> Iterator[Clash]:
    """Bins that a row may not fit into, and what has another order of rows than bins."""
    packing_len, cutoff_len = values.get("packing_len"), values.get("cutoff_len")
    if not values.get("packing"):
        if packing_len is not None and values.get("packing") is False:
            yield Clash(("packing_len",), "means nothing without packing: true")
        return
    if packing_len is not None and cutoff_len is not None and packing_len < cutoff_len:
        text = f"{packing_len} is below cutoff_len {cutoff_len}: a row of that length would fit into no bin"
        yield Clash(("packing_len", "cutoff_len"), text)
    if values.get("streaming"):
        text = "cannot be combined with streaming: bins are filled by lengths, which streaming does not measure"
        yield Clash(("packing", "streaming"), text)
    if values.get("train_sampling_strategy", "random") != "random":
        text = "packing has an order of its own; leave train_sampling_strategy and group_by_length out"
        yield Clash(("train_sampling_strategy", "packing"), text)
    config = values.get("accelerator_config")
    if isinstance(config, Mapping) and config.get("split_batches"):
        yield Clash(("accelerator_config", "packing"), "split_batches would split bins among processes; leave it out")


def _streaming_clashes(values: Values) -> Iterator[Clash]:
    """What takes a look at every row before training, which `streaming` is there to avoid."""
    if not values.get("streaming"):
        return
    if values.get("drop_overlong"):
        yield Clash(
            ("drop_overlong", "streaming"),
            "streaming measures no row beforehand, so it cannot leave any out; an over-long row stops the run",
        )
    if values.get("val_size"):
        yield Clash(("val_size", "streaming"), "streaming splits off no rows; name an eval_dataset")
    if values.get("train_sampling_strategy", "random") != "random":
        yield Clash(
            ("train_sampling_strategy", "streaming"),
            "streaming has an order of its own and knows no lengths; leave train_sampling_strategy and "
            "group_by_length out",
        )
    if values.get("cache_images"):
        yield Clash(
            ("cache_images", "streaming"),
            "cannot be combined with streaming: what is kept is chosen by lengths, which streaming does not measure",
        )


def _vision_cache_clashes(values: Values) -> Iterator[Clash]:
    """Features of a part that trains are old after one step; and what would be kept twice, or where nobody looks."""
    place = values.get("vision_cache")
    if place not in {"memory", "disk"}:
        return
    for key, part in (("freeze_vision_tower", "vision tower"), ("freeze_multi_modal_projector", "projector")):
        if values.get(key) is False:
            text = f"{place} keeps what the {part} makes, which trains ({key}: false) and so changes; leave it out"
            yield Clash(("vision_cache", key), text)
    if values.get("cache_images"):
        text = f"{place} makes cache_images useless: a photo whose features are kept is not decoded; keep one"
        yield Clash(("vision_cache", "cache_images"), text)
    if place == "memory" and values.get("vision_cache_dir") is not None:
        yield Clash(("vision_cache_dir", "vision_cache"), "is for vision_cache: disk; memory lies in /dev/shm")


def _precision_clashes(values: Values) -> Iterator[Clash]:
    for suffix in ("", "_full_eval"):
        both = (f"bf16{suffix}", f"fp16{suffix}")
        if all(values.get(key) for key in both):
            yield Clash(both, f"{both[0]} and {both[1]} contradict each other; keep one")
    if values.get("dataloader_prefetch_factor") and values.get("dataloader_num_workers") == 0:
        yield Clash(("dataloader_prefetch_factor",), "needs dataloader_num_workers of at least 1")


def _evaluation_clashes(values: Values) -> Iterator[Clash]:
    when, generates = values.get("eval_strategy", "no"), bool(values.get("predict_with_generate"))
    if _is_empty(values.get("eval_dataset", True)) and values.get("val_size") == 0:
        if when != "no":
            yield Clash(("eval_strategy",), "there is nothing to evaluate on; give eval_dataset or val_size")
        elif generates:
            yield Clash(("predict_with_generate",), "there are no rows to answer; give eval_dataset or val_size")
    if generates and values.get("fsdp"):
        text = "predict_with_generate cannot be combined with fsdp; use deepspeed"
        yield Clash(("predict_with_generate", "fsdp"), text)
    metric, save = values.get("metric_for_best_model"), values.get("save_strategy", "steps")
    if metric is not None:
        yield from _metric_clashes(str(metric), when, generates)
    elif save == "best":
        yield Clash(("save_strategy",), "best needs metric_for_best_model, such as eval_loss")
    if values.get("load_best_model_at_end") and save not in ("best", when):
        text = f"needs save_strategy and eval_strategy to be the same, found {save} and {when}"
        yield Clash(("load_best_model_at_end",), text)
    yield from _early_stopping_clashes(values, when)


def _metric_clashes(metric: str, when: str, generates: bool) -> Iterator[Clash]:
    """Whether evaluations give a metric of that name."""
    if is_report_score(metric) and not generates:
        yield Clash(("metric_for_best_model",), f"{metric} needs predict_with_generate: true, which writes reports")
    elif not is_report_score(metric) and metric.removeprefix(EVAL_PREFIX) != "loss":
        text = f"evaluation during training gives no {metric}, but {known_metrics_hint(metric)}"
        yield Clash(("metric_for_best_model",), text)
    elif when == "no":
        text = "nothing is evaluated while training; set eval_strategy: steps or epoch"
        yield Clash(("metric_for_best_model", "eval_strategy"), text)


def _early_stopping_clashes(values: Values, when: str) -> Iterator[Clash]:
    if not values.get("early_stopping_steps"):
        return
    if when == "no":
        text = "counts evaluations, and there are none while training; set eval_strategy: steps or epoch"
        yield Clash(("early_stopping_steps",), text)
    elif values.get("metric_for_best_model") is None and not values.get("load_best_model_at_end"):
        yield Clash(("early_stopping_steps",), "needs metric_for_best_model, such as eval_loss")


def scoring_clashes(values: Values) -> Iterator[Clash]:
    """Words that stand for two things, and costs that make no sense."""
    both = _names(values.get("train_dataset")) & _names(values.get("eval_dataset"))
    if both:
        names = ", ".join(sorted(both))
        text = f"{names} is scored itself, and floors must come from other rows; train_dataset=null does without"
        yield Clash(("train_dataset", "eval_dataset"), text)
    for key in ("kinds", "rooms"):
        yield from _refused(key, Vocabulary, values.get(key))
    if values.get("level_costs") is not None:
        yield from _refused("level_costs", LevelCosts, values["level_costs"])


def compare_clashes(values: Values) -> Iterator[Clash]:
    """Whether there is anything to compare."""
    runs = values.get("predictions")
    if runs is not None and len(runs) < 2:
        yield Clash(("predictions",), f"names {len(runs)} run(s); give two or more to compare")
    for name in runs or ():
        if not (name.strip() and name.isprintable() and len(name) <= LONGEST_NAME):
            text = f"{name!r} cannot name a run: it is shown above a column; at most {LONGEST_NAME} characters"
            yield Clash(("predictions",), text)
    yield from _unjoined_clashes(values)


def _unjoined_clashes(values: Values) -> Iterator[Clash]:
    """What means nothing where predictions are scored without the data set that they answer."""
    is_alone = _is_empty(values.get("eval_dataset", True)) and values.get("predictions") is not None
    if is_alone and values.get("max_samples") is not None:
        yield Clash(("max_samples",), "needs eval_dataset: without it every prediction is scored")


def _refused(key: str, check: Callable[[Any], object], value: Any) -> Iterator[Clash]:
    try:
        check(value or {})
    except RecipeError as error:
        yield Clash((key,), str(error).partition(": ")[2])


def eval_clashes(values: Values) -> Iterator[Clash]:
    """Whether there is a model and a data set to predict with, or a file to score, and what some keys need."""
    if values.get("label_studio") and _is_empty(values.get("eval_dataset", True)):
        yield Clash(("label_studio",), "needs eval_dataset: a task shows the row's photo")
    yield from _unjoined_clashes(values)
    if values.get("blank_photos") and values.get("predictions") is not None:
        yield Clash(("blank_photos",), "needs the model: leave predictions out, so that it answers grey photos too")
    if "predictions" not in values or values["predictions"] is not None:
        return
    for key in ("model_name_or_path", "eval_dataset"):
        if _is_empty(values.get(key, True)):
            yield Clash((key,), "missing; give model_name_or_path and eval_dataset, or predictions: a file to score")


def predict_clashes(values: Values) -> Iterator[Clash]:
    """Whether there is something to answer, a place for the answers, and what an engine cannot do."""
    given = [key for key in INPUTS if key in values and not _is_empty(values[key])]
    if not given and all(key in values for key in INPUTS):
        text = "there is nothing to answer; give image: a photo, images: a folder, list or file, or eval_dataset: names"
        yield Clash(("images",), text)
    if {"image", "images"} <= set(given):
        yield Clash(("image", "images"), "image and images each say what to answer; keep one")
    if given and "image" not in given and values.get("output_dir", True) is None:
        yield Clash(("output_dir",), "missing: the folder that answers go to, from which an interrupted run goes on")
    for key in ("shard", "max_samples"):
        if values.get(key) is not None and "image" in given:
            yield Clash((key, "image"), "is for many photos; leave it out")
    if "image" in given and values.get("infer_backend") == "openai_batch":
        yield Clash(("image", "infer_backend"), "openai_batch is for many photos; name them as images")
    if values.get("shard") is not None and values.get("output_file") is not None:
        yield Clash(("output_file", "shard"), "all parts would write this one file; name it under stage: merge")
    yield from _engine_clashes(values)


def record_clashes(values: Values) -> Iterator[Clash]:
    """Whether records can be written in the form that `output_file` names, and levels are levels."""
    levels = values.get("always_review") or ()
    for level in filter(None, re.split(r"[\s,，、]+", levels)) if isinstance(levels, str) else levels:
        if level not in LEVEL_LABELS:
            yield Clash(("always_review",), f"expected one of {', '.join(LEVEL_LABELS)}, found {level!r}")
    suffix = str(values.get("output_file") or ".json")
    if not suffix.lower().endswith(RECORD_SUFFIXES):
        yield Clash(("output_file",), f"{suffix}: the name must end in {', '.join(RECORD_SUFFIXES)}")


def _engine_clashes(values: Values) -> Iterator[Clash]:
    engine = values.get("infer_backend")
    for key in ("batch_results", "batch_model"):
        if not _is_empty(values.get(key)) and engine != "openai_batch":
            yield Clash((key, "infer_backend"), "needs infer_backend: openai_batch")
    if engine not in ("vllm", "openai_batch"):
        return
    if (values.get("nproc_per_node") or 1) > 1:
        yield Clash(("nproc_per_node", "infer_backend"), f"{engine} runs in one process; leave nproc_per_node out")
    if engine == "vllm" and values.get("adapter_name_or_path"):
        text = "vllm takes merged weights: run stage: export, and name its export_dir as model_name_or_path"
        yield Clash(("adapter_name_or_path", "infer_backend"), text)
    if engine == "openai_batch" and values.get("constrain") == "report":
        text = (
            "an OpenAI endpoint has no constraint for a report's lines; set constrain: json, or off to take what comes"
        )
        yield Clash(("constrain", "infer_backend"), text)


def calibrate_clashes(values: Values) -> Iterator[Clash]:
    """Rows that a temperature is fitted to show nothing of what it is worth."""
    both = _names(values.get("test_dataset")) & _names(values.get("eval_dataset"))
    if both:
        names = ", ".join(sorted(both))
        yield Clash(("test_dataset", "eval_dataset"), f"{names} is fitted to; name other rows, or leave it out")


def _names(names: Any) -> set[str]:
    """The names in a list, or in one text with commas, as recipes write them."""
    parts = names.split(",") if isinstance(names, str) else names or ()
    return {name.strip() for name in parts if name.strip()}


def _is_empty(names: Any) -> bool:
    """Whether a name or a list of names names nothing."""
    return not (names.strip(", ") if isinstance(names, str) else names)
