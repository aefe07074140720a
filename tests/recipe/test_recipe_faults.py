"""The wording of every fault, and that all of them come at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_loading import Faults, Load


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rat: 5e-6", "learning_rat: unknown key; did you mean learning_rate?"),
        ("xyzzy: 1", "xyzzy: unknown key"),
        ("Lora_rank: 3", "Lora_rank: unknown key; did you mean lora_rank?"),
        ("warmup_ration: 0.1", "warmup_ration: unknown key; did you mean warmup_ratio?"),
        ("image_quality: 90", "image_quality: belongs to stage prepare, and this recipe is stage sft"),
        ("top_p: 0.9", "top_p: belongs to stage predict and calibrate and eval, and this recipe is stage sft"),
        ("lora_rank: abc", "lora_rank: expected a whole number greater than 0, found 'abc'"),
        ("lora_rank: 0", "lora_rank: expected a whole number greater than 0, found 0"),
        ("lora_rank: 1.5", "lora_rank: expected a whole number greater than 0, found 1.5"),
        ("lora_rank: true", "lora_rank: expected a whole number greater than 0, found true"),
        ("lora_rank: '8'", "lora_rank: expected a whole number greater than 0, found '8'"),
        ("lora_rank:", "lora_rank: no value given; expected a whole number greater than 0 (or leave the key out)"),
        ("lora_rank: [8]", "lora_rank: expected a whole number greater than 0, found a list"),
        ("lora_dropout: 1", "lora_dropout: expected a number of at least 0 and below 1, found 1"),
        ("learning_rate: fast", "learning_rate: expected a number of at least 0, found 'fast'"),
        ("learning_rate: .nan", "learning_rate: expected a number of at least 0, found .nan"),
        ("bf16: maybe", "bf16: expected true or false, found 'maybe'"),
        ("plot_loss: 1", "plot_loss: expected true or false, found 1"),
        ("dataset_dir: true", "dataset_dir: expected a path, found true"),
        ("lora_target: {q: 1}", "lora_target: expected a text or a list of texts, found a mapping"),
        ("eval_strategy: stepz", "eval_strategy: expected one of no, steps, epoch, found 'stepz'; did you mean steps?"),
        ("finetuning_type: oft", "finetuning_type: expected one of lora, full, freeze, found 'oft'"),
        ("template: llama3", "template: expected one of qwen2_vl, qwen2_5_vl, found 'llama3'"),
        ("optim: adam", "optim: expected one of adamw_torch, adamw_torch_fused, "),
        (
            "per_device_train_batch_size: 0",
            "per_device_train_batch_size: expected a whole number of at least 1, found 0",
        ),
        ("adam_beta1: 1", "adam_beta1: expected a number of at least 0 and below 1, found 1"),
        ("lr_scheduler_kwargs: 3", ""),
        (
            "remove_unused_columns: true",
            "remove_unused_columns: RisKVA always has false here: the collator needs every column",
        ),
        ("local_rank: 1", "local_rank: RisKVA always has -1 here: the launcher tells every process its rank"),
        (
            "save_safetensors: false",
            "save_safetensors: RisKVA always has true here: transformers 5 always writes safetensors",
        ),
        ("val_size: 1.5", "val_size: a share below 1 or a whole number of rows, found 1.5"),
        ("warmup_ratio: 1.5", "warmup_ratio: expected a number of at least 0 and below 1, found 1.5"),
        ("deepspeed: zero.json", "deepspeed: there is no zero.json; did you mean zero2.json?"),
        ("deepspeed: bad.json", "deepspeed: bad.json is not JSON: "),
        ("deepspeed: list.json", "deepspeed: list.json must hold one JSON object"),
        ("eval_strategy: epoch", "eval_strategy: there is nothing to evaluate on; give eval_dataset or val_size"),
        (
            "load_best_model_at_end: true",
            "load_best_model_at_end: needs save_strategy and eval_strategy to be the same, found steps and no",
        ),
        ("packing: true\npacking_len: 4096", ""),
        ("packing: true\npacking_len: 512\ncutoff_len: 512", ""),
        ("packing: true\naccelerator_config: {even_batches: true}", ""),
        ("packing_len: 4096", "packing_len: means nothing without packing: true"),
        (
            "packing_len: 100\npacking: true",
            "packing_len: 100 is below cutoff_len 4096: a row of that length would fit into no bin",
        ),
        ("packing: true\nstreaming: true", "packing: cannot be combined with streaming: bins are filled by lengths"),
        (
            "group_by_length: true\npacking: true",
            "train_sampling_strategy: packing has an order of its own; leave train_sampling_strategy and",
        ),
        (
            "accelerator_config: {split_batches: true}\npacking: true",
            "accelerator_config: split_batches would split bins among processes; leave it out",
        ),
        (
            "dataloader_prefetch_factor: 2\ndataloader_num_workers: 0",
            "dataloader_prefetch_factor: needs dataloader_num_workers of at least 1",
        ),
        (
            "freeze_language_model: true",
            "freeze_language_model: everything is frozen, nothing would train; set one of the",
        ),
    ],
)
def test_one_fault_is_located_and_worded(load: Load, faults: Faults, sft: str, line: str, message: str) -> None:
    Path("zero2.json").write_text("{}")
    Path("bad.json").write_text("{")
    Path("list.json").write_text("[]")
    if not message:
        assert load(f"{sft}{line}\n")
        return
    (found,) = faults(f"{sft}{line}\n")
    assert found.startswith(f"r.yaml:5: {message}")
    assert "Input should" not in found


def test_all_faults_come_at_once_by_file_and_line(faults: Faults) -> None:
    Path("base.yaml").write_text("stage: sft\nlora_rank: abc\nlearning_rat: 1\n")
    text = "extends: base.yaml\noutput_dir: o\nbf16: true\nfp16: true\nval_size: -1\nmask_history: true\n"
    assert faults(text, "seed=x", "nonsense") == [
        "base.yaml:2: lora_rank: expected a whole number greater than 0, found 'abc'",
        "base.yaml:3: learning_rat: unknown key; did you mean learning_rate?",
        "r.yaml: model_name_or_path: missing; stage sft needs it (A folder with a Qwen2.5-VL, or its name on the hub.)",
        "r.yaml: dataset: missing; stage sft needs it (Names in dataset_info.json; several are mixed.)",
        "r.yaml:3: bf16: bf16 and fp16 contradict each other; keep one",
        "r.yaml:5: val_size: expected a number of at least 0, found -1",
        "r.yaml:6: mask_history: LLaMA-Factory knows this key, RisKVA does not (yet); leave it out or at its default",
        "command line: 'nonsense': expected key=value, such as learning_rate=1e-5 or split.train=0.7",
        "command line: seed: expected a whole number of at least 0, found 'x'",
    ]


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        ("split: {train: 0.8, val: 0.1}", ["5: split: the shares must add up to 1, they add up to 0.9"]),
        (
            "split: {train: 0.9, val: 0.1, 'a b': 0}",
            ["5: split: 'a b' cannot be the name of a split; use letters, digits, _ and -"],
        ),
        ("split: {train: 0.5, quarantine: 0.5}", ["5: split: 'quarantine' cannot be the name of a split: bad rows"]),
        ("split: {train: 2}", ["5: split.train: expected a number of at least 0 and at most 1, found 2"]),
        ("split: 0.8", ["5: split: expected a mapping, found 0.8"]),
        (
            "max_image_size: [10]",
            ["5: max_image_size: expected a list of 2 values, each a whole number greater than 0, found 1 value(s)"],
        ),
        ("max_image_size: [10, a]", ["5: max_image_size item 2: expected a whole number greater than 0, found 'a'"]),
        (
            "output_format: parquett",
            ["5: output_format: expected one of parquet, jsonl, found 'parquett'; did you mean parquet?"],
        ),
        ("learning_rate: 1", ["5: learning_rate: belongs to stage sft, and this recipe is stage prepare"]),
        ("max_shard_size: 500", ["5: max_shard_size: expected a text such as 500MB, found 500"]),
        ("shard: 1of4", ["5: shard: expected a text such as 0/4 or auto/4, found '1of4'"]),
        ("group_pattern: x", ["5: group_pattern: needs group_by: the column whose text it is looked for in"]),
        (
            "group_by: a\ngroup_pattern: '('\nstrip_patterns: {a: '['}",
            ["6: group_pattern: '(' is no regular expression", "7: strip_patterns: '[' is no regular expression"],
        ),
        (
            "level_names: {一般: 中}",
            ["5: level_names: '一般': unknown risk level '中': expected one of 轻微"],
        ),
        ("level_names: {一般般: null}", ["5: level_names: '一般般' is no built-in wording (nearest: 一般)"]),
        ("kinds: {裂缝: [缝], 空鼓: [缝]}", ["5: kinds: 缝 stands for both 裂缝 and 空鼓"]),
        ("column_names: {照片: ''}", ["5: column_names: '照片' gets no name"]),
        (
            "output_path: elsewhere",
            ["5: output_path: contradicts output_dir (r.yaml:4); both set output_dir, keep one"],
        ),
        (
            "answer_fields:\n- label: a\n  colum: b\n- {label: c, column: d}",
            [
                "6: answer_fields item 1: column: missing",
                "7: answer_fields item 1: colum: unknown key; did you mean column?",
            ],
        ),
        (
            "answer_fields: [{label: a, column: b}]",
            ["5: answer_fields: exactly one field must have is_level: true, found 0"],
        ),
        ("answer_fields: [{label: 'a:', column: b, is_level: yes}]", ["5: answer_fields: label 'a:' is "]),
        ("answer_fields: 风险", ["5: answer_fields: expected a list of mappings, found '风险'"]),
    ],
)
def test_faults_of_prepare(faults: Faults, prepare: str, lines: str, messages: list[str]) -> None:
    found = faults(f"{prepare}{lines}\n")
    assert len(found) == len(messages)
    assert all(one.startswith(f"r.yaml:{message}") for one, message in zip(found, messages, strict=True))


def test_prepare_without_preview_says_all_that_is_missing(faults: Faults, load: Load) -> None:
    needs = "missing; prepare needs it unless preview names a file to show"
    assert faults("stage: prepare\n") == [
        f"r.yaml: {key}: {needs}" for key in ("csv_path", "image_base_path", "output_dir")
    ]
    assert load("stage: prepare\npreview: a.parquet\n")


def test_eval_needs_a_model_and_data_or_a_file_to_score(faults: Faults, load: Load) -> None:
    wanted = "missing; give model_name_or_path and eval_dataset, or predictions: a file to score"
    expected = [f"r.yaml: model_name_or_path: {wanted}", f"r.yaml: eval_dataset: {wanted}"]
    assert faults("stage: eval\noutput_dir: o\n") == expected
    assert load("stage: eval\noutput_dir: o\npredictions: p.jsonl\n")


def test_pixel_limits_must_leave_room(faults: Faults, evaluate: str) -> None:
    found = faults(evaluate + "image_max_pixels: 100\nimage_min_pixels: 200\n")
    assert found == ["r.yaml:6: image_min_pixels: image_min_pixels 200 is above image_max_pixels 100"]


def test_val_size_and_eval_dataset_contradict(faults: Faults, sft: str) -> None:
    found = faults(sft + "eval_dataset: e\nval_size: 0.1\n")
    assert found == ["r.yaml:6: val_size: eval_dataset and val_size contradict each other; keep one"]


@pytest.mark.parametrize("value", ["''", "[]", "','"])
def test_a_data_set_without_a_name_is_none(faults: Faults, value: str) -> None:
    (found,) = faults(f"stage: sft\nmodel_name_or_path: m\noutput_dir: o\ndataset: {value}\n")
    assert found == "r.yaml:4: dataset: names no data set"
