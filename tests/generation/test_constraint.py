"""Whatever a model would write, what it writes under the constraint is a report, and no report is ruled out."""

import json
import random
from pathlib import Path

import pytest
import torch
from report_rows import report
from user_rows import drawn_conversations

from riskva.encoding import Processor, load_processor
from riskva.generation.answer import end_tokens
from riskva.generation.constraint import ConstrainedRows, Constraint, Form, grammar_of
from riskva.generation.engines import load_answering, report_writer
from riskva.generation.prompts import PromptEncoder
from riskva.recipe.key_groups import GenerationKeys
from riskva.report import DEFAULT_FORMAT, LEVEL_LABELS, ReportField, ReportFormat, RiskLevel, RiskReport

LEVEL_LAST = ReportFormat((ReportField('说明 "甲\\乙"', "a"), ReportField("等级", "b", is_level=True)))
FORMS: tuple[Form, ...] = ("report", "json")


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)


def constraint(
    processor: Processor, form: Form, report_format: ReportFormat = DEFAULT_FORMAT, chars: int = 9
) -> Constraint:
    ends = end_tokens(processor)
    return Constraint(grammar_of(report_format, form, chars), processor, len(processor.tokenizer), ends)


def chosen(rows: ConstrainedRows, processor: Processor, draw: random.Random, steps: int) -> list[int]:
    """What a model writes that likes another token at every step."""
    ids: list[int] = [0]
    for _ in range(steps):
        scores = torch.tensor([[draw.gauss(0, 1) for _ in range(len(processor.tokenizer))]])
        token = int(rows(torch.tensor([ids]), scores).argmax())
        ids.append(token)
        if token in end_tokens(processor):
            break
    return ids[1:]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("report_format", [DEFAULT_FORMAT, LEVEL_LAST], ids=["default", "level last"])
def test_random_answers_are_reports_and_texts_are_bounded(
    processor: Processor, form: Form, report_format: ReportFormat
) -> None:
    held, draw = constraint(processor, form, report_format), random.Random(3)
    levels: set[RiskLevel] = set()
    for _ in range(40):
        ids = chosen(held.for_batch(1, first=1, is_greedy=True), processor, draw, steps=400)
        assert ids[-1] in end_tokens(processor)
        text = processor.tokenizer.decode(ids, skip_special_tokens=True)
        reading = report_format.read_answer(text)
        assert reading.report is not None, (text, reading.reason)
        assert not set(reading.tolerated) - ({"json"} if form == "json" else {"blanks"}), text
        assert all(0 < len(value) <= 9 for value in reading.report.texts.values())
        levels.add(reading.report.level)
    assert levels == set(RiskLevel)


def test_greedy_rows_choose_what_a_mask_at_every_step_would(processor: Processor) -> None:
    held = constraint(processor, "report")
    for seed in range(10):
        short, full = (
            chosen(held.for_batch(1, first=1, is_greedy=is_greedy), processor, random.Random(seed), steps=60)
            for is_greedy in (True, False)
        )
        assert short == full


def test_masks_are_rare_for_what_is_a_report_anyway(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = report_ids(processor, DEFAULT_FORMAT.render(report(1, RiskLevel.SEVERE)))
    rows = constraint(processor, "report", chars=400).for_batch(1, first=1, is_greedy=True)
    monkeypatch.setattr("riskva.generation.constraint._allowed", lambda *_: pytest.fail("a mask was made"))
    for place, token in enumerate(ids):
        scores = torch.zeros(1, len(processor.tokenizer))
        scores[0, token] = 1
        assert int(rows(torch.tensor([[0, *ids[:place]]]), scores).argmax()) == token


def report_ids(processor: Processor, text: str) -> list[int]:
    return [*processor.tokenizer(text, add_special_tokens=False)["input_ids"], end_tokens(processor)[0]]


@pytest.mark.parametrize("number", range(6))
def test_no_rendered_report_is_ruled_out(processor: Processor, number: int) -> None:
    """With texts as people write them: marks, numbers, Latin letters, emphasis, spaces."""
    texts = {
        "风险描述": "（1）水、**电** 3.5mm；“潮”",
        "纠正和预防建议": "①先查 PVC 管; 2. 再补《规范》",
        "缺陷描述": "-5℃ 裂缝。",
    }
    whole = RiskReport(RiskLevel(number % 3), texts) if number < 3 else report(number, RiskLevel(number % 3))
    assert accepts(processor, DEFAULT_FORMAT.render(whole))


def accepts(processor: Processor, text: str) -> bool:
    matcher = constraint(processor, "report", chars=400)._matcher.deep_copy()
    return bool(matcher.consume_tokens(report_ids(processor, text)))


BEHIND = "\n**纠正和预防建议**: 补。\n**缺陷描述**: 缝。"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("**风险描述**: 裂。\n**风险等级**: 一般" + BEHIND, "none of the levels"),
        ("**风险描述**: 裂。\n**风险等级**: 轻微", "fields are missing"),
        ("**风险描述**:  \n**风险等级**: 轻微" + BEHIND, "an empty text"),
        ("**风险描述**: 裂。\n\n**风险等级**: 轻微" + BEHIND, "an empty line"),
        (
            "好的。**风险描述**: 裂。\n**风险等级**: 轻微\n**纠正和预防建议**: 补。\n**缺陷描述**: 缝。",
            "text before it",
        ),
        (
            "**风险描述**: " + "裂" * 401 + "\n**风险等级**: 轻微\n**纠正和预防建议**: 补。\n**缺陷描述**: 缝。",
            "too long",
        ),
    ],
)
def test_what_is_no_report_is_ruled_out(processor: Processor, text: str, reason: str) -> None:
    assert not accepts(processor, text), reason


def test_json_is_json(processor: Processor) -> None:
    held = constraint(processor, "json", LEVEL_LAST)
    ids = chosen(held.for_batch(1, first=1, is_greedy=True), processor, random.Random(1), steps=200)
    found = json.loads(processor.tokenizer.decode(ids, skip_special_tokens=True))
    assert list(found) == list(LEVEL_LAST.labels)
    assert found["等级"] in LEVEL_LABELS


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("do_sample", [False, True])
def test_a_model_of_random_weights_writes_reports(
    tiny_model: Path, processor: Processor, form: Form, do_sample: bool
) -> None:
    """All that end are reports; one that max_new_tokens cut off is none."""
    keys = GenerationKeys(max_new_tokens=200, max_field_chars=8, do_sample=do_sample, temperature=1.5)
    model, encode = load_answering(tiny_model, None), PromptEncoder(processor, 4096)
    prompts = [encode(row.prompt) for row in drawn_conversations(6)]
    torch.manual_seed(0)
    answers = report_writer(model, processor, DEFAULT_FORMAT, keys, form)(prompts)
    assert {answer.finish_reason for answer in answers} == {"stop"}
    for answer in answers:
        assert DEFAULT_FORMAT.read_answer(answer.text).report is not None, answer.text
        assert answer.level_probabilities is not None
    short = GenerationKeys(max_new_tokens=5, max_field_chars=8)
    cut = report_writer(model, processor, DEFAULT_FORMAT, short, form)(prompts)
    assert {answer.finish_reason for answer in cut} == {"length"}
