"""Groups of keys that stages share, and the types of their values; `riskva.recipe.stages` puts recipes together.

These classes check what is built by hand as well; for recipe files `riskva.recipe.loader` finds the same faults all at
once and with their lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from riskva.recipe.clashes import Clash, build_format
from riskva.report import ReportFormat


def split_names(value: Any) -> Any:
    """`a, b` as `("a", "b")`, as LLaMA-Factory writes lists; null as no name; anything else unchanged."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


def split_paths(value: Any) -> Any:
    """One path as a list of one; null as none. A comma may stand in a file's name, so it parts nothing."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str | Path) else value


def name_place(value: Any) -> Any:
    """`true` as the place that it means; anything else unchanged."""
    return "memory" if value is True else value


def name_off(value: Any) -> Any:
    """YAML reads `off` as false: the word again; anything else unchanged."""
    return "off" if value is False else value


SHARD_PATTERN = r"^([0-9]{1,9}|auto)/[1-9][0-9]{0,8}$"
SIZE_PATTERN = r"^[1-9][0-9]{0,8}\s*[KMG]B$"


def num_bytes(size: str) -> int:
    """The bytes that a recipe's size, such as `500MB`, stands for; decimal units, as in Hugging Face's libraries."""
    return int(size[:-2]) * {"K": 10**3, "M": 10**6, "G": 10**9}[size[-2]]


def split_levels(value: Any) -> Any:
    """`中等, 严重` as a tuple of two."""
    return split_names(value.replace("，", ",").replace("、", ",") if isinstance(value, str) else value)


Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(split_paths, json_schema_input_type=Path | tuple[Path, ...] | None)]
Levels = Annotated[
    tuple[str, ...],
    BeforeValidator(split_levels, json_schema_input_type=str | tuple[str, ...] | None),
]
Names = Annotated[tuple[str, ...], BeforeValidator(split_names, json_schema_input_type=str | tuple[str, ...] | None)]


Place = Annotated[
    Literal["memory", "disk", False],
    BeforeValidator(name_place, json_schema_input_type=Literal["memory", "disk"] | bool),
]

FeaturePlace = Annotated[
    Literal["off", "memory", "disk", "auto"],
    BeforeValidator(name_off, json_schema_input_type=Literal["off", "memory", "disk", "auto", False]),
]


class Frozen(BaseModel):
    """The base of all recipe values: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def clashes(cls, values: Mapping[str, Any]) -> Iterator[Clash]:
        """What does not fit together among plain, flat `values`; see `riskva.recipe.clashes`."""
        yield from ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        values = self.model_dump(mode="json")
        for clash in self.clashes(values | values.get("training", {})):
            raise ValueError(f"{clash.keys[0]}: {clash.text}")
        return self


class AnswerField(Frozen):
    """One line of the answer, as a recipe words it; see `riskva.report.ReportField`."""

    label: str
    column: str
    default: str | None = None
    is_level: bool = False


class AnswerKeys(Frozen):
    """The form of the report."""

    answer_fields: tuple[AnswerField, ...] | None = Field(
        None, description="The answer's lines in their order: label, table column, optional default, is_level."
    )

    def report_format(self) -> ReportFormat | None:
        """The format that `answer_fields` describe, or None when the recipe leaves it to the data or the model."""
        return build_format(self.model_dump(include={"answer_fields"})["answer_fields"])


class ReportKeys(AnswerKeys):
    """The form of the report, and what a photo is asked."""

    system_prompt: str | None = Field(None, description="The system message; a sensible default is built in.")
    question: str | None = Field(None, description="What a photo is asked; by default it spells out the answer's form.")


class RecordKeys(Frozen):
    """What becomes of reports: the form that people take them on in, and which of them a person looks at."""

    output_file: Path | None = Field(
        None, description="The reports as .json, .jsonl or .csv (for Excel); default: reports.json in output_dir."
    )
    compare_gt: bool = Field(False, description="Each report beside the row's own, and where the two agree.")
    review_below: Share | None = Field(
        None, description="Reports whose level is less sure than this go on the list for a person, review.jsonl."
    )
    always_review: Levels = Field((), description="Levels that always go on that list, as in 严重.")
    overwrite_output_dir: bool = False


class ProcessKeys(Frozen):
    """How many processes work on it."""

    nproc_per_node: Positive | None = Field(None, description="Processes on this machine; default: one a GPU.")

    @property
    def shares_work(self) -> bool:
        """Whether several processes can do this very job together."""
        return True


class ModelKeys(Frozen):
    """Which model, and how it sees photos."""

    model_name_or_path: str = Field(description="A folder with a Qwen2.5-VL, or its name on the hub.")
    adapter_name_or_path: str | None = Field(None, description="A LoRA adapter on top of the model.")
    template: Literal["qwen2_vl", "qwen2_5_vl"] = "qwen2_vl"
    image_max_pixels: Positive | None = Field(
        None, description="Photos above this are shrunk. Default: as the adapter was trained, or 1024 x 1024."
    )
    image_min_pixels: Positive | None = Field(None, description="Photos below this are enlarged. Default: 56 x 56.")
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"


class DataKeys(Frozen):
    """Which rows."""

    dataset_dir: Path = Field(Path("data"), description="The folder that holds dataset_info.json.")
    media_dir: Path | None = Field(None, description="What image paths are relative to; default: dataset_dir.")
    max_samples: Positive | None = Field(None, description="Use at most this many rows of each data set.")
    cutoff_len: Positive = Field(4096, description="Longest row in tokens, image tokens included; none is ever cut.")
    verify: Literal["size", "full", "off"] = Field(
        "size",
        description="Compare the data's files with its manifest first: their sizes, or also SHA-256 (reads them all).",
    )
    preprocessing_num_workers: Positive | None = Field(
        None, description="Threads that measure rows, or processes that read photos for prediction; default: the cores."
    )


class GenerationKeys(Frozen):
    """How answers are written."""

    max_new_tokens: Positive = Field(512, description="The longest answer, in tokens; one that is cut off is none.")
    do_sample: bool = Field(False, description="False is greedy: the same answer every time.")
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    per_device_eval_batch_size: Positive = 4
    max_field_chars: Positive = Field(
        400, description="constrain: the longest text of one field, in characters; longer ones end there."
    )
    bf16: bool = Field(False, description="Compute in bfloat16; default: the precision the model was saved in.")
    seed: int = 42
