"""RisKVA's predictions beside plain loops of transformers, in one run on this machine's CPU.

    bash scripts/demo.sh                                   # once: trains the adapter
    python scripts/bench_predict.py --adapter demo/outputs/sft [--rows 128] [--batch 16] [--repeats 3] [--json F.json]
    python scripts/bench_predict.py --adapter demo/outputs/sft --sides 112 448     # more to pad

All sides answer the same drawn photos of mixed sizes with the shipped tiny model, greedily, in float32, with the same
prompt; without --adapter the model is untuned and no answer comes to an end. (The demo's adapter knows photos of 112
px; of much larger ones it writes texts that are seldom reports.) They take turns, and times are medians. A time holds
all from the files of photos to texts, and not the loading of the model.

- one by one: a loop of transformers' own parts: open a photo, tokenizer and image processor, `generate`, decode.
- plain batches: the same with batches in the order of the files, padded on the left.
- RisKVA: what `stage: predict` runs, with `constrain: off` and with `constrain: report`.

The fields of every answer must be those of the loop, but where the loop's own choice of a token was next to a tie;
under a constraint, those of every answer of the loop that it allows. What a constraint costs is measured in answers
that are the same without it, and call by call, at this model's vocabulary and at one of 151,936 tokens. Exit status 1
if a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from bench_constraint import QWEN_SCORES, Calls, call_times, large_tokenizer
from command_line import count, file_to_write
from mixed_photos import draw_mixed_photos
from peft import PeftModel
from PIL import Image
from transformers import AutoTokenizer, GenerationConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from riskva.data.parallel import num_photo_workers
from riskva.data.photo_inputs import PhotoFiles, open_inputs
from riskva.encoding import Encoded, Processor, load_processor
from riskva.encoding.encode import measure
from riskva.files import write_json
from riskva.generation.answer import ReportWriter, generation_settings
from riskva.generation.batches import LengthBuckets
from riskva.generation.constraint import grammar_of
from riskva.generation.engines import load_answering, report_writer
from riskva.generation.journal import Journal
from riskva.generation.predict import predict
from riskva.generation.prompts import PromptDataset, PromptEncoder
from riskva.modeling.context import ModelContext
from riskva.modeling.resolving import asking_of
from riskva.recipe.key_groups import GenerationKeys
from riskva.report import ReportFormat, RiskLevel, RiskReport

TINY_BASE = Path(__file__).resolve().parents[1] / "riskva/assets/tiny-qwen2.5-vl"
CUTOFF = 4096
IMAGE_TOKEN = "<|image_pad|>"

ONE_BY_ONE, PLAIN, RISKVA, CONSTRAINED = "one by one", "plain batches", "RisKVA, constrain: off", "RisKVA"
LEAST_RATIO = 3.0
"""RisKVA's reports a second over those of the loop, with and without a constraint, in batches of 16."""
NEAR_TIE = 1e-3
"""Logits of the two likeliest tokens that differ by no more are next to a tie: float32 sums in another order."""
MOST_COST = 5.0
"""Per cent of a token's time that a constraint may take, by the issue's bound."""
COST_REPEATS = 3
"""A constraint's cost is small, so it is measured so many times as often."""
STEP_SECONDS = 0.030
"""Of a decoding step of the 7B on a data-centre GPU, about."""


@dataclass(frozen=True)
class Written:
    """An answer: its text, and whether it came to an end."""

    text: str
    is_whole: bool


@dataclass(frozen=True)
class Pass:
    """All rows answered once by one side."""

    side: str
    seconds: float
    answers: list[Written]


