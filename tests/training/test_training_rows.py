import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from shards import write_manifest, write_shards

from riskva.data.datasets import open_datasets
from riskva.data.registry import LENGTHS_FOLDER
from riskva.data.verification import Verify
from riskva.encoding import Processor, load_processor, measure
from riskva.errors import DataError
from riskva.recipe import SftRecipe
from riskva.training.rows import Rows, open_rows

NUM_ROWS = 40


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 rows, the manifest of which lists the file."""
    write_shards(tmp_path / "data", NUM_ROWS, 1, 8)
    write_manifest(tmp_path / "data")
    return tmp_path / "data"


def opened(folder: Path, processor: Processor, *, verify: Verify = "size", seed: int = 42, **how: Any) -> Rows:
    keeps = how.pop("keeps_lengths", True)
    keys = {"stage": "sft", "model_name_or_path": "none", "output_dir": "out", "dataset_dir": folder, **how}
    recipe = SftRecipe.model_validate({**keys, "dataset": ["rows"]})
    return open_rows(recipe, processor, seed, verify, keeps_lengths=keeps)


def test_lengths_are_those_of_the_rows_at_both_starts(folder: Path, processor: Processor) -> None:
    expected = [measure(row, processor) for row in open_datasets(["rows"], folder)]
    for _ in range(2):
        rows = opened(folder, processor, val_size=0.25, verify="full")
        assert rows.train_lengths is not None
        assert rows.evaluation_lengths is not None
        assert rows.evaluation is not None
        assert (len(rows.train), len(rows.evaluation)) == (30, 10)
        for part, lengths in ((rows.train, rows.train_lengths), (rows.evaluation, rows.evaluation_lengths)):
            assert list(lengths) == [expected[int(name)] for name in part.ids]
    assert len(list((folder / LENGTHS_FOLDER).iterdir())) == 2


def test_rows_left_out_are_named_at_both_starts(folder: Path, processor: Processor) -> None:
    longest = max(measure(row, processor).total for row in open_datasets(["rows"], folder))
    for _ in range(2):
        with pytest.raises(DataError, match=rf"of 40 rows are over cutoff_len=\d+ tokens: \d+ \({longest}\)"):
            opened(folder, processor, cutoff_len=longest - 1)
        rows = opened(folder, processor, cutoff_len=longest - 1, drop_overlong=True)
        assert rows.train_lengths is not None
        assert rows.survey is not None
        assert len(rows.train_lengths) == len(rows.train) < NUM_ROWS == len(rows.survey.lengths)
        assert rows.train_lengths.totals.max() < longest


def test_rows_without_an_answer_are_named_at_both_starts(tmp_path: Path, processor: Processor) -> None:
    turns = [{"from": "human", "value": "有何风险？"}]
    (tmp_path / "rows.json").write_text(json.dumps([{"id": "七", "conversations": turns}]), encoding="utf-8")
    entry = {"rows": {"file_name": "rows.json", "formatting": "sharegpt"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(entry), encoding="utf-8")
    for _ in range(2):
        with pytest.raises(DataError, match="1 rows have no answer: 七"):
            opened(tmp_path, processor)


def test_a_plan_writes_nothing(folder: Path, processor: Processor) -> None:
    opened(folder, processor, keeps_lengths=False)
    assert not (folder / LENGTHS_FOLDER).exists()


def test_rows_reach_other_processes_whole(folder: Path, processor: Processor) -> None:
    rows = opened(folder, processor)
    there: Rows = pickle.loads(pickle.dumps(rows))
    assert rows.train_lengths is not None
    assert there.train_lengths is not None
    assert list(there.train_lengths) == list(rows.train_lengths)
    assert there.train.ids == rows.train.ids
    assert there.survey is not None
    assert rows.survey is not None
    assert there.survey.histogram() == rows.survey.histogram()
