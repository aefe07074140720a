"""dataset_info.json: which files a data set's name stands for, and what their columns and roles are called.

The format is LLaMA-Factory's (its data/README.md), accepted unchanged. RisKVA reads local files only: an entry that
points at a hub may stand in the file, but asking for it is an error.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from riskva.errors import DataError, MissingDataError
from riskva.paths import is_file

REGISTRY_NAME = "dataset_info.json"

LENGTHS_FOLDER = ".riskva_lengths"
"""The folder beside it in which training keeps how long rows are; see `riskva.encoding.length_cache`."""

FEATURES_FOLDER = "vision_cache"
"""The folder beside it in which training keeps what a vision tower made of photos, unless a recipe names another."""

Formatting = Literal["alpaca", "sharegpt", "openai"]

DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class Columns:
    """What an entry's columns are called; None where a data set has no such column."""

    prompt: str = "instruction"
    query: str | None = "input"
    response: str | None = "output"
    history: str | None = None
    messages: str = "conversations"
    system: str | None = None
    tools: str | None = None
    images: str | None = None


@dataclass(frozen=True)
class Tags:
    """How a turn says who speaks (`role`) and what (`content`), and what each speaker is called."""

    role: str = "from"
    content: str = "value"
    user: str = "human"
    assistant: str = "gpt"
    system: str = "system"
    observation: str = "observation"
    function: str = "function_call"


_OPENAI_TAGS = Tags("role", "content", "user", "assistant")


@dataclass(frozen=True)
class DatasetEntry:
    """One data set: its name, its files in reading order, and how their rows are to be read."""

    name: str
    files: tuple[Path, ...]
    formatting: Formatting = "alpaca"
    columns: Columns = Columns()
    tags: Tags = Tags()
    num_samples: int | None = None


@dataclass(frozen=True)
class Registry:
    """A dataset_info.json. An entry is checked when it is asked for, so a broken one does not bar the others."""

    path: Path
    entries: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.entries)

    def entry(self, name: str) -> DatasetEntry:
        """The data set called `name`.

        Raises `DataError` when there is none, when the entry is wrong, or when it is of a kind that RisKVA does not
        read, and `MissingDataError` when its files are not there.
        """
        if name not in self.entries:
            near = f"did you mean {nearest!r}? " if (nearest := closest(name, self.names)) else ""
            raise DataError(f"{self.path}: no data set {name!r}; {near}It has: {', '.join(self.names) or 'none'}")
        return _entry(name, self.entries[name], self.path)


def load_registry(dataset_dir: Path) -> Registry:
    """The data sets that `dataset_dir`/dataset_info.json names.

    Raises `MissingDataError` without such a file, and `DataError` when it is not a JSON object.
    """
    path = dataset_dir / REGISTRY_NAME
    if not is_file(path):
        raise MissingDataError(
            f"{path}: no such file; set dataset_dir to the folder that holds it (the output_dir of `stage: prepare`)"
        )
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(entries, dict):
        raise DataError(f"{path}: expected an object of data sets by name, found {type(entries).__name__}")
    return Registry(path, entries)


def prepared_entry(file_name: str, images: str | None) -> dict[str, Any]:
    """The registry entry of a file that `stage: prepare` wrote, ready for JSON; `images` is its column of photos."""
    return {
        "file_name": file_name,
        "formatting": "sharegpt",
        "columns": {"messages": "messages"} | ({"images": images} if images else {}),
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }


def closest(word: str, words: Sequence[str]) -> str | None:
    """The one of `words` that `word` may be a slip of, or None."""
    return next(iter(difflib.get_close_matches(word, words, n=1, cutoff=0.6)), None)


_HUB_KEYS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
# `split`, `subset` and `folder` choose within a hub's repository and mean nothing for a local file.
_ENTRY_KEYS = ("file_name", "formatting", "columns", "tags", "num_samples", "ranking", "split", "subset", "folder")
_COLUMN_KEYS = ("prompt", "query", "response", "history", "messages", "system", "tools", "images")
_FOREIGN_COLUMNS = ("videos", "audios", "chosen", "rejected", "kto_tag")


