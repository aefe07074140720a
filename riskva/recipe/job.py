"""Which job a recipe asks for: by its `stage`, or the way LLaMA-Factory's own recipes say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from riskva.recipe.document import Entry
from riskva.recipe.faults import Fault, Place, did_you_mean, raise_faults
from riskva.recipe.keys import MODES, STAGES
from riskva.recipe.llamafactory import OTHER_STAGES
from riskva.recipe.values import MISFIT, ValueReader


@dataclass
class Job:
    """The stage of a recipe.

    `borrowed` is true where the recipe is LLaMA-Factory's and names no stage of ours; it may then hold keys of training
    that mean nothing to this stage.
    """

    stage: str
    borrowed: bool = False
    warnings: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def choose_job(name: str, entries: Mapping[str, Entry]) -> Job:
    """The job that the recipe `name` asks for; raises `RecipeError` when it asks for none or for an unknown one."""
    reader = ValueReader({})
    flags = {
        key: reader.read(key, entries[key].node, {"anyOf": [{"type": "boolean"}, {"type": "null"}]})
        for key in MODES
        if key in entries
    }
    wanted = {key for key, value in flags.items() if value is True}
    stage = _stage_name(name, entries, wanted)
    if stage == "sft":
        job = _sft_job(name, entries, flags)
    elif "stage" not in entries:
        job = Job(stage, borrowed=True)
    else:
        job = Job(stage, faults=_native_faults(stage, entries, wanted))
    job.faults += reader.faults
    if flags.get("predict_with_generate") is False and job.stage in ("predict", "eval"):
        text = "predict_with_generate: RisKVA's predictions are always generated; leave the key out"
        job.faults.append(Fault(entries["predict_with_generate"].place, text))
    return job


def _stage_name(name: str, entries: Mapping[str, Entry], wanted: set[str]) -> str:
    entry = entries.get("stage")
    if entry is None:
        if "export_dir" in entries:
            return "export"
        if wanted & {"do_train", "do_predict"}:
            return "sft"
        raise_faults([Fault(Place(name), f"stage: missing; one of {', '.join(STAGES)}")])
        raise AssertionError("a fault is raised")
    reader = ValueReader({})
    stage = reader.read("stage", entry.node, {"type": "string"})
    if stage is MISFIT:
        reader.faults[:] = [Fault(entry.place, f"stage: expected one of {', '.join(STAGES)}")]
    elif stage in OTHER_STAGES:
        text = f"stage: LLaMA-Factory has {stage}, RisKVA has not (yet); it has {', '.join(STAGES)}"
        reader.faults.append(Fault(entry.place, text))
    elif stage not in STAGES:
        hint = did_you_mean(stage, STAGES)
        reader.faults.append(Fault(entry.place, f"stage: expected one of {', '.join(STAGES)}, found {stage!r}{hint}"))
    raise_faults(reader.faults)
    return str(stage)


def _sft_job(name: str, entries: Mapping[str, Entry], flags: Mapping[str, object]) -> Job:
    trains, predicts = flags.get("do_train"), flags.get("do_predict")
    if trains is True and predicts is True:
        text = "do_predict: training and predicting are two recipes here; write a second one with `stage: eval`"
        return Job("sft", faults=[Fault(entries["do_predict"].place, text)])
    if predicts is True:
        return Job("eval", borrowed=True)
    job = Job("sft")
    if trains is False:
        text = "do_train: is false, so there is nothing to do; set do_train or do_predict, or use `stage: eval`"
        job.faults.append(Fault(entries["do_train"].place, text))
    if flags.get("do_eval") is True:
        job.warnings.append(f"{entries['do_eval'].place}: do_eval: ignored: eval_strategy says when to evaluate")
    return job


def _native_faults(stage: str, entries: Mapping[str, Entry], wanted: set[str]) -> list[Fault]:
    fitting = {"do_predict", "do_eval", "predict_with_generate"} if stage in ("predict", "eval") else set()
    return [
        Fault(entries[key].place, f"{key}: contradicts stage: {stage}; leave it out")
        for key in sorted(wanted - fitting)
    ]
