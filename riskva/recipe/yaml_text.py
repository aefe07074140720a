"""YAML text as nodes that know their file and line, with scalars as YAML 1.2 reads them.

PyYAML follows YAML 1.1, where `no` is false and `5e-6` is a word. Here only `true` and `false` are booleans, and every
usual way to write a number is a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from riskva.errors import RecipeError
from riskva.recipe.faults import COMMAND_LINE, Fault, Place

_CORE_TAGS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's parser with the scalar rules of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 PyYAML's own attribute, replaced as a whole


class CoreDumper(yaml.SafeDumper):
    """Writes YAML that reads back the same under YAML 1.1 and 1.2: a text that looks like a number is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never an anchor: a recipe is read by people."""
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        """A list of plain values on one line, any other as a block."""
        node = super().represent_sequence(tag, sequence, flow_style)
        node.flow_style = all(isinstance(item, yaml.ScalarNode) for item in node.value)
        return node


def _register_scalars() -> None:
    for name, pattern, first in _CORE_TAGS:
        firsts = [letter if letter != "\0" else "" for letter in first]
        whole = re.compile(rf"^(?:{pattern})$")
        _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", whole, firsts)
        CoreDumper.add_implicit_resolver(f"tag:yaml.org,2002:{name}", whole, firsts)


def _text_block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_register_scalars()
CoreDumper.add_representer(str, _text_block)


def compose(text: str, name: str) -> yaml.Node | None:
    """The one document in `text` as a node, or None when it is empty; `name` stands in every place.

    Raises `RecipeError` with file and line for text that is no YAML.
    """
    try:
        loader = _CoreLoader(text)
        loader.name = name
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(name, mark.line + 1 if mark and name != COMMAND_LINE else 0)
        raise RecipeError(f"{place}: not valid YAML: {_problem(error)}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: not valid YAML: {error}") from error


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = " ".join(part for part in (error.context, error.problem) if part)
    return f"{problem}; indent with spaces, not tabs" if "'\\t'" in problem else problem


def compose_file(path: Path) -> yaml.Node | None:
    """The document in a UTF-8 file; raises `RecipeError` when it is missing, unreadable or no YAML."""
    try:
        return compose(path.read_text(encoding="utf-8-sig"), str(path))
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: there is no such recipe; give the path of a YAML file") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}; give the path of a YAML file") from error


def place_of(node: yaml.Node) -> Place:
    """Where a node starts."""
    mark = node.start_mark
    return Place(mark.name, 0 if mark.name == COMMAND_LINE else mark.line + 1)


def scalar_value(node: yaml.ScalarNode) -> Any:
    """A scalar as None, bool, int, float or str; raises `ValueError` when its tag and its text disagree."""
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    text = node.value
    match kind:
        case "str":
            return text
        case "null":
            return None
        case "bool" if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case "int":
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        case "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        case _:
            raise ValueError(f"{text!r} with the tag {node.tag} is not allowed in a recipe")


def pairs(node: yaml.MappingNode, within: str = "") -> Iterator[tuple[str, yaml.Node, yaml.Node] | Fault]:
    """Each key of a mapping with its key node and value node; a `Fault` for a key that is no word or stands twice."""
    first_lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        place = place_of(key_node)
        if not isinstance(key_node, yaml.ScalarNode):
            yield Fault(place, f"{within}a key must be a word, found a list or a mapping")
        elif key_node.value == "<<":
            yield Fault(
                place,
                f"{within}<<: merge keys are not supported; put the shared keys into a file and name it in extends",
            )
        elif key_node.value in first_lines:
            yield Fault(
                place, f"{within}{key_node.value}: stands twice, first in line {first_lines[key_node.value]}; keep one"
            )
        else:
            first_lines[key_node.value] = place.line
            yield key_node.value, key_node, value_node
