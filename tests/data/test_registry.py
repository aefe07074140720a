import json
from pathlib import Path
from typing import Any

import pytest

from riskva.data.registry import Columns, Registry, Tags, load_registry, prepared_entry
from riskva.errors import DataError, MissingDataError


def registry(folder: Path, entries: Any) -> Registry:
    (folder / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    for name in ("a.json", "b.jsonl", "c.parquet", "notes.txt"):
        (folder / name).touch()
    return load_registry(folder)


def test_alpaca_is_the_default_with_llama_factory_column_names(tmp_path: Path) -> None:
    entry = registry(tmp_path, {"plain": {"file_name": "a.json"}}).entry("plain")
    assert entry.formatting == "alpaca"
    assert (entry.columns.prompt, entry.columns.query, entry.columns.response) == ("instruction", "input", "output")
    assert entry.files == (tmp_path / "a.json",)


def test_columns_that_are_left_out_are_not_used(tmp_path: Path) -> None:
    raw = {"file_name": "a.json", "columns": {"prompt": "q", "response": "a", "images": "pictures"}}
    assert registry(tmp_path, {"x": raw}).entry("x").columns == Columns(
        prompt="q", query=None, response="a", images="pictures"
    )


def test_sharegpt_tags_default_to_from_and_value(tmp_path: Path) -> None:
    raw = {"file_name": "b.jsonl", "formatting": "sharegpt", "tags": {"user_tag": "asker"}}
    entry = registry(tmp_path, {"x": raw}).entry("x")
    assert entry.tags == Tags(user="asker")
    assert entry.columns.messages == "conversations"


def test_openai_defaults_to_messages_with_roles(tmp_path: Path) -> None:
    entry = registry(tmp_path, {"x": {"file_name": "b.jsonl", "formatting": "openai"}}).entry("x")
    assert entry.columns.messages == "messages"
    assert (entry.tags.role, entry.tags.content, entry.tags.user) == ("role", "content", "user")


def test_prepared_entry_reads_as_it_was_written(tmp_path: Path) -> None:
    entry = registry(tmp_path, {"x": prepared_entry("c.parquet", "images")}).entry("x")
    assert entry.formatting == "sharegpt"
    assert entry.tags == Tags("role", "content", "user", "assistant")
    assert (entry.columns.messages, entry.columns.images) == ("messages", "images")


def test_a_folder_stands_for_its_data_files_in_order(tmp_path: Path) -> None:
    assert [path.name for path in registry(tmp_path, {"x": {"file_name": "."}}).entry("x").files] == [
        "a.json",
        "b.jsonl",
        "c.parquet",
    ]


def test_a_pattern_stands_for_the_files_that_match(tmp_path: Path) -> None:
    for number in (1, 0):
        (tmp_path / f"train-0000{number}-of-00002.parquet").touch()
    files = registry(tmp_path, {"x": {"file_name": "train-*-of-00002.parquet"}}).entry("x").files
    assert [path.name for path in files] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"hf_hub_url": "someone/data"}, "RisKVA reads local files"),
        ({"ms_hub_url": "someone/data"}, "RisKVA reads local files"),
        ({"script_url": "folder"}, "RisKVA reads local files"),
        ({"cloud_file_name": "s3://x"}, "RisKVA reads local files"),
        ({"file_name": "a.json", "ranking": True}, "ranking: true"),
        ({"file_name": "a.json", "formating": "sharegpt"}, "unknown key 'formating', did you mean 'formatting'"),
        ({"file_name": "a.json", "formatting": "sharegtp"}, "formatting 'sharegtp' is none of"),
        ({"file_name": "a.json", "columns": {"image": "x"}}, "columns: unknown key 'image', did you mean 'images'"),
        ({"file_name": "a.json", "columns": {"videos": "x"}}, "no videos"),
        ({"file_name": "a.json", "columns": {"chosen": "x"}}, "no chosen"),
        ({"file_name": "a.json", "columns": []}, "expected an object"),
        ({"file_name": "a.json", "tags": {"role": "x"}}, "did you mean 'role_tag'"),
        ({"file_name": "a.json", "num_samples": 0}, "num_samples"),
        ({"file_name": "a.json", "columns": {"prompt": ["a"]}}, r"columns: prompt: expected a name, found \['a'\]"),
        ({"file_name": "a.json", "columns": {"images": 3}}, "columns: images: expected a name, found 3"),
        ({"file_name": "a.json", "tags": {"role_tag": ["a"]}}, r"tags: role_tag: expected a name, found \['a'\]"),
        ({"file_name": "a**b"}, r"file_name 'a\*\*b' cannot be looked for"),
        ({"file_name": "长" * 100}, "file_name '长+' cannot be looked for"),
        ({"file_name": "notes.txt"}, "cannot read '.txt' files"),
        ({}, "file_name: expected a file or a folder"),
        ("a.json", "expected an object"),
    ],
)
def test_wrong_entry_says_what_and_where(tmp_path: Path, raw: Any, message: str) -> None:
    whole = registry(tmp_path, {"good": {"file_name": "a.json"}, "bad": raw})
    with pytest.raises(DataError, match=message) as caught:
        whole.entry("bad")
    assert str(tmp_path / "dataset_info.json") in str(caught.value)
    assert "'bad'" in str(caught.value)
    assert whole.entry("good").name == "good"


def test_absent_file_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"gone\.json"):
        registry(tmp_path, {"x": {"file_name": "gone.json"}}).entry("x")


def test_unknown_name_gets_the_nearest_and_the_list(tmp_path: Path) -> None:
    whole = registry(tmp_path, {"defect_train": {"file_name": "a.json"}, "defect_test": {"file_name": "a.json"}})
    with pytest.raises(DataError, match=r"did you mean 'defect_train'.*defect_train, defect_test"):
        whole.entry("defect_trian")


def test_no_registry_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="set dataset_dir"):
        load_registry(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not valid JSON"), ("[" * 3000, "not valid JSON"), ("[]", "expected an object")]
)
def test_broken_registry(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dataset_info.json").write_text(text)
    with pytest.raises(DataError, match=message):
        load_registry(tmp_path)
