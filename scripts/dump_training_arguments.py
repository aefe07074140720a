"""Writes riskva/recipe/training_arguments.json: the fields of the installed transformers' TrainingArguments.

Run it after an upgrade of transformers; a test holds the file against the installed library.

    python scripts/dump_training_arguments.py
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from pathlib import Path
from typing import Any

import transformers

from riskva.files import write_json

TARGET = Path(__file__).resolve().parent.parent / "riskva" / "recipe" / "training_arguments.json"

_JSON_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string", dict: "object", list: "array"}


def describe() -> dict[str, Any]:
    """The version of transformers and, by name, each field's JSON types, whether it may be null, and its choices."""
    hints = typing.get_type_hints(transformers.TrainingArguments)
    fields = dataclasses.fields(transformers.TrainingArguments)
    return {
        "transformers": transformers.__version__,
        "fields": {one.name: _describe_field(hints[one.name], one) for one in fields},
    }


def _describe_field(hint: Any, one: dataclasses.Field[Any]) -> dict[str, Any]:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    described: dict[str, Any] = {
        "types": list(dict.fromkeys(name for option in options if (name := _json_type(option)))),
        "nullable": type(None) in options,
    }
    if choices := _choices(options, one):
        described["choices"] = choices
    return described


def _json_type(option: Any) -> str | None:
    if typing.get_origin(option) is typing.Literal:
        return _JSON_TYPES[type(typing.get_args(option)[0])]
    plain = typing.get_origin(option) or option
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        return "string"
    return _JSON_TYPES.get(plain)


def _choices(options: tuple[Any, ...], one: dataclasses.Field[Any]) -> list[str]:
    if "choices" in one.metadata:
        return list(one.metadata["choices"])
    members = [option for option in options if isinstance(option, type) and issubclass(option, enum.Enum)]
    return [member.value for option in members for member in option]


if __name__ == "__main__":
    write_json(TARGET, describe())
    print(f"wrote {TARGET}")
