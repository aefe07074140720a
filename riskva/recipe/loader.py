"""A recipe file and overrides become one frozen, typed recipe, or one error that lists everything wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from riskva.errors import RecipeError
from riskva.recipe.document import Entry, read_layers
from riskva.recipe.faults import Fault, Place, did_you_mean, raise_faults
from riskva.recipe.job import Job, choose_job
from riskva.recipe.keys import MODES, STAGES, StageKeys, stage_keys, stages_with
from riskva.recipe.llamafactory import IGNORED, NOT_OFFERED, asks_for_nothing, foreign_keys
from riskva.recipe.stages import Recipe
from riskva.recipe.training_fields import RISKVA_SETS
from riskva.recipe.translations import NO_VALUE, REMOVED, TRANSLATIONS, merge_layers
from riskva.recipe.values import MISFIT, ValueReader


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe with where each key was set (`file:line` or `command line`, by flat key), and what to warn of."""

    recipe: Recipe
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """The recipe in the YAML file `path`, with `key=value` overrides on top.

    Raises `RecipeError` with every fault of the recipe, one a line, each with its file and line.
    """
    layers = read_layers(path, overrides)
    job = choose_job(layers.name, merge_layers(layers, {})[0])
    keys = stage_keys(job.stage)
    entries, faults = merge_layers(layers, keys.defaults)
    reading = _Reading(job, keys)
    reading.read_all(entries)
    faults += [*layers.faults, *job.faults, *reading.faults(), *reading.missing(layers.name, entries)]
    faults += reading.clashes(layers.name, entries)
    faults += _deepspeed_faults(reading.values.get("deepspeed"), entries)
    raise_faults(faults)
    origins = {key: str(entries[key].place) for key in reading.values}
    if "stage" in entries:
        origins["stage"] = str(entries["stage"].place)
    return LoadedRecipe(_build(layers.name, keys, reading.values), origins, (*job.warnings, *reading.warnings))


@dataclass
class _Reading:
    """The values of one recipe, key by key; a key that is wrong stands in `failed` instead."""

    job: Job
    keys: StageKeys
    values: dict[str, Any] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = ValueReader(self.keys.definitions)

    def faults(self) -> list[Fault]:
        """What was wrong with single keys."""
        return [*self.notes, *self._reader.faults]

    def read_all(self, entries: Mapping[str, Entry]) -> None:
        """Reads every entry into `values`, `warnings` or the faults."""
        for key, entry in entries.items():
            if key in self.keys.schemas and key != "stage":
                self._read_known(key, entry)
            elif key not in (*MODES, "stage"):
                self._judge_unknown(entry)

    def _read_known(self, key: str, entry: Entry) -> None:
        translation = TRANSLATIONS.get(entry.key)
        schema = (translation.schema if translation else None) or self.keys.schemas[key]
        value = self._reader.read(entry.key, entry.node, schema)
        if value is MISFIT:
            self.failed.add(key)
            return
        if translation:
            value = translation.convert(value)
        elif isinstance(value, str) and key == "report_to" and "," in value:
            value = [name.strip() for name in value.split(",")]
        if value is not None and value is not NO_VALUE:
            self.values[key] = value

    def _judge_unknown(self, entry: Entry) -> None:
        key = entry.key
        if key in IGNORED:
            self._warn(entry, f"ignored: {IGNORED[key]}")
        elif self.job.borrowed and "sft" in stages_with(key):
            self._warn(entry, f"ignored: it belongs to training, and this recipe runs {self.job.stage}")
        elif self.job.stage == "sft" and (key in RISKVA_SETS or key in REMOVED):
            holds, reason = {**RISKVA_SETS, **REMOVED}[key]
            if self._free_value(entry) not in (holds, None):
                self._fault(entry, f"RisKVA always has {json.dumps(holds)} here: {reason}; leave the key out")
        elif key in foreign_keys():
            if not asks_for_nothing(key, self._free_value(entry)):
                why = f"does not offer it: {NOT_OFFERED[key]}" if key in NOT_OFFERED else "does not (yet)"
                self._fault(entry, f"LLaMA-Factory knows this key, RisKVA {why}; leave it out or at its default")
        elif stages := stages_with(key):
            self._fault(entry, f"belongs to stage {' and '.join(stages)}, and this recipe is stage {self.job.stage}")
        else:
            self._fault(entry, f"unknown key{did_you_mean(key, self.keys.names())}")

    def _free_value(self, entry: Entry) -> Any:
        return ValueReader({}).read(entry.key, entry.node, {})

    def _fault(self, entry: Entry, text: str) -> None:
        self.notes.append(Fault(entry.place, f"{entry.key}: {text}"))

    def _warn(self, entry: Entry, text: str) -> None:
        self.warnings.append(f"{entry.place}: {entry.key}: {text}")

    def missing(self, name: str, entries: Mapping[str, Entry]) -> Iterator[Fault]:
        """A fault for every key that the stage needs and the recipe does not set."""
        for key in self.keys.required:
            if key != "stage" and key not in self.values and key not in self.failed:
                described = self.keys.own[key].get("description", "")
                place = entries[key].place if key in entries else Place(name)
                yield Fault(place, f"{key}: missing; stage {self.job.stage} needs it{described and f' ({described})'}")

    def clashes(self, name: str, entries: Mapping[str, Entry]) -> Iterator[Fault]:
        """A fault for every set of keys that do not fit together, at the last of them that the recipe sets."""
        values = {key: value for key, value in {**self.keys.defaults, **self.values}.items() if key not in self.failed}
        for clash in STAGES[self.job.stage].clashes(values):
            key = next((one for one in clash.keys if one in entries), clash.keys[0])
            place = entries[key].place if key in entries else Place(name)
            yield Fault(place, f"{key}: {clash.text}")


def _deepspeed_faults(setting: Any, entries: Mapping[str, Entry]) -> Iterator[Fault]:
    if not isinstance(setting, str):
        return
    place, path = entries["deepspeed"].place, Path(setting)
    if not path.is_file():
        names = {one.name: one for one in path.parent.glob("*.json")}
        yield Fault(place, f"deepspeed: there is no {path}{did_you_mean(path.name, names)}")
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        yield Fault(place, f"deepspeed: {path} is not JSON: {error}")
        return
    if not isinstance(content, dict):
        yield Fault(place, f"deepspeed: {path} must hold one JSON object")


def _build(name: str, keys: StageKeys, values: Mapping[str, Any]) -> Recipe:
    own = {key: value for key, value in values.items() if key in keys.own}
    if keys.training:
        own["training"] = {key: value for key, value in values.items() if key in keys.training}
    try:
        return STAGES[keys.stage](stage=keys.stage, **own)
    except ValidationError as error:
        texts = [f"{name}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise RecipeError("\n".join(texts)) from error
