"""Which rows are answered again and again, and that answering them leaves a model as it was found."""

from pathlib import Path

import pytest
import torch
from shards import write_shards
from user_rows import drawn_conversations

from riskva.data.datasets import ConversationDataset, open_datasets
from riskva.encoding import encode, load_processor
from riskva.errors import DataError
from riskva.generation.answer import Writer, generation_settings
from riskva.generation.sampled import SampleAnswerer, draw_sample
from riskva.modeling.loading import load_model
from riskva.recipe.key_groups import GenerationKeys
from riskva.report import DEFAULT_FORMAT, ReportField, ReportFormat

OTHER_FORMAT = ReportFormat((ReportField("等级", "a", is_level=True), ReportField("说明", "b")))


@pytest.fixture
def rows(tmp_path: Path) -> ConversationDataset:
    return open_datasets(["rows"], write_shards(tmp_path, 12, num_files=2, rows_per_group=3))


def test_the_seed_decides_which_rows_are_drawn(rows: ConversationDataset) -> None:
    drawn = draw_sample(rows, 5, 1, DEFAULT_FORMAT)
    ids = [drawn.conversations[index].id for index in range(len(drawn.conversations))]
    assert ids == sorted(ids, key=int)
    assert len(set(ids)) == 5
    again, other = draw_sample(rows, 5, 1, DEFAULT_FORMAT), draw_sample(rows, 5, 2, DEFAULT_FORMAT)
    assert again.references == drawn.references
    assert [again.conversations[index].id for index in range(5)] == ids
    assert [other.conversations[index].id for index in range(5)] != ids


def test_all_rows_are_drawn_where_there_are_fewer(rows: ConversationDataset) -> None:
    drawn = draw_sample(rows, 100, 1, DEFAULT_FORMAT)
    assert len(drawn.conversations) == len(drawn.references) == 12
    labels = [DEFAULT_FORMAT.parse(str(drawn.conversations[index].answer)) for index in range(12)]
    assert labels == list(drawn.references)


def test_rows_that_hold_no_report_are_none_to_score(rows: ConversationDataset) -> None:
    with pytest.raises(DataError, match=r"12 of 12 evaluation rows drawn hold no report with the fields 等级, 说明"):
        draw_sample(rows, 20, 1, OTHER_FORMAT)


def test_answers_are_those_of_a_prediction_and_leave_no_trace(rows: ConversationDataset, tiny_model_hub: Path) -> None:
    processor, model = load_processor(tiny_model_hub), load_model(tiny_model_hub).eval()
    sample, own = draw_sample(rows, 5, 1, DEFAULT_FORMAT), model.generation_config
    before = torch.random.get_rng_state()
    answers = SampleAnswerer(sample, processor, max_new_tokens=8, batch_size=2)(model)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.generation_config is own
    model.generation_config = settings = generation_settings(GenerationKeys(max_new_tokens=8), processor)
    prompts = [encode(sample.conversations[index].prompt, processor) for index in range(5)]
    assert answers == [one.text for one in Writer(model, processor, settings)(prompts)]


def test_a_blank_image_changes_no_answer(tiny_model: Path) -> None:
    processor, model = load_processor(tiny_model), load_model(tiny_model).eval()
    settings = generation_settings(GenerationKeys(max_new_tokens=12), processor)
    prompts = [encode(row.prompt, processor) for row in drawn_conversations(3, with_photos=False)]
    assert Writer(model, processor, settings, always_an_image=True)(prompts) == Writer(model, processor, settings)(
        prompts
    )
