"""What a recipe can say, stage by stage: frozen, typed values; nothing below the jobs ever sees a dict.

Names are LLaMA-Factory's wherever it has one. Every field of transformers' TrainingArguments is a key of `SftRecipe`
too; those live in `SftRecipe.training` and are checked against `training_arguments.json`.

What stages share is in `riskva.recipe.key_groups`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from riskva.recipe.clashes import (
    Clash,
    answer_clashes,
    calibrate_clashes,
    compare_clashes,
    eval_clashes,
    image_clashes,
    predict_clashes,
    prepare_clashes,
    record_clashes,
    scoring_clashes,
    sft_clashes,
)
from riskva.recipe.key_groups import (
    SHARD_PATTERN,
    SIZE_PATTERN,
    AnswerKeys,
    DataKeys,
    FeaturePlace,
    Frozen,
    GenerationKeys,
    ModelKeys,
    Names,
    Paths,
    Place,
    Positive,
    ProcessKeys,
    RecordKeys,
    ReportKeys,
    Share,
)
from riskva.recipe.training_fields import training_schemas


class PrepareRecipe(ReportKeys):
    """`stage: prepare`: tables of photos become data sets."""

    stage: Literal["prepare"]
    csv_path: Paths = Field(
        (), description="The table, or several: CSV, TSV, .xlsx, JSONL or Parquet; patterns such as tables/*.csv too."
    )
    image_base_path: Path | None = Field(None, description="The folder that image paths are relative to.")
    output_dir: Path | None = Field(None, description="Where the data sets go.")
    output_format: Literal["parquet", "jsonl"] = "parquet"
    dataset_name: str = Field("building_defect", description="The splits become {dataset_name}_train and so on.")
    column_names: Mapping[str, str] = Field(
        {}, description="What the tables call a column: what RisKVA calls it, as in {照片: image_path}."
    )
    excel_sheet: str | None = Field(
        None, description="The sheet of .xlsx tables; default: the first that is not hidden."
    )
    level_names: Mapping[str, str | None] = Field(
        {}, description="Other words for the levels, as in {一般: 中等}, on top of the built-in ones; null drops one."
    )
    strip_patterns: Mapping[str, str] = Field(
        {},
        description="Private prefixes to cut off: column: regular expression, as in {data_缺陷描述: '\\d+-\\d+-\\d+'}.",
    )
    split: Mapping[str, Share] = Field(
        {"train": 0.8, "val": 0.1, "test": 0.1}, description="Share of the rows of each split; the shares add up to 1."
    )
    split_column: str | None = Field(
        None, description="A column that says which split a row goes to, instead of shares."
    )
    group_by: str | None = Field(None, description="A column whose equal values stay in one split (a house, a site).")
    group_pattern: str | None = Field(
        None, description="Only the part of group_by's text that this regular expression finds names the group."
    )
    kinds: Mapping[str, tuple[str, ...]] | None = Field(
        None, description="For the audit: kinds of defects and the words that name them; a vocabulary is built in."
    )
    near_duplicates: Literal["together", "report"] = Field(
        "together", description="Photos that look alike go to one split, or are only reported."
    )
    identical_texts: Literal["together", "report"] = Field(
        "report", description="Rows with the same texts are only reported, or go to one split."
    )
    seed: int = 42
    image_quality: Annotated[int, Field(ge=1, le=100)] = Field(85, description="JPEG quality of re-encoded photos.")
    max_image_size: tuple[Positive, Positive] = Field((1024, 1024), description="Largest [width, height] in pixels.")
    image_max_pixels: Positive = Field(1024 * 1024, description="Training's limit, for the audit's count of tokens.")
    image_min_pixels: Positive = Field(56 * 56, description="Training's lower limit, for the audit's count of tokens.")
    image_encoding: Literal["bytes", "base64"] = "bytes"
    parquet_compression: Literal["snappy", "zstd"] = "snappy"
    max_shard_size: Annotated[str, Field(pattern=SIZE_PATTERN, examples=["500MB"])] = Field(
        "500MB", description="Parquet: a new file begins where one would hold more photo bytes than this."
    )
    image_storage: Literal["copy", "link"] = Field(
        "copy", description="JSONL only: copy unchanged photos or link them."
    )
    max_bad_share: Share = Field(0.05, description="The job fails when more than this share of the rows is bad.")
    audit: Literal["report", "strict"] = Field(
        "report", description="strict: the job fails when the audit finds errors."
    )
    shard: Annotated[str, Field(pattern=SHARD_PATTERN, examples=["0/4", "auto/4"])] | None = Field(
        None,
        description="Prepare part i of N only, as in 0/4; auto/4 takes i from the scheduler; then stage: merge.",
    )
    preprocessing_num_workers: Positive | None = Field(None, description="Threads; by default one a core.")
    overwrite_output_dir: bool = False
    preview: Path | None = Field(None, description="Print the first rows of this prepared file and do nothing else.")
    preview_rows: Positive = 3

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[Clash]:
        return chain(prepare_clashes(values), answer_clashes(values), image_clashes(values))


class MergeRecipe(RecordKeys):
    """`stage: merge`: the parts that `prepare` or `predict` wrote with `shard` become one.

    What becomes of reports is what their recipe said, unless this one says otherwise; for a data set it means nothing.
    """

    stage: Literal["merge"]
    output_dir: Path = Field(description="The output_dir of all parts.")

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[Clash]:
        return record_clashes(values)


class SftRecipe(ProcessKeys, DataKeys, ModelKeys):
    """`stage: sft`: supervised fine-tuning."""

    stage: Literal["sft"]
    output_dir: Path
    overwrite_output_dir: bool = False
    dataset: Names = Field(description="Names in dataset_info.json; several are mixed.")
    eval_dataset: Names = ()
    drop_overlong: bool = Field(False, description="Leave over-long rows out and list them, instead of refusing.")
    val_size: Annotated[float, Field(ge=0)] = Field(0.0, description="Share (or number) of train rows to evaluate on.")
    predict_with_generate: bool = Field(
        False, description="Evaluations also write reports for some rows and score them; that takes time."
    )
    num_generated_samples: Positive = Field(
        64, description="predict_with_generate: how many evaluation rows are answered, the same ones each time."
    )
    max_new_tokens: Positive = Field(512, description="predict_with_generate: the longest answer, in tokens.")
    early_stopping_steps: Positive | None = Field(
        None, description="Stop after this many evaluations in a row without a better metric_for_best_model."
    )
    streaming: bool = Field(
        False,
        description="For data too large to look through: shuffle by file and row group; check rows as they are read.",
    )
    cache_images: Place = Field(
        False, description="Keep decoded photos for later epochs: memory (or true) in /dev/shm, disk in output_dir."
    )
    cache_images_gb: Annotated[float, Field(gt=0)] = Field(
        4.0, description="Most that cache_images may take on each machine, in GB (10^9 bytes)."
    )
    packing: bool = Field(
        False, description="Fill every row of a batch with whole samples up to packing_len; each sees itself alone."
    )
    packing_len: Positive | None = Field(None, description="packing: most tokens together; default: cutoff_len.")
    vision_cache: FeaturePlace = Field(
        "auto",
        description="Keep what a frozen vision tower makes of a photo: memory, disk, off; auto: where all of it fits.",
    )
    vision_cache_gb: Annotated[float, Field(gt=0)] = Field(
        20.0, description="Most that vision_cache may take on each machine, in GB (10^9 bytes)."
    )
    vision_cache_dir: Path | None = Field(
        None, description="vision_cache: disk. The folder; it is kept for other runs. Default: in dataset_dir."
    )
    gradient_checkpointing: Literal["auto"] | bool = Field(
        "auto",
        description="Compute activations twice and keep few: in every layer, in none, or in as few as memory asks for.",
    )
    torch_compile: bool = Field(False, description="Compile each layer: faster steps after a slow first one.")
    finetuning_type: Literal["lora", "full", "freeze"] = "lora"
    lora_rank: Positive = 64
    lora_alpha: Positive | None = Field(None, description="Default: twice lora_rank.")
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    lora_target: Names = ("all",)
    use_rslora: bool = Field(False, description="Scale LoRA by lora_alpha / sqrt(lora_rank) (arXiv 2312.03732).")
    use_dora: bool = Field(False, description="Train directions and magnitudes apart (DoRA, arXiv 2402.09353); slower.")
    loraplus_lr_ratio: Annotated[float, Field(gt=0)] | None = Field(
        None, description="LoRA+ (arXiv 2402.12354): learning rate of B over that of A, such as 16."
    )
    quantization_bit: Literal[4] | None = Field(
        None, description="QLoRA: hold the frozen weights in 4 bits (NF4, bitsandbytes); NVIDIA GPUs only."
    )
    vision_lr: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Learning rate of the vision tower; default: learning_rate."
    )
    merger_lr: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Learning rate of the multi-modal projector; default: learning_rate."
    )
    freeze_vision_tower: bool = True
    freeze_multi_modal_projector: bool = True
    freeze_language_model: bool = False
    freeze_trainable_layers: int = Field(2, description="finetuning_type: freeze. The last n layers (first if < 0).")
    plot_loss: bool = True
    logging_dir: Path | None = Field(None, description="TensorBoard's folder; default: runs/ in output_dir.")
    training: Mapping[str, Any] = Field({}, description="Fields of transformers' TrainingArguments, checked.")

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[Clash]:
        return chain(sft_clashes(values), image_clashes(values))

    @model_validator(mode="after")
    def _knows_training_fields(self) -> Self:
        if unknown := sorted(set(self.training) - set(training_schemas())):
            raise ValueError(f"training: no fields of TrainingArguments that a recipe sets: {', '.join(unknown)}")
        return self


class PredictKeys(ProcessKeys, GenerationKeys, DataKeys, ModelKeys):
    """What the stages share that answer rows."""

    overwrite_output_dir: bool = False


class PredictRecipe(RecordKeys, ReportKeys, PredictKeys):
    """`stage: predict`: reports for photos: one, a folder, a list, a file of rows, or a data set."""

    stage: Literal["predict"]
    image: Path | None = Field(None, description="One photo: its report is printed.")
    images: Path | None = Field(
        None,
        description="Photos: a folder, a pattern such as site/**/*.jpg, a list (.txt), or a Parquet or JSONL file.",
    )
    eval_dataset: Names = Field(
        (), description="Rows to answer, by their names in dataset_info.json; image or images come before it."
    )
    output_dir: Path | None = Field(None, description="Where answers go; only one `image` can do without.")
    constrain: Literal["report", "json", "off"] = Field(
        "report", description="What may be written: a report's lines, a JSON object with its fields, or anything."
    )
    infer_backend: Literal["huggingface", "vllm", "openai_batch"] = Field(
        "huggingface", description="Who writes: this process, vLLM, or whoever answers the batch files written."
    )
    batch_model: str | None = Field(
        None, description="infer_backend: openai_batch. What the endpoint calls the model; default: model_name_or_path."
    )
    batch_results: Paths = Field((), description="infer_backend: openai_batch. The answered files (JSONL).")
    shard: Annotated[str, Field(pattern=SHARD_PATTERN, examples=["0/4", "auto/4"])] | None = Field(
        None, description="Answer part i of N only, as in 0/4; auto/4 takes i from the scheduler; then stage: merge."
    )

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The data sets that are answered: none where the recipe names photos, as on a command line."""
        return self.eval_dataset if self.image is None and self.images is None else ()

    @property
    def shares_work(self) -> bool:
        """Not for one photo, nor with an engine that brings processes of its own."""
        return self.image is None and self.infer_backend == "huggingface"

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[Clash]:
        return chain(predict_clashes(values), record_clashes(values), image_clashes(values), answer_clashes(values))