def _entry(name: str, raw: Any, path: Path) -> DatasetEntry:
    where = f"{path}: data set {name!r}"
    if not isinstance(raw, dict):
        raise DataError(f"{where}: expected an object, found {type(raw).__name__}")
    _refuse_foreign(raw, where)
    _check_keys(raw, (*_ENTRY_KEYS, *_HUB_KEYS), where)
    formatting = raw.get("formatting", "alpaca")
    if formatting not in get_args(Formatting):
        raise DataError(f"{where}: formatting {formatting!r} is none of {', '.join(get_args(Formatting))}")
    return DatasetEntry(
        name,
        _files(raw, path.parent, where),
        formatting,
        _columns(_object(raw, "columns", where), formatting, where),
        _tags(_object(raw, "tags", where), formatting, where),
        _num_samples(raw.get("num_samples"), where),
    )


def _refuse_foreign(raw: Mapping[str, Any], where: str) -> None:
    if "file_name" not in raw and (hub := next((key for key in _HUB_KEYS if raw.get(key)), None)):
        raise DataError(
            f"{where}: {hub} {raw[hub]!r}: RisKVA reads local files; download the data and name it with file_name"
        )
    if raw.get("ranking"):
        raise DataError(f"{where}: ranking: true: RisKVA reads single answers, not pairs to be preferred")


def _check_keys(raw: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in raw:
        if key not in known:
            near = f", did you mean {nearest!r}?" if (nearest := closest(key, known)) else ""
            raise DataError(f"{where}: unknown key {key!r}{near} Known: {', '.join(known)}")


def _check_names(raw: Mapping[str, Any], where: str) -> None:
    for key, value in raw.items():
        if value is not None and not isinstance(value, str):
            raise DataError(f"{where}: {key}: expected a name, found {value!r}")


def _object(raw: Mapping[str, Any], key: str, where: str) -> dict[str, Any] | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, dict):
        raise DataError(f"{where}: {key}: expected an object, found {value!r}")
    return value


def _columns(raw: dict[str, Any] | None, formatting: Formatting, where: str) -> Columns:
    """As LLaMA-Factory reads them: once `columns` stands there, an optional column that it leaves out is not used."""
    messages = "messages" if formatting == "openai" else "conversations"
    if raw is None:
        return Columns(messages=messages)
    if foreign := next((key for key in _FOREIGN_COLUMNS if raw.get(key)), None):
        raise DataError(f"{where}: columns: {foreign}: RisKVA reads photos with single answers, and no {foreign}")
    _check_keys(raw, (*_COLUMN_KEYS, *_FOREIGN_COLUMNS), f"{where}: columns")
    _check_names(raw, f"{where}: columns")
    optional = {key: raw.get(key) for key in _COLUMN_KEYS if key not in ("prompt", "messages")}
    return Columns(prompt=raw.get("prompt") or Columns.prompt, messages=raw.get("messages") or messages, **optional)


def _tags(raw: dict[str, Any] | None, formatting: Formatting, where: str) -> Tags:
    defaults = _OPENAI_TAGS if formatting == "openai" else Tags()
    if raw is None:
        return defaults
    names = tuple(Tags.__dataclass_fields__)
    _check_keys(raw, [f"{name}_tag" for name in names], f"{where}: tags")
    _check_names(raw, f"{where}: tags")
    return Tags(**{name: raw.get(f"{name}_tag") or getattr(defaults, name) for name in names})


def _num_samples(value: Any, where: str) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise DataError(f"{where}: num_samples: expected a whole number above 0, found {value!r}")
    return value


def _files(raw: Mapping[str, Any], folder: Path, where: str) -> tuple[Path, ...]:
    """The files that `file_name` stands for: a file, the data files of a folder, or those that a pattern matches."""
    file_name = raw.get("file_name")
    if not isinstance(file_name, str) or not file_name:
        raise DataError(f"{where}: file_name: expected a file or a folder, found {file_name!r}")
    path = folder / file_name
    try:
        found = _found(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{where}: file_name {file_name!r} cannot be looked for: {error}") from error
    if not found:
        what = f"no {', '.join(DATA_SUFFIXES)} file in it" if path.is_dir() else "no such file or folder"
        raise MissingDataError(f"{where}: file_name {file_name!r}: {path}: {what}")
    if wrong := next((one for one in found if one.suffix.lower() not in DATA_SUFFIXES), None):
        raise DataError(f"{where}: {wrong}: cannot read {wrong.suffix!r} files, only {', '.join(DATA_SUFFIXES)}")
    return tuple(found)


def _found(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        candidates = sorted(one for one in path.iterdir() if one.suffix.lower() in DATA_SUFFIXES)
        return [one for one in candidates if one.name != REGISTRY_NAME]
    return sorted(path.parent.glob(path.name)) if path.parent.is_dir() else []
