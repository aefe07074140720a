from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from riskva.errors import RecipeError
from riskva.recipe.yaml_text import CoreDumper, compose, compose_file, scalar_value


def read(text: str) -> Any:
    node = compose(text, "x.yaml")
    assert isinstance(node, yaml.ScalarNode)
    return scalar_value(node)


# The examples of the core schema in chapter 10.3.2 of YAML 1.2.2, and what PyYAML is known to read otherwise.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None),
        ("null", None),
        ("NULL", None),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("5e-6", 5e-6),
        ("1.0e-4", 1e-4),
        ("+12e03", 12000.0),
        ("-2E+05", -200000.0),
        ("0.", 0.0),
        (".5", 0.5),
        ("0o7", 7),
        ("0x3A", 58),
        ("-19", -19),
        ("010", 10),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("e5", "e5"),
        ("1-2-301", "1-2-301"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    found = read(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(read(".nan"))


@pytest.mark.parametrize(
    "word", ["no", "off", "5e-6", "1e3", "0o7", "true", "null", "12:30", "", "~", ".inf", "a: b", "#"]
)
def test_a_dumped_text_reads_back_as_the_same_text_in_both_versions_of_yaml(word: str) -> None:
    text = yaml.dump(word, Dumper=CoreDumper)
    assert read(text) == word
    assert yaml.safe_load(text) == word


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n\tb: 2\n", "x.yaml:2: not valid YAML: .*indent with spaces, not tabs"),
        ("a: 1\nb: [1, 2\n", "x.yaml:3: not valid YAML: while parsing a flow sequence"),
        ("a: 'b\n", "x.yaml:2: not valid YAML: while scanning a quoted scalar"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: not valid YAML: expected a single document"),
        ("a: *b\n", "x.yaml:1: not valid YAML: found undefined alias"),
        ("a: \x00\n", "x.yaml: not valid YAML: unacceptable character"),
    ],
)
def test_broken_yaml_is_located(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"^{message}"):
        compose(text, "x.yaml")


def test_python_tags_are_refused() -> None:
    with pytest.raises(ValueError, match="not allowed in a recipe"):
        read("!!python/name:os.system x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such recipe; give the path of a YAML file"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_bytes("名: 值".encode("gbk")), "not UTF-8 text .* save it as UTF-8"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "r.yaml"
    make(path)
    with pytest.raises(RecipeError, match=f"r.yaml: {message}"):
        compose_file(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("stage: sft", encoding="utf-8-sig")
    node = compose_file(path)
    assert isinstance(node, yaml.MappingNode)
    assert node.value[0][0].value == "stage"
