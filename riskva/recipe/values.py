"""YAML nodes become plain values that fit a JSON schema; what does not fit is reported in words for a person.

The schemas are those of the recipe classes (pydantic writes them) and of transformers' TrainingArguments. What a plain
word means follows from what is expected: `no` is a word for `save_strategy` and false for `bf16`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from riskva.recipe.faults import Fault, did_you_mean
from riskva.recipe.yaml_text import pairs, place_of, scalar_value

Schema = Mapping[str, Any]


class Misfit:
    """Stands for a value that does not fit; its fault has been noted."""


MISFIT: Final = Misfit()

_WORDS = {"yes": True, "on": True, "no": False, "off": False}

_NUM_CHOICES = 12
"""How many choices a message lists; transformers knows some forty optimizers."""

_WORD_FOR = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "a text",
    "object": "a mapping",
}


class ValueReader:
    """Reads nodes against schemas; `faults` collects what is wrong."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self.faults: list[Fault] = []
        self._definitions = definitions
        self._open: list[yaml.Node] = []

    def read(self, path: str, node: yaml.Node, schema: Schema) -> Any:
        """The value of `node`, or `MISFIT`; `path` names it in messages (`split.train`, `answer_fields item 2`)."""
        if node in self._open:
            return self._misfit(node, f"{path}: an alias that holds itself")
        self._open.append(node)
        try:
            return self._read(path, node, tuple(self._options(schema)))
        finally:
            self._open.pop()

    def _options(self, schema: Schema) -> Iterator[Schema]:
        if "$ref" in schema:
            yield from self._options(self._definitions[schema["$ref"].rsplit("/", 1)[-1]])
        elif "anyOf" in schema:
            for option in schema["anyOf"]:
                yield from self._options(option)
        else:
            yield schema

    def _read(self, path: str, node: yaml.Node, options: Sequence[Schema]) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._read_scalar(path, node, options)
        kind = "array" if isinstance(node, yaml.SequenceNode) else "object"
        option = next((one for one in options if one.get("type", kind) == kind), None)
        if option is None:
            found = "a list" if kind == "array" else "a mapping"
            return self._misfit(node, f"{path}: expected {self.expected(options)}, found {found}")
        if isinstance(node, yaml.MappingNode):
            return self._read_mapping(path, node, option)
        return self._read_list(path, node, option)

    def _read_scalar(self, path: str, node: yaml.ScalarNode, options: Sequence[Schema]) -> Any:
        try:
            value = scalar_value(node)
        except ValueError as error:
            return self._misfit(node, f"{path}: {error}")
        for option in options:
            fitted = _fit(value, node, option)
            if fitted is not MISFIT:
                return fitted
        expected = self.expected(options)
        if value is None:
            return self._misfit(node, f"{path}: no value given; expected {expected} (or leave the key out)")
        choices = [choice for one in options for choice in _choices(one)]
        hint = did_you_mean(str(value), map(str, choices)) if choices else ""
        return self._misfit(node, f"{path}: expected {expected}, found {_found(value, node)}{hint}")

    def _read_list(self, path: str, node: yaml.Node, option: Schema) -> Any:
        schemas = option.get("prefixItems") or [option.get("items", {})] * len(node.value)
        if not option.get("minItems", 0) <= len(node.value) <= option.get("maxItems", math.inf):
            return self._misfit(node, f"{path}: expected {self.expected([option])}, found {len(node.value)} value(s)")
        values = [
            self.read(f"{path} item {number}", item, schema)
            for number, (item, schema) in enumerate(zip(node.value, schemas, strict=True), start=1)
        ]
        return MISFIT if any(value is MISFIT for value in values) else values

    def _read_mapping(self, path: str, node: yaml.MappingNode, option: Schema) -> Any:
        known = option.get("properties", {})
        others = option.get("additionalProperties", {})
        values: dict[str, Any] = {}
        for pair in pairs(node, f"{path}: "):
            if isinstance(pair, Fault):
                self.faults.append(pair)
                values[""] = MISFIT
            elif pair[0] not in known and others is False:
                text = f"{path}: {pair[0]}: unknown key{did_you_mean(pair[0], known)}"
                values[pair[0]] = self._misfit(pair[1], text)
            else:
                inner = f"{path}.{pair[0]}"
                values[pair[0]] = self.read(inner, pair[2], known.get(pair[0], others if others is not True else {}))
        for name in option.get("required", []):
            if name not in values:
                values[name] = self._misfit(node, f"{path}: {name}: missing")
        return MISFIT if any(value is MISFIT for value in values.values()) else values

    def _misfit(self, node: yaml.Node, text: str) -> Misfit:
        self.faults.append(Fault(place_of(node), text))
        return MISFIT

    def expected(self, options: Sequence[Schema]) -> str:
        """What a value should be, in words: `a whole number greater than 0`."""
        phrases = [self._phrase(option) for option in options if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(phrases))

    def _phrase(self, option: Schema) -> str:
        if choices := _choices(option):
            shown = [*choices[:_NUM_CHOICES], "…"] if len(choices) > _NUM_CHOICES else choices
            return f"one of {', '.join(map(str, shown))}" if len(choices) > 1 else str(choices[0])
        if option.get("type") == "array":
            return self._list_phrase(option)
        if "pattern" in option:
            return f"a text such as {' or '.join(option['examples'])}"
        word = "a path" if option.get("format") == "path" else _WORD_FOR[option.get("type", "object")]
        return f"{word}{_range_words(option)}"

    def _list_phrase(self, option: Schema) -> str:
        if "prefixItems" in option:
            inner = self.expected(list(self._options(option["prefixItems"][0])))
            return f"a list of {len(option['prefixItems'])} values, each {inner}"
        inner = self.expected(list(self._options(option.get("items", {"type": "string"}))))
        return f"a list of {inner.removeprefix('a ')}s" if inner.startswith("a ") else "a list"


