"""Answers to a fixed sample of rows, written again and again by a model that is being trained."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel

from riskva.console import progress, warn
from riskva.data.conversation import Conversations
from riskva.data.datasets import ConversationDataset
from riskva.distributed import gathered, num_processes, rank
from riskva.encoding import Processor, encode
from riskva.errors import DataError
from riskva.generation.answer import Writer, generation_settings
from riskva.recipe.key_groups import GenerationKeys
from riskva.report import ReportFormat, RiskLevel, RiskReport


@dataclass(frozen=True)
class Sample:
    """Rows to answer; `references` run parallel to them and are what should be answered."""

    conversations: Conversations
    references: tuple[RiskReport, ...]

    @property
    def by_level(self) -> str:
        """How many rows there are of each level: a level with a handful makes every score of it a matter of chance."""
        counts = Counter(report.level for report in self.references)
        return ", ".join(f"{level.label} {counts[level]}" for level in RiskLevel)


def draw_sample(rows: ConversationDataset, number: int, seed: int, report_format: ReportFormat) -> Sample:
    """`number` of the rows in their order, all if there are fewer; the same seed always draws the same ones.

    Drawn rows whose own answer is no report cannot be scored and are left out with a warning; `DataError` if that
    leaves none.
    """
    drawn = sorted(random.Random(seed).sample(range(len(rows)), min(number, len(rows))))
    labels = {index: report_format.parse(rows[index].answer or "") for index in drawn}
    reports = {index: label for index, label in labels.items() if isinstance(label, RiskReport)}
    left_out = (
        f"predict_with_generate: {len(drawn) - len(reports)} of {len(drawn)} evaluation rows drawn hold no report with "
        f"the fields {', '.join(report_format.labels)}"
    )
    if not reports:
        raise DataError(f"{left_out}: there is nothing to score; name an eval_dataset of reports")
    if len(reports) < len(drawn):
        warn(f"{left_out}: they are not answered")
    return Sample(rows.select(list(reports)), tuple(reports.values()))


@dataclass(frozen=True)
class SampleAnswerer:
    """Answers the sample with the model that it is given: greedily, asked and answered as under `stage: predict`.

    Photos are encoded anew each time, batch by batch, so that nothing is kept in memory between evaluations: that
    takes hundredths of a second a row, writing the answer takes seconds. No random number is drawn, and the model is
    left as it was found; it must be in evaluation mode.
    """

    sample: Sample
    processor: Processor
    max_new_tokens: int
    batch_size: int

    def __call__(self, model: PreTrainedModel | PeftModel) -> list[str]:
        """Each row's answer, in order. Every process of a run must call this; each does its share and gets them all.

        Under ZeRO-3 all processes must take each step together, so that all get equally many rows: where they do not
        come out even, some are answered twice and count once.
        """
        num_rows, count = len(self.sample.references), num_processes()
        share = -(-num_rows // count)
        own = [(rank() + turn * count) % num_rows for turn in range(share)]
        what = "answers" if count == 1 else f"answers (on each of {count} processes)"
        parts = gathered(list(progress(self._answers(model, own), share, what)))
        return [parts[row % count][row // count] for row in range(num_rows)]

    def _answers(self, model: PreTrainedModel | PeftModel, rows: Sequence[int]) -> Iterator[str]:
        # Without the adapter's wrapper, which would set a generation_config of its own; LoRA's layers are in the base.
        base = cast(Any, model.get_base_model() if isinstance(model, PeftModel) else model)
        settings = generation_settings(GenerationKeys(max_new_tokens=self.max_new_tokens), self.processor)
        answer = Writer(base, self.processor, settings, always_an_image=num_processes() > 1)
        for first in range(0, len(rows), self.batch_size):
            prompts = [self.sample.conversations[row].prompt for row in rows[first : first + self.batch_size]]
            with _generating_by(settings, base):
                answers = answer([encode(prompt, self.processor) for prompt in prompts])
            yield from (one.text for one in answers)


@contextmanager
def _generating_by(settings: GenerationConfig, model: PreTrainedModel) -> Iterator[None]:
    """Within, the model's own configuration, from which `generate` fills what a caller leaves open, is `settings`.

    Afterwards it is again what checkpoints are to carry.
    """
    kept = model.generation_config
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = kept