@dataclass(frozen=True)
class Plain:
    """transformers' own parts, as an engineer puts them together."""

    model: Any
    tokenizer: Any
    image_processor: Any
    settings: GenerationConfig
    messages: list[dict[str, Any]]

    @classmethod
    def load(cls, base: Path, adapter: Path | None, context: ModelContext, settings: GenerationConfig) -> Plain:
        """The model with its adapter, and the prompt as transformers' chat template takes it."""
        model: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
        if adapter is not None:
            model = PeftModel.from_pretrained(model, adapter)
        asking = asking_of(context)
        before, after = asking.question.split("<image>")
        parts = [{"type": "text", "text": before}, {"type": "image"}, {"type": "text", "text": after}]
        question = {"role": "user", "content": [one for one in parts if one.get("text") != ""]}
        system = [{"role": "system", "content": asking.system_prompt}] if asking.system_prompt else []
        image_processor = Qwen2VLImageProcessorPil.from_pretrained(base)
        tokenizer = AutoTokenizer.from_pretrained(base)
        return cls(model.eval(), tokenizer, image_processor, settings, [*system, question])

    def encode(self, photos: Sequence[Path]) -> dict[str, torch.Tensor]:
        """A batch, padded on the left."""
        images = [Image.open(path).convert("RGB") for path in photos]
        seen = self.image_processor(images=images, return_tensors="pt")
        text = self.tokenizer.apply_chat_template(self.messages, tokenize=False, add_generation_prompt=True)
        numbers = seen["image_grid_thw"].prod(dim=1) // self.image_processor.merge_size**2
        texts = [text.replace(IMAGE_TOKEN, IMAGE_TOKEN * number) for number in numbers.tolist()]
        batch = self.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
        is_image = batch["input_ids"] == self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        return {**batch, **seen, "mm_token_type_ids": is_image.long()}

    def answer(self, photos: Sequence[Path]) -> list[Written]:
        """Open, encode, generate, decode."""
        batch = self.encode(photos)
        with torch.no_grad():
            ids = self.model.generate(**batch, generation_config=self.settings)[:, batch["input_ids"].shape[1] :]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        ends = torch.isin(ids, torch.tensor(self.settings.eos_token_id)).any(dim=1).tolist()
        return [Written(text, whole) for text, whole in zip(texts, ends, strict=True)]

    def margin(self, photo: Path, text: str, other: str) -> float:
        """By how much the logit of the chosen token led where this side's `text` and the `other` part."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        same = max(number for number in range(len(ids) + 1) if other.startswith(self.tokenizer.decode(ids[:number])))
        batch = self.encode([photo])
        told = torch.tensor([ids[:same]], dtype=torch.int64)
        for name, more in (("input_ids", told), ("attention_mask", told * 0 + 1), ("mm_token_type_ids", told * 0)):
            batch[name] = torch.cat([batch[name], more], dim=1)
        with torch.no_grad():
            first, second = self.model(**batch).logits[0, -1].topk(2).values.tolist()
        return float(first - second)


@dataclass(frozen=True)
class Bench:
    """What all sides share."""

    photos: list[Path]
    rows: PhotoFiles
    processor: Processor
    report_format: ReportFormat
    keys: GenerationKeys
    plain: Plain
    model: Any
    batch: int
    folder: Path

    def one_by_one(self) -> Pass:
        """As the first version of this project did it."""
        began = time.perf_counter()
        answers = [self.plain.answer([photo])[0] for photo in self.photos]
        return Pass(ONE_BY_ONE, time.perf_counter() - began, answers)

    def plain_batches(self) -> Pass:
        """In the order of the files."""
        began = time.perf_counter()
        answers = [one for batch in in_order(self.photos, self.batch) for one in self.plain.answer(batch)]
        return Pass(PLAIN, time.perf_counter() - began, answers)

    def riskva(self, constrain: Any) -> Pass:
        """As `riskva.generation.run` does it, the journal included; nothing is kept of an earlier pass."""
        journal = Journal(Path(tempfile.mkdtemp(dir=self.folder)) / "answers")
        began = time.perf_counter()
        predict(
            PromptDataset(self.rows, PromptEncoder(self.processor, CUTOFF)),
            LengthBuckets(self.rows, range(len(self.rows)), self.batch, self.processor),
            self.writer(constrain),
            self.report_format,
            journal,
            done=frozenset(),
            num_rows=len(self.rows),
            num_workers=num_photo_workers(),
        )
        lines = {one: json.loads(line) for one, line in journal.lines().items()}
        seconds = time.perf_counter() - began
        rows = [lines[one] for one in self.rows.ids]
        if failed := [row["error"] for row in rows if row.get("error")]:
            raise RuntimeError(failed[0])
        side = CONSTRAINED if constrain != "off" else RISKVA
        return Pass(side, seconds, [Written(row["predict"], row["finish_reason"] == "stop") for row in rows])

    def writer(self, constrain: Any) -> ReportWriter:
        """RisKVA's, with nothing kept of earlier answers."""
        return report_writer(self.model, self.processor, self.report_format, self.keys, constrain)

    def padding(self, batches: Sequence[Sequence[int]]) -> float:
        """The share of padding among the prompts' columns, in these batches of rows."""
        lengths = [measure(self.rows[row].prompt, self.processor).total for row in range(len(self.rows))]
        columns = sum(max(lengths[row] for row in batch) * len(batch) for batch in batches)
        return 1 - sum(lengths) / columns

    def report(self, answer: Written) -> RiskReport | None:
        """The fields of a whole answer."""
        return self.report_format.read_answer(answer.text).report if answer.is_whole else None

    def is_allowed(self, answer: Written) -> bool:
        """Whether a constraint would have let it pass: a report as one is written, without half characters."""
        report = self.report(answer)
        return report is not None and self.report_format.render(report) == answer.text and "\ufffd" not in answer.text