def _choices(option: Schema) -> list[Any]:
    return list(option.get("enum", [option["const"]] if "const" in option else []))


def _range_words(option: Schema) -> str:
    words = [
        text.format(option[name])
        for name, text in (
            ("minimum", "of at least {:g}"),
            ("exclusiveMinimum", "greater than {:g}"),
            ("maximum", "at most {:g}"),
            ("exclusiveMaximum", "below {:g}"),
        )
        if name in option
    ]
    return f" {' and '.join(words)}" if words else ""


def _found(value: Any, node: yaml.ScalarNode) -> str:
    return repr(value) if isinstance(value, str) else node.value


def _fit(value: Any, node: yaml.ScalarNode, option: Schema) -> Any:
    """`value` as `option` wants it, or `MISFIT`."""
    fitted = _fit_type(value, node, option.get("type"))
    if fitted is MISFIT:
        return MISFIT
    choices = _choices(option)
    return fitted if (not choices or fitted in choices) and _within(fitted, option) else MISFIT


def _fit_type(value: Any, node: yaml.ScalarNode, kind: str | None) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fitted: Any = MISFIT
    match kind:
        case None:
            fitted = value
        case "null" if value is None:
            fitted = value
        case "boolean" if isinstance(value, bool):
            fitted = value
        case "boolean" if isinstance(value, str) and node.style is None:
            fitted = _WORDS.get(value.lower(), MISFIT)
        case "integer" if is_number and value == value // 1:
            fitted = int(value)
        case "number" if is_number and not math.isnan(value):
            fitted = value
        case "string" if isinstance(value, str) or is_number:
            fitted = node.value
    return fitted


_LIMITS: Mapping[str, Callable[[Any, Any], bool]] = {
    "minimum": operator.ge,
    "exclusiveMinimum": operator.gt,
    "maximum": operator.le,
    "exclusiveMaximum": operator.lt,
}


def _within(value: Any, option: Schema) -> bool:
    fits = "pattern" not in option or re.search(option["pattern"], value) is not None
    return fits and all(holds(value, option[name]) for name, holds in _LIMITS.items() if name in option)
