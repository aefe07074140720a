"""The tiny pretrained Qwen2.5-VL that ships under riskva/assets, made from nothing: no downloads, no GPU.

    python scripts/make_tiny_base.py [--out riskva/assets/tiny-qwen2.5-vl] [--work build/tiny_base]

A random model of 2.4 million weights is trained, by `riskva-run scripts/tiny_base.yaml`, to describe drawn photos in
generic words: "a little of a winding black line", not "slight crack"; and, by exercises without a photo, to read and
write the words of inspectors. A second course asks late and long. Then the weights are rounded to bfloat16 and saved
with their processor files. Interrupted, the same command goes on: finished parts under --work are kept, a training
resumes from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from command_line import folder_to_write
from drawn_defects.captions import Caption, caption
from drawn_defects.language import exercise, long_caption, other_system_prompt
from drawn_defects.photos import Scene, random_scene
from drawn_defects.processes import for_each_number
from drawn_defects.seeds import BASE_SEEDS
from drawn_defects.table import Drawing
from make_tiny_model import build_tiny_model
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from riskva.cli import main as riskva_run
from riskva.console import note
from riskva.data.parallel import num_cores
from riskva.files import write_json

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPE = REPOSITORY / "scripts" / "tiny_base.yaml"
NUM_VAL = 500

Row = dict[str, object]
Describe = Callable[[Scene, np.random.Generator], Caption]


@dataclass(frozen=True)
class Course:
    """One training: its photos (their number and the seed that draws them), how they are described, what comes with it.

    `text_share` is how many exercises without a photo there are for each photo; `is_long` puts sentences that do not
    matter before the question and into the system prompt.
    """

    name: str
    seed: int
    num_photos: int
    text_share: float
    is_long: bool
    overrides: tuple[str, ...] = ()

    @property
    def describe(self) -> Describe:
        return long_caption if self.is_long else caption


COURSES = (
    Course("short", seed=BASE_SEEDS[0], num_photos=70_000, text_share=0.2, is_long=False),
    Course(
        "long", seed=BASE_SEEDS[1], num_photos=30_000, text_share=0.2, is_long=True,
        overrides=("num_train_epochs=1", "learning_rate=1.0e-3"),
    ),
)  # fmt: skip


def make_tiny_base(out: Path, work: Path, courses: Sequence[Course] = COURSES, overrides: Sequence[str] = ()) -> int:
    """Everything from the random model to the files in `out`; the exit status of the training that did not end well."""
    start = work / "random"
    if not (start / "processor_config.json").is_file():  # written last
        random_start(start)
    model = start
    for course in courses:
        data, trained = work / course.name / "data", work / course.name / "sft"
        if not (data / "dataset_info.json").is_file():
            write_lessons(data, course, copied_words(start))
        places = [f"model_name_or_path={model}", f"dataset_dir={data}", f"output_dir={trained}"]
        if not (trained / "train_results.json").is_file():
            status = riskva_run([str(RECIPE), *places, *course.overrides, *overrides])
            if status:
                return status
        model = trained
    ship(model, start, out)
    return 0


def random_start(folder: Path) -> Path:
    """The untrained model: four text layers and four vision blocks of width 128, windowed but for the last."""
    return build_tiny_model(
        folder,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vision_hidden_size=128,
        vision_depth=4,
        vision_num_heads=4,
        vocab_size=1800,
        initializer_range=0.06,
        head_range=0.15,
    )


def copied_words(model: Path) -> list[str]:
    """The vocabulary's Chinese words: what the copying rows are made of."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    words = {tokenizer.decode([token]).strip() for token in range(len(tokenizer))}
    return sorted(word for word in words if word and all("一" <= char <= "鿿" for char in word))


def write_lessons(folder: Path, course: Course, words: Sequence[str], num_val: int = NUM_VAL) -> None:
    """Drawn photos and texts with questions and answers, as the data sets drawings_train and drawings_val."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    photos = for_each_number(partial(_photo_row, folder, course), course.num_photos, num_cores(), "photos")
    rng = np.random.default_rng(course.seed)
    texts = [_row(f"text_{number}", exercise(words, rng)) for number in range(int(len(photos) * course.text_share))]
    parts = {"train": photos[num_val:] + texts, "val": photos[:num_val]}
    for name, rows in parts.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    write_json(folder / "dataset_info.json", {f"drawings_{name}": _entry(name) for name in parts})  # last: all is there


def _entry(name: str) -> Row:
    roles = {"role_tag": "role", "content_tag": "content", "system_tag": "system"}
    return {
        "file_name": f"{name}.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {**roles, "user_tag": "user", "assistant_tag": "assistant"},
    }


def _photo_row(folder: Path, course: Course, number: int) -> Row:
    rng = np.random.default_rng((course.seed, number))
    drawn = Drawing(course.seed).draw(random_scene(rng), rng)
    name = f"images/{number:05d}.jpg"
    drawn.save(folder / name)
    system = other_system_prompt(drawn.rng) if course.is_long else None
    return _row(f"photo_{number}", course.describe(drawn.scene, drawn.rng), name, system)


def _row(name: str, text: Caption, image: str | None = None, system: str | None = None) -> Row:
    messages = [
        *([{"role": "system", "content": system}] if system else []),
        {"role": "user", "content": ("<image>" if image else "") + text.question},
        {"role": "assistant", "content": text.answer},
    ]
    return {"id": name, "messages": messages, "images": [image] if image else []}


def ship(trained: Path, start: Path, out: Path) -> None:
    """The trained weights in bfloat16, and the processor's files of `start`, in `out`; the weights last."""
    out.mkdir(parents=True, exist_ok=True)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(trained, dtype=torch.bfloat16)
    with TemporaryDirectory(dir=out.parent) as folder:
        model.save_pretrained(folder)
        for path in sorted(Path(folder).iterdir(), key=lambda path: path.suffix == ".safetensors"):
            path.chmod(0o644)
            shutil.move(path, out / path.name)
    for path in start.iterdir():
        if path.suffix != ".safetensors" and not (out / path.name).exists():
            shutil.copyfile(path, out / path.name)
    size = sum(path.stat().st_size for path in out.iterdir())
    note(f"{out}: {model.num_parameters():,} weights, {size / 2**20:.1f} MiB in all")


def main() -> None:
    """Make the base that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that win over the recipe's")
    parser.add_argument("--out", type=folder_to_write, default=REPOSITORY / "riskva" / "assets" / "tiny-qwen2.5-vl")
    parser.add_argument("--work", type=folder_to_write, default=REPOSITORY / "build" / "tiny_base")
    asked = parser.parse_intermixed_args()
    sys.exit(make_tiny_base(asked.out, asked.work, overrides=asked.overrides))


if __name__ == "__main__":
    main()