def in_order(rows: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Batches of neighbours."""
    return [rows[at : at + size] for at in range(0, len(rows), size)]


@dataclass(frozen=True)
class Side:
    """What one side has achieved."""

    name: str
    rate: float
    """Reports a second."""
    ratio: float
    """To the loop's rate."""
    compared: int
    """Rows whose fields were compared: all, or under a constraint those where the loop's answer keeps to it."""
    differ: list[float]
    """Of the rows whose fields are others: the lead of the loop's token where the texts part, in logits."""
    same_texts: int
    """Of the rows compared: those with the very text."""
    reports: int
    """Answers that are reports."""
    padding: float

    @property
    def broken(self) -> list[float]:
        """The leads of those that differ, and were not next to a tie."""
        return [lead for lead in self.differ if lead > NEAR_TIE]


def summarise(bench: Bench, passes: Sequence[Pass]) -> list[Side]:
    """The sides in the order of their passes."""
    by_side: dict[str, list[Pass]] = {}
    for one in passes:
        by_side.setdefault(one.side, []).append(one)
    rates = {side: len(bench.rows) / median(one.seconds for one in some) for side, some in by_side.items()}
    beside = by_side[ONE_BY_ONE][0].answers
    rows = range(len(bench.rows))
    buckets = [*LengthBuckets(bench.rows, rows, bench.batch, bench.processor)]
    batches = {ONE_BY_ONE: in_order(rows, 1), PLAIN: in_order(rows, bench.batch), RISKVA: buckets, CONSTRAINED: buckets}
    sides = []
    for name, some in by_side.items():
        compared = [row for row in rows if name != CONSTRAINED or bench.is_allowed(beside[row])]
        answers = some[-1].answers
        differ = [
            bench.plain.margin(bench.photos[row], beside[row].text, answers[row].text)
            for row in compared
            if bench.report(answers[row]) != bench.report(beside[row])
        ]
        same = sum(answers[row] == beside[row] for row in compared)
        reports = sum(bench.report(answer) is not None for answer in answers)
        ratio, padding = rates[name] / rates[ONE_BY_ONE], bench.padding(batches[name])
        sides.append(Side(name, rates[name], ratio, len(compared), differ, same, reports, padding))
    return sides


@dataclass(frozen=True)
class Cost:
    """What a constraint costs where it changes nothing."""

    num_rows: int
    """Whose answers are the same without it."""
    free: float | None
    """Seconds a token without it, in batches of such rows; None where there are none."""
    held: float | None
    """Seconds a token with it."""

    @property
    def percent(self) -> float | None:
        """Of the time of a token."""
        return None if self.free is None or self.held is None else 100 * (self.held / self.free - 1)


def constraint_cost(bench: Bench, passes: Sequence[Pass], repeats: int) -> Cost:
    """Medians over the repeats, in turn. Photos are read and seen before, so that tokens alone are timed."""
    free, held = ({one.side: one for one in passes}[side].answers for side in (RISKVA, CONSTRAINED))
    rows = [row for row, (one, other) in enumerate(zip(free, held, strict=True)) if one == other and one.is_whole]
    encode = PromptEncoder(bench.processor, CUTOFF)
    batches = in_order([encode(bench.rows[row].prompt) for row in rows], bench.batch)
    if not batches:
        return Cost(0, None, None)
    writers = [bench.writer(constrain) for constrain in ("off", "report")]
    for writer in writers:
        seconds_a_token(bench, writer, batches)
    rates = [[seconds_a_token(bench, writer, batches) for writer in writers] for _ in range(repeats)]
    return Cost(len(rows), *(median(some) for some in zip(*rates, strict=True)))


def seconds_a_token(bench: Bench, writer: ReportWriter, batches: Sequence[Sequence[Encoded]]) -> float:
    """Of what the writer writes, the end tokens counted."""
    began = time.perf_counter()
    texts = [answer.text for batch in batches for answer in writer(batch)]
    seconds = time.perf_counter() - began
    return seconds / sum(len(ids) + 1 for ids in bench.plain.tokenizer(texts)["input_ids"])


def table(sides: Sequence[Side], num_rows: int) -> Iterator[str]:
    """The sides in Markdown."""
    yield "| | rows/s | x one by one | fields as one by one | texts | reports | padding |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for one in sides:
        same = f"{one.compared - len(one.differ)} of {one.compared}" + (
            f" ({len(one.differ) - len(one.broken)} near a tie)" if one.differ else ""
        )
        yield (
            f"| {one.name} | {one.rate:.2f} | {one.ratio:.2f} | {same} | {one.same_texts} | "
            f"{one.reports} of {num_rows} | {one.padding:.1%} |"
        )


def cost_lines(cost: Cost, calls: Sequence[Calls], batch: int) -> Iterator[str]:
    """What a constraint costs, in words and in Markdown."""
    if cost.free is None or cost.held is None:
        yield "constraint: no answer is the same without it, so that its cost per token is not measured"
    else:
        yield (
            f"constraint: {cost.percent:+.1f} % of a token's time ({cost.held * 1e6:.0f} us a row, "
            f"{cost.free * 1e6:.0f} without it), in batches of the {cost.num_rows} rows that are answered "
            "alike without it"
        )
    yield ""
    yield (
        "| us per row and token | validate_tokens | consume_token | compute_bitmask | RisKVA's step | with a mask | "
        f"calls in a {STEP_SECONDS * 1e3:.0f} ms step |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for one in calls:
        usual, masked = ((one.validate + one.consume + more) * batch / STEP_SECONDS for more in (0.0, one.mask))
        times = (one.validate, one.consume, one.mask, one.step, one.masked_step)
        cells = " | ".join(f"{seconds * 1e6:.1f}" for seconds in times)
        yield f"| {one.vocabulary} | {cells} | {batch} rows: {usual:.1%}, with a mask for each {masked:.1%} |"


def broken_bounds(
    sides: Sequence[Side], cost: Cost, *, judges_speed: bool = True, judges_fields: bool = True
) -> list[str]:
    """What is not as it must be."""
    broken = []
    for one in sides:
        if judges_speed and one.name in (RISKVA, CONSTRAINED) and one.ratio < LEAST_RATIO:
            broken.append(f"{one.name}: {one.ratio:.2f} times the loop's reports a second, at least {LEAST_RATIO:g}")
        if judges_fields and one.broken:
            broken.append(f"{one.name}: {len(one.broken)} rows have other fields than the loop's, and not near a tie")
    if judges_speed and cost.percent is None:
        broken.append("the constraint's cost was not measured: no answer is the same without it; name an --adapter")
    elif judges_speed and cost.percent is not None and cost.percent >= MOST_COST:
        broken.append(f"the constraint costs {cost.percent:.1f} % of a token's time, less than {MOST_COST:g}")
    return broken


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=count, default=128)
    parser.add_argument("--batch", type=count, default=16)
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--sides", type=count, nargs=2, default=[84, 168], help="shortest and longest, in pixels")
    parser.add_argument("--adapter", type=Path, help="of the shipped tiny model, such as demo/outputs/sft")
    parser.add_argument("--max-new-tokens", type=count, default=120)
    parser.add_argument("--threads", type=count, default=1, help="of torch; readers of photos come on top")
    parser.add_argument("--allow-differences", action="store_true", help="fields that differ are counted, not judged")
    parser.add_argument("--look", action="store_true", help="to see that all runs; speed is not judged")
    parser.add_argument("--json", type=file_to_write, help="all that was measured")
    return parser.parse_args()


def prepare(asked: argparse.Namespace, folder: Path) -> Bench:
    """Draw the photos and load the models."""
    adapter = asked.adapter
    context = (ModelContext.load(adapter) if adapter else None) or ModelContext(str(TINY_BASE))
    photos = draw_mixed_photos(folder / "photos", asked.rows, range(asked.sides[0], asked.sides[1] + 1, 28))
    rows = open_inputs(folder / "photos", asking_of(context))
    assert isinstance(rows, PhotoFiles)
    processor = load_processor(TINY_BASE, context.image_max_pixels, context.image_min_pixels)
    keys = GenerationKeys(max_new_tokens=asked.max_new_tokens, per_device_eval_batch_size=asked.batch)
    settings = generation_settings(keys, processor)
    settings.return_dict_in_generate = False
    plain = Plain.load(TINY_BASE, adapter, context, settings)
    model = load_answering(TINY_BASE, adapter, torch.float32)
    return Bench(photos, rows, processor, context.report_format, keys, plain, model, asked.batch, folder)


def run_rounds(bench: Bench, repeats: int, show: Callable[[str], None]) -> Iterator[Pass]:
    """All sides in turn, and again."""
    sides: list[Callable[[], Pass]] = [
        bench.one_by_one,
        bench.plain_batches,
        lambda: bench.riskva("off"),
        lambda: bench.riskva("report"),
    ]
    for number in range(repeats):
        for side in sides:
            one = side()
            show(f"repeat {number + 1} of {repeats}: {one.side}: {one.seconds:.1f} s")
            yield one


def constraint_calls(bench: Bench) -> list[Calls]:
    """llguidance's calls over a report that is written out, at both vocabularies."""
    form = bench.report_format
    texts = dict.fromkeys(form.text_labels, "客厅墙面存在多处起皮，铲除起皮部位，重新批刮腻子。")
    text, grammar = form.render(RiskReport(RiskLevel(1), texts)), grammar_of(form, "report", 400)
    num_scores = int(bench.model.config.text_config.vocab_size)
    made_up = replace(bench.processor, tokenizer=large_tokenizer(bench.processor.tokenizer, random.Random(0)))
    return [
        call_times(f"{num_scores:,} tokens (this model)", bench.processor, num_scores, grammar, text),
        call_times(f"{QWEN_SCORES:,} tokens (made up)", made_up, QWEN_SCORES, grammar, text),
    ]


def heading(bench: Bench, asked: argparse.Namespace) -> str:
    """What was measured, and on what."""
    lengths = [measure(bench.rows[row].prompt, bench.processor).total for row in range(len(bench.rows))]
    return (
        f"{len(lengths)} rows, prompts of {min(lengths)} to {max(lengths)} tokens, {mean(lengths):.0f} on average; "
        f"batch {asked.batch}, at most {asked.max_new_tokens} new tokens, adapter {asked.adapter}; "
        f"{asked.threads} threads, torch {torch.__version__}, {asked.repeats} repeats\n"
    )


def main() -> int:
    """Answer in all ways, print the tables, and compare with the bounds."""
    asked = options()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as name:
        bench = prepare(asked, Path(name))
        print(heading(bench, asked), flush=True)
        passes = [*run_rounds(bench, asked.repeats, lambda text: print(text, file=sys.stderr, flush=True))]
        cost = constraint_cost(bench, passes, COST_REPEATS * asked.repeats)
        sides, calls = summarise(bench, passes), constraint_calls(bench)
    print("\n".join([*table(sides, asked.rows), "", *cost_lines(cost, calls, asked.batch)]))
    broken = broken_bounds(sides, cost, judges_speed=not asked.look, judges_fields=not asked.allow_differences)
    print("\n".join(["", *broken]) if broken else "\nall bounds are kept")
    if asked.json:
        about = {"rows": asked.rows, "batch": asked.batch, "threads": asked.threads, "torch": torch.__version__}
        seconds = [{"side": one.side, "seconds": one.seconds} for one in passes]
        measured = {
            "sides": [asdict(one) for one in sides],
            "cost": asdict(cost) | {"percent": cost.percent},
            "calls": [asdict(c) for c in calls],
        }
        write_json(asked.json, {"about": about, "passes": seconds, **measured, "broken": broken})
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