class CalibrateRecipe(PredictKeys):
    """`stage: calibrate`: how sure the model is of a level becomes how often it is right; kept in its riskva.json."""

    stage: Literal["calibrate"]
    eval_dataset: Names = Field(description="Rows that were not trained on, to fit to: the validation split.")
    test_dataset: Names = Field((), description="Other rows, to show what it changes where nothing was fitted.")
    output_dir: Path = Field(description="Where the answers go that it is fitted to.")
    constrain: Literal["report", "json", "off"] = Field("report", description="As predictions are to be made.")

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[Clash]:
        return chain(calibrate_clashes(values), image_clashes(values))


class ScoringKeys(AnswerKeys):
    """By what answers are scored, and what is written of it."""

    train_dataset: Names = Field(
        (), description="The training rows, in dataset_dir: floors (constant and nearest report) are taken from them."
    )
    kinds: Mapping[str, tuple[str, ...]] | None = Field(
        None, description="Kinds of defects and the words that name them; a vocabulary is built in."
    )
    rooms: Mapping[str, tuple[str, ...]] | None = Field(
        None, description="Rooms and the words that name them; a vocabulary is built in."
    )
    level_costs: Mapping[str, Mapping[str, float]] | None = Field(
        None,
        description="What a mistaken level costs, as in {严重: {轻微: 10, 中等: 4}}: right level, then the answer.",
    )
    report_rows: Positive = Field(2000, description="Most rows on the page; mistakes first.")


