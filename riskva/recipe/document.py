"""Where a recipe's keys come from: its file, the files that it extends, and the command line, one layer each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from riskva.errors import RecipeError
from riskva.recipe.faults import COMMAND_LINE, Fault, Place, did_you_mean
from riskva.recipe.yaml_text import compose, compose_file, pairs, place_of


@dataclass(frozen=True)
class Entry:
    """One `key: value` of a layer; `parts` are the dotted names behind the key of an override (`split.train=…`)."""

    key: str
    node: yaml.Node
    place: Place
    parts: tuple[str, ...] = ()


@dataclass
class Layers:
    """All keys of a recipe, layer by layer: what is extended first, the command line last; and the faults so far."""

    name: str
    layers: list[list[Entry]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_layers(path: Path, overrides: Sequence[str]) -> Layers:
    """The layers of the recipe at `path` with `key=value` overrides; raises `RecipeError` where YAML cannot be read."""
    found = Layers(str(path))
    _read_file(path, (), found)
    found.layers.append([entry for text in overrides if (entry := _override(text, found.faults))])
    return found


def _read_file(path: Path, chain: tuple[Path, ...], found: Layers) -> None:
    root = compose_file(path)
    if root is None:
        raise RecipeError(f"{path}: the recipe is empty; it needs at least a stage")
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError(f"{place_of(root)}: a recipe is a list of `key: value` lines, found something else")
    entries = []
    for pair in pairs(root):
        if isinstance(pair, Fault):
            found.faults.append(pair)
        elif pair[0] == "extends":
            _read_base(path, pair[2], (*chain, path), found)
        else:
            key, key_node, node = pair
            entries.append(Entry(key, node, place_of(key_node)))
    found.layers.append(entries)


def _read_base(path: Path, node: yaml.Node, chain: tuple[Path, ...], found: Layers) -> None:
    place = place_of(node)
    if not isinstance(node, yaml.ScalarNode) or not node.value:
        raise RecipeError(f"{place}: extends: expected the path of one recipe, relative to this file")
    base = Path(os.path.normpath(path.parent / node.value))
    if base.resolve() in [one.resolve() for one in chain]:
        raise RecipeError(f"{place}: extends: a loop: {' -> '.join(str(one) for one in (*chain, base))}")
    if not base.is_file():
        names = [one.name for one in base.parent.glob("*.y*ml")]
        raise RecipeError(f"{place}: extends: there is no {base}{did_you_mean(base.name, names)}")
    _read_file(base, chain, found)


def _override(text: str, faults: list[Fault]) -> Entry | None:
    name, equals, value = text.partition("=")
    key, *parts = name.strip().split(".")
    place = Place(COMMAND_LINE)
    if not equals or not key or not all(parts):
        faults.append(Fault(place, f"{text!r}: expected key=value, such as learning_rate=1e-5 or split.train=0.7"))
    elif key == "extends":
        faults.append(Fault(place, "extends: only a recipe file can extend another"))
    else:
        node = compose(value, COMMAND_LINE) or compose("null", COMMAND_LINE)
        assert node is not None, "a document of one word is a node"
        return Entry(key, node, place, tuple(parts))
    return None


def with_parts(base: yaml.Node | None, entry: Entry) -> yaml.Node | Fault:
    """`base` with the value that a dotted override sets inside it; a `Fault` where there is no mapping to set it in."""
    return _set_inside(base, entry.parts, entry.node, entry.key)


def _set_inside(base: yaml.Node | None, parts: tuple[str, ...], node: yaml.Node, path: str) -> yaml.Node | Fault:
    if not parts:
        return node
    if base is not None and not isinstance(base, yaml.MappingNode):
        return Fault(Place(COMMAND_LINE), f"{path}.{'.'.join(parts)}: {path} is no mapping; set {path} as a whole")
    items = [] if base is None else list(base.value)
    old = next((value for key, value in items if key.value == parts[0]), None)
    new = _set_inside(old, parts[1:], node, f"{path}.{parts[0]}")
    if isinstance(new, Fault):
        return new
    added = (yaml.ScalarNode("tag:yaml.org,2002:str", parts[0], node.start_mark, node.end_mark), new)
    # In its place: the order of a mapping may mean something, as that of the runs to compare does
    changed = [added if key.value == parts[0] else (key, value) for key, value in items]
    mark = base.start_mark if base is not None else node.start_mark
    pairs = changed if old is not None else [*changed, added]
    return yaml.MappingNode("tag:yaml.org,2002:map", pairs, mark, node.end_mark)
