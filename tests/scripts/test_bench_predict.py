"""Whether the sides of bench_predict.py answer alike, and what it says of numbers; not how fast they are."""

import random
from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from bench_constraint import LONGEST_TOKEN, call_times, large_tokenizer
from bench_predict import (
    CONSTRAINED,
    ONE_BY_ONE,
    PLAIN,
    RISKVA,
    TINY_BASE,
    Bench,
    Cost,
    Pass,
    Side,
    Written,
    broken_bounds,
    constraint_cost,
    cost_lines,
    prepare,
    run_rounds,
    summarise,
    table,
)
from PIL import Image

from riskva.encoding import encode, load_processor
from riskva.generation.constraint import grammar_of
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport

ROWS = 5
REPORT = DEFAULT_FORMAT.render(RiskReport(RiskLevel(1), dict.fromkeys(DEFAULT_FORMAT.text_labels, "墙面有裂缝")))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    asked = Namespace(rows=ROWS, batch=2, max_new_tokens=12, adapter=None, sides=[56, 140])
    return prepare(asked, tmp_path_factory.mktemp("bench"))


def test_all_sides_read_the_same_prompt(bench: Bench) -> None:
    plain = bench.plain.encode(bench.photos[:1])
    ours = encode(bench.rows[0].prompt, bench.processor)
    assert plain["input_ids"].tolist() == [ours.input_ids.tolist()]
    assert torch.equal(plain["pixel_values"], ours.pixel_values)
    assert len({Image.open(photo).size for photo in bench.photos}) > 1


def test_all_sides_answer_alike(bench: Bench) -> None:
    passes = [*run_rounds(bench, 1, lambda _: None)]
    assert [one.side for one in passes] == [ONE_BY_ONE, PLAIN, RISKVA, CONSTRAINED]
    sides = summarise(bench, passes)
    assert [one.same_texts for one in sides] == [ROWS, ROWS, ROWS, 0]  # untuned, it writes nothing that is allowed
    assert passes[0].answers[0].text
    assert sides[0].padding == 0 < sides[2].padding < sides[1].padding
    assert broken_bounds(sides, constraint_cost(bench, passes, 1), judges_speed=False) == []
    assert len([*table(sides, ROWS)]) == 6


def passed(side: str, *texts: str) -> Pass:
    return Pass(side, 1.0, [Written(text, True) for text in texts])


def test_fields_that_differ_are_judged_by_the_lead_of_the_loops_token(bench: Bench) -> None:
    tokenizer = bench.plain.tokenizer
    ids, rest = tokenizer(REPORT, add_special_tokens=False)["input_ids"], [REPORT] * (ROWS - 2)
    other = tokenizer.decode(ids[:9]) + "#"
    # a half character: under a constraint it could not have been written, and is not compared
    passes = [passed(ONE_BY_ONE, REPORT, REPORT + "\ufffd", *rest), passed(CONSTRAINED, other, REPORT, *rest)]
    side = summarise(bench, passes)[1]
    assert (side.compared, side.same_texts, len(side.differ)) == (ROWS - 1, ROWS - 2, 1)
    # The lead is that of the likeliest token where the texts part, by the model itself
    batch = bench.plain.encode(bench.photos[:1])
    whole = torch.cat([batch["input_ids"], torch.tensor([ids[:9]])], dim=1)
    with torch.no_grad():
        logits = bench.plain.model(
            **{name: batch[name] for name in ("pixel_values", "image_grid_thw")},
            input_ids=whole,
            mm_token_type_ids=(whole == bench.processor.image_token_id).long(),
        ).logits[0, -1]
    first, second = logits.topk(2).values.tolist()
    assert side.differ == [pytest.approx(first - second, abs=1e-4)]
    assert len(side.broken) == int(first - second > 1e-3)


def side(name: str, **values: object) -> Side:
    return replace(Side(name, 10.0, 3.5, 64, [], 64, 64, 0.1), **values)


def test_what_is_broken_is_named() -> None:
    good = [side(ONE_BY_ONE, ratio=1.0), side(PLAIN, ratio=2.0), side(RISKVA), side(CONSTRAINED)]
    assert broken_bounds(good, Cost(4, 1.0, 1.049)) == []
    (unmeasured,) = broken_bounds(good, Cost(0, None, None))
    assert "the constraint's cost was not measured" in unmeasured
    assert broken_bounds(good, Cost(0, None, None), judges_speed=False) == []
    bad = [side(RISKVA, ratio=2.9), side(PLAIN, differ=[1e-5, 0.2])]
    told = [
        "RisKVA, constrain: off: 2.90 times the loop's reports a second, at least 3",
        "plain batches: 1 rows have other fields than the loop's, and not near a tie",
        "the constraint costs 7.0 % of a token's time, less than 5",
    ]
    assert broken_bounds(bad, Cost(4, 1.0, 1.07)) == told
    assert broken_bounds(bad, Cost(4, 1.0, 1.07), judges_speed=False) == told[1:2]
    assert broken_bounds(bad, Cost(4, 1.0, 1.07), judges_fields=False) == told[::2]


def test_what_a_constraint_costs_is_measured_on_answers_that_are_the_same_without_it(bench: Bench) -> None:
    passes = [passed(RISKVA, "a", "b", "c", "d", "e"), passed(CONSTRAINED, "a", "b", "x", "d", "y")]
    cost = constraint_cost(bench, passes, 2)
    assert cost.num_rows == 3
    assert cost.free is not None
    assert cost.held is not None
    assert 0 < cost.free < 1
    assert -90 < cost.percent < 900
    assert constraint_cost(bench, [passes[0], passed(CONSTRAINED, *"vwxyz")], 2) == Cost(0, None, None)
    assert next(cost_lines(Cost(8, 0.01, 0.0103), [], 16)).startswith("constraint: +3.0 % of a token's time (10300 us")


def test_calls_are_timed_at_a_vocabulary_that_is_made_up() -> None:
    processor = load_processor(TINY_BASE)
    large = large_tokenizer(processor.tokenizer, random.Random(0), 4000)
    assert len(large) == 4000
    assert large.decode(large(REPORT)["input_ids"]) == REPORT
    assert len(large(REPORT)["input_ids"]) <= len(processor.tokenizer(REPORT)["input_ids"])
    assert max(map(len, large.get_vocab())) <= LONGEST_TOKEN
    grammar = grammar_of(DEFAULT_FORMAT, "report", 40)
    calls = call_times("large", replace(processor, tokenizer=large), 4100, grammar, REPORT)
    assert 0 < calls.validate < calls.masked_step
    assert len([*cost_lines(Cost(0, None, None), [calls], 16)]) == 5
    with pytest.raises(RuntimeError, match="does not allow"):
        call_times("small", processor, 1920, grammar, "风险")