class EvalRecipe(ScoringKeys, PredictKeys):
    """`stage: eval`: predict, then score; with `predictions:` only score, and no model is loaded."""

    stage: Literal["eval"]
    model_name_or_path: str = ""
    output_dir: Path
    constrain: Literal["report", "json", "off"] = Field(
        "off", description="What may be written, as under predict; off shows whether the model knows the form itself."
    )
    eval_dataset: Names = Field((), description="The rows to answer; with predictions: those that were answered.")
    predictions: Path | None = Field(
        None, description="Score these answers: generated_predictions.jsonl (LLaMA-Factory's too) or a CSV."
    )
    blank_photos: bool = Field(
        False,
        description="Also answer every row with its photo painted grey: how much does the model look? Twice the time.",
    )
    label_studio: bool = Field(False, description="Write the mistaken rows as tasks for Label Studio, to be corrected.")
    leaderboard: Path | None = Field(None, description="Append the scores as a line to this file (leaderboard.jsonl).")

    @property
    def shares_work(self) -> bool:
        """Not where answers are there already."""
        return self.predictions is None

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[Clash]:
        return chain(eval_clashes(values), image_clashes(values), answer_clashes(values), scoring_clashes(values))


class CompareRecipe(ScoringKeys):
    """`stage: compare`: two runs or more on the same rows, against the first of them; no model is loaded."""

    stage: Literal["compare"]
    predictions: Mapping[str, Path] = Field(
        description="Runs by name, as in {base: outputs/eval_base, tuned: outputs/eval}: folders or prediction files."
    )
    output_dir: Path
    overwrite_output_dir: bool = False
    dataset_dir: Path = Field(Path("data"), description="The folder that holds dataset_info.json.")
    media_dir: Path | None = Field(None, description="What image paths are relative to; default: dataset_dir.")
    max_samples: Positive | None = Field(None, description="As the predictions were made with.")
    eval_dataset: Names = Field((), description="The rows that were answered: their photos are shown.")

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[Clash]:
        return chain(compare_clashes(values), answer_clashes(values), scoring_clashes(values))


class ExportRecipe(Frozen):
    """`stage: export`: the adapter is merged into its base and saved as a model of its own."""

    stage: Literal["export"]
    model_name_or_path: str
    adapter_name_or_path: str
    export_dir: Path
    export_size: Positive = Field(5, description="Largest weight file in GB.")
    export_device: Literal["cpu", "auto"] = "cpu"
    template: Literal["qwen2_vl", "qwen2_5_vl"] = "qwen2_vl"
    overwrite_output_dir: bool = False


Recipe = (
    PrepareRecipe
    | MergeRecipe
    | SftRecipe
    | PredictRecipe
    | CalibrateRecipe
    | EvalRecipe
    | CompareRecipe
    | ExportRecipe
)
